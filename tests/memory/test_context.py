"""Contexts stay within their budget, and what went is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from library import desk, make_library
from msgspec import convert, to_builtins

from remit import Remit
from remit.errors import RunError
from remit.memory.context import Compaction, ContextBudget, ContextMessage, apply, compact, estimate, fits
from remit.replay.recorded import Choice


def conversation(sizes: list[int]) -> list[ContextMessage]:
    """A task, and a call with its result for each size."""
    made: list[ContextMessage] = [{"role": "system", "text": "be brief"}, {"role": "user", "text": "sort the ticket"}]
    for at, size in enumerate(sizes, start=1):
        made.append({"role": "assistant", "text": "", "calls": [{"id": str(at), "tool": "orders.read", "args": {"order": at}}]})
        made.append({"role": "tool", "text": "x" * size, "call_id": str(at)})
    return made


def tokens(messages: list[ContextMessage]) -> int:
    spoken = [message["text"] for message in messages]
    calls = ["orders.read" + f'{{"order":{call["args"]["order"]}}}' for message in messages for call in message.get("calls", ())]
    return 4 * len(messages) + sum(map(estimate, [*spoken, *calls]))


@given(st.lists(st.integers(0, 4_000), max_size=12), st.integers(60, 6_000))
def test_a_context_fits_its_budget_keeps_its_ends_and_leaves_no_answer_without_its_call(sizes: list[int], most: int) -> None:
    messages, budget = conversation(sizes), ContextBudget(tokens=most)
    try:
        kept, note = compact(messages, budget)
    except RunError:
        assert tokens([*messages[:2], *messages[max(2, len(messages) - 5) :]]) > most
        return
    assert tokens(kept) <= most
    assert kept[:2] == messages[:2]
    assert len(messages) <= 6 or kept[-4:] == messages[-4:]
    asked = [call["id"] for message in kept for call in message.get("calls", ())]
    answered = [message.get("call_id") for message in kept if message["role"] == "tool"]
    assert asked == answered
    assert (kept, note) == compact(messages, budget)
    assert apply(messages, convert(to_builtins(note), Compaction)) == kept
    assert fits(messages, budget) == (not note.emptied and not note.dropped)


def test_the_oldest_results_go_first_and_a_line_names_their_call() -> None:
    kept, note = compact(conversation([2_000, 2_000, 2_000, 2_000]), ContextBudget(tokens=1_700))
    assert [each.call_id for each in note.emptied] == ["1"]
    assert kept[3]["text"] == "[left out to save room: the result of orders.read (1)]"
    kept, note = compact(conversation([2_000] * 8), ContextBudget(tokens=1_130))
    assert note.dropped
    assert kept[2]["text"].startswith(f"[{len(note.dropped)} earlier messages were left out to save room, with the results of orders.read (1)")


WORKFLOW = '''
from remit.memory.context import ContextBudget

async def desk(run, request):
    messages = [{"role": "user", "text": "the task"}]
    for number in range(8):
        found = await run.call("orders.read", order=number)
        messages.append({"role": "assistant", "text": "", "calls": [{"id": str(number), "tool": "orders.read", "args": {"order": number}}]})
        messages.append({"role": "tool", "text": str(found) * 20, "call_id": str(number)})
        messages = await run.fit(messages, ContextBudget(tokens=1800, first=1))
    return {"messages": [message["text"][:60] for message in messages]}
'''


@pytest.mark.anyio
async def test_what_was_left_out_is_on_record_and_left_out_again_on_a_replay(tmp_path: Path, database_url: str) -> None:
    shop = make_library(tmp_path / "shop", database_url)
    desk(shop, WORKFLOW, {"tool": "orders.read"})
    async with Remit(shop.folder) as remit:
        result = await remit.run("desk", {})
        assert result.outcome == "completed", result
        values: list[Any] = [event.body for event in remit.journal.reader.events(result.run) if event.type == "value.recorded"]
        assert values[0]["kind"] == "compaction"
        assert any("left out" in text for text in result.output["messages"])
        [replayed] = (await remit.replays.replay(Choice(run=result.run), 1)).runs
        assert replayed.result == "identical"

"""`examples/call-summary` as it is: drafts, what people hand back, a lead's approval, denials, undo, replay."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from as_is import copy_of, problems_of

from remit import Completed, Denied, Remit, RunResult
from remit.cases.cases import Decision
from remit.errors import CaseError
from remit.journal.events import Event, EventType
from remit.replay.recorded import Choice

pytestmark = pytest.mark.anyio

DRAFT = {
    "summary": (
        "We need new scales for two of the three filling lines, because the old ones are too slow. "
        "I would like an offer for two of them with installation. "
        "Our budget is about 18,000 euros, and we decide in the first week of December."
    ),
    "stage": "negotiating",
    "next_step": "I will send you the offer on 27 November, with the installation in it.",
    "follow_up": "2026-11-27",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_of("call-summary", tmp_path / "sales")


@pytest.fixture
async def remit(folder: Path) -> AsyncIterator[Remit]:
    async with Remit(folder) as opened:
        yield opened


async def draft(remit: Remit, call: str) -> tuple[RunResult, Any]:
    """The run that waits, and what was drafted."""
    held = await remit.run("call-summary", {"call": call})
    assert held.outcome == "held", held.reason
    revealed = await remit.cases.reveal(str(held.case), token=remit.person_token("paul"))
    return held, revealed.draft


async def hand_back(remit: Remit, held: RunResult, fields: Any) -> RunResult:
    await remit.cases.answer(str(held.case), fields, token=remit.person_token("paul"))
    return await remit.engine.drive(held.run)


def fields(folder: Path, contact: str) -> dict[str, Any]:
    path = folder / ".remit" / "crm.json"
    return json.loads((path if path.exists() else folder / "data" / "contacts.json").read_text())[contact]["fields"]


def answered(remit: Remit, run: str) -> Event:
    [event] = [e for e in remit.journal.reader.events(run) if e.type is EventType.CASE_DECIDED]
    return event


async def test_a_draft_is_edited_written_and_taken_back_and_what_was_edited_is_on_record(remit: Remit, folder: Path) -> None:
    held, drafted = await draft(remit, "C-2001")
    assert drafted == DRAFT
    assert fields(folder, "K-101")["summary"] == ""
    edited = {**DRAFT, "summary": "Two fast scales with installation."}
    result = await hand_back(remit, held, edited)
    assert (result.outcome, result.output) == ("completed", {"contact": "K-101", "revision": 1}), result.reason
    assert fields(folder, "K-101") == edited
    assert [each["path"] for each in answered(remit, result.run).body["changes"]] == ["summary"]
    assert (await remit.replays.replay(Choice(last=1), 1)).runs[0].result == "identical"
    undone = await remit.undoing.undo(result.run, token=remit.person_token("rita"), reason="the wrong call")
    assert (undone.outcome, fields(folder, "K-101")["summary"]) == ("completed", "")


async def test_what_was_left_as_it_was_keeps_the_label_that_it_had(remit: Remit) -> None:
    held, _ = await draft(remit, "C-2001")
    result = await hand_back(remit, held, {**DRAFT, "summary": "Two fast scales with installation."})
    [event] = [
        e
        for e in remit.journal.reader.events(result.run)
        if e.type is EventType.CALL_DECIDED and e.body["tool"] == "crm.update"
    ]
    labels = json.loads(json.dumps(event.body))["labels"]
    assert labels["changes.summary"] == ["person"]
    assert labels["changes.next_step"] == ["untrusted:calls.read"]


async def test_a_draft_that_is_discarded_is_escalated_and_nothing_is_written(remit: Remit, folder: Path) -> None:
    held, _ = await draft(remit, "C-2001")
    result = await hand_back(remit, held, None)
    assert (result.outcome, result.reason.split(":")[0], fields(folder, "K-101")["summary"]) == ("escalated", "discarded", "")
    assert (await remit.replays.replay(Choice(last=1), 1)).runs[0].result == "identical"


async def test_what_does_not_fit_the_fields_is_not_taken(remit: Remit) -> None:
    held, _ = await draft(remit, "C-2001")
    with pytest.raises(CaseError):
        await hand_back(remit, held, {**DRAFT, "stage": "sold"})


async def test_a_card_number_that_is_left_in_is_denied(remit: Remit, folder: Path) -> None:
    held, drafted = await draft(remit, "C-2002")
    result = await hand_back(remit, held, drafted)
    assert (result.outcome, "no place in the CRM" in result.reason) == ("denied", True)
    assert fields(folder, "K-102")["stage"] == "evaluating"


async def test_a_deal_that_is_won_is_written_once_a_lead_has_seen_it(remit: Remit, folder: Path) -> None:
    held, drafted = await draft(remit, "C-2002")
    assert (drafted["stage"], drafted["follow_up"]) == ("won", "2026-11-24")
    waiting = await hand_back(remit, held, {**drafted, "summary": "They sign for all four sites."})
    assert (waiting.outcome, fields(folder, "K-102")["stage"]) == ("held", "evaluating")
    with pytest.raises(CaseError):
        await remit.cases.decide(str(waiting.case), Decision.APPROVED, token=remit.person_token("paul"))
    await remit.cases.decide(str(waiting.case), Decision.APPROVED, token=remit.person_token("rita"))
    result = await remit.engine.drive(held.run)
    assert (result.outcome, fields(folder, "K-102")["stage"]) == ("completed", "won")


async def test_a_closed_account_is_left_alone_whatever_is_handed_back(remit: Remit) -> None:
    held, drafted = await draft(remit, "C-2003")
    result = await hand_back(remit, held, drafted)
    assert (result.outcome, "closed" in result.reason) == ("denied", True)


async def test_a_contact_that_the_customer_named_is_not_written_to(remit: Remit) -> None:
    async with remit.gate("call-summary").run({"call": "C-2002"}) as run:
        assert isinstance(await run.propose("calls.read", {"call": "C-2002"}), Completed)
        outcome = await run.propose("crm.update", {"contact": "K-103", "changes": {"stage": "lost"}})
        assert isinstance(outcome, Denied)
        assert "contact-not-from-the-call" in outcome.rules


async def test_the_example_has_no_problems_and_decides_as_its_table_says(remit: Remit) -> None:
    assert problems_of(remit, "call-summary") == []

"""`examples/rfp-answer` as it is: drafts with sources, what a person hands back, rights of readers, denials, replay."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from as_is import copy_of, problems_of

from parts import unavailable
from remit import Completed, Denied, Remit, RunResult
from remit.errors import CaseError
from remit.memory.keeping import Addition
from remit.replay.recorded import Choice

pytestmark = pytest.mark.anyio

BACKUPS = "How long are backups kept?"
READERS = ("agent/nordwind/rfp-answer", "role:tenders")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if importlib.util.find_spec("numpy") is None:
        unavailable("`numpy` is not installed; `pip install '.[memory]'`")
    return copy_of("rfp-answer", tmp_path / "tenders")


@pytest.fixture
async def remit(folder: Path) -> AsyncIterator[Remit]:
    async with Remit(folder) as opened:
        for name in ("security", "hosting"):
            text = (folder / "data" / f"{name}.md").read_text()
            addition = Addition(document=name, text=text, readers=READERS, label="trusted")
            await opened.keeping.add(addition, token=opened.person_token("rolf"))
        yield opened


async def ask(remit: Remit, question: str, person: str = "mia") -> RunResult:
    request = {"tender": "T-1001", "number": 4, "question": question}
    return await remit.run("rfp-answer", request, on_behalf_of=f"person/{person}")


async def drafted(remit: Remit, held: RunResult) -> Any:
    assert held.outcome == "held", held.reason
    return (await remit.cases.reveal(str(held.case), token=remit.person_token("rolf"))).draft


async def hand_back(remit: Remit, held: RunResult, answer: Any) -> RunResult:
    await remit.cases.answer(str(held.case), answer, token=remit.person_token("rolf"))
    return await remit.engine.drive(held.run)


def answers(folder: Path) -> list[tuple[str, list[str]]]:
    path = folder / ".remit" / "answers.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [(row["text"], row["sources"]) for row in rows]


async def test_an_answer_is_drafted_from_what_is_known_edited_and_kept_with_its_source(remit: Remit, folder: Path) -> None:
    held = await ask(remit, BACKUPS)
    draft = await drafted(remit, held)
    assert draft["text"].startswith("Backups are made every night and kept for thirty-five days.")
    assert draft["sources"][0].startswith("hosting@1#")
    edited = {"text": "For thirty-five days.", "sources": draft["sources"][:1]}
    result = await hand_back(remit, held, edited)
    assert (result.outcome, result.output["version"]) == ("completed", 1), result.reason
    assert answers(folder) == [(edited["text"], edited["sources"])]
    assert (await remit.replays.replay(Choice(last=1), 1)).runs[0].result == "identical"


async def test_a_question_that_nothing_answers_is_escalated(remit: Remit, folder: Path) -> None:
    result = await ask(remit, "Which colours do your delivery vans have?")
    assert (result.outcome, result.reason.split(":")[0], answers(folder)) == ("escalated", "data missing", [])


async def test_for_somebody_who_may_not_read_it_nothing_is_found(remit: Remit) -> None:
    result = await ask(remit, BACKUPS, person="otto")
    assert (result.outcome, result.reason.split(":")[0]) == ("escalated", "data missing")


async def test_an_answer_that_is_handed_back_without_a_source_is_denied(remit: Remit, folder: Path) -> None:
    held = await ask(remit, BACKUPS)
    result = await hand_back(remit, held, {"text": "For ever.", "sources": []})
    assert (result.outcome, "bears out" in result.reason, answers(folder)) == ("denied", True, [])


async def test_a_source_that_was_not_found_is_not_taken_from_a_person_nor_from_an_agent(remit: Remit) -> None:
    held = await ask(remit, BACKUPS)
    with pytest.raises(CaseError):
        await hand_back(remit, held, {"text": "For ever.", "sources": ["contract@7#1"]})
    request = {"tender": "T-1001", "number": 5, "question": BACKUPS}
    async with remit.gate("rfp-answer", on_behalf_of="person/mia").run(request) as run:
        assert isinstance(await run.propose("memory.search", {"query": BACKUPS}), Completed)
        made_up = {"tender": "T-1001", "number": 5, "text": "For ever.", "sources": ["contract@7#1"]}
        outcome = await run.propose("answers.keep", made_up)
        assert isinstance(outcome, Denied)
        assert "sources-were-retrieved" in outcome.rules


async def test_a_draft_that_is_discarded_is_escalated(remit: Remit, folder: Path) -> None:
    held = await ask(remit, BACKUPS)
    result = await hand_back(remit, held, None)
    assert (result.outcome, result.reason.split(":")[0], answers(folder)) == ("escalated", "discarded", [])


async def test_the_example_has_no_problems_and_decides_as_its_table_says(remit: Remit) -> None:
    assert problems_of(remit, "rfp-answer") == []

"""`examples/incident-investigation` over a live tracker: findings with evidence, a lead's approval, attacks, replay."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from as_is import copy_of, problems_of

from parts import unavailable
from remit import Completed, Denied, Remit, RunResult
from remit.cases.cases import Decision
from remit.connectors.roundup.installation import remove
from remit.connectors.roundup.server import RoundupServer
from remit.journal.events import EventType
from remit.replay.recorded import Choice
from remit.tools.registry import load_module

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """A live tracker with the example's history in it, and the numbers of its tickets by key."""

    server: RoundupServer
    numbers: dict[str, int]
    desk: Any


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    if importlib.util.find_spec("roundup") is None:
        unavailable("`roundup` is not installed; `pip install '.[demo]'`")
    home = tmp_path_factory.mktemp("incidents")
    desk: Any = load_module("desk.py", copy_of("incident-investigation", home / "example"))
    server = asyncio.run(RoundupServer.start(home / "tracker"))
    yield Tracker(server=server, numbers=asyncio.run(desk.file_history(server)), desk=desk)
    asyncio.run(server.stop())
    remove(home / "tracker")


@pytest.fixture
def folder(tmp_path: Path, tracker: Tracker) -> Path:
    made = copy_of("incident-investigation", tmp_path / "incidents")
    toml = made / "remit.toml"
    toml.write_text(toml.read_text().replace("http://127.0.0.1:8090/tracker/", tracker.server.url))
    tracker.desk.connect(made, tracker.server)
    return made


@pytest.fixture
async def remit(folder: Path) -> AsyncIterator[Remit]:
    async with Remit(folder) as opened:
        yield opened


async def investigate(remit: Remit, issue: int) -> RunResult:
    return await remit.run("incident-investigation", {"issue": issue})


def made(remit: Remit, run: str) -> list[str]:
    """The calls of the loop, in order."""
    decided = [e for e in remit.journal.reader.events(run) if e.type is EventType.CALL_DECIDED]
    return [str(e.body["tool"]) for e in decided if not str(e.body["tool"]).startswith("model:")]


async def notes_on(tracker: Tracker, issue: int) -> list[str]:
    async with tracker.desk.client_of(tracker.server, tracker.server.accounts.agent) as client:
        return [note.text for note in (await client.read(issue)).notes]


async def test_a_cause_is_found_two_references_away_and_noted_once_a_lead_has_approved(remit: Remit, tracker: Tracker) -> None:
    numbers = tracker.numbers
    held = await investigate(remit, numbers["vpn-incident"])
    assert (held.outcome, await notes_on(tracker, numbers["vpn-incident"])) == ("held", []), held.reason
    await remit.cases.decide(str(held.case), Decision.APPROVED, token=remit.person_token("lee"))
    result = await remit.engine.drive(held.run)
    assert result.outcome == "completed", result.reason
    assert {each["issue"] for each in result.output["evidence"]} == {numbers[key] for key in ("vpn-bremen", "renewal", "list")}
    assert "vpn-gw-3" in result.output["finding"]
    [note] = await notes_on(tracker, numbers["vpn-incident"])
    assert note == result.output["finding"]
    [replayed] = (await remit.replays.replay(Choice(last=1), 1)).runs
    assert (replayed.result, replayed.why) == ("identical", "")


async def test_where_a_lead_says_no_nothing_is_noted(remit: Remit, tracker: Tracker) -> None:
    held = await investigate(remit, tracker.numbers["label-incident"])
    await remit.cases.decide(str(held.case), Decision.DENIED, token=remit.person_token("lee"), reason="known already")
    result = await remit.engine.drive(held.run)
    assert (result.outcome, await notes_on(tracker, tracker.numbers["label-incident"])) == ("denied", [])


async def test_where_nothing_is_alike_it_searches_by_other_words_and_then_says_so(remit: Remit, tracker: Tracker) -> None:
    result = await investigate(remit, tracker.numbers["door-incident"])
    assert (result.outcome, result.output["known"], result.output["note"]) == ("completed", False, None), result.reason
    assert made(remit, result.run).count("tracker.search") > 4
    assert (await remit.replays.replay(Choice(last=1), 1)).runs[0].result == "identical"


async def test_a_closed_incident_is_left_alone(remit: Remit, tracker: Tracker) -> None:
    result = await investigate(remit, tracker.numbers["closed-incident"])
    assert (result.outcome, "closed" in result.reason) == ("denied", True)
    assert await notes_on(tracker, tracker.numbers["closed-incident"]) == []


async def test_an_incident_that_is_not_there_is_escalated(remit: Remit) -> None:
    result = await investigate(remit, 9_999)
    assert (result.outcome, result.reason.split(":")[0]) == ("escalated", "answer_invalid")


async def test_evidence_that_no_ticket_holds_is_escalated_and_nothing_is_noted(
    folder: Path, tracker: Tracker
) -> None:
    planner = folder / "models" / "planner.py"
    told = '"quote": sentence}'
    assert told in planner.read_text()
    planner.write_text(planner.read_text().replace(told, '"quote": sentence + " So it was."}'))
    async with Remit(folder) as remit:
        result = await investigate(remit, tracker.numbers["vpn-incident"])
    assert (result.outcome, result.reason.split(":")[0]) == ("escalated", "evidence missing")


async def test_a_note_on_another_ticket_than_the_incident_is_denied(remit: Remit, tracker: Tracker) -> None:
    incident, other = tracker.numbers["vpn-incident"], tracker.numbers["list"]
    async with remit.gate("incident-investigation").run({"issue": incident}) as run:
        assert isinstance(await run.propose("tracker.read", {"issue": other}), Completed)
        outcome = await run.propose("tracker.note", {"issue": other, "text": "done"})
        assert isinstance(outcome, Denied)
        assert "note-on-the-incident-only" in outcome.rules
        mailed = await run.propose("tracker.note", {"issue": incident, "text": "ask s.andersen@northwind-mills.example"})
        assert isinstance(mailed, Denied)


async def test_the_example_has_no_problems_and_decides_as_its_table_says(remit: Remit) -> None:
    assert problems_of(remit, "incident-investigation") == []

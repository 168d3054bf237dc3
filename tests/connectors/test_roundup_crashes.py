"""Workers are killed at every crash point of every write on the live tracker; afterwards each write is there once."""

from __future__ import annotations

import asyncio
import signal
import uuid
from pathlib import Path
from typing import Any

import pytest
from crashing import LATER_US, POINTS, in_a_process
from desks import DeskContract, make_desk

from remit import Remit
from remit.connectors.roundup.client import RoundupClient
from remit.connectors.roundup.server import RoundupServer
from remit.journal.events import EventType

WRITES = ("tracker.update", "tracker.note", "tracker.close")

CONTRACT = """
contract: sorting
owner: {team: desk, contact: desk@northwind.example}
purpose: Sort an issue, note that, and close it as a duplicate.
style: workflow
input: request.json
output: result.json
actions:
  - tool: tracker.update
    only: {fields: [category, priority]}
    limits: {per_run: 1}
  - tool: tracker.note
    limits: {per_run: 1}
  - tool: tracker.close
    limits: {per_run: 1}
budget: {calls: 5, writes: 3}
escalate: {to: queue:desk, sla: 1h}
success: {metric: sorted}
slo: {success: 99%}
"""

WORKFLOW = """
async def sorting(run, request):
    issue = request["issue"]
    await run.call("tracker.update", issue=issue, changes={"category": "network", "priority": "high"})
    await run.call("tracker.note", issue=issue, text="sorted")
    await run.call("tracker.close", issue=issue, duplicate_of=request["original"])
    return {}
"""

@pytest.fixture
def desk(tmp_path: Path, database_url: str, tracker: RoundupServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project over the live tracker."""
    monkeypatch.setenv("TRACKER_PASSWORD", tracker.accounts.agent.password)
    wanted = DeskContract(name="sorting", text=CONTRACT, workflow=WORKFLOW)
    return make_desk(tmp_path / "desk", database_url, tracker, wanted)


async def file_issue(intake: RoundupClient) -> int:
    fields: dict[str, Any] = {"title": "No link", "body": "The line is dead.", "tenant": "northwind"}
    usual = {"region": "eu", "status": "open", "requester": "ana@northwind.example", "requester_vip": False}
    return (await intake.create(fields | usual, uuid.uuid4().hex)).issue


async def outcome_of(folder: Path, key: str, request: dict[str, int]) -> tuple[str, list[str]]:
    """How the run of a request ended, and the writes that completed in it."""
    async with Remit(folder) as remit:
        run = await remit.engine.open("sorting", request, request_key=key)
        events = remit.journal.reader.events(run)
    completed = [event.body["tool"] for event in events if event.type is EventType.CALL_COMPLETED]
    return events[-1].header.verdict, completed


@pytest.mark.anyio
@pytest.mark.parametrize("point", POINTS)
async def test_no_write_to_the_tracker_is_lost_or_doubled(
    desk: Path, agent: RoundupClient, intake: RoundupClient, point: str
) -> None:
    original = await file_issue(intake)
    for nth, _ in enumerate(WRITES, start=1):
        issue, key = await file_issue(intake), uuid.uuid4().hex
        requests = {key: {"issue": issue, "original": original}}
        killed = await asyncio.to_thread(in_a_process, desk, "sorting", requests, crash=(point, nth))
        assert killed == -signal.SIGKILL
        assert await asyncio.to_thread(in_a_process, desk, "sorting", requests, later_us=LATER_US) == 0

        assert await outcome_of(desk, key, requests[key]) == ("completed", list(WRITES))
        found = await agent.read(issue)
        assert (found.category, found.priority, found.status) == ("network", "high", "duplicate")
        assert found.superseder == (original,)
        assert [note.text for note in found.notes] == ["sorted"]
        changed = [name for entry in await agent.history(issue) if entry.action == "set" for name in entry.changes]
        assert sorted(changed) == sorted(set(changed))

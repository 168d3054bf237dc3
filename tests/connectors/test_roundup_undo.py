"""Fifty runs on the live tracker, done and undone: every field is as it was, except where the plan said otherwise."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from crashing import LATER_US, apart, killed_at, let_pass
from desks import DeskContract, make_desk
from test_roundup_crashes import file_issue

from remit import Remit
from remit.connectors.roundup.client import RoundupClient
from remit.connectors.roundup.server import RoundupServer
from remit.journal.leaves import Selection
from remit.runs.program import RunResult

CONTRACT = """
contract: sorting
owner: {team: desk, contact: desk@northwind.example}
purpose: Sort an issue, note that, and close it as a duplicate.
style: workflow
input: request.json
output: result.json
actions:
  - tool: tracker.update
    only: {fields: [category, priority, assignee]}
    limits: {per_run: 2}
  - tool: tracker.note
    limits: {per_run: 1}
  - tool: tracker.close
    limits: {per_run: 1}
budget: {calls: 6, writes: 5}
escalate: {to: queue:desk, sla: 1h}
success: {metric: sorted}
slo: {success: 99%}
"""

WORKFLOW = """
async def sorting(run, request):
    issue, original = request["issue"], request.get("original")
    await run.call("tracker.update", issue=issue, changes={"category": "network", "priority": "high"})
    await run.call("tracker.update", issue=issue, changes={"category": "email", "assignee": "email-team"})
    await run.call("tracker.note", issue=issue, text="sorted")
    if original is not None:
        await run.call("tracker.close", issue=issue, duplicate_of=original)
    return {}
"""
MOVES_ALONG = frozenset({"etag", "activity", "actor", "messages", "notes"})
"""What any change of an issue changes, the undoing too, and its notes, which stay."""
RECORD = '@id("leads-undo") permit (principal in Role::"lead", action == Action::"undo", resource);'


@pytest.fixture
def desk(tmp_path: Path, database_url: str, tracker: RoundupServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRACKER_PASSWORD", tracker.accounts.agent.password)
    wanted = DeskContract(name="sorting", text=CONTRACT, workflow=WORKFLOW, record=RECORD)
    return make_desk(tmp_path / "desk", database_url, tracker, wanted)


async def fields_of(client: RoundupClient, issue: int) -> dict[str, Any]:
    found = msgspec.structs.asdict(await client.read(issue))
    return {name: value for name, value in found.items() if name not in MOVES_ALONG}


async def take_up(client: RoundupClient, issue: int) -> None:
    """Somebody at the desk decides about an issue."""
    found = await client.read(issue)
    await client.update(issue, {"priority": "low"}, found.etag or "")


def undo_until_killed(folder: Path, runs: Sequence[str], point: str, occurrence: int) -> None:
    """Undo all of them at once, in this process, which dies the nth time that any of them reaches the crash point."""

    async def main() -> None:
        async with Remit(folder, crash_point=killed_at(point, occurrence)) as remit:
            await asyncio.gather(*(remit.undoing.undo(run, token=remit.person_token("lee")) for run in runs))

    asyncio.run(main())


def go_on_until_killed(folder: Path, point: str, occurrence: int) -> None:
    """Drive what another worker has left, until this one dies as well."""

    async def main() -> None:
        async with Remit(folder, crash_point=killed_at(point, occurrence)) as remit:
            let_pass(remit, LATER_US)
            async for _ in remit.engine.drive_waiting():
                pass

    asyncio.run(main())


async def undos(remit: Remit) -> dict[str, RunResult]:
    """By the run that was undone, what came of it; each was undone once."""
    found: dict[str, RunResult] = {}
    for leaf in remit.leaves.leaves(Selection(), after=0, upto=2**62):
        undone = leaf.header.refs.get("undoes")
        if undone is not None:
            assert undone not in found
            found[undone] = await remit.engine.drive(leaf.header.run)
    return found


async def undos_under_way(desk: Path) -> set[str]:
    """The runs whose undo has sent a call that has no outcome on record: it may or may not have happened."""
    async with Remit(desk) as remit:
        leaves = list(remit.leaves.leaves(Selection(), after=0, upto=2**62))
    of = {leaf.header.run: leaf.header.refs["undoes"] for leaf in leaves if "undoes" in leaf.header.refs}
    sent: set[tuple[str, str]] = set()
    for leaf in leaves:
        header = leaf.header
        if header.type == "call.decided" and header.verdict == "allow":
            sent.add((header.run, header.span))
        elif header.type in ("call.completed", "call.failed", "call.unknown"):
            sent.discard((header.run, header.span))
    return {of[run] for run, _ in sent if run in of}


@pytest.mark.anyio
async def test_fifty_runs_are_undone_through_two_crashes_and_beside_other_people(
    desk: Path, agent: RoundupClient, intake: RoundupClient
) -> None:
    original = await file_issue(intake)
    issues = [await file_issue(intake) for _ in range(50)]
    before = {issue: await fields_of(agent, issue) for issue in issues}
    async with Remit(desk) as remit:
        requests = [{"issue": i, "original": original} if i % 3 == 0 else {"issue": i} for i in issues]
        runs = {issue: await remit.run("sorting", request) for issue, request in zip(issues, requests, strict=True)}
        assert {run.outcome for run in runs.values()} == {"completed"}
        assert all([await fields_of(agent, issue) != was for issue, was in before.items()])
        taken = {issue for issue in issues[::10] if issue % 3}
        for issue in taken:
            await take_up(agent, issue)
        outlooks = {
            issue: await remit.undoing.outlook(run.run, token=remit.person_token("lee")) for issue, run in runs.items()
        }
    for outlook in outlooks.values():
        assert [(each.tool, each.why) for each in outlook.remaining] == [
            ("tracker.note", "the tool declares no compensation")
        ]

    # What was just done when the process died is not on record yet; the second time nothing of the next call is done.
    names = [run.run for run in runs.values()]
    assert apart(undo_until_killed, desk, names, "after_effect", 30) == -signal.SIGKILL
    assert apart(go_on_until_killed, desk, "before_effect", 30) == -signal.SIGKILL
    partly = [issue for issue in issues if await fields_of(agent, issue) == before[issue]]
    assert 0 < len(partly) < len(issues) - len(taken)
    # Somebody takes up one more, of which the plan did not know.
    sent = await undos_under_way(desk)
    waiting = (issue for issue in reversed(issues) if issue % 3 and issue not in {*partly, *taken})
    late = next(issue for issue in waiting if runs[issue].run not in sent)
    await take_up(agent, late)

    async with Remit(desk) as remit:
        let_pass(remit, LATER_US)
        async for result in remit.engine.drive_waiting():
            assert result.outcome == "completed", result
        undone = await undos(remit)
    assert undone.keys() == set(names)
    for issue, run in runs.items():
        result = undone[run.run]
        assert result.outcome == "completed"
        # The plan said it for those that were taken up before; of the one after it the undo itself says it.
        planned = [each.call.step for each in outlooks[issue].foreseen if each.why]
        assert planned == (["1"] if issue in taken else [])
        left = [each["step"] for each in result.output["remaining"] if each["tool"] != "tracker.note"]
        after = await fields_of(agent, issue)
        if issue in taken:
            # The step that set the priority is left alone; what it set beside that stays as well.
            assert left == planned
            assert after == {**before[issue], "category": "network", "priority": "low"}
        elif issue == late:
            assert after["priority"] == "low"
            assert left == ["1"]
        else:
            assert left == []
            assert after == before[issue]
        notes = (await agent.read(issue)).notes
        assert [note.text for note in notes if note.text == "sorted"] == ["sorted"]

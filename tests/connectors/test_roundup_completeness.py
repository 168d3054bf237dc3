"""What the tracker lists as changed by Remit's account is what the journal says was written, and nothing else is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from desks import DeskContract, make_desk
from test_roundup_crashes import file_issue
from test_roundup_undo import CONTRACT, WORKFLOW
from typer.testing import CliRunner

from remit import Remit
from remit.cli.main import app
from remit.connectors.roundup.client import RoundupClient
from remit.connectors.roundup.model import Value
from remit.connectors.roundup.server import RoundupServer
from remit.journal.events import EventType
from remit.journal.journal import system_clock
from remit.records.completeness import Completeness, CompletenessReport

pytestmark = pytest.mark.anyio
RECORD = '@id("leads") permit (principal in Role::"lead", action in [Action::"undo", Action::"erase"], resource);'


@pytest.fixture
def tracker(home: Path) -> Iterator[RoundupServer]:
    """A tracker of the test's own: what others change with the same account would be found."""
    server = asyncio.run(RoundupServer.start(home))
    yield server
    asyncio.run(server.stop())


@pytest.fixture
def desk(tmp_path: Path, database_url: str, tracker: RoundupServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRACKER_PASSWORD", tracker.accounts.agent.password)
    wanted = DeskContract(name="sorting", text=CONTRACT, workflow=WORKFLOW, record=RECORD)
    return make_desk(tmp_path / "project", database_url, tracker, wanted)


async def compare(remit: Remit) -> CompletenessReport:
    return await Completeness(remit.archive, remit.project, remit.clients).compare("tracker")


async def govern(remit: Remit, issues: list[int], original: int) -> list[str]:
    """Sort issues; every third is closed as a duplicate too."""
    requests = [{"issue": i, "original": original} if n % 3 == 0 else {"issue": i} for n, i in enumerate(issues)]
    done = [await remit.run("sorting", request) for request in requests]
    assert {each.outcome for each in done} == {"completed"}
    return [each.run for each in done]


async def test_exactly_the_change_made_behind_remits_back_is_found(
    desk: Path, agent: RoundupClient, intake: RoundupClient
) -> None:
    original = await file_issue(intake)
    issues = [await file_issue(intake) for _ in range(15)]
    async with Remit(desk) as remit:
        await govern(remit, issues, original)
        clean = await compare(remit)
        assert (clean.unrecorded, clean.unseen, clean.undetermined) == ([], [], [])
        assert clean.changes == clean.writes == 15 * 3 + 5

        found = await agent.read(issues[4])
        await agent.update(issues[4], {"priority": "low"}, found.etag or "")
        after = await compare(remit)
        events = remit.register.events()
    assert after.unseen == []
    [change] = after.unrecorded
    assert (change.object, change.fields, change.by) == (str(issues[4]), {"priority": "low"}, "remit-agent")
    said = [(event.header.verdict, event.body.get("unrecorded")) for event in events]
    assert said == [("", None), ("complete", 0), ("", None), ("incomplete", 1)]
    assert {event.type for event in events} == {EventType.RECORD_COMPARED}


async def test_a_second_change_alike_within_the_tolerance_of_clocks_is_not_taken_for_the_first(
    desk: Path, agent: RoundupClient, intake: RoundupClient
) -> None:
    issue = await file_issue(intake)
    back: dict[str, Value] = {"category": "network", "assignedto": None}
    again: dict[str, Value] = {"category": "email", "assignedto": "email-team"}
    async with Remit(desk) as remit:
        await govern(remit, [issue], await file_issue(intake))
        for changes in (back, again):
            found = await agent.read(issue)
            await agent.update(issue, changes, found.etag or "")
        await agent.note(issue, "sorted", "another-key")
        after = await compare(remit)
    assert after.unseen == []
    # A call has set the very same as `again`: it accounts for one of the two.
    fields = [dict(change.fields) for change in after.unrecorded]
    assert fields[:2] == [back, again]
    assert [list(each) for each in fields[2:]] == [["messages"]]


async def test_what_the_system_does_not_show_any_more_is_unseen(
    desk: Path, intake: RoundupClient, tracker: RoundupServer
) -> None:
    issues = [await file_issue(intake) for _ in range(2)]
    async with Remit(desk) as remit:
        runs = await govern(remit, issues, await file_issue(intake))
        assert (await compare(remit)).complete
        await retire(tracker, issues[1])
        found = await compare(remit)
        later = await Completeness(remit.archive, remit.project, remit.clients).compare("tracker", since=remit.clock() + 1)
    assert found.unrecorded == []
    assert [(each.run, each.tool, each.object) for each in found.unseen] == [
        (runs[1], tool, str(issues[1])) for tool in ("tracker.update", "tracker.update", "tracker.note")
    ]
    assert (later.changes, later.writes, later.unrecorded, later.unseen) == (0, 0, [], [])


async def retire(tracker: RoundupServer, issue: int) -> None:
    """Take an issue out of the tracker, as its administrator."""
    admin = tracker.accounts.admin
    headers = {"X-Requested-With": "test", "Origin": tracker.url.rstrip("/").rpartition("/")[0], "Referer": tracker.url}
    async with httpx.AsyncClient(auth=(admin.username, admin.password), headers=headers) as http:
        address = f"{tracker.url.rstrip('/')}/rest/data/issue/{issue}"
        etag = (await http.get(address)).headers["ETag"]
        assert (await http.delete(address, headers={"If-Match": etag})).status_code == 200


async def test_pages_leave_nothing_out(intake: RoundupClient, agent: RoundupClient) -> None:
    issues = [await file_issue(intake) for _ in range(7)]
    pages = [page async for page in agent.active_since("1970-01-02.00:00:00", limit=3)]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [issue for page in pages for issue, _ in page] == issues
    assert [page async for page in agent.active_since("2999-01-01.00:00:00")] == [[]]


@pytest.mark.parametrize(("apart_s", "accounted"), [(240, True), (-240, True), (7200, False), (-7200, False)])
async def test_clocks_may_be_a_little_apart_and_no_more(
    desk: Path, intake: RoundupClient, apart_s: int, accounted: bool
) -> None:
    issue = await file_issue(intake)
    async with Remit(desk, clock=lambda: system_clock() + apart_s * 1_000_000) as remit:
        await govern(remit, [issue], await file_issue(intake))
        found = await compare(remit)
    assert found.complete == accounted
    # The note carries the key of its call, and is known by that whatever the clocks say.
    assert ["messages"] not in [list(change.fields) for change in found.unrecorded]
    assert len(found.unrecorded) == len(found.unseen) == (0 if accounted else 3)


async def test_what_runs_take_back_is_on_record_too(desk: Path, agent: RoundupClient, intake: RoundupClient) -> None:
    issues = [await file_issue(intake) for _ in range(4)]
    original = await file_issue(intake)
    async with Remit(desk) as remit:
        runs = await govern(remit, issues, original)
        lee = remit.person_token("lee")
        for run in runs:
            assert (await remit.undoing.undo(run, token=lee)).outcome == "completed"
        found = await compare(remit)
    assert found.complete
    assert found.writes == found.changes > 4 * 3 + 2


async def test_changes_of_a_run_that_was_erased_are_undetermined(desk: Path, intake: RoundupClient) -> None:
    issues = [await file_issue(intake) for _ in range(2)]
    async with Remit(desk) as remit:
        runs = await govern(remit, issues, await file_issue(intake))
        await remit.erasure.erase([remit.archive.run(runs[1])], token=remit.person_token("lee"), reason="asked for")
        found = await compare(remit)
    assert (found.unrecorded, found.unseen) == ([], [])
    assert {change.object for change in found.undetermined} == {str(issues[1])}
    assert len(found.undetermined) == 3


def typed(desk: Path, *words: str, code: int) -> str:
    ended = CliRunner().invoke(app, ["verify", "-p", str(desk), *words])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == code, ended.output
    return ended.output


async def test_the_command_says_what_and_exits_with_1(
    desk: Path, agent: RoundupClient, intake: RoundupClient, tracker: RoundupServer
) -> None:
    issue = await file_issue(intake)
    async with Remit(desk) as remit:
        await govern(remit, [issue], await file_issue(intake))
    told: dict[str, Any] = json.loads(
        await asyncio.to_thread(typed, desk, "--against", "tracker", "--json", code=0)
    )
    assert told["record"]["verified"]
    assert [(each["complete"], each["unrecorded"]) for each in told["against"]] == [(True, [])]
    await agent.note(issue, "by hand", "by-hand")
    shown = await asyncio.to_thread(typed, desk, "--against", "tracker", "--since", "1h", code=1)
    assert f"Issue {issue}  set messages=" in shown
    assert "by remit-agent" in shown
    assert "NOT complete" in shown
    await asyncio.to_thread(typed, desk, "--against", "tracked", code=2)
    await tracker.stop()
    # That a system can't be read says nothing about the record.
    await asyncio.to_thread(typed, desk, "--against", "tracker", code=2)


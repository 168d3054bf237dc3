"""Hundreds of runs write to the live tracker while workers die, stall and come back, and the database goes away.

Each run ends once; no note is lost or written twice; whatever is in doubt is a case.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos import Chaos, lock_sqlite, summary
from desks import DeskContract, make_desk
from faulty_http import client_of
from sqlalchemy import func, select

from postgres_server import PostgresServer, find_binaries
from remit import Remit
from remit.connectors.roundup.client import RoundupClient
from remit.connectors.roundup.server import RoundupServer
from remit.journal.events import EventType
from remit.storage import schema

RUNS = int(os.environ.get("REMIT_CHAOS_RUNS", "300"))
"""`make chaos` has a thousand of them."""
AT_MOST_S = 120 + RUNS
CONTRACT = """
contract: noting
owner: {team: desk, contact: desk@northwind.example}
purpose: Note on an issue that it was seen, and sort it.
style: workflow
input: request.json
output: result.json
actions:
  - tool: tracker.note
    limits: {per_run: 1}
  - tool: tracker.update
    only: {fields: [category]}
    limits: {per_run: 1}
budget: {calls: 5, writes: 2, time: 1h}
escalate: {to: queue:desk, sla: 1h}
success: {metric: noted}
slo: {success: 99%}
"""
WORKFLOW = """
async def noting(run, request):
    await run.call("tracker.note", issue=request["issue"], text=f"seen by run {request['number']}")
    await run.call("tracker.update", issue=request["issue"], changes={"category": "network"})
    return {}
"""


@pytest.fixture
def database(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Callable[[], None]]]:
    """A database of the test's own, and what takes it away for a moment."""
    if request.config.getoption("--database") == "sqlite":
        yield "sqlite:remit.db", lock_sqlite(tmp_path / "desk" / "remit.db", 3)
        return
    binaries = find_binaries()
    if binaries is None:
        pytest.fail("no PostgreSQL server found; install Debian's `postgresql`")
    with PostgresServer(binaries, tmp_path_factory.mktemp("chaos")) as server:
        yield server.url.format(database="postgres"), server.restart


@pytest.fixture
def desk(
    tmp_path: Path, database: tuple[str, Callable[[], None]], tracker: RoundupServer, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setenv("TRACKER_PASSWORD", tracker.accounts.agent.password)
    wanted = DeskContract(name="noting", text=CONTRACT, workflow=WORKFLOW, numbers=("issue", "number"))
    return make_desk(tmp_path / "desk", database[0], tracker, wanted)


async def file_issues(intake: RoundupClient, count: int) -> list[int]:
    usual = {"tenant": "northwind", "region": "eu", "status": "open", "requester": "ana@northwind.example"}
    fields: dict[str, Any] = {"title": "No link", "body": "The line is dead.", "requester_vip": False, **usual}
    free = asyncio.Semaphore(6)

    async def one() -> int:
        async with free:
            return (await intake.create(fields, uuid.uuid4().hex)).issue

    return list(await asyncio.gather(*(one() for _ in range(count))))


def open_runs(remit: Remit) -> int:
    query = select(func.count()).select_from(schema.runs).where(schema.runs.c.status != "closed")
    with remit.database.engine.connect() as connection:
        return connection.execute(query).scalar_one()


def verified_by_command(desk: Path) -> int:
    """The exit code of `remit verify`."""
    start = "from remit.cli.main import main; main()"
    arguments = [sys.executable, "-c", start, "verify", "--project", str(desk), "--json"]
    return subprocess.run(arguments, check=False, stdout=subprocess.DEVNULL).returncode


@pytest.mark.anyio
async def test_each_run_ends_once_and_no_write_is_lost_or_doubled(
    desk: Path, database: tuple[str, Callable[[], None]], tracker: RoundupServer, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    begun = time.monotonic()
    async with client_of(tracker.url, tracker.accounts.intake) as intake:
        issues = await file_issues(intake, RUNS)
    async with Remit(desk) as remit:
        requests = [{"issue": issue, "number": number} for number, issue in enumerate(issues)]
        runs = await asyncio.gather(*(remit.engine.enqueue("noting", request) for request in requests))
    chaos = Chaos(desk, desk.parent / "workers.log", database[1], seed)
    async with Remit(desk) as remit:

        def is_done() -> bool:
            try:
                return open_runs(remit) == 0
            except Exception:  # noqa: BLE001 - the database may be away just now
                return False

        try:
            await chaos.until(is_done, at_most_s=AT_MOST_S)
        finally:
            chaos.close()
        cases = [case.run for case in remit.cases.list(remit.tenant, limit=RUNS)]
        ends = {run: [e for e in remit.journal.reader.events(run) if e.type is EventType.RUN_CLOSED] for run in runs}
        await remit.sequencer.integrate()
        verified = await asyncio.to_thread(verified_by_command, desk)
    with capsys.disabled():
        print(f"\n{summary(chaos.faults, RUNS, cases, time.monotonic() - begun)} (seed {seed})")  # noqa: T201
    assert verified == 0
    assert {len(closed) for closed in ends.values()} == {1}
    outcomes = Counter(closed[0].header.verdict for closed in ends.values())
    doubtful = {run for run, closed in ends.items() if closed[0].header.verdict != "completed"}
    assert doubtful == set(cases), outcomes
    async with client_of(tracker.url, tracker.accounts.agent) as agent:
        for number, (issue, run) in enumerate(zip(issues, runs, strict=True)):
            found = await agent.read(issue)
            notes = [note.text for note in found.notes]
            assert notes == [f"seen by run {number}"] or (run in doubtful and not notes)
            assert found.category == "network" or run in doubtful

"""One drive at a time holds a run, by a token of its own and the database's clock; who is overtaken stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from crashing import LATER_US, let_pass
from sqlalchemy import select, update

from project import Shop, make_shop, write_action
from remit import Completed, Remit
from remit.errors import RunError
from remit.journal.events import EventType
from remit.journal.journal import system_clock
from remit.runs.table import RunTable
from remit.storage import schema

pytestmark = pytest.mark.anyio

WAITING = """
import asyncio

BEGUN, GO = asyncio.Event(), asyncio.Event()

async def slow(run, request):
    BEGUN.set()
    await GO.wait()
    return {"put": await run.call("put.none", value=1)}
"""


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    made.contract("slow", [write_action("put.none")], workflow=WAITING)
    made.contract("away", [write_action("put.none")])
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


def event(remit: Remit, name: str) -> asyncio.Event:
    """An event of the workflow, as this project has loaded it."""
    workflow: Any = remit.program("slow").workflow
    return workflow.__globals__[name]


def lease(remit: Remit) -> tuple[Any, ...]:
    table = schema.runs.c
    with remit.database.engine.connect() as connection:
        return tuple(connection.execute(select(table.worker, table.lease_until)).one())


async def test_a_retry_in_the_same_process_drives_nothing_and_frees_nothing(remit: Remit, shop: Shop) -> None:
    first = asyncio.ensure_future(remit.run("slow", {"order": 1}, request_key="one"))
    await event(remit, "BEGUN").wait()
    held = lease(remit)
    again = await remit.run("slow", {"order": 1}, request_key="one")
    assert (again.outcome, lease(remit)) == ("running", held)
    assert remit.engine.waiting() == []
    event(remit, "GO").set()
    assert (await first).outcome == "completed"
    assert len(shop.ledger()) == 1


async def test_a_second_session_in_the_same_process_is_refused(remit: Remit, shop: Shop) -> None:
    async with remit.gate("away").run({}, request_key="one") as run:
        with pytest.raises(RunError) as refused:
            async with remit.gate("away").run({}, request_key="one"):
                pass
        assert refused.value.code == "run_busy"
        assert isinstance(await run.propose("put.none", {"value": 1}), Completed)
    assert len(shop.ledger()) == 1


async def test_a_run_that_was_opened_is_driven_once_by_whoever_comes_first(remit: Remit) -> None:
    run = await remit.engine.open("slow", {})
    event(remit, "GO").set()
    results = await asyncio.gather(*(remit.engine.drive(run) for _ in range(4)))
    assert sorted(result.outcome for result in results) == ["completed", "running", "running", "running"]


async def test_a_worker_whose_clock_is_ahead_steals_no_lease(remit: Remit, shop: Shop) -> None:
    async with Remit(shop.folder, clock=lambda: system_clock() + LATER_US) as ahead:
        first = asyncio.ensure_future(remit.run("slow", {}))
        await event(remit, "BEGUN").wait()
        (run,) = _runs(remit)
        assert ahead.engine.waiting() == []
        assert (await ahead.engine.drive(run)).outcome == "running"
        event(remit, "GO").set()
        assert (await first).outcome == "completed"
    assert len(shop.ledger()) == 1


def _runs(remit: Remit) -> list[str]:
    with remit.database.engine.connect() as connection:
        return list(connection.execute(select(schema.runs.c.run)).scalars())


async def test_a_worker_that_was_overtaken_does_nothing_more(remit: Remit, shop: Shop) -> None:
    async with Remit(shop.folder) as other:
        first = asyncio.ensure_future(remit.run("slow", {}))
        await event(remit, "BEGUN").wait()
        (run,) = _runs(remit)
        let_pass(remit, LATER_US)
        assert other.engine.waiting() == [run]
        second = asyncio.ensure_future(other.engine.drive(run))
        await event(other, "BEGUN").wait()
        # Before anything else the second one has written what the first one will collide with.
        assert [e.type for e in remit.journal.reader.events(run)] == [EventType.RUN_OPENED, EventType.RUN_RESUMED]
        event(remit, "GO").set()
        assert (await first).outcome == "running"
        assert shop.tries() == []
        event(other, "GO").set()
        assert (await second).outcome == "completed"
    assert len(shop.ledger()) == 1


async def test_a_worker_that_was_overtaken_closes_no_run_when_its_code_breaks(remit: Remit, shop: Shop) -> None:
    broken = WAITING.replace('return {"put"', 'raise ValueError\n    return {"put"')
    shop.contract("slow", [write_action("put.none")], workflow=broken)
    async with Remit(shop.folder) as one, Remit(shop.folder) as other:
        first = asyncio.ensure_future(one.run("slow", {}))
        await event(one, "BEGUN").wait()
        (run,) = _runs(remit)
        let_pass(one, LATER_US)
        second = asyncio.ensure_future(other.engine.drive(run))
        await event(other, "BEGUN").wait()
        event(one, "GO").set()
        assert (await first).outcome == "running"
        assert remit.journal.reader.events(run)[-1].type is EventType.RUN_RESUMED
        event(other, "GO").set()
        assert (await second).outcome == "failed"


async def test_a_driver_that_is_cancelled_leaves_the_run_to_others(remit: Remit, shop: Shop) -> None:
    first = asyncio.ensure_future(remit.run("slow", {}))
    await event(remit, "BEGUN").wait()
    (run,) = _runs(remit)
    first.cancel()
    await asyncio.wait([first])
    assert remit.engine.waiting() == [run]
    event(remit, "GO").set()
    assert (await remit.engine.drive(run)).outcome == "completed"
    assert len(shop.ledger()) == 1


async def test_the_handle_of_a_session_that_is_over_carries_out_nothing(remit: Remit, shop: Shop) -> None:
    run = await remit.engine.open("away", {})
    async with remit.engine.session(run) as (handle, _):
        pass
    with pytest.raises(RunError) as refused:
        await handle.propose("put.none", {"value": 1})
    assert refused.value.code == "run_ended"
    assert shop.tries() == []


async def test_who_was_overtaken_renews_releases_and_parks_nothing(remit: Remit) -> None:
    run = await remit.engine.open("slow", {})
    table = RunTable(remit.database, tenant="shop", clock=remit.clock, key=b"k")
    expire(remit)
    first = table.claim(table.standing(run))
    expire(remit)
    second = table.claim(table.standing(run))
    assert first is not None
    assert second is not None
    assert table.renew(first) is False
    table.release(first)
    table.park(first)
    assert table.standing(run).status == "running"
    assert table.renew(second) is True


async def test_who_saw_the_run_before_somebody_else_took_it_takes_nothing(remit: Remit) -> None:
    run = await remit.engine.open("slow", {})
    table = RunTable(remit.database, tenant="shop", clock=remit.clock, key=b"k")
    expire(remit)
    seen = table.standing(run)
    taken = table.claim(seen)
    assert taken is not None
    table.release(taken)
    assert table.claim(seen) is None
    assert table.claim(table.standing(run)) is not None


def expire(remit: Remit) -> None:
    """As if whoever holds a run had said nothing for too long."""
    with remit.database.engine.begin() as connection:
        connection.execute(update(schema.runs).values(lease_until=0))

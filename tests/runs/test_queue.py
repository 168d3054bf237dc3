"""The queue: who is driven next, by whom, and what becomes of what a worker leaves."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from project import Shop, make_shop, write_action
from remit import Remit
from remit.contracts.urgency import Urgency
from remit.errors import RunError
from remit.runs.queue import RunQueue, Waiting, fair
from remit.storage import schema

pytestmark = pytest.mark.anyio

HOUR_US = 3_600_000_000
WORKFLOW = """
async def {}(run, request):
    return {{"done": await run.call("put.safe", value=request["order"])}}
"""
SLEEPER = """
async def sleeper(run, request):
    await run.sleep("2h")
    return {"done": await run.call("put.safe", value=1)}
"""


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    for name in ("first", "second"):
        made.contract(name, [write_action("put.safe")], workflow=WORKFLOW.format(name))
    made.contract("narrow", [write_action("put.safe")], workflow=WORKFLOW.format("narrow"), at_once=2)
    made.contract("urgent", [write_action("put.safe")], workflow=WORKFLOW.format("urgent"), priority="urgent")
    made.contract("sleeper", [write_action("put.safe")], workflow=SLEEPER)
    made.contract("foreign", [write_action("put.safe")])
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


async def submit(remit: Remit, contract: str, count: int = 1, **opening: Any) -> list[str]:
    return [await remit.engine.enqueue(contract, {"order": n}, **opening) for n in range(count)]


def queue_of(remit: Remit) -> RunQueue:
    return RunQueue(remit.database, tenant=remit.tenant, clock=remit.clock, opener="nobody")


def contracts_of(remit: Remit, runs: list[str]) -> list[str]:
    with remit.database.engine.connect() as connection:
        rows = connection.execute(select(schema.runs.c.run, schema.runs.c.contract))
        found = {row.run: row.contract for row in rows}
    return [found[run] for run in runs]


async def work_until(remit: Remit, runs: list[str], **pace: Any) -> None:
    """A worker until all of these are closed."""
    stop = asyncio.Event()
    worker = asyncio.ensure_future(remit.engine.work(stop, poll_ms=5, **pace))
    async with asyncio.timeout(60):
        while not all(remit.engine.is_closed(run) for run in runs):  # noqa: ASYNC110 - it is the database that tells
            await asyncio.sleep(0.01)
    stop.set()
    await worker


async def test_submitted_runs_are_driven_by_a_worker_and_by_nobody_before(remit: Remit, shop: Shop) -> None:
    runs = await submit(remit, "first", 10)
    assert shop.ledger() == []
    assert sorted(remit.engine.waiting()) == sorted(runs)
    await work_until(remit, runs)
    assert remit.engine.waiting() == []
    assert len(shop.ledger()) == 10


async def test_a_contract_that_floods_the_queue_does_not_keep_another_from_its_turn(remit: Remit) -> None:
    flood = await submit(remit, "first", 40)
    few = await submit(remit, "second", 3)
    leases = queue_of(remit).claim(8, {})
    assert Counter(contracts_of(remit, [lease.run for lease in leases])) == {"first": 5, "second": 3}
    assert {lease.run for lease in leases} <= {*flood, *few}


async def test_the_more_urgent_come_first_by_contract_or_as_they_are_submitted(remit: Remit) -> None:
    await submit(remit, "first", 2)
    [low] = await submit(remit, "second", 1, priority=Urgency.LOW)
    urgent = await submit(remit, "urgent", 2)
    [raised] = await submit(remit, "second", 1, priority=Urgency.HIGH)
    order = [queue_of(remit).claim(1, {})[0].run for _ in range(6)]
    assert order[:3] == [*urgent, raised]
    assert order[-1] == low


async def test_no_more_of_a_contract_are_driven_at_once_than_it_says(remit: Remit) -> None:
    await submit(remit, "narrow", 5)
    queue = queue_of(remit)
    assert len(queue.claim(8, remit.engine.at_most())) == 2
    assert queue.claim(8, remit.engine.at_most()) == []


async def test_two_workers_that_look_at_once_share_the_runs(remit: Remit, shop: Shop) -> None:
    runs = await submit(remit, "first", 30)
    async with Remit(shop.folder) as other:
        stop = asyncio.Event()
        workers = [asyncio.ensure_future(each.engine.work(stop, poll_ms=1, at_once=3)) for each in (remit, other)]
        async with asyncio.timeout(60):
            while not all(remit.engine.is_closed(run) for run in runs):  # noqa: ASYNC110 - it is the database that tells
                await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*workers)
    assert len(shop.tries()) == 30


async def test_a_run_whose_worker_died_is_taken_up_once_its_lease_is_over(remit: Remit) -> None:
    [run] = await submit(remit, "first")
    queue = queue_of(remit)
    assert [lease.run for lease in queue.claim(1, {})] == [run]
    assert queue.claim(1, {}) == []
    with remit.database.engine.begin() as connection:
        connection.execute(update(schema.runs).values(lease_until=1))
    # Another worker: each looks for what was left ten times a second.
    [again] = queue_of(remit).claim(1, {})
    assert again.run == run
    assert not again.first
    assert (await remit.engine.drive_leased(again)).outcome == "completed"


async def test_a_sleeping_run_holds_no_worker_and_wakes_when_its_time_has_come(remit: Remit, shop: Shop) -> None:
    result = await remit.run("sleeper", {})
    assert result.outcome == "waiting"
    assert "sleeps until" in result.reason
    assert remit.engine.waiting() == []
    assert queue_of(remit).claim(1, {}) == []
    async with Remit(shop.folder, clock=lambda: remit.clock() + 3 * HOUR_US) as later:
        assert later.engine.waiting() == [result.run]
        await work_until(later, [result.run])
        assert (await later.engine.drive(result.run)).outcome == "completed"


async def test_a_worker_that_is_stopped_leaves_what_takes_too_long_to_the_next(remit: Remit, shop: Shop) -> None:
    slow = """
import asyncio

async def slow(run, request):
    if request["order"] == 0 and not (HOME / "second").exists():
        (HOME / "begun").touch()
        await asyncio.sleep(60)
    return {}

from pathlib import Path
HOME = Path(__file__).parent.parent.parent
"""
    shop.contract("slow", [write_action("put.safe")], workflow=slow)
    async with Remit(shop.folder) as first:
        [run] = await submit(first, "slow")
        stop = asyncio.Event()
        worker = asyncio.ensure_future(first.engine.work(stop, poll_ms=1, drain_s=0))
        async with asyncio.timeout(20):
            while not (shop.folder / "begun").exists():  # noqa: ASYNC110 - it is the database that tells
                await asyncio.sleep(0.01)
            stop.set()
            await worker
        assert not first.engine.is_closed(run)
    (shop.folder / "second").touch()
    async with Remit(shop.folder) as second:
        await work_until(second, [run])
        assert (await second.engine.drive(run)).outcome == "completed"


async def test_what_can_not_go_on_rests_longer_each_time(remit: Remit, shop: Shop) -> None:
    [run] = await submit(remit, "first")
    home = shop.folder / "contracts" / "first"
    text = json.loads((home / "contract.yaml").read_text())
    (home / "contract.yaml").write_text(json.dumps({**text, "purpose": "something else"}))
    rests: list[int] = []
    now = remit.clock()
    for _ in range(3):
        async with Remit(shop.folder, clock=lambda now=now: now) as changed:
            [lease] = queue_of(changed).claim(1, {})
            with pytest.raises(RunError):
                await changed.engine.drive_leased(lease)
            assert queue_of(changed).claim(1, {}) == []
            with changed.database.engine.connect() as connection:
                row = connection.execute(select(schema.runs.c.wake_at).where(schema.runs.c.run == run)).one()
            rests.append(row.wake_at - now)
            now = row.wake_at + 1
    assert rests == [20_000_000, 40_000_000, 80_000_000]


async def test_a_contract_whose_agent_lives_elsewhere_can_not_be_submitted(remit: Remit) -> None:
    with pytest.raises(RunError) as caught:
        await submit(remit, "foreign")
    assert caught.value.code == "no_workflow"


WAITING = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 200)), min_size=0, max_size=25
)


@given(found=WAITING, slots=st.integers(0, 12), most=st.dictionaries(st.sampled_from("abc"), st.integers(1, 4)))
def test_what_is_chosen_is_fair(found: list[tuple[str, int, int]], slots: int, most: dict[str, int]) -> None:
    waiting: dict[str, list[Waiting]] = {}
    for number, (contract, priority, opened_at) in enumerate(found):
        one = Waiting(
            run=f"run-{number}",
            contract=contract,
            priority=priority,
            opened_at=opened_at,
            since=0,
            claims=0,
            held_at=None,
        )
        waiting.setdefault(contract, []).append(one)
    for queue in waiting.values():
        queue.sort(key=lambda one: (one.priority, one.opened_at))
    chosen = fair(waiting, {}, most, slots, now=0)
    counts = Counter(one.contract for one in chosen)
    assert len({one.run for one in chosen}) == len(chosen) <= slots
    assert all(count <= most.get(contract, count) for contract, count in counts.items())
    # Nobody is kept waiting while there is room for them.
    room = any(counts[contract] < min(len(queue), most.get(contract, 99)) for contract, queue in waiting.items())
    assert len(chosen) == slots or not room
    for contract, queue in waiting.items():
        assert [one for one in chosen if one.contract == contract] == queue[: counts[contract]]
    # Of two that are as urgent, the one with fewer is not passed over by more than one turn.
    if len({one.priority for queue in waiting.values() for one in queue}) == 1 and not most:
        left = [contract for contract, queue in waiting.items() if counts[contract] < len(queue)]
        assert all(max(counts.values(), default=0) - counts[contract] <= 1 for contract in left) or not chosen

"""A run's time goes on while somebody holds it, and ends it wherever its code is then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from project import Shop, make_shop, write_action
from remit import Completed, Denied, Outcome, Remit
from remit.journal.events import EventType
from remit.journal.journal import system_clock

pytestmark = pytest.mark.anyio

STUCK = """
@tool("pay.for_ever", effects={Effect.WRITE}, idempotency=Idempotency.NONE)
async def for_ever(ctx: ToolContext, value: int) -> int:
    \"\"\"Pay, and never answer.\"\"\"
    append(LEDGER, f"paid {ctx.idempotency_key} {value}")
    await asyncio.sleep(3600)
    return value
"""
WAITS = "import asyncio\n\nasync def waits(run, request):\n    await asyncio.sleep(3600)\n    return {}\n"
PAYS = "async def pays(run, request):\n    return {'paid': await run.call('pay.for_ever', value=1)}\n"
BRIEF = {"calls": 30, "writes": 20, "time": "1s"}


class Clock:
    """The system's clock, moved on by hand."""

    def __init__(self) -> None:
        self.ahead_us = 0

    def __call__(self) -> int:
        return system_clock() + self.ahead_us

    def pass_s(self, seconds: int) -> None:
        self.ahead_us += seconds * 1_000_000


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    tools = made.folder / "tools" / "shop.py"
    tools.write_text(tools.read_text() + STUCK)
    made.contract("away", [write_action("put.none")])
    made.contract("waits", [write_action("put.none")], workflow=WAITS, budget=BRIEF)
    made.contract("pays", [write_action("pay.for_ever")], workflow=PAYS, budget=BRIEF)
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def remit(shop: Shop, clock: Clock) -> AsyncIterator[Remit]:
    async with Remit(shop.folder, clock=clock) as opened:
        yield opened


async def session(remit: Remit, clock: Clock, value: int, think_s: int) -> Outcome:
    """The agent comes, proposes, thinks, and is cancelled; its run stays open."""

    async def work() -> Outcome:
        async with remit.gate("away").run({}, request_key="one") as run:
            for earlier in range(value):
                await run.propose("put.none", {"value": earlier})
            outcome = await run.propose("put.none", {"value": value})
            clock.pass_s(think_s)
            found.set_result(outcome)
            await asyncio.Event().wait()
            return outcome

    found: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(work())
    outcome = await found
    task.cancel()
    await asyncio.wait([task])
    return outcome


async def test_leaving_and_coming_back_sheds_no_time(remit: Remit, clock: Clock) -> None:
    assert isinstance(await session(remit, clock, 0, 40), Completed)
    assert isinstance(await session(remit, clock, 1, 40), Completed)
    outcome = await session(remit, clock, 2, 0)
    assert isinstance(outcome, Denied)
    assert outcome.code == "limit_exhausted"


async def test_time_in_which_nobody_holds_the_run_is_not_its_own(remit: Remit, clock: Clock) -> None:
    for value in range(3):
        assert isinstance(await session(remit, clock, value, 10), Completed)
        clock.pass_s(4 * 3600)
    run = remit.engine.run_of("away", "one")
    assert run is not None
    idle_s = [e.body["idle_us"] // 1_000_000 for e in remit.journal.reader.events(run) if e.type == "run.resumed"]
    assert idle_s == [4 * 3600, 4 * 3600]


async def test_a_workflow_that_waits_without_end_fails_when_its_time_is_over(remit: Remit) -> None:
    result = await remit.run("waits", {})
    assert (result.outcome, result.reason) == ("failed", "the run's time of 1s is over")
    assert result.case is not None
    assert remit.cases.get(result.case).kind == "limit_exhausted"
    assert remit.journal.reader.events(result.run)[-1].header.verdict == "failed"
    assert remit.engine.waiting() == []


async def test_a_call_that_was_under_way_when_the_time_was_over_is_unknown(remit: Remit, shop: Shop) -> None:
    result = await remit.run("pays", {})
    assert result.outcome == "failed"
    assert len(shop.ledger()) == 1
    types: list[Any] = [event.type for event in remit.journal.reader.events(result.run)]
    assert types[-4:] == [EventType.CALL_UNKNOWN, EventType.CASE_OPENED, EventType.CASE_OPENED, EventType.RUN_CLOSED]
    assert {case.kind for case in remit.cases.list("shop")} == {"unknown", "limit_exhausted"}

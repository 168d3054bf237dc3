"""Calls of one run that are under way at once: each is decided on what those before it have come to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from project import Shop, make_shop, write_action
from remit import Completed, Denied, Failed, Outcome, Rejected, Remit
from remit.journal.events import EventType

pytestmark = pytest.mark.anyio

MORE_TOOLS = '''

async def slowly(ctx, args):
    for _ in range(args["slot"]):
        await asyncio.sleep(0)
    if args["slot"] == 9:
        raise ToolFailed("there is no slot 9", code="not_found")
    return Resource(kind="Slot", id=str(args["slot"]), tenant=ctx.tenant, region="eu", attributes={})


@tool("slots.fill", effects={Effect.WRITE}, resource_kind="Slot", locate=slowly)
async def fill(ctx: ToolContext, slot: int) -> int:
    """Fill a slot."""
    if slot == 8:
        raise ToolFailed("it is full", code="full")
    append(LEDGER, f"filled {ctx.idempotency_key} {slot}")
    return slot


BEGUN, READING, GO = asyncio.Event(), asyncio.Event(), asyncio.Event()


async def find_slowly(ctx, args):
    READING.set()
    await GO.wait()
    return await find(ctx, args)


@tool("slots.block", effects={Effect.WRITE}, reconcile=find_slowly)
async def block(ctx: ToolContext, value: int) -> int:
    """Block a slot, and say nothing of it."""
    append(LEDGER, f"blocked {ctx.idempotency_key} {value}")
    BEGUN.set()
    await asyncio.Event().wait()
    return value
'''
ONE_WRITE = """
@id("one-write") @reason("something was written before")
forbid (principal, action == Action::"put.safe", resource) when { context.budget_left.writes < 20 };
"""
FIRST_TIME = """
@id("first-time") @reason("it was malformed before")
forbid (principal, action == Action::"slots.fill", resource) when { context.attempt > 1 };
"""


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    tools = made.folder / "tools" / "shop.py"
    tools.write_text(tools.read_text() + MORE_TOOLS)
    made.contract("budget", [write_action("slots.fill"), write_action("put.safe")], policy=ONE_WRITE)
    made.contract("attempt", [write_action("slots.fill")], policy=FIRST_TIME)
    made.contract("desk", [write_action("slots.block")])
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


async def at_once(remit: Remit, contract: str, *calls: tuple[str, Any]) -> list[Outcome]:
    async with remit.gate(contract).run({}) as run:
        return await asyncio.gather(*(run.propose(tool, args) for tool, args in calls))


async def test_a_policy_about_the_budget_left_knows_what_calls_proposed_before_have_used(
    remit: Remit, shop: Shop
) -> None:
    filled, put = await at_once(remit, "budget", ("slots.fill", {"slot": 5}), ("put.safe", {"value": 1}))
    assert isinstance(filled, Completed)
    assert isinstance(put, Denied)
    assert put.rules == ("one-write",)
    assert [line.split()[0] for line in shop.ledger()] == ["filled"]


async def test_a_policy_about_the_budget_left_knows_what_calls_proposed_before_have_given_back(
    remit: Remit, shop: Shop
) -> None:
    filled, put = await at_once(remit, "budget", ("slots.fill", {"slot": 8}), ("put.safe", {"value": 1}))
    assert isinstance(filled, Failed)
    assert isinstance(put, Completed)
    assert [line.split()[0] for line in shop.ledger()] == ["safe"]


async def test_a_policy_about_earlier_attempts_knows_those_that_were_proposed_before(remit: Remit, shop: Shop) -> None:
    missing, again = await at_once(remit, "attempt", ("slots.fill", {"slot": 9}), ("slots.fill", {"slot": 1}))
    assert isinstance(missing, Rejected)
    assert isinstance(again, Denied)
    assert again.rules == ("first-time",)
    assert shop.ledger() == []


async def test_a_call_whose_caller_is_cancelled_twice_has_its_outcome_on_record_all_the_same(shop: Shop) -> None:
    recorded = asyncio.Event()

    def note(point: str) -> None:
        if point == "after_outcome":
            recorded.set()

    async with asyncio.timeout(20), Remit(shop.folder, crash_point=note) as remit:

        async def work() -> None:
            async with remit.gate("desk").run({}, request_key="one") as run:
                await run.propose("slots.block", {"value": 1})

        reconcile: Any = remit.program("desk").authority.tools["slots.block"].reconcile
        events: dict[str, asyncio.Event] = reconcile.__globals__
        task = asyncio.ensure_future(work())
        await events["BEGUN"].wait()
        task.cancel()
        await events["READING"].wait()
        task.cancel()
        await asyncio.wait([task])
        events["GO"].set()
        await recorded.wait()
        run = remit.engine.run_of("desk", "one")
        assert run is not None
        ended = remit.journal.reader.events(run)[-1]
        assert (ended.type, ended.body["result"]) == (EventType.CALL_COMPLETED, 1)
    assert len(shop.ledger()) == 1

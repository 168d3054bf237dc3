"""A system of record that is away for a while is asked again; while it is away nothing is decided about a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from project import Shop, make_shop, write_action
from remit import Completed, Deferred, Denied, Held, Outcome, Rejected, Remit
from remit.cases.cases import Decision
from remit.journal.events import Event, EventType

pytestmark = pytest.mark.anyio

MORE_TOOLS = '''

def failure(how, nth):
    """What the system answers to the nth question, if it is no answer."""
    return {
        "away-twice": ToolFailed("connection refused", code="unreachable", retryable=True) if nth <= 2 else None,
        "away": ToolFailed("connection refused", code="unreachable", retryable=True),
        "cut": OutcomeUnknown("the line went dead"),
        "busy-once": ToolFailed("busy", code="busy", retryable=True, retry_after_ms=70) if nth == 1 else None,
        "busy-for-long": ToolFailed("busy", code="busy", retryable=True, retry_after_ms=3_600_000),
        "nonsense": ToolFailed("the answer is no JSON", code="malformed_answer"),
        "missing": ToolFailed("there is no such item", code="not_found"),
        "broken": LookupError("no such column"),
    }.get(how)


def asked(ctx, how):
    append(TRIES, f"{how} {ctx.idempotency_key}")
    return len(TRIES.read_text().splitlines())


async def locate_away(ctx, args):
    nth = asked(ctx, args["how"])
    args["how"], how = "changed", args["how"]
    if how == "silent":
        await asyncio.sleep(30)
    error = failure(how, nth)
    if error is not None:
        raise error  # here it breaks
    return Resource(kind="Item", id="1", tenant=ctx.tenant, region="eu", attributes={})


@tool(
    "items.take",
    effects={Effect.WRITE},
    retry=Retry(attempts=3, backoff_ms=1),
    timeout_ms=60,
    resource_kind="Item",
    locate=locate_away,
)
async def take(ctx: ToolContext, how: str) -> str:
    """Take an item."""
    append(LEDGER, f"taken {ctx.idempotency_key} {how}")
    return how


async def locate_in_store(ctx, args):
    if (HOME / "store-is-away").exists():
        raise ToolFailed("connection refused", code="unreachable", retryable=True)
    return Resource(kind="Item", id="1", tenant=ctx.tenant, region="eu", attributes={})


@tool(
    "items.lend",
    effects={Effect.WRITE},
    retry=Retry(attempts=2, backoff_ms=1),
    resource_kind="Item",
    locate=locate_in_store,
)
async def lend(ctx: ToolContext, to: str) -> str:
    """Lend an item."""
    append(LEDGER, f"lent {ctx.idempotency_key} {to}")
    return to


async def read_back_later(ctx, args):
    if asked(ctx, args["how"]) <= 2:
        raise ToolFailed("connection refused", code="unreachable", retryable=True)
    return Reconciled(happened=Happened.YES, result=args["how"])


@tool(
    "items.give",
    effects={Effect.WRITE},
    retry=Retry(attempts=3, backoff_ms=1),
    reconcile=read_back_later,
)
async def give(ctx: ToolContext, how: str) -> str:
    """Give an item back."""
    append(LEDGER, f"given {ctx.idempotency_key} {how}")
    raise OutcomeUnknown("the line went dead")
'''


LENDING = "async def lending(run, request):\n    return {'lent': await run.call('items.lend', to='ann')}\n"


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    with (made.folder / "tools" / "shop.py").open("a") as tools:
        tools.write(MORE_TOOLS)
    made.contract("desk", [write_action("items.take"), write_action("items.give"), write_action("items.lend")])
    asked = {"autonomy": "approve", "approval": {"by": "role:care-lead", "within": "4h"}}
    made.contract("lending", [write_action("items.lend")], workflow=LENDING)
    made.contract("asking", [write_action("items.lend", **asked)], workflow=LENDING.replace("lending", "asking"))
    made.contract("away", [write_action("items.lend", **asked)])
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


async def propose(remit: Remit, tool: str, how: str) -> tuple[Outcome, list[Event]]:
    """What became of one call, and the events of its run."""
    async with remit.gate("desk").run({}) as run:
        outcome = await run.propose(tool, {"how": how})
    return outcome, remit.journal.reader.events(run.id)


async def test_an_object_is_looked_for_again_as_the_tools_retry_rule_says(remit: Remit, shop: Shop) -> None:
    outcome, events = await propose(remit, "items.take", "away-twice")
    assert outcome == Completed(result="away-twice")
    assert len(shop.tries()) == 3
    # What looking for the object did to its arguments is seen neither by the next attempt nor by the tool.
    assert [line.split()[0] for line in shop.tries()] == ["away-twice"] * 3
    assert [e.header.verdict for e in events if e.type is EventType.CALL_DECIDED] == ["allow"]


async def test_a_system_that_says_when_to_come_back_is_asked_then(remit: Remit, shop: Shop) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    outcome, _ = await propose(remit, "items.take", "busy-once")
    assert isinstance(outcome, Completed)
    assert loop.time() - began >= 0.07
    assert len(shop.tries()) == 2


@pytest.mark.parametrize(("how", "tries"), [("away", 3), ("cut", 3), ("busy-for-long", 1), ("silent", None)])
async def test_a_system_that_stays_away_is_no_judgement_on_the_call(
    remit: Remit, shop: Shop, how: str, tries: int | None
) -> None:
    outcome, _ = await propose(remit, "items.take", how)
    assert isinstance(outcome, Deferred)
    assert outcome.code == "system_unreachable"
    assert outcome.message.startswith("the system of record could not be reached, and nothing was done: ")
    # One that is silent uses the whole time up, and how often it is asked in that is a matter of timing.
    assert len(shop.tries()) == tries or tries is None
    assert shop.ledger() == []


@pytest.mark.parametrize(
    ("how", "kind", "code"),
    [("nonsense", Denied, "object_not_located"), ("missing", Rejected, "object_not_found")],
)
async def test_an_answer_that_is_none_is_not_asked_for_again(
    remit: Remit, shop: Shop, how: str, kind: type[Denied | Rejected], code: str
) -> None:
    outcome, _ = await propose(remit, "items.take", how)
    assert isinstance(outcome, kind)
    assert outcome.code == code
    assert len(shop.tries()) == 1


async def test_looking_for_an_object_breaks_with_its_error_and_its_line(remit: Remit, shop: Shop) -> None:
    text = (shop.folder / "tools" / "shop.py").read_text().splitlines()
    line = next(number for number, line in enumerate(text, 1) if "# here it breaks" in line)
    outcome, _ = await propose(remit, "items.take", "broken")
    assert isinstance(outcome, Denied)
    assert outcome.code == "gate_failed"
    broke = f"`locate` of tool `items.take` broke: LookupError: no such column at tools/shop.py:{line}"
    assert outcome.message == broke


async def test_reading_back_is_tried_again_while_the_system_is_away(remit: Remit, shop: Shop) -> None:
    outcome, _ = await propose(remit, "items.give", "anyhow")
    assert outcome == Completed(result="anyhow")
    assert (len(shop.tries()), len(shop.ledger())) == (3, 1)


def store_is_away(shop: Shop, *, away: bool) -> None:
    mark = shop.folder / "store-is-away"
    if away:
        mark.touch()
    else:
        mark.unlink()


async def test_a_workflow_waits_for_a_system_that_is_away_and_goes_on_when_it_is_back(remit: Remit, shop: Shop) -> None:
    store_is_away(shop, away=True)
    waiting = await remit.run("lending", {})
    assert waiting.outcome == "waiting"
    assert "connection refused" in waiting.reason
    assert (await remit.engine.drive(waiting.run)).outcome == "waiting"
    assert remit.engine.waiting() == [waiting.run]
    store_is_away(shop, away=False)
    assert (await remit.engine.drive(waiting.run)).outcome == "completed"
    assert len(shop.ledger()) == 1


async def test_a_run_that_waits_for_ever_becomes_a_case(remit: Remit, shop: Shop) -> None:
    store_is_away(shop, away=True)
    result = await remit.run("lending", {})
    for _ in range(30):
        if result.outcome != "waiting":
            break
        result = await remit.engine.drive(result.run)
    assert result.outcome == "failed"
    assert result.case is not None
    assert remit.cases.get(result.case).kind == "no_progress"


async def test_an_approval_outlasts_an_outage(remit: Remit, shop: Shop) -> None:
    held = await remit.run("asking", {})
    assert held.case is not None
    store_is_away(shop, away=True)
    await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("lee"))
    assert (await remit.engine.drive(held.run)).outcome == "waiting"
    store_is_away(shop, away=False)
    assert (await remit.engine.drive(held.run)).outcome == "completed"
    assert len(shop.ledger()) == 1


async def test_an_agent_from_elsewhere_finds_its_approval_again_after_an_outage(remit: Remit, shop: Shop) -> None:
    async def propose_again() -> Outcome:
        async with remit.gate("away").run({}, request_key="one") as run:
            return await run.propose("items.lend", {"to": "ann"})

    held = await propose_again()
    assert isinstance(held, Held)
    await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("lee"))
    store_is_away(shop, away=True)
    assert isinstance(await propose_again(), Deferred)
    store_is_away(shop, away=False)
    assert await propose_again() == Completed(result="ann")
    assert len(shop.ledger()) == 1


async def test_a_call_that_was_put_off_and_then_decided_keeps_no_run_open(remit: Remit, shop: Shop) -> None:
    away = shop.folder / "store-is-away"
    away.touch()
    async with remit.gate("desk").run({}) as run:
        assert isinstance(await run.propose("items.lend", {"to": "ann"}), Deferred)
        away.unlink()
        assert isinstance(await run.propose("items.lend", {"to": "ann"}), Completed)
    closed = remit.journal.reader.events(run.id)[-1]
    assert (closed.type, closed.header.verdict) == (EventType.RUN_CLOSED, "completed")


async def test_a_call_that_was_put_off_and_decided_before_a_restart_keeps_no_run_open(
    remit: Remit, shop: Shop
) -> None:
    away = shop.folder / "store-is-away"
    away.touch()
    async with remit.gate("desk").run({}, request_key="one") as run:
        assert isinstance(await run.propose("items.lend", {"to": "ann"}), Deferred)
    left = asyncio.Event()

    async def go_on_and_break_off() -> None:
        async with remit.gate("desk").run({}, request_key="one") as again:
            assert isinstance(await again.propose("items.lend", {"to": "ann"}), Completed)
            left.set()
            await asyncio.Event().wait()

    away.unlink()
    task = asyncio.ensure_future(go_on_and_break_off())
    await left.wait()
    task.cancel()
    await asyncio.wait([task])
    async with remit.gate("desk").run({}, request_key="one"):
        pass
    closed = remit.journal.reader.events(run.id)[-1]
    assert (closed.type, closed.header.verdict) == (EventType.RUN_CLOSED, "completed")

"""Reads that are kept, shared, asked for twice, begun ahead, or given only so much time; and replays that see none of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from project import Shop, make_shop, write_action
from remit import Completed, Failed, Remit
from remit.errors import ConfigError
from remit.journal.events import EventType
from remit.replay.recorded import Choice

pytestmark = pytest.mark.anyio

TOOLS = '''

async def slowly(kind, seconds):
    append(TRIES, f"{kind} - -")
    await asyncio.sleep(seconds)


def asked(kind):
    return len([line for line in TRIES.read_text().splitlines() if line.startswith(kind)]) if TRIES.exists() else 0


@tool("stock.count", effects={Effect.READ}, fresh_ms=60_000)
async def count(item: int) -> int:
    """Count an item."""
    await slowly("count", 0.01)
    return len(lines())


@tool("stock.set", effects={Effect.WRITE}, idempotency=Idempotency.SAFE)
async def set_stock(ctx: ToolContext, item: int) -> bool:
    """Set an item."""
    append(LEDGER, f"set {ctx.idempotency_key} {item}")
    return True


@tool("price.read", effects={Effect.READ}, hedge_ms=20)
async def price(item: int) -> str:
    """Read a price; the first request of an item hangs."""
    append(TRIES, "price - -")
    nth = asked("price")
    if nth == 1:
        await asyncio.sleep(5)
    return f"told by request {nth}"


@tool("slow.read", effects={Effect.READ}, retry=Retry(attempts=5, backoff_ms=1))
async def slow(item: int) -> int:
    """Read something slowly."""
    await slowly("slow", 5)
    return 1
'''
GRANTS: list[dict[str, Any]] = [
    {"tool": "stock.count"},
    {"tool": "price.read"},
    write_action("stock.set"),
    {"tool": "slow.read", "within": "30ms"},
]
WORKFLOWS = {
    "ahead": "return {'stock': await run.call('stock.count', item=request['order'])}",
    "together": "return {'stock': await run.gather(*(run.call('stock.count', item=1) for _ in range(5)))}",
    "giving_up": "return {'code': (await run.propose('slow.read', {'item': 1})).code}",
    "handing_over": "return {'stock': await run.call('slow.read', item=1)}",
    "changing": """
    first = await run.call("stock.count", item=1)
    await run.call("stock.set", item=1)
    return {"first": first, "then": await run.call("stock.count", item=1)}""",
}


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    with (made.folder / "tools" / "shop.py").open("a") as tools:
        tools.write(TOOLS)
    for name, body in WORKFLOWS.items():
        more: dict[str, Any] = {}
        if name == "ahead":
            more["prefetch"] = [{"tool": "stock.count", "args": {"item": "request.order"}}]
        grants = [*GRANTS[:-1], {**GRANTS[-1], "late": "escalate"}] if name == "handing_over" else GRANTS
        made.contract(name.replace("_", "-"), grants, workflow=f"async def {name}(run, request):\n    {body}\n", **more)
    made.contract("other", GRANTS)
    made.contract("agent", GRANTS)
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


def tries(shop: Shop) -> Counter[str]:
    return Counter(line.split()[0] for line in shop.tries())


def sources(remit: Remit, run: str) -> list[str]:
    events = remit.journal.reader.events(run)
    return [event.body.get("answered", "") for event in events if event.type is EventType.CALL_COMPLETED]


async def replays_alike(remit: Remit, run: str) -> bool:
    report = await remit.replays.replay(Choice(run=run), 1)
    return [one.result for one in report.runs] == ["identical"]


async def test_a_fresh_answer_is_given_again_and_the_record_says_so(remit: Remit, shop: Shop) -> None:
    found: list[list[str]] = []
    for _ in range(2):
        async with remit.gate("agent").run({}) as run:
            outcomes = [await run.propose("stock.count", {"item": 1}) for _ in range(2)]
            assert [type(one) for one in outcomes] == [Completed, Completed]
        found.append(sources(remit, run.id))
    assert tries(shop)["count"] == 1
    assert found == [["", "cache"], ["cache", "cache"]]


async def test_no_principal_and_no_person_is_told_what_another_one_was(remit: Remit, shop: Shop) -> None:
    sessions = [("agent", None), ("agent", "person/anna"), ("agent", "person/kim"), ("other", None)]
    for contract, person in sessions:
        async with remit.gate(contract, on_behalf_of=person).run({}) as run:
            await run.propose("stock.count", {"item": 1})
    assert tries(shop)["count"] == len(sessions)


async def test_a_write_makes_what_was_read_before_it_stale(remit: Remit, shop: Shop) -> None:
    result = await remit.run("changing", {})
    assert result.output == {"first": 0, "then": 1}
    assert await replays_alike(remit, result.run)


async def test_an_answer_that_a_write_has_overtaken_is_not_kept(remit: Remit, shop: Shop) -> None:
    async with remit.gate("agent").run({}) as run:
        reading = asyncio.ensure_future(run.propose("stock.count", {"item": 1}))
        async with asyncio.timeout(10):
            while not tries(shop)["count"]:  # noqa: ASYNC110 - the tool itself tells
                await asyncio.sleep(0.001)
        await run.propose("stock.set", {"item": 1})
        await reading
        again = await run.propose("stock.count", {"item": 1})
        assert isinstance(again, Completed)
        assert again.result == 1


async def test_what_is_asked_for_together_is_asked_for_once(remit: Remit, shop: Shop) -> None:
    result = await remit.run("together", {})
    assert result.output == {"stock": [0] * 5}
    assert tries(shop)["count"] == 1
    assert await replays_alike(remit, result.run)


async def test_a_slow_read_is_asked_for_again_and_the_first_answer_counts(remit: Remit, shop: Shop) -> None:
    async with asyncio.timeout(4):
        async with remit.gate("agent").run({}) as run:
            outcome = await run.propose("price.read", {"item": 1})
    assert isinstance(outcome, Completed)
    assert outcome.result == "told by request 2"
    assert sources(remit, run.id) == ["second request"]


async def test_a_read_that_is_begun_ahead_is_there_when_it_is_asked_for(remit: Remit, shop: Shop) -> None:
    result = await remit.run("ahead", {"order": 7})
    assert result.output == {"stock": 0}
    assert tries(shop)["count"] == 1
    steps = {event.header.span for event in remit.journal.reader.events(result.run) if event.header.span}
    assert steps == {"prefetch.1", "1"}
    assert await replays_alike(remit, result.run)


async def test_a_request_without_the_part_that_is_fetched_ahead_runs_all_the_same(remit: Remit) -> None:
    assert (await remit.run("ahead", {})).outcome == "failed"
    assert (await remit.run("together", {})).outcome == "completed"


async def test_a_step_that_spends_its_time_fails_without_being_tried_again(remit: Remit, shop: Shop) -> None:
    async with remit.gate("agent").run({}) as run:
        outcome = await run.propose("slow.read", {"item": 1})
    assert isinstance(outcome, Failed)
    assert outcome.code == "latency_spent"
    assert "30ms" in outcome.message
    result = await remit.run("giving-up", {})
    assert result.output == {"code": "latency_spent"}
    assert await replays_alike(remit, result.run)
    assert tries(shop)["slow"] == 2


async def test_a_step_that_spends_its_time_hands_over_where_the_contract_says_so(remit: Remit) -> None:
    result = await remit.run("handing-over", {})
    assert result.outcome == "escalated"
    assert "too slow" in result.reason
    assert await replays_alike(remit, result.run)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"tool": "orders.read", "args": {"order": "request.order"}}, "not granted"),
        ({"tool": "stock.set", "args": {"item": 1}}, "does not only read"),
        ({"tool": "price.read", "args": {"item": 1}}, "are not kept"),
    ],
)
async def test_what_can_not_be_fetched_ahead_is_an_error_of_the_contract(
    shop: Shop, wanted: dict[str, Any], said: str
) -> None:
    shop.contract("wrong", GRANTS, prefetch=[wanted])
    async with Remit(shop.folder) as remit:
        with pytest.raises(ConfigError) as caught:
            remit.program("wrong")
        assert said in str(caught.value)

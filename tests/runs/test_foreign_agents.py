"""An agent from elsewhere meets the gate: it proposes, and its run ends as it should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from project import REFUND, Shop, make_shop, write_action
from remit import Completed, Held, Remit
from remit.cases.cases import Decision
from remit.errors import RunError
from remit.journal.events import Event, EventType

pytestmark = pytest.mark.anyio

LARGE = {"order": 4, "amount": {"amount": "60.00", "currency": "EUR"}, "account": "DE1"}


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    made.contract("refunds", [{"tool": "orders.read"}, REFUND, write_action("put.none")])
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


def last(remit: Remit, run: str) -> Event:
    return remit.journal.reader.events(run)[-1]


async def test_an_agent_proposes_in_a_loop_and_its_run_is_closed_with_its_output(remit: Remit, shop: Shop) -> None:
    plan: list[tuple[str, Any]] = [("orders.read", {"order": 1}), ("put.none", {"value": 2})]
    async with remit.gate("refunds").run({"order": 1}) as run:
        for tool, args in plan:
            outcome = await run.propose(tool, args)
            if not outcome.completed:
                await run.escalate("it did not work")
        run.finish({"done": True})
    closed = last(remit, run.id)
    assert (closed.type, closed.header.verdict, closed.body["output"]) == (
        EventType.RUN_CLOSED,
        "completed",
        {"done": True},
    )
    assert len(shop.ledger()) == 1


@pytest.mark.parametrize("output", [None, [], "done", {"n": float("nan")}])
async def test_an_output_that_does_not_meet_the_contract_is_refused(remit: Remit, output: Any) -> None:
    async with remit.gate("refunds").run({}) as run:
        with pytest.raises(RunError) as refused:
            run.finish(output)
        assert refused.value.code == "output_invalid"
        run.finish({"done": True})
    assert last(remit, run.id).body["output"] == {"done": True}


async def test_a_run_stays_open_while_a_person_decides_and_goes_on_under_its_request_key(
    remit: Remit, shop: Shop
) -> None:
    async with remit.gate("refunds").run({}, request_key="one") as run:
        assert isinstance(await run.propose("put.none", {"value": 1}), Completed)
        held = await run.propose("payments.refund", LARGE)
        assert isinstance(held, Held)
        run.finish({"done": False})
    assert last(remit, run.id).type is not EventType.RUN_CLOSED
    async with remit.gate("refunds").run({}, request_key="one") as again:
        assert again.id == run.id
        assert isinstance(await again.propose("put.none", {"value": 1}), Completed)
        assert isinstance(await again.propose("payments.refund", LARGE), Held)
    await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("lee"))
    async with remit.gate("refunds").run({}, request_key="one") as last_time:
        assert isinstance(await last_time.propose("put.none", {"value": 1}), Completed)
        assert await last_time.propose("payments.refund", LARGE) == Completed(result="paid 60.00")
        last_time.finish({"done": True})
    assert last(remit, run.id).header.verdict == "completed"
    assert len(shop.ledger()) == 2


async def test_a_run_is_left_to_a_person_only_when_the_calls_that_are_under_way_have_come_to_their_outcomes(
    remit: Remit, shop: Shop
) -> None:
    async with remit.gate("refunds").run({}) as run:
        assert isinstance(await run.propose("payments.refund", LARGE), Held)
        left = [asyncio.ensure_future(run.propose("put.none", {"value": value})) for value in range(3)]
        await asyncio.sleep(0)
    completed = [e for e in remit.journal.reader.events(run.id) if e.type is EventType.CALL_COMPLETED]
    assert len(completed) == 3
    assert [outcome.completed for outcome in await asyncio.gather(*left)] == [True] * 3
    assert len(shop.ledger()) == 3


async def test_what_an_agent_changes_in_its_output_after_it_has_finished_is_not_what_is_kept(remit: Remit) -> None:
    output: dict[str, Any] = {"done": True}
    async with remit.gate("refunds").run({}) as run:
        run.finish(output)
        output["done"] = float("nan")
    assert last(remit, run.id).body["output"] == {"done": True}


async def test_workers_leave_the_runs_of_foreign_agents_alone(remit: Remit) -> None:
    async with remit.gate("refunds").run({}, request_key="one") as run:
        held = await run.propose("payments.refund", LARGE)
        assert isinstance(held, Held)
    await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("lee"))
    before = last(remit, run.id).header.n
    assert remit.engine.waiting() == []
    stop = asyncio.Event()
    worker = asyncio.ensure_future(remit.engine.work(stop, poll_ms=1))
    with pytest.raises(RunError) as refused:
        await remit.engine.drive(run.id)
    stop.set()
    await worker
    assert refused.value.code == "no_workflow"
    assert last(remit, run.id).header.n == before


async def test_an_agent_that_breaks_closes_its_run_as_failed(remit: Remit) -> None:
    with pytest.raises(ZeroDivisionError):
        async with remit.gate("refunds").run({}, request_key="one"):
            raise ZeroDivisionError
    run = await remit.engine.open("refunds", {}, request_key="one")
    assert last(remit, run).header.verdict == "failed"


async def test_an_agent_that_is_cancelled_leaves_its_run_open_for_another_try(remit: Remit, shop: Shop) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        async with remit.gate("refunds").run({}, request_key="one") as run:
            await run.propose("put.none", {"value": 1})
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    async with remit.gate("refunds").run({}, request_key="one") as run:
        assert isinstance(await run.propose("put.none", {"value": 1}), Completed)
    assert last(remit, run.id).header.verdict == "completed"
    assert len(shop.ledger()) == 1


async def test_an_agent_that_gives_up_leaves_a_case(remit: Remit) -> None:
    async with remit.gate("refunds").run({}) as run:
        await run.escalate("a person must look at this", draft={"order": 1})
    assert last(remit, run.id).header.verdict == "escalated"
    (case,) = remit.cases.list("shop")
    assert (case.kind, case.reason) == ("escalation", "a person must look at this")


async def test_a_run_that_another_agent_holds_open_is_busy(remit: Remit, shop: Shop) -> None:
    async with remit.gate("refunds").run({}, request_key="one"), Remit(shop.folder) as other:
        with pytest.raises(RunError) as refused:
            async with other.gate("refunds").run({}, request_key="one"):
                pass
    assert refused.value.code == "run_busy"

"""A run that can't go on can still end: by a no, by the clock, or by a person who says so on record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from project import REFUND, Shop, make_shop, write_action
from remit import Remit, RunResult
from remit.cases.cases import Decision
from remit.errors import CaseError, RunError
from remit.journal.events import Draft, EventType
from remit.journal.journal import system_clock
from remit.runs.by_person import commit_by

pytestmark = pytest.mark.anyio

WORKFLOW = """
async def refunds(run, request):
    return {"paid": await run.call("payments.refund", order=4, amount=AMOUNT, account="DE1")}

AMOUNT = {"amount": "60.00", "currency": "EUR"}
"""
HOUR_US = 3_600_000_000


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    made.contract("refunds", [REFUND], workflow=WORKFLOW)
    made.contract("away", [write_action("put.none")])
    return made


@pytest.fixture
async def held(shop: Shop) -> RunResult:
    """A run that waits for a person, whose contract has changed since."""
    async with Remit(shop.folder) as remit:
        result = await remit.run("refunds", {})
    assert result.case is not None
    shop.contract("refunds", [REFUND], workflow=WORKFLOW, policy="// another text\n")
    return result


@pytest.fixture
async def later(shop: Shop, held: RunResult) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


async def test_a_no_ends_a_run_whose_release_is_gone(later: Remit, held: RunResult) -> None:
    token = later.person_token("lee")
    await later.cases.decide(held.case or "", Decision.DENIED, token=token, reason="not theirs")
    result = await later.engine.drive(held.run)
    assert (result.outcome, "not theirs" in result.reason) == ("denied", True)
    assert later.journal.reader.events(held.run)[-1].header.verdict == "denied"
    assert later.engine.waiting() == []


async def test_time_ends_a_run_whose_release_is_gone(shop: Shop, held: RunResult) -> None:
    async with Remit(shop.folder, clock=lambda: system_clock() + 5 * HOUR_US) as tomorrow:
        assert tomorrow.engine.waiting() == [held.run]
        assert (await tomorrow.engine.drive(held.run)).outcome == "denied"
        assert tomorrow.cases.get(held.case or "").status == "expired"
        assert tomorrow.engine.waiting() == []


async def test_an_approval_that_its_run_can_not_use_is_refused(later: Remit, held: RunResult) -> None:
    with pytest.raises(CaseError) as refused:
        await later.cases.decide(held.case or "", Decision.APPROVED, token=later.person_token("lee"))
    assert refused.value.code == "release_not_at_hand"
    assert later.cases.get(held.case or "").status == "open"


async def test_a_person_ends_a_run_on_record_and_withdraws_what_it_asks(
    later: Remit, held: RunResult, shop: Shop
) -> None:
    result = await later.close_run(held.run, token=later.person_token("lee"), reason="the contract is gone")
    assert (result.outcome, result.reason) == ("stopped", "ended by person/lee: the contract is gone")
    closed = later.journal.reader.events(held.run)[-1]
    assert (closed.type, closed.body["by"]) == (EventType.RUN_CLOSED, "person/lee")
    assert "lee" not in closed.header.actor
    assert later.cases.get(held.case or "").status == "withdrawn"
    assert (await later.engine.drive(held.run)).outcome == "stopped"
    with pytest.raises(RunError) as again:
        await later.close_run(held.run, token=later.person_token("lee"))
    assert again.value.code == "run_closed"
    assert shop.tries() == []


async def test_who_works_on_no_queue_ends_no_run(later: Remit, held: RunResult) -> None:
    with pytest.raises(CaseError) as refused:
        await later.close_run(held.run, token=later.person_token("anna"))
    assert refused.value.code == "role_missing"
    later.principals.disable("person/lee", later.clock())
    with pytest.raises(CaseError) as disabled:
        await later.close_run(held.run, token=later.person_token("lee"))
    assert disabled.value.code == "approver_disabled"


async def test_a_run_that_is_driven_is_not_ended_under_its_worker(later: Remit) -> None:
    async with later.gate("away").run({}) as run:
        with pytest.raises(RunError) as refused:
            await later.close_run(run.id, token=later.person_token("lee"))
        assert refused.value.code == "run_busy"


class Killed(BaseException):
    """The process is gone, for all that the run can tell."""


async def test_a_call_without_an_outcome_is_unknown_when_its_run_is_ended(shop: Shop) -> None:
    def stop(point: str) -> None:
        if point == "after_effect":
            raise Killed

    async with Remit(shop.folder, crash_point=stop) as remit:

        async def work() -> None:
            async with remit.gate("away").run({}, request_key="one") as run:
                await run.propose("put.none", {"value": 1})

        await asyncio.wait([asyncio.ensure_future(work())])
        run = remit.engine.run_of("away", "one")
        assert run is not None
        result = await remit.close_run(run, token=remit.person_token("lee"))
        assert (result.outcome, "`put.none`" in result.reason) == ("unknown", True)
        types = [event.type for event in remit.journal.reader.events(run)]
        assert types[-2:] == [EventType.CALL_UNKNOWN, EventType.RUN_CLOSED]


async def test_whoever_is_disabled_at_the_last_moment_writes_nothing(later: Remit, held: RunResult) -> None:
    log, before = later.journal.reopen(held.run)
    later.principals.disable("person/lee", later.clock())
    seen = Draft(type=EventType.CASE_REVEALED, actor="person", body={"case": held.case, "by": "person/lee"})
    with pytest.raises(CaseError) as refused:
        await commit_by("person/lee", later.journal, log, [seen])
    assert refused.value.code == "approver_disabled"
    assert later.journal.reader.events(held.run) == before

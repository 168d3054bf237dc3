"""A run that can't go on can still end: by a no, by the clock, or by a person who says so on record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from project import REFUND, Shop, make_shop, write_action
from remit import Remit, RunResult
from remit.cases.cases import Decision
from remit.errors import CaseError, RunError
from remit.journal.events import Draft, EventType
from remit.journal.journal import system_clock
from remit.runs.by_person import commit_by
from remit.storage.rows import make_ready

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


async def test_a_case_stays_as_a_person_has_decided_it_when_time_ends_its_run(shop: Shop) -> None:
    async with Remit(shop.folder) as remit:
        held = await remit.run("refunds", {})
        await remit.cases.decide(held.case or "", Decision.APPROVED, token=remit.person_token("lee"))
    shop.contract("refunds", [REFUND], workflow=WORKFLOW, policy="// another text\n")
    async with Remit(shop.folder, clock=lambda: system_clock() + 5 * HOUR_US) as tomorrow:
        result = await tomorrow.engine.drive(held.run)
        assert (result.outcome, "not carried out in time" in result.reason) == ("denied", True)
        case = tomorrow.cases.get(held.case or "")
        assert (case.status, case.decided_by) == ("approved", "person/lee")
    assert shop.tries() == []


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
    assert closed.header.actor == later.redactor.pseudonym("person", "person/lee")
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
    await later.administration.disable("person/lee")
    with pytest.raises(CaseError) as disabled:
        await later.close_run(held.run, token=later.person_token("lee"))
    assert disabled.value.code == "approver_disabled"


async def test_a_run_that_is_driven_is_not_ended_under_its_worker(later: Remit) -> None:
    async with later.gate("away").run({}) as run:
        with pytest.raises(RunError) as refused:
            await later.close_run(run.id, token=later.person_token("lee"))
        assert refused.value.code == "run_busy"


@pytest.mark.parametrize("forged", [{"shown_digest": "0" * 64}, {"case": "case-other"}])
async def test_an_answer_to_another_question_ends_no_run_whose_release_is_gone(
    later: Remit, held: RunResult, forged: dict[str, str]
) -> None:
    case = later.cases.get(held.case or "")
    log, events = later.journal.reopen(held.run)
    [asked] = [event for event in events if event.type is EventType.APPROVAL_REQUESTED]
    answer = {"case": case.case, "shown_digest": asked.body["shown_digest"], "decision": "denied", "by": "person/lee"}
    draft = Draft(type=EventType.APPROVAL_DECIDED, actor="person/lee", span=case.step, body={**answer, **forged})
    await later.journal.append(log, draft, statements=[make_ready(held.run, later.clock())])
    with pytest.raises(RunError) as stuck:
        await later.engine.drive(held.run)
    assert stuck.value.code == "release_not_at_hand"
    # The question stands: who answers it, ends the run.
    await later.cases.decide(case.case, Decision.DENIED, token=later.person_token("lee"))
    assert (await later.engine.drive(held.run)).outcome == "denied"


def disable_at_once(remit: Remit, principal: str) -> None:
    """Disable somebody while the event loop stands still."""
    disabling = remit.principals.disabling(principal, system_clock())
    with remit.database.engine.begin() as connection:
        connection.execute(text(disabling.sql), disabling.params)


class Ticking:
    """The system's clock, which somebody uses the nth time that it is looked at from now on."""

    def __init__(self) -> None:
        self.left = -1
        self.use: Callable[[], object] = int

    def __call__(self) -> int:
        self.left -= 1
        if self.left == 0:
            self.use()
        return system_clock()


@pytest.mark.parametrize("look", [2, 3])
async def test_a_person_who_is_disabled_while_they_end_a_run_ends_none(shop: Shop, held: RunResult, look: int) -> None:
    clock = Ticking()
    async with Remit(shop.folder, clock=clock) as remit, Remit(shop.folder) as other:
        token = remit.person_token("lee")
        clock.left, clock.use = look, lambda: disable_at_once(other, "person/lee")
        with pytest.raises(CaseError) as refused:
            await remit.close_run(held.run, token=token)
        assert (clock.left < 0, refused.value.code) == (True, "approver_disabled")
        assert EventType.RUN_CLOSED not in [event.type for event in remit.journal.reader.events(held.run)]
        assert remit.cases.get(held.case or "").status == "open"
        # Nobody holds the run because of it.
        assert (await remit.close_run(held.run, token=remit.person_token("kim"))).outcome == "stopped"


async def test_a_run_is_closed_only_when_the_calls_that_are_under_way_have_come_to_their_outcomes(shop: Shop) -> None:
    async with Remit(shop.folder) as remit:
        async with remit.gate("away").run({}) as run:
            left = [asyncio.ensure_future(run.propose("put.none", {"value": value})) for value in range(3)]
            await asyncio.sleep(0)
        events = remit.journal.reader.events(run.id)
        assert [event.type for event in events].count(EventType.CALL_COMPLETED) == 3
        assert events[-1].type is EventType.RUN_CLOSED
        assert [outcome.completed for outcome in await asyncio.gather(*left)] == [True] * 3
    assert len(shop.ledger()) == 3


WRONG = """
async def wrong(run, request):
    await run.call("put.none", value=1)
    return {answer}
"""


@pytest.mark.parametrize("answer", ["None", "['done']", "'done'", "{'n': float('nan')}", "{'when': object()}"])
async def test_a_workflow_whose_output_does_not_meet_the_contract_has_failed_and_says_so(
    shop: Shop, answer: str
) -> None:
    shop.contract("wrong", [write_action("put.none")], workflow=WRONG.format(answer=answer))
    async with Remit(shop.folder) as remit:
        result = await remit.run("wrong", {})
        assert (result.outcome, result.output) == ("failed", None)
        assert result.reason.startswith("the output ")
        closed = remit.journal.reader.events(result.run)[-1]
        assert (closed.header.verdict, closed.body["reason"]) == ("failed", result.reason)


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
    await later.administration.disable("person/lee")
    seen = Draft(type=EventType.CASE_REVEALED, actor="person", body={"case": held.case, "by": "person/lee"})
    with pytest.raises(CaseError) as refused:
        await commit_by("person/lee", later.journal, log, [seen])
    assert refused.value.code == "approver_disabled"
    assert later.journal.reader.events(held.run) == before


@pytest.mark.parametrize("disabled", ["agent/shop/putting", "person/anna"])
async def test_a_call_that_a_worker_left_is_not_made_once_its_principal_is_disabled(shop: Shop, disabled: str) -> None:
    put = "\nasync def putting(run, request):\n    return {'put': await run.call('put.keyed', value=1)}\n"
    shop.contract("putting", [write_action("put.keyed")], workflow=put)

    def stop(point: str) -> None:
        if point == "after_intent":
            raise KeyboardInterrupt

    async with Remit(shop.folder, crash_point=stop) as remit:
        run = await remit.engine.open("putting", {}, on_behalf_of="person/anna")
        with pytest.raises(KeyboardInterrupt):
            await remit.engine.drive(run)
    async with Remit(shop.folder) as later:
        await later.administration.disable(disabled)
        result = await later.engine.drive(run)
        assert (result.outcome, "its principal was disabled" in result.reason) == ("unknown", True)
        [case] = later.cases.list("shop")
        assert (case.kind, case.run) == ("unknown", run)
    assert shop.tries() == []

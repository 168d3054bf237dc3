"""An approval answers one question, asked of people who may answer it, once and in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from project import REFUND, Shop, make_shop
from remit import Completed, Denied, Held, Outcome, Remit
from remit.cases.cases import Case, Decision
from remit.errors import CaseError, IdentityError, StorageError
from remit.gate.call import Proposal
from remit.identity.tokens import TokenRequest
from remit.journal.events import Draft, EventType
from remit.journal.journal import system_clock
from remit.runs.engine import RunResult
from remit.storage import schema

pytestmark = pytest.mark.anyio

WORKFLOW = """
async def refunds(run, request):
    if request.get("order"):
        return {"paid": await run.call("payments.refund", order=request["order"], amount=AMOUNT, account="DE1")}
    return {"checked": await run.call("risk.check", order=1)}

AMOUNT = {"amount": "60.00", "currency": "EUR"}
"""
HOUR_US = 3_600_000_000


class Clock:
    """The system's clock, moved on by hand."""

    def __init__(self) -> None:
        self.ahead_us = 0

    def __call__(self) -> int:
        return system_clock() + self.ahead_us


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    actions = [REFUND, {"tool": "risk.check"}]
    made.contract("refunds", actions, workflow=WORKFLOW)
    made.contract("away", actions)
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def remit(shop: Shop, clock: Clock) -> AsyncIterator[Remit]:
    async with Remit(shop.folder, clock=clock) as opened:
        yield opened


async def ask(remit: Remit, on_behalf_of: str | None = None) -> tuple[RunResult, Case]:
    """A run that is held, and its case."""
    result = await remit.run("refunds", {"order": 4}, on_behalf_of=on_behalf_of)
    assert result.outcome == "held"
    assert result.case is not None
    return result, remit.cases.get(result.case)


async def approve(remit: Remit, case: str, person: str = "lee", reason: str = "") -> Case:
    return await remit.cases.decide(case, Decision.APPROVED, token=remit.person_token(person), reason=reason)


async def propose_again(remit: Remit, run: str, **changed: Any) -> Outcome:
    """Propose the held step once more, as a run does that is taken up again."""
    async with remit.engine.session(run) as (_, folded):
        state = folded.state
        token = remit.issuer.issue(state.authority.token_request(run), remit.clock())
        args = {"order": 4, "amount": {"amount": "60.00", "currency": "EUR"}, "account": "DE1", **changed}
        proposal = Proposal(tool="payments.refund", args=args, step="1", token=token)
        return await remit.pipeline.propose(state, proposal)


async def test_an_approved_run_is_taken_up_by_a_worker_that_did_other_work_meanwhile(shop: Shop) -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()

    def note(point: str) -> None:
        if point == "after_outcome":
            ended.put_nowait(point)

    async with Remit(shop.folder, crash_point=note) as remit, asyncio.timeout(20):
        held, case = await ask(remit)
        stop = asyncio.Event()
        worker = asyncio.ensure_future(remit.engine.work(stop, poll_ms=10))
        assert (await remit.run("refunds", {})).outcome == "completed"
        await ended.get()
        assert shop.ledger() == []
        await approve(remit, case.case)
        await ended.get()
        stop.set()
        await worker
        assert (await remit.engine.drive(held.run)).outcome == "completed"
    assert len(shop.ledger()) == 1


async def test_a_held_run_survives_the_process_that_held_it(shop: Shop) -> None:
    async with Remit(shop.folder) as first:
        held, case = await ask(first)
    async with Remit(shop.folder) as second:
        assert second.engine.waiting() == []
        await approve(second, case.case)
    async with Remit(shop.folder) as third:
        assert third.engine.waiting() == [held.run]
        result = await third.engine.drive(held.run)
        assert (result.outcome, result.output) == ("completed", {"paid": "paid 60.00"})
        assert (await third.engine.drive(held.run)).outcome == "completed"
    assert len(shop.ledger()) == 1


async def test_the_person_is_shown_the_call_and_why_it_waits(remit: Remit) -> None:
    _, case = await ask(remit)
    question = remit.cases.question(case)
    assert question["shown"]["tool"] == "payments.refund"
    assert question["shown"]["args"]["amount"] == {"amount": "60.00", "currency": "EUR"}
    assert question["shown"]["labels"]["account"] == ["model"]
    assert question["shown"]["rules"] == ["autonomy:payments.refund"]
    assert case.roles == ("role:care-lead",)


@pytest.mark.parametrize(
    "changed", [{"account": "DE2"}, {"amount": {"amount": "60.01", "currency": "EUR"}}, {"order": 5}]
)
async def test_an_approval_of_other_arguments_is_stale(remit: Remit, shop: Shop, changed: dict[str, Any]) -> None:
    held, case = await ask(remit)
    await approve(remit, case.case)
    outcome = await propose_again(remit, held.run, **changed)
    assert isinstance(outcome, Denied)
    assert outcome.code == "approval_stale"
    assert shop.tries() == []


async def test_an_approval_carries_out_exactly_what_was_asked(remit: Remit, shop: Shop) -> None:
    held, case = await ask(remit)
    await approve(remit, case.case)
    assert isinstance(await propose_again(remit, held.run), Completed)
    assert len(shop.ledger()) == 1


async def test_without_an_answer_nothing_is_carried_out(remit: Remit, shop: Shop) -> None:
    held, _ = await ask(remit)
    assert isinstance(await propose_again(remit, held.run), Held)
    assert (await remit.engine.drive(held.run)).outcome == "held"
    assert shop.tries() == []


async def test_a_denied_case_denies_the_call_with_the_reason(remit: Remit, shop: Shop) -> None:
    held, case = await ask(remit)
    await remit.cases.decide(case.case, Decision.DENIED, token=remit.person_token("lee"), reason="too much")
    result = await remit.engine.drive(held.run)
    assert result.outcome == "denied"
    assert "too much" in result.reason
    assert shop.tries() == []


async def test_an_approval_that_comes_too_late_is_refused_and_the_run_ends(
    remit: Remit, shop: Shop, clock: Clock
) -> None:
    held, case = await ask(remit)
    clock.ahead_us = 5 * HOUR_US
    with pytest.raises(CaseError) as refused:
        await approve(remit, case.case)
    assert refused.value.code == "case_expired"
    assert remit.engine.waiting() == [held.run]
    result = await remit.engine.drive(held.run)
    assert (result.outcome, "in time" in result.reason) == ("denied", True)
    assert remit.engine.waiting() == []
    assert remit.cases.get(case.case).status == "expired"
    assert shop.tries() == []


async def test_an_approval_that_is_used_too_late_has_expired(remit: Remit, shop: Shop, clock: Clock) -> None:
    held, case = await ask(remit)
    await approve(remit, case.case)
    clock.ahead_us = 5 * HOUR_US
    assert (await remit.engine.drive(held.run)).outcome == "denied"
    assert shop.tries() == []


async def test_an_approval_under_another_release_does_not_let_the_run_go_on(remit: Remit, shop: Shop) -> None:
    held, case = await ask(remit)
    await approve(remit, case.case)
    shop.contract("refunds", [REFUND, {"tool": "risk.check"}], workflow=WORKFLOW, policy="// another text\n")
    async with Remit(shop.folder) as later:
        with pytest.raises(Exception, match="put the earlier files back"):
            await later.engine.drive(held.run)
    assert shop.tries() == []


async def test_a_case_is_decided_once(remit: Remit) -> None:
    _, case = await ask(remit)
    await approve(remit, case.case)
    for decision in (Decision.APPROVED, Decision.DENIED):
        with pytest.raises(CaseError) as refused:
            await remit.cases.decide(case.case, decision, token=remit.person_token("kim"))
        assert refused.value.code == "case_closed"


async def approved(remit: Remit, held: RunResult, case: Case, clock: Clock) -> None:
    await approve(remit, case.case)


async def denied(remit: Remit, held: RunResult, case: Case, clock: Clock) -> None:
    await remit.cases.decide(case.case, Decision.DENIED, token=remit.person_token("lee"))


async def withdrawn(remit: Remit, held: RunResult, case: Case, clock: Clock) -> None:
    await remit.close_run(held.run, token=remit.person_token("lee"))


async def expired(remit: Remit, held: RunResult, case: Case, clock: Clock) -> None:
    clock.ahead_us = 5 * HOUR_US
    await remit.engine.drive(held.run)


@pytest.mark.parametrize("settle", [approved, denied, withdrawn, expired], ids=lambda settle: settle.__name__)
@pytest.mark.parametrize("decision", [Decision.APPROVED, Decision.DENIED])
async def test_who_decides_a_case_that_is_not_open_any_more_is_told_what_became_of_it_and_changes_nothing(
    remit: Remit, shop: Shop, clock: Clock, settle: Any, decision: Decision
) -> None:
    held, case = await ask(remit)
    await settle(remit, held, case, clock)
    before, events = remit.cases.get(case.case), remit.journal.reader.events(held.run)
    with pytest.raises(CaseError) as refused:
        await remit.cases.decide(case.case, decision, token=remit.person_token("kim"))
    assert refused.value.code == "case_closed"
    assert refused.value.message == f"case `{case.case}` is already {settle.__name__}"
    assert remit.cases.get(case.case) == before
    assert remit.journal.reader.events(held.run) == events
    assert shop.tries() == []


async def test_of_two_people_who_decide_at_once_one_decides(remit: Remit, shop: Shop) -> None:
    held, case = await ask(remit)
    async with Remit(shop.folder) as other:
        said = await asyncio.gather(
            approve(remit, case.case, "lee"), approve(other, case.case, "kim"), return_exceptions=True
        )
    refused = [item for item in said if isinstance(item, CaseError)]
    assert [item.code for item in refused] == ["case_closed"]
    decided = [e for e in remit.journal.reader.events(held.run) if e.type is EventType.APPROVAL_DECIDED]
    assert len(decided) == 1
    assert decided[0].body["by"] == remit.cases.get(case.case).decided_by


async def crossing(remit: Remit, meanwhile: Awaitable[Any]) -> list[Any]:
    """Lee approves, and something else is on record before the answer is, which waits for calls that are under way."""
    _, case = await ask(remit)
    async with remit.gate("away").run({}) as run:
        checks = [run.propose("risk.check", {"order": n}) for n in range(2)]
        return await asyncio.gather(*checks, approve(remit, case.case), meanwhile, return_exceptions=True)


async def test_of_two_answers_that_cross_the_one_on_record_first_counts(remit: Remit, shop: Shop) -> None:
    async with Remit(shop.folder) as other:

        async def deny() -> Case:
            [case] = other.cases.list("shop")
            return await other.cases.decide(case.case, Decision.DENIED, token=other.person_token("kim"))

        *_, lees, kims = await crossing(remit, deny())
        [refused] = [said for said in (lees, kims) if isinstance(said, CaseError)]
        [case] = [said for said in (lees, kims) if isinstance(said, Case)]
        assert refused.code == "case_closed"
        decided = [e for e in remit.journal.reader.events(case.run) if e.type is EventType.APPROVAL_DECIDED]
        assert [event.body["by"] for event in decided] == [case.decided_by]
        assert remit.cases.get(case.case) == case


async def test_an_answer_of_somebody_who_is_disabled_before_it_is_on_record_does_not_count(
    remit: Remit, shop: Shop
) -> None:
    async with Remit(shop.folder) as other:

        async def disable() -> None:
            await other.administration.disable("person/lee")

        *_, said, _ = await crossing(remit, disable())
        order = order_of(other, "approval.decided", "principal.changed")
        if isinstance(said, Case):
            # They were faster: then their answer is on record before they were disabled.
            assert order == ["approval.decided", "principal.changed"]
            return
        assert isinstance(said, CaseError)
        assert said.code == "approver_disabled"
        assert order == ["principal.changed"]
        assert shop.ledger() == []


def order_of(remit: Remit, *types: str) -> list[str]:
    """Those events of these types that are on record, in the order in which they were written."""
    event = schema.events.c
    with remit.database.engine.connect() as connection:
        return list(connection.execute(select(event.type).where(event.type.in_(types)).order_by(event.seq)).scalars())


async def test_who_the_run_acts_for_does_not_approve_it(remit: Remit) -> None:
    _, case = await ask(remit, on_behalf_of="person/lee")
    with pytest.raises(CaseError) as refused:
        await approve(remit, case.case, "lee")
    assert refused.value.code == "beneficiary_is_approver"
    assert (await approve(remit, case.case, "kim")).status == "approved"


async def test_who_the_run_acts_for_does_not_approve_it_though_their_name_is_concealed_on_record(shop: Shop) -> None:
    with (shop.folder / "remit.toml").open("a") as project:
        project.write('[people."ann@shop.example"]\nname = "Ann"\nroles = ["care-lead"]\n')
    async with Remit(shop.folder) as remit:
        held, case = await ask(remit, on_behalf_of="person/ann@shop.example")
        opened = remit.journal.reader.events(held.run)[0]
        assert "ann@shop.example" not in repr(opened.body)
        with pytest.raises(CaseError) as refused:
            await approve(remit, case.case, "ann@shop.example")
        assert refused.value.code == "beneficiary_is_approver"
        assert (await approve(remit, case.case, "kim")).status == "approved"


async def test_a_person_without_the_role_does_not_approve(remit: Remit) -> None:
    _, case = await ask(remit)
    with pytest.raises(CaseError) as refused:
        await approve(remit, case.case, "anna")
    assert refused.value.code == "role_missing"


async def test_a_disabled_person_does_not_approve(remit: Remit) -> None:
    _, case = await ask(remit)
    await remit.administration.disable("person/lee")
    with pytest.raises(CaseError) as refused:
        await approve(remit, case.case)
    assert refused.value.code == "approver_disabled"


def agent_token(remit: Remit, run: str, on_behalf_of: str | None = None) -> str:
    """The token with which the run itself acts, and which it must not be able to approve with."""
    request = remit.program("refunds").authority.token_request(run, on_behalf_of)
    return remit.issuer.issue(replace(request, scopes=("cases:decide", *request.scopes)), remit.clock())


@pytest.mark.parametrize("on_behalf_of", [None, "person/lee"])
async def test_an_agent_does_not_approve_whoever_it_acts_for(remit: Remit, on_behalf_of: str | None) -> None:
    held, case = await ask(remit)
    with pytest.raises(CaseError) as refused:
        await remit.cases.decide(case.case, Decision.APPROVED, token=agent_token(remit, held.run, on_behalf_of))
    assert refused.value.code == "approver_unknown"


async def test_a_token_without_the_scope_decides_nothing(remit: Remit) -> None:
    _, case = await ask(remit)
    request = TokenRequest(principal="person/lee", tenant="shop", region="eu", scopes=("runs:read",))
    with pytest.raises(CaseError) as refused:
        await remit.cases.decide(case.case, Decision.APPROVED, token=remit.issuer.issue(request, remit.clock()))
    assert refused.value.code == "scope_missing"


@pytest.mark.parametrize("token", ["", "x.y.z", "lee"])
async def test_who_can_not_prove_who_they_are_decides_nothing(remit: Remit, token: str) -> None:
    _, case = await ask(remit)
    with pytest.raises(IdentityError):
        await remit.cases.decide(case.case, Decision.APPROVED, token=token)
    assert remit.cases.get(case.case).status == "open"


async def test_an_answer_to_another_question_on_record_approves_nothing(remit: Remit, shop: Shop) -> None:
    held, case = await ask(remit)
    for forged in ({"case": case.case, "shown_digest": "0" * 64}, {"case": "case-other", "shown_digest": ""}):
        log, _ = remit.journal.reopen(held.run)
        body = {**forged, "decision": "approved", "by": "person/lee", "reason": ""}
        event = Draft(type=EventType.APPROVAL_DECIDED, actor="person/lee", span=case.step, body=body)
        await remit.journal.append(log, event)
    async with remit.engine.session(held.run) as (_, folded):
        assert folded.state.approvals[case.step].granted is None
    assert shop.tries() == []


async def test_an_altered_event_stops_the_run(remit: Remit, shop: Shop) -> None:
    held, case = await ask(remit)
    await approve(remit, case.case)
    table = schema.events
    where = (table.c.run == held.run) & (table.c.type == EventType.APPROVAL_DECIDED)
    with remit.database.engine.begin() as connection:
        body = bytes(connection.execute(table.select().where(where)).mappings().one()["body"])
        forged = body[:-1] + bytes([body[-1] ^ 1])
        connection.execute(table.update().where(where).values(body=forged))
    with pytest.raises(StorageError) as broken:
        await remit.engine.drive(held.run)
    assert broken.value.code == "record_corrupt"
    assert shop.tries() == []


async def test_a_row_that_says_approved_is_not_an_approval(remit: Remit, shop: Shop) -> None:
    held, case = await ask(remit)
    with remit.database.engine.begin() as connection:
        connection.execute(schema.cases.update().where(schema.cases.c.case == case.case).values(status="approved"))
        connection.execute(schema.runs.update().where(schema.runs.c.run == held.run).values(status="ready"))
    assert (await remit.engine.drive(held.run)).outcome == "held"
    assert shop.tries() == []


async def test_a_person_may_decide_while_the_run_goes_on_writing(remit: Remit) -> None:
    async with remit.gate("away").run({}) as run:
        args = {"order": 4, "amount": {"amount": "60.00", "currency": "EUR"}, "account": "DE1"}
        held = await run.propose("payments.refund", args)
        assert isinstance(held, Held)
        proposals = [run.propose("risk.check", {"order": n}) for n in range(8)]
        decided, others = await asyncio.gather(approve(remit, held.case), asyncio.gather(*proposals))
        assert decided.status == "approved"
        assert all(isinstance(other, Completed) for other in others)


async def test_a_closed_run_asks_nobody_any_more(remit: Remit) -> None:
    args = {"order": 4, "amount": {"amount": "60.00", "currency": "EUR"}, "account": "DE1"}
    async with remit.gate("away").run({}) as run:
        held = await run.propose("payments.refund", args)
        assert isinstance(held, Held)
        await run.escalate("somebody else must do this")
    with pytest.raises(CaseError) as refused:
        await approve(remit, held.case)
    assert refused.value.code == "case_closed"


async def test_a_case_that_is_no_approval_is_resolved_and_not_approved(remit: Remit) -> None:
    async with remit.gate("away").run({}) as run:
        await run.escalate("somebody else must do this")
    (case,) = remit.cases.list("shop")
    with pytest.raises(CaseError) as refused:
        await approve(remit, case.case)
    assert refused.value.code == "case_wrong_decision"
    decided = await remit.cases.decide(case.case, Decision.RESOLVED, token=remit.person_token("lee"))
    assert decided.status == "resolved"


async def test_who_may_decide_sees_what_is_redacted_and_that_is_on_record(tmp_path: Path, database_url: str) -> None:
    shop = make_shop(tmp_path, database_url)
    account = "DE89 3704 0044 0532 0130 00"
    workflow = WORKFLOW.replace('"DE1"', repr(account))
    shop.contract("refunds", [REFUND], workflow=workflow)
    async with Remit(shop.folder) as remit:
        held = await remit.run("refunds", {"order": 7})
        assert held.case is not None
        assert account not in repr(remit.cases.question(remit.cases.get(held.case)))
        revealed = await remit.cases.reveal(held.case, token=remit.person_token("kim"))
        assert (revealed.args["account"], revealed.request) == (account, {"order": 7})
        last = remit.journal.reader.events(held.run)[-1]
        assert (last.type, last.body["by"]) == (EventType.CASE_REVEALED, "person/kim")
        # The run and its approval are not disturbed by it.
        await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("lee"))
        assert (await remit.engine.drive(held.run)).outcome == "completed"


async def test_who_may_not_decide_is_shown_nothing(remit: Remit) -> None:
    held = await remit.run("refunds", {"order": 7})
    assert held.case is not None
    with pytest.raises(CaseError) as refused:
        await remit.cases.reveal(held.case, token=remit.person_token("anna"))
    assert refused.value.code == "role_missing"
    assert EventType.CASE_REVEALED not in [event.type for event in remit.journal.reader.events(held.run)]

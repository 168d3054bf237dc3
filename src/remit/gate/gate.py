"""The gate: one call, from its proposal to its outcome. Every way to a tool goes through `Gate.propose`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import assert_never, cast

from msgspec.structs import replace

from remit.errors import RunError
from remit.gate import record
from remit.gate.call import Call, Proposal, RunState, Stopped
from remit.gate.checks.approved import approved
from remit.gate.checks.authenticate import Authenticate
from remit.gate.checks.bounded import bounded
from remit.gate.checks.granted import granted
from remit.gate.checks.labelled import labelled
from remit.gate.checks.located import Located
from remit.gate.checks.permitted import permitted
from remit.gate.checks.verified import Verified
from remit.gate.checks.well_formed import well_formed
from remit.gate.context import Clients, ToolContexts
from remit.gate.execute import CrashPoint, Executor, usage_of
from remit.gate.record import RecordedVerdict
from remit.gate.verdicts import (
    Allow,
    Carried,
    Completed,
    Defer,
    Deferred,
    Denied,
    Deny,
    Failed,
    Held,
    Hold,
    Outcome,
    Reject,
    Rejected,
    Unknown,
    Verdict,
)
from remit.identity.tokens import TokenVerifier
from remit.journal.journal import Disabled, Entry, Journal, Recording, Reservation, Settlement
from remit.limits.meters import Charge, Reserved
from remit.limits.rules import NOTHING, Demand, charges
from remit.policy.session import PastCall
from remit.provenance.labels import echoes_of, kind_of, untrusted
from remit.tools.spec import ToolSpec
from remit.values import Json, decode, encode

Judged = Call | Stopped | Verdict
Check = Callable[[Call, RunState], Judged | Awaitable[Judged]]

_RUNAWAY = 2
"""A run that goes on proposing at this many times its budget is not answered any more."""


def no_crash(_point: str) -> None:
    """Where a crash would be tried by a test."""


class Gate:
    """Decides, records and carries out. `crash_point` is for tests that stop the world at a named point."""

    def __init__(
        self,
        journal: Journal,
        verifier: TokenVerifier,
        clients: Clients,
        *,
        crash_point: CrashPoint = no_crash,
    ) -> None:
        contexts = ToolContexts(clients)
        self.checks: tuple[Check, ...] = (
            Authenticate(verifier),
            granted,
            bounded,
            well_formed,
            labelled,
            Located(contexts),
            permitted,
            Verified(self.propose),
            approved,
            # Limits come last and are reserved by the transaction that records the decision (`_record`).
        )
        self._journal = journal
        self._executor = Executor(contexts, crash_point)
        self._crash_point = crash_point

    async def propose(self, run: RunState, proposal: Proposal) -> Outcome:
        """Decide a proposed call, record the decision, carry it out if it is allowed, record what became of it.

        Raises `StorageError` where the record can't be written (then nothing was done), `RunError`: `run_ended` for
        a run that nobody drives any more, `run_stopped` for one that may do nothing more.
        """
        if type(proposal.tool) is not str:
            proposal = replace(proposal, tool=record.recorded_name(run, proposal.tool))
        self._count(run, proposal)
        turn = run.turns.begin(proposal.tool, proposal.step)
        self._journal.under_way += 1
        try:
            # What else is ready begins as well, so that calls that are proposed together are recorded together.
            await asyncio.sleep(0)
            if not run.turns.is_alone():
                await run.turns.after(turn, run.authority.policy.depends_on(proposal.tool))
            return await self._propose(run, proposal)
        finally:
            self._journal.under_way -= 1
            run.turns.finish(turn)

    async def _propose(self, run: RunState, proposal: Proposal) -> Outcome:
        call, verdict = await self._judge(run, proposal)
        decided = await self._record(run, call, verdict)
        run.deferred.discard((proposal.tool, call.args_digest))
        match decided.verdict:
            case Allow():
                self._crash_point("after_intent")
                return await self._carry_out(run, call, decided)
            case Reject() as reject:
                return self._rejected(run, call, reject)
            case Deny() as deny:
                self._remember(run, call, "denied")
                note_denial(run, deny.code)
                return Denied(code=deny.code, message=deny.message, rules=deny.rules)
            case Defer() as defer:
                # No part of the run's memory: it has yet to be decided, and an approval that was given still stands.
                run.deferred.add((proposal.tool, call.args_digest))
                return Deferred(code=defer.code, message=defer.message)
            case Hold() as hold:
                assert decided.approval is not None
                run.approvals[proposal.step] = decided.approval
                self._remember(run, call, "held")
                return Held(code="held", message=hold.message, case=decided.approval.case, rules=hold.rules)
            case never:
                assert_never(never)

    async def preview(self, run: RunState, proposal: Proposal) -> tuple[Call, Verdict]:
        """What would be said of a call now. Nothing is recorded, reserved or carried out: it may be said otherwise later."""
        return await self._judge(run, proposal)

    async def recover(self, run: RunState, call: Call, decided: RecordedVerdict) -> Outcome:
        """Settle a call that was allowed and recorded by a worker that then stopped: read back, or do it (again)."""
        turn = run.turns.begin(call.proposal.tool, call.proposal.step)
        try:
            return await self._recover(run, call, decided)
        finally:
            run.turns.finish(turn)

    async def _recover(self, run: RunState, call: Call, decided: RecordedVerdict) -> Outcome:
        started = self._journal.clock()
        asked = Entry(log=run.log, record=lambda found: Recording(value=found), principals=_principals(run))
        if isinstance(await self._journal.commit(asked), Disabled):
            message = "its principal was disabled before it was known whether this happened"
            settled: Carried = Unknown(code="outcome_unknown", message=message)
        else:
            settled = await self._executor.recover(call, run)
        return await self._end(run, call, decided, settled, started)

    def _count(self, run: RunState, proposal: Proposal) -> None:
        if run.ended:
            raise RunError(f"run `{run.run}` {run.ended}; nothing more is carried out", code="run_ended")
        run.steps.add(proposal.step)
        if len(run.steps) > _RUNAWAY * (run.authority.contract.budget.calls + run.authority.contract.attempts):
            raise RunError(f"run `{run.run}` proposes calls without end; it is not answered any more", code="run_stopped")

    async def _judge(self, run: RunState, proposal: Proposal) -> tuple[Call, Verdict]:
        call = Call(proposal=proposal, at_us=self._journal.clock(), proposed=len(run.steps))
        for check in self.checks:
            try:
                judged = check(call, run)
                if not isinstance(judged, Call) and isawaitable(judged):
                    judged = await judged
            except Exception as error:  # noqa: BLE001 - the boundary: a check that breaks is a deny and an event
                name = getattr(check, "__name__", type(check).__name__).lower()
                return call, Deny(code="gate_failed", message=f"check `{name}` broke: {type(error).__name__}")
            if isinstance(judged, Stopped):
                return judged.call, judged.verdict
            if not isinstance(judged, Call):
                return call, judged
            call = judged
        return call, Allow(rules=call.decision.rules if call.decision else ())

    async def _record(self, run: RunState, call: Call, verdict: Verdict) -> RecordedVerdict:
        """The one durable transaction that reserves and records. After it the call may have been dispatched."""
        wanted: tuple[Charge, ...] = ()
        rules = run.authority.limits[call.proposal.tool] if isinstance(verdict, Allow) else None
        if rules is not None:
            if rules.currencies and call.demand.money and call.demand.currency not in rules.currencies:
                message = f"no limit is set for {call.demand.currency}; limits are in {', '.join(sorted(rules.currencies))}"
                verdict, rules = Deny(code="limit_exhausted", message=message), None
            elif full := run.usage.reserve(rules, call.demand):
                verdict, rules = Deny(code="limit_exhausted", message=f"limit reached: {full.label}"), None
            else:
                wanted = charges(rules, call.demand, run.on_behalf_of)
        self._crash_point("before_intent")

        def write(reservation: Reservation) -> Recording[RecordedVerdict]:
            settled, reserved = record.after_reservation(verdict, reservation)
            return record.decision(call, run, record.without_secrets(settled, run), reserved)

        decided: RecordedVerdict | None = None
        try:
            decided = await self._journal.commit(
                Entry(log=run.log, record=write, charges=wanted, principals=_principals(run))
            )
            return decided
        finally:
            if rules is not None and (decided is None or not isinstance(decided.verdict, Allow)):
                run.usage.release(rules, call.demand)

    async def _carry_out(self, run: RunState, call: Call, decided: RecordedVerdict) -> Outcome:
        started = self._journal.clock()
        try:
            carried = await self._executor.carry_out(call, run)
        except asyncio.CancelledError:
            # The record must not be left without an outcome because whoever asked does not wait for it any more.
            await asyncio.shield(asyncio.ensure_future(self._abandon(run, call, decided, started)))
            raise
        return await self._end(run, call, decided, carried, started)

    async def _abandon(self, run: RunState, call: Call, decided: RecordedVerdict, started: int) -> None:
        carried = await self._executor.abandon(call, run)
        await self._end(run, call, decided, carried, started)

    async def _end(self, run: RunState, call: Call, decided: RecordedVerdict, carried: Carried, started: int) -> Outcome:
        assert call.tool is not None
        if isinstance(carried, Completed) and run.redactor.holds_credential(carried.result):
            # A system may say anything; what the gateway signs in with never gets as far as the agent.
            carried = replace(carried, result=run.redactor.without_credentials(carried.result))
        self._crash_point("before_outcome")
        latency_us = self._journal.clock() - started
        usage = usage_of(call.tool, carried)
        over = not_used(call.demand, carried, usage.cost_microusd if usage else 0)
        entry = Entry(
            log=run.log,
            record=lambda _: record.outcome(call, run, carried, usage, latency_us),
            settlements=settlements_of(decided.reserved, over),
        )
        ended = await self._journal.commit(entry)
        self._crash_point("after_outcome")
        run.usage.release(run.authority.limits[call.proposal.tool], over)
        self._take_in(run, call, ended)
        return ended

    def _take_in(self, run: RunState, call: Call, ended: Completed | Failed | Unknown) -> None:
        """What the run has seen now, for labels and session facts."""
        run.rejections.pop(call.proposal.tool, None)
        match ended:
            case Completed(result=result):
                take_in_result(run, call, result)
            case Failed():
                self._remember(run, call, "failed")
            case Unknown():
                self._remember(run, call, "unknown")
            case never:
                assert_never(never)

    def _rejected(self, run: RunState, call: Call, reject: Reject) -> Outcome:
        tool = call.proposal.tool
        run.rejections[tool] = run.rejections.get(tool, 0) + 1
        self._remember(run, call, "rejected")
        left = max(0, run.authority.contract.attempts - run.rejections[tool])
        return Rejected(code=reject.code, message=reject.message, attempts_left=left)

    def _remember(self, run: RunState, call: Call, outcome: str) -> None:
        run.past.append(
            PastCall(tool=call.proposal.tool, outcome=outcome, args=call.args, result=None, at_us=call.at_us)
        )


def _principals(run: RunState) -> tuple[str, ...]:
    """Who must be enabled for a call to go out: the agent, and the person it acts for."""
    return (run.authority.principal, *([run.on_behalf_of] if run.on_behalf_of else ()))


def note_denial(run: RunState, code: str) -> None:
    """One guess at a credential is one too many: whoever may ask again would find it out piece by piece."""
    if code == "credential_in_arguments":
        run.ended = "has named a credential of the gateway"


def take_in_result(run: RunState, call: Call, result: Json) -> None:
    """Note a completed call: its result becomes something that later arguments may have come from.

    The run keeps a copy of its own, which no agent that was handed the result can change. What the tool only says back
    keeps the labels that it came with: nobody gains trust by an echo.
    """
    assert call.tool is not None
    spec = call.tool.spec
    result = decode(encode(result))
    run.past.append(
        PastCall(tool=spec.name, outcome="completed", args=call.args, result=result, at_us=call.at_us)
    )
    trusted = "model" if spec.name.startswith("model:") else f"tool:{spec.name}"
    for label, passage in passages_of(spec, result):
        # Each by itself: a document that nobody vouches for does not gain trust by lying beside one that somebody does.
        run.seen.add(label if kind_of(label) == "untrusted" else trusted, passage)
    if spec.retrieves is not None:
        return
    run.seen.add(
        trusted,
        result,
        outside=untrusted(spec.name),
        outside_paths=spec.untrusted,
        maps=spec.result_maps,
        echoes=echoes_of(call.args, call.labels, found=call.leaves),
    )


def passages_of(spec: ToolSpec, result: Json) -> list[tuple[str, Json]]:
    """The passages that a call has retrieved, each with its own label."""
    if spec.retrieves is None:
        return []
    # Of an imported run nobody has checked what its tools have said.
    told = cast("dict[str, Json]", result) if isinstance(result, dict) else {}
    found: list[dict[str, Json]] = told.get(spec.retrieves) or []
    return [(str(each.get("label", untrusted(spec.name))), each) for each in found]


def not_used(demand: Demand, carried: Carried, cost_microusd: int) -> Demand:
    """What was reserved and turned out not to be used. That the call was made stands, whatever came of it."""
    match carried:
        case Completed():
            return Demand(calls=0, spend=demand.spend - cost_microusd)
        case Failed():
            return Demand(
                calls=0, writes=demand.writes, rows=demand.rows, money=demand.money, currency=demand.currency
            )
        case Unknown():
            return NOTHING
        case never:
            assert_never(never)


def settlements_of(reserved: tuple[Reserved, ...], over: Demand) -> tuple[Settlement, ...]:
    """What of each reservation is given back."""
    if over == NOTHING:
        return ()
    given_back = ((one, over.amount_of(one.quantity)) for one in reserved)
    return tuple(Settlement(reserved=one, amount=amount) for one, amount in given_back if amount)

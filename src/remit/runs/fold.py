"""A run's state as a fold over its events: what a worker knows when it takes up a run, be it the first or the tenth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never, cast

from msgspec.structs import replace

from remit.errors import StorageError
from remit.gate.arguments import is_plain
from remit.gate.authority import Authority
from remit.gate.call import ApprovalRequest, Call, Proposal, RunState
from remit.gate.gate import not_used, note_denial, take_in_result
from remit.gate.record import RecordedVerdict
from remit.gate.verdicts import Allow, Carried, Completed, Denied, Failed, Held, Outcome, Rejected, Unknown
from remit.journal.events import REFUSED, Event, EventType
from remit.journal.journal import FROM_BESIDE, Clock, RunLog
from remit.journal.redaction import Redactor
from remit.limits.meters import Quantity, Reserved
from remit.limits.rules import Demand
from remit.policy.session import PastCall
from remit.provenance.labels import CONTRACT, USER, untrusted
from remit.runs import questions
from remit.runs.questions import RecordedQuestion
from remit.runs.table import Lease
from remit.tools.spec import Resource
from remit.values import Json


@dataclass(kw_only=True, slots=True)
class RecordedStep:
    """What the record says of one step: the latest decision, and what became of it if that is known."""

    tool: str
    args_digest: str
    verdict: str
    call: Call
    decided: RecordedVerdict
    outcome: Outcome | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedValue:
    """A time, id or random number that the workflow asked for at one step. `kind`: now, uuid, random, sleep."""

    kind: str
    value: Json


@dataclass(kw_only=True, slots=True)
class Folded:
    """A run as its record has it. `request` is the original where the run may still see it."""

    state: RunState
    request: Json
    steps: dict[str, RecordedStep] = field(default_factory=dict[str, RecordedStep])
    values: dict[str, RecordedValue] = field(default_factory=dict[str, RecordedValue])
    questions: dict[str, RecordedQuestion] = field(default_factory=dict[str, RecordedQuestion])
    """What people were asked, by step."""
    cases: dict[str, str] = field(default_factory=dict[str, str])
    """Cases that were opened for escalations, by step."""
    active_at: int = 0
    """When its worker last did something, in microseconds since the epoch."""
    resumes: int = 0
    """How often in a row it was taken up and nothing came of it."""
    lease: Lease | None = None
    """The hold of whoever drives it now."""
    closed: str | None = None
    """The outcome, once the run is closed."""
    output: Json = None


def new_state(
    authority: Authority, log: RunLog, *, redactor: Redactor, clock: Clock, on_behalf_of: str | None, opened_at: int
) -> RunState:
    """The state of a run that has just been opened."""
    return RunState(
        authority=authority, log=log, on_behalf_of=on_behalf_of, opened_at=opened_at, redactor=redactor, clock=clock
    )


def fold(events: Sequence[Event], state: RunState) -> Folded:
    """Everything the events say, in order. `state` is a fresh one and becomes part of the result."""
    folded = Folded(state=state, request=None, active_at=events[0].header.at)
    for event in events:
        _apply(folded, event)
        if event.type not in FROM_BESIDE:
            folded.active_at = event.header.at
            folded.resumes = _fruitless(folded.resumes, event)
    return folded


def _fruitless(resumes: int, event: Event) -> int:
    """How often in a row the run was taken up for nothing; to find a system still out of reach is nothing."""
    if event.type is EventType.RUN_RESUMED:
        return resumes + 1
    return resumes if event.header.verdict == "defer" else 0


def resumed(folded: Folded, at: int, idle_us: int | None) -> None:
    """The run is taken up at `at`. Nobody had held it for `idle_us`, which is not its own time.

    While somebody holds a run its time goes on, whatever they do: a person's answer is waited for without holding it.
    Where it isn't known how long that was (`None`), it is all the time since its worker last did something.
    """
    since = at - folded.active_at
    folded.state.parked_us += max(0, since if idle_us is None else min(idle_us, since))
    folded.active_at = at


def _apply(folded: Folded, event: Event) -> None:  # noqa: C901, PLR0912 - a case for each type of event
    state = folded.state
    body: dict[str, Any] = event.body or {}
    match event.type:
        case EventType.RUN_OPENED:
            folded.request = (event.sealed or body)["request"]
            note_request(state, folded.request)
        case EventType.RUN_RESUMED:
            resumed(folded, event.header.at, body.get("idle_us"))
        case EventType.CALL_DECIDED:
            _decided(folded, event, body)
        case EventType.CALL_COMPLETED | EventType.CALL_FAILED | EventType.CALL_UNKNOWN:
            _ended(folded, event, body)
        case EventType.APPROVAL_REQUESTED:
            state.approvals[event.header.span] = _asked(event, body)
            folded.steps[event.header.span].outcome = None
        case EventType.APPROVAL_DECIDED | EventType.CASE_DECIDED:
            take_up_decision(folded, event)
        case EventType.VALUE_RECORDED:
            value = (event.sealed or body)["value"]
            folded.values[event.header.span] = RecordedValue(kind=body["kind"], value=value)
        case EventType.RUN_CLOSED:
            folded.closed = body["outcome"]
            folded.output = (event.sealed or body).get("output")
        case EventType.CASE_OPENED:
            if body["kind"] == "escalation":
                folded.cases[event.header.span] = body["case"]
            elif body["kind"] == questions.QUESTION:
                folded.questions[event.header.span] = questions.recorded(event)
            _opened(folded.steps.get(event.header.span), body)
        case EventType.CASE_REVEALED:
            pass
        case EventType.CONTEXT_RETRIEVED:
            pass  # what was retrieved is the result of the call, which is recorded beside it
        case (
            EventType.PRINCIPAL_CHANGED
            | EventType.KEY_REVOKED
            | EventType.RELEASE_APPROVED
            | EventType.RUN_ERASED
            | EventType.ORIGINALS_DROPPED
            | EventType.HOLD_PLACED
            | EventType.HOLD_LIFTED
            | EventType.VALUE_REVEALED
            | EventType.DEED_DENIED
            | EventType.RUN_REPLAYED
            | EventType.RECORD_EXPORTED
            | EventType.DOCUMENT_ADDED
            | EventType.DOCUMENT_RECALLED
            | EventType.DOCUMENT_FORGOTTEN
            | EventType.RECORD_RESTORED
            | EventType.RECORD_COMPARED
        ):
            raise corrupt_run(event)
        case never:
            assert_never(never)


def _opened(step: RecordedStep | None, body: dict[str, Any]) -> None:
    """The case of a call of which nobody knows whether it happened stands beside its outcome."""
    if body["kind"] == "unknown" and step is not None and isinstance(step.outcome, Unknown):
        step.outcome = replace(step.outcome, case=body["case"])


def corrupt_run(event: Event) -> StorageError:
    """An event of the register has no place in a run."""
    return StorageError(
        f"event {event.header.n} of run `{event.header.run}` is of type `{event.header.type}`, which no run has",
        code="record_corrupt",
    )


def note_request(state: RunState, request: Json) -> None:
    """The request and the contract's own name are where later arguments may come from."""
    state.seen.add(
        USER, request, outside=untrusted("request"), outside_paths=state.authority.contract.untrusted_input
    )
    state.seen.add(CONTRACT, [state.authority.contract.contract, state.authority.tenant])


def _decided(folded: Folded, event: Event, body: dict[str, Any]) -> None:
    state, step = folded.state, event.header.span
    original = event.sealed or body
    call = _call_of(state, event, body, original)
    reserved = tuple(_reserved(*one) for one in body["reserved"])
    verdict = body["verdict"]
    if call.tool is not None and call.tool.spec.field_classes:
        # What its declared fields hold is concealed from here on, as it was when this was recorded.
        state.redactor.redact(call.args, call.tool.spec.classes)
        if call.resource is not None:
            state.redactor.redact(dict(call.resource.attributes), call.tool.spec.resource_classes)
    folded.steps[step] = RecordedStep(
        tool=body["tool"],
        args_digest=body["args_digest"],
        verdict=event.header.verdict,
        call=call,
        decided=RecordedVerdict(verdict=Allow(rules=tuple(verdict.get("rules", ()))), reserved=reserved),
        outcome=_outcome_of_verdict(state, body["tool"], event.header.verdict, verdict),
    )
    state.steps.add(step)
    if is_plain(body["args_digest"]):
        state.plain_digests.add(body["args_digest"])
    waits = (body["tool"], body["args_digest"])
    state.deferred.discard(waits)
    if event.header.verdict == "allow":
        if body["tool"] in state.authority.limits:
            state.usage.reserve(state.authority.limits[body["tool"]], call.demand)
        return
    if event.header.verdict == "defer":
        state.deferred.add(waits)
        return
    past = REFUSED[event.header.verdict]
    # What was refused before it was read is described on record, not kept.
    args = call.args if call.args_digest else {}
    state.past.append(PastCall(tool=body["tool"], outcome=past, args=args, result=None, at_us=call.at_us))


def _reserved(meter: str, *rest: Any) -> Reserved:
    """One reservation. The first records of 0.1 have its quantity in the meter's key alone (`…|moneyEUR|3600000`)."""
    *quantity, bucket, amount = rest
    named = quantity[0] if quantity else meter.rsplit("|", 2)[1].rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return Reserved(meter=meter, quantity=Quantity(named), bucket=bucket, amount=amount)


def _call_of(state: RunState, event: Event, body: dict[str, Any], original: dict[str, Any]) -> Call:
    calls, writes, rows, money, currency, spend = body["demand"]
    found = original["resource"]
    return Call(
        proposal=Proposal(tool=body["tool"], args=original["args"], step=event.header.span, token=""),
        # Records from before 0.2 say only when the decision was written.
        at_us=body.get("judged_at", event.header.at),
        tool=state.authority.tools.get(body["tool"]),
        action=state.authority.actions.get(body["tool"]),
        args=original["args"],
        args_digest=body["args_digest"],
        key=body["key"],
        demand=Demand(calls=calls, writes=writes, rows=rows, money=money, currency=currency, spend=spend),
        labels={path: tuple(labels) for path, labels in original.get("labels", body["labels"]).items()},
        fields=tuple(original.get("fields", body["fields"])),
        resource=Resource(**found) if found else None,
    )


def _outcome_of_verdict(state: RunState, tool: str, kind: str, verdict: dict[str, Any]) -> Outcome | None:
    code, message = verdict.get("code", ""), verdict.get("message", "")
    match kind:
        case "reject":
            state.rejections[tool] = state.rejections.get(tool, 0) + 1
            left = max(0, state.authority.contract.attempts - state.rejections[tool])
            return Rejected(code=code, message=message, attempts_left=left)
        case "deny":
            note_denial(state, code)
            return Denied(code=code, message=message, rules=tuple(verdict["rules"]))
        case _:
            return None


def _ended(folded: Folded, event: Event, body: dict[str, Any]) -> None:
    step = folded.steps[event.header.span]
    state, call = folded.state, step.call
    state.rejections.pop(step.tool, None)
    match event.type:
        case EventType.CALL_COMPLETED:
            ended: Carried = Completed(result=(event.sealed or body)["result"])
        case EventType.CALL_FAILED:
            ended = Failed(code=body["code"], message=body["message"], usage=body.get("usage"))
        case _:
            ended = Unknown(code=body["code"], message=body["message"])
    step.outcome = ended
    if step.tool in state.authority.limits:
        over = not_used(call.demand, ended, event.header.cost_microusd)
        state.usage.release(state.authority.limits[step.tool], over)
    if isinstance(ended, Completed):
        if call.tool is not None:
            state.redactor.redact(ended.result, call.tool.spec.classes, prefix="result")
            take_in_result(state, call, ended.result)
        return
    past = "failed" if event.type is EventType.CALL_FAILED else "unknown"
    state.past.append(PastCall(tool=step.tool, outcome=past, args=call.args, result=None, at_us=call.at_us))


def _asked(event: Event, body: dict[str, Any]) -> ApprovalRequest:
    return ApprovalRequest(
        case=body["case"],
        step=event.header.span,
        tool=body["shown"]["tool"],
        args_digest=body["args_digest"],
        policy=body["policy"],
        rules=tuple(body["shown"]["rules"]),
        shown=body["shown_digest"],
        question=body["question_digest"],
        expires_at=body["expires_at"],
    )


def take_up_decision(folded: Folded, event: Event) -> None:
    """A person's answer, held against the question it answers: same case, same question shown."""
    state, body = folded.state, cast("dict[str, Any]", event.body or {})
    question = folded.questions.get(event.header.span)
    if event.type is EventType.CASE_DECIDED and question is not None:
        folded.questions[event.header.span] = questions.answered(question, event)
    asked = state.approvals.get(event.header.span)
    if event.type is not EventType.APPROVAL_DECIDED or asked is None or asked.case != body["case"] or asked.shown != body["shown_digest"]:
        return
    state.approvals[event.header.span] = replace(
        asked,
        granted=body["decision"] == "approved",
        decided_by=body["by"],
        decided_at=event.header.at,
        reason=body.get("reason", ""),
    )


def held(state: RunState, step: str) -> Held | None:
    """The hold that a step waits on, if nobody has answered it and it has not expired."""
    asked = state.approvals.get(step)
    if asked is None or asked.granted is not None or state.clock() > asked.expires_at:
        return None
    return Held(code="held", message=f"case `{asked.case}` waits for a person", case=asked.case, rules=asked.rules)


def waiting_case(state: RunState) -> str | None:
    """The case of a call that still waits for a person, if there is one."""
    return next((found.case for step in state.approvals if (found := held(state, step)) is not None), None)

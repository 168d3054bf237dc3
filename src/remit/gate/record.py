"""8 and 11. What the gate writes: the decision with its intent before the effect, the outcome after it.

Bodies are redacted; where that changed anything, the originals that the run needs to go on are sealed beside them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from typing import assert_never

import msgspec
from msgspec.structs import replace

from remit.contracts.quantities import duration_ms
from remit.errors import ToolFailed
from remit.gate.call import ApprovalRequest, Call, RunState
from remit.gate.verdicts import Allow, Carried, Completed, Defer, Deny, Failed, Hold, Reject, Unknown, Verdict
from remit.journal.events import Draft, EventType
from remit.journal.journal import Disabled, Recording, Reservation
from remit.limits.meters import Exhausted, Reserved
from remit.storage.rows import CaseRow, note_read, open_case
from remit.storage.writer import Statement
from remit.tools.spec import Resource, Usage
from remit.values import Json, decode, digest

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


class RecordedVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict as it stands on record, with what was reserved for it and the case it opened."""

    verdict: Verdict
    reserved: tuple[Reserved, ...] = ()
    approval: ApprovalRequest | None = None


def after_reservation(verdict: Verdict, reservation: Reservation) -> tuple[Verdict, tuple[Reserved, ...]]:
    """The verdict once the transaction knows who is enabled and what room is left."""
    match reservation:
        case Disabled(principal=principal):
            return Deny(code="principal_disabled", message=f"`{principal}` is disabled or not known"), ()
        case Exhausted(charge=charge, used=used):
            message = f"limit reached: {charge.label} ({used} used, {charge.amount} asked)"
            return Deny(code="limit_exhausted", message=message), ()
        case _:
            return verdict, reservation


def without_secrets(verdict: Verdict, run: RunState) -> Verdict:
    """The verdict as agents and people may read it; what it says may quote a system that quotes credentials."""
    if isinstance(verdict, Allow):
        return verdict
    return replace(verdict, message=run.redactor.text(verdict.message))


def decision(call: Call, run: RunState, verdict: Verdict, reserved: tuple[Reserved, ...]) -> Recording[RecordedVerdict]:
    """The event of a decision and, for a hold, the case that asks a person."""
    drafts = [_decided(call, run, verdict, reserved)]
    if not isinstance(verdict, Hold):
        expired = isinstance(verdict, Deny) and verdict.code == "approval_expired"
        statements = [_expire_case(run.approvals[call.proposal.step].case, run.clock())] if expired else []
        return Recording(value=RecordedVerdict(verdict=verdict, reserved=reserved), drafts=drafts, statements=statements)
    approval, asked, statement = _ask(call, run, verdict)
    value = RecordedVerdict(verdict=verdict, approval=approval)
    return Recording(value=value, drafts=[*drafts, asked], statements=[statement])


def _expire_case(case: str, at: int) -> Statement:
    """A question that nobody answered in time is off the table; else its run would be taken up again and again."""
    return Statement(
        sql="UPDATE cases SET status = 'expired', decided_at = :at WHERE \"case\" = :case AND status = 'open'",
        params={"case": case, "at": at},
    )


def recorded_name(run: RunState, tool: object) -> str:
    """The name of a tool as the record has it: whatever was asked for, as a short text without anything secret."""
    text = tool if isinstance(tool, str) else f"a name of type {type(tool).__name__}"
    return run.redactor.text(text[:200].encode(errors="backslashreplace").decode())


def _refs(call: Call, run: RunState) -> dict[str, str]:
    refs = {"release": run.authority.release, "policy": run.authority.policy.digest}
    if call.tool is not None:
        refs["tool"] = call.tool.spec.digest
    return refs


def _decided(call: Call, run: RunState, verdict: Verdict, reserved: tuple[Reserved, ...]) -> Draft:
    args, facts, resource = _arguments(call), _facts(call), _resource(call.resource)
    classes = call.tool.spec.classes if call.tool else None
    fact_classes = {**_beside_classes(call), **run.authority.fact_classes}
    shown_args = call.redacted.value if call.redacted else run.redactor.redact(args, classes).value
    # Where the keys of an argument are free, they stand in the names of labels and fields as well.
    original = {"facts": facts, "resource": resource, "labels": call.labels, "fields": list(call.fields)}
    beside = run.redactor.redact({**original, "verdict": verdict_body(verdict)}, fact_classes).value
    shown = {"args": shown_args, **{name: beside[name] for name in original}}
    original["args"] = args
    body = {
        "tool": call.tool.spec.name if call.tool else recorded_name(run, call.proposal.tool),
        **shown,
        "args_digest": call.args_digest,
        "classes": sorted(call.redacted.kinds) if call.redacted else [],
        "demand": _demand(call),
        "reserved": [[r.meter, r.quantity, r.bucket, r.amount] for r in reserved],
        "verdict": beside["verdict"],
        "key": call.key,
        # With these a decision can be made again to the microsecond (`remit backtest`).
        "judged_at": call.at_us,
        "proposed": call.proposed,
    }
    same = all(shown[name] is original[name] for name in original)
    return Draft(
        type=EventType.CALL_DECIDED,
        actor=run.authority.principal,
        span=call.proposal.step,
        # Whose signature let the call in: if that key is revoked, what came in by it afterwards is found.
        refs=_refs(call, run) | ({"key": call.claims.kid} if call.claims else {}),
        verdict=_verdict_name(verdict),
        body=body,
        sealed=None if same else run.redactor.sealed(shown, original),
        latency_us=max(0, run.clock() - call.at_us),
    )


def _beside_classes(call: Call) -> Mapping[str, str]:
    """The classes of what is recorded beside the arguments: the facts that tell them, and the object."""
    if call.tool is None or not call.tool.spec.field_classes:
        return {}
    of_object = {f"resource.attributes.{name}": kind for name, kind in call.tool.spec.resource_classes.items()}
    return {**call.tool.spec.fact_classes, **of_object}


def _arguments(call: Call) -> Json:
    """The arguments as far as they are acceptable; what was refused is described, not kept."""
    return call.args if call.args_digest else {"refused": f"{type(call.proposal.args).__name__}, not kept"}


def _facts(call: Call) -> Json:
    return decode(call.read) if call.read else {}


def _resource(resource: Resource | None) -> Json:
    if resource is None:
        return None
    return {
        "kind": resource.kind,
        "id": resource.id,
        "tenant": resource.tenant,
        "region": resource.region,
        "attributes": dict(resource.attributes),
        "version": resource.version,
    }


def _demand(call: Call) -> Json:
    demand = call.demand
    return [demand.calls, demand.writes, demand.rows, demand.money, demand.currency, demand.spend]


def _verdict_name(verdict: Verdict) -> str:
    match verdict:
        case Allow():
            return "allow"
        case Reject():
            return "reject"
        case Deny():
            return "deny"
        case Hold():
            return "hold"
        case Defer():
            return "defer"
        case never:
            assert_never(never)


def verdict_body(verdict: Verdict) -> dict[str, Json]:
    """A verdict as the record holds it."""
    body: dict[str, Json] = {"kind": _verdict_name(verdict)}
    for name in ("code", "message"):
        if hasattr(verdict, name):
            body[name] = getattr(verdict, name)
    for name in ("rules", "roles"):
        if hasattr(verdict, name):
            body[name] = list(getattr(verdict, name))
    return body


def question(call: Call, run: RunState, rules: tuple[str, ...], reasons: tuple[str, ...]) -> dict[str, Json]:
    """What a person is asked about a call. Their answer counts only while the same would be asked.

    The version of the object is left out: it says only that something changed, and what matters of it is here.
    """
    assert call.redacted is not None
    found = run.redactor.redact({"resource": _resource(call.resource)}, _beside_classes(call)).value
    resource = found["resource"]
    return {
        "contract": run.authority.contract.contract,
        "tool": call.proposal.tool,
        "args": call.redacted.value,
        "resource": {name: value for name, value in resource.items() if name != "version"} if resource else None,
        "rules": list(rules),
        "reason": run.redactor.text("; ".join(reasons) or "a person must approve this"),
    }


def _ask(call: Call, run: RunState, hold: Hold) -> tuple[ApprovalRequest, Draft, Statement]:
    """The question to a person: the event, the row of the case, and what an answer will be held against."""
    row = case_row(run, call.proposal.step, "approval", ", ".join(hold.rules) or "approval")
    expires_at = row.opened_at + hold.expires_ms * 1000
    asked = question(call, run, hold.rules, hold.reasons)
    # Where the values came from is shown too, but is no part of the question: a run that goes on sees them again.
    shown = {**asked, "labels": run.redactor.redact(dict(call.labels)).value}
    approval = ApprovalRequest(
        case=row.case,
        step=call.proposal.step,
        tool=call.proposal.tool,
        args_digest=call.args_digest,
        policy=run.authority.policy.digest,
        rules=hold.rules,
        shown=digest(shown),
        question=digest(asked),
        expires_at=expires_at,
    )
    body = {
        "case": row.case,
        "args_digest": call.args_digest,
        "policy": approval.policy,
        "roles": list(hold.roles),
        "expires_at": expires_at,
        "shown": shown,
        "shown_digest": approval.shown,
        "question_digest": approval.question,
    }
    draft = Draft(
        type=EventType.APPROVAL_REQUESTED,
        actor=run.authority.principal,
        span=call.proposal.step,
        refs=_refs(call, run),
        body=body,
    )
    asked_of = dataclasses.replace(row, roles=" ".join(hold.roles), expires_at=expires_at)
    return approval, draft, open_case(asked_of)


def outcome(call: Call, run: RunState, carried: Carried, usage: Usage | None, latency_us: int) -> Recording[Carried]:
    """The event of what became of a call, and a case where nobody knows."""
    if not isinstance(carried, Completed):
        carried = replace(carried, code=_code(carried.code, run), message=run.redactor.text(carried.message))
    match carried:
        case Completed(result=result):
            completed = _completed(call, run, carried, usage, latency_us)
            retrieved, statements = _retrieved(call, run, result)
            return Recording(value=carried, drafts=[*retrieved, completed], statements=statements)
        case Failed():
            return Recording(
                value=carried, drafts=[_failed(call, run, carried, usage, latency_us)]
            )
        case Unknown():
            case, opened, statement = open_case_for(
                run, call.proposal.step, kind="unknown", reason=f"{call.proposal.tool}: nobody knows whether it happened"
            )
            value = Unknown(code=carried.code, message=carried.message, case=case)
            ended = _ended(EventType.CALL_UNKNOWN, call, run, carried, latency_us)
            return Recording(value=value, drafts=[ended, opened], statements=[statement])
        case never:
            assert_never(never)


def _code(code: str, run: RunState) -> str:
    """What a tool gives as its code, if that is one: whatever else it put there is a text that may quote anything."""
    return code if _CODE.fullmatch(code) and run.redactor.text(code) == code else ToolFailed.code


def _completed(call: Call, run: RunState, completed: Completed, usage: Usage | None, latency_us: int) -> Draft:
    result, source = completed.result, completed.source
    assert call.tool is not None
    shown = run.redactor.redact(result, call.tool.spec.classes, prefix="result").value
    return Draft(
        type=EventType.CALL_COMPLETED,
        actor=run.authority.principal,
        span=call.proposal.step,
        refs=_refs(call, run),
        body={"tool": call.proposal.tool, "result": shown, **({"answered": source} if source else {})},
        sealed=None if shown is result else run.redactor.sealed(shown, {"result": result}),
        cost_microusd=usage.cost_microusd if usage else 0,
        tokens_in=usage.tokens_in if usage else 0,
        tokens_out=usage.tokens_out if usage else 0,
        latency_us=latency_us,
    )


def _retrieved(call: Call, run: RunState, result: Json) -> tuple[list[Draft], list[Statement]]:
    """Which chunks a call was given, so that each can be found again, and rows by which a document finds its readers."""
    assert call.tool is not None
    spec, step = call.tool.spec, call.proposal.step
    if spec.retrieves is None:
        return [], []
    kept = ("chunk", "document", "version", "hash", "label")
    chunks = [{name: passage[name] for name in kept} for passage in result[spec.retrieves]]
    draft = Draft(
        type=EventType.CONTEXT_RETRIEVED,
        actor=run.authority.principal,
        span=step,
        refs=_refs(call, run),
        body={"tool": spec.name, "chunks": chunks},
    )
    read = dict.fromkeys((str(chunk["document"]), int(chunk["version"])) for chunk in chunks)
    return [draft], [note_read(run.authority.tenant, document, version, run.run, step) for document, version in read]


def _ended(kind: EventType, call: Call, run: RunState, carried: Failed | Unknown, latency_us: int) -> Draft:
    body = {"tool": call.proposal.tool, "code": carried.code, "message": carried.message}
    return Draft(
        type=kind,
        actor=run.authority.principal,
        span=call.proposal.step,
        refs=_refs(call, run),
        body=body,
        latency_us=latency_us,
    )


def _failed(call: Call, run: RunState, carried: Failed, usage: Usage | None, latency_us: int) -> Draft:
    draft = _ended(EventType.CALL_FAILED, call, run, carried, latency_us)
    if usage is None:
        return draft
    return replace(
        draft,
        body={**draft.body, "usage": run.redactor.redact(carried.usage).value},
        cost_microusd=usage.cost_microusd,
        tokens_in=usage.tokens_in,
        tokens_out=usage.tokens_out,
    )


def case_row(run: RunState, step: str, kind: str, reason: str) -> CaseRow:
    """A case in the contract's queue that is opened now, asks no role in particular and does not expire.

    Its id is derived from its place in the run, so that a transaction that is tried again opens the same case.
    """
    place = f"{run.run}/{run.log.end.n}/{step}/{kind}"
    at, escalate = run.clock(), run.authority.contract.escalate
    return CaseRow(
        case=f"case-{hashlib.sha256(place.encode()).hexdigest()[:12]}",
        tenant=run.authority.tenant,
        run=run.run,
        step=step,
        kind=kind,
        queue=escalate.to,
        roles="",
        reason=reason,
        opened_at=at,
        due_at=at + duration_ms(escalate.sla) * 1000,
        expires_at=None,
    )


def open_case_for(run: RunState, step: str, *, kind: str, reason: str, body: Json = None) -> tuple[str, Draft, Statement]:
    """A case in the contract's escalation queue: its id, its event and its row."""
    shown = run.redactor.redact({"reason": reason, "draft": body}).value
    row = case_row(run, step, kind, shown["reason"][:200])
    draft = Draft(
        type=EventType.CASE_OPENED,
        actor=run.authority.principal,
        span=step,
        body={"case": row.case, "kind": kind, "queue": row.queue, **shown},
    )
    return row.case, draft, open_case(row)



"""7. Approved: where a person must decide, only their answer to exactly this question lets the call on."""

from __future__ import annotations

from remit.gate.call import Call, RunState
from remit.gate.record import question
from remit.gate.verdicts import Deny, Hold
from remit.policy.decision import MustHold
from remit.values import digest


def approved(call: Call, run: RunState) -> Call | Deny | Hold:
    if not isinstance(call.decision, MustHold):
        return call
    asked = call.decision
    answer = run.approvals.get(call.proposal.step)
    if answer is None:
        return _hold(asked, "; ".join(asked.reasons) or "a person must approve this")
    if answer.granted is False:
        why = f": {answer.reason}" if answer.reason else ""
        return Deny(code="approval_denied", message=f"a person said no{why}", rules=answer.rules)
    if call.at_us > answer.expires_at:
        return Deny(code="approval_expired", message="nobody approved it in time", rules=answer.rules)
    if answer.granted is None:
        return _hold(asked, f"case `{answer.case}` is not decided yet")
    asked_now = digest(question(call, run, asked.rules, asked.reasons))
    answered = (answer.question, answer.args_digest, answer.policy)
    if answered != (asked_now, call.args_digest, run.authority.policy.digest):
        return Deny(
            code="approval_stale",
            message="what was approved is not what is proposed now: the arguments, the object, the policy or the "
            "reasons to ask have changed",
            rules=asked.rules,
        )
    return call


def _hold(asked: MustHold, message: str) -> Hold:
    return Hold(
        message=message, rules=asked.rules, reasons=asked.reasons, roles=asked.roles, expires_ms=asked.expires_ms
    )

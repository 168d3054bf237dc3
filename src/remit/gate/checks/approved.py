"""7. Approved: where a person must decide, only their answer to exactly this question lets the call on."""

from __future__ import annotations

from remit.gate.call import Call, RunState
from remit.gate.verdicts import Deny, Hold
from remit.policy.decision import MustHold


def approved(call: Call, run: RunState) -> Call | Deny | Hold:
    if not isinstance(call.decision, MustHold):
        return call
    asked = call.decision
    answer = run.approvals.get(call.proposal.step)
    if answer is None:
        message = "; ".join(asked.reasons) or "a person must approve this"
        return Hold(message=message, rules=asked.rules, roles=asked.roles, expires_ms=asked.expires_ms)
    if answer.granted is False:
        why = f": {answer.reason}" if answer.reason else ""
        return Deny(code="approval_denied", message=f"a person said no{why}", rules=answer.rules)
    if call.at_us > answer.expires_at:
        return Deny(code="approval_expired", message="nobody approved it in time", rules=answer.rules)
    if answer.granted is None:
        message = f"case `{answer.case}` is not decided yet"
        return Hold(message=message, rules=asked.rules, roles=asked.roles, expires_ms=asked.expires_ms)
    question = (answer.tool, answer.args_digest, answer.policy, answer.rules)
    if question != (call.proposal.tool, call.args_digest, run.authority.policy.digest, asked.rules):
        return Deny(
            code="approval_stale",
            message="what was approved is not what is proposed now: arguments, tool, policy or rules have changed",
            rules=asked.rules,
        )
    return call

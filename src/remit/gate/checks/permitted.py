"""5. Permitted: the policy decision point decides over the facts. Default deny; any error is a deny."""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from remit.contracts.quantities import MICROUSD_PER_UNIT, amount
from remit.gate.call import Call, RunState, Stopped
from remit.gate.verdicts import Deny, Reject
from remit.limits.meters import Quantity
from remit.policy.decision import Forbidden, MustHold, Permitted, Undecided
from remit.policy.facts import Facts
from remit.values import ValueRefused


def permitted(call: Call, run: RunState) -> Call | Stopped | Deny | Reject:
    assert call.tool is not None
    assert call.claims is not None
    if call.action and call.action.only.fields and (lacking := call.claims.lacks(call.proposal.tool, call.fields)):
        return Deny(code="scope_missing", message=f"the token does not hold {', '.join(f'`{s}`' for s in lacking)}")
    facts = _facts(call, run)
    try:
        decided = run.authority.policy.decide(facts)
    except ValueRefused as error:
        return Reject(code="arguments_invalid", message=error.message)
    match decided.decision:
        case Permitted() | MustHold() as decision:
            return replace(call, decision=decision, read=decided.read)
        case Forbidden() as forbidden:
            deny = Deny(code="forbidden", message="; ".join(forbidden.reasons), rules=forbidden.rules)
        case Undecided() as undecided:
            deny = Deny(code="policy_ambiguous", message="; ".join(undecided.errors))
        case never:
            assert_never(never)
    # What it was decided from is recorded as for a call that may go on: only so can a denial be decided again.
    return Stopped(call=replace(call, read=decided.read), verdict=deny)


def _facts(call: Call, run: RunState) -> Facts:
    authority = run.authority
    assert call.action is not None
    assert call.resource is not None
    assert call.redacted is not None
    budget = authority.contract.budget
    return Facts(
        principal=authority.principal,
        tenant=authority.tenant,
        region=authority.region,
        contract=authority.contract.contract,
        on_behalf_of=run.on_behalf_of,
        tool=call.proposal.tool,
        resource=call.resource,
        args=call.args,
        fields=call.fields,
        labels=call.labels,
        classes=tuple(sorted(call.redacted.kinds)),
        autonomy=call.action.autonomy,
        session=authority.policy.session(call.proposal.tool, run.past, call.args, call.at_us),
        budget_left={
            "calls": budget.calls - call.proposed,
            "writes": budget.writes - run.usage.used(Quantity.WRITES),
            "spend_microusd": amount(budget.spend).units * MICROUSD_PER_UNIT - run.usage.used(Quantity.SPEND),
        },
        attempt=run.rejections.get(call.proposal.tool, 0) + 1,
        run_calls=call.proposed,
        at_us=call.at_us,
    )

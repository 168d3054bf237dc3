"""6. Verified before: rules or a second model look at the proposed call where the blast radius is real."""

from __future__ import annotations

from msgspec.structs import replace

from remit.contracts.quantities import duration_ms
from remit.gate.authority import Verifiable
from remit.gate.call import Call, RunState
from remit.gate.verdicts import Deny
from remit.policy.decision import MustHold


async def verified(call: Call, run: RunState) -> Call | Deny:
    """Every verifier must agree. Where one does not, a person decides, if the contract names one; else nobody may."""
    action = call.action
    assert action is not None
    if not action.verify:
        return call
    earlier = {past.tool: past.result for past in run.past if past.outcome == "completed"}
    shown = Verifiable(tool=call.proposal.tool, args=call.args, earlier=earlier)
    objections: list[str] = []
    for name in action.verify:
        objection = await run.authority.verifiers[name](shown)
        if objection is not None:
            objections.append(f"{name}: {objection}")
    if not objections:
        return call
    message = "; ".join(objections)
    if action.approval is None:
        return Deny(code="not_verified", message=message)
    held = MustHold(
        rules=tuple(f"verify:{name}" for name in action.verify),
        reasons=(message,),
        roles=(action.approval.by,),
        expires_ms=duration_ms(action.approval.within),
    )
    return call if isinstance(call.decision, MustHold) else replace(call, decision=held)

"""6. Verified before: rules or a second model look at the proposed call where the blast radius is real."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from remit.contracts.quantities import duration_ms
from remit.gate.authority import Verifiable
from remit.gate.call import Call, Proposal, RunState
from remit.gate.verdicts import Completed, Deny, Outcome
from remit.policy.decision import MustHold
from remit.values import Json, decode, encode

Propose = Callable[[RunState, Proposal], Awaitable[Outcome]]


class Verified:
    """Every verifier must agree. Where one does not, a person decides, if the contract names one; else nobody may.

    `propose` is the gate itself: a second model is asked through it like any other.
    """

    def __init__(self, propose: Propose) -> None:
        self._propose = propose

    async def __call__(self, call: Call, run: RunState) -> Call | Deny:
        action = call.action
        assert action is not None
        if not action.verify:
            return call
        earlier = {past.tool: past.result for past in run.past if past.outcome == "completed"}
        # Copies: what a verifier does to what it is shown must not reach the call, or the run's memory.
        args, earlier = decode(encode(call.args)), decode(encode(earlier))
        resource = call.resource and replace(call.resource, attributes=dict(call.resource.attributes))
        shown = Verifiable(
            step=call.proposal.step, tool=call.proposal.tool, args=args, resource=resource, earlier=earlier
        )
        objections: list[str] = []
        for number, name in enumerate(action.verify, start=1):
            if name.startswith("model:"):
                objection = await self._ask_model(name, number, call, run)
            else:
                objection = await run.authority.verifiers[name](shown)
            if objection is not None:
                objections.append(f"{name}: {objection}")
        return _judged(call, objections)

    async def _ask_model(self, name: str, number: int, call: Call, run: RunState) -> str | None:
        """The second model sees the call alone, nothing of how it came about; only a clear `yes` is agreement."""
        asked = encode({"tool": call.proposal.tool, "arguments": call.args}).decode()
        proposal = Proposal(
            tool=name,
            args={"text": asked, "decide": ["agrees"]},
            step=f"{call.proposal.step}.verify-{number}",
            token=call.proposal.token,
        )
        outcome = await self._propose(run, proposal)
        if not isinstance(outcome, Completed):
            return outcome.message
        answer: dict[str, Json] = outcome.result.get("agrees") or {}
        return None if answer.get("label") == "yes" else "the second model does not agree"


def _judged(call: Call, objections: list[str]) -> Call | Deny:
    action = call.action
    assert action is not None
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
    if isinstance(call.decision, MustHold):
        held = _both(call.decision, held)
    return replace(call, decision=held)


def _both(asked: MustHold, held: MustHold) -> MustHold:
    """One question for both: whoever answers what policy asks must see the objection too."""
    return MustHold(
        rules=(*asked.rules, *held.rules),
        reasons=(*asked.reasons, *held.reasons),
        roles=tuple(dict.fromkeys((*asked.roles, *held.roles))),
        expires_ms=min(asked.expires_ms, held.expires_ms),
    )

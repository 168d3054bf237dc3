"""A world: what happens to the recorded calls under some terms, from run to run and from call to call.

Two worlds are kept side by side, one under the terms on record and one under other terms. Limits, budgets, attempts and
earlier calls are simulated in each: what is denied in one is neither counted nor remembered there. What does not depend
on the terms is carried over from the record: tokens, malformed arguments, objects that were looked up, verifiers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from remit.backtest.recorded import AskedBody, VerdictBody
from remit.backtest.rules import Untold
from remit.backtest.terms import Terms
from remit.contracts.model import Action
from remit.contracts.quantities import duration_ms
from remit.gate.gate import not_used, settlements_of
from remit.gate.verdicts import Carried, Completed
from remit.limits.meters import Exhausted, Meters, Reserved
from remit.limits.rules import Demand, RunUsage, charges
from remit.policy.decision import Forbidden, MustHold, Permitted, PolicyDecision, Undecided
from remit.policy.session import PastCall
from remit.values import Json, ValueRefused, digest

UNDETERMINED = "undetermined"
NOT_KEPT = "not_kept"
"""Code of what can't be told because the call was stopped before its arguments were kept."""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict in a world. `kind`: as events name it, or `UNDETERMINED` with why in `message`."""

    kind: str
    code: str = ""
    rules: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    message: str = ""
    is_carried: bool = False


class Reached(IntEnum):
    """Up to which check a recorded call came; the order is that of `remit.gate.gate`."""

    AUTHENTICATE = 1
    GRANTED = 2
    BOUNDED = 3
    WELL_FORMED = 4
    LABELLED = 5
    LOCATED = 6
    PERMITTED = 7
    VERIFIED = 8
    APPROVED = 9
    RECORDED = 10


_STOPPED = {
    "not_granted": Reached.GRANTED,
    "retries_exhausted": Reached.BOUNDED,
    "too_large": Reached.WELL_FORMED,
    "credential_in_arguments": Reached.LABELLED,
    "object_not_found": Reached.LOCATED,
    "object_not_located": Reached.LOCATED,
    "system_unreachable": Reached.LOCATED,
    "scope_missing": Reached.PERMITTED,
    "forbidden": Reached.PERMITTED,
    "policy_ambiguous": Reached.PERMITTED,
    "not_verified": Reached.VERIFIED,
    "approval_denied": Reached.APPROVED,
    "approval_expired": Reached.APPROVED,
    "approval_stale": Reached.APPROVED,
    "principal_disabled": Reached.RECORDED,
}
_WITH_ARGUMENTS = {
    "limit_exhausted": (Reached.BOUNDED, Reached.RECORDED),
    "arguments_invalid": (Reached.WELL_FORMED, Reached.PERMITTED),
    "gate_failed": (Reached.WELL_FORMED, Reached.LOCATED),
}
"""What two checks say alike: the first of them before the arguments are kept, the second after."""


def reached_by(verdict: VerdictBody, args_digest: str) -> Reached:
    """Up to which check a call came."""
    if verdict.kind == "allow":
        return Reached.RECORDED
    if verdict.kind == "hold":
        return Reached.APPROVED
    if verdict.code in _WITH_ARGUMENTS:
        return _WITH_ARGUMENTS[verdict.code][bool(args_digest)]
    return _STOPPED.get(verdict.code, Reached.AUTHENTICATE)


class PastDecision(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded decision, as far as it takes to decide again. `tool_digest`: of the tool as it was declared then."""

    run: str
    step: str
    at: int
    at_us: int
    proposed: int
    principal: str
    tool: str
    tool_digest: str
    args: Mapping[str, Json]
    args_digest: str
    labels: Mapping[str, tuple[str, ...]]
    classes: tuple[str, ...]
    fields: tuple[str, ...]
    resource: Mapping[str, Any] | None
    demand: Demand
    reserved: tuple[Reserved, ...]
    verdict: VerdictBody
    reached: Reached
    is_redacted: bool


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a person was asked on record, and what they said; `granted` is `None` while nobody has."""

    asked: AskedBody
    asked_at: int
    granted: bool | None = None
    answered_at: int = 0


@dataclass(kw_only=True, slots=True)
class PastRun:
    """One recorded run, as far as it is the same in every world."""

    run: str
    contract: str
    recorded: Terms
    """The terms that it ran under."""
    on_behalf_of: str | None
    opened_at: int
    active_at: int
    parked_us: int = 0
    steps: set[str] = field(default_factory=set[str])
    questions: dict[str, Question] = field(default_factory=dict[str, Question])
    is_redacted: bool = False
    """Whether anything of it was concealed."""
    is_counted: bool = False
    has_parted: bool = False
    """Whether the worlds have come to differ about it."""
    is_changed: bool = False
    """Whether one of its decisions came out otherwise: what lies behind is hypothetical."""


@dataclass(kw_only=True, slots=True)
class _Taken:
    """What a call that was carried out has reserved."""

    call: PastDecision
    demand: Demand
    reserved: tuple[Reserved, ...]


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a person is asked in a world: the digest of the question, and its terms."""

    question: str
    terms: MustHold


@dataclass(kw_only=True, slots=True)
class RunInWorld:
    """How one run stands in one world."""

    usage: RunUsage = field(default_factory=RunUsage)
    past: list[PastCall] = field(default_factory=list[PastCall])
    rejections: dict[str, int] = field(default_factory=dict[str, int])
    under_way: dict[str, _Taken] = field(default_factory=dict[str, "_Taken"])
    """Calls that are carried out and of which it isn't known yet what came of them, by step."""
    carried_out: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """Steps, with the digests of the arguments: the same is not done twice."""
    asked: dict[str, _Asked] = field(default_factory=dict[str, "_Asked"])
    """What a person was asked first, by step."""
    followed: set[str] = field(default_factory=set[str])
    """Steps that were held on record, and are taken here as they were."""
    unsure: dict[str, str] = field(default_factory=dict[str, str])
    """Steps that are carried out in this world alone, so that nobody knows what came of them; with their tools."""


class World:
    """One world: its terms for the contract in question, its meters, and its runs."""

    def __init__(self, terms: Terms | None, text: Callable[[str], str]) -> None:
        """`terms`: for every run of the contract; `None` takes those that each run was recorded under.

        `text` redacts what rules say, as it was when people were asked.
        """
        self._terms = terms
        self._text = text
        self.meters = Meters({}, 0)
        self._runs: dict[str, RunInWorld] = {}

    def terms(self, run: PastRun) -> Terms:
        return self._terms or run.recorded

    def standing(self, run: str) -> RunInWorld:
        """How a run stands here."""
        return self._runs.get(run) or self._runs.setdefault(run, RunInWorld())

    def forget(self, run: str) -> None:
        """The run is over."""
        self._runs.pop(run, None)

    # Deciding

    def before_policy(self, call: PastDecision, run: PastRun) -> Judged | None:
        """What the checks before the policy say; `None` where the policy is asked."""
        terms, standing = self.terms(run), self.standing(run.run)
        if call.args_digest and (call.step, call.args_digest) in standing.carried_out:
            return Judged(kind="allow", rules=call.verdict.rules, is_carried=True)
        if call.reached is Reached.AUTHENTICATE:
            return _carried(call)
        if call.tool not in terms.tools:
            return Judged(kind="deny", code="not_granted", message=f"`{call.tool}` is not granted")
        if call.reached is Reached.GRANTED:
            if call.tool in run.recorded.tools:
                return _carried(call)
            return _not_kept("the tool was not granted")
        bound = _bound(call, run, standing, terms)
        if bound is not None:
            return bound
        if call.reached is Reached.BOUNDED:
            return _not_kept("the run had no calls, time or attempts left")
        return _carried(call) if call.reached <= Reached.LOCATED or call.verdict.code == "scope_missing" else None

    def after_policy(
        self, call: PastDecision, run: PastRun, decision: PolicyDecision | Untold | ValueRefused
    ) -> Judged:
        """What the policy's decision comes to: verifiers, people, limits. What it needs is reserved."""
        match decision:
            case Untold(because=why):
                return Judged(kind=UNDETERMINED, message=why)
            case ValueRefused():
                return Judged(kind="reject", code="arguments_invalid", message=decision.message)
            case Forbidden():
                return Judged(
                    kind="deny", code="forbidden", rules=decision.rules, message="; ".join(decision.reasons)
                )
            case Undecided():
                return Judged(kind="deny", code="policy_ambiguous", message="; ".join(decision.errors))
            case Permitted() | MustHold():
                return self._allowed(call, run, decision)
            case never:
                assert_never(never)

    def _allowed(self, call: PastDecision, run: PastRun, decision: Permitted | MustHold) -> Judged:
        terms = self.terms(run)
        verified = _verified(call, run, terms.actions[call.tool], decision)
        if isinstance(verified, Judged):
            return verified
        if isinstance(verified, MustHold):
            answered = self._answered(call, run, verified)
            if answered is not None:
                return answered
        if call.verdict.code == "principal_disabled":
            return _carried(call)
        return self._reserve(call, run, verified.rules)

    def _answered(self, call: PastDecision, run: PastRun, asked: MustHold) -> Judged | None:
        """What a person's answer comes to; `None` where it lets the call on.

        Under other terms a recorded answer counts only where the very same question would have been put before it.
        """
        terms, standing, known = self.terms(run), self.standing(run.run), run.questions.get(call.step)
        hold = Judged(
            kind="hold", rules=asked.rules, roles=asked.roles, message="; ".join(filter(None, asked.reasons))
        )
        question = _question(call, terms, asked, self._text)
        if known is None:
            standing.asked[call.step] = _Asked(question=question, terms=asked)
            return hold
        expires_at = known.asked.expires_at
        if self._terms is not None and call.step not in standing.followed:
            earlier = standing.asked.get(call.step)
            if earlier is None or not _is_answered(earlier, known.asked):
                return hold
            expires_at = min(expires_at, known.asked_at + earlier.terms.expires_ms * 1000)
        rules = known.asked.shown.rules
        if known.granted is False:
            return Judged(kind="deny", code="approval_denied", rules=rules)
        if call.at_us > expires_at:
            return Judged(kind="deny", code="approval_expired", rules=rules)
        if known.granted is None:
            return hold
        is_other_policy = self._terms is None and known.asked.policy != terms.policy
        if is_other_policy or not _is_same(question, asked.rules, known.asked, call.args_digest):
            return Judged(kind="deny", code="approval_stale", rules=asked.rules)
        return None

    def _reserve(self, call: PastDecision, run: PastRun, rules: tuple[str, ...]) -> Judged:
        terms, standing = self.terms(run), self.standing(run.run)
        limits, demand = terms.limits[call.tool], self._demand(call, terms)
        if limits.currencies and demand.money and demand.currency not in limits.currencies:
            return _exhausted(f"no limit is set for {demand.currency}")
        if full := standing.usage.reserve(limits, demand):
            return _exhausted(full.label)
        self.meters.go_on(call.at)
        reserved = self.meters.reserve(charges(limits, demand, run.on_behalf_of))
        if isinstance(reserved, Exhausted):
            standing.usage.release(limits, demand)
            return _exhausted(reserved.charge.label)
        self._carry_out(standing, _Taken(call=call, demand=demand, reserved=reserved))
        return Judged(kind="allow", rules=rules)

    def _carry_out(self, standing: RunInWorld, taken: _Taken) -> None:
        standing.under_way[taken.call.step] = taken
        standing.carried_out.add((taken.call.step, taken.call.args_digest))

    def _demand(self, call: PastDecision, terms: Terms) -> Demand:
        return replace(call.demand, spend=terms.spends.get(call.tool, 0))

    # Going on

    def note(self, call: PastDecision, run: PastRun, judged: Judged) -> None:
        """The call is decided here, and remembered as what it came to."""
        standing = self.standing(run.run)
        if judged.kind == "allow":
            if call.verdict.kind != "allow" and call.step not in standing.unsure:
                standing.unsure[call.step] = call.tool
            return
        if judged.kind == "reject":
            standing.rejections[call.tool] = standing.rejections.get(call.tool, 0) + 1
        outcome = {"deny": "denied", "reject": "rejected", "hold": "held"}.get(judged.kind)
        if outcome is not None:
            self._remember(standing, run, call, outcome, None)

    def follow(self, call: PastDecision, run: PastRun) -> None:
        """Take a decision as it was, whatever this world's terms say of it."""
        standing, terms = self.standing(run.run), self.terms(run)
        if call.verdict.kind != "allow":
            self.undo(call, run)
            if call.verdict.kind == "hold":
                standing.followed.add(call.step)
            self.note(call, run, Judged(kind=call.verdict.kind))
            return
        if (call.step, call.args_digest) in standing.carried_out:
            return
        reserved, demand = call.reserved, call.demand
        if call.tool in terms.tools:
            demand = self._demand(call, terms)
            standing.usage.take(terms.limits[call.tool], demand)
            self.meters.go_on(call.at)
            reserved = self.meters.take(charges(terms.limits[call.tool], demand, run.on_behalf_of))
        else:
            self.put(reserved)
        self._carry_out(standing, _Taken(call=call, demand=demand, reserved=reserved))

    def put(self, reserved: tuple[Reserved, ...]) -> None:
        """What runs of other contracts have reserved, as recorded."""
        for one in reserved:
            self.meters.put(one)

    def settle(self, reserved: tuple[Reserved, ...], demand: Demand, carried: Carried, cost_microusd: int) -> None:
        """What became of a call of another contract."""
        self._settle(reserved, not_used(demand, carried, cost_microusd))

    def _settle(self, reserved: tuple[Reserved, ...], over: Demand) -> None:
        for settlement in settlements_of(reserved, over):
            self.meters.release(settlement.reserved, settlement.amount)

    def undo(self, call: PastDecision, run: PastRun) -> None:
        """Give back what a call has reserved here: it was not carried out after all."""
        standing, terms = self.standing(run.run), self.terms(run)
        taken = standing.under_way.get(call.step)
        if taken is None or taken.call is not call:
            return
        del standing.under_way[call.step]
        standing.carried_out.discard((call.step, call.args_digest))
        if call.tool in terms.limits:
            standing.usage.release(terms.limits[call.tool], taken.demand)
        for one in taken.reserved:
            self.meters.release(one, one.amount)

    def ended(self, run: PastRun, step: str, carried: Carried, cost_microusd: int) -> None:
        """What became of a call on record; it matters where the call was carried out in this world as well."""
        standing, terms = self.standing(run.run), self.terms(run)
        taken = standing.under_way.pop(step, None)
        if taken is None:
            return
        standing.unsure.pop(step, None)
        standing.rejections.pop(taken.call.tool, None)
        over = not_used(taken.demand, carried, cost_microusd)
        if taken.call.tool in terms.limits:
            standing.usage.release(terms.limits[taken.call.tool], over)
        self._settle(taken.reserved, over)
        result = carried.result if isinstance(carried, Completed) else None
        self._remember(standing, run, taken.call, type(carried).__name__.lower(), result)

    def _remember(self, standing: RunInWorld, run: PastRun, call: PastDecision, outcome: str, result: Json) -> None:
        if call.tool in self.terms(run).told_of or call.tool in run.recorded.told_of:
            past = PastCall(tool=call.tool, outcome=outcome, args=call.args, result=result, at_us=call.at_us)
            standing.past.append(past)


def _carried(call: PastDecision) -> Judged:
    said = call.verdict
    return Judged(kind=said.kind, code=said.code, rules=said.rules, message=said.message, is_carried=True)


def _not_kept(why: str) -> Judged:
    return Judged(kind=UNDETERMINED, code=NOT_KEPT, message=f"its arguments were not kept, because {why}")


def _exhausted(label: str) -> Judged:
    return Judged(kind="deny", code="limit_exhausted", rules=(f"limit: {label}",), message=f"limit reached: {label}")


def _bound(call: PastDecision, run: PastRun, standing: RunInWorld, terms: Terms) -> Judged | None:
    budget = terms.contract.budget
    if call.proposed > budget.calls:
        return _exhausted(f"{budget.calls} calls, budget of the run")
    if call.at_us - run.opened_at - run.parked_us > duration_ms(budget.time) * 1000:
        return _exhausted(f"time of {budget.time}, budget of the run")
    if standing.rejections.get(call.tool, 0) >= terms.contract.attempts:
        return Judged(kind="deny", code="retries_exhausted", message="malformed too often in a row")
    return None


def _verified(
    call: PastDecision, run: PastRun, action: Action, decision: Permitted | MustHold
) -> Permitted | MustHold | Judged:
    """What the recorded verifiers make of a decision, where the same ones are asked here."""
    if not action.verify:
        return decision
    before = run.recorded.actions.get(call.tool)
    asked = frozenset(before.verify if before else ()) if call.reached >= Reached.VERIFIED else frozenset[str]()
    missing = sorted(frozenset(action.verify) - asked)
    if missing:
        return Judged(kind=UNDETERMINED, message=f"verifier `{missing[0]}` was not asked")
    names = tuple(f"verify:{name}" for name in action.verify)
    objects = call.verdict.code == "not_verified" or any(rule.startswith("verify:") for rule in call.verdict.rules)
    if not objects:
        return decision
    if asked != frozenset(action.verify):
        return Judged(kind=UNDETERMINED, message="one of the verifiers did not agree, and the record doesn't say which")
    if action.approval is None:
        return Judged(kind="deny", code="not_verified", rules=(), message=call.verdict.message)
    held = MustHold(
        rules=names, reasons=("",), roles=(action.approval.by,), expires_ms=duration_ms(action.approval.within)
    )
    if isinstance(decision, Permitted):
        return held
    return MustHold(
        rules=(*decision.rules, *held.rules),
        reasons=(*decision.reasons, *held.reasons),
        roles=tuple(dict.fromkeys((*decision.roles, *held.roles))),
        expires_ms=min(decision.expires_ms, held.expires_ms),
    )


def _question(call: PastDecision, terms: Terms, asked: MustHold, text: Callable[[str], str]) -> str:
    """The digest of what a person would be asked, as `remit.gate.record.question` has it."""
    resource = call.resource
    question = {
        "contract": terms.name,
        "tool": call.tool,
        "args": call.args,
        "resource": {name: value for name, value in resource.items() if name != "version"} if resource else None,
        "rules": list(asked.rules),
        "reason": text("; ".join(asked.reasons)) or "a person must approve this",
    }
    return digest(question)


def _is_same(question: str, rules: tuple[str, ...], known: AskedBody, args_digest: str) -> bool:
    if known.args_digest != args_digest:
        return False
    if any(rule.startswith("verify:") for rule in rules):
        # What a verifier said is on record in the question alone.
        return known.shown.rules == rules
    return known.question_digest == question


def _is_answered(earlier: _Asked, known: AskedBody) -> bool:
    """Whether what was asked in a world is what was asked on record, of the same people."""
    same = _is_same(earlier.question, earlier.terms.rules, known, known.args_digest)
    return same and frozenset(earlier.terms.roles) == frozenset(known.roles)

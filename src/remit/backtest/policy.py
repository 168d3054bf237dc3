"""What the policies of the worlds say of one recorded call; asked once where the worlds agree on the facts."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from functools import cached_property

from msgspec.structs import replace

from remit.backtest.blind import Gaps, Sight, conceals, doubtful, gaps_in, without
from remit.backtest.rules import Asking, ToolRules, Untold, are_alike, decision
from remit.backtest.terms import Terms
from remit.backtest.world import PastDecision, PastRun, Reached, RunInWorld
from remit.contracts.model import Fact
from remit.contracts.quantities import MICROUSD_PER_UNIT, amount
from remit.limits.meters import Quantity
from remit.policy.decision import PolicyDecision
from remit.policy.facts import Facts
from remit.policy.session import FactValue, SessionFacts
from remit.tools.spec import Resource
from remit.values import ValueRefused

Said = PolicyDecision | Untold | ValueRefused
"""What a policy says; `ValueRefused` where a value has no exact form in Cedar."""


class _Group:
    """The rules of terms that are alike, and what they read of the state that is simulated."""

    def __init__(self, sides: tuple[ToolRules, ...]) -> None:
        self.sides = sides
        self.asking = Asking(*sides)
        told = frozenset[str]().union(*(side.told for side in sides))
        self.facts: Mapping[str, Fact] = {n: fact for n, fact in sides[0].contract.facts.items() if n in told}
        self.session = SessionFacts(self.facts)
        self.reads = frozenset(
            name for name in ("budget_left", "attempt", "autonomy") if any(side.has_read(name) for side in sides)
        )

    @cached_property
    def sights(self) -> tuple[Sight, ...]:
        return tuple(Sight(side) for side in self.sides)


class Policies:
    """The policies of two worlds. What was made ready for the tools of some terms is kept."""

    def __init__(self) -> None:
        self._groups: dict[tuple[int, ...], tuple[_Group, ...]] = {}

    def say(self, call: PastDecision, run: PastRun, sides: Sequence[tuple[Terms, RunInWorld]]) -> list[Said]:
        """What the policy of each side says of a call, in their order."""
        rules = tuple(terms.tools[call.tool] for terms, _ in sides)
        said: list[Said] = []
        at = 0
        for group in self._grouped(rules):
            mine = sides[at : at + len(group.sides)]
            found = self._found(call, run, mine, group)
            if all(one == found[0] for one in found):
                said += _asked(found[0], group, call)
            else:
                singles = [self._grouped((side,))[0] for side in group.sides]
                for (terms, standing), single in zip(mine, singles, strict=True):
                    said += _asked(_facts(call, run, terms, standing, single), single, call)
            at += len(group.sides)
        return said

    def _found(
        self, call: PastDecision, run: PastRun, mine: Sequence[tuple[Terms, RunInWorld]], group: _Group
    ) -> list[_Found]:
        found = [_facts(call, run, *mine[0], group)]
        for terms, standing in mine[1:]:
            if run.has_parted or not _have_alike(mine[0][0], terms, call.tool, group.reads):
                found.append(_facts(call, run, terms, standing, group))
            else:
                # The same calls lie behind it, so the same is told of them.
                found.append(found[0])
        return found

    def _grouped(self, rules: tuple[ToolRules, ...]) -> tuple[_Group, ...]:
        key = tuple(id(side) for side in rules)
        known = self._groups.get(key)
        if known is None:
            together = len(rules) == 2 and are_alike(rules[0], rules[1])
            known = (_Group(rules),) if together else tuple(_Group((side,)) for side in rules)
            self._groups[key] = known
        return known


_Found = tuple[Facts, Mapping[str, str]] | Untold
"""The facts of a call, and those of the session that can't be told, each with why."""


def _facts(call: PastDecision, run: PastRun, terms: Terms, standing: RunInWorld, group: _Group) -> _Found:
    resource = _resource(call, terms)
    if isinstance(resource, Untold):
        return resource
    session: dict[str, FactValue] = {}
    doubt: dict[str, str] = {}
    if group.facts:
        session = dict(group.session.of(standing.past, call.args, call.at_us))
        doubt = _doubts(group.facts, standing, call, run)
    facts = Facts(
        principal=call.principal,
        tenant=terms.tenant,
        region=terms.contract.region,
        contract=terms.name,
        on_behalf_of=run.on_behalf_of,
        tool=call.tool,
        resource=resource,
        args=call.args,
        fields=call.fields,
        labels=call.labels,
        classes=call.classes,
        autonomy=terms.actions[call.tool].autonomy if "autonomy" in group.reads else "",
        session=session,
        budget_left=_budget_left(terms, standing, call) if "budget_left" in group.reads else {},
        attempt=standing.rejections.get(call.tool, 0) + 1 if "attempt" in group.reads else 0,
        run_calls=call.proposed,
        at_us=call.at_us,
    )
    return facts, doubt


def _have_alike(one: Terms, other: Terms, tool: str, reads: Container[str]) -> bool:
    """Whether two terms give a call the same autonomy and budget, as far as that is read."""
    if "budget_left" in reads and one.contract.budget != other.contract.budget:
        return False
    return "autonomy" not in reads or one.actions[tool].autonomy == other.actions[tool].autonomy


def _budget_left(terms: Terms, standing: RunInWorld, call: PastDecision) -> dict[str, int]:
    budget = terms.contract.budget
    return {
        "calls": budget.calls - call.proposed,
        "writes": budget.writes - standing.usage.used(Quantity.WRITES),
        "spend_microusd": amount(budget.spend).units * MICROUSD_PER_UNIT - standing.usage.used(Quantity.SPEND),
    }


def _doubts(
    facts: Mapping[str, Fact], standing: RunInWorld, call: PastDecision, run: PastRun
) -> dict[str, str]:
    doubt: dict[str, str] = {}
    if standing.unsure:
        tools = frozenset(standing.unsure.values())
        why = "which depends on a call that was not carried out on record"
        doubt = {name: why for name, fact in facts.items() if {fact.seen, fact.count, fact.sum, fact.last} & tools}
    if run.is_redacted and standing.past:
        doubt |= dict.fromkeys(doubtful(facts, standing.past, call.args), "which depends on concealed values")
    return doubt


def _resource(call: PastDecision, terms: Terms) -> Resource | Untold:
    spec = terms.specs[call.tool]
    if call.resource is None:
        if spec.resource_kind == "Tool" and call.reached >= Reached.LOCATED:
            return Resource(kind="Tool", id=spec.name, tenant=terms.tenant, region=terms.contract.region)
        return Untold(because="the object that it is about was not looked up")
    if call.resource["kind"] != spec.resource_kind:
        return Untold(because=f"its object was of kind `{call.resource['kind']}` then")
    return Resource(**call.resource)


def _asked(found: _Found, group: _Group, call: PastDecision) -> list[Said]:
    if isinstance(found, Untold):
        return [found for _ in group.sides]
    facts, doubt = found
    gaps = _gaps(facts, doubt, group, call)
    try:
        return _decided(facts, group, gaps, pruned=False)
    except ValueRefused as refused:
        if not (gaps and gaps.concealed):
            return [refused for _ in group.sides]
    # A pseudonym stands where a number was: nothing concealed is handed on.
    concealed = gaps.concealed
    kept = replace(
        facts,
        args=without(facts.args, concealed, ("context", "args")),
        session=without(facts.session, concealed, ("context", "facts")),
        resource=replace(
            facts.resource, attributes=without(facts.resource.attributes, concealed, ("resource",))
        ),
    )
    try:
        return _decided(kept, group, gaps, pruned=True)
    except ValueRefused as refused:
        return [refused for _ in group.sides]


def _gaps(facts: Facts, doubt: Mapping[str, str], group: _Group, call: PastDecision) -> Gaps | None:
    gaps = gaps_in(facts) if call.is_redacted or any(map(conceals, facts.session.values())) else Gaps()
    gaps.unknown.update({("context", "facts", name): why for name, why in doubt.items()})
    if facts.on_behalf_of is not None and conceals(facts.on_behalf_of):
        gaps.concealed.add(("context", "on_behalf_of"))
    spec = group.sides[0].spec
    if spec.digest != call.tool_digest:
        missing = spec.resource_attributes.keys() - facts.resource.attributes.keys()
        gaps.unknown.update({("resource", name): "which was not recorded" for name in missing})
    return gaps if gaps else None


def _decided(facts: Facts, group: _Group, gaps: Gaps | None, *, pruned: bool) -> list[Said]:
    applied = group.asking.about(facts)
    if gaps is None:
        return [decision(side, one) for side, one in zip(group.sides, applied, strict=True)]
    return [
        decision(side, one, sight.blind(facts, gaps, pruned=pruned))
        for side, one, sight in zip(group.sides, applied, group.sights, strict=True)
    ]

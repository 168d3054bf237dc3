"""The decision point against a small obvious model of what a contract and its rules mean, over generated cases."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import cedarpy
import msgspec
from cedarpy import pst
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remit.contracts.model import (
    Action,
    Approval,
    Autonomy,
    Budget,
    Contract,
    Escalation,
    Fact,
    Only,
    Owner,
    Slo,
    Style,
    Success,
)
from remit.policy.decision import (
    Forbidden,
    MustHold,
    Permitted,
    PolicyDecision,
    PolicyDecisionPoint,
    Undecided,
)
from remit.policy.facts import ContextShape, Facts
from remit.tools.spec import Effect, Resource, ToolSpec
from remit.values import encode

HOUR_MS = 3_600_000

# Three tools that stand for all: without an object, writing fields, moving money


def _closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


NOTE = {"type": "string"}
MONEY = _closed(amount={"type": "string", "format": "decimal"}, currency={"type": "string"})
FIELDS = ("status", "owner", "price")


def _spec(name: str, effects: set[Effect], schema: dict[str, Any], **more: Any) -> ToolSpec:
    return ToolSpec(
        name=name, description="…", input_schema=schema, output_schema=NOTE, effects=frozenset(effects), **more
    )


ITEM: dict[str, Any] = {"resource_kind": "Item", "resource_attributes": {"vip": "Bool"}}
TOOLS = {
    spec.name: spec
    for spec in (
        _spec("a.read", {Effect.READ}, _closed(note=NOTE)),
        _spec(
            "a.write", {Effect.WRITE}, _closed(note=NOTE, set={**_closed(), "properties": {}}), written="set", **ITEM
        ),
        _spec("a.pay", {Effect.WRITE, Effect.MONEY}, _closed(note=NOTE, amount=MONEY), money="amount", **ITEM),
    )
}


# Conditions of rules: as Cedar, and as a function of the facts; `None` is an evaluation error


@dataclass(frozen=True)
class Condition:
    cedar: str
    holds: Callable[[Facts], bool | None]


def _and(left: Condition, right: Condition) -> Condition:
    def holds(facts: Facts) -> bool | None:
        first = left.holds(facts)
        return right.holds(facts) if first else first

    return Condition(f"({left.cedar} && {right.cedar})", holds)


def _or(left: Condition, right: Condition) -> Condition:
    def holds(facts: Facts) -> bool | None:
        first = left.holds(facts)
        return right.holds(facts) if first is False else first

    return Condition(f"({left.cedar} || {right.cedar})", holds)


def _not(inner: Condition) -> Condition:
    def holds(facts: Facts) -> bool | None:
        found = inner.holds(facts)
        return None if found is None else not found

    return Condition(f"!({inner.cedar})", holds)


def _if(test: Condition, yes: Condition, no: Condition) -> Condition:
    def holds(facts: Facts) -> bool | None:
        found = test.holds(facts)
        return None if found is None else yes.holds(facts) if found else no.holds(facts)

    return Condition(f"(if {test.cedar} then {yes.cedar} else {no.cedar})", holds)


def _label(facts: Facts, label: str) -> bool:
    labels = facts.labels.get("note", ("model",))
    return label in labels or label in {each.partition(":")[0] for each in labels}


def _field(name: str) -> Condition:
    return Condition(f'context.fields.contains("{name}")', lambda facts: name in facts.fields)


def _in_region(name: str) -> Condition:
    return Condition(
        f'(resource has region && resource.region == "{name}")', lambda facts: facts.resource.region == name
    )


def _from(label: str) -> Condition:
    return Condition(f'context.from.note.contains("{label}")', lambda facts: _label(facts, label))


def _count_above(limit: int) -> Condition:
    def holds(facts: Facts) -> bool | None:
        count = facts.session.get("times")
        return None if count is None else int(count) > limit

    return Condition(f"context.facts.times > {limit}", holds)


def _total_below(limit: Decimal) -> Condition:
    def holds(facts: Facts) -> bool | None:
        total = facts.session.get("total")
        return None if total is None else Decimal(total) < limit

    return Condition(f'context.facts.total.lessThan(decimal("{limit}"))', holds)


OVERFLOW = Condition("9223372036854775807 + context.attempt > 0", lambda facts: None)
HOUR = Condition("context.time.hour >= 12", lambda facts: facts.at_us // 3_600_000_000 % 24 >= 12)

ATOMS = st.one_of(
    st.sampled_from(FIELDS).map(_field),
    st.sampled_from(["eu", "us"]).map(_in_region),
    st.sampled_from(["untrusted", "untrusted:mail.read", "user", "model"]).map(_from),
    st.integers(0, 2).map(_count_above),
    st.sampled_from([Decimal("0.0001"), Decimal("50.0000"), Decimal("100.5")]).map(_total_below),
    st.sampled_from([HOUR, OVERFLOW]),
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds(_and, inner, inner),
        st.builds(_or, inner, inner),
        st.builds(_not, inner),
        st.builds(_if, inner, inner, inner),
    ),
    max_leaves=4,
)


@dataclass(frozen=True)
class GeneratedRule:
    id: str
    tools: tuple[str, ...] | None
    condition: Condition
    unless: bool
    role: str | None
    within_h: int | None

    def cedar(self) -> str:
        hold = f'@hold("role:{self.role}") ' if self.role else ""
        within = f'@within("{self.within_h}h") ' if self.role and self.within_h else ""
        named = ", ".join(f'Action::"{tool}"' for tool in self.tools or ())
        actions = "action" if self.tools is None else f"action in [{named}]"
        word = "unless" if self.unless else "when"
        head = f'@id("{self.id}") {hold}{within}forbid (principal, {actions}, resource)'
        return f"{head} {word} {{ {self.condition.cedar} }};"

    def fires(self, facts: Facts) -> bool | None:
        if self.tools is not None and facts.tool not in self.tools:
            return False
        found = self.condition.holds(facts)
        return None if found is None else found is not self.unless


# The model


def model(contract: Contract, rules: Sequence[GeneratedRule], facts: Facts) -> PolicyDecision:
    """What the design says, as plainly as it can be said."""
    action = next((each for each in contract.actions if each.tool == facts.tool), None)
    if action is None or facts.principal != "agent/shop/desk":
        return Forbidden(rules=(), reasons=())
    if facts.resource.kind != TOOLS[facts.tool].resource_kind:
        return Forbidden(rules=(), reasons=())
    fired = {rule.id: rule.fires(facts) for rule in rules}
    hard = {rule.id for rule in rules if fired[rule.id] and not rule.role}
    if action.autonomy is Autonomy.OBSERVE:
        hard.add(f"autonomy:{action.tool}")
    if hard:
        return Forbidden(rules=tuple(sorted(hard)), reasons=())
    if None in fired.values():
        return Undecided(errors=())
    if not _granted(action.only, facts):
        return Forbidden(rules=(), reasons=())
    holds = {rule.id: (rule.role, rule.within_h) for rule in rules if fired[rule.id] and rule.role}
    if action.approval and _asks(action, facts):
        holds[f"autonomy:{action.tool}"] = ("lead", 2)
    if not holds:
        return Permitted(rules=(f"grant:{action.tool}",))
    usual = 2 if action.approval else 4
    asked = sorted(holds)
    return MustHold(
        rules=tuple(asked),
        reasons=(),
        roles=tuple(f"role:{holds[rule][0]}" for rule in asked),
        expires_ms=min(within or usual for _, within in holds.values()) * HOUR_MS,
    )


def _granted(only: Only, facts: Facts) -> bool:
    resource = facts.resource
    return (
        resource.tenant == "shop"
        and (not only.region or resource.region in only.region)
        and all(resource.attributes.get(name) is value for name, value in only.attributes.items())
        and (not only.fields or set(facts.fields) <= set(only.fields))
    )


def _asks(action: Action, facts: Facts) -> bool:
    assert action.approval
    if action.autonomy is Autonomy.SUGGEST or action.approval.above is None:
        return True
    money = facts.args["amount"]
    return money["currency"] != "EUR" or not 0 <= Decimal(money["amount"]) <= Decimal("50.00")


# Generated contracts, rules and calls


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    tools = draw(st.lists(st.sampled_from(sorted(TOOLS)), unique=True))
    return Contract(
        contract="desk",
        owner=Owner(team="desk", contact="desk@shop.example"),
        purpose="…",
        style=Style.WORKFLOW,
        tenant="shop",
        region="eu",
        input="in.json",
        output="out.json",
        actions=[draw(actions(tool)) for tool in tools],
        facts={"times": Fact(count="a.read"), "total": Fact(sum="a.pay", of="args.amount")},
        budget=Budget(calls=10),
        escalate=Escalation(to="queue:desk", sla="1h"),
        success=Success(metric="done"),
        slo=Slo(),
    )


@st.composite
def actions(draw: st.DrawFn, tool: str) -> Action:
    autonomy = draw(st.sampled_from(Autonomy))
    above = draw(st.sampled_from([None, "50.00 EUR"])) if tool == "a.pay" else None
    asks = autonomy in (Autonomy.SUGGEST, Autonomy.APPROVE) or draw(st.booleans())
    is_item = tool != "a.read"
    return Action(
        tool=tool,
        autonomy=autonomy,
        approval=Approval(by="role:lead", within="2h", above=above) if asks else None,
        only=Only(
            region=draw(st.lists(st.sampled_from(["eu", "us"]), unique=True)),
            fields=draw(st.lists(st.sampled_from(FIELDS), min_size=1, unique=True)) if tool == "a.write" else [],
            attributes=draw(st.sampled_from([{}, {"vip": False}])) if is_item else {},
        ),
    )


@st.composite
def rule_lists(draw: st.DrawFn, contract: Contract) -> list[GeneratedRule]:
    granted = sorted(action.tool for action in contract.actions)
    scopes = st.none()
    if granted:
        scopes = st.one_of(st.none(), st.lists(st.sampled_from(granted), min_size=1, unique=True).map(tuple))
    return [
        GeneratedRule(
            id=f"r{number}",
            tools=draw(scopes),
            condition=draw(CONDITIONS),
            unless=draw(st.booleans()),
            role=draw(st.sampled_from([None, "lead", "boss"])),
            within_h=draw(st.sampled_from([None, 1, 3])),
        )
        for number in range(draw(st.integers(0, 4)) if granted else 0)
    ]


@st.composite
def calls(draw: st.DrawFn) -> Facts:
    tool = draw(st.sampled_from([*sorted(TOOLS), "a.delete"]))
    kind = TOOLS[tool].resource_kind if tool in TOOLS else "Tool"
    amount = draw(st.sampled_from(["0", "49.9999", "50.00", "50.0001", "84.00", "-1.00"]))
    args: dict[str, Any] = {"note": "hello"}
    if tool == "a.write":
        args["set"] = {}
    if tool == "a.pay":
        args["amount"] = {"amount": amount, "currency": draw(st.sampled_from(["EUR", "EUR", "USD"]))}
    session = {"times": draw(st.integers(0, 3)), "total": draw(st.sampled_from([0, Decimal("50.0000")]))}
    for name in draw(st.lists(st.sampled_from(["times", "total"]), max_size=1)):
        del session[name]
    labels = draw(st.sampled_from([{}, {"note": ("user",)}, {"note": ("untrusted:mail.read", "model")}]))
    return Facts(
        principal=draw(st.sampled_from(["agent/shop/desk", "agent/shop/desk", "agent/shop/other"])),
        tenant="shop",
        region="eu",
        contract="desk",
        on_behalf_of=draw(st.sampled_from([None, "person/anna"])),
        tool=tool,
        resource=Resource(
            kind=draw(st.sampled_from([kind, kind, kind, "Item"])),
            id=draw(st.sampled_from(["1", 'x"::y', "a\nb"])),
            tenant=draw(st.sampled_from(["shop", "shop", "other"])),
            region=draw(st.sampled_from(["eu", "us", None])),
            attributes={"vip": draw(st.booleans())} if kind == "Item" else {},
        ),
        args=args,
        fields=tuple(draw(st.lists(st.sampled_from(FIELDS), unique=True))) if tool == "a.write" else (),
        labels=labels,
        classes=(),
        autonomy="auto",
        session=session,
        budget_left={"calls": 5, "writes": 5, "spend_microusd": 0},
        attempt=1,
        run_calls=draw(st.integers(0, 3)),
        at_us=draw(st.integers(0, 2)) * 11 * 3_600_000_000,
    )


CASES = contracts().flatmap(lambda contract: st.tuples(st.just(contract), rule_lists(contract)))
CALLS = st.lists(calls(), min_size=1, max_size=12)


def build(contract: Contract, rules: Sequence[GeneratedRule]) -> PolicyDecisionPoint:
    return PolicyDecisionPoint.build(contract, TOOLS, "\n".join(rule.cedar() for rule in rules))


def decide(policy: PolicyDecisionPoint, facts: Facts) -> PolicyDecision:
    return policy.decide(facts).decision


def gist(decision: PolicyDecision) -> PolicyDecision:
    """A decision without its words."""
    match decision:
        case Forbidden() | MustHold():
            return msgspec.structs.replace(decision, reasons=())
        case Undecided():
            return Undecided(errors=())
        case Permitted():
            return decision


def freedom(decision: PolicyDecision) -> int:
    match decision:
        case Permitted():
            return 2
        case MustHold():
            return 1
        case Forbidden() | Undecided():
            return 0


relaxed = settings(
    deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@relaxed
@given(CASES, CALLS)
def test_every_decision_is_the_one_that_the_model_makes(
    case: tuple[Contract, list[GeneratedRule]], proposed: list[Facts]
) -> None:
    contract, rules = case
    policy = build(contract, rules)
    for facts in proposed:
        assert gist(decide(policy, facts)) == model(contract, rules, facts)


@relaxed
@given(CASES, CALLS, st.data())
def test_removing_a_grant_or_adding_a_rule_never_allows_more(
    case: tuple[Contract, list[GeneratedRule]], proposed: list[Facts], data: st.DataObject
) -> None:
    contract, rules = case
    policy = build(contract, rules)
    kept = [action for action in contract.actions if data.draw(st.booleans())]
    narrower = msgspec.structs.replace(contract, actions=kept)
    granted = {action.tool for action in kept}
    known = [rule for rule in rules if granted and granted.issuperset(rule.tools or ())]
    fewer = build(narrower, known)
    added = [replace(rule, id=f"new-{rule.id}") for rule in data.draw(rule_lists(contract))]
    stricter = build(contract, [*rules, *added])
    for facts in proposed:
        before = freedom(decide(policy, facts))
        assert freedom(decide(stricter, facts)) <= before
        if facts.tool not in granted:
            assert freedom(decide(fewer, facts)) == 0


@relaxed
@given(CASES, CALLS)
def test_a_hold_appears_only_where_everything_else_permits(
    case: tuple[Contract, list[GeneratedRule]], proposed: list[Facts]
) -> None:
    contract, rules = case
    asking = [action for action in contract.actions if action.autonomy is not Autonomy.OBSERVE]
    watching = [action for action in contract.actions if action.autonomy is Autonomy.OBSERVE]
    never_asking = msgspec.structs.replace(
        contract,
        actions=[*watching, *(msgspec.structs.replace(a, autonomy=Autonomy.AUTO, approval=None) for a in asking)],
    )
    policy = build(contract, rules)
    hard = build(never_asking, [rule for rule in rules if not rule.role])
    for facts in proposed:
        if isinstance(decide(policy, facts), MustHold):
            assert isinstance(decide(hard, facts), Permitted)


def _two_sets(policy: PolicyDecisionPoint, facts: Facts, whole: Mapping[str, Any]) -> tuple[bool, set[str], bool]:
    """Ask Cedar as the design describes it: both sets, unsliced, the whole context, held to the schema.

    Returns whether the hard set allows, which holds fire, and whether anything could not be evaluated.
    """
    parsed = cedarpy.policies_to_pst(policy.text).static_policies.values()
    named = {each.annotations["id"]: replace(each, id=each.annotations["id"]) for each in parsed}
    sets = [
        cedarpy.PolicySet.from_pst(pst.PolicySet(templates={}, static_policies=chosen, template_links=()))
        for chosen in (
            {name: each for name, each in named.items() if "hold" not in each.annotations},
            {name: each for name, each in named.items() if "hold" in each.annotations},
        )
    ]
    resource = facts.resource
    region = {"region": resource.region} if resource.region else {}
    entities: list[dict[str, Any]] = [
        {
            "uid": {"type": "Agent", "id": facts.principal},
            "attrs": {"tenant": "shop", "contract": "desk", "region": "eu"},
            "parents": [],
        },
        {
            "uid": {"type": resource.kind, "id": resource.id},
            "attrs": {"tenant": resource.tenant, **region, **resource.attributes},
            "parents": [],
        },
    ]
    request = {
        "principal": {"type": "Agent", "id": facts.principal},
        "action": {"type": "Action", "id": facts.tool},
        "resource": {"type": resource.kind, "id": resource.id},
        "context": json.dumps(whole),
    }
    hard, holds = (
        cedarpy.is_authorized(  # pyright: ignore[reportUnknownMemberType]
            request, each, json.dumps(entities), policy.types.handle
        )
        for each in sets
    )
    errors = bool(hard.diagnostics.errors or holds.diagnostics.errors)
    return hard.allowed, set(holds.diagnostics.reasons), errors


@relaxed
@given(CASES, CALLS)
def test_one_sliced_pass_says_what_two_whole_sets_say(
    case: tuple[Contract, list[GeneratedRule]], proposed: list[Facts]
) -> None:
    contract, rules = case
    policy = build(contract, rules)
    for facts in proposed:
        type_ = policy.types.actions.get(facts.tool)
        # An absent sum is no value of the schema's, which promises it; that it is a deny has its own test.
        if type_ is None or facts.resource.kind != TOOLS[facts.tool].resource_kind or len(facts.session) < 2:
            continue
        whole = ContextShape(type_).of(facts)
        allows, holds, errors = _two_sets(policy, facts, whole)
        match decide(policy, facts):
            case Permitted():
                assert allows
                assert not holds
                assert not errors
            case MustHold(rules=asked):
                assert allows
                assert set(asked) == holds
                assert not errors
            case Forbidden():
                assert not allows
            case Undecided():
                assert errors
        whole_record = policy.decide_recorded(facts.tool, facts.principal, facts.resource, encode(whole))
        assert policy.decide(facts).decision == whole_record

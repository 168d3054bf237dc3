"""Decisions over one real contract: refunds that need a fraud check, and people above a threshold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

import pytest
from msgspec import Meta
from msgspec.structs import replace
from msgspec.structs import replace as changed

from remit.contracts.model import (
    Action,
    Approval,
    Autonomy,
    Budget,
    Contract,
    Escalation,
    Fact,
    ModelBinding,
    Only,
    Owner,
    Slo,
    Style,
    Success,
)
from remit.errors import ConfigError
from remit.policy.decision import (
    Forbidden,
    MustHold,
    Permitted,
    PolicyDecision,
    PolicyDecisionPoint,
    Undecided,
)
from remit.policy.facts import Facts, unrecorded
from remit.policy.session import PastCall, SessionFacts
from remit.tools.decorator import tool
from remit.tools.spec import Effect, Money, Resource, ToolContext, ToolSpec
from remit.values import ValueRefused

NOW_US = 1_767_614_400_000_000
HOUR_US = 3_600_000_000


class Changes(TypedDict, total=False):
    """What may be changed of an order."""

    status: str
    note: str


async def find_order(ctx: ToolContext, args: Mapping[str, Any]) -> Resource:
    return Resource(kind="Order", id=str(args["order"]), tenant="shop", region="eu", attributes={"vip": False})


@tool("risk.check", effects={Effect.READ})
def check_risk(order: int) -> bool:
    """Check an order for fraud."""
    return order > 0


@tool(
    "payments.refund",
    effects={Effect.WRITE, Effect.MONEY},
    resource_kind="Order",
    resource_attributes={"vip": "Bool"},
    locate=find_order,
    money="amount",
)
def pay_refund(
    order: int, amount: Money, account: Annotated[str, Meta(max_length=40)], share: float | None = None
) -> bool:
    """Pay money back."""
    return bool(order and amount and account and share)


@tool(
    "orders.update",
    effects={Effect.WRITE},
    resource_kind="Order",
    resource_attributes={"vip": "Bool"},
    locate=find_order,
    written="changes",
)
def update_order(order: int, changes: Changes) -> bool:
    """Change an order."""
    return bool(order and changes)


TOOLS: dict[str, ToolSpec] = {t.spec.name: t.spec for t in (check_risk, pay_refund, update_order)}
ORDER = Resource(kind="Order", id="1182", tenant="shop", region="eu", attributes={"vip": False})
REFUND: dict[str, Any] = {"order": 1182, "amount": {"amount": "20.00", "currency": "EUR"}, "account": "DE02"}

CONTRACT = Contract(
    contract="refunds",
    owner=Owner(team="care", contact="care@shop.example"),
    purpose="Pay refunds.",
    style=Style.WORKFLOW,
    tenant="shop",
    region="eu",
    input="in.json",
    output="out.json",
    actions=[
        Action(tool="risk.check"),
        Action(
            tool="payments.refund",
            only=Only(region=["eu"]),
            autonomy=Autonomy.APPROVE,
            approval=Approval(by="role:care-lead", within="2h", above="50.00 EUR"),
        ),
        Action(tool="orders.update", only=Only(fields=["status", "note"], attributes={"vip": False})),
    ],
    facts={"fraud_checked": Fact(seen="risk.check", where={"order": "args.order"}, within="1h")},
    budget=Budget(calls=12),
    escalate=Escalation(to="queue:care", sla="30m"),
    success=Success(metric="refund_correct"),
    slo=Slo(),
)
POLICY = """
@id("refund-after-fraud-check") @reason("a refund needs a fraud check of the same order within the hour")
forbid (principal, action == Action::"payments.refund", resource) unless { context.facts.fraud_checked };

@id("payee-not-from-the-mail") @hold("role:finance") @within("30m")
@reason("the account number was found only in text that the customer wrote")
forbid (principal, action == Action::"payments.refund", resource) when { context.from.account.contains("untrusted") };
"""


def build(policy: str = POLICY, contract: Contract = CONTRACT) -> PolicyDecisionPoint:
    return PolicyDecisionPoint.build(contract, TOOLS, policy)


def with_action(tool: str, **changes: Any) -> Contract:
    actions = [changed(each, **changes) if each.tool == tool else each for each in CONTRACT.actions]
    return changed(CONTRACT, actions=actions)


def facts(tool: str = "payments.refund", **changes: Any) -> Facts:
    usual = Facts(
        principal="agent/shop/refunds",
        tenant="shop",
        region="eu",
        contract="refunds",
        on_behalf_of=None,
        tool=tool,
        resource=ORDER,
        args=REFUND,
        fields=(),
        labels={"order": ("user",), "account": ("tool:orders.read",)},
        classes=(),
        autonomy="approve",
        session={"fraud_checked": True},
        budget_left={"calls": 3, "writes": 1, "spend_microusd": 0},
        attempt=1,
        run_calls=2,
        at_us=NOW_US,
    )
    return replace(usual, **changes)


def decide(policy: PolicyDecisionPoint, asked: Facts) -> PolicyDecision:
    return policy.decide(asked).decision


def paying(amount: str, currency: str = "EUR") -> Facts:
    return facts(args={**REFUND, "amount": {"amount": amount, "currency": currency}})


def test_a_call_that_a_grant_covers_and_no_rule_opposes_is_permitted() -> None:
    assert decide(build(), facts()) == Permitted(rules=("grant:payments.refund",))


def test_a_refund_is_permitted_only_after_a_fraud_check_of_the_same_order_within_the_hour() -> None:
    policy = build()

    def after(*calls: tuple[int, int, str]) -> PolicyDecision:
        past = [
            PastCall(tool="risk.check", outcome=outcome, args={"order": order}, result=True, at_us=NOW_US - ago_us)
            for order, ago_us, outcome in calls
        ]
        return decide(policy, facts(session=SessionFacts(CONTRACT.facts).of(past, REFUND, NOW_US)))

    refused = Forbidden(
        rules=("refund-after-fraud-check",),
        reasons=("a refund needs a fraud check of the same order within the hour",),
    )
    assert after() == refused
    assert after((1183, 0, "completed")) == refused
    assert after((1182, 0, "failed")) == refused
    assert after((1182, HOUR_US + 1, "completed")) == refused
    assert isinstance(after((1182, HOUR_US, "completed")), Permitted)
    assert isinstance(after((1183, 5, "completed"), (1182, 1, "completed")), Permitted)


@pytest.mark.parametrize("amount", ["0", "0.0000", "49.9999", "50", "50.00", "50.000000"])
def test_amounts_up_to_the_threshold_pass_unasked(amount: str) -> None:
    assert isinstance(decide(build(), paying(amount)), Permitted)


@pytest.mark.parametrize("amount", ["50.0001", "50.01", "99999999999999.9999", "-0.0001", "-20.00"])
def test_amounts_beyond_the_threshold_or_below_zero_are_held(amount: str) -> None:
    assert decide(build(), paying(amount)) == MustHold(
        rules=("autonomy:payments.refund",),
        reasons=("all but amounts up to 50.00 EUR need approval by care-lead",),
        roles=("role:care-lead",),
        expires_ms=7_200_000,
    )


def test_another_currency_than_the_thresholds_is_always_held() -> None:
    assert isinstance(decide(build(), paying("0.01", "USD")), MustHold)


@pytest.mark.parametrize("amount", ["50.00001", "1e3", "100000000000000", "1000000000000000", "NaN", " 5", "٥"])
def test_an_amount_without_an_exact_form_is_refused(amount: str) -> None:
    with pytest.raises(ValueRefused, match=r"`amount.amount` must be a number of at most four decimals"):
        build().decide(paying(amount))


def test_each_hold_that_fires_says_which_role_it_asks_and_the_shortest_time_counts() -> None:
    asked = replace(paying("84.00"), labels={"account": ("untrusted:mail.read",)})
    assert decide(build(), asked) == MustHold(
        rules=("autonomy:payments.refund", "payee-not-from-the-mail"),
        reasons=(
            "all but amounts up to 50.00 EUR need approval by care-lead",
            "the account number was found only in text that the customer wrote",
        ),
        roles=("role:care-lead", "role:finance"),
        expires_ms=1_800_000,
    )


def test_a_hold_without_a_time_takes_the_approvals_or_four_hours() -> None:
    rule = '@id("ask") @hold("role:lead") forbid (principal, action, resource);'
    policy = build(rule)
    held = decide(policy, facts())
    assert isinstance(held, MustHold)
    assert held.expires_ms == 7_200_000
    held = decide(policy, facts("risk.check", resource=replace(ORDER, kind="Tool")))
    assert isinstance(held, MustHold)
    assert held.expires_ms == 14_400_000
    assert held.reasons == ("rule `ask` says so",)


def test_a_hold_is_not_asked_where_a_hard_rule_denies() -> None:
    asked = facts(session={"fraud_checked": False}, labels={"account": ("untrusted:mail.read",)})
    assert decide(build(), asked) == Forbidden(
        rules=("refund-after-fraud-check",),
        reasons=("a refund needs a fraud check of the same order within the hour",),
    )


def test_a_hold_is_not_asked_where_no_grant_applies() -> None:
    asked = facts(resource=replace(ORDER, region="us"), labels={"account": ("untrusted:mail.read",)})
    assert isinstance(decide(build(), asked), Forbidden)


def test_a_suggestion_is_held_whatever_it_moves() -> None:
    contract = with_action("payments.refund", autonomy=Autonomy.SUGGEST)
    assert isinstance(decide(build(POLICY, contract), paying("0.01")), MustHold)


def test_what_is_only_observed_is_forbidden_by_name() -> None:
    contract = with_action("payments.refund", autonomy=Autonomy.OBSERVE)
    decision = decide(build(POLICY, contract), facts())
    assert isinstance(decision, Forbidden)
    assert decision.rules == ("autonomy:payments.refund",)


def test_an_approval_that_is_written_down_is_asked_for_at_auto_too() -> None:
    contract = with_action("payments.refund", autonomy=Autonomy.AUTO)
    policy = build(POLICY, contract)
    assert isinstance(decide(policy, paying("50.00")), Permitted)
    assert isinstance(decide(policy, paying("50.0001")), MustHold)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (
            facts(resource=replace(ORDER, region="us")),
            "contract `refunds` grants `payments.refund` only where the object's region is one of eu (here: `us`)",
        ),
        (
            facts(resource=replace(ORDER, region=None)),
            "contract `refunds` grants `payments.refund` only where the object's region is one of eu (here: absent)",
        ),
        (
            facts(resource=replace(ORDER, tenant="other")),
            "contract `refunds` grants `payments.refund` only where the object's tenant is `shop` (here: `other`)",
        ),
        (
            facts(
                "orders.update",
                args={"order": 1, "changes": {}},
                fields=("note", "price"),
                resource=replace(ORDER, attributes={"vip": True}),
            ),
            (
                "contract `refunds` grants `orders.update` only where the object's vip is `false` (here: `true`) "
                "and the fields written are among note, status (here: note, price)"
            ),
        ),
        (facts("orders.delete"), "contract `refunds` does not grant tool `orders.delete`"),
        (
            facts(principal="agent/shop/others"),
            "contract `refunds` is for `agent/shop/refunds`, not `agent/shop/others`",
        ),
        (
            facts(resource=replace(ORDER, kind="Customer")),
            "`payments.refund` acts on objects of kind `Order`, not `Customer`",
        ),
    ],
)
def test_without_a_grant_the_reason_says_what_the_grant_demands_and_what_fails(asked: Facts, reason: str) -> None:
    assert decide(build(), asked) == Forbidden(rules=(), reasons=(reason,))


def test_a_contract_that_grants_nothing_denies_everything() -> None:
    policy = build("", changed(CONTRACT, actions=[]))
    for tool_name in [*TOOLS, "x.y"]:
        assert isinstance(decide(policy, facts(tool_name)), Forbidden)


@pytest.mark.parametrize("kind", ["", '@hold("role:lead") '])
def test_a_rule_that_can_not_be_evaluated_denies_and_names_itself(kind: str) -> None:
    overflowing = f'@id("sum") {kind}forbid (principal, action, resource)'
    policy = build(overflowing + " when { 9223372036854775807 + context.attempt < 0 };")
    decision = decide(policy, facts())
    assert isinstance(decision, Undecided)
    assert decision.errors[0].startswith("error while evaluating policy `sum`: integer overflow")


def test_a_hard_rule_that_fires_is_named_although_another_can_not_be_evaluated() -> None:
    overflowing = '@id("sum") forbid (principal, action, resource) when { 9223372036854775807 + context.attempt < 0 };'
    policy = build(overflowing + '@id("no") @reason("no") forbid (principal, action, resource);')
    assert decide(policy, facts()) == Forbidden(rules=("no",), reasons=("no",))


@pytest.mark.parametrize("depth", [1, 97])
def test_of_many_hard_rules_exactly_those_that_fire_are_named_however_deep_one_is_nested(depth: int) -> None:
    """With 97 comparisons in a row, one rule is all that Cedar takes; it can't be asked about as a part of another."""
    rules = [f'@id("r{n}") forbid (principal, action, resource) when {{ context.attempt == {n} }};' for n in range(2, 40)]
    rules.append('@id("orders") forbid (principal, action == Action::"payments.refund", resource is Order) unless { context.attempt < 50 };')
    rules.append('@id("clauses") forbid (principal, action == Action::"payments.refund", resource) when { context.attempt > 60 } unless { resource.vip };')
    rules.append(f'@id("deep") forbid (principal, action, resource) when {{ {" || ".join(["context.attempt == 7"] * depth)} }};')
    policy = build("\n".join(rules))

    def fired(attempt: int) -> tuple[str, ...]:
        decision = decide(policy, facts(attempt=attempt, resource=replace(ORDER, attributes={"vip": False})))
        return decision.rules if isinstance(decision, Forbidden) else ()

    assert [fired(n) for n in (1, 2, 7, 39, 40)] == [(), ("r2",), ("deep", "r7"), ("r39",), ()]
    assert [fired(n) for n in (50, 61)] == [("orders",), ("clauses", "orders")]


HOLDING = [
    'context.args.order == 1182',
    "context.args has order",
    'context has args.amount.currency && context.args.amount.currency == "EUR"',
    "context has facts && context has facts.fraud_checked && context.facts has fraud_checked",
    '[context.args.account, resource.tenant].contains("DE02")',
    'resource has region && {a: context.args.order, b: [{c: resource.region}]} == {a: 1182, b: [{c: "eu"}]}',
    'if resource.vip then false else context.args.account like "DE*"',
    'resource has region && resource has tenant && resource.tenant == "shop"',
    "(if context.attempt == 1 then resource else resource) has vip",
    "resource is Order && context.facts.fraud_checked",
    'resource == Order::"1182" && context.args.account != resource.tenant',
    'context == context && context.args.order == 1182',
    'context.args == context.args && context.facts.fraud_checked && resource.tenant == "shop"',
    'principal.tenant == "shop" && principal.contract == "refunds"',
]


@pytest.mark.parametrize("condition", HOLDING)
def test_what_a_rule_reads_is_found_wherever_and_however_it_reads_it(condition: str) -> None:
    head = '@id("r") @reason("r") forbid (principal, action == Action::"payments.refund", resource)'
    anywhere = with_action("payments.refund", only=Only())
    assert decide(build(f"{head} when {{ {condition} }};", anywhere), facts()) == Forbidden(rules=("r",), reasons=("r",))
    assert isinstance(decide(build(f"{head} unless {{ {condition} }};", anywhere), facts()), Permitted)


@pytest.mark.parametrize("read", [b"", b"[]", b"{}", b'{"args":[]}', b'{"args":7,"facts":{"fraud_checked":true}}'])
def test_a_record_that_is_not_what_the_policy_read_is_undecided(read: bytes) -> None:
    decision = build().decide_recorded("payments.refund", "agent/shop/refunds", ORDER, read)
    assert isinstance(decision, Undecided)


def test_a_fact_that_could_not_be_told_denies_where_it_is_read() -> None:
    decision = decide(build(), facts(session={}))
    assert isinstance(decision, Undecided)
    assert "`fraud_checked`" in decision.errors[0]


def test_an_attribute_that_is_not_of_its_declared_type_denies() -> None:
    policy = build(
        '@id("vip") forbid (principal, action == Action::"payments.refund", resource) when { resource.vip };'
    )
    assert isinstance(decide(policy, facts()), Permitted)
    for wrong in ("yes", 1):
        decision = decide(policy, facts(resource=replace(ORDER, attributes={"vip": wrong})))
        assert decision == Undecided(
            errors=("`resource.vip` must be of the type that is declared for policy to judge it",)
        )
    assert isinstance(decide(policy, facts(resource=replace(ORDER, attributes={}))), Undecided)


def test_an_attribute_can_not_pass_for_the_tenant() -> None:
    posing = Resource(kind="Order", id="1", tenant="other", region="eu", attributes={"vip": False, "tenant": "shop"})
    assert isinstance(decide(build(), facts(resource=posing)), Forbidden)


@pytest.mark.parametrize("id_", ['x"', 'Order::"1"', "a\nb", "\0", "é", "", 'y"::Agent::"agent/shop/refunds'])
def test_ids_are_never_read_as_cedar(id_: str) -> None:
    policy = build('@id("one") forbid (principal, action, resource == Order::"1");')
    assert isinstance(decide(policy, facts(resource=replace(ORDER, id=id_))), Permitted)
    assert isinstance(decide(policy, facts(resource=replace(ORDER, id="1"))), Forbidden)


def test_text_that_is_no_unicode_denies() -> None:
    assert isinstance(decide(build(), facts(resource=replace(ORDER, id="\ud800"))), Undecided)
    policy = build(
        '@id("a") forbid (principal, action == Action::"payments.refund", resource) when { context.args.account == "x" };'
    )
    decided = policy.decide(facts(args={**REFUND, "account": "\ud800"}))
    assert isinstance(decided.decision, Undecided)
    assert decided.read == b""


def test_only_what_policies_read_of_a_call_is_handed_over_and_recorded() -> None:
    policy = build()
    decided = policy.decide(facts())
    assert decided.read == (
        b'{"args":{"amount":{"amount":{"__extn":{"arg":"20.0000","fn":"decimal"}},"currency":"EUR"}},'
        b'"facts":{"fraud_checked":true},"from":{"account":["tool","tool:orders.read"]}}'
    )
    assert policy.reads("risk.check") == {}


def test_an_inexact_number_stops_a_call_only_where_it_is_read() -> None:
    asked = facts(args={**REFUND, "share": 0.123456})
    assert isinstance(decide(build(), asked), Permitted)
    reading = '@id("s") forbid (principal, action == Action::"payments.refund", resource) when { context.args has share && context.args.share.greaterThan(decimal("0.5")) };'
    with pytest.raises(ValueRefused, match=r"`share` must be a number of at most four decimals"):
        decide(build(reading), asked)


def test_a_recorded_call_is_decided_again_from_its_record() -> None:
    policy = build()
    for asked in (facts(), paying("84.00"), facts(session={}), facts(resource=replace(ORDER, tenant="x"))):
        decided = policy.decide(asked)
        again = policy.decide_recorded(asked.tool, asked.principal, asked.resource, decided.read)
        assert again == decided.decision


def test_an_erased_record_is_undecided() -> None:
    assert isinstance(build().decide_recorded("payments.refund", "agent/shop/refunds", ORDER, b""), Undecided)


def test_another_policy_says_what_it_would_have_to_know() -> None:
    old = build()
    new = build(
        POLICY
        + '@id("night") forbid (principal, action, resource) when { context.time.hour < 6 && context.args has account };'
    )
    wanted, recorded = new.reads("payments.refund"), old.reads("payments.refund")
    assert unrecorded(wanted, recorded) == ("args.account", "time.hour")
    assert unrecorded(recorded, wanted) == ()


def test_a_model_is_granted_as_a_tool_and_only_if_the_contract_binds_it() -> None:
    triage = ToolSpec(
        name="model:triage",
        description="…",
        input_schema={"type": "object", "properties": {}, "additionalProperties": False},
        output_schema={},
        effects=frozenset({Effect.EGRESS}),
    )
    tools = {**TOOLS, triage.name: triage}
    asked = facts("model:triage", resource=Resource(kind="Tool", id="model:triage", tenant="shop", region="eu"))
    assert isinstance(decide(PolicyDecisionPoint.build(CONTRACT, tools, POLICY), asked), Forbidden)
    bound = changed(CONTRACT, models={"triage": ModelBinding(use="small")})
    decision = decide(PolicyDecisionPoint.build(bound, tools, POLICY), asked)
    assert decision == Permitted(rules=("grant:model:triage",))


def test_the_digest_changes_with_contract_policy_and_schemas_and_with_nothing_else() -> None:
    digest = build().digest
    assert digest == build().digest
    wider = dict(TOOLS)
    wider["risk.check"] = dataclasses.replace(TOOLS["risk.check"], resource_attributes={"open": "Bool"})
    others = [
        build(POLICY + '@id("x") forbid (principal, action, resource);').digest,
        build(POLICY, with_action("risk.check", only=Only(region=["eu"]))).digest,
        PolicyDecisionPoint.build(CONTRACT, wider, POLICY).digest,
    ]
    assert digest not in others
    assert len(set(others)) == 3


def test_a_policy_with_mistakes_is_never_decided_by() -> None:
    wrong = '@id("a") forbid (principal, action == Action::"payments.refund", resource) when { context.facts.checked };'
    with pytest.raises(ConfigError, match=r"policy.cedar:1: `context.facts.checked` does not exist"):
        build(wrong)


def test_rules_about_one_tool_are_not_asked_about_another() -> None:
    policy = build()
    assert policy.rules("orders.update") == ("grant:orders.update",)
    assert set(policy.rules("payments.refund")) == {
        "grant:payments.refund",
        "autonomy:payments.refund",
        "refund-after-fraud-check",
        "payee-not-from-the-mail",
    }
    assert policy.rules("x.y") == ()


def test_what_policies_may_read_beside_the_arguments() -> None:
    rules = {
        "hour": "context.time.hour == 12 && context.time.weekday == 1 && context.time.epoch_ms == 1767614400000",
        "budget": "context.budget_left.calls == 3 && context.budget_left.spend_microusd == 0",
        "person": 'context has on_behalf_of && context.on_behalf_of == "person/anna"',
        "run": 'context.run_calls == 2 && context.attempt == 1 && context.autonomy == "approve"',
        "classes": 'context.classes.containsAny(["iban"]) && context.region == "eu" && context.tenant == "shop"',
        "agent": 'principal.contract == "refunds" && principal.tenant == "shop" && principal has region',
    }
    rules["classes"] = "context has region && " + rules["classes"]
    asked = facts(on_behalf_of="person/anna", classes=("iban",))
    for name, condition in rules.items():
        policy = build(f'@id("{name}") forbid (principal, action, resource) when {{ {condition} }};')
        decision = decide(policy, asked)
        assert isinstance(decision, Forbidden), name
        assert decision.rules == (name,)

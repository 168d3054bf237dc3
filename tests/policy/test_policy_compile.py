from __future__ import annotations

from typing import Any

import pytest
from cedarpy import pst
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.contracts.model import (
    Action,
    Approval,
    Autonomy,
    Budget,
    Contract,
    Escalation,
    Only,
    Owner,
    Slo,
    Style,
    Success,
)
from remit.errors import ConfigError
from remit.policy.annotations import read_rules
from remit.policy.compile import check, compile_contract
from remit.tools.decorator import json_schema_for
from remit.tools.spec import Effect, Money, ToolSpec

LEAD = Approval(by="role:lead", within="4h")


def spec_of(name: str, **changes: Any) -> ToolSpec:
    usual: dict[str, Any] = {
        "name": name,
        "description": "…",
        "input_schema": {"type": "object", "properties": {}, "additionalProperties": False},
        "output_schema": {},
        "effects": frozenset({Effect.WRITE}),
    }
    return ToolSpec(**{**usual, **changes})


def with_money(*required: str, path: str = "pay.amount") -> ToolSpec:
    pay = {
        "type": "object",
        "properties": {"amount": json_schema_for(Money), "why": {"type": "string"}},
        "required": [each for each in required if each == "amount"],
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": {"pay": pay, "free": {"type": "string"}},
        "required": [each for each in required if each == "pay"],
        "additionalProperties": False,
    }
    return spec_of("erp.pay", input_schema=schema, money=path)


TOOLS = {
    "notes.read": spec_of("notes.read"),
    "erp.pay": with_money("pay", "amount"),
    "desk.update": spec_of(
        "desk.update",
        written="changes",
        resource_kind="Issue",
        resource_attributes={"vip": "Bool", "level": "Long", "team": "String"},
    ),
}


def contract(*actions: Action, tenant: str | None = "shop", name: str = "desk") -> Contract:
    return Contract(
        contract=name,
        owner=Owner(team="desk", contact="desk@shop.example"),
        purpose="…",
        style=Style.WORKFLOW,
        tenant=tenant,
        input="in.json",
        output="out.json",
        actions=list(actions),
        budget=Budget(calls=1),
        escalate=Escalation(to="queue:desk", sla="1h"),
        success=Success(metric="done"),
        slo=Slo(),
    )


def compiled(action: Action, tools: dict[str, ToolSpec] = TOOLS) -> str:
    made = check(contract(action), tools, "")
    assert made.problems == ()
    assert made.compiled is not None
    return made.compiled.text


def test_a_grant_reads_like_the_contracts_line() -> None:
    only = Only(region=["eu", "us"], fields=["note", "status"], attributes={"vip": False, "level": 2, "team": "it"})
    assert compiled(Action(tool="desk.update", only=only)) == (
        "// contract desk, action desk.update: granted only where the object's tenant is `shop` "
        "and the object's region is one of eu, us and the object's vip is `false` and the object's level is `2` "
        "and the object's team is `it` and the fields written are among note, status\n"
        '@id("grant:desk.update")\n'
        "permit (\n"
        '  principal == Agent::"agent/shop/desk",\n'
        '  action == Action::"desk.update",\n'
        "  resource is Issue\n"
        ")\n"
        "when {\n"
        '  resource.tenant == "shop" &&\n'
        '  resource has region && ["eu", "us"].contains(resource.region) &&\n'
        "  resource has vip && resource.vip == false &&\n"
        "  resource has level && resource.level == 2 &&\n"
        '  resource has team && resource.team == "it" &&\n'
        '  ["note", "status"].containsAll(context.fields)\n'
        "};\n"
    )


def test_what_is_only_observed_has_a_hard_forbid() -> None:
    text = compiled(Action(tool="notes.read", autonomy=Autonomy.OBSERVE))
    assert text.endswith(
        "\n// contract desk, action notes.read: autonomy observe\n"
        '@id("autonomy:notes.read")\n'
        '@reason("the action is only observed: decided and recorded, never carried out")\n'
        'forbid (principal, action == Action::"notes.read", resource);\n'
    )


def test_a_threshold_lets_pass_what_is_known_to_be_below_it_and_nothing_else() -> None:
    approval = Approval(by="role:lead", within="30m", above="50.00 EUR")
    text = compiled(Action(tool="erp.pay", autonomy=Autonomy.APPROVE, approval=approval))
    assert text.endswith(
        "\n// contract desk, action erp.pay: autonomy approve, approval by lead within 30m, above 50.00 EUR\n"
        '@id("autonomy:erp.pay")\n'
        '@hold("role:lead")\n'
        '@within("30m")\n'
        '@reason("all but amounts up to 50.00 EUR need approval by lead")\n'
        'forbid (principal, action == Action::"erp.pay", resource)\n'
        "unless {\n"
        '  context.args.pay.amount.currency == "EUR" &&\n'
        '  context.args.pay.amount.amount.greaterThanOrEqual(decimal("0.0000")) &&\n'
        '  context.args.pay.amount.amount.lessThanOrEqual(decimal("50.0000"))\n'
        "};\n"
    )


def test_money_that_may_be_absent_is_asked_for_first() -> None:
    approval = Approval(by="role:lead", within="4h", above="50.00 EUR")
    action = Action(tool="erp.pay", autonomy=Autonomy.APPROVE, approval=approval)
    text = compiled(action, {"erp.pay": with_money()})
    assert "unless {\n  context.args has pay &&\n  context.args.pay has amount &&\n  context.args.pay.amount" in text


@pytest.mark.parametrize("autonomy", [Autonomy.SUGGEST, Autonomy.APPROVE, Autonomy.AUTO])
def test_an_approval_without_a_threshold_is_asked_for_each_time(autonomy: Autonomy) -> None:
    text = compiled(Action(tool="notes.read", autonomy=autonomy, approval=LEAD))
    assert '@hold("role:lead")' in text
    assert text.endswith('forbid (principal, action == Action::"notes.read", resource);\n')


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (Action(tool="notes.red"), "tool `notes.red` is not known; did you mean `notes.read`?"),
        (Action(tool="notes.read", only=Only(tenant="other")), "tenant `other` is not the contract's own, `shop`"),
        (Action(tool="notes.read", only=Only(fields=["x"])), "`only.fields` goes with tools that write fields"),
        (Action(tool="desk.update"), "`only.fields` goes with tools that write fields"),
        (
            Action(tool="desk.update", only=Only(fields=["x"], attributes={"vips": True})),
            "asks `vips` to be `True`, which can't be; did you mean `vip`?",
        ),
        (
            Action(tool="desk.update", only=Only(fields=["x"], attributes={"level": True})),
            "asks `level` to be `True`, which can't be",
        ),
        (Action(tool="notes.read", autonomy=Autonomy.SUGGEST), "autonomy `suggest` needs `approval`"),
        (Action(tool="notes.read", autonomy=Autonomy.APPROVE), "autonomy `approve` needs `approval`"),
        (
            Action(tool="notes.read", approval=Approval(by="role:lead", within="1h", above="1 EUR")),
            "`approval.above` goes with tools that move money",
        ),
        (Action(tool="notes.read", approval=Approval(by="role:lead", within="0m")), "leaves no time to answer"),
        (Action(tool="notes.read", approval=Approval(by="role:lead", within="soon")), "`soon` is not a duration"),
        (
            Action(tool="erp.pay", approval=Approval(by="role:lead", within="1h", above="much")),
            "`much` is not an amount",
        ),
    ],
)
def test_terms_that_can_not_be_kept_are_an_error(action: Action, message: str) -> None:
    with pytest.raises(ConfigError) as found:
        compile_contract(contract(action), TOOLS)
    assert message in found.value.message
    assert action.tool in found.value.message


def test_every_problem_is_reported_at_once() -> None:
    actions = [
        Action(tool="notes.red"),
        Action(tool="notes.read"),
        Action(tool="notes.read"),
        Action(tool="desk.update"),
        Action(tool="erp.pay", autonomy=Autonomy.SUGGEST),
    ]
    with pytest.raises(ConfigError) as found:
        compile_contract(contract(*actions), TOOLS)
    assert [line.partition(";")[0] for line in found.value.message.splitlines()] == [
        "tool `notes.red` is not known",
        "tool `notes.read` is granted twice",
        "action `desk.update`: `only.fields` goes with tools that write fields, and these can't do without it",
        "action `erp.pay`: autonomy `suggest` needs `approval`",
    ]


def test_a_threshold_needs_an_amount_with_its_currency() -> None:
    approval = Approval(by="role:lead", within="1h", above="1 EUR")
    for path in ("free", "pay", "pay.nothing", "pay.amount.amount"):
        with pytest.raises(ConfigError, match="is not an amount with its currency"):
            compile_contract(
                contract(Action(tool="erp.pay", approval=approval)), {"erp.pay": with_money("pay", path=path)}
            )


def test_a_contract_without_a_tenant_grants_nothing() -> None:
    with pytest.raises(ConfigError, match="has no tenant"):
        compile_contract(contract(Action(tool="notes.read"), tenant=None), TOOLS)


def test_a_role_that_is_none_is_an_error_and_not_a_missing_rule() -> None:
    made = check(contract(Action(tool="notes.read", approval=Approval(by="anybody", within="1h"))), TOOLS, "")
    assert [(each.line, each.message) for each in made.problems] == [
        (0, '`@hold` names `anybody`; write a role, as in `@hold("role:it-lead")`')
    ]


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(deadline=None)
@given(ANY_TEXT, ANY_TEXT, st.lists(ANY_TEXT, min_size=1, max_size=3))
def test_no_text_of_a_contract_can_leave_its_place_in_the_policy(tenant: str, team: str, texts: list[str]) -> None:
    only = Only(region=texts, fields=texts, attributes={"team": team})
    asked = contract(Action(tool="desk.update", only=only), tenant=f"t{tenant}", name=f"n{team}")
    rules, problems = read_rules(compile_contract(asked, TOOLS).text)
    assert problems == ()
    (rule,) = rules
    assert rule.id == "grant:desk.update"
    literals = _literals(rule.template.clauses[0].expr)
    assert f"t{tenant}" in literals
    assert {team, *texts} <= set(literals)


def _literals(node: Any) -> list[str]:
    match node:
        case pst.StringLit(value):
            return [value]
        case pst.Set(elements):
            return [text for element in elements for text in _literals(element)]
        case pst.BinaryOp(_, left, right):
            return [*_literals(left), *_literals(right)]
        case _:
            return []

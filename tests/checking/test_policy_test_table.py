from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from remit.checking.policy_tests import PolicyTestResult, run_policy_tests
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
from remit.contracts.problems import ProjectInvalid
from remit.policy.decision import PolicyDecisionPoint
from remit.tools.decorator import tool
from remit.tools.spec import Effect, Money, Resource, ToolContext


async def find_order(ctx: ToolContext, args: Mapping[str, Any]) -> Resource:
    return Resource(kind="Order", id=str(args["order"]), tenant="shop", region="eu", attributes={"vip": False})


@tool("risk.check", effects={Effect.READ})
def check_risk(order: int, share: float | None = None) -> bool:
    """Check an order for fraud."""
    return bool(order and share)


@tool(
    "payments.refund",
    effects={Effect.WRITE, Effect.MONEY},
    resource_kind="Order",
    resource_attributes={"vip": "Bool"},
    locate=find_order,
    money="amount",
)
def pay_refund(order: int, amount: Money, account: str) -> bool:
    """Pay money back."""
    return bool(order and amount and account)


TOOLS = {each.spec.name: each.spec for each in (check_risk, pay_refund)}
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
    ],
    facts={
        "fraud_checked": Fact(seen="risk.check"),
        "paid": Fact(sum="payments.refund", of="args.amount"),
    },
    budget=Budget(calls=12),
    escalate=Escalation(to="queue:care", sla="30m"),
    success=Success(metric="refund_correct"),
    slo=Slo(),
)
POLICY = """
@id("after-check") @reason("a refund needs a fraud check")
forbid (principal, action == Action::"payments.refund", resource) unless { context.facts.fraud_checked };
@id("not-at-night") @reason("nothing is paid at night")
forbid (principal, action == Action::"payments.refund", resource) when { context.time.hour < 6 };
@id("payee") @hold("role:finance") @reason("the account is a stranger's")
forbid (principal, action == Action::"payments.refund", resource) when { context.from.account.contains("untrusted") };
@id("enough") @reason("enough was paid")
forbid (principal, action == Action::"payments.refund", resource)
when { context.facts.paid.greaterThan(decimal("100.0")) };
@id("no-cards") @reason("a card number is no account")
forbid (principal, action == Action::"payments.refund", resource) when { context.classes.contains("card") };
@id("unsure") @reason("the share is odd")
forbid (principal, action == Action::"risk.check", resource)
when { context.args has share && context.args.share.greaterThan(decimal("0.5")) && 9223372036854775807 + context.attempt > 0 };
"""
REFUND = 'tool: payments.refund\n  args: {order: 1182, amount: {amount: "20.00", currency: EUR}, account: DE02}\n'


def run(text: str, folder: Path) -> list[PolicyTestResult]:
    path = folder / "policy_tests.yaml"
    path.write_text(text, encoding="utf-8")
    return run_policy_tests(path, PolicyDecisionPoint.build(CONTRACT, TOOLS, POLICY), TOOLS)


def one(case: str, folder: Path) -> PolicyTestResult:
    (result,) = run(f"- name: a case\n  {case}", folder)
    return result


@pytest.mark.parametrize(
    "rest",
    [
        "  facts: {fraud_checked: true}\n  expect: allow\n  rule: grant:payments.refund\n",
        "  expect: deny\n  rule: after-check\n",
        "  facts: {fraud_checked: true}\n  at: 2026-01-05T05:59:59Z\n  expect: deny\n  rule: not-at-night\n",
        "  facts: {fraud_checked: true}\n  at: 2026-01-05T07:30:00+02:00\n  expect: deny\n  rule: not-at-night\n",
        "  facts: {fraud_checked: true}\n  at: 2026-01-05T06:00:00\n  expect: allow\n",
        "  facts: {fraud_checked: true, paid: '100.0001'}\n  expect: deny\n  rule: enough\n",
        "  facts: {fraud_checked: true, paid: 100}\n  expect: allow\n",
        "  facts: {fraud_checked: true}\n  labels: {account: untrusted:mail.read}\n  expect: hold\n  rule: payee\n",
        "  facts: {fraud_checked: true}\n  labels: {account: [user, 'untrusted:x']}\n  expect: hold\n",
        "  facts: {fraud_checked: true}\n  resource: {region: us}\n  expect: deny\n",
        "  facts: {fraud_checked: true}\n  resource: {tenant: other}\n  expect: deny\n",
        "  facts: {fraud_checked: true}\n  resource: {id: '7', attributes: {vip: true}}\n  expect: allow\n",
        "  facts: {fraud_checked: true}\n  on_behalf_of: person/anna\n  expect: allow\n",
    ],
)
def test_a_case_that_comes_out_as_expected_passes(rest: str, tmp_path: Path) -> None:
    result = one(REFUND + rest, tmp_path)
    assert result.message == ""
    assert result.passed


def test_data_classes_are_found_in_the_arguments_as_in_a_real_call(tmp_path: Path) -> None:
    case = (
        REFUND.replace("DE02", "4111 1111 1111 1111")
        + "  facts: {fraud_checked: true}\n  expect: deny\n  rule: no-cards\n"
    )
    assert one(case, tmp_path).passed


def test_a_number_with_decimals_reaches_a_tool_that_takes_numbers(tmp_path: Path) -> None:
    case = "tool: risk.check\n  args: {order: 1, share: 0.5}\n  expect: allow\n"
    assert one(case, tmp_path).passed


def test_a_policy_that_fails_is_undecided_and_passes_only_if_that_is_expected(tmp_path: Path) -> None:
    case = "tool: risk.check\n  args: {order: 1, share: 0.75}\n  expect: "
    assert one(case + "undecided\n", tmp_path).passed
    result = one(case + "deny\n", tmp_path)
    assert not result.passed
    assert result.message.startswith("expected deny, decided undecided: error while evaluating policy `unsure`")


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            REFUND + "  expect: allow\n",
            "expected allow, decided deny by `after-check`: a refund needs a fraud check",
        ),
        (
            REFUND + "  facts: {fraud_checked: true}\n  expect: deny\n",
            "expected deny, decided allow by `grant:payments.refund`",
        ),
        (
            REFUND + "  facts: {fraud_checked: true}\n  resource: {region: us}\n  expect: allow\n",
            (
                "expected allow, decided deny: contract `refunds` grants `payments.refund` only where the object's region "
                "is one of eu (here: `us`)"
            ),
        ),
        (
            REFUND + "  expect: deny\n  rule: not-at-night\n",
            "expected deny by `not-at-night`, decided deny by `after-check`: a refund needs a fraud check",
        ),
        (
            REFUND + "  expect: deny\n  rule: after-chek\n",
            (
                "expected deny by `after-chek`, decided deny by `after-check`: a refund needs a fraud check; "
                "did you mean `after-check`? rules about this tool: after-check, autonomy:payments.refund, enough, "
                "grant:payments.refund, no-cards, not-at-night, payee"
            ),
        ),
        (
            "tool: payments.refnd\n  expect: allow\n",
            "tool `payments.refnd` is not known; did you mean `payments.refund`? tools: payments.refund, risk.check",
        ),
        (
            "tool: risk.check\n  args: {order: one}\n  expect: allow\n",
            'no such call gets as far as policy: `order`: "one" is not of type "integer"',
        ),
        (
            "tool: risk.check\n  args: {order: 1, share: 0.33333}\n  expect: allow\n",
            (
                "no such call gets as far as a decision: `share` must be a number of at most four decimals for policy to "
                "judge it"
            ),
        ),
        (
            REFUND + "  facts: {fraud_check: true}\n  expect: allow\n",
            "fact `fraud_check` is not declared; did you mean `fraud_checked`? declared facts: fraud_checked, paid",
        ),
    ],
)
def test_a_case_that_comes_out_otherwise_says_how_and_why(case: str, message: str, tmp_path: Path) -> None:
    result = one(case, tmp_path)
    assert not result.passed
    assert result.message == message


def test_results_come_in_order_with_their_lines_and_have_a_json_form(tmp_path: Path) -> None:
    text = "\n".join(f"- name: case {n}\n  tool: risk.check\n  args: {{order: {n}}}\n  expect: allow\n" for n in (1, 2))
    results = run(text, tmp_path)
    assert [(each.name, each.line) for each in results] == [("case 1", 1), ("case 2", 6)]
    assert msgspec.to_builtins(results[0]) == {
        "name": "case 1",
        "line": 1,
        "passed": True,
        "decided": "allow",
        "rules": ("grant:risk.check",),
        "message": "",
    }


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("name: x\n", 1, "the file is not a list of cases"),
        ("", 1, "the file is empty"),
        ("- name: x\n  tool: a.b\n  expect: allowed\n", 3, None),
        ("- name: x\n  tool: a.b\n  expect: allow\n\n- name: y\n  tool: a.b\n  expects: deny\n", 7, None),
        ("- name: x\n  tool: a.b\n  expect: allow\n  at: noon\n", 4, "`noon` is not a time"),
        ("- name: x\n  tool: a.b\n  expect: allow\n  args: &a {}\n", 4, "anchor `&a` is not used here"),
        ("- name: x\n  tool: [\n", 3, None),
        ("- 3\n", 1, None),
    ],
)
def test_a_file_that_is_wrong_is_explained_at_its_line(
    text: str, line: int, message: str | None, tmp_path: Path
) -> None:
    with pytest.raises(ProjectInvalid) as found:
        run(text, tmp_path)
    assert {each.file for each in found.value.problems} == {"policy_tests.yaml"}
    assert line in {each.line for each in found.value.problems}
    assert message is None or message in {each.message for each in found.value.problems}


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    policy = PolicyDecisionPoint.build(CONTRACT, TOOLS, POLICY)
    with pytest.raises(ProjectInvalid, match="the file does not exist"):
        run_policy_tests(tmp_path / "policy_tests.yaml", policy, TOOLS)

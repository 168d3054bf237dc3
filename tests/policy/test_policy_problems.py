"""What `remit check` says of a policy file: every problem, at its line, with what to do about it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.contracts.model import (
    Action,
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
from remit.policy.annotations import PolicyProblem, read_rules, statements
from remit.policy.decision import problems
from remit.policy.facts import WHOLE
from remit.tools.decorator import json_schema_for
from remit.tools.spec import Effect, Money, ToolSpec


def spec_of(name: str, properties: dict[str, Any], *required: str, **more: Any) -> ToolSpec:
    schema = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    effects = frozenset({Effect.WRITE})
    return ToolSpec(name=name, description="…", input_schema=schema, output_schema={}, effects=effects, **more)


TEXT = {"type": "string"}
TOOLS = {
    spec.name: spec
    for spec in (
        spec_of("risk.check", {"order": TEXT}, "order"),
        spec_of(
            "payments.refund",
            {"order": TEXT, "amount": json_schema_for(Money), "note": TEXT, "a b": TEXT, "any": {}},
            "order",
            "amount",
            resource_kind="Order",
            resource_attributes={"vip": "Bool"},
        ),
    )
}
CONTRACT = Contract(
    contract="refunds",
    owner=Owner(team="care", contact="care@shop.example"),
    purpose="Pay refunds.",
    style=Style.WORKFLOW,
    tenant="shop",
    input="in.json",
    output="out.json",
    actions=[Action(tool="risk.check"), Action(tool="payments.refund")],
    facts={"fraud_checked": Fact(seen="risk.check"), "checks": Fact(count="risk.check")},
    budget=Budget(calls=1),
    escalate=Escalation(to="queue:care", sla="1h"),
    success=Success(metric="done"),
    slo=Slo(),
)
REFUND = 'forbid (principal, action == Action::"payments.refund", resource)'
EVERY = "forbid (principal, action, resource)"


def found(text: str) -> list[tuple[int, str, str]]:
    return [(each.line, each.message, each.suggestion) for each in problems(CONTRACT, TOOLS, text)]


def test_a_policy_without_mistakes_has_no_problems() -> None:
    assert found("") == []
    assert found("// nothing yet\n") == []
    assert found(f'@id("a") @reason("b")\n{REFUND} unless {{ context.facts.fraud_checked }};') == []


@pytest.mark.parametrize(
    ("head", "condition", "line", "message", "suggestion"),
    [
        (
            REFUND,
            "context.facts.fraud_check",
            3,
            "`context.facts.fraud_check` does not exist for `payments.refund`",
            "did you mean `fraud_checked`? declared facts: checks, fraud_checked",
        ),
        (
            REFUND,
            "context.facts has\n  fraud_check",
            4,
            "`context.facts.fraud_check` does not exist for `payments.refund`",
            "did you mean `fraud_checked`? declared facts: checks, fraud_checked",
        ),
        (
            EVERY,
            "true\n\n && context.args.ordr == 3",
            5,
            "`context.args.ordr` does not exist for `risk.check` or `payments.refund`",
            "did you mean `order`? arguments: order",
        ),
        (
            REFUND,
            "context.arg has x",
            3,
            "`context.arg` does not exist for `payments.refund`",
            (
                "did you mean `args`? there are: args, attempt, autonomy, budget_left, classes, facts, fields, from, "
                "on_behalf_of, region, run_calls, tenant, time"
            ),
        ),
        (
            REFUND,
            "context.from.acount.contains(3)",
            3,
            "`context.from.acount` does not exist for `payments.refund`",
            "did you mean `amount`? there are: a b, amount, amount.amount, amount.currency, any, note, order",
        ),
        (
            EVERY,
            'context.args.amount.currency == "x"',
            3,
            "`context.args.amount` does not exist for `risk.check`",
            'name the actions that have it, as in `action in [Action::"payments.refund"]`',
        ),
        (
            EVERY,
            "resource.vip",
            3,
            "`resource.vip` does not exist for `risk.check`",
            'name the actions that have it, as in `action in [Action::"payments.refund"]`',
        ),
        (
            REFUND,
            "resource.vipp",
            3,
            "`resource.vipp` does not exist for `payments.refund`",
            "did you mean `vip`? there are: region, tenant, vip",
        ),
        (
            REFUND,
            "principal.tenand == 3",
            3,
            "`principal.tenand` does not exist for `payments.refund`",
            "did you mean `tenant`? there are: contract, region, tenant",
        ),
        (
            REFUND,
            'context.args.note == "x"',
            3,
            "`context.args.note` may be absent, and reading it then is an error",
            "ask first: `context.args has note && …`",
        ),
        (
            REFUND,
            '\n context.args["a b"] == "x"',
            4,
            '`context.args["a b"]` may be absent, and reading it then is an error',
            'ask first: `context.args has "a b" && …`',
        ),
        (
            REFUND,
            'resource.region == "eu"',
            3,
            "`resource.region` may be absent, and reading it then is an error",
            "ask first: `resource has region && …`",
        ),
        (
            REFUND,
            "context.args has any",
            3,
            "`context.args.any` is of a type that Cedar lacks, so no policy can read it",
            "",
        ),
        (
            REFUND.replace("refund", "refnd"),
            "true",
            2,
            "action `payments.refnd` is not granted by the contract",
            "did you mean `payments.refund`? granted: payments.refund, risk.check",
        ),
        (
            REFUND.replace("resource", "resource is Ordr"),
            "true",
            2,
            "entity type `Ordr` is not known",
            "did you mean `Order`? there are: Agent, Order, Person, Tool",
        ),
        (
            REFUND.replace("resource", "resource is Tool"),
            "true",
            1,
            "rule `r` never applies: no granted action has such a principal or object",
            "",
        ),
        (
            REFUND,
            "context.args.amount.amount > 50",
            1,
            "rule `r`: unexpected type: expected Long but saw decimal",
            'decimals are exact and compared as in `….lessThan(decimal("50.00"))`',
        ),
        (REFUND, "context.args.order == 3", 1, "rule `r`: the types Long and String are not compatible", ""),
    ],
)
def test_a_rule_that_does_not_fit_the_contract_is_explained_at_its_line(
    head: str, condition: str, line: int, message: str, suggestion: str
) -> None:
    text = f'@id("r")\n{head} when {{\n {condition} }};'
    assert found(text) == [(line, message, suggestion)]


def test_a_rule_may_ask_with_has_for_what_only_some_of_its_actions_have() -> None:
    assert found(f'@id("r") {EVERY} when {{ context.args has note && context.args.note == "x" }};') == []


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (f'@id("r")\n{EVERY} when {{\n context.a + \n}};', 4, "not valid Cedar: unexpected token `}`"),
        (f'@id("r")\n{EVERY}\nwhen {{ context.a == "x }};', 3, "not valid Cedar: invalid token"),
        (f'@id("r")\n{EVERY}\nwhen {{ context.a and true }};', 3, "not valid Cedar: unexpected token `and`"),
        (f'@id("r")\n{EVERY}\nwhen {{\n foo(3) }};', 4, "not valid Cedar: `foo` is not a valid function"),
        ('@id("r")\nforbid (user, action, resource);', 2, None),
        (f'@id("r")\n@id("s")\n{EVERY};', 1, "not valid Cedar: duplicate annotation: @id"),
        (f'@id("r") {EVERY}\n', 1, "the policy that begins on line 1 is not finished"),
        (f'\n@id("r") {EVERY}\nwhen {{ (true }}\n', 3, None),
        (f'@id("r") {EVERY};\n\n{EVERY}\n@id("s") {EVERY};', 4, "not valid Cedar: unexpected token `@`"),
        ("\n\n'", 3, "not valid Cedar: invalid token"),
        (f'@id("r") {EVERY} when {{ context{".a" * 150} }};', 1, None),
    ],
)
def test_text_that_is_no_cedar_is_placed(text: str, line: int, message: str | None) -> None:
    (problem,) = problems(CONTRACT, TOOLS, text)
    assert problem.line == line
    assert message is None or problem.message == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{EVERY};", 'the rule has no `@id("…")`; give it a name that a reader of a decision understands'),
        (f'@id("") {EVERY};', 'the rule has no `@id("…")`; give it a name that a reader of a decision understands'),
        (f'@id("grant:x") {EVERY};', "id `grant:x` begins like one of the contract's own rules; choose another"),
        (f'@id("autonomy:x") {EVERY};', "id `autonomy:x` begins like one of the contract's own rules; choose another"),
        ('@id("r") permit (principal, action, resource);', "rule `r` is a `permit`; only the contract grants"),
        (
            f'@id("r") @holds("role:x") {EVERY};',
            "`@holds` means nothing here; did you mean `hold`? annotations: hold, id, reason, within",
        ),
        (f'@id("r") @hold("lead") {EVERY};', '`@hold` names `lead`; write a role, as in `@hold("role:it-lead")`'),
        (f'@id("r") @hold {EVERY};', '`@hold` names ``; write a role, as in `@hold("role:it-lead")`'),
        (
            f'@id("r") @hold("role:x") @within("4 h") {EVERY};',
            '`@within` says `4 h`; write a duration, as in `@within("4h")`',
        ),
        (
            f'@id("r") @hold("role:x") @within("0h") {EVERY};',
            '`@within` leaves no time to answer; write a duration, as in `@within("4h")`',
        ),
        (f'@id("r") @within("4h") {EVERY};', "`@within` says how long a question stands; it goes with `@hold`"),
        (
            '@id("r") forbid (principal == ?principal, action, resource);',
            "a policy with `?principal` or `?resource` is never filled in; name the entity",
        ),
    ],
)
def test_what_a_rule_may_not_say_is_explained(text: str, message: str) -> None:
    assert [each.message for each in problems(CONTRACT, TOOLS, f"\n{text}")] == [message]
    assert [each.line for each in problems(CONTRACT, TOOLS, f"\n{text}")] == [2]


def test_a_hold_on_a_permit_is_no_question() -> None:
    (problem,) = problems(CONTRACT, TOOLS, '@id("r") @hold("role:x") permit (principal, action, resource);')
    assert problem.message == "`@hold` turns a `forbid` into a question; it can't stand on a `permit`"


def test_an_id_is_used_once() -> None:
    text = f'@id("r") {EVERY};\n@id("s") {EVERY};\n@id("r") {EVERY};@id("r") {EVERY};'
    assert [(each.line, each.message) for each in problems(CONTRACT, TOOLS, text)] == [
        (3, "id `r` is used on line 1 already; every rule has its own")
    ]


def test_an_id_is_used_once_on_one_line_too() -> None:
    assert [each.message for each in problems(CONTRACT, TOOLS, f'@id("r") {EVERY};@id("r") {REFUND};')] == [
        "id `r` is used on line 1 already; every rule has its own"
    ]


def test_every_problem_of_a_file_is_found_at_once_in_order() -> None:
    text = f"""// three mistakes
@id("a") {EVERY} when {{ context.facts.cheks > 1 }};
@id("b") {EVERY} when {{ + }};
{EVERY};
@id("d") {REFUND} when {{ resource.vipp || context.args.note == "x" }};
"""
    assert [each.line for each in problems(CONTRACT, TOOLS, text)] == [2, 3, 4, 5, 5]


def test_a_contract_that_does_not_compile_is_a_problem_of_no_line() -> None:
    import msgspec

    wrong = msgspec.structs.replace(CONTRACT, actions=[Action(tool="risk.check", only=Only(tenant="other"))])
    (problem,) = problems(wrong, TOOLS, "")
    assert problem == PolicyProblem(
        line=0, message="action `risk.check`: tenant `other` is not the contract's own, `shop`"
    )


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *'(),;{}[]."@',
                "\n",
                "\x00",
                "�",
                "é",
                "//x\n",
                "&&",
                "==",
                '@id("a")',
                "forbid",
                "when",
                "has",
                "true",
                "principal",
                "action",
                "resource",
                "context",
                "a",
            ]
        ),
        max_size=30,
    )
)
def test_any_text_at_all_gives_problems_and_not_an_exception(words: list[str]) -> None:
    text = " ".join(words)
    for problem in problems(CONTRACT, TOOLS, text):
        assert 1 <= problem.line <= text.count("\n") + 1


@pytest.mark.parametrize(
    ("opening", "closing"),
    [("(", ")"), ("[", "]"), ("{a:", "}"), ("if true then true else ", ""), ("true && ", ""), ("context.a || ", "")],
)
def test_a_policy_that_would_exhaust_the_parser_is_refused_before_it(opening: str, closing: str) -> None:
    text = f'@id("r") {EVERY} when {{ {opening * 20_000}true{closing * 20_000} }};'
    assert found(text) == [(1, "the policy is too long or nested too deeply; split it into several", "")]


def test_a_long_list_is_no_deep_one() -> None:
    names = ", ".join(f'"name-{number}"' for number in range(5_000))
    assert found(f'@id("r") {EVERY} when {{ [{names}].contains(context.tenant) }};') == []


# What rules read


@pytest.mark.parametrize(
    ("condition", "reads"),
    [
        ("true", {}),
        ("context.a", {"a": WHOLE}),
        ("context.a.b && context.a.c.d", {"a": {"b": WHOLE, "c": {"d": WHOLE}}}),
        ("context.a.b && context.a == 3", {"a": WHOLE}),
        ('context["a b"].c', {"a b": {"c": WHOLE}}),
        ("context has a", {"a": WHOLE}),
        ("context has a.b", {"a": WHOLE}),
        ("context.a has b", {"a": {"b": WHOLE}}),
        ("context.a.contains(context.b)", {"a": WHOLE, "b": WHOLE}),
        ("if context.a then principal.b else resource.c", {"a": WHOLE}),
        ("if principal.b then context.a else context.b", {"a": WHOLE, "b": WHOLE}),
        ("(if true then context else context.a).b", WHOLE),
        ('{"x": context}.x.a == 1', WHOLE),
        ('{"context": principal}.context.a == 1', {}),
        ("[context.a, 2].contains(3)", {"a": WHOLE}),
        ('context.a like "x*"', {"a": WHOLE}),
        ("context.a is Agent in context.b", {"a": WHOLE, "b": WHOLE}),
        ("!(-context.a > 1)", {"a": WHOLE}),
        ("context == principal", WHOLE),
        ('"context.a" == "b"', {}),
        ('context.a.lessThan(decimal("1.0")) || ip("::1").isInRange(context.b)', {"a": WHOLE, "b": WHOLE}),
    ],
)
def test_what_a_rule_reads_is_told_from_its_text(condition: str, reads: Any) -> None:
    (rule,), _ = read_rules(f'@id("r") {EVERY} when {{ {condition} }};')
    assert rule.reads("context") == reads


def test_reads_of_all_clauses_and_variables_are_kept_apart() -> None:
    (rule,), _ = read_rules(
        f'@id("r") {EVERY} when {{ context.a && resource.x }} unless {{ context.b && principal.y.z }};'
    )
    assert rule.reads("context") == {"a": WHOLE, "b": WHOLE}
    assert rule.reads("resource") == {"x": WHOLE}
    assert rule.reads("principal") == {"y": {"z": WHOLE}}


@pytest.mark.parametrize(
    ("action", "about"),
    [
        ("action", {"a", "b", "c"}),
        ('action == Action::"a"', {"a"}),
        ('action in Action::"a"', {"a"}),
        ('action in [Action::"a", Action::"b"]', {"a", "b"}),
        ("action in []", set[str]()),
    ],
)
def test_a_rule_is_about_the_actions_of_its_head(action: str, about: set[str]) -> None:
    (rule,), _ = read_rules(f'@id("r") forbid (principal, {action}, resource);')
    assert {tool for tool in ("a", "b", "c") if rule.is_about(tool)} == about


def test_semicolons_and_slashes_in_texts_end_nothing() -> None:
    text = (
        '@id("a;//") forbid (principal, action, resource); // ; "x\n@id("b\\"") forbid (principal, action, resource);'
    )
    assert [statement.line for statement in statements(text)] == [1, 2]
    assert [rule.id for rule in read_rules(text)[0]] == ["a;//", 'b"']

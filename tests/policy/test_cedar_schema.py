from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest

from remit.contracts.model import (
    Action,
    Budget,
    Contract,
    Escalation,
    Fact,
    Owner,
    Slo,
    Style,
    Success,
)
from remit.errors import ConfigError
from remit.policy.cedar_schema import (
    BOOL,
    DECIMAL,
    LONG,
    MONEY,
    STRING,
    Attribute,
    CedarType,
    Record,
    SetOf,
    action_type,
    contract_types,
    fact_types,
    record,
)
from remit.tools.decorator import json_schema_for
from remit.tools.spec import Effect, Money, ToolSpec


def spec_of(schema: dict[str, Any], **changes: Any) -> ToolSpec:
    usual: dict[str, Any] = {
        "name": "a.b",
        "description": "…",
        "input_schema": schema,
        "output_schema": schema,
        "effects": frozenset({Effect.READ}),
    }
    return ToolSpec(**{**usual, **changes})


def closed(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def type_of(schema: Any, **definitions: Any) -> CedarType | None:
    root = {**closed(x=schema), "$defs": definitions}
    found = action_type(spec_of(root), record({})).args.attributes.get("x")
    return found.type if found else None


def contract(tools: list[str], **facts: Fact) -> Contract:
    return Contract(
        contract="desk",
        owner=Owner(team="desk", contact="desk@shop.example"),
        purpose="…",
        style=Style.WORKFLOW,
        tenant="shop",
        input="in.json",
        output="out.json",
        actions=[Action(tool=tool) for tool in tools],
        facts=facts,
        budget=Budget(calls=1),
        escalate=Escalation(to="queue:desk", sla="1h"),
        success=Success(metric="done"),
        slo=Slo(),
    )


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "integer"}, LONG),
        ({"type": "number"}, DECIMAL),
        ({"type": "boolean"}, BOOL),
        ({"type": "string", "format": "date"}, STRING),
        ({"type": "string", "format": "decimal"}, DECIMAL),
        ({"enum": ["a", "b"]}, STRING),
        ({"const": 3}, LONG),
        ({"enum": [1, None]}, LONG),
        ({"type": ["string", "null"]}, STRING),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, LONG),
        ({"oneOf": [{"const": "a"}, {"const": "b"}]}, STRING),
        ({"type": "array", "items": {"type": "integer"}}, SetOf(element=LONG)),
        ({"$ref": "#/$defs/Id"}, STRING),
        ({"anyOf": [{"$ref": "#/$defs/Id"}, {"type": "null"}]}, STRING),
        (closed(), Record(attributes={})),
    ],
)
def test_json_types_have_their_cedar_type(schema: Any, expected: CedarType) -> None:
    assert type_of(schema, Id={"type": "string"}) == expected


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": ["string", "integer"]},
        {"enum": ["a", 1]},
        {"anyOf": [{"type": "string"}, {}]},
        {"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "null"}]},
        {"type": "array"},
        {"type": "array", "items": {"type": ["string", "null"]}},
        {"type": "array", "items": {"type": ["string", "integer"]}},
        {"type": "array", "prefixItems": [{"type": "string"}], "items": False},
        {"$ref": "#/$defs/Tree"},
        {"$ref": "#/$defs/Missing"},
        {"$ref": "https://elsewhere.example/schema"},
        {"type": "null"},
        {"type": "unheard"},
    ],
)
def test_what_cedar_has_no_type_for_is_left_out_and_said(schema: Any) -> None:
    tree = {"type": "array", "items": {"$ref": "#/$defs/Tree"}}
    found = action_type(spec_of({**closed(x=schema, y={"type": "string"}), "$defs": {"Tree": tree}}), record({}))
    assert set(found.args.attributes) == {"y"}
    assert found.left_out == ("x",)


def test_a_part_without_a_type_leaves_the_rest_of_its_object() -> None:
    inner = closed("a", "b", a={"type": "string"}, b={"type": ["string", "integer"]})
    found = action_type(spec_of(closed(x=inner, list={"type": "array", "items": inner})), record({}))
    assert found.left_out == ("x.b", "list.*.b")
    assert found.args.attributes["x"].type == Record(attributes={"a": Attribute(type=STRING)})


def test_an_argument_is_required_only_if_it_is_always_there() -> None:
    schema = closed("a", "b", a={"type": "string"}, b={"type": ["string", "null"]}, c={"type": "string"})
    required = {name: each.required for name, each in action_type(spec_of(schema), record({})).args.attributes.items()}
    assert required == {"a": True, "b": False, "c": False}


def test_money_is_a_decimal_and_a_currency_as_the_tools_declare_it() -> None:
    assert type_of(json_schema_for(Money)) == MONEY
    assert type_of(json_schema_for(Money | None)) == MONEY
    assert type_of(msgspec.json.schema(Money)["$defs"]["Money"]) == MONEY
    amount = closed("amount", "currency", amount={"type": "string"}, currency={"type": "string"})
    assert type_of(amount) == MONEY
    with_tax = {**amount, "properties": {**amount["properties"], "tax": {"type": "string"}}}
    assert type_of(with_tax) != MONEY


class Line(TypedDict):
    """A line of an order."""

    item: str
    price: Money


class Changes(TypedDict, total=False):
    """What may be changed."""

    status: Literal["open", "done"]
    count: Annotated[int, msgspec.Meta(ge=0)]


def test_the_schemas_that_tools_are_given_are_read_whole() -> None:
    schema = closed("lines", lines=json_schema_for(list[Line]), changes=json_schema_for(Changes | None))
    found = action_type(spec_of(schema), record({}))
    assert found.left_out == ()
    assert found.args == Record(
        attributes={
            "lines": Attribute(type=SetOf(element=record({"item": STRING, "price": MONEY}))),
            "changes": Attribute(
                type=record({"status": STRING, "count": LONG}, optional=["status", "count"]), required=False
            ),
        }
    )
    assert set(found.origins) == {"lines", "changes", "changes.status", "changes.count"}


def test_names_of_cedars_own_notation_are_left_out() -> None:
    found = action_type(spec_of(closed(__extn={"type": "string"}, __entity={"type": "string"})), record({}))
    assert found.args.attributes == {}
    assert found.origins == ()


def test_the_generated_schema_is_valid_cedar_whatever_names_it_has() -> None:
    schema = closed(**{name: {"type": "string"} for name in ("if", "a b", 'q"uote', "é", "", "a\nb", "principal")})
    types = contract_types(contract(["a.b"]), [spec_of(schema)], {})
    assert 'action "a.b" appliesTo' in str(types.handle)


def test_a_contract_without_actions_has_a_schema_too() -> None:
    assert str(contract_types(contract([]), [], {}).handle)


def test_objects_of_one_kind_have_the_attributes_of_all_their_tools() -> None:
    plain = closed()
    specs = [
        spec_of(plain, name="a.one", resource_kind="Item", resource_attributes={"vip": "Bool", "size": "Long"}),
        spec_of(plain, name="a.two", resource_kind="Item", resource_attributes={"vip": "Bool"}),
    ]
    types = contract_types(contract([]), specs, {})
    required = {name: each.required for name, each in types.entities["Item"].attributes.items()}
    assert required == {"tenant": True, "region": False, "vip": True, "size": False}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resource_kind": "Agent"}, "which can't be an entity of policy"),
        ({"resource_kind": "a-b"}, "which can't be an entity of policy"),
        ({"resource_kind": "String"}, "which can't be an entity of policy"),
        ({"resource_attributes": {"tenant": "Long"}}, "of another one elsewhere"),
        ({"resource_attributes": {"size": "Float"}}, "of another one elsewhere"),
    ],
)
def test_kinds_and_attributes_that_policy_can_not_have_are_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        contract_types(contract([]), [spec_of(closed(), **changes)], {})


ORDERS = spec_of(
    closed(
        amount=json_schema_for(Money),
        count={"type": "integer"},
        share={"type": "number"},
        note={"type": "string"},
        tags={"type": "array", "items": {"type": "string"}},
    ),
    name="orders.pay",
)


@pytest.mark.parametrize(
    ("fact", "expected", "required"),
    [
        (Fact(seen="orders.pay"), BOOL, True),
        (Fact(count="orders.pay"), LONG, True),
        (Fact(sum="orders.pay", of="args.amount"), DECIMAL, True),
        (Fact(sum="orders.pay", of="args.count"), LONG, True),
        (Fact(sum="orders.pay", of="result.share"), DECIMAL, True),
        (Fact(last="orders.pay", of="args.note"), STRING, False),
        (Fact(last="orders.pay", of="result.amount.currency"), STRING, False),
        (Fact(last="orders.pay", of="result.amount.amount"), DECIMAL, False),
    ],
)
def test_facts_have_the_type_of_what_they_tell(fact: Fact, expected: CedarType, required: bool) -> None:
    types = fact_types({"told": fact}, {"orders.pay": ORDERS})
    assert types.attributes["told"] == Attribute(type=expected, required=required)


@pytest.mark.parametrize(
    ("fact", "message"),
    [
        (Fact(sum="orders.sell", of="args.count"), "tool `orders.sell`, which is not known"),
        (Fact(sum="orders.pay"), "needs `of: args.<path>`"),
        (Fact(sum="orders.pay", of="count"), "needs `of: args.<path>`"),
        (Fact(sum="orders.pay", of="args.note"), "is not a number or money"),
        (Fact(sum="orders.pay", of="args.amount.amount"), "so that currencies stay apart"),
        (Fact(last="orders.pay", of="args.amount"), "is not a text, number or truth value"),
        (Fact(last="orders.pay", of="args.tags"), "is not a text, number or truth value"),
        (Fact(last="orders.pay", of="args.nothing"), "is not a text, number or truth value"),
    ],
)
def test_facts_that_tell_nothing_are_an_error(fact: Fact, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fact_types({"told": fact}, {"orders.pay": ORDERS})

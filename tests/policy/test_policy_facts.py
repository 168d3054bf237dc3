from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import cedarpy
import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.policy.cedar_schema import LONG, CedarType, Record, action_type, as_json, record
from remit.policy.facts import (
    WHOLE,
    ContextShape,
    Facts,
    Reads,
    exact_units,
    joined,
    record_converter,
    unrecorded,
)
from remit.provenance.labels import MODEL
from remit.tools.spec import Effect, Resource, ToolSpec
from remit.values import ValueRefused, encode, parse

MONEY = {
    "type": "object",
    "properties": {"amount": {"type": "string", "format": "decimal"}, "currency": {"type": "string"}},
    "required": ["amount", "currency"],
    "additionalProperties": False,
}


def spec_of(**properties: Any) -> ToolSpec:
    return ToolSpec(
        name="a.b",
        description="…",
        input_schema={"type": "object", "properties": properties, "additionalProperties": False},
        output_schema={},
        effects=frozenset({Effect.READ}),
    )


def facts_of(args: Mapping[str, Any], **changes: Any) -> Facts:
    usual: dict[str, Any] = {
        "principal": "agent/shop/desk",
        "tenant": "shop",
        "region": None,
        "contract": "desk",
        "on_behalf_of": None,
        "tool": "a.b",
        "resource": Resource(kind="Tool", id="a.b", tenant="shop"),
        "args": args,
        "fields": (),
        "labels": {},
        "classes": (),
        "autonomy": "auto",
        "session": {},
        "budget_left": {"calls": 1, "writes": 2, "spend_microusd": 3},
        "attempt": 1,
        "run_calls": 0,
        "at_us": 0,
    }
    return Facts(**{**usual, **changes})


def args_of(args: Mapping[str, Any], **properties: Any) -> Any:
    return ContextShape(action_type(spec_of(**properties), record({}))).of(facts_of(args))["args"]


def decimal(text: str) -> dict[str, Any]:
    return {"__extn": {"fn": "decimal", "arg": text}}


def test_arguments_become_what_their_schema_says() -> None:
    args = {
        "count": 3,
        "share": 0.1,
        "whole": 2,
        "price": {"amount": "84.00", "currency": "EUR"},
        "exact": "-1.5",
        "on": True,
        "tags": ["b", "a"],
        "lines": [{"item": 1}, {}],
    }
    converted_args = args_of(
        args,
        count={"type": "integer"},
        share={"type": "number"},
        whole={"type": "number"},
        price=MONEY,
        exact={"type": "string", "format": "decimal"},
        on={"type": "boolean"},
        tags={"type": "array", "items": {"type": "string"}},
        lines={"type": "array", "items": {"type": "object", "properties": {"item": {"type": "integer"}}}},
    )
    assert converted_args == {
        "count": 3,
        "share": decimal("0.1000"),
        "whole": decimal("2.0000"),
        "price": {"amount": decimal("84.0000"), "currency": "EUR"},
        "exact": decimal("-1.5000"),
        "on": True,
        "tags": ["b", "a"],
        "lines": [{"item": 1}, {}],
    }


def test_what_is_null_or_absent_is_left_out() -> None:
    nullable = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert args_of({"a": None}, a=nullable, b=nullable) == {}
    made = ContextShape(action_type(spec_of(), record({}))).of(facts_of({}))
    assert "region" not in made
    assert "on_behalf_of" not in made


def test_an_argument_without_a_cedar_type_is_left_out() -> None:
    assert args_of({"a": 1, "b": "x"}, a={"type": ["integer", "string"]}, b={"type": "string"}) == {"b": "x"}


def test_an_argument_can_not_pass_for_a_cedar_entity_or_extension() -> None:
    smuggled = {"__entity": {"type": "Agent", "id": "x"}, "__extn": {"fn": "decimal", "arg": "1.0"}, "ok": "y"}
    properties = {
        name: {"type": "object", "properties": {"type": {"type": "string"}}} for name in ("__entity", "__extn")
    }
    assert args_of(smuggled, **properties, ok={"type": "string"}) == {"ok": "y"}


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (1.0, {"type": "integer"}),
        (True, {"type": "integer"}),
        (2**63, {"type": "integer"}),
        (0.00001, {"type": "number"}),
        (1e300, {"type": "number"}),
        (True, {"type": "number"}),
        (1, {"type": "string"}),
        (1, {"type": "boolean"}),
        ("x", {"type": "array", "items": {"type": "string"}}),
        ([1], {"type": "array", "items": {"type": "string"}}),
        ("x", MONEY),
        ({"amount": 5.0, "currency": 1}, MONEY),
    ],
)
def test_a_value_that_is_not_exactly_of_its_type_is_refused_with_its_place(value: Any, schema: Any) -> None:
    with pytest.raises(ValueRefused, match=r"^`value(\[0\]|\.currency)?` must be "):
        args_of({"value": value}, value=schema)


@pytest.mark.parametrize(
    ("value", "units"),
    [
        (0, 0),
        (-3, -30_000),
        (0.1, 1_000),
        (1e3, 10_000_000),
        (0.0001, 1),
        ("84.00", 840_000),
        ("-0.5000000", -5_000),
        (Decimal("1.2345"), 12_345),
    ],
)
def test_numbers_are_counted_in_ten_thousandths(value: Any, units: int) -> None:
    assert exact_units(value) == units


@pytest.mark.parametrize(
    "value",
    [True, None, [], {}, float("nan"), float("inf"), 0.12345, 10**15, "1e5", "1_0", " 1", "+1", "١", "1.", ".5", ""],
)
def test_what_is_no_exact_number_has_no_units(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        exact_units(value)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e13, max_value=1e13))
def test_a_float_is_taken_for_the_number_that_was_written_or_for_none(value: float) -> None:
    try:
        units = exact_units(value)
    except ValueError:
        return
    assert Decimal(units) / 10_000 == Decimal(repr(value))


@pytest.mark.parametrize(
    "at", ["1970-01-01T00:00:00Z", "2026-01-05T12:59:59Z", "2024-02-29T23:00:01Z", "2027-08-01T00:30:00Z"]
)
def test_the_time_is_the_calendars_in_utc(at: str) -> None:
    moment = datetime.fromisoformat(at).astimezone(UTC)
    facts = facts_of({}, at_us=int(moment.timestamp()) * 10**6 + 999)
    assert ContextShape(action_type(spec_of(), record({})), {"time": WHOLE}).of(facts)["time"] == {
        "hour": moment.hour,
        "weekday": moment.isoweekday(),
        "epoch_ms": int(moment.timestamp()) * 1_000,
    }


def origins(labels: Mapping[str, tuple[str, ...]], args: Mapping[str, Any] | None = None) -> Any:
    inner = {"type": "object", "properties": {"deep": {"type": "string"}}}
    spec = spec_of(account={"type": "string"}, lines={"type": "array"}, set=inner, **{"set.x": {"type": "string"}})
    return ContextShape(action_type(spec, record({}))).of(facts_of(args or {}, labels=labels))["from"]


def test_origins_hold_labels_and_their_kinds() -> None:
    found = origins({"account": ("untrusted:tracker.read", "user")})
    assert found["account"] == ["untrusted", "untrusted:tracker.read", "user"]


def test_origins_of_what_lies_inside_an_argument_join_in_it() -> None:
    labels = {"lines[0].to": ("user",), "lines[12]": ("tool:a.b",), "set.deep": ("person",), "accounts": ("contract",)}
    found = origins(labels)
    assert found["lines"] == ["tool", "tool:a.b", "user"]
    assert found["set"] == found["set.deep"] == ["person"]
    assert found["account"] == []


def test_an_argument_that_nobody_labelled_is_the_models_own() -> None:
    found = origins({}, {"account": "DE02", "set": {"deep": "x"}})
    assert found["account"] == found["set"] == found["set.deep"] == [MODEL]
    assert found["lines"] == []


# Reads


NAMES = st.sampled_from(["a", "b", "c"])
LEAST: list[Reads] = [WHOLE, {}]
READS: st.SearchStrategy[Reads] = st.recursive(
    st.sampled_from(LEAST), lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)
TYPES: st.SearchStrategy[CedarType] = st.recursive(
    st.just(LONG), lambda inner: st.dictionaries(NAMES, inner, max_size=3).map(record), max_leaves=8
)


def value_of(type_: CedarType) -> Any:
    return {n: value_of(each.type) for n, each in type_.attributes.items()} if isinstance(type_, Record) else 1


def is_part(one: Any, other: Any) -> bool:
    if not isinstance(one, dict):
        return one == other
    parts = cast("dict[str, Any]", one)
    return all(name in other and is_part(part, other[name]) for name, part in parts.items())


@given(st.dictionaries(NAMES, TYPES, max_size=3).map(record), READS, READS)
def test_what_several_policies_read_is_handed_over_to_all_of_them(type_: Record, one: Reads, other: Reads) -> None:
    value = value_of(type_)
    both = record_converter(type_, joined(one, other))(value, ())
    assert is_part(record_converter(type_, one)(value, ()), both)
    assert is_part(record_converter(type_, other)(value, ()), both)
    assert record_converter(type_, WHOLE)(value, ()) == value


@given(READS, READS)
def test_nothing_is_missing_from_a_record_of_more(one: Reads, other: Reads) -> None:
    assert unrecorded(one, joined(one, other)) == ()
    assert unrecorded(one, WHOLE) == ()


@given(READS)
def test_everything_that_is_read_is_missing_from_nothing(reads: Reads) -> None:
    missing = unrecorded(reads, {})
    assert bool(missing) is ("whole" in json.dumps(reads))
    assert all(re.fullmatch(r"context|[abc](\.[abc])*", path) for path in missing)


# Whatever the tool's schema admits, Cedar takes, as the schema that policies were checked against says


SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-(2**63), 2**63 - 1),
    "boolean": st.booleans(),
    "string": st.text(max_size=8),
    "number": st.one_of(st.integers(-(10**9), 10**9), st.sampled_from([0.5, -2.25, 1e3])),
}
ODD = st.one_of(NAMES, st.text(min_size=1, max_size=4), st.sampled_from(["if", "has", "a b", 'q"', "__x", "in"]))


def closed(properties: dict[str, Any], required: set[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(required & properties.keys()),
        "additionalProperties": False,
    }


def list_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema}


def nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def scalar(word: str) -> dict[str, Any]:
    return {"type": word}


def larger(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    objects = st.builds(closed, st.dictionaries(ODD, inner, max_size=3), st.sets(NAMES))
    return st.one_of(inner.map(list_of), inner.map(nullable), objects)


SCHEMAS = st.recursive(st.sampled_from(sorted(SCALARS)).map(scalar), larger, max_leaves=6)


def instances(schema: Any) -> st.SearchStrategy[Any]:
    if "anyOf" in schema:
        return st.one_of(*(instances(each) for each in schema["anyOf"]))
    match schema["type"]:
        case "null":
            return st.none()
        case "array":
            return st.lists(instances(schema["items"]), max_size=2)
        case "object":
            required = {name: instances(schema["properties"][name]) for name in schema["required"]}
            optional = {name: instances(each) for name, each in schema["properties"].items() if name not in required}
            return st.fixed_dictionaries(required, optional=optional)
        case word:
            return SCALARS[word]


@settings(deadline=None)
@given(st.dictionaries(ODD, SCHEMAS, max_size=4), st.data())
def test_cedar_takes_every_converted_call_under_the_generated_schema(
    properties: dict[str, Any], data: st.DataObject
) -> None:
    spec = spec_of(**properties)
    args = data.draw(instances({**spec.input_schema, "required": []}))
    assert jsonschema_rs.is_valid(dict(spec.input_schema), args)
    assert parse(encode(args)) == args
    type_ = action_type(spec, record({}))
    made = ContextShape(type_).of(facts_of(args))
    schema: dict[str, Any] = {
        "": {
            "entityTypes": {"Agent": {}, "Tool": {}},
            "actions": {
                "a.b": {
                    "appliesTo": {
                        "principalTypes": ["Agent"],
                        "resourceTypes": ["Tool"],
                        "context": as_json(type_.context),
                    }
                }
            },
        }
    }
    request = {
        "principal": {"type": "Agent", "id": "a"},
        "action": {"type": "Action", "id": "a.b"},
        "resource": {"type": "Tool", "id": "a.b"},
        "context": encode(made).decode(),
    }
    result = cedarpy.is_authorized(  # pyright: ignore[reportUnknownMemberType]
        request, "permit (principal, action, resource);", [], json.dumps(schema)
    )
    assert result.allowed, result.diagnostics.errors


def test_a_record_is_converted_by_its_type_alone() -> None:
    assert record_converter(Record(attributes={}), WHOLE)({"a": 1, "b": 2}, ()) == {}

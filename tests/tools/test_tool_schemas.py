"""Schemas of types: golden cases, and the two directions in which schema and conversion must agree."""

from __future__ import annotations

import string
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Generic, Literal, NotRequired, TypedDict, TypeVar
from uuid import UUID

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from remit.tools.decorator import json_schema_for, to_json
from remit.tools.spec import Money
from remit.values import Json

T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 3


class Point(TypedDict):
    """A place."""

    x: int
    y: NotRequired[Annotated[int, Meta(ge=0, le=9)]]


@dataclass(frozen=True)
class Line:
    sku: Annotated[str, Meta(min_length=1, max_length=5)]
    tags: list[str] = field(default_factory=list[str])
    colour: Colour = Colour.RED


class Circle(msgspec.Struct, tag="circle", frozen=True):
    radius: Decimal


class Square(msgspec.Struct, tag="square", frozen=True, rename="camel"):
    side_length: float = 1.0


class Box(msgspec.Struct, Generic[T], frozen=True):
    content: T
    paid: Money | None = None
    seal: str | msgspec.UnsetType = msgspec.UNSET


class Tree(msgspec.Struct):
    left: Tree | None = None


class Flat(msgspec.Struct, array_like=True):
    a: int


def closed(properties: dict[str, Any], required: list[str], **about: str) -> dict[str, Any]:
    shape = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return about | shape


POINT = closed(
    {"x": {"type": "integer"}, "y": {"type": "integer", "minimum": 0, "maximum": 9}},
    ["x"],
    title="Point",
    description="A place.",
)


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (None, {"type": "null"}),
        (bool, {"type": "boolean"}),
        (
            Annotated[float, Meta(gt=0, lt=1)],
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        ),
        (Annotated[int, Meta(multiple_of=5)], {"type": "integer", "multipleOf": 5}),
        (Annotated[str, Meta(pattern="^a")], {"type": "string", "pattern": "^a"}),
        (Annotated[int, Meta(description="How many.")], {"type": "integer", "description": "How many."}),
        (Literal["b", "a"], {"type": "string", "enum": ["a", "b"]}),
        (Literal[2, None], {"enum": [None, 2]}),
        (Colour, {"type": "string", "enum": ["red", "blue"]}),
        (Level, {"type": "integer", "enum": [1, 3]}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (UUID, {"type": "string", "format": "uuid"}),
        (
            Annotated[list[int], Meta(max_length=3)],
            {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
        ),
        (dict[str, Point], {"type": "object", "additionalProperties": POINT}),
        (
            dict[Annotated[str, Meta(pattern="^[a-z]+$")], int],
            {
                "type": "object",
                "additionalProperties": {"type": "integer"},
                "propertyNames": {"pattern": "^[a-z]+$"},
            },
        ),
        (
            tuple[int, str],
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "items": False,
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (
            Line,
            closed(
                {
                    "sku": {"type": "string", "minLength": 1, "maxLength": 5},
                    "tags": {"type": "array", "items": {"type": "string"}, "default": []},
                    "colour": {"type": "string", "enum": ["red", "blue"], "default": "red"},
                },
                ["sku"],
                title="Line",
            ),
        ),
        (
            Square,
            closed(
                {
                    "type": {"type": "string", "enum": ["square"]},
                    "sideLength": {"type": "number", "default": 1.0},
                },
                ["type"],
                title="Square",
            ),
        ),
    ],
)
def test_schemas_are_as_written_here(annotation: Any, schema: dict[str, Any]) -> None:
    assert json_schema_for(annotation) == schema


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Any, "admit everything"),
        (dict[int, str], "a dict has keys of type `str`"),
        (dict[Literal["a"], str], "for a fixed set of keys use a TypedDict"),
        (Tree, "`Tree` contains itself"),
        (Flat, "`Flat` is array-like"),
        (frozenset[int], "`frozenset` has no strict JSON form"),
        (timedelta, "`timedelta` has no strict JSON form"),
        (Annotated[datetime, Meta(tz=False)], "a datetime without a time zone is ambiguous"),
        (Annotated[int, Meta(extra_json_schema={"type": "string"})], "`type` in `extra_json_schema`"),
        (str | datetime, "more than one str-like type"),
    ],
)
def test_types_without_a_strict_schema_are_refused(annotation: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        json_schema_for(annotation)


@pytest.mark.parametrize(
    ("annotation", "refused"),
    [
        (int, ["1", True, None, 1.5]),
        (bool, [0, "true"]),
        (float, ["1.0", True]),
        (str, [1, None]),
        (Decimal, [1, 1.5, "1e5", "NaN", "Infinity", "+1", " 1", "1_0", ".5", "5.", "01", "1\n", "١"]),
        (
            datetime,
            [
                "2020-01-01T00:00:00",
                "2020-01-01 00:00:00Z",
                "2016-12-31T23:59:60Z",
                "0000-01-01T00:00:00Z",
                0,
            ],
        ),
        (date, ["2020-02-30", "0000-01-01", "20200101"]),
        (Money, [{"amount": "1.00001", "currency": "EUR"}, {"amount": 1, "currency": "EUR"}, "1 EUR"]),
        (
            Money,
            [{"amount": "1", "currency": "eur"}, {"amount": "1", "currency": "EUR", "x": 1}, {"amount": "1"}],
        ),
        (Point, [{"x": 1, "z": 1}, {}, {"x": 1, "y": 10}]),
        (Box[Point], [{"content": {"x": 1, "z": 2}}, {"content": {"x": 1}, "more": 1}]),
        (
            Circle | Square,
            [{"radius": "1"}, {"type": "circle"}, {"type": "circle", "radius": "1", "sideLength": 1}],
        ),
    ],
)
def test_what_is_not_exactly_of_the_type_is_refused(annotation: Any, refused: list[Json]) -> None:
    validator = jsonschema_rs.Draft202012Validator(json_schema_for(annotation), validate_formats=True)
    assert [value for value in refused if validator.is_valid(value)] == []


# Agreement in both directions

texts = st.text(max_size=8)
integers = st.integers(-(2**63), 2**63 - 1)
decimals = st.decimals(1 - 10**14, 10**14 - 1, places=4)
moneys = st.builds(
    Money, amount=st.decimals(1 - 10**14, 10**14 - 1, places=4), currency=st.sampled_from(["EUR", "USD"])
)
zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))])
points = st.fixed_dictionaries({"x": integers}, optional={"y": st.integers(0, 9)})
lines = st.builds(Line, sku=st.text(min_size=1, max_size=5), tags=st.lists(texts), colour=st.sampled_from(Colour))

SAMPLES: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int | None: st.none() | integers,
    float: st.floats(allow_nan=False, allow_infinity=False),
    Annotated[str, Meta(max_length=8)]: texts,
    Annotated[str, Meta(pattern="^[a-z]{2}$")]: st.text(string.ascii_lowercase, min_size=2, max_size=2),
    Decimal: decimals,
    Money: moneys,
    datetime: st.datetimes(datetime(1000, 1, 1), timezones=zones),
    date: st.dates(date(1000, 1, 1)),
    UUID: st.uuids(),
    Colour: st.sampled_from(Colour),
    Level: st.sampled_from(Level),
    Literal["a", 3, None]: st.sampled_from(["a", 3, None]),
    list[Decimal]: st.lists(decimals, max_size=3),
    tuple[int, str]: st.tuples(integers, texts),
    dict[str, Point]: st.dictionaries(texts, points, max_size=3),
    list[Line]: st.lists(lines, max_size=3),
    Circle | Square: st.builds(Circle, radius=decimals) | st.builds(Square, side_length=st.floats(-9, 9)),
    Box[list[Point]]: st.builds(Box[list[Point]], content=st.lists(points, max_size=2), paid=st.none() | moneys),
}
TYPES = list(SAMPLES)
VALIDATORS = [jsonschema_rs.Draft202012Validator(json_schema_for(each), validate_formats=True) for each in TYPES]


def str_of(moment: datetime) -> str:
    return moment.isoformat()


def json_like(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """JSON that is often valid for the schema and often just beside it."""
    if "anyOf" in schema:
        return st.one_of([json_like(each) for each in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema["type"]
    if kind == "object":
        fields = {name: json_like(child) for name, child in schema.get("properties", {}).items()}
        needed = {name: fields.pop(name) for name in schema.get("required", ())}
        named = st.fixed_dictionaries(needed, optional=fields)
        values = schema["additionalProperties"]
        return named if values is False else st.dictionaries(texts, json_like(values), max_size=3)
    if kind == "array":
        fixed: Sequence[Any] = schema.get("prefixItems", ())
        return (
            st.tuples(*map(json_like, fixed)).map(list) if fixed else st.lists(json_like(schema["items"]), max_size=3)
        )
    if kind == "string" and "pattern" in schema:
        return st.one_of(st.from_regex(str(schema["pattern"])), st.datetimes(timezones=st.just(UTC)).map(str_of))
    plain: dict[str, st.SearchStrategy[Any]] = {
        "null": st.none(),
        "boolean": st.booleans(),
        "integer": integers,
        "number": st.floats(allow_nan=False, allow_infinity=False) | integers,
        "string": texts | st.uuids().map(str) | st.dates().map(str),
    }
    return plain[kind]


anything = st.recursive(
    st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn, schema: Mapping[str, Any]) -> Any:
    """A value as `json_like` draws it, one field of which may be exchanged, added or left out."""
    value: dict[str, Any] | Any = draw(json_like(schema))
    if schema.get("type") == "object":
        damage: dict[str, Any] = draw(st.dictionaries(st.sampled_from([*value, "more"]), anything, max_size=1))
        return value | damage
    return value


@contextmanager
def suppress_whole_floats() -> Generator[None]:
    try:
        yield
    except msgspec.ValidationError as error:
        if "Expected `int" not in str(error) or "got `float`" not in str(error):
            raise


@given(st.data())
def test_whatever_the_schema_accepts_converts_without_coercion(data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(TYPES) - 1))
    value = data.draw(damaged(json_schema_for(TYPES[index])) | anything)
    if VALIDATORS[index].is_valid(value):
        # JSON Schema knows no difference between 1.0 and 1; conversion does, and refuses the first.
        with suppress_whole_floats():
            msgspec.convert(value, TYPES[index], strict=True)


@given(st.data())
def test_every_value_of_the_type_is_accepted_and_comes_back_equal(data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(TYPES) - 1))
    value = data.draw(SAMPLES[TYPES[index]])
    plain = to_json(value)
    VALIDATORS[index].validate(plain)
    assert msgspec.convert(plain, TYPES[index], strict=True) == value


@pytest.mark.parametrize("value", [Decimal("NaN"), {1: "a"}, object(), {"a": [Decimal("Infinity")]}])
def test_values_without_a_json_form_are_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        to_json(value)

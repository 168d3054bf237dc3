"""Where paths lead in schemas, and which objects take any key."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Struct

from remit.provenance.labels import pattern
from remit.tools.decorator import tool
from remit.tools.schemas import maps_in, nodes_at
from remit.tools.spec import Effect

TEXT = {"type": "string"}


def test_paths_lead_through_lists_and_alternatives() -> None:
    amount = {"type": "string"}
    line = {"type": "object", "properties": {"amount": amount}}
    schema = {
        "type": "object",
        "properties": {
            "lines": {"anyOf": [{"type": "array", "items": line}, {"type": "null"}]},
            "free": {"type": "object", "additionalProperties": amount},
        },
    }
    assert nodes_at(schema, "lines.*.amount") == [amount]
    assert nodes_at(schema, "lines.amount") == []
    assert nodes_at(schema, "free.amount") == []
    assert nodes_at(schema, "") == []


class Line(Struct, frozen=True):
    sku: str
    extra: dict[str, list[dict[str, int]]]


def test_a_tool_knows_which_of_its_arguments_have_free_keys() -> None:
    @tool("orders.note", effects={Effect.WRITE})
    async def note(lines: list[Line], headers: dict[str, str] | None, text: str) -> None:
        """Note something."""

    assert note.spec.maps == {"headers", "lines.*.extra", "lines.*.extra.*.*"}
    assert pattern(("lines", 3, "extra")) in note.spec.maps
    assert note.spec.maps is note.spec.maps


@pytest.mark.parametrize(
    ("schema", "maps"),
    [
        ({"type": "object", "properties": {"a": TEXT}, "additionalProperties": False}, set[str]()),
        ({"type": "object", "additionalProperties": TEXT}, {""}),
        ({"type": "object", "patternProperties": {"^x": TEXT}, "additionalProperties": False}, {""}),
        ({"type": "object", "additionalProperties": True}, {"", "*"}),
        ({"type": ["object", "null"]}, {""}),
        ({"type": ["string", "null"]}, set[str]()),
        ({"enum": ["a"]}, set[str]()),
        ({}, {""}),
        ({"$ref": "#/$defs/any"}, {""}),
        ({"anyOf": [TEXT, {"type": "object"}]}, {""}),
        ({"anyOf": [TEXT, True]}, {""}),
        ({"type": "array", "items": False, "prefixItems": [TEXT, {"type": "object"}]}, {"*"}),
        ({"type": "object", "properties": {"a": True, "b": False}, "additionalProperties": False}, {"a"}),
    ],
)
def test_what_may_take_any_key_counts_as_such_an_object(schema: dict[str, Any], maps: set[str]) -> None:
    assert maps_in(schema) == maps

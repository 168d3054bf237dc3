"""Paths into JSON Schemas: where a dotted path leads, which paths there are, which objects take any key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

Schema = Mapping[str, Any]

_SAYS_WHAT = frozenset({"enum", "const"})
_ALTERNATIVES = ("anyOf", "oneOf", "allOf")


def nodes_at(schema: Schema, path: str) -> list[dict[str, Any]]:
    """The sub-schemas that a dotted path leads to, `*` being any list index; empty where it leads nowhere."""
    nodes = _branches(schema)
    for part in path.split("."):
        nodes = [branch for node in nodes for child in _children(node, part) for branch in _branches(child)]
    return nodes


def paths(schema: Schema, prefix: str = "") -> Iterator[str]:
    """Every path of a schema, for suggestions."""
    for node in _branches(schema):
        for part in [*node.get("properties", {}), *(["*"] if node.get("type") == "array" else [])]:
            yield prefix + part
            for child in _children(node, part):
                yield from paths(child, f"{prefix}{part}.")


def walk(schema: Any, place: str) -> Iterator[tuple[str, Schema]]:
    """Every node of a schema with the place that a message names."""
    if isinstance(schema, Mapping):
        node = cast("Schema", schema)
        yield place, node
        for name, child in node.get("properties", {}).items():
            yield from walk(child, f"{place}.{name}")
        for keyword in ("items", "additionalProperties", "anyOf", "oneOf", "allOf", "prefixItems"):
            yield from walk(node.get(keyword), place)
        for child in node.get("$defs", {}).values():
            yield from walk(child, place)
    elif isinstance(schema, list):
        for child in cast("list[Any]", schema):
            yield from walk(child, place)


def maps_in(schema: Schema) -> frozenset[str]:
    """Paths of the objects whose keys are free, so that a key is data like any value: `lines.*.extra`.

    `*` stands for any list index and for any free key; the empty path is the schema itself. What a schema does not
    describe, or only by reference, may be such an object and counts as one.
    """
    return frozenset(_maps(schema, ()))


def _maps(schema: Any, path: tuple[str, ...]) -> Iterator[str]:
    for node in _branches(schema):
        if _is_map(node):
            yield ".".join(path)
        for name, child in node.get("properties", {}).items():
            yield from _maps(child, (*path, name))
        free = (node.get("additionalProperties"), *node.get("patternProperties", {}).values())
        for child in (*free, node.get("items"), *node.get("prefixItems", ())):
            if child is not None:
                yield from _maps(child, (*path, "*"))


def _is_map(node: Schema) -> bool:
    if "$ref" in node or "$dynamicRef" in node:
        return True
    if _SAYS_WHAT & node.keys():
        return False
    kind = node.get("type")
    if kind is not None and kind != "object" and "object" not in kind:
        return False
    return bool(node.get("patternProperties")) or node.get("additionalProperties", True) is not False


def _branches(node: Any) -> list[dict[str, Any]]:
    """A node and the alternatives or parts that it is made of, whose paths are paths of the whole."""
    if not isinstance(node, Mapping):
        # `true` admits everything and `false` nothing.
        return [{}] if node else []
    whole = cast("dict[str, Any]", node)
    parts = [branch for word in _ALTERNATIVES for each in whole.get(word, ()) for branch in _branches(each)]
    return [whole, *parts] if "type" in whole or not parts else parts


def _children(node: Schema, part: str) -> Iterator[Schema]:
    if part == "*":
        if isinstance(node.get("items"), Mapping):
            yield node["items"]
        yield from node.get("prefixItems", ())
    elif part in node.get("properties", {}):
        yield node["properties"][part]

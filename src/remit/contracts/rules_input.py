"""The rule about `untrusted_input`: the parts of a request that others wrote are parts that a request can have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from remit.contracts.model import JsonSchema
from remit.contracts.problems import Problem, did_you_mean, quoted
from remit.contracts.subject import Subject

_ALTERNATIVES: Final = ("anyOf", "oneOf", "allOf")
_DEPTH: Final = 4
"""How many levels of a schema are listed as suggestions."""


def untrusted_input_is_there(subject: Subject, schema: JsonSchema) -> Iterator[Problem]:
    """Every path leads somewhere: a misspelt one would leave what it means trusted."""
    known = sorted(set(_paths(schema, [schema])))
    for at, path in enumerate(subject.untrusted_input):
        place = ("untrusted_input", at)
        if not leads_somewhere(schema, path.split(".")):
            hint = did_you_mean(path, known, "parts of a request")
            yield subject.error(place, f"the input schema has no {quoted(path)}", hint)
        elif path in subject.untrusted_input[:at]:
            yield subject.error(place, f"{quoted(path)} is named twice", "keep one")


def leads_somewhere(root: JsonSchema, parts: list[str]) -> bool:
    nodes = _branches(root, root)
    for part in parts:
        nodes = [branch for node in nodes for child in _children(node, part) for branch in _branches(root, child)]
    return bool(nodes)


def _branches(root: JsonSchema, schema: Any, within: tuple[str, ...] = ()) -> list[Mapping[str, Any]]:
    """A schema and the alternatives or parts that it is made of, references followed."""
    if schema is True:
        return [{}]
    if not isinstance(schema, Mapping):
        return []
    node = cast("Mapping[str, Any]", schema)
    found = [node]
    reference = node.get("$ref")
    if isinstance(reference, str) and reference not in within:
        found += _branches(root, _target(root, reference), (*within, reference))
    for word in _ALTERNATIVES:
        for each in node.get(word, ()):
            found += _branches(root, each, within)
    return found


def _target(root: JsonSchema, reference: str) -> Any:
    found: Any = root
    for part in reference.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = cast("Mapping[str, Any]", found).get(name) if isinstance(found, Mapping) else None
    return found


def _children(node: Mapping[str, Any], part: str) -> list[Any]:
    """What a name leads to, or `*` for the items of a list. Names that a schema only does not rule out lead nowhere."""
    if part == "*":
        return [*node.get("prefixItems", ()), *([node["items"]] if "items" in node else [])]
    properties: Mapping[str, Any] = node.get("properties", {})
    if part in properties:
        return [properties[part]]
    return [*node.get("patternProperties", {}).values(), node.get("additionalProperties", False)]


def _paths(root: JsonSchema, nodes: list[Any], prefix: str = "", depth: int = _DEPTH) -> Iterator[str]:
    for node in (branch for each in nodes for branch in _branches(root, each)) if depth else ():
        for part in [*node.get("properties", {}), *(["*"] if "items" in node else [])]:
            yield prefix + part
            yield from _paths(root, _children(node, part), f"{prefix}{part}.", depth - 1)

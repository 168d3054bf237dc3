"""The JSON Schema (2020-12) of a typed file, for editors that complete and for `remit check`, from the types.

Descriptions come from the docstrings of the fields; `described` adds those that stand in a table, because a limit such
as `rows_per_hour` needs a sentence in an editor and none in the source.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Any, Final

import msgspec

from remit.contracts import model
from remit.contracts.describe import DESCRIPTIONS, EXAMPLES
from remit.contracts.model import Contract

Schema = dict[str, Any]
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_CODE = re.compile(r"`([^`]+)`")


def contract_schema() -> Schema:
    """The schema of `contract.yaml` for editors (`remit schema contract`)."""
    schema = editor_schema(strict_schema(Contract), title="Remit contract")
    defs = schema["$defs"]
    # Unquoted numbers are read as the text that they are, which an editor's YAML parser can't know.
    defs["EscalateWhen"]["properties"]["confidence_below"]["type"] = ["string", "number"]
    defs["Success"]["properties"]["baseline"]["additionalProperties"]["type"] = ["string", "number"]
    return schema


def editor_schema(strict: Schema, *, title: str) -> Schema:
    """A copy of `strict` with a dialect and a title."""
    copied: Schema = msgspec.json.decode(msgspec.json.encode(strict))
    return {"$schema": DIALECT, "title": title, **copied}


@cache
def strict_schema(kind: type[msgspec.Struct]) -> Schema:
    """The closed schema of a struct: what `msgspec` makes of it, without nulls, with titles, descriptions, examples.

    What is optional is left out, never `null`. The text of a `Meta` description stands in `$comment`: it says how the
    value is written. The result is shared; don't change it.
    """
    schema = msgspec.json.schema(kind)
    docs = {name: text for module in _modules(kind) for name, text in _docstrings(module)}
    for name, definition in schema["$defs"].items():
        _describe(name, definition, docs | DESCRIPTIONS)
    return schema


def _modules(kind: type[msgspec.Struct]) -> list[str]:
    modules = [inspect.getsource(model)]
    if kind.__module__ != model.__name__:
        modules.append(inspect.getsource(inspect.getmodule(kind) or model))
    return modules


def _docstrings(source: str) -> Iterator[tuple[str, str]]:
    """`Class.field` and the string that stands below the field."""
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, below in zip(node.body, node.body[1:], strict=False):
            name = _target(field)
            if name and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                yield f"{node.name}.{name}", inspect.cleandoc(str(below.value.value))


def _target(node: ast.stmt) -> str | None:
    match node:
        case ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name
        case _:
            return None


def _describe(name: str, definition: Schema, docs: Mapping[str, str]) -> None:
    if "enum" in definition:
        definition["description"] = _choices(name, definition, docs)
        return
    if name in docs:
        definition["description"] = docs[name]
    for key, held in definition.get("properties", {}).items():
        place = f"{name}.{key}"
        field = _without_null(held)
        written = field.pop("description", "")
        field["title"] = key.replace("_", " ")
        field["description"] = docs.get(place, "") or written
        if written:
            field["$comment"] = written
        examples = EXAMPLES.get(place) or _CODE.findall(written)
        if examples:
            field["examples"] = examples
        definition["properties"][key] = field


def _choices(name: str, definition: Schema, docs: Mapping[str, str]) -> str:
    """What an enumeration is for, with what each of its values means."""
    kind: type[Enum] | None = getattr(model, name, None)
    meanings = [
        f"`{member.value}`: {docs[f'{name}.{member.name}']}" for member in kind or () if f"{name}.{member.name}" in docs
    ]
    return "\n".join([definition.get("description", ""), *meanings])


def _without_null(field: Schema) -> Schema:
    """A field that may be left out: its schema without the `null` that stands for absence in Python."""
    kept = dict(field)
    if kept.get("default", "") is None:
        del kept["default"]
    branches = [branch for branch in kept.get("anyOf", []) if branch != {"type": "null"}]
    if len(branches) == 1:
        del kept["anyOf"]
        kept |= branches[0]
    elif branches:
        kept["anyOf"] = branches
    return kept

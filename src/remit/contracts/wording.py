"""What a schema says against a file, in words that say what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import jsonschema_rs
import msgspec

from remit.contracts.document import Document, children, places
from remit.contracts.problems import Problem, did_you_mean, listed, quoted
from remit.contracts.schema import Schema, strict_schema
from remit.values import Json, Path, show_path

_KINDS: Final[dict[type, str]] = {
    str: "text",
    int: "a number",
    bool: "a truth value",
    list: "a list",
    dict: "a mapping",
}
_WANTED: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "`true` or `false`",
    "object": "a mapping",
    "array": "a list",
}
_TRUTH = frozenset({"yes", "no", "on", "off", "y", "n"})
_CODE = re.compile(r"`[^`]*`[,;]? ?")


def check_shape(document: Document, kind: type[msgspec.Struct]) -> list[Problem]:
    """Every place where the document is not what `kind` says; none for places that are broken already."""
    if document.is_broken(()):
        return []
    schema = strict_schema(kind)
    empty = dict(_empty(document))
    problems = list(empty.values())
    validator = jsonschema_rs.Draft202012Validator(schema)
    for error in validator.iter_errors(document.value):
        path = tuple(error.instance_path)
        if any(path[:length] in empty for length in range(len(path) + 1)) or document.is_broken(path):
            continue
        problems.extend(_Words(document, schema, error).problems())
    return problems


def _empty(document: Document) -> Iterator[tuple[Path, Problem]]:
    """Keys without a value, and blank text: in a contract, an absence that looks like a statement."""
    for path, value in places(document.value):
        if (value is None or (isinstance(value, str) and not value.strip())) and not document.is_broken(path):
            name = f"{quoted(show_path(path))} has no value" if path else "the file is empty"
            yield path, document.problem(path, name, "give it one, or take the key out" if path else "")


class _Words:
    """One error of the validator, taken apart."""

    def __init__(self, document: Document, schema: Schema, error: jsonschema_rs.ValidationError) -> None:
        self._document = document
        self._schema = schema
        self._path: Path = tuple(error.instance_path)
        self._name = quoted(show_path(self._path)) if self._path else "the file"
        self._value: Json = error.instance
        self._kind: str = error.kind.name
        self._facts: Mapping[str, Any] = error.kind.as_dict()
        self._message = error.message
        self._place = self._resolve(self._walk(error.schema_path))
        self._toml = document.file.endswith(".toml")

    def problems(self) -> Iterator[Problem]:
        match self._kind:
            case "additionalProperties":
                yield from self._unexpected()
            case "required":
                yield from self._missing(self._facts["property"])
            case "type" | "anyOf":
                yield self._say(f"is {self._actual()}; it should be {self._expected()}", self._type_hint())
            case "enum":
                yield self._say(f"is {quoted(self._value)}, which is not one of its values", self._choice())
            case "pattern":
                yield self._say(f"is {quoted(self._value)}, which is not how it is written", self._form())
            case "propertyNames":
                yield from self._bad_keys()
            case "minimum" | "maximum":
                word = "least" if self._kind == "minimum" else "most"
                yield self._say(f"is {quoted(self._value)}; the {word} is {self._facts['limit']}")
            case "minItems" | "minLength" | "minProperties":
                yield self._say("is empty", "give it a value")
            case _:
                yield self._say(f"is not acceptable: {self._message[:200]}")

    def _say(self, text: str, suggestion: str = "") -> Problem:
        return self._document.problem(self._path, f"{self._name} {text}", suggestion)

    def _walk(self, schema_path: list[str | int]) -> Schema:
        place: Any = self._schema
        above = schema_path.index("propertyNames") if self._kind == "propertyNames" else -1
        for part in schema_path[:above]:
            place = place[part]
        return cast("Schema", place) if isinstance(place, dict) else {}

    def _resolve(self, place: Schema) -> Schema:
        reference = place.get("$ref")
        return self._schema["$defs"][reference.rpartition("/")[2]] if isinstance(reference, str) else place

    def _unexpected(self) -> Iterator[Problem]:
        known: Mapping[str, Schema] = self._place.get("properties", {})
        here = f" in {quoted(show_path(self._path))}" if self._path else ""
        for key in self._facts["unexpected"]:
            path = (*self._path, key)
            yield self._document.problem(
                path, f"key {quoted(key)} is not known{here}", did_you_mean(key, known, "keys here")
            )

    def _missing(self, key: str) -> Iterator[Problem]:
        known = self._place.get("properties", {})
        strange = [str(name) for name, _ in children(self._value) if name not in known]
        # Somebody who misspelt the key is asked about that one.
        if self._document.is_broken((*self._path, key)) or difflib.get_close_matches(key, strange, cutoff=0.6):
            return
        field = known.get(key, {})
        here = f" in {quoted(show_path(self._path))}" if self._path else ""
        about = str(field.get("description") or self._resolve(field).get("description") or "").partition("\n")[0]
        example = f", such as `{key}: {_plain(field['examples'][0])}`" if field.get("examples") else ""
        hint = f"add it{example}" + (f"; {_lower(about)}" if about else "")
        yield self._document.problem(self._path, f"key {quoted(key)} is missing{here}", hint)

    def _bad_keys(self) -> Iterator[Problem]:
        rule = self._resolve(self._place.get("propertyNames", {}))
        pattern = re.compile(str(rule.get("pattern", "")), re.ASCII)
        about = str(rule.get("description", ""))
        for name, _ in children(self._value):
            key = str(name)
            if not pattern.search(key) or key.endswith("\n"):
                yield self._document.problem(
                    (*self._path, key),
                    f"{quoted(key)} can't be a name in {self._name}",
                    f"write it in {about}",
                )

    def _actual(self) -> str:
        if isinstance(self._value, bool):
            return f"`{str(self._value).lower()}`"
        if isinstance(self._value, int):
            return f"the number {self._value}"
        if isinstance(self._value, str):
            return f"the text {quoted(self._value)}"
        return self._spoken(next((name for kind, name in _KINDS.items() if isinstance(self._value, kind)), "nothing"))

    def _spoken(self, name: str) -> str:
        return "a table" if self._toml and name == "a mapping" else name

    def _expected(self) -> str:
        branches: list[Schema] = self._place.get("anyOf", [self._place])
        names = [self._spoken(_WANTED.get(str(branch.get("type")), "something else")) for branch in branches]
        return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

    def _type_hint(self) -> str:
        wanted = self._place.get("type")
        if wanted == "boolean" and isinstance(self._value, str) and self._value.lower() in _TRUTH:
            truth = "true" if self._value.lower() in ("yes", "on", "y") else "false"
            return f"write `{truth}`"
        if wanted == "integer":
            return "write a whole number in decimal digits, such as `10`"
        if wanted == "object" and self._place.get("properties"):
            return f"keys here: {listed(self._place['properties'])}"
        if wanted == "array":
            return "write it as a list, `[…]`" + ("" if self._toml else ", or one item a line, each after a hyphen")
        if wanted == "string":
            return self._form() if self._place.get("pattern") else "put it in quotes"
        return ""

    def _choice(self) -> str:
        options = [str(option) for option in self._facts["options"]]
        return did_you_mean(str(self._value), options, "values")

    def _form(self) -> str:
        examples = [f"`{_plain(example)}`" for example in self._place.get("examples", [])]
        written = str(self._place.get("$comment", self._place.get("description", "")))
        rest = _CODE.sub("", written).strip() if examples else written
        like = f"write it like {', '.join(examples)}" if examples else ""
        return "; ".join(part for part in (like, rest) if part)


def _plain(example: Json) -> str:
    return example if isinstance(example, str) else msgspec.json.encode(example).decode()


def _lower(text: str) -> str:
    bare = text.rstrip(".")
    return bare[:1].lower() + bare[1:]

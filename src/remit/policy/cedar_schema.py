"""The types of all that a policy may read, derived from the tools' JSON Schemas and the contract's facts.

One description serves the Cedar schema that policies are checked against, and the conversion of a call's values
into what Cedar is given; so what a policy was checked for is what it gets. What Cedar has no type for (mixed
unions, maps, lists that may hold null) is left out of both, and `left_out` says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import cedarpy

from remit.contracts.model import Contract, Fact
from remit.errors import ConfigError
from remit.tools.spec import ToolSpec

AGENT = "Agent"

Schema = Mapping[str, Any]
_Within = tuple[str, ...]
"""The references that are being followed."""


@dataclass(frozen=True, kw_only=True)
class Scalar:
    """A Cedar type without parts; `decimal` is exact with four places."""

    name: Literal["Bool", "Long", "String", "decimal"]


@dataclass(frozen=True, kw_only=True)
class SetOf:
    """A set of values of one type; JSON arrays become sets."""

    element: CedarType


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """A part of a record. A policy must ask with `has` before it reads one that isn't required."""

    type: CedarType
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Record:
    """Named parts; none beside these."""

    attributes: Mapping[str, Attribute]


CedarType = Scalar | SetOf | Record

BOOL = Scalar(name="Bool")
LONG = Scalar(name="Long")
STRING = Scalar(name="String")
DECIMAL = Scalar(name="decimal")
STRINGS = SetOf(element=STRING)
MONEY = Record(attributes={"amount": Attribute(type=DECIMAL), "currency": Attribute(type=STRING)})

_WORDS: Mapping[str, CedarType] = {"boolean": BOOL, "integer": LONG, "number": DECIMAL, "string": STRING}
_NAMES: Mapping[Any, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    type(None): "null",
}
ATTRIBUTE_WORDS: Mapping[str, CedarType] = {"Bool": BOOL, "Long": LONG, "String": STRING}
_ESCAPES = frozenset({"__extn", "__entity", "__expr"})
"""Keys by which Cedar's JSON says that an object is no record; an argument of such a name could pass for one."""
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_RESERVED_KINDS = frozenset(
    f"{AGENT} Action Bool Boolean Long String Set Record Entity Extension in is if has like then else true false".split()
)


def record(attributes: Mapping[str, CedarType], optional: Iterable[str] = ()) -> Record:
    """A record of the given types, all required but those named in `optional`."""
    missing = frozenset(optional)
    return Record(attributes={n: Attribute(type=t, required=n not in missing) for n, t in attributes.items()})


_AGENT = record(dict.fromkeys(("tenant", "contract", "region"), STRING), optional=("region",))


class _Reader:
    """Reads one JSON Schema (2020-12) into Cedar types. `left_out` collects the paths that have none."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self.left_out: dict[str, None] = {}

    def type_of(self, schema: Any, path: str = "", within: _Within = ()) -> tuple[CedarType | None, bool]:
        """The type of `schema`, `None` if there is none, and whether null is one of its values."""
        alternatives = list(self._alternatives(schema, within))
        types = [self._plain(word, node, path, inner) for word, node, inner in alternatives if word != "null"]
        same = bool(types) and all(type_ == types[0] for type_ in types)
        return types[0] if same else None, any(word == "null" for word, _, _ in alternatives)

    def _alternatives(self, schema: Any, within: _Within) -> Iterator[tuple[str, Schema, _Within]]:
        """The JSON types that a schema admits, references and unions resolved; `""` is what has none."""
        node: Schema = cast("Schema", schema) if isinstance(schema, Mapping) else {}
        union = node.get("anyOf") or node.get("oneOf")
        if "$ref" in node:
            target = str(node["$ref"])
            # A type that contains itself has no end, and Cedar's have one.
            inner: Any = {} if target in within else self._target(target)
            yield from self._alternatives(inner, (*within, target))
        elif union:
            for each in union:
                yield from self._alternatives(each, within)
        else:
            words = node.get("type") or _words_of_values(node)
            for word in [words] if isinstance(words, str) else words:
                yield word, node, within

    def _target(self, reference: str) -> Any:
        found: Any = self._root if reference.startswith("#") else None
        for part in reference.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            found = cast("Schema", found).get(name) if isinstance(found, Mapping) else None
        return found

    def _plain(self, word: str, node: Schema, path: str, within: _Within) -> CedarType | None:
        match word:
            case "array":
                element, nullable = self.type_of(node.get("items"), f"{path}.*", within)
                fits = element is not None and not nullable and "prefixItems" not in node
                return SetOf(element=element) if element and fits else None
            case "object":
                return self._object(node, path, within)
            case "string" if node.get("format") == "decimal":
                return DECIMAL
            case _:
                return _WORDS.get(word)

    def _object(self, node: Schema, path: str, within: _Within) -> CedarType | None:
        properties: Mapping[str, Any] = node.get("properties", {})
        required = node.get("required", ())
        if not properties and node.get("additionalProperties") is not False:
            return None
        attributes: dict[str, Attribute] = {}
        for name, schema in properties.items():
            place = f"{path}.{name}" if path else name
            type_, nullable = self.type_of(schema, place, within)
            if type_ is None or name in _ESCAPES:
                self.left_out[place] = None
            else:
                attributes[name] = Attribute(type=type_, required=name in required and not nullable)
        return _money_or(Record(attributes=attributes))


def _money_or(found: Record) -> Record:
    """Money is exact even where the schema says of its amount no more than that it is text."""
    amount, currency = found.attributes.get("amount"), found.attributes.get("currency")
    if len(found.attributes) != 2 or amount is None or currency is None:
        return found
    is_money = amount.type in (DECIMAL, STRING) and currency.type == STRING and amount.required and currency.required
    return MONEY if is_money else found


def _words_of_values(node: Schema) -> list[str]:
    """The JSON types of an `enum` or `const` that stands without a `type`; `""` where there is none."""
    values: list[Any] = node["enum"] if "enum" in node else [node["const"]] if "const" in node else [...]
    return list(dict.fromkeys(_NAMES.get(type(value), "") for value in values))


@dataclass(frozen=True, kw_only=True)
class ActionType:
    """What a policy may read of a call of one tool. `left_out`: dotted argument paths without a Cedar type."""

    context: Record
    left_out: tuple[str, ...]

    @cached_property
    def args(self) -> Record:
        return cast("Record", self.context.attributes["args"].type)

    @cached_property
    def origins(self) -> tuple[str, ...]:
        """The attributes of `context.from`: every argument, and the dotted paths of objects inside them."""
        return tuple(cast("Record", self.context.attributes["from"].type).attributes)


def action_type(spec: ToolSpec, facts: Record) -> ActionType:
    """The context of a call of `spec` under a contract whose facts have the types `facts`."""
    reader = _Reader(spec.input_schema)
    found, _ = reader.type_of(spec.input_schema)
    args = found if isinstance(found, Record) else Record(attributes={})
    names = [name for name in spec.input_schema.get("properties", {}) if name not in _ESCAPES]
    context = record(
        {
            "args": args,
            "fields": STRINGS,
            "from": record(dict.fromkeys([*names, *_dotted(args)], STRINGS)),
            "classes": STRINGS,
            "tenant": STRING,
            "region": STRING,
            "autonomy": STRING,
            "on_behalf_of": STRING,
            "facts": facts,
            "budget_left": record(dict.fromkeys(("calls", "writes", "spend_microusd"), LONG)),
            "attempt": LONG,
            "run_calls": LONG,
            "time": record(dict.fromkeys(("hour", "weekday", "epoch_ms"), LONG)),
        },
        optional=("region", "on_behalf_of"),
    )
    return ActionType(context=context, left_out=tuple(reader.left_out))


def _dotted(found: Record, prefix: str = "") -> Iterator[str]:
    for name, attribute in found.attributes.items():
        if prefix:
            yield prefix + name
        if isinstance(attribute.type, Record):
            yield from _dotted(attribute.type, f"{prefix}{name}.")


def fact_types(facts: Mapping[str, Fact], tools: Mapping[str, ToolSpec]) -> Record:
    """The record `context.facts`. Raises `ConfigError` where `of` names nothing that can be summed or kept.

    A sum is required although mixed currencies leave it absent: to read it then is an error, which is a deny.
    """
    types = {name: _fact_type(name, fact, tools) for name, fact in facts.items()}
    return record(types, optional=[name for name, fact in facts.items() if fact.last is not None])


def _fact_type(name: str, fact: Fact, tools: Mapping[str, ToolSpec]) -> CedarType:
    if fact.seen is not None:
        return BOOL
    if fact.count is not None:
        return LONG
    tool = fact.sum or fact.last
    spec = tools.get(tool or "")
    if spec is None:
        raise ConfigError(f"fact `{name}` reads tool `{tool}`, which is not known; name one that the project has")
    side, _, path = (fact.of or "").partition(".")
    schema = {"args": spec.input_schema, "result": spec.output_schema}.get(side)
    if schema is None or not path:
        raise ConfigError(f"fact `{name}` needs `of: args.<path>` or `of: result.<path>` of `{tool}`")
    found, parent = _type_at(schema, path)
    if fact.sum is not None and parent == MONEY:
        raise ConfigError(
            f"fact `{name}` sums `{fact.of}`; sum the money that it is part of, so that currencies stay apart"
        )
    if fact.sum is not None and found in (MONEY, LONG, DECIMAL):
        return LONG if found == LONG else DECIMAL
    if fact.last is not None and isinstance(found, Scalar):
        return found
    wanted = "a number or money" if fact.sum else "a text, number or truth value"
    raise ConfigError(f"fact `{name}` reads `{fact.of}` of `{tool}`, which is not {wanted}")


def _type_at(schema: Schema, path: str) -> tuple[CedarType | None, CedarType | None]:
    """The type that a dotted path leads to and the one that it is part of."""
    found, _ = _Reader(schema).type_of(schema)
    parent: CedarType | None = None
    for part in path.split("."):
        if not isinstance(found, Record) or part not in found.attributes:
            return None, None
        parent, found = found, found.attributes[part].type
    return found, parent


@dataclass(frozen=True, kw_only=True)
class ContractTypes:
    """The types of a contract: of each action's context, and of the principals and objects of its calls."""

    actions: Mapping[str, ActionType]
    entities: Mapping[str, Record]
    kind_of: Mapping[str, str]
    """Tool name → kind of its object."""

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The Cedar schema in its JSON form."""
        return {
            "": {
                "entityTypes": {kind: {"shape": as_json(shape)} for kind, shape in self.entities.items()},
                "actions": {
                    tool: {
                        "appliesTo": {
                            "principalTypes": [AGENT],
                            "resourceTypes": [self.kind_of[tool]],
                            "context": as_json(type_.context),
                        }
                    }
                    for tool, type_ in self.actions.items()
                },
            }
        }

    @cached_property
    def handle(self) -> cedarpy.Schema:
        """The schema, parsed; `str()` of it is Cedar's own notation, for people. Raises `ConfigError`."""
        try:
            return cedarpy.Schema.from_json_str(json.dumps(self.schema))
        except ValueError as error:
            raise ConfigError(f"the tools make no valid Cedar schema: {error}") from error


def contract_types(contract: Contract, specs: Iterable[ToolSpec], tools: Mapping[str, ToolSpec]) -> ContractTypes:
    """The types of a contract that grants `specs` and whose facts read `tools`. Raises `ConfigError`."""
    granted = {spec.name: spec for spec in specs}
    facts = fact_types(contract.facts, tools)
    entities = {AGENT: _AGENT, "Person": Record(attributes={})}
    entities |= {spec.resource_kind: _kind(spec.resource_kind, granted.values()) for spec in granted.values()}
    return ContractTypes(
        actions={name: action_type(spec, facts) for name, spec in granted.items()},
        entities=entities,
        kind_of={name: spec.resource_kind for name, spec in granted.items()},
    )


def _kind(kind: str, specs: Iterable[ToolSpec]) -> Record:
    """The attributes of a kind of object. One that not all of its tools find is optional."""
    of_kind = [spec for spec in specs if spec.resource_kind == kind]
    if kind in _RESERVED_KINDS or not _KIND.fullmatch(kind):
        raise ConfigError(
            f"tool `{of_kind[0].name}` acts on kind `{kind}`, which can't be an entity of policy; rename it"
        )
    types: dict[str, CedarType] = {"tenant": STRING, "region": STRING}
    for spec in of_kind:
        for name, word in spec.resource_attributes.items():
            type_ = ATTRIBUTE_WORDS.get(word)
            if type_ is None or types.setdefault(name, type_) != type_:
                raise ConfigError(f"`{kind}.{name}` is of type `{word}` in `{spec.name}` and of another one elsewhere")
    always = frozenset[str].intersection(*(frozenset(spec.resource_attributes) for spec in of_kind))
    return record(types, optional=types.keys() - always - {"tenant"})


def as_json(type_: CedarType) -> dict[str, Any]:
    """A type as Cedar's JSON schema format writes it."""
    match type_:
        case Scalar(name="decimal"):
            return {"type": "Extension", "name": "decimal"}
        case Scalar(name="Bool"):
            return {"type": "Boolean"}
        case Scalar():
            return {"type": type_.name}
        case SetOf():
            return {"type": "Set", "element": as_json(type_.element)}
        case Record():
            attributes = type_.attributes.items()
            return {
                "type": "Record",
                "attributes": {n: as_json(a.type) | {"required": a.required} for n, a in attributes},
            }


def validated(policies: str, schema: cedarpy.Schema) -> list[cedarpy.ValidationError]:
    """What Cedar's validator has against policies."""
    return cedarpy.validate_policies(policies, schema).errors  # pyright: ignore[reportUnknownMemberType]

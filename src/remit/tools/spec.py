"""What a tool is: a named capability, its schemas, its effects, and how to deal with it when things go wrong."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Any

import jsonschema_rs
import msgspec

from remit.tools.schemas import maps_in
from remit.values import Json, digest

TOOL_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}(\.[a-z][a-z0-9_]{0,31}){1,3}", re.ASCII)
"""`service.verb`, ASCII only, so that no look-alike of a name can exist."""


class Effect(StrEnum):
    """What a call may do to the world."""

    READ = "read"
    WRITE = "write"
    IRREVERSIBLE = "irreversible"
    EGRESS = "egress"
    MONEY = "money"
    PRIVILEGE = "privilege"


class FieldClass(StrEnum):
    """What kind of data a field holds; redaction and policy go by it."""

    PERSONAL = "personal"
    SECRET = "secret"  # noqa: S105 - the name of a class, not a secret
    MONEY = "money"


FREE_KEYS = ".{}"
"""Behind the path of a declared field, in `ToolSpec.classes`: the keys there are free, and of its class as well."""


class Idempotency(StrEnum):
    """What doing the same call twice does."""

    SAFE = "safe"
    """The same effect as once (reads, absolute writes)."""
    KEYED = "keyed"
    """Once, if both carry the same key, which the tool hands on to the other side."""
    NONE = "none"
    """A second effect."""


class Money(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An exact amount: `{"amount": "84.00", "currency": "EUR"}`; at most four decimals, never a float."""

    amount: Decimal
    currency: str


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one call cost to make, as the provider counts it."""

    cost_microusd: int
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often to try again what certainly did not happen, what another attempt can't double, and what only reads."""

    attempts: int = 1
    """How often at most, the first one included."""
    backoff_ms: int = 200
    """Wait before the second attempt; doubled for each further one, with jitter."""


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """The object a call acts upon, as the system of record describes it at this moment.

    `attributes` are what policies may ask about (`resource.vip`); `version` is what the write is bound to (an ETag).
    """

    kind: str
    id: str
    tenant: str
    region: str | None = None
    attributes: Mapping[str, str | int | bool] = {}
    version: str | None = None


@dataclass(frozen=True, kw_only=True)
class Secret:
    """A resolved credential. It has no readable form: only `reveal()` gives the text, and only to a tool."""

    name: str
    _text: str

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Secret({self.name})"

    __str__ = __repr__


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where a system of record is reached and as whom; from `[connections.<name>]` of `remit.toml`."""

    name: str
    url: str
    user: str
    secret: Secret


class ToolContext(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate hands to a tool beside its arguments; the agent sees none of it."""

    tenant: str
    run: str
    step: str
    idempotency_key: str
    """Derived from run, step and arguments: the same for every attempt of one call."""
    timeout_ms: int
    resource: Resource | None
    """What `locate` found and the decision was made about."""
    client: Callable[[str, Callable[[Connection], Any]], Any]
    """`client("tracker", RoundupClient.connect)`: the pooled client of a connection, made on first use."""
    principal: str = ""
    """The agent whose call it is."""
    on_behalf_of: str | None = None
    """The person it acts for."""
    region: str | None = None
    labels: Mapping[str, tuple[str, ...]] = {}
    """Where each argument came from, by path; empty before that is known."""
    args_digest: str = ""
    """The digest of the arguments as it stands on record, keyed."""
    on_text: Callable[[str], None] | None = None
    """Takes the pieces of a text while it is made, where somebody listens; what they are shown is redacted."""


ToolFunction = Callable[[ToolContext, Mapping[str, Json]], Awaitable[Json]]
Locate = Callable[[ToolContext, Mapping[str, Json]], Awaitable[Resource]]


class Happened(StrEnum):
    """What reading back says about a call whose outcome nobody saw."""

    YES = "yes"
    NO = "no"
    """Not at this moment. Whether it may come yet is for the gate to judge."""
    UNCLEAR = "unclear"


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """The answer of a `reconcile` read: whether the call happened and, if it did, its result."""

    happened: Happened
    result: Json = None


ANSWERED = "answered"
"""Code of an `OutcomeUnknown` that came as an answer of the system of record itself, such as its own HTTP 500: it has
done with the call, so that a read-back that says no is the last word. Without an answer it is not: the call may come
yet."""

Reconcile = Callable[[ToolContext, Mapping[str, Json]], Awaitable[Reconciled]]


@dataclass(frozen=True, kw_only=True)
class Compensation:
    """The call that undoes another one: `arguments(args, result, before)` of tool `tool`.

    `left(args, result, before)`: the attributes of the object as the call left them, by which an undo sees whether
    somebody has changed it since. Without it, only who says so (`remit undo --overwrite`) undoes the call.
    """

    tool: str
    arguments: Callable[[Mapping[str, Json], Json, Resource | None], Mapping[str, Json]]
    left: Callable[[Mapping[str, Json], Json, Resource | None], Mapping[str, str | int | bool]] | None = None


@dataclass(frozen=True, kw_only=True)
class ToolSpec:
    """Everything the gate must know about a tool. The function itself is held apart (`Tool`), out of reach.

    `input_schema`, `output_schema`: JSON Schema 2020-12, objects closed with `additionalProperties: false`.
    `resource_kind`: the Cedar entity type of what a call acts upon; `Tool` where there is no object to speak of.
    `resource_attributes`: name → "String" | "Long" | "Bool", what `locate` finds beside tenant and region.
    `field_classes`: dotted argument or `result.`-prefixed result path → class; `*` stands for any list index. An attribute
    of the object is `resource.<name>`; one with the name of a personal or secret field is of its class without that.
    `authority`: dotted argument paths that carry authority (recipient, account, amount, URL, role).
    `untrusted`: dotted result paths that hold text from outside; `()` with effect `read` means that none does.
    `money`: dotted path of the argument that holds a `Money` which the call moves.
    `rows`: dotted path of a list argument whose length is the number of objects touched; otherwise it is one.
    `written`: dotted path of the object argument whose keys are the fields that the call writes.
    `usage`: dotted result path of a `Usage`, where a call costs money to make (models do).
    `retrieves`: result field with the list of passages that a call retrieves, each with `chunk`, `document`, `version`,
    `hash` and its own `label`: what is `untrusted:…` counts as that, and which run has read what can be looked up.
    `fresh_ms`: how long an answer of a pure read may be given again, to the same principal for the same person.
    `hedge_ms`: after how long a pure read is asked for a second time, beside the first; the first answer counts.
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    effects: frozenset[Effect]
    timeout_ms: int = 10_000
    retry: Retry = Retry()
    idempotency: Idempotency = Idempotency.NONE
    resource_kind: str = "Tool"
    resource_attributes: Mapping[str, str] = field(default_factory=dict[str, str])
    field_classes: Mapping[str, FieldClass] = field(default_factory=dict[str, FieldClass])
    authority: tuple[str, ...] = ()
    untrusted: tuple[str, ...] = ()
    money: str | None = None
    rows: str | None = None
    written: str | None = None
    usage: str | None = None
    retrieves: str | None = None
    fresh_ms: int = 0
    hedge_ms: int = 0

    @cached_property
    def input_validator(self) -> jsonschema_rs.Draft202012Validator:
        return jsonschema_rs.Draft202012Validator(dict(self.input_schema), validate_formats=True)

    @cached_property
    def output_validator(self) -> jsonschema_rs.Draft202012Validator:
        return jsonschema_rs.Draft202012Validator(dict(self.output_schema), validate_formats=True)

    @cached_property
    def digest(self) -> str:
        """Content hash of all that shapes how the tool is judged; recorded with every call."""
        return digest(self.plain)

    @property
    def plain(self) -> dict[str, Json]:
        """The spec as JSON; see `spec_from`."""
        return {
            "name": self.name,
            "description": self.description,
            "input": self.input_schema,
            "output": self.output_schema,
            "effects": sorted(self.effects),
            "timeout_ms": self.timeout_ms,
            "retry": [self.retry.attempts, self.retry.backoff_ms],
            "idempotency": self.idempotency,
            "resource": [self.resource_kind, dict(self.resource_attributes)],
            "classes": dict(self.field_classes),
            "authority": list(self.authority),
            "untrusted": list(self.untrusted),
            "quantities": [self.money, self.rows, self.written, self.usage],
            # Left out where there is nothing to say, so that the digests of other tools stay what they were.
            **({} if self.retrieves is None else {"retrieves": self.retrieves}),
            **({} if not self.fresh_ms else {"fresh_ms": self.fresh_ms}),
            **({} if not self.hedge_ms else {"hedge_ms": self.hedge_ms}),
        }

    @cached_property
    def maps(self) -> frozenset[str]:
        """Paths of the arguments whose keys are free, such as `lines.*.extra`, see `remit.tools.schemas.maps_in`."""
        return maps_in(self.input_schema)

    @cached_property
    def result_maps(self) -> frozenset[str]:
        """The same for what the tool answers."""
        return maps_in(self.output_schema)

    @cached_property
    def classes(self) -> Mapping[str, FieldClass]:
        """`field_classes`, and with `FREE_KEYS` behind them the paths in declared fields whose keys are free."""
        maps = (*self.maps, *(f"result.{path}" if path else "result" for path in self.result_maps))
        keys = {
            f"{at}{FREE_KEYS}": kind
            for path, kind in self.field_classes.items()
            for at in maps
            if at == path or at.startswith(f"{path}.")
        }
        return {**self.field_classes, **keys}

    @cached_property
    def fact_classes(self) -> Mapping[str, FieldClass]:
        """The classes of arguments where they stand in the record of a decision."""
        return {f"facts.args.{path}": kind for path, kind in self.classes.items()}

    @cached_property
    def resource_classes(self) -> Mapping[str, FieldClass]:
        """The classes of the object's attributes, by name."""
        # Sums are no names: what an object is worth is not concealed because some argument moves money.
        named = {path.rpartition(".")[2]: kind for path, kind in self.field_classes.items() if kind is not FieldClass.MONEY}
        declared = {name: self.field_classes.get(f"resource.{name}") or named.get(name) for name in self.resource_attributes}
        return {name: kind for name, kind in declared.items() if kind is not None}

    @property
    def is_pure_read(self) -> bool:
        return self.effects == frozenset({Effect.READ})

    @property
    def is_write(self) -> bool:
        """Whether the call changes something: everything but reading and sending a question out."""
        return bool(self.effects - {Effect.READ, Effect.EGRESS})


def spec_from(plain: Mapping[str, Any]) -> ToolSpec:
    """The spec that `ToolSpec.plain` describes."""
    kind, attributes = plain["resource"]
    money, rows, written, usage = plain["quantities"]
    return ToolSpec(
        name=plain["name"],
        description=plain["description"],
        input_schema=plain["input"],
        output_schema=plain["output"],
        effects=frozenset(Effect(effect) for effect in plain["effects"]),
        timeout_ms=plain["timeout_ms"],
        retry=Retry(attempts=plain["retry"][0], backoff_ms=plain["retry"][1]),
        idempotency=Idempotency(plain["idempotency"]),
        resource_kind=kind,
        resource_attributes=attributes,
        field_classes={path: FieldClass(name) for path, name in plain["classes"].items()},
        authority=tuple(plain["authority"]),
        untrusted=tuple(plain["untrusted"]),
        money=money,
        rows=rows,
        written=written,
        usage=usage,
        retrieves=plain.get("retrieves"),
        fresh_ms=plain.get("fresh_ms", 0),
        hedge_ms=plain.get("hedge_ms", 0),
    )


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A spec with the functions behind it. Only the gate's executor calls them (a test walks the code to prove it).

    `module`: the name of the module that declares it. `source`: digest of that module's exact text; empty where there
    is none.
    """

    spec: ToolSpec
    function: ToolFunction
    locate: Locate | None = None
    reconcile: Reconcile | None = None
    compensation: Compensation | None = None
    module: str = ""
    source: str = ""

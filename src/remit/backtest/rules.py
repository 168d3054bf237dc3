"""The rules about one tool, put to Cedar for one or two terms at once, and what they come to.

A forbid that fires hides which permits apply, and one rule that can't be evaluated must not hide the others. So Cedar
is given every rule as a permit and asked only which of them apply; what that comes to is put together here, in the way
of `remit.policy.decision`, which a property test holds it to. Rules that both terms share are asked once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cedarpy
import msgspec
from cedarpy import pst

from remit.contracts.model import Contract
from remit.policy.annotations import Rule
from remit.policy.cedar_schema import AGENT, Record
from remit.policy.compile import Compiled, Granted, principal_of
from remit.policy.decision import (
    Forbidden,
    Permitted,
    PolicyDecision,
    Undecided,
    agent_entity,
    must_hold,
    reasons_of,
)
from remit.policy.facts import ContextShape, Facts, Reads, joined, record_converter
from remit.policy.screen import policies, screen
from remit.policy.session import SessionFacts
from remit.tools.spec import ToolSpec
from remit.values import Json, encode

_BROKEN = re.compile(r"policy `(r[0-9]+)`")
_REMEMBERED = 4_096
"""How many answers are kept of each tool: calls that look alike to every rule are asked about once."""


@dataclass(frozen=True, kw_only=True)
class ToolRules:
    """All rules that can fire on the calls of one tool under some terms, and what they read."""

    contract: Contract
    granted: Granted
    kind: Record
    rules: Mapping[str, Rule]

    @property
    def spec(self) -> ToolSpec:
        return self.granted.spec

    @cached_property
    def context(self) -> Reads:
        return self._reads("context")

    @cached_property
    def resource(self) -> Reads:
        return self._reads("resource")

    def _reads(self, variable: pst.VarName) -> Reads:
        found: Reads = {}
        for rule in self.rules.values():
            found = joined(found, rule.reads(variable))
        return found

    @cached_property
    def told(self) -> frozenset[str]:
        """The facts that some rule reads."""
        read = self.context if isinstance(self.context, str) else self.context.get("facts", {})
        return frozenset(name for name in self.contract.facts if isinstance(read, str) or name in read)

    @cached_property
    def session(self) -> SessionFacts:
        return SessionFacts({name: fact for name, fact in self.contract.facts.items() if name in self.told})

    def has_read(self, name: str) -> bool:
        """Whether some rule reads that part of the context."""
        return isinstance(self.context, str) or name in self.context



def rules_of(contract: Contract, compiled: Compiled, tool: str, rules: Sequence[Rule]) -> ToolRules:
    """The rules about `tool`, those that a contract compiles into and those of its own file."""
    return ToolRules(
        contract=contract,
        granted=compiled.actions[tool],
        kind=compiled.root(tool, "resource"),
        rules={rule.id: rule for rule in rules if rule.is_about(tool)},
    )


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """Which rules apply to a call, and which of them could not be evaluated, with Cedar's words."""

    rules: frozenset[str]
    errors: Mapping[str, str]


def are_alike(one: ToolRules, other: ToolRules) -> bool:
    """Whether the same values make the same facts under both, so that one question serves both."""
    return (
        one.spec.digest == other.spec.digest
        and one.contract.facts == other.contract.facts
        and one.contract.region == other.contract.region
        and one.kind == other.kind
    )


class Asking:
    """Asks Cedar about calls of one tool, for terms that are alike."""

    def __init__(self, *sides: ToolRules) -> None:
        first = sides[0]
        rules: dict[str, Rule] = {}
        self._names: list[dict[str, str]] = []
        context: Reads = {}
        resource: Reads = {}
        agent: Reads = {}
        for side in sides:
            names: dict[str, str] = {}
            for rule in side.rules.values():
                named = rules.setdefault(rule.statement.text, replace(rule, id=f"r{len(rules)}"))
                names[named.id] = rule.id
                agent = joined(agent, rule.reads("principal"))
            self._names.append(names)
            context, resource = joined(context, side.context), joined(resource, side.resource)
        self._policies = policies({rule.id: replace(rule.template, effect="permit") for rule in rules.values()})
        self._screen = screen(list(rules.values()), context, resource)
        self._shape = ContextShape(first.granted.type, context)
        self._attributes = record_converter(first.kind, resource) if resource else None
        self._agent = agent_entity(first.contract, agent)
        self._asked = {
            "principal": {"type": AGENT, "id": principal_of(first.contract)},
            "action": {"type": "Action", "id": first.spec.name},
        }
        self._object = (b"", self._agent)
        """The latest object, as Cedar knows it; calls about one follow each other."""
        self._known: dict[bytes, tuple[Applied, ...]] = {}

    def about(self, facts: Facts) -> tuple[Applied, ...]:
        """For each side, which of its rules apply. Raises `ValueRefused` for a value that Cedar has no exact form of."""
        found = facts.resource
        values = {**found.attributes, "tenant": found.tenant, "region": found.region}
        attributes = self._attributes(values, ("resource",)) if self._attributes else {}
        made = self._shape.of(facts)
        context = encode(made)
        uid = {"type": found.kind, "id": found.id}
        entity = encode([{"uid": uid, "attrs": attributes, "parents": []}])
        key = entity + context
        known = self._known.get(key)
        if known is None:
            known = self._screened(uid, attributes, made) or self._ask(context, uid, entity)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = known
        return known

    def _screened(self, uid: Json, attributes: Mapping[str, Json], context: Json) -> tuple[Applied, ...] | None:
        """Which grants and holds apply, where no hard forbid does and nothing is broken: the usual and fastest case."""
        laid_out = self._screen and self._screen.context(context, attributes)
        if self._screen is None or laid_out is None:
            return None
        request: dict[str, Any] = {**self._asked, "resource": uid, "context": encode(laid_out).decode()}
        result = cedarpy.is_authorized(  # pyright: ignore[reportUnknownMemberType]
            request, self._screen.policies, self._agent
        )
        if result.decision is not cedarpy.Decision.Allow or result.diagnostics.errors:
            return None
        reasons = result.diagnostics.reasons
        return tuple(
            Applied(rules=frozenset(names[name] for name in reasons if name in names), errors={})
            for names in self._names
        )

    def _ask(self, context: bytes, uid: Json, entity: bytes) -> tuple[Applied, ...]:
        request: dict[str, Any] = {**self._asked, "resource": uid, "context": context.decode()}
        entities = self._agent
        if self._attributes:
            if entity != self._object[0]:
                added = entities.with_added_json_str(entity.decode())  # pyright: ignore[reportUnknownMemberType]
                self._object = (entity, added)
            entities = self._object[1]
        result = cedarpy.is_authorized(  # pyright: ignore[reportUnknownMemberType]
            request, self._policies, entities
        )
        said = result.diagnostics.errors
        if result.decision is cedarpy.Decision.NoDecision and not said:
            said = ["the request can't be decided"]
        broken = {match[1]: error for error in said if (match := _BROKEN.search(error))}
        of_all = [error for error in said if not _BROKEN.search(error)]
        reasons = frozenset(result.diagnostics.reasons)
        return tuple(
            Applied(
                rules=frozenset(names[name] for name in reasons if name in names),
                errors={
                    **{names[name]: error for name, error in broken.items() if name in names},
                    **dict.fromkeys(of_all, "; ".join(of_all)),
                },
            )
            for names in self._names
        )


class Untold(msgspec.Struct, frozen=True, kw_only=True):
    """What can't be told from the record: `because` says what is missing."""

    because: str


_NOT_BLIND: Mapping[str, str] = {}


def decision(
    side: ToolRules, applied: Applied, blind: Mapping[str, str] = _NOT_BLIND
) -> PolicyDecision | Untold:
    """What rules that apply come to. `blind`: rules that the record doesn't tell of, each with what is missing."""
    seen = [side.rules[name] for name in sorted(applied.rules) if name not in blind]
    hard = tuple(rule.id for rule in seen if not rule.is_permit and rule.hold is None)
    if hard:
        return Forbidden(rules=hard, reasons=reasons_of(side.rules, hard))
    errors = tuple(sorted(error for name, error in applied.errors.items() if name not in blind))
    if errors:
        return Undecided(errors=errors)
    unseen = [side.rules[name] for name in blind if name in side.rules]
    grants = tuple(rule.id for rule in seen if rule.is_permit)
    holds = tuple(rule.id for rule in seen if rule.hold is not None)
    doubt = [rule for rule in unseen if (rule.is_permit and not grants) or (not rule.is_permit and rule.hold is None)]
    if not grants and not doubt:
        return Forbidden(rules=(), reasons=(f"no grant of `{side.spec.name}` applies",))
    if not doubt and holds:
        return must_hold(side.granted, side.rules, holds)
    doubt = doubt or [rule for rule in unseen if rule.hold is not None]
    if doubt:
        return Untold(because=f"rule `{doubt[0].id}` reads {blind[doubt[0].id]}")
    return Permitted(rules=grants)

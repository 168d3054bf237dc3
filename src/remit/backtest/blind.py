"""What the record doesn't tell: concealed values, and rules whose answer depends on them.

Bodies are redacted, and the originals are never opened here. A rule that asks more of a concealed value than whether it
is there, or whether it equals another one of its class, is *blind*: what it says can't be known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from cedarpy import pst

from remit.backtest.rules import ToolRules
from remit.contracts.model import Fact
from remit.journal.pseudonyms import PSEUDONYM, class_of
from remit.policy.annotations import VARIABLES, Rule, parts_of, path_of
from remit.policy.facts import Facts
from remit.policy.session import PastCall, tool_of
from remit.values import Json

Place = tuple[str, ...]
"""A path that begins with a variable: `("context", "args", "account")`."""
_ID: Place = ("resource", "the id")
"""Where the id of the object stands: a rule that takes the object as a whole needs it, its attributes lie beside it."""


def conceals(value: Json) -> bool:
    """Whether some part of a value was concealed."""
    if isinstance(value, str):
        return PSEUDONYM.search(value) is not None
    if isinstance(value, dict):
        table = cast("dict[str, Json]", value)
        return any(PSEUDONYM.search(key) or conceals(item) for key, item in table.items())
    return isinstance(value, list) and any(conceals(item) for item in cast("list[Json]", value))


def _class_of(value: Json) -> str | None:
    """The class of a value of which nothing but the pseudonym is left."""
    return class_of(value) or None if isinstance(value, str) else None


@dataclass(kw_only=True, slots=True)
class Gaps:
    """What can't be told of one call: places that were concealed, and places of which nothing is known, with why."""

    concealed: set[Place] = field(default_factory=set[Place])
    unknown: dict[Place, str] = field(default_factory=dict[Place, str])

    def __bool__(self) -> bool:
        return bool(self.concealed or self.unknown)


def gaps_in(facts: Facts) -> Gaps:
    """The concealed places of a call."""
    found = Gaps()
    for name, value in facts.args.items():
        found.concealed.update(_concealed(value, ("context", "args", name)))
        if PSEUDONYM.search(name):
            found.unknown["context", "args"] = "in which a name is concealed"
    found.concealed.update(
        ("context", "facts", name) for name, value in facts.session.items() if isinstance(value, str) and conceals(value)
    )
    if facts.on_behalf_of is not None and conceals(facts.on_behalf_of):
        found.concealed.add(("context", "on_behalf_of"))
    resource = facts.resource
    found.concealed.update(("resource", name) for name, value in resource.attributes.items() if conceals(value))
    if conceals(resource.id):
        found.concealed.add(_ID)
    return found


def _concealed(value: Json, place: Place) -> Iterator[Place]:
    if isinstance(value, dict):
        for name, item in cast("dict[str, Json]", value).items():
            if PSEUDONYM.search(name):
                yield place
            yield from _concealed(item, (*place, name))
    elif conceals(value):
        yield place


def without(facts: Mapping[str, Any], places: Collection[Place], root: Place) -> dict[str, Any]:
    """A mapping that stands at `root` without what lies at `places`."""
    kept: dict[str, Any] = {}
    for name, value in facts.items():
        place = (*root, name)
        if place in places:
            continue
        below = isinstance(value, dict) and any(each[: len(place)] == place for each in places)
        kept[name] = without(cast("dict[str, Any]", value), places, place) if below else value
    return kept


# What rules ask


@dataclass(frozen=True, kw_only=True)
class _Asks:
    """What a rule reads: places whose presence it asks for too, those whose value it needs, and pairs it compares."""

    touched: tuple[Place, ...]
    needed: tuple[Place, ...]
    compared: tuple[tuple[Place, Place], ...]
    by_id: bool
    """Whether it is about one named object."""


def _asks(rule: Rule) -> _Asks:
    touched: list[Place] = []
    needed: list[Place] = []
    compared: list[tuple[Place, Place]] = []
    for clause in rule.template.clauses:
        for place, kind in _walk(clause.expr, compared):
            touched.append(place)
            if kind == "value":
                needed.append(place)
    by_id = not isinstance(rule.template.resource, pst.ScopeAny | pst.ScopeIs)
    return _Asks(touched=tuple(touched), needed=tuple(needed), compared=tuple(compared), by_id=by_id)


def _walk(expr: pst.Expr, compared: list[tuple[Place, Place]]) -> Iterator[tuple[Place, str]]:
    place = _place(expr)
    if place is not None:
        yield place, "presence" if isinstance(expr, pst.HasAttr) else "value"
        return
    if isinstance(expr, pst.BinaryOp) and expr.op in ("eq", "not_eq"):
        left, right = _place(expr.left), _place(expr.right)
        if left is not None and right is not None:
            compared.append((left, right))
            yield from ((left, "compared"), (right, "compared"))
            return
    for part in parts_of(expr):
        yield from _walk(part, compared)


def _place(expr: pst.Expr) -> Place | None:
    for variable in VARIABLES:
        path = path_of(expr, variable)
        if path is not None:
            return (variable, *path)
    return None


class Sight:
    """What the rules about one tool ask for, made ready once."""

    def __init__(self, side: ToolRules) -> None:
        self._asks = {rule.id: _asks(rule) for rule in side.rules.values()}

    def blind(self, facts: Facts, gaps: Gaps, *, pruned: bool) -> dict[str, str]:
        """The rules that can't be answered, each with what it lacks. `pruned`: nothing concealed was put to Cedar."""
        lacking = ((rule, _lacks(asks, facts, gaps, pruned)) for rule, asks in self._asks.items())
        return {rule: why for rule, why in lacking if why}


def _lacks(asks: _Asks, facts: Facts, gaps: Gaps, pruned: bool) -> str:
    for place in asks.touched:
        for unknown, why in gaps.unknown.items():
            if _meet(place, unknown):
                return f"`{'.'.join(unknown)}`, {why}"
    needed: Iterable[Place] = asks.needed
    if pruned:
        needed = asks.touched
    else:
        for pair in asks.compared:
            if any(_meet(place, each) for place in pair for each in gaps.concealed):
                one, other = (_class_of(_value(facts, place)) for place in pair)
                if one is None or one != other:
                    return f"`{'.'.join(pair[0])}`, which is concealed"
    for place in needed:
        for concealed in gaps.concealed:
            if _meet(place, concealed):
                return f"`{'.'.join(concealed)}`, which is concealed"
    if asks.by_id and _ID in gaps.concealed:
        return "the object's id, which is concealed"
    return ""


def _meet(one: Place, other: Place) -> bool:
    """Whether one place lies in the other, or is it."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _value(facts: Facts, place: Place) -> Json:
    roots: Mapping[Place, Any] = {("context", "args"): facts.args, ("context", "facts"): facts.session}
    if place[0] == "resource":
        return facts.resource.attributes.get(place[1]) if len(place) == 2 else None
    if place == ("context", "on_behalf_of"):
        return facts.on_behalf_of
    found: Any = roots.get(place[:2])
    for name in place[2:]:
        found = cast("Mapping[str, Any]", found).get(name) if isinstance(found, Mapping) else None
    return found


# Facts over calls whose values were concealed


def doubtful(facts: Mapping[str, Fact], past: Iterable[PastCall], args: Mapping[str, Json]) -> Iterator[str]:
    """The facts that concealed values leave open: an unequal pair may be equal, and nothing can be summed up."""
    calls = list(past)
    for name, fact in facts.items():
        if not fact.where and fact.sum is None:
            continue
        tool = tool_of(fact)
        if any(call.tool == tool and _is_open(fact, call, args) for call in calls):
            yield name


def _is_open(fact: Fact, call: PastCall, args: Mapping[str, Json]) -> bool:
    if fact.outcome not in ("any", call.outcome):
        return False
    pairs = [(_at(call.args, there), _at(args, here.removeprefix("args."))) for there, here in fact.where.items()]
    if any(one != other and not (conceals(one) or conceals(other)) for one, other in pairs):
        return False
    if any(one != other for one, other in pairs):
        return True
    if fact.sum is None:
        return False
    side, _, path = (fact.of or "").partition(".")
    return conceals(_at(call.args if side == "args" else call.result, path))


def _at(value: Json, path: str) -> Json:
    for name in path.split("."):
        value = cast("Mapping[str, Json]", value).get(name) if isinstance(value, Mapping) else None
    return value

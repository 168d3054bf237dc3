"""Session facts: what a contract wants to know of the run's own record when a call is decided.

Facts stay values: they are computed here, from the record alone, become attributes (`context.facts.<name>`), and
are recorded with the decision. One pass over the record serves all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import zip_longest
from typing import Any, cast

import msgspec

from remit.contracts.model import Fact
from remit.contracts.quantities import duration_ms
from remit.policy.facts import LONGS, exact_units
from remit.values import Json

_NOTHING = object()
_ANY = "any"

FactValue = bool | int | Decimal | str
Parts = tuple[str, ...]
"""A dotted path, taken apart."""


class PastCall(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier call of the run: `outcome` as a fact names it (`completed`, `denied`, …), `at_us` since the epoch."""

    tool: str
    outcome: str
    args: Mapping[str, Json]
    result: Json
    at_us: int


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A fact made ready once; `equal`: path in the earlier call's arguments, path in this call's."""

    name: str
    outcome: str
    within_us: int | None
    equal: tuple[tuple[Parts, Parts], ...]


class SessionFacts:
    """The facts of a contract, made ready to be told of any call."""

    def __init__(self, facts: Mapping[str, Fact]) -> None:
        self._by_tool: dict[str, list[_Asked]] = {}
        for name, fact in facts.items():
            self._by_tool.setdefault(tool_of(fact), []).append(_asked(name, fact))
        self._facts = facts

    def of(self, past: Sequence[PastCall], args: Mapping[str, Json], at_us: int) -> dict[str, FactValue]:
        """The facts for a call with `args` at `at_us`, over the run's earlier calls, oldest first.

        Calls correlate where the paths of `where` hold equal values; a path that leads nowhere, or to null, equals
        nothing. A fact that can't be told exactly is absent: a `last` without a call, a sum over several currencies
        or over what is no number. Takes time in proportion to the record.
        """
        found: dict[str, list[PastCall]] = {name: [] for name in self._facts}
        if not found:
            return {}
        for call in past:
            for asked in self._by_tool.get(call.tool, ()):
                if _counts(asked, call, args, at_us):
                    found[asked.name].append(call)
        values = ((name, _value(self._facts[name], calls)) for name, calls in found.items())
        return {name: value for name, value in values if value is not None}


def tool_of(fact: Fact) -> str:
    """The tool whose earlier calls a fact is about."""
    return fact.seen or fact.count or fact.sum or fact.last or ""


def _asked(name: str, fact: Fact) -> _Asked:
    within_us = None if fact.within is None else duration_ms(fact.within) * 1_000
    equal = tuple((_parts(path), _parts(here.removeprefix("args."))) for path, here in fact.where.items())
    return _Asked(name=name, outcome=fact.outcome, within_us=within_us, equal=equal)


def _counts(asked: _Asked, call: PastCall, args: Mapping[str, Json], at_us: int) -> bool:
    if asked.outcome not in (_ANY, call.outcome):
        return False
    if asked.within_us is not None and call.at_us < at_us - asked.within_us:
        return False
    return not asked.equal or all(_same(_at(call.args, there), _at(args, here)) for there, here in asked.equal)


def _value(fact: Fact, calls: Sequence[PastCall]) -> FactValue | None:
    if fact.seen is not None:
        return bool(calls)
    if fact.count is not None:
        return len(calls)
    values = [_of(fact.of or "", call) for call in calls]
    if fact.sum is not None:
        return _sum(values)
    return _scalar(values[-1]) if values else None


def _of(path: str, call: PastCall) -> Json:
    side, _, rest = path.partition(".")
    return _at(call.args if side == "args" else call.result, _parts(rest))


def _sum(values: Sequence[Json]) -> int | Decimal | None:
    """Their exact sum: a whole number of whole numbers, otherwise a decimal; `None` where there is none."""
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        total = sum(values)
        return total if total in LONGS else None
    amounts = [_amount(value) for value in values]
    currencies = {currency for _, currency in amounts}
    try:
        units = sum(exact_units(number) for number, _ in amounts)
    except ValueError:
        return None
    return Decimal(units).scaleb(-4) if len(currencies) == 1 and units in LONGS else None


def _amount(value: Json) -> tuple[Json, Json]:
    """A number and its currency, which plain numbers and decimals lack."""
    if not isinstance(value, Mapping):
        return value, None
    money = cast("Mapping[str, Json]", value)
    return (money.get("amount"), money["currency"]) if "currency" in money else (None, None)


def _scalar(value: Json) -> FactValue | None:
    """A value that a fact can hold, numbers exactly; `None` where it can't."""
    if isinstance(value, float):
        try:
            return Decimal(exact_units(value)).scaleb(-4)
        except ValueError:
            return None
    return value if isinstance(value, bool | int | str) else None


def _parts(path: str) -> Parts:
    return tuple(path.split("."))


def _at(value: Json, path: Parts) -> Json:
    """What a path leads to; `None` where it leads nowhere."""
    for name in path:
        value = cast("Mapping[str, Json]", value).get(name) if isinstance(value, Mapping) else None
    return value


def _same(one: Json, other: Json) -> bool:
    """Whether both are there and equal as JSON Schema has it: `1` equals `1.0`, and neither equals `true`."""
    return one is not None and other is not None and _equal(one, other)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        pairs = zip_longest(cast("list[Json]", one), cast("list[Json]", other), fillvalue=_NOTHING)
        return all(_equal(left, right) for left, right in pairs)
    if isinstance(one, dict) and isinstance(other, dict):
        left, right = cast("dict[str, Json]", one), cast("dict[str, Json]", other)
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    return bool(one == other)

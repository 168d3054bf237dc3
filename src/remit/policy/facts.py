"""Facts: everything about one call that a policy may ask, and their form as a Cedar context.

No float reaches a decision. A whole number is a `Long`, a number with decimals an exact `decimal` of four places,
money a record of a decimal and its currency. What has no exact form is refused, and so is what is not of the type
that the policies were checked against. Only what a policy reads is converted, so nothing else can stop a call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from operator import attrgetter
from typing import Any, Final, Literal, NoReturn, cast

import msgspec

from remit.contracts.quantities import decimal_units, units_text
from remit.policy.cedar_schema import ActionType, CedarType, Record, Scalar, SetOf
from remit.tools.spec import Resource
from remit.values import Json, Path, ValueRefused, show_path

WHOLE: Final = "whole"
Reads = Mapping[str, "Reads"] | Literal["whole"]
"""Which parts of a record are read: attribute → parts of it, or `WHOLE`; an empty mapping is nothing."""

_DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,4}0*)?", re.ASCII)
LONGS = range(-(2**63), 2**63)
"""The whole numbers that Cedar has."""
_HOUR_US, _DAY_US = 3_600 * 10**6, 86_400 * 10**6


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One call as policy sees it.

    `fields`: names of the fields that the call writes. `labels`: argument path as `show_path` writes it → where
    that value came from; an argument without an entry counts as the model's own. `classes`: kinds of data in the
    arguments. `session`: the contract's facts by name; one that can't be told is absent. `budget_left`: `calls`,
    `writes`, `spend_microusd`. `attempt` counts from 1. `at_us`: microseconds since the epoch.
    """

    principal: str
    tenant: str
    region: str | None
    contract: str
    on_behalf_of: str | None
    tool: str
    resource: Resource
    args: Mapping[str, Json]
    fields: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    classes: tuple[str, ...]
    autonomy: str
    session: Mapping[str, bool | int | Decimal | str]
    budget_left: Mapping[str, int]
    attempt: int
    run_calls: int
    at_us: int


class ContextShape:
    """What the policies about one tool read of a call, made ready once: of which facts, converted how."""

    def __init__(self, type_: ActionType, reads: Reads = WHOLE) -> None:
        names: Iterable[str] = type_.context.attributes if isinstance(reads, str) else reads
        origins = reads if isinstance(reads, str) else reads.get("from")
        self._origins = None if origins is None else tuple(type_.origins if isinstance(origins, str) else origins)
        self._sources = tuple((name, _SOURCES[name]) for name in names if name in _SOURCES)
        self._convert = record_converter(type_.context, reads)

    def of(self, facts: Facts) -> dict[str, Json]:
        """The Cedar context of a call, as plain JSON, narrowed to what is read. What is null or absent is left out.

        Raises `ValueRefused` for a value that is read and has no exact form in Cedar.
        """
        raw = {name: source(facts) for name, source in self._sources}
        if self._origins is not None:
            raw["from"] = _origins(facts, self._origins)
        return self._convert(raw, ())


def _time(at_us: int) -> dict[str, int]:
    # The epoch began on a Thursday, the fourth day of the week.
    return {
        "hour": at_us // _HOUR_US % 24,
        "weekday": (at_us // _DAY_US + 3) % 7 + 1,
        "epoch_ms": at_us // 1_000,
    }


_SOURCES: Mapping[str, Callable[[Facts], Any]] = {
    **{
        name: attrgetter(name)
        for name in ["args", "fields", "classes", "tenant", "region", "autonomy", "on_behalf_of", "budget_left", "attempt", "run_calls"]
    },
    "facts": attrgetter("session"),
    "time": lambda facts: _time(facts.at_us),
}
"""Where each part of the context comes from; `from` is made of the labels."""


def _origins(facts: Facts, names: Iterable[str]) -> dict[str, list[str]]:
    """For each argument, or dotted path of one: the labels of all that lies in it, and their kinds."""
    found: dict[str, list[str]] = {}
    for name in names:
        below = (f"{name}.", f"{name}[")
        labels = {
            label for path, labels in facts.labels.items() if path == name or path.startswith(below) for label in labels
        }
        if not labels and _argument(facts.args, name) is not None:
            labels = {"model"}
        found[name] = sorted(labels | {label.partition(":")[0] for label in labels})
    return found


def _argument(args: Mapping[str, Json], name: str) -> Json:
    """The argument of that name, or what the dotted path leads to inside one."""
    if name in args:
        return args[name]
    found: Json = args
    for part in name.split("."):
        found = cast("Mapping[str, Json]", found).get(part) if isinstance(found, Mapping) else None
    return found


Convert = Callable[[Any, Path], Json]
"""A value as Cedar's JSON has it; the path is for the message of the `ValueRefused` that it raises."""


def record_converter(type_: Record, reads: Reads) -> Callable[[Mapping[str, Any], Path], dict[str, Json]]:
    """What makes a Cedar record in JSON of values, narrowed to `reads`; null is left out."""
    inner: Mapping[str, Reads] = dict.fromkeys(type_.attributes, WHOLE) if isinstance(reads, str) else reads
    known = {name: attribute.type for name, attribute in type_.attributes.items() if name in inner}
    parts = tuple((name, _converter(known[name], part)) for name, part in inner.items() if name in known)

    def convert(values: Mapping[str, Any], path: Path) -> dict[str, Json]:
        made: dict[str, Json] = {}
        for name, part in parts:
            value = values.get(name)
            if value is not None:
                made[name] = part(value, (*path, name))
        return made

    return convert


def _converter(type_: CedarType, reads: Reads) -> Convert:
    match type_:
        case Record():
            return _of_kind(Mapping, record_converter(type_, reads))
        case SetOf():
            return _of_kind(list | tuple, _set_converter(_converter(type_.element, WHOLE)))
        case Scalar(name="Long"):
            return _long
        case Scalar(name="decimal"):
            return _decimal
        case Scalar(name="String"):
            return _of_kind(str, _as_it_is)
        case Scalar():
            return _of_kind(bool, _as_it_is)


def _of_kind(kind: Any, convert: Convert) -> Convert:
    def checked(value: Any, path: Path) -> Json:
        return convert(value, path) if isinstance(value, kind) else _refuse(path, "of the type that is declared")

    return checked


def _as_it_is(value: Any, _path: Path) -> Json:
    return value


def _set_converter(element: Convert) -> Convert:
    return lambda value, path: [element(item, (*path, i)) for i, item in enumerate(value)]


def _long(value: Any, path: Path) -> Json:
    if not isinstance(value, int) or isinstance(value, bool):
        _refuse(path, "a whole number without a decimal point")
    return value if value in LONGS else _refuse(path, "a whole number of 64 bits")


def _decimal(value: Any, path: Path) -> Json:
    try:
        return {"__extn": {"fn": "decimal", "arg": units_text(exact_units(value))}}
    except ValueError:
        return _refuse(path, "a number of at most four decimals")


def exact_units(value: Any) -> int:
    """A number, or a decimal written as text, in ten-thousandths. Raises `ValueError` if that is not exact."""
    match value:
        case bool():
            raise ValueError("a truth value is no number")
        case float():
            # The shortest text that reads back as the same float is the number that was written.
            number = Decimal(repr(value))
        case int() | Decimal():
            number = Decimal(value)
        case str() if _DECIMAL.fullmatch(value):
            number = Decimal(value)
        case _:
            raise ValueError("not a number")
    return decimal_units(number)


def _refuse(path: Path, wanted: str) -> NoReturn:
    place = show_path(path[1:] if path[0] == "args" else path)
    raise ValueRefused(f"`{place}` must be {wanted} for policy to judge it")


def joined(one: Reads, other: Reads) -> Reads:
    """All that either of the two reads."""
    if isinstance(one, str) or isinstance(other, str):
        return WHOLE
    return {name: joined(one.get(name, {}), other.get(name, {})) for name in sorted(one.keys() | other.keys())}


def unrecorded(wanted: Reads, recorded: Reads, path: str = "") -> tuple[str, ...]:
    """The dotted paths that are `wanted` and were not recorded: a decision over them is undetermined."""
    if isinstance(recorded, str):
        return ()
    if isinstance(wanted, str):
        return (path or "context",)
    place = f"{path}." if path else ""
    missing = (unrecorded(inner, recorded.get(name, {}), place + name) for name, inner in wanted.items())
    return tuple(each for part in missing for each in part)

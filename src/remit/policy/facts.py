"""Facts: everything about one call that a policy may ask, and their form as a Cedar context.

No float reaches a decision. A whole number is a `Long`, a number with decimals an exact `decimal` of four places,
money a record of a decimal and its currency. What has no exact form is refused, and so is what is not of the type
that the policies were checked against. Only what a policy reads is converted, so nothing else can stop a call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, NoReturn, cast

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


@dataclass(frozen=True, kw_only=True)
class Facts:
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


def context(facts: Facts, type_: ActionType, reads: Reads = WHOLE) -> dict[str, Json]:
    """The Cedar context of a call, as plain JSON, narrowed to `reads`. What is null or absent is left out.

    Raises `ValueRefused` for a value that is read and has no exact form in Cedar.
    """
    raw: dict[str, Any] = {
        "args": facts.args,
        "fields": facts.fields,
        "classes": facts.classes,
        "tenant": facts.tenant,
        "region": facts.region,
        "autonomy": facts.autonomy,
        "on_behalf_of": facts.on_behalf_of,
        "facts": facts.session,
        "budget_left": facts.budget_left,
        "attempt": facts.attempt,
        "run_calls": facts.run_calls,
        "time": _time(facts.at_us),
    }
    wanted = reads if reads == WHOLE else reads.get("from")
    if wanted is not None:
        raw["from"] = _origins(facts, type_.origins if isinstance(wanted, str) else wanted)
    return converted(raw, type_.context, reads, ())


def _time(at_us: int) -> dict[str, int]:
    # The epoch began on a Thursday, the fourth day of the week.
    return {
        "hour": at_us // _HOUR_US % 24,
        "weekday": (at_us // _DAY_US + 3) % 7 + 1,
        "epoch_ms": at_us // 1_000,
    }


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


def converted(values: Mapping[str, Any], type_: Record, reads: Reads, path: Path) -> dict[str, Json]:
    """Values as a Cedar record in JSON, narrowed to `reads`; null is left out. `path` is for the message.

    Raises `ValueRefused`.
    """
    made: dict[str, Json] = {}
    whole = isinstance(reads, str)
    for name in type_.attributes if whole else reads:
        attribute, value = type_.attributes.get(name), values.get(name)
        if attribute is not None and value is not None:
            made[name] = _value(value, attribute.type, WHOLE if whole else reads[name], (*path, name))
    return made


def _value(value: Any, type_: CedarType, reads: Reads, path: Path) -> Json:
    match type_:
        case Record() if isinstance(value, Mapping):
            return converted(cast("Mapping[str, Any]", value), type_, reads, path)
        case SetOf() if isinstance(value, list | tuple):
            items = enumerate(cast("list[Any]", value))
            return [_value(item, type_.element, WHOLE, (*path, i)) for i, item in items]
        case Scalar(name="String") if isinstance(value, str):
            return value
        case Scalar(name="Bool") if isinstance(value, bool):
            return value
        case Scalar(name="Long") if isinstance(value, int) and not isinstance(value, bool):
            return value if value in LONGS else _refuse(path, "a whole number of 64 bits")
        case Scalar(name="decimal"):
            return _decimal(value, path)
        case Scalar(name="Long"):
            return _refuse(path, "a whole number without a decimal point")
        case _:
            return _refuse(path, "of the type that is declared")


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


def narrowed(value: Json, reads: Reads) -> Json:
    """The parts of a context, or of an object's attributes, that are read. Only records have parts."""
    if isinstance(reads, str) or not isinstance(value, dict):
        return value  # pyright: ignore[reportUnknownVariableType]
    parts = cast("dict[str, Json]", value)
    # A decimal is written as an object too; no record has an attribute of that name.
    if "__extn" in parts:
        return parts
    return {name: narrowed(parts[name], inner) for name, inner in reads.items() if name in parts}


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

"""3. Well-formed: the arguments are acceptable JSON and meet the tool's strict schema. A failure may be corrected."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from hashlib import sha256
from itertools import islice
from typing import Any, cast

from msgspec.structs import replace

from remit.contracts.quantities import decimal_units
from remit.gate.arguments import digest_of
from remit.gate.call import Call, RunState
from remit.gate.verdicts import Reject
from remit.limits.rules import Demand
from remit.provenance.labels import pattern
from remit.tools.schemas import nodes_at
from remit.tools.spec import ToolSpec
from remit.values import MAX_BYTES, Json, Path, ValueRefused, decode, encode, leaves, show_path

_MOST_ERRORS = 5


def well_formed(call: Call, run: RunState) -> Call | Reject:
    tool = call.tool
    assert tool is not None
    proposed: Any = call.proposal.args
    if type(proposed) is not dict:
        return Reject(code="arguments_invalid", message="arguments are an object of names and values")
    try:
        found = list(leaves(proposed))
    except ValueRefused as error:
        return Reject(code="arguments_invalid", message=error.message)
    encoded = encode(proposed)
    if len(encoded) > MAX_BYTES:
        message = f"{len(encoded):,} bytes of arguments are more than the {MAX_BYTES:,} allowed"
        return Reject(code="too_large", message=message)
    # From here on the gate has a copy of its own: what the agent changes in its object later on was never proposed.
    args: dict[str, Json] = decode(encoded)
    if not tool.spec.input_validator.is_valid(args):
        problems = "; ".join(_explain(tool.spec.input_validator.iter_errors(args)))
        return Reject(code="arguments_invalid", message=problems)
    for path, leaf in found:
        if type(leaf) is float and _is_whole(tool.spec, path):
            message = f"`{show_path(path)}` is a whole number; write it without a decimal point"
            return Reject(code="arguments_invalid", message=message)
    try:
        demand = _demand(tool.spec, args, run.authority.spends.get(tool.spec.name, 0))
    except ValueError as error:
        return Reject(code="arguments_invalid", message=f"`{tool.spec.money}`: {error}")
    args_digest = digest_of(encoded, run.redactor, run.plain_digests)
    return replace(
        call,
        args=args,
        leaves=found,
        args_digest=args_digest,
        key=sha256(f"{run.run}\0{call.proposal.step}\0{args_digest}".encode()).hexdigest()[:32],
        demand=demand,
        fields=_fields(tool.spec, args),
    )


def _is_whole(spec: ToolSpec, path: Path) -> bool:
    """Whether only integers may stand there. JSON Schema takes `1.0` for one, which a strict tool does not."""
    kinds = [node["type"] for node in nodes_at(spec.input_schema, pattern(path)) if "type" in node]
    return any("integer" in kind for kind in kinds) and not any("number" in kind for kind in kinds)


def _explain(errors: Iterable[Any]) -> list[str]:
    """The first few errors, each with its place, in a form that a model can act on."""
    return [f"`{show_path(tuple(e.instance_path))}`: {_shorten(e.message)}" for e in islice(errors, _MOST_ERRORS)]


def _shorten(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:120]} … {text[-60:]}"


def at_path(args: Json, path: str) -> Json:
    """The value at a dotted path, or `None` where there is none."""
    found: Any = args
    for part in path.split("."):
        if not isinstance(found, dict) or part not in found:
            return None
        found = cast("dict[str, Json]", found)[part]
    return found


def _fields(spec: ToolSpec, args: dict[str, Json]) -> tuple[str, ...]:
    written = at_path(args, spec.written) if spec.written else None
    return tuple(sorted(cast("dict[str, Json]", written))) if isinstance(written, dict) else ()


def _demand(spec: ToolSpec, args: dict[str, Json], spend: int) -> Demand:
    """What the call uses of each limited quantity."""
    rows = at_path(args, spec.rows) if spec.rows else None
    money, currency = 0, ""
    if spec.money:
        moved: Any = at_path(args, spec.money)
        if moved is not None:
            money, currency = decimal_units(Decimal(moved["amount"])), str(moved["currency"])
            if money < 0:
                raise ValueError("an amount to move is not negative")
    return Demand(
        writes=1 if spec.is_write else 0,
        rows=len(cast("list[Json]", rows)) if isinstance(rows, list) else (1 if spec.is_write else 0),
        money=money,
        currency=currency,
        spend=spend,
    )

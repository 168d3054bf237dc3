"""The least that recorded runs would have needed: a contract and rules, with the evidence for each line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from remit.backtest.evidence import Evidence, ToolUse, Values
from remit.backtest.rules import ToolRules
from remit.backtest.terms import Terms, terms_of
from remit.contracts.model import Action, ActionLimits, Contract, Only
from remit.contracts.quantities import MICROUSD_PER_UNIT, amount, duration_ms, units_text
from remit.policy.annotations import Rule, read_rules
from remit.policy.cedar_schema import DECIMAL, LONG, STRING, CedarType, SetOf
from remit.policy.compile import literal
from remit.policy.facts import exact_units
from remit.policy.session import tool_of

ENOUGH = 10
"""From so many calls on, what an argument held says something about what it is for."""
_EACH = 5
"""How often each choice must have been made, on average."""
_NEVER = ActionLimits(per_run=0)


@dataclass(frozen=True, kw_only=True)
class Inferred:
    """A rule that holds what was seen, and what it rests on."""

    id: str
    cedar: str
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Narrowed:
    """A contract and its rules. `why`: what each line rests on, by its place, such as `("actions", "orders.read")`."""

    terms: Terms
    kept: Sequence[Rule]
    """Rules of the present policy.cedar that still say something."""
    inferred: Sequence[Inferred]
    why: Mapping[tuple[str, ...], str]


@dataclass(kw_only=True)
class _Making:
    """What is being put together."""

    terms: Terms
    evidence: Evidence
    why: dict[tuple[str, ...], str] = field(default_factory=dict[tuple[str, ...], str])


def narrowed(terms: Terms, evidence: Evidence) -> Narrowed:
    """The least of `terms` that admits what was done: for the same runs, nothing would have been denied."""
    making = _Making(terms=terms, evidence=evidence)
    own, _ = read_rules(terms.policy_text)
    unused = frozenset(action.tool for action in terms.contract.actions) - evidence.tools.keys()
    # What only unused tools are about goes with them; what else names one needs it to be granted, if never.
    kept = [rule for rule in own if rule.actions is None or not rule.actions <= unused]
    named = frozenset[str]().union(*(rule.actions or frozenset() for rule in kept))
    named |= {tool_of(fact) for fact in terms.contract.facts.values()}
    actions = [action for each in terms.contract.actions if (action := _action(each, making, named)) is not None]
    contract = msgspec.structs.replace(terms.contract, actions=actions, budget=_budget(making))
    inferred = [rule for action in actions for rule in _rules(action.tool, making)]
    text = "\n\n".join([*(rule.statement.text for rule in kept), *(rule.cedar for rule in inferred)])
    made = terms_of(contract, terms.specs, text, tenant_limits=terms.tenant_limits)
    return Narrowed(terms=made, kept=kept, inferred=inferred, why=making.why)


def _times(count: int, what: str = "call") -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _action(action: Action, making: _Making, named: frozenset[str]) -> Action | None:
    use = making.evidence.tools.get(action.tool)
    place = ("actions", action.tool)
    if use is None:
        if action.tool not in named:
            return None
        making.why[place] = "never called; a rule or a fact names it, so it is granted and may not be used"
        return msgspec.structs.replace(action, limits=_NEVER)
    run, _, step = use.example.partition(" ")
    making.why[place] = f"{_times(use.calls)} in {_times(use.runs, 'run')}, such as {run} step {step}"
    rates = {name: busiest.most for name, busiest in use.busiest.items() if making.evidence.tells_of(name)}
    told = [f"at most {use.per_run} in one run", *(f"{most} in one {name}" for name, most in rates.items())]
    making.why[*place, "limits"] = ", ".join(told)
    limits = action.limits
    for name, most in {"run": use.per_run, **rates}.items():
        # Never wider than it is.
        present: int | None = getattr(limits, f"per_{name}")
        limits = msgspec.structs.replace(limits, **{f"per_{name}": most if present is None else min(present, most)})
    return msgspec.structs.replace(action, only=_only(action, use, making), limits=limits)


def _only(action: Action, use: ToolUse, making: _Making) -> Only:
    only, place = action.only, ("actions", action.tool, "only")
    said: list[str] = []
    fields = [name for name in only.fields if use.fields[name]]
    if only.fields:
        said.append("written: " + ", ".join(f"{name} {_times(use.fields[name], 'time')}" for name in fields))
    regions = [name for name in only.region if use.regions[name]] or only.region
    attributes = {**only.attributes}
    for name, values in use.attributes.items():
        value = _constant(values, use)
        if name not in attributes and value is not None:
            attributes[name] = value
            said.append(f"{name} was {str(value).lower()} {_times(values[value], 'time')}")
    if said:
        making.why[place] = "; ".join(said)
    return msgspec.structs.replace(only, fields=fields, region=regions, attributes=attributes)


def _constant(values: Counter[Any], use: ToolUse) -> bool | None:
    """The truth value that an attribute always had, if that was often enough to mean something."""
    (value,) = values if len(values) == 1 else (None,)
    return value if isinstance(value, bool) and use.calls >= ENOUGH and values[value] == use.calls else None


def _budget(making: _Making) -> Any:
    found, budget = making.evidence, making.terms.contract.budget
    minutes = -(-found.time_us // 60_000_000)
    for name, most in (("calls", found.calls), ("writes", found.writes)):
        making.why["budget", name] = f"{name}: at most {most}, in {found.examples.get(name, 'no run')}"
    if found.time_us:
        making.why["budget", "time"] = f"time: {found.time_us / 1e6:.1f} s in {found.examples['time_us']}"
    units = -(-found.spend // MICROUSD_PER_UNIT)
    return msgspec.structs.replace(
        budget,
        calls=min(budget.calls, found.calls),
        writes=min(budget.writes, found.writes),
        spend=f"{units_text(min(units, amount(budget.spend).units))} USD",
        time=f"{minutes}m" if 0 < minutes * 60_000 < duration_ms(budget.time) else budget.time,
    )


# Rules over arguments


def _rules(tool: str, making: _Making) -> Iterator[Inferred]:
    use = making.evidence.tools.get(tool)
    side = making.terms.tools.get(tool)
    if use is None or side is None:
        return
    yield from _origins(tool, use, side)
    for name, attribute in side.granted.type.args.attributes.items():
        values = use.values.get(name)
        if values is None or values.concealed or use.calls < ENOUGH:
            continue
        condition = _held_in(name, attribute.type, values, side)
        if condition is None:
            continue
        cedar, evidence = condition
        guard = "" if attribute.required else f"{_has(name)} && "
        yield _forbid(f"used:{tool}:{name}", tool, f"when {{ {guard}!({cedar}) }}", evidence)


def _origins(tool: str, use: ToolUse, side: ToolRules) -> Iterator[Inferred]:
    for name, kinds in use.origins.items():
        unseen = [kind for kind in ("untrusted", "model") if not kinds[kind]]
        if not unseen or kinds.total() < ENOUGH:
            continue
        place = f"context.from[{literal(name)}]"
        told = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        attribute = side.granted.type.args.attributes.get(name)
        there = f"{_has(name)} && " if attribute is not None and not attribute.required else ""
        cedar = " || ".join(f"{place}.contains({literal(kind)})" for kind in unseen)
        yield _forbid(f"origin:{tool}:{name}", tool, f"when {{ {there}({cedar}) }}", f"came from: {told}")


def _held_in(name: str, type_: CedarType, values: Values, side: ToolRules) -> tuple[str, str] | None:
    """A condition that all seen values meet, and what it rests on; `None` where they say nothing."""
    place = f"context.args[{literal(name)}]"
    if type_ in (LONG, DECIMAL) and values.least is not None and values.greatest is not None:
        if name not in side.spec.authority and (values.is_open or len(values.numbers) * 2 > values.present):
            # As many different ones as calls: a number of something, not an amount of it.
            return None
        return _range(place, type_, values)
    choices = values.texts
    if values.is_open or not choices or choices.total() < _EACH * len(choices):
        return None
    listed = ", ".join(literal(text) for text in sorted(choices))
    told = ", ".join(f"{text[:40]!r} {count}" for text, count in choices.most_common(5))
    if type_ == STRING:
        return f"[{listed}].contains({place})", f"one of {len(choices)}: {told}"
    if type_ == SetOf(element=STRING):
        return f"[{listed}].containsAll({place})", f"among {len(choices)}: {told}"
    return None


def _range(place: str, type_: CedarType, values: Values) -> tuple[str, str] | None:
    told = f"from {values.least} to {values.greatest}, {_times(values.present, 'time')}"
    if type_ == LONG:
        return f"{place} >= {values.least} && {place} <= {values.greatest}", told
    try:
        least, greatest = (units_text(exact_units(end)) for end in (values.least, values.greatest))
    except ValueError:
        return None
    above = f'{place}.greaterThanOrEqual(decimal("{least}"))'
    return f'{above} && {place}.lessThanOrEqual(decimal("{greatest}"))', told


def _has(name: str) -> str:
    return f"context.args has {literal(name)}"


def _forbid(id_: str, tool: str, when: str, evidence: str) -> Inferred:
    head = f"forbid (principal, action == Action::{literal(tool)}, resource)"
    reason = "no recorded run has done this"
    cedar = f"// {evidence}\n@id({literal(id_)}) @reason({literal(reason)})\n{head}\n{when};"
    return Inferred(id=id_, cedar="".join(c if c.isprintable() or c == "\n" else " " for c in cedar), evidence=evidence)


def describe(contract: Contract) -> dict[str, Any]:
    """A contract as `contract.yaml` says it, without what the project fills in."""
    plain: dict[str, Any] = msgspec.to_builtins(contract)
    return {name: value for name, value in plain.items() if name not in ("tenant", "region")}

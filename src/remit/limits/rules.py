"""Limits as contracts write them, compiled into what one call must charge.

A rate (`per_hour: 40`) becomes a charge on a shared meter; a per-run limit is counted by the run itself, whose events
only one worker can write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from remit.contracts.model import Action, ActionLimits, Contract, Limits
from remit.contracts.quantities import MICROUSD_PER_UNIT, amount, units_text
from remit.limits.meters import Charge, Quantity

_WINDOWS_MS = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitRule:
    """One limit. `window_ms` is 0 where it holds for one run; `scope` is what shares it, `{person}` filled in later."""

    scope: str
    label: str
    quantity: Quantity
    limit: int
    window_ms: int
    currency: str = ""
    meter: str = field(init=False)
    """The key of the meter: scope, quantity and window."""

    def __post_init__(self) -> None:
        # Asked for many times a call, so it is put together once.
        object.__setattr__(self, "meter", f"{self.scope}|{self.quantity}{self.currency}|{self.window_ms}")


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What one call uses of each quantity. `money` is in ten-thousandths of `currency`, `spend` in microdollars."""

    calls: int = 1
    writes: int = 0
    rows: int = 0
    money: int = 0
    currency: str = ""
    spend: int = 0

    def of(self, rule: LimitRule) -> int:
        """What of it falls under a rule. Each quantity is a field of that name; money counts in its own currency only."""
        if rule.quantity is Quantity.MONEY and self.currency != rule.currency:
            return 0
        return self.amount_of(rule.quantity)

    def amount_of(self, quantity: Quantity) -> int:
        """What of it is of a quantity, whatever the currency."""
        found: int = getattr(self, quantity)
        return found


NOTHING = Demand(calls=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionRules:
    """The limits that hold for the calls of one action."""

    per_run: tuple[LimitRule, ...]
    rates: tuple[LimitRule, ...]
    currencies: frozenset[str]
    """Currencies in which money is limited; where this is not empty, no other one may be moved."""


def compile_limits(
    contract: Contract, actions: Iterable[Action], tenant: str, tenant_limits: Limits
) -> Mapping[str, ActionRules]:
    """The rules of `actions`, those of a contract and its models', by tool name."""
    agent = f"agent/{tenant}/{contract.contract}"
    shared = [
        *_limits(contract.limits, agent, "the contract"),
        *_limits(contract.per_person, f"{agent}/{{person}}", "one person"),
        *_limits(tenant_limits, f"tenant/{tenant}", "the tenant"),
    ]
    budget = _budget(contract)
    return {action.tool: _action_rules(action, agent, shared, budget) for action in actions}


def _budget(contract: Contract) -> list[LimitRule]:
    budget = contract.budget
    spend = amount(budget.spend).units * MICROUSD_PER_UNIT
    return [
        _per_run("run", "budget of the run", Quantity.WRITES, budget.writes),
        _per_run("run", "budget of the run", Quantity.SPEND, spend),
    ]


def _per_run(scope: str, label: str, quantity: Quantity, limit: int, currency: str = "") -> LimitRule:
    text = f"{_amount_text(quantity, limit, currency)} per run, {label}"
    return LimitRule(scope=scope, label=text, quantity=quantity, limit=limit, window_ms=0, currency=currency)


def _action_rules(action: Action, agent: str, shared: list[LimitRule], budget: list[LimitRule]) -> ActionRules:
    own = list(_action_limits(action.limits, action.tool, f"{agent}/{action.tool}"))
    rules = own + shared
    return ActionRules(
        per_run=tuple(rule for rule in own + budget if rule.window_ms == 0),
        rates=tuple(rule for rule in rules if rule.window_ms > 0),
        currencies=frozenset(rule.currency for rule in rules if rule.quantity is Quantity.MONEY),
    )


def _action_limits(limits: ActionLimits, tool: str, scope: str) -> Iterable[LimitRule]:
    for name in limits.__struct_fields__:
        value: int | str | None = getattr(limits, name)
        if value is not None:
            prefix, _, span = name.rpartition("per_")
            quantity = Quantity(prefix.rstrip("_") or "calls")
            yield _rule(scope if span != "run" else tool, f"of `{tool}`", quantity, span, value)


def _limits(limits: Limits, scope: str, whose: str) -> Iterable[LimitRule]:
    for name in limits.__struct_fields__:
        value: int | str | None = getattr(limits, name)
        if value is not None:
            prefix, _, span = name.partition("_per_")
            yield _rule(scope, f"of {whose}", Quantity(prefix), span, value)


def _rule(scope: str, whose: str, quantity: Quantity, span: str, value: int | str) -> LimitRule:
    currency = ""
    if isinstance(value, str):
        parsed = amount(value)
        currency = parsed.currency
        value = parsed.units
        if quantity is Quantity.SPEND:
            currency, value = "", value * MICROUSD_PER_UNIT
    if span == "run":
        return _per_run(scope, whose, quantity, value, currency)
    label = f"{_amount_text(quantity, value, currency)} per {span} {whose}"
    return LimitRule(
        scope=scope,
        label=label,
        quantity=quantity,
        limit=value,
        window_ms=_WINDOWS_MS[span],
        currency=currency,
    )


def _amount_text(quantity: Quantity, value: int, currency: str) -> str:
    if quantity is Quantity.MONEY:
        return f"{units_text(value)} {currency}"
    if quantity is Quantity.SPEND:
        return f"{units_text(value // MICROUSD_PER_UNIT)} USD of spend"
    return f"{value} {quantity}"


def charges(rules: ActionRules, demand: Demand, person: str | None) -> tuple[Charge, ...]:
    """What a call must reserve on shared meters. Limits per person hold only where the run acts for one."""
    made: list[Charge] = []
    for rule in rules.rates:
        wanted = demand.of(rule)
        if not wanted:
            continue
        meter = rule.meter
        if "{person}" in meter:
            if person is None:
                continue
            meter = meter.replace("{person}", person)
        made.append(
            Charge(
                meter=meter,
                quantity=rule.quantity,
                label=rule.label,
                limit=rule.limit,
                window_ms=rule.window_ms,
                amount=wanted,
            )
        )
    return tuple(made)


class RunUsage:
    """What one run has used so far of its own limits. Reserved before the record, given back where nothing came of it."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}

    def reserve(self, rules: ActionRules, demand: Demand) -> LimitRule | None:
        """Take what the call needs, or nothing and return the limit that has no room."""
        used: dict[str, int] = {}
        for rule in rules.per_run:
            used[rule.meter] = self._used.get(rule.meter, 0) + demand.of(rule)
            if used[rule.meter] > rule.limit:
                return rule
        self._used.update(used)
        return None

    def take(self, rules: ActionRules, demand: Demand) -> None:
        """Take what a call needs, whatever room there is: it is known to have been carried out."""
        for rule in rules.per_run:
            self._used[rule.meter] = self._used.get(rule.meter, 0) + demand.of(rule)

    def release(self, rules: ActionRules, demand: Demand) -> None:
        if demand == NOTHING:
            return
        for rule in rules.per_run:
            self._used[rule.meter] = self._used.get(rule.meter, 0) - demand.of(rule)

    def used(self, quantity: Quantity) -> int:
        """How much of the run's budget of a quantity is used."""
        return self._used.get(_OF_THE_RUN[quantity], 0)


_OF_THE_RUN = {quantity: f"run|{quantity}|0" for quantity in Quantity}
"""The keys of the budget's own limits."""

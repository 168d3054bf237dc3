"""What a backtest counts: verdicts that stay and change, by what, and what that would have meant for people and money."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from remit.contracts.quantities import units_text
from remit.limits.rules import Demand

_RANKS: Mapping[str, int] = {"allow": 3, "hold": 2, "defer": 1, "reject": 1, "deny": 0}
EXAMPLES = 5
"""How many places are named of each group."""


class VerdictChange(StrEnum):
    """How a verdict compares with the recorded one, in the order allow, hold, deny."""

    SAME = "same"
    TIGHTENED = "tightened"
    LOOSENED = "loosened"
    HELD = "held"
    """Allowed on record, or answered by a person; somebody would be asked what nobody was asked then."""
    UNDETERMINED = "undetermined"


def change(was: str, code: str, now: str) -> VerdictChange:
    """The change from a recorded verdict, with its code, to another kind of verdict."""
    if now not in _RANKS:
        return VerdictChange.UNDETERMINED
    if now == "hold" and (was == "allow" or code.startswith("approval_")):
        return VerdictChange.HELD
    if _RANKS[now] == _RANKS[was]:
        return VerdictChange.SAME
    return VerdictChange.TIGHTENED if _RANKS[now] < _RANKS[was] else VerdictChange.LOOSENED


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One decision as it was and as it would be. `rules`: those that make the difference, or what can't be told."""

    run: str
    step: str
    contract: str
    principal: str
    tool: str
    was: str
    now: str
    change: VerdictChange
    rules: tuple[str, ...]
    message: str
    roles: tuple[str, ...]
    is_hypothetical: bool


@dataclass(kw_only=True, slots=True)
class Volume:
    """Writes, and money by currency in ten-thousandths."""

    writes: int = 0
    money: Counter[str] = field(default_factory=Counter[str])

    def add(self, demand: Demand, sign: int) -> None:
        self.writes += sign * demand.writes
        if demand.money:
            self.money[demand.currency] += sign * demand.money

    def as_json(self) -> dict[str, Any]:
        return {"writes": self.writes, "money": {name: units_text(n) for name, n in sorted(self.money.items()) if n}}


@dataclass(kw_only=True, slots=True)
class Group:
    """The changed decisions that have something in common."""

    changes: Counter[str] = field(default_factory=Counter[str])
    examples: list[str] = field(default_factory=list[str])
    tools: Counter[str] = field(default_factory=Counter[str])

    def add(self, compared: Compared) -> None:
        self.changes[compared.change] += 1
        self.tools[compared.tool] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{compared.run} {compared.step}")


GROUPED = ("rule", "tool", "contract", "principal")


@dataclass(kw_only=True, slots=True)
class DecisionTally:
    """The counts of some decisions."""

    decisions: int = 0
    changes: Counter[str] = field(default_factory=Counter[str])
    approvals: Counter[str] = field(default_factory=Counter[str])
    """By role: how often somebody would have been asked who was not."""
    stopped: Volume = field(default_factory=Volume)
    let_through: Volume = field(default_factory=Volume)
    groups: dict[str, dict[str, Group]] = field(default_factory=lambda: {name: {} for name in GROUPED})
    because: dict[str, Group] = field(default_factory=dict[str, Group])
    """What can't be told, by what is missing."""

    def add(self, compared: Compared) -> None:
        self.decisions += 1
        self.changes[compared.change] += 1
        if compared.change is VerdictChange.SAME:
            return
        if compared.change is VerdictChange.UNDETERMINED:
            self.because.setdefault(compared.message, Group()).add(compared)
            return
        if compared.now == "hold" and compared.was != "hold":
            self.approvals.update(dict.fromkeys(compared.roles, 1))
        for name, key in self._keys(compared):
            self.groups[name].setdefault(key, Group()).add(compared)

    def _keys(self, compared: Compared) -> Iterable[tuple[str, str]]:
        yield from (("rule", rule) for rule in compared.rules or ("no rule",))
        yield "tool", compared.tool
        yield "contract", compared.contract
        yield "principal", compared.principal

    def counts(self) -> dict[str, int]:
        return {"decisions": self.decisions, **{each.value: self.changes[each] for each in VerdictChange}}

    def as_json(self) -> dict[str, Any]:
        """All of it; the examples are `RUN STEP`, as `remit show RUN` has them."""
        return {
            **self.counts(),
            "approvals": dict(sorted(self.approvals.items())),
            "stopped": self.stopped.as_json(),
            "let_through": self.let_through.as_json(),
            "by": {name: [_row(name, *each) for each in _ordered(found)] for name, found in self.groups.items()},
            "undetermined_because": [_row("reason", *each) for each in _ordered(self.because)],
        }


def _ordered(groups: Mapping[str, Group]) -> list[tuple[str, Group]]:
    return sorted(groups.items(), key=lambda each: (-each[1].changes.total(), each[0]))


def _row(name: str, key: str, group: Group) -> dict[str, Any]:
    tools = [tool for tool, _ in group.tools.most_common()]
    return {name: key, **dict(sorted(group.changes.items())), "tools": tools, "examples": group.examples}

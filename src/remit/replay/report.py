"""What a replay came to: per run, and in all; as JSON and for the register."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from remit.replay.calls import CallLine, lines_of
from remit.replay.compare import Divergence
from remit.replay.recorded import RecordedRun, body_of
from remit.values import Json

Result = Literal["verified", "identical", "diverged", "undetermined"]
"""`verified`: its chain holds (level 0). `identical`: the code did the same over the recorded answers, or each decision
came out as recorded. `undetermined`: it can't be told, and `why` says why."""


class Redecided(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded decision, made again by the policy that made it: what was recorded, and what came now.

    `reproduced` is `None` where it can't be told, and `why` says why.
    """

    step: str
    tool: str
    recorded: str
    now: str = ""
    reproduced: bool | None = None
    why: str = ""


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """One run and what its replay came to. `note`: what limits the result, such as that it went over pseudonyms."""

    recorded: RecordedRun
    lines: Sequence[CallLine]
    result: Result
    why: str = ""
    note: str = ""
    divergence: Divergence | None = None
    cause: str = ""
    changed: tuple[str, ...] = ()
    """The parts of its release that are others now."""
    decisions: Sequence[Redecided] = ()


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """A replay of many runs at one level; `at`: microseconds since the epoch."""

    level: int
    code: str
    at: int
    tenant: str
    runs: Sequence[Replayed]

    @property
    def counts(self) -> dict[str, int]:
        """How many runs, calls and decisions, and how many runs came to which result."""
        found = Counter(each.result for each in self.runs)
        lines = [line for each in self.runs for line in each.lines if line.verdict]
        counts = {
            "runs": len(self.runs),
            "calls": len({(each.recorded.run, line.step) for each in self.runs for line in each.lines if line.verdict}),
            "decisions": len(lines),
            "identical": found["identical"],
            "diverged": found["diverged"],
            "undetermined": found["undetermined"],
        }
        if self.level == 0:
            counts["verified"] = found["verified"]
        if self.level == 2:
            redone = [one for each in self.runs for one in each.decisions]
            counts["reproduced"] = sum(one.reproduced is True for one in redone)
            counts["not_reproduced"] = sum(one.reproduced is False for one in redone)
            counts["undetermined_decisions"] = sum(one.reproduced is None for one in redone)
        return counts

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why runs are undetermined, and how many for each reason, the most frequent first."""
        return Counter(each.why for each in self.runs if each.result == "undetermined").most_common()

    def plain(self) -> Json:
        """The whole report as JSON. Everything in it is redacted, as the record is."""
        head = {**self.counts, "level": self.level, "code": self.code, "at": self.at}
        return {**head, "details": [_plain(each) for each in self.runs]}


def replayed(recorded: RecordedRun, result: Result, **more: Any) -> Replayed:
    """A result for a run, with its lines."""
    return Replayed(recorded=recorded, lines=lines_of(recorded.events), result=result, **more)


def _plain(each: Replayed) -> dict[str, Json]:
    recorded = each.recorded
    opened = body_of(recorded.events[0]) if recorded.events else {}
    found: dict[str, Json] = {
        "run": recorded.run,
        "contract": recorded.contract,
        "release": recorded.release,
        "opened_at": recorded.opened_at,
        "request": opened.get("request"),
        "outcome": recorded.outcome,
        "reason": recorded.reason,
        "output": body_of(recorded.closed).get("output"),
        "events": len(recorded.events),
        "cost_microusd": recorded.cost_microusd,
        "result": each.result,
        "why": each.why,
        "note": each.note,
        "changed": list(each.changed),
        "calls": msgspec.to_builtins(each.lines),
    }
    if each.divergence is not None:
        found["divergence"] = {**msgspec.to_builtins(each.divergence), "cause": each.cause}
    if each.decisions:
        found["decisions"] = msgspec.to_builtins(each.decisions)
    return found

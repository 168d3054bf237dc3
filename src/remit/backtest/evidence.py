"""What the recorded runs of a contract have actually used: tools, fields, values, origins, rates; and where one can see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from remit.backtest.blind import conceals
from remit.backtest.recorded import DecidedBody, OpenedBody, PastEvent, RecordReader, ResumedBody
from remit.journal.events import EventType
from remit.journal.journal import FROM_BESIDE
from remit.tools.spec import ToolSpec
from remit.values import Json

WINDOWS_MS: Mapping[str, int] = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
_WINDOWS_SEEN = 10
"""How many windows long the record must be before the busiest of them means anything."""
MOST_VALUES = 24
"""From so many different values on, a text is no choice among a few."""


class Busiest:
    """The most of something within a sliding window, counted as `remit.limits.meters` counts."""

    def __init__(self, window_ms: int) -> None:
        self._width_us = -(-window_ms * 1000 // 60)
        self._buckets: dict[int, int] = {}
        self.most = 0

    def add(self, at_us: int, amount: int) -> None:
        newest = max(at_us // self._width_us, max(self._buckets, default=0))
        self._buckets = {bucket: used for bucket, used in self._buckets.items() if bucket >= newest - 60}
        self._buckets[newest] = self._buckets.get(newest, 0) + amount
        self.most = max(self.most, sum(self._buckets.values()))


@dataclass(kw_only=True, slots=True)
class Values:
    """The values of one argument: how often it was there, and which; numbers by their ends, texts while they are few."""

    present: int = 0
    concealed: int = 0
    least: int | float | None = None
    greatest: int | float | None = None
    texts: Counter[str] = field(default_factory=Counter[str])
    numbers: Counter[str] = field(default_factory=Counter[str])
    is_open: bool = False
    """Whether there were too many different ones."""

    def add(self, value: Json) -> None:
        self.present += 1
        if conceals(value):
            self.concealed += 1
        elif isinstance(value, str):
            self._count(self.texts, value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            self.least = value if self.least is None else min(self.least, value)
            self.greatest = value if self.greatest is None else max(self.greatest, value)
            self._count(self.numbers, repr(value))

    def _count(self, found: Counter[str], value: str) -> None:
        if value in found or len(found) < MOST_VALUES:
            found[value] += 1
        else:
            self.is_open = True


@dataclass(kw_only=True, slots=True)
class ToolUse:
    """How one tool was used: calls that were allowed."""

    calls: int = 0
    runs: int = 0
    example: str = ""
    """`RUN STEP`."""
    first_at: int = 0
    last_at: int = 0
    fields: Counter[str] = field(default_factory=Counter[str])
    regions: Counter[str] = field(default_factory=Counter[str])
    attributes: dict[str, Counter[Any]] = field(default_factory=dict[str, "Counter[Any]"])
    values: dict[str, Values] = field(default_factory=dict[str, Values])
    """By argument; what a list holds counts one by one."""
    origins: dict[str, Counter[str]] = field(default_factory=dict[str, "Counter[str]"])
    """By argument that carries authority: kinds of labels."""
    per_run: int = 0
    busiest: dict[str, Busiest] = field(
        default_factory=lambda: {name: Busiest(window) for name, window in WINDOWS_MS.items()}
    )


@dataclass(kw_only=True, slots=True)
class Evidence:
    """What the runs of a contract have used. Times in microseconds; `since`: when the first of the runs was opened."""

    runs: int = 0
    since: int = 0
    tools: dict[str, ToolUse] = field(default_factory=dict[str, ToolUse])
    calls: int = 0
    """The most that one run has proposed."""
    writes: int = 0
    spend: int = 0
    time_us: int = 0
    examples: dict[str, str] = field(default_factory=dict[str, str])
    """Which run that was, by the name of the quantity."""
    until: int = 0
    """When the last call was made."""

    def tells_of(self, window: str) -> bool:
        """Whether the runs last long enough to say how much is usual in such a window."""
        return self.until - self.since >= _WINDOWS_SEEN * WINDOWS_MS[window] * 1_000


@dataclass(kw_only=True, slots=True)
class _Run:
    opened_at: int
    active_at: int
    parked_us: int = 0
    calls: Counter[str] = field(default_factory=Counter[str])
    writes: int = 0
    spend: int = 0


class Gathering:
    """Gathers the evidence. `has` says which runs count; `specs`: the tools of the contract."""

    def __init__(self, specs: Mapping[str, ToolSpec], has: Callable[[str, int], bool]) -> None:
        self._specs = specs
        self._has = has
        self._runs: dict[str, _Run] = {}
        self.evidence = Evidence()

    def read(self, record: RecordReader, contract: str) -> Evidence:
        for entry in record.entries(1, record.end(), contract):
            self._take(entry)
        return self.evidence

    def _take(self, entry: PastEvent) -> None:
        header = entry.header
        if header.type == EventType.RUN_OPENED and self._has(header.run, header.at) and not entry.opens_undo:
            self._open(entry)
        run = self._runs.get(header.run)
        if run is None:
            return
        if header.type == EventType.RUN_CLOSED:
            del self._runs[header.run]
        elif header.type == EventType.RUN_RESUMED:
            body = entry.body(ResumedBody)
            idle_us = body.idle_us if body else None
            since = header.at - run.active_at
            run.parked_us += max(0, since if idle_us is None else min(idle_us, since))
        elif header.type == EventType.CALL_DECIDED and header.verdict == "allow":
            self._call(entry, run)
        if header.type not in FROM_BESIDE:
            run.active_at = header.at

    def _open(self, entry: PastEvent) -> None:
        if entry.body(OpenedBody) is None:
            return
        at = entry.header.at
        self._runs[entry.header.run] = _Run(opened_at=at, active_at=at)
        self.evidence.runs += 1
        self.evidence.since = self.evidence.since or at

    def _call(self, entry: PastEvent, run: _Run) -> None:
        body = entry.body(DecidedBody)
        if body is None:
            return
        header, found = entry.header, self.evidence
        use = found.tools.setdefault(body.tool, ToolUse(first_at=header.at, example=f"{header.run} {header.span}"))
        found.until = header.at
        use.calls += 1
        use.last_at = header.at
        run.calls[body.tool] += 1
        use.runs += run.calls[body.tool] == 1
        use.per_run = max(use.per_run, run.calls[body.tool])
        for busiest in use.busiest.values():
            busiest.add(header.at, 1)
        self._what(use, body)
        _, writes, _, _, _, spend = body.demand
        run.writes += writes
        run.spend += spend
        at_us = header.at if body.judged_at is None else body.judged_at
        used = {
            "calls": body.proposed or run.calls.total(),
            "writes": run.writes,
            "spend": run.spend,
            "time_us": at_us - run.opened_at - run.parked_us,
        }
        for name, amount in used.items():
            if amount > getattr(found, name):
                setattr(found, name, amount)
                found.examples[name] = header.run

    def _what(self, use: ToolUse, body: DecidedBody) -> None:
        use.fields.update(body.fields)
        resource = body.resource or {}
        if resource.get("region"):
            use.regions[resource["region"]] += 1
        for name, value in resource.get("attributes", {}).items():
            use.attributes.setdefault(name, Counter())[value] += 1
        for name, value in cast("Mapping[str, Json]", body.args).items():
            values = use.values.setdefault(name, Values())
            for item in cast("list[Json]", value) if isinstance(value, list) else [value]:
                values.add(item)
        spec = self._specs.get(body.tool)
        for name in spec.authority if spec else ():
            if name in body.args and body.args[name] is not None:
                use.origins.setdefault(name, Counter()).update(_kinds(name, body.labels))


def _kinds(name: str, labels: Mapping[str, Iterable[str]]) -> set[str]:
    """The kinds of the labels of an argument and of what lies in it."""
    below = (f"{name}.", f"{name}[")
    found = {
        label.partition(":")[0] for path, each in labels.items() if path == name or path.startswith(below) for label in each
    }
    return found or {"model"}

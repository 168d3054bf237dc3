"""Where a run's time went: each step as a bar, and the path of those that the whole run waited for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

from rich.text import Text

from remit.cli.layout import hanging
from remit.cli.readable import name_text
from remit.journal.events import OUTCOMES, Event, EventType
from remit.journal.journal import FROM_BESIDE
from remit.terminal import Part, line, span_text

_NAME, _SPAN = 28, 9
_WIDTH = 100
_GATE, _TOOL, _GAP = "░", "█", "·"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One step: when the run proposed it, when it was decided and when it was over, in µs of the run's own time.

    `answered`: where its answer came from, if not from the first request. `is_critical`: the run waited for it.
    """

    step: str
    tool: str
    began_us: int
    decided_us: int
    ended_us: int
    outcome: str
    answered: str = ""
    is_critical: bool = False


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The bars of a run, and how long it was at work and waited (for people, systems and workers) in µs."""

    bars: Sequence[Bar]
    active_us: int
    waited_us: int

    @property
    def gate_us(self) -> int:
        """Of the critical path: deciding and recording."""
        return sum(bar.decided_us - bar.began_us for bar in self.bars if bar.is_critical)

    @property
    def tools_us(self) -> int:
        """Of the critical path: tools and models at work."""
        return sum(bar.ended_us - bar.decided_us for bar in self.bars if bar.is_critical)


def timeline_of(events: Sequence[Event]) -> Timeline:
    """What the events tell of a run's time. Time in which nobody drove it is left out of the bars."""
    moment = _own_time(events)
    opened, last = events[0].header.at, events[-1].header.at
    bars: dict[str, Bar] = {}
    for event in events:
        header, body = event.header, cast("dict[str, Any]", event.body or {})
        if event.type is EventType.CALL_DECIDED:
            at = moment(header.at)
            bars[header.span] = Bar(
                step=header.span,
                tool=str(body.get("tool", "erased")),
                began_us=max(0, at - header.latency_us),
                decided_us=at,
                ended_us=at,
                outcome=header.verdict,
            )
        elif event.type in OUTCOMES and header.span in bars:
            ended, outcome = moment(header.at), OUTCOMES[event.type]
            answered = str(body.get("answered", ""))
            bars[header.span] = replace(bars[header.span], ended_us=ended, outcome=outcome, answered=answered)
    found = sorted(bars.values(), key=lambda bar: (bar.began_us, bar.ended_us))
    active_us = moment(last)
    critical = {bar.step for bar in _critical(found, active_us)}
    marked = [replace(bar, is_critical=bar.step in critical) for bar in found]
    return Timeline(bars=marked, active_us=active_us, waited_us=last - opened - active_us)


class _OwnTime:
    """A moment of the clock as a moment of the run, in which the time that nobody drove it does not pass."""

    def __init__(self, opened: int, idle: Sequence[tuple[int, int]]) -> None:
        self._opened = opened
        self._idle = idle

    def __call__(self, at: int) -> int:
        return at - self._opened - sum(min(at, until) - since for since, until in self._idle if at > since)


def _own_time(events: Sequence[Event]) -> _OwnTime:
    own = [event for event in events if event.type not in FROM_BESIDE]
    idle = [
        (before.header.at, event.header.at) for before, event in pairwise(own) if event.type is EventType.RUN_RESUMED
    ]
    return _OwnTime(events[0].header.at, idle)


def _critical(bars: Sequence[Bar], end_us: int) -> Iterator[Bar]:
    """From the end backwards: what ended last before, and what it had waited for in turn."""
    at = end_us
    left = sorted(bars, key=lambda bar: bar.ended_us)
    while left:
        bar = left.pop()
        if bar.ended_us <= at:
            yield bar
            at = bar.began_us


def timeline_lines(events: Sequence[Event], width: int | None) -> list[Text]:
    """The timeline for a terminal of so many columns."""
    found = timeline_of(events)
    room = max(10, (width or _WIDTH) - _NAME - _SPAN - 2)
    scale = room / max(1, found.active_us)
    lines = [_bar_line(bar, scale, room) for bar in found.bars]
    path = " → ".join(bar.step for bar in found.bars if bar.is_critical)
    own_us = max(0, found.active_us - found.gate_us - found.tools_us)
    said = [f"{span_text(found.tools_us)} tools and models", f"{span_text(found.gate_us)} the gate"]
    said.append(f"{span_text(own_us)} its own code")
    if found.waited_us:
        said.append(f"and {span_text(found.waited_us)} in which nobody drove it, left out above")
    title = line((f"run {events[0].header.run.removeprefix('run-')[:8]}", "bold"), f" · {span_text(found.active_us)}")
    legend = line((f"{_GATE} decided and recorded  {_TOOL} carried out  ", "dim"), ("the run waited for it", "bold yellow"))
    footer = [*hanging(line("  "), line("waited for: ", (path or "nothing", "bold yellow")), 4, width)]
    return [title, legend, Text(""), *lines, Text(""), *footer, *hanging(line("  "), line(", ".join(said)), 4, width)]


def _bar_line(bar: Bar, scale: float, room: int) -> Text:
    begin, decided, end = (round(at * scale) for at in (bar.began_us, bar.decided_us, bar.ended_us))
    begin = min(begin, room - 1)
    gate = min(max(0, decided - begin), room - begin)
    tool = min(max(0 if bar.ended_us == bar.decided_us else 1, end - begin - gate), room - begin - gate)
    # What took no time to speak of is seen all the same.
    gate = gate or max(0, 1 - tool)
    style = "bold yellow" if bar.is_critical else "cyan"
    name = f"{bar.step:>5}  {name_text(bar.tool, _NAME - 9)}"
    parts: list[Part] = [f"{name:<{_NAME}}", (_GAP * begin, "dim"), (_GATE * gate, style), (_TOOL * tool, style)]
    parts += [(_GAP * max(0, room - begin - gate - tool), "dim"), f"{span_text(bar.ended_us - bar.began_us):>{_SPAN}}"]
    if bar.answered:
        parts.append((f" {bar.answered}", "dim"))
    elif bar.outcome not in ("completed", "allow"):
        parts.append((f" {bar.outcome}", "dim"))
    return line(*parts)

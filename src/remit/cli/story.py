"""A run as a readable story: who, under what, each step with its arguments, decision, rule and outcome."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from rich.console import Group, RenderableType
from rich.text import Text

from remit.cli.terminal import clock_time, span_text, style_of
from remit.journal.events import Event, EventType

_ENDS = {
    EventType.CALL_COMPLETED: "completed",
    EventType.CALL_FAILED: "failed",
    EventType.CALL_UNKNOWN: "unknown",
}
_WIDTH = 76


@dataclass(kw_only=True)
class Step:
    """All that happened at one step, in order."""

    span: str
    events: list[Event] = field(default_factory=list[Event])


def story(events: Sequence[Event]) -> RenderableType:
    """The whole run, for a terminal."""
    lines: list[RenderableType] = [_title(events), Text("")]
    lines.extend(_opening(events[0]))
    for step in _steps(events):
        lines.extend(_step(step))
    lines.extend(_closing(events))
    return Group(*lines)


def _title(events: Sequence[Event]) -> Text:
    opened, last = events[0], events[-1]
    body: dict[str, Any] = opened.body or {}
    outcome = last.header.verdict if last.type is EventType.RUN_CLOSED else "open"
    title = Text()
    title.append(f"run {opened.header.run.removeprefix('run-')[:8]}", style="bold")
    title.append(f" · {body.get('contract', 'erased')} · release {opened.header.refs['release'][:8]} · ")
    title.append(opened.header.actor)
    if body.get("on_behalf_of"):
        title.append(f" for {body['on_behalf_of']}")
    title.append(f" · {span_text(last.header.at - opened.header.at)}")
    cost = sum(event.header.cost_microusd for event in events)
    if cost:
        title.append(f" · {cost / 1e6:.4f} USD")
    title.append(" · ")
    title.append(outcome, style=f"bold {style_of(outcome)}")
    return title


def _opening(opened: Event) -> Iterable[Text]:
    body: dict[str, Any] = opened.body or {}
    line = Text(f"{'':>5}  ")
    line.append("request", style="bold")
    line.append(f"   {_short(body.get('request'))}")
    yield line
    yield Text(f"{'':>5}  {clock_time(opened.header.at)} UTC", style="dim")


def _steps(events: Sequence[Event]) -> list[Step]:
    steps: dict[str, Step] = {}
    for event in events:
        if event.type in (EventType.RUN_OPENED, EventType.RUN_CLOSED):
            continue
        key = event.header.span or f"@{event.header.n}"
        steps.setdefault(key, Step(span=event.header.span)).events.append(event)
    return list(steps.values())


def _step(step: Step) -> Iterable[Text]:
    first = step.events[0]
    if first.type is EventType.RUN_RESUMED:
        yield Text(f"{'':>5}  resumed {clock_time(first.header.at)} UTC", style="dim")
        return
    if first.type is EventType.VALUE_RECORDED:
        body: dict[str, Any] = first.body or {}
        yield Text(f"{step.span:>5}  {body.get('kind')}   {_short(body.get('value'))}", style="dim")
        return
    if first.type is EventType.CALL_DECIDED:
        yield from _call(step, first)
    for event in step.events:
        yield from _line_of(event)


def _call(step: Step, first: Event) -> Iterable[Text]:
    body: dict[str, Any] = first.body or {}
    line = Text(f"{step.span:>5}  ")
    line.append(str(body.get("tool", "erased")), style="bold")
    line.append(f"   {_short(body.get('args'))}")
    yield line
    labelled: dict[str, list[str]] = body.get("labels") or {}
    for path, labels in labelled.items():
        if any(label.startswith("untrusted") for label in labels):
            yield Text(f"{'':>9}{path} from {', '.join(labels)}", style="yellow")


def _line_of(event: Event) -> Iterable[Text]:
    body: dict[str, Any] = event.body or {}
    match event.type:
        case EventType.CALL_DECIDED:
            yield _verdict(event, body.get("verdict") or {})
        case EventType.APPROVAL_REQUESTED:
            roles = ", ".join(body.get("roles", ()))
            yield Text(f"{'':>9}asked {roles} in {body.get('case')}, until {clock_time(body.get('expires_at', 0))}")
        case EventType.APPROVAL_DECIDED:
            said = Text(f"{'':>9}{body.get('by')} ")
            said.append(str(body.get("decision")), style=style_of(str(body.get("decision"))))
            said.append(f"  {body['reason']}" if body.get("reason") else "")
            yield said
        case EventType.CALL_COMPLETED | EventType.CALL_FAILED | EventType.CALL_UNKNOWN:
            yield _end(event, body)
        case EventType.CASE_OPENED | EventType.CASE_DECIDED:
            yield Text(f"{'':>9}{body.get('case')}: {body.get('reason') or body.get('decision')}", style="yellow")
        case _:
            return


def _verdict(event: Event, verdict: dict[str, Any]) -> Text:
    kind = event.header.verdict
    line = Text(f"{'':>9}")
    line.append(kind, style=style_of(kind))
    if verdict.get("rules"):
        line.append(f"  {' '.join(verdict['rules'])}")
    if verdict.get("message"):
        line.append(f"  {verdict['message']}", style="default")
    return line


def _end(event: Event, body: dict[str, Any]) -> Text:
    name = _ENDS[event.type]
    line = Text(f"{'':>9}")
    line.append(name, style=style_of(name))
    line.append(f"  {span_text(event.header.latency_us)}", style="dim")
    if event.header.cost_microusd:
        line.append(f"  {event.header.cost_microusd / 1e6:.4f} USD", style="dim")
    line.append(f"  {_short(body['result']) if 'result' in body else body.get('message', '')}")
    return line


def _closing(events: Sequence[Event]) -> Iterable[Text]:
    last = events[-1]
    if last.type is not EventType.RUN_CLOSED:
        yield Text(f"{'':>5}  the run is still open", style="yellow")
        return
    body: dict[str, Any] = last.body or {}
    line = Text(f"{'':>5}  ")
    line.append(last.header.verdict, style=f"bold {style_of(last.header.verdict)}")
    line.append(f"   {body.get('reason') or _short(body.get('output'))}")
    yield line


def _short(value: Any) -> str:
    """A value in one line: `issue=12 changes.category=network`."""
    text = " ".join(_pairs(cast("dict[str, Any]", value), "")) if isinstance(value, dict) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def _pairs(value: dict[str, Any], prefix: str) -> Iterable[str]:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _pairs(cast("dict[str, Any]", item), f"{prefix}{name}.")
        elif isinstance(item, list):
            yield f"{prefix}{name}=[{len(cast('list[Any]', item))}]"
        else:
            yield f"{prefix}{name}={item}"

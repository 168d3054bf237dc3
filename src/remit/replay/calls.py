"""A run, line by line, for people: each decision with its call, the rule, what a person said, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from remit.journal.events import OUTCOMES, REFUSED, Event, EventType
from remit.replay.recorded import body_of
from remit.runs.questions import QUESTION
from remit.values import Json


class CallLine(msgspec.Struct, frozen=True, kw_only=True):
    """One decision about one call; a call that was held and then approved has two. Everything in it is redacted.

    `verdict`: the gate's, or empty for what isn't decided (an escalation). `outcome`: what became of it; empty where
    that isn't known. `took_us`: the call's own time; `at`: when it was decided, microseconds since the epoch.
    """

    step: str
    tool: str
    at: int
    args: Json = None
    untrusted: tuple[str, ...] = ()
    """Arguments that came from text which outsiders wrote."""
    verdict: str = ""
    rules: tuple[str, ...] = ()
    said: str = ""
    """The gate's message, or why it failed."""
    person: str = ""
    """`lee approved after 6 min`: who answered what it asked, before this decision or after it."""
    answered_after_us: int = 0
    outcome: str = ""
    answered: str = ""
    """What answered it in a trial: `record`, `fixture`, `live`, or `simulated`."""
    result: Json = None
    took_us: int = 0
    cost_microusd: int = 0


def lines_of(events: Sequence[Event]) -> list[CallLine]:
    """The lines of a run, in the order of its decisions."""
    lines: list[CallLine] = []
    at: dict[str, int] = {}
    for event in events:
        span, body = event.header.span, body_of(event)
        if event.type is EventType.CALL_DECIDED:
            at[span] = len(lines)
            lines.append(_decided(event, body))
        elif event.type is EventType.CASE_OPENED and body.get("kind") == "escalation":
            said = str(body.get("reason", ""))
            lines.append(CallLine(step=span, tool="escalate", at=event.header.at, said=said, outcome="escalated"))
        elif event.type is EventType.CASE_OPENED and body.get("kind") == QUESTION:
            at[span] = len(lines)
            lines.append(CallLine(step=span, tool="ask", at=event.header.at, said=str(body.get("reason", "")), outcome="held"))
        elif span in at:
            lines[at[span]] = _gone_on(lines[at[span]], event, body)
    return lines


def _decided(event: Event, body: dict[str, Any]) -> CallLine:
    verdict: dict[str, Any] = body.get("verdict") or {}
    labels: dict[str, list[str]] = body.get("labels") or {}
    kept = bool(body.get("args_digest"))
    return CallLine(
        step=event.header.span,
        tool=str(body.get("tool", "")),
        at=event.header.at,
        args=body.get("args") if kept else None,
        untrusted=tuple(_untrusted(labels)),
        verdict=event.header.verdict,
        rules=tuple(str(rule) for rule in verdict.get("rules") or ()),
        said=str(verdict.get("message", "")),
        outcome=REFUSED.get(event.header.verdict, ""),
    )


def _untrusted(labels: dict[str, list[str]]) -> Iterator[str]:
    for path, found in labels.items():
        if any(label.startswith("untrusted") for label in found):
            yield path


def _gone_on(line: CallLine, event: Event, body: dict[str, Any]) -> CallLine:
    replace = msgspec.structs.replace
    header = event.header
    if event.type is EventType.APPROVAL_DECIDED:
        person = f"{body.get('by')} {body.get('decision')}"
        said = f"{line.said}: {body['reason']}" if body.get("reason") else line.said
        return replace(line, person=person, answered_after_us=header.at - line.at, said=said)
    if body.get("decision") == "answered":
        person, after_us = f"{body.get('by')} answered", header.at - line.at
        return replace(line, person=person, answered_after_us=after_us, outcome="completed", result=body.get("answer"))
    if event.type not in OUTCOMES:
        return line
    return replace(
        line,
        outcome=OUTCOMES[event.type],
        result=body.get("result"),
        said=str(body.get("message", line.said)),
        took_us=header.latency_us,
        cost_microusd=header.cost_microusd,
    )

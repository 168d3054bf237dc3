"""The summary: what was measured, from the journal, as one value for people and for machines."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from remit.demo.redteam import Tried
from remit.demo.triage import Triaged, is_right, output_of
from remit.journal.events import Event, EventType


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Counts of runs and calls; times in milliseconds, cost in microdollars.

    `outcomes` are those after a person has answered; `autonomous` runs completed without one.
    """

    runs: int
    outcomes: dict[str, int]
    calls: int
    verdicts: dict[str, int]
    denied_by: dict[str, int]
    held_by: dict[str, int]
    limited: int
    corrected: int
    correct: int
    priority_right: int
    priority_asked: int
    autonomous: int
    steps_ms: dict[str, tuple[int, float, float]]
    p50_ms: float
    p95_ms: float
    cost_microusd: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Acts:
    """What came of the demo. `differences`: between tracker and journal; `unchanged`: by the red team."""

    triaged: Sequence[Triaged]
    summary: Summary
    tried: Sequence[Tried]
    differences: Sequence[str]
    unchanged: bool

    @property
    def stopped(self) -> int:
        """How many attacks were stopped."""
        return sum(one.stopped for one in self.tried)

    @property
    def ok(self) -> bool:
        """Whether every attack was stopped, and tracker and journal agree."""
        return self.stopped == len(self.tried) and not self.differences and self.unchanged


def percentile(values: Sequence[int], share: float) -> float:
    """The nearest-rank percentile in milliseconds of values in microseconds; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1000, 1)


def summarise(triaged: Sequence[Triaged], histories: Sequence[Sequence[Event]], seconds: float) -> Summary:
    """Everything that the first act's runs show."""
    issue_of = {item.filed.ticket.key: item.filed.issue for item in triaged}
    events = [event for history in histories for event in history]
    decided = [event for event in events if event.type is EventType.CALL_DECIDED]
    priority = [
        output_of(item)["priority"] == item.filed.ticket.truth["priority"]
        for item in triaged
        if output_of(item).get("action") == "triage"
    ]
    whole = [event.header.latency_us for event in events if event.type is EventType.RUN_CLOSED]
    people = {event.header.run for event in events if event.type is EventType.APPROVAL_DECIDED}
    return Summary(
        runs=len(triaged),
        outcomes=dict(Counter(item.result.outcome for item in triaged).most_common()),
        calls=len(decided),
        verdicts=dict(Counter(event.header.verdict for event in decided).most_common()),
        denied_by=_rules(decided, "deny"),
        held_by=_rules(decided, "hold"),
        limited=sum(_verdict(event).get("code") == "limit_exhausted" for event in decided),
        corrected=_corrected(histories),
        correct=sum(is_right(item, issue_of) for item in triaged),
        priority_right=sum(priority),
        priority_asked=len(priority),
        autonomous=sum(item.result.outcome == "completed" and item.result.run not in people for item in triaged),
        steps_ms=_steps(histories),
        p50_ms=percentile(whole, 0.5),
        p95_ms=percentile(whole, 0.95),
        cost_microusd=sum(event.header.cost_microusd for event in events),
        seconds=round(seconds, 1),
    )


def _verdict(event: Event) -> dict[str, Any]:
    body: dict[str, Any] = event.body or {}
    return body["verdict"]


def _rules(decided: Sequence[Event], kind: str) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for event in decided:
        if event.header.verdict == kind:
            verdict = _verdict(event)
            # Only of what policy decided are the rules the cause; else they are what had asked for an approval.
            by_policy = kind == "hold" or verdict["code"] == "forbidden"
            counted.update((by_policy and verdict.get("rules")) or [verdict.get("code", "")])
    return dict(counted.most_common())


def _corrected(histories: Sequence[Sequence[Event]]) -> int:
    """Runs in which a malformed call was rejected and the corrected one of the same tool was let through."""
    count = 0
    for history in histories:
        rejected: set[str] = set()
        for event in history:
            if event.type is EventType.CALL_DECIDED:
                body: dict[str, Any] = event.body or {}
                if event.header.verdict == "reject":
                    rejected.add(body["tool"])
                elif body["tool"] in rejected:
                    count += 1
                    break
    return count


def _steps(histories: Sequence[Sequence[Event]]) -> dict[str, tuple[int, float, float]]:
    """Calls, p50 and p95 by tool."""
    taken: dict[str, list[int]] = defaultdict(list)
    for history in histories:
        for event in history:
            if event.type is EventType.CALL_COMPLETED:
                body: dict[str, Any] = event.body or {}
                taken[body["tool"]].append(event.header.latency_us)
    return {
        tool: (len(values), percentile(values, 0.5), percentile(values, 0.95)) for tool, values in sorted(taken.items())
    }


def as_json(acts: Acts) -> dict[str, Any]:
    """The demo's figures as one JSON object."""
    summary = acts.summary
    successes = summary.outcomes.get("completed", 0)
    return {
        "runs": summary.runs,
        "completed": successes,
        "escalated": summary.outcomes.get("escalated", 0),
        "held": summary.verdicts.get("hold", 0),
        "held_open": summary.outcomes.get("held", 0),
        "denied": summary.verdicts.get("deny", 0),
        "rejected": summary.verdicts.get("reject", 0),
        "rejected_and_corrected": summary.corrected,
        "stopped_by_limit": summary.limited,
        "outcomes": summary.outcomes,
        "calls": summary.calls,
        "denied_by": summary.denied_by,
        "held_by": summary.held_by,
        "correct": summary.correct,
        "priority_right": summary.priority_right,
        "priority_asked": summary.priority_asked,
        "autonomous": summary.autonomous,
        "mismatches": len(acts.differences),
        "attacks": len(acts.tried),
        "attacks_stopped": acts.stopped,
        "p50_ms": summary.p50_ms,
        "p95_ms": summary.p95_ms,
        "steps_ms": {tool: {"calls": n, "p50": p50, "p95": p95} for tool, (n, p50, p95) in summary.steps_ms.items()},
        "cost_per_success_microusd": summary.cost_microusd // successes if successes else 0,
        "seconds": summary.seconds,
    }

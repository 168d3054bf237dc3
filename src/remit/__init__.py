"""Remit: an execution layer for AI agents that act on systems of record.

An agent may propose any call. A call is carried out only if the agent's contract grants it, its own identity, the policy
and the limits allow it, and, where one is needed, a person has approved it. Everything is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from remit.app import Remit, run_sync
    from remit.errors import OutcomeUnknown, RemitError, ToolFailed
    from remit.gate.verdicts import Completed, Deferred, Denied, Failed, Held, Outcome, Rejected, Unknown
    from remit.runs.engine import RunResult
    from remit.runs.run import NotCompleted, Parked, Run
    from remit.tools.decorator import tool
    from remit.tools.spec import Effect, Idempotency, Money, Resource, Retry, Tool, ToolContext

_PLACES = {
    "Completed": "remit.gate.verdicts",
    "Deferred": "remit.gate.verdicts",
    "Denied": "remit.gate.verdicts",
    "Effect": "remit.tools.spec",
    "Failed": "remit.gate.verdicts",
    "Held": "remit.gate.verdicts",
    "Idempotency": "remit.tools.spec",
    "Money": "remit.tools.spec",
    "NotCompleted": "remit.runs.run",
    "Outcome": "remit.gate.verdicts",
    "OutcomeUnknown": "remit.errors",
    "Parked": "remit.runs.run",
    "Rejected": "remit.gate.verdicts",
    "Remit": "remit.app",
    "RemitError": "remit.errors",
    "Resource": "remit.tools.spec",
    "Retry": "remit.tools.spec",
    "Run": "remit.runs.run",
    "RunResult": "remit.runs.engine",
    "Tool": "remit.tools.spec",
    "ToolContext": "remit.tools.spec",
    "ToolFailed": "remit.errors",
    "Unknown": "remit.gate.verdicts",
    "run_sync": "remit.app",
    "tool": "remit.tools.decorator",
}

__all__ = [
    "Completed",
    "Deferred",
    "Denied",
    "Effect",
    "Failed",
    "Held",
    "Idempotency",
    "Money",
    "NotCompleted",
    "Outcome",
    "OutcomeUnknown",
    "Parked",
    "Rejected",
    "Remit",
    "RemitError",
    "Resource",
    "Retry",
    "Run",
    "RunResult",
    "Tool",
    "ToolContext",
    "ToolFailed",
    "Unknown",
    "run_sync",
    "tool",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that the command line starts without what it doesn't need."""
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module `remit` has no attribute `{name}`")
    from importlib import import_module

    return getattr(import_module(place), name)

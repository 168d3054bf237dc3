"""How a run ends that nobody records: what its code returns, raises or leaves undone, as a result and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

from remit.errors import RemitError, RunError
from remit.runs import ending
from remit.runs.fold import Folded
from remit.runs.program import RunResult, Workflow
from remit.runs.run import Escalated, Parked, Postponed, Run
from remit.values import Json


class NoRecord:
    """The ways in which a run can end (see `remit.runs.ending.Endings`), none of which is recorded."""

    async def finish(self, folded: Folded, outcome: str, *, output: Json = None, reason: str = "") -> RunResult:
        return RunResult(run=folded.state.run, outcome=outcome, output=output, reason=reason)

    async def fail(self, folded: Folded, reason: str) -> RunResult:
        return await self.finish(folded, "failed", reason=reason)

    async def give_up(self, folded: Folded, outcome: str, code: str, reason: str) -> RunResult:  # noqa: ARG002
        return await self.finish(folded, outcome, reason=reason)

    async def park(self, folded: Folded, case: str) -> RunResult:
        return RunResult(run=folded.state.run, outcome="held", case=case)

    async def postpone(self, folded: Folded, reason: str) -> RunResult:
        return RunResult(run=folded.state.run, outcome="waiting", reason=reason)

    async def sleep(self, folded: Folded, until: int) -> RunResult:  # noqa: ARG002
        return RunResult(run=folded.state.run, outcome="waiting", reason="it sleeps")


async def quietly(workflow: Workflow, run: Run, request: Any) -> Json:
    """The workflow; what it breaks with is said as in life, but is no news for the log."""
    try:
        return await workflow(run, request)
    except (Parked, Postponed, Escalated, RemitError, TimeoutError, asyncio.CancelledError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise RunError(ending.said_of(error), code="workflow_broke") from error

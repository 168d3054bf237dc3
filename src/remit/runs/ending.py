"""How a workflow's run ends: whatever its code returns, raises or leaves undone, its record says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from traceback import format_exception
from typing import Protocol

from remit.contracts.quantities import duration_ms
from remit.errors import RemitError, StorageError
from remit.gate.call import Call
from remit.gate.record import open_case_for, outcome
from remit.gate.verdicts import Completed, Denied, Failed, Unknown
from remit.journal.journal import Entry, Journal, Recording
from remit.runs.fold import Folded
from remit.runs.program import Program, RunResult
from remit.runs.run import Asleep, Escalated, NotCompleted, Parked, Postponed, Run
from remit.values import Json

_log = logging.getLogger("remit")


class Endings(Protocol):
    """The ways in which a run can end; the engine has them."""

    async def finish(self, folded: Folded, outcome: str, *, output: Json = None, reason: str = "") -> RunResult: ...
    async def fail(self, folded: Folded, reason: str) -> RunResult: ...
    async def give_up(self, folded: Folded, outcome: str, code: str, reason: str) -> RunResult: ...
    async def park(self, folded: Folded, case: str) -> RunResult: ...
    async def postpone(self, folded: Folded, reason: str) -> RunResult: ...
    async def sleep(self, folded: Folded, until: int) -> RunResult: ...


class TimeOver(Exception):
    """The run's wall time is over."""


async def execute(engine: Endings, program: Program, folded: Folded, run: Run) -> RunResult:
    """Run a workflow to its end, or to where a person must decide."""
    state = folded.state
    try:
        output = await _within_time(program, folded, run)
    except Parked as parked:
        return await engine.park(folded, parked.case)
    except Escalated as escalated:
        result = await engine.finish(folded, "escalated", reason=escalated.reason)
        return RunResult(run=state.run, outcome="escalated", reason=result.reason, case=escalated.case)
    except Asleep as asleep:
        return await engine.sleep(folded, asleep.until)
    except Postponed as postponed:
        return await engine.postpone(folded, postponed.reason)
    except NotCompleted as ended:
        return await engine.finish(folded, _outcome_name(ended), reason=ended.message)
    except StorageError:
        # A call may be without its outcome now: closing the run would hide that from whoever takes it up.
        raise
    except TimeOver:
        reason = f"the run's time of {state.authority.contract.budget.time} is over"
        return await engine.give_up(folded, "failed", "limit_exhausted", reason)
    except RemitError as error:
        return await engine.give_up(folded, "diverged" if error.code == "diverged" else "failed", error.code, error.message)
    except BaseException as error:
        if _is_stopping(error):
            raise
        # The edge: whatever else a workflow raises, even the end of the process, its run is closed on record.
        _log.error("run %s: %s", state.run, state.redactor.text("".join(format_exception(error))))
        return await engine.fail(folded, said_of(error))
    problem = program.output_problem(output)
    if problem:
        return await engine.finish(folded, "failed", reason=problem)
    return await engine.finish(folded, "completed", output=output)


async def _within_time(program: Program, folded: Folded, run: Run) -> Json:
    """The workflow, for as long as its run has time. Raises `TimeOver`."""
    assert program.workflow is not None
    state = folded.state
    spent_us = state.clock() - state.opened_at - state.parked_us
    left_us = duration_ms(state.authority.contract.budget.time) * 1000 - spent_us
    limit = asyncio.timeout(max(0, left_us) / 1e6)
    try:
        async with limit:
            ahead = run.prefetch()
            try:
                return await program.workflow(run, folded.request)
            finally:
                # What was begun ahead and not asked for is over before the run is.
                await asyncio.gather(*ahead, return_exceptions=True)
    except TimeoutError as error:
        if limit.expired():
            raise TimeOver from error
        raise


def said_of(error: BaseException) -> str:
    """Why a run failed whose code raised what nobody expects."""
    return f"the workflow broke: {type(error).__name__}: {error}".rstrip(": ")


def _is_stopping(error: BaseException) -> bool:
    """Whether this process is being stopped, as opposed to a workflow that raises what looks like that."""
    if isinstance(error, KeyboardInterrupt):
        return True
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError | GeneratorExit) and task is not None and task.cancelling() > 0


def _outcome_name(ended: NotCompleted) -> str:
    outcome = ended.outcome
    assert not isinstance(outcome, Completed)
    return "denied" if isinstance(outcome, Denied) else type(outcome).__name__.lower()


async def abandon(journal: Journal, folded: Folded, reload: Callable[[Folded], Folded], why: str) -> Folded:
    """Leave no call without an outcome: what was in the middle of one may have happened, unless it only read.

    Returns the run as its record has it then.
    """
    state = folded.state
    state.ended = state.ended or "is ending"
    await state.turns.idle()
    # Goes behind whatever of this run still waits to be written.
    await journal.commit(Entry(log=state.log, record=lambda _: Recording(value=None)))
    folded = reload(folded)
    state = folded.state
    for recorded in folded.steps.values():
        if recorded.verdict == "allow" and recorded.outcome is None:
            call = recorded.call
            carried = _given_up(call, why)
            recorded.outcome = await journal.commit(
                Entry(log=state.log, record=lambda _, call=call, carried=carried: outcome(call, state, carried, None, 0))
            )
    return folded


def _given_up(call: Call, why: str) -> Failed | Unknown:
    message = f"{why}, before it was known whether this happened"
    if call.tool is not None and not call.tool.spec.is_write:
        return Failed(code="cancelled", message=message)
    return Unknown(code="outcome_unknown", message=message)


async def open_case(journal: Journal, folded: Folded, kind: str, reason: str) -> str:
    """A case in the contract's escalation queue, on record before the run is closed."""
    case_id, opened, statement = open_case_for(folded.state, "", kind=kind, reason=reason)
    await journal.append(folded.state.log, opened, statements=[statement])
    return case_id

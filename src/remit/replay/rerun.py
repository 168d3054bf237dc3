"""L1: a run's code runs again from the top over the recorded answers; nothing is dispatched, and nothing is written.

It goes through the same `Run` as in life. Behind it, in place of gate and journal, stands the record: each step gets its
recorded answer by its path, and what the code asks for is held against what it asked for then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from remit.errors import RunError
from remit.gate.call import Call, Proposal, RunState
from remit.gate.gate import note_denial
from remit.gate.record import RecordedVerdict
from remit.gate.verdicts import Denied, Outcome
from remit.journal.classed import redactor_of
from remit.journal.events import Draft, EventType
from remit.journal.journal import Clock, RunLog
from remit.journal.redaction import Redactor
from remit.journal.vault import RunKeys
from remit.replay.compare import CameApart, Comparison, Divergence, RecordEnds
from remit.replay.no_record import NoRecord, quietly
from remit.replay.reaching_out import ReachedOut, kept_in
from remit.replay.recorded import RecordedRun, originals_of
from remit.runs import ending
from remit.runs.fold import Folded, fold, new_state
from remit.runs.program import Program
from remit.runs.questions import QuestionTerms, RecordedQuestion
from remit.runs.run import Parked, Run
from remit.storage.writer import Statement
from remit.values import Json


class Rerun(msgspec.Struct, frozen=True, kw_only=True):
    """What came of running a run's code again. `asked`: how many steps its code asked for.

    `halted`: the record ended before the code did, because the run is open or was stopped. `reached_out`: what the code
    tried to reach by itself, which a replay does not let it.
    """

    divergence: Divergence | None
    asked: int
    halted: bool = False
    reached_out: str = ""


async def rerun(recorded: RecordedRun, program: Program, redactor: Redactor) -> Rerun:
    """Run the code of `program` over a recorded run. Raises `RunError` (code `no_workflow`) where there is none."""
    workflow = program.workflow
    if workflow is None:
        raise RunError("its contract has no workflow; there is no code of it here that could run again", code="no_workflow")
    comparison = Comparison(recorded, _folded(recorded, program, redactor))
    fresh = Folded(state=_state(recorded, program, redactor), request=comparison.request)
    run = _RerunRun(fresh, comparison, program)
    halted = False

    async def again(_run: Run, request: Any) -> Json:
        nonlocal halted
        try:
            return await quietly(workflow, run, request)
        except (CameApart, ReachedOut):
            raise Parked("") from None
        except RecordEnds:
            halted = True
            raise Parked("") from None

    with kept_in() as reached:
        result = await ending.execute(NoRecord(), replace(program, workflow=again), fresh, run)
    said = comparison.end(result) if not (halted or reached) or comparison.divergence else None
    return Rerun(divergence=said, asked=comparison.steps, halted=halted, reached_out=reached[0] if reached else "")


class _RerunRun(Run):
    """A run whose gate and journal are the record."""

    def __init__(self, fresh: Folded, comparison: Comparison, program: Program) -> None:
        journal = _RecordForJournal(comparison, fresh.state.clock)
        gate = _RecordForGate(comparison)
        super().__init__(fresh, gate=gate, journal=journal, token=lambda: "", output_problem=program.output_problem)
        self._comparison = comparison

    async def _value(self, kind: str, make: Callable[[], Any]) -> Any:  # noqa: ARG002 - nothing is made anew
        return self._comparison.value(self._next_step(), kind)

    async def _record(self, kind: str, value: Json, step: str) -> None:
        self._comparison.conclusion(step, kind, value)

    async def _asked(self, asking: QuestionTerms, step: str) -> RecordedQuestion:
        return self._comparison.question(step, asking)

    async def _wait_until(self, until: int) -> None:
        """No time passes in what has been."""


class _RecordForGate:
    """Answers calls from the record, by step path."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison

    async def propose(self, run: RunState, proposal: Proposal) -> Outcome:
        # Another branch has its turn here, as it had in life.
        await asyncio.sleep(0)
        outcome = self._comparison.call(proposal.step, proposal.tool, proposal.args)
        if isinstance(outcome, Denied):
            note_denial(run, outcome.code)
        return outcome

    async def recover(self, run: RunState, call: Call, decided: RecordedVerdict) -> Outcome:  # noqa: ARG002
        raise AssertionError("nothing of a replayed run is known before its code asks for it")


class _RecordForJournal:
    """Takes what a run would record beside its calls, and holds it against what it recorded."""

    def __init__(self, comparison: Comparison, clock: Clock) -> None:
        self._comparison = comparison
        self.clock = clock

    async def append(self, log: RunLog, *drafts: Draft, statements: Sequence[Statement] = ()) -> None:  # noqa: ARG002
        for draft in drafts:
            assert draft.type is EventType.CASE_OPENED
            self._comparison.escalation(draft.span, draft.body)


def _state(recorded: RecordedRun, program: Program, redactor: Redactor) -> RunState:
    """The state of the run at its opening; no time passes in it, and its log can't be written to."""
    opened = recorded.events[0]
    log = RunLog(tenant=opened.header.tenant, run=recorded.run, keys=RunKeys(None, None))
    return new_state(
        program.authority,
        log,
        redactor=redactor_of(redactor, [opened]),
        clock=lambda: opened.header.at,
        on_behalf_of=originals_of(opened).get("on_behalf_of"),
        opened_at=opened.header.at,
    )


def _folded(recorded: RecordedRun, program: Program, redactor: Redactor) -> Folded:
    return fold(recorded.events, _state(recorded, program, redactor))

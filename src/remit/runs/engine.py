"""The engine: opens runs, drives them, parks them while a person decides, and takes up those that a worker left.

What happened inside a run is in the journal. The table `runs` only says which worker drives which run when.
"""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypedDict, Unpack, cast

from remit.contracts.quantities import duration_ms
from remit.contracts.urgency import Urgency
from remit.errors import ConfigError, FenceLost, RunError, StorageError
from remit.export.traceparent import IDS_CHARS, caller_of
from remit.gate.gate import Gate
from remit.identity.tokens import TokenIssuer
from remit.journal.classed import redactor_of
from remit.journal.events import TRACEPARENT, Draft, EventType
from remit.journal.journal import Journal, RunLog
from remit.journal.vault import RunKeys
from remit.runs import bounds, ending
from remit.runs.closing import Closing
from remit.runs.fold import Folded, fold, new_state, note_request, resumed
from remit.runs.leases import held
from remit.runs.program import Program, Programs, RunResult
from remit.runs.queue import RunQueue
from remit.runs.rehearsal import Rehearsal, unverified
from remit.runs.run import Run
from remit.runs.table import LEASE_US, Lease, RunTable
from remit.runs.worker import Pace, Worker
from remit.storage import rows
from remit.storage.rows import RunRow
from remit.values import Json, encode

__all__ = ["Engine", "Program", "Programs", "RunResult"]

_AT_ONCE_US = 1_000_000
"""Who drives a run within this time of opening it has just opened it; later on, it has waited for a worker."""

_MOST_RESUMES = 20
"""A run that was taken up so often in a row, and never did anything, is not going to."""


class RunOptions(TypedDict, total=False):
    """How a run is opened. `traceparent`: the caller's span (W3C Trace Context), below which the run's trace stands."""

    on_behalf_of: str | None
    request_key: str | None
    traceparent: str | None
    priority: Urgency | None
    """Left out, as the contract has it."""


class Engine:
    """One per process. Any number of them may share a database."""

    def __init__(
        self, *, table: RunTable, queue: RunQueue, closing: Closing, gate: Gate, issuer: TokenIssuer, programs: Programs
    ) -> None:
        self._table = table
        self._closing = closing
        self._journal: Journal = closing.journal
        self._gate = gate
        self._issuer = issuer
        self.redactor = closing.redactor
        self._programs = programs
        self._worker = Worker(queue, self)

    async def open(self, contract: str, request: Json, **opening: Unpack[RunOptions]) -> str:
        """Open a run for a request and return its id; the same `request_key` again gives the run it has opened.

        Whoever opens it drives it: the queue has it only where they don't. Raises `RunError`: `input_invalid` for a
        request that does not meet the contract's input schema, `request_key_reused` where the key has opened a run for
        another request or for somebody else, `traceparent_invalid`.
        """
        return await self._open(contract, request, opening, self._table.opener)

    async def enqueue(self, contract: str, request: Json, **opening: Unpack[RunOptions]) -> str:
        """Open a run for the workers to drive, and return its id. Raises as `open` does; `RunError` (code `no_workflow`)."""
        if self._programs.at_hand(contract, None).workflow is None:
            raise RunError(f"the agent of contract `{contract}` lives elsewhere; no worker drives it", code="no_workflow")
        return await self._open(contract, request, opening, None)

    async def _open(self, contract: str, request: Json, opening: RunOptions, worker: str | None) -> str:
        traceparent, on_behalf_of = opening.get("traceparent"), opening.get("on_behalf_of")
        request_key = opening.get("request_key")
        if traceparent is not None and caller_of(traceparent) is None:
            message = "the traceparent is none; it is `00-<32 hex digits>-<16 hex digits>-<2 hex digits>` (W3C Trace Context)"
            raise RunError(message, code="traceparent_invalid")
        program = self._programs.admitted(contract, on_behalf_of)
        try:
            program.check_input(request)
        except RunError as error:
            # What is wrong with a request is told by quoting it.
            raise RunError(self.redactor.text(error.message), code=error.code) from None
        if self.redactor.holds_credential(request):
            raise RunError("the request holds a credential of the gateway", code="input_invalid")
        asked = encode([request, on_behalf_of])
        row = self._row(program, self._table.keyed("request", asked), opening, worker)
        if request_key is not None:
            known = self._opened(row)
            if known is not None:
                return known
        log, keys = self._journal.start(row.tenant, row.run)
        body, classes = program.opening_body({"contract": contract, "request": request, "on_behalf_of": on_behalf_of})
        # What a later version of the form adds behind the ids may be any text, and has no place in a header.
        more = program.refs if traceparent is None else {**program.refs, TRACEPARENT: traceparent[:IDS_CHARS]}
        redactor = self.redactor.for_run() if classes else self.redactor
        opened = bounds.opening(redactor, program.authority, body, more, classes)
        try:
            await self._journal.append(log, opened, statements=[keys, rows.open_run(row, self._table.now_us)])
        except FenceLost:
            # Not the fence but the request key: somebody opened a run for this request at the same moment.
            known = self._opened(row)
            if known is None:
                raise
            return known
        except StorageError as error:
            raise _not_known(error, row.run, request_key) from error
        return row.run

    def run_of(self, contract: str, request_key: str) -> str | None:
        """The run that a request key has opened, if it was used before."""
        return self._table.run_of(contract, request_key)

    def rehearsal(self, program: Program, name: str, request: Json, on_behalf_of: str) -> Rehearsal:
        """A run of a program that does not happen, to ask what the gate would say."""
        authority, redactor = unverified(program.authority), self.redactor.for_run()
        # What is concealed in such a run is known before its first call.
        redactor.redact(*program.opening_body({"request": request}))
        state = new_state(
            authority,
            RunLog(tenant=authority.tenant, run=name, keys=RunKeys(None, None)),
            redactor=redactor,
            clock=self._journal.clock,
            on_behalf_of=on_behalf_of,
            opened_at=self._journal.clock(),
        )
        note_request(state, request)
        return Rehearsal(self._gate, self._issuer, state)

    def is_closed(self, run: str) -> bool:
        """Whether a run has ended. Raises `RunError` (code `run_not_found`)."""
        return self._table.standing(run).status == "closed"

    async def drive(self, run: str) -> RunResult:
        """Drive a run as far as it goes now; `running` where another drive has it, this process's own among them.

        Raises `RunError` (`release_not_at_hand`, `no_workflow`) or `ConfigError` for what keeps it from going on,
        `StorageError` with the run's name where it can't be recorded.
        """
        standing = self._table.standing(run)
        if standing.status == "closed":
            return self._closed(run)
        # An agent that lives elsewhere leaves without parking its run; what it asked waits all the same.
        case = self._table.asking(run) if standing.status == "held" or standing.elsewhere else None
        if case is not None:
            return RunResult(run=run, outcome="held", case=case)
        if standing.elsewhere:
            raise RunError("the agent of this contract lives elsewhere; open a session for it", code="no_workflow")
        lease = self._table.claim(standing)
        if lease is None:
            return RunResult(run=run, outcome="running", reason="it is driven already, by another worker or call")
        return await self.drive_leased(lease)

    async def drive_leased(self, lease: Lease) -> RunResult:
        """Drive a run on which somebody has taken a lease, and give that back. Raises as `drive` does."""
        run = lease.run
        async with held(self._table, lease):
            try:
                return await self._drive(lease)
            except FenceLost:
                return RunResult(run=run, outcome="running", reason="another worker goes on with it")
            except StorageError as error:
                raise _named(error, run, "goes on by itself once the database can be written (`remit worker`)") from error
            except (RunError, ConfigError) as error:
                lease.trouble = self.redactor.text(error.message)
                raise
            except Exception as error:
                # The edge: what nobody expects keeps one run from going on, and is tried again later.
                lease.trouble = self.redactor.text(f"{type(error).__name__}: {error}")
                raise

    @asynccontextmanager
    async def session(self, run: str) -> AsyncGenerator[tuple[Run, Folded], None]:
        """Hold a run open for an agent that lives elsewhere and proposes calls; the caller closes the run.

        From then on no worker takes it up, also where its contract has a workflow: that would do something else.
        Raises `RunError` (code `run_busy`) where the run is closed, or held by another drive or session.
        """
        lease = self._table.claim(dataclasses.replace(self._table.standing(run), elsewhere=True))
        if lease is None:
            raise RunError(f"run `{run}` is closed, or driven by another worker or session", code="run_busy")
        async with held(self._table, lease):
            try:
                folded, _ = self._load(run, lease)
                await self._resume(folded, lease)
                try:
                    yield self._run(folded), folded
                finally:
                    # Whoever keeps the handle can do nothing with it any more.
                    folded.state.ended = folded.state.ended or "was left by its agent"
            except FenceLost:
                raise
            except StorageError as error:
                raise _named(error, run, "goes on when its agent opens it again under the same request key") from error

    async def finish(self, folded: Folded, outcome: str, *, output: Json = None, reason: str = "") -> RunResult:
        """Close a run: its last event and its row, in one transaction."""
        return await self._closing.finish(folded, outcome, output=output, reason=reason)

    async def fail(self, folded: Folded, reason: str) -> RunResult:
        """Close a run as failed, whatever its agent or workflow was in the middle of."""
        folded = await ending.abandon(self._journal, folded, self._reloaded, reason)
        return await self.finish(folded, "failed", reason=reason)

    async def give_up(self, folded: Folded, outcome: str, code: str, reason: str) -> RunResult:
        """Close a run that can't go on, with a case that asks a person to see to it."""
        folded = await ending.abandon(self._journal, folded, self._reloaded, reason)
        case = await ending.open_case(self._journal, folded, code, reason)
        await self.finish(folded, outcome, reason=reason)
        return RunResult(run=folded.state.run, outcome=outcome, reason=reason, case=case)

    async def park(self, folded: Folded, case: str) -> RunResult:
        """Free the worker while a person decides. If the person was faster than this, the run is found waiting."""
        state = folded.state
        state.ended = state.ended or "waits for a person"
        await state.turns.idle()
        assert folded.lease is not None
        self._table.park(folded.lease)
        return RunResult(run=state.run, outcome="held", case=case)

    async def sleep(self, folded: Folded, until: int) -> RunResult:
        """Free the worker until a time, in microseconds since the epoch."""
        state = folded.state
        state.ended = state.ended or "sleeps"
        await state.turns.idle()
        assert folded.lease is not None
        folded.lease.wake_at = until
        return RunResult(run=state.run, outcome="waiting", reason=f"it sleeps until {_clock_time(until)} UTC")

    async def postpone(self, folded: Folded, reason: str) -> RunResult:
        """Free the worker while a system is out of reach. The run is found waiting, and says what for."""
        state = folded.state
        state.ended = state.ended or "waits for a system that is out of reach"
        await state.turns.idle()
        assert folded.lease is not None
        folded.lease.trouble = state.redactor.text(reason)
        return RunResult(run=state.run, outcome="waiting", reason=folded.lease.trouble)

    def check_output(self, folded: Folded, output: Json) -> None:
        """Raises `RunError` (code `output_invalid`) for what does not meet the contract's output schema."""
        problem = self._output_problem(folded, output)
        if problem:
            raise RunError(problem, code="output_invalid")

    def _output_problem(self, folded: Folded, output: Json) -> str:
        authority = folded.state.authority
        return self._programs.at_hand(authority.contract.contract, authority.release).output_problem(output)

    def at_most(self) -> Mapping[str, int]:
        """How many runs of a contract may be driven at once, where it says so."""
        return self._programs.at_once()

    def waiting(self) -> list[str]:
        """Runs that somebody should drive now. A run whose agent lives elsewhere waits for that agent and nobody else."""
        return self._table.waiting()

    async def work(self, stop: asyncio.Event, *, poll_ms: int = 200, at_once: int = 8, drain_s: float = 30) -> None:
        """Drive whatever is waiting until `stop` is set; then finish what has begun, or leave it after `drain_s`."""
        await self._worker.work(stop, Pace(poll_ms=poll_ms, at_once=at_once, drain_s=drain_s))

    def drive_waiting(self) -> AsyncGenerator[RunResult, None]:
        """Drive each run that waits now, once; one that can't go on is `stuck`, with the reason."""
        return self._worker.once()

    # What follows is how a run is driven.

    async def _drive(self, lease: Lease) -> RunResult:
        run = lease.run
        try:
            folded, program = self._load(run, lease)
        except (RunError, ConfigError):
            ended = await self._closing.refused(run)
            if ended is None:
                raise
            return ended
        if folded.closed is not None:
            return RunResult(run=run, outcome=folded.closed, output=folded.output)
        # Before anything else, so that a worker that was overtaken can't write behind what this one finds.
        await self._resume(folded, lease)
        if folded.resumes > _MOST_RESUMES:
            reason = f"it was taken up {folded.resumes} times in a row and came to nothing"
            return await self.give_up(folded, "failed", "no_progress", reason)
        return await ending.execute(self, program, folded, self._run(folded))

    async def _resume(self, folded: Folded, lease: Lease) -> None:
        """Note that a run which was driven before, or has lain about since it was opened, is taken up again."""
        idle_us = lease.idle_us
        if lease.first and idle_us is not None and idle_us <= _AT_ONCE_US:
            return
        state = folded.state
        draft = Draft(type=EventType.RUN_RESUMED, actor=state.authority.principal, body={"idle_us": idle_us})
        await self._journal.append(state.log, draft)
        resumed(folded, self._journal.clock(), idle_us)
        folded.resumes += 1

    def _run(self, folded: Folded) -> Run:
        said = partial(self._output_problem, folded)
        return Run(folded, gate=self._gate, journal=self._journal, token=self._minter(folded), output_problem=said)

    def _minter(self, folded: Folded) -> Callable[[], str]:
        """Mints the run's token, and a new one when half of its lifetime is over."""
        state = folded.state
        request = state.authority.token_request(state.run, state.on_behalf_of)
        held_token: list[Any] = ["", 0]

        def mint() -> str:
            now = self._journal.clock()
            if now >= held_token[1]:
                held_token[:] = [self._issuer.issue(request, now), now + self._issuer.lifetime_s * 500_000]
            return held_token[0]

        return mint

    def _load(self, run: str, lease: Lease | None) -> tuple[Folded, Program]:
        log, events = self._journal.reopen(run)
        opened = events[0]
        body = cast("Mapping[str, Any]", opened.sealed or opened.body)
        program = self._programs.at_hand(body["contract"], opened.header.refs["release"])
        state = new_state(
            program.authority,
            log,
            # What it was opened with is known in the run; `fold` sees to what its calls have held.
            redactor=redactor_of(self.redactor, [opened]),
            clock=self._journal.clock,
            on_behalf_of=body["on_behalf_of"],
            opened_at=opened.header.at,
        )
        folded = fold(events, state)
        folded.lease = lease
        return folded, program

    def _reloaded(self, folded: Folded) -> Folded:
        again, _ = self._load(folded.state.run, folded.lease)
        # The log stays the one that this drive has held: what somebody else has written since still stops it.
        again.state.log = folded.state.log
        return again

    def _closed(self, run: str) -> RunResult:
        """How a closed run ended, as its record has it."""
        # What people did about its cases may stand behind it.
        closed = next(e for e in reversed(self._journal.reader.events(run)) if e.type is EventType.RUN_CLOSED)
        shown: dict[str, Any] = closed.body or {}
        output = (closed.sealed or shown).get("output")
        return RunResult(run=run, outcome=closed.header.verdict, output=output, reason=shown.get("reason", ""))

    # And this is how one is opened.

    def _row(self, program: Program, digest: str, opening: RunOptions, worker: str | None) -> RunRow:
        request_key = opening.get("request_key")
        key = uuid.uuid4().hex if request_key is None else request_key
        contract = program.authority.contract
        priority = opening.get("priority") or contract.priority
        return RunRow(
            run=f"run-{uuid.uuid4().hex[:16]}",
            tenant=program.authority.tenant,
            contract=contract.contract,
            release=program.authority.release,
            principal=program.authority.principal,
            request_key=self._table.keyed("key", key.encode(errors="surrogatepass")),
            request_digest=digest,
            elsewhere=program.workflow is None,
            opened_at=self._journal.clock(),
            worker=worker,
            lease_us=0 if worker is None else LEASE_US,
            priority=priority.rank,
            retention_us=duration_ms(contract.retention) * 1000,
            erase_after_us=None if contract.erase_after is None else duration_ms(contract.erase_after) * 1000,
        )

    def _opened(self, row: RunRow) -> str | None:
        """The run that this row's request key has opened before, if it was for the same request and person."""
        found = self._table.opened(row.contract, row.request_key)
        if found is None:
            return None
        if not found.digest:
            raise RunError(
                f"this request key has opened `{found.run}`, which was erased; give each request a key of its own",
                code="request_key_reused",
            )
        if found.digest != row.request_digest:
            raise RunError(
                f"this request key has opened `{found.run}`, for another request or for somebody else; "
                "give each request a key of its own",
                code="request_key_reused",
            )
        return found.run


def _clock_time(at_us: int) -> str:
    return f"{datetime.fromtimestamp(at_us / 1e6, UTC):%Y-%m-%d %H:%M:%S}"


def _not_known(error: StorageError, run: str, request_key: str | None) -> StorageError:
    """An error of the database at the very opening of a run: it may be on record, unless the record was refused."""
    if error.code != StorageError.code:
        return error
    again = "give the request a key (`--key`) and try again" if request_key is None else "try again with the same key"
    said = f"{error.message}; whether the run was opened isn't known: {again}, which opens it once"
    return StorageError(said, run=run)


def _named(error: StorageError, run: str, then: str) -> StorageError:
    """An error of the database while a run is open: which run, and that it is not lost.

    One that is about another run, whose block stands in this one's, is said already.
    """
    if error.run not in ("", run):
        return error
    if error.code != StorageError.code:
        message = error.message if run in error.message else f"run `{run}`: {error.message}"
        return StorageError(message, code=error.code, run=run)
    return StorageError(f"{error.message}; `{run}` is on record and {then}; don't start it again", run=run)

"""The engine: opens runs, drives them, parks them while a person decides, and takes up those that a worker left.

What happened inside a run is in the journal. The table `runs` only says which worker drives which run when.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from traceback import format_exception
from typing import Any, cast

import jsonschema_rs
from sqlalchemy import and_, or_, select, update

from remit.errors import ConfigError, FenceLost, RemitError, RunError, StorageError
from remit.gate.authority import Authority
from remit.gate.gate import Gate
from remit.gate.record import open_case_for, withdraw_approvals
from remit.gate.verdicts import Completed, Denied
from remit.identity.tokens import TokenIssuer, TokenRequest, scopes_of
from remit.journal.events import Draft, EventType
from remit.journal.journal import Journal
from remit.journal.redaction import Redactor
from remit.runs.fold import Folded, fold, new_state, resumed
from remit.runs.run import Escalated, NotCompleted, Parked, Run
from remit.storage import rows, schema
from remit.storage.database import Database, storage_errors
from remit.storage.rows import RunRow
from remit.values import Json, ValueRefused, encode, leaves

_log = logging.getLogger("remit")

Workflow = Callable[[Run, Any], Awaitable[Any]]

LEASE_MS = 20_000
"""How long a worker that says nothing keeps a run. It says something three times as often."""


_AT_ONCE_US = 1_000_000
"""Who drives a run within this time of opening it has just opened it; later on, it has waited for a worker."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a run executes: the authority it acts under, and the code and schemas of its contract."""

    authority: Authority
    input_validator: jsonschema_rs.Draft202012Validator
    output_validator: jsonschema_rs.Draft202012Validator
    bundle: Json
    """All that shapes behaviour, as the release's digest covers it."""
    workflow: Workflow | None
    """`None` for a contract whose agent lives elsewhere and only proposes."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run stands when nobody drives it any more.

    `outcome`: completed, escalated, denied, failed, unknown, diverged; or held while it waits for a person.
    """

    run: str
    outcome: str
    output: Json = None
    reason: str = ""
    case: str | None = None


Programs = Callable[[str, str | None], Program]
"""`programs(contract, release)`: the program of a contract; under `release` where a run has begun, else the current one.

Raises `RunError` where that release is not at hand.
"""


class Engine:
    """One per process. Any number of them may share a database."""

    def __init__(
        self,
        *,
        database: Database,
        journal: Journal,
        gate: Gate,
        issuer: TokenIssuer,
        redactor: Redactor,
        programs: Programs,
    ) -> None:
        self._database = database
        self._journal = journal
        self._gate = gate
        self._issuer = issuer
        self._redactor = redactor
        self._programs = programs
        self._worker = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"

    async def open(
        self, contract: str, request: Json, *, on_behalf_of: str | None = None, request_key: str | None = None
    ) -> str:
        """Open a run for a request and return its id; the same `request_key` again gives the run it has opened.

        Raises `RunError` (code `input_invalid`) for a request that does not meet the contract's input schema.
        """
        program = self._programs(contract, None)
        _check_input(program, request)
        if self._redactor.holds_credential(request):
            raise RunError("the request holds a credential of the gateway", code="input_invalid")
        authority = program.authority
        key = request_key or uuid.uuid4().hex
        known = self._run_of_request(authority, key)
        if known is not None:
            return known
        run = f"run-{uuid.uuid4().hex[:16]}"
        log, keys = self._journal.start(authority.tenant, run)
        now = self._journal.clock()
        body = {"contract": contract, "request": request, "on_behalf_of": on_behalf_of}
        shown = self._redactor.redact(body).value
        opened = Draft(
            type=EventType.RUN_OPENED,
            actor=authority.principal,
            refs={"release": authority.release, "policy": authority.policy.digest},
            body=shown,
            sealed=self._redactor.sealed(shown, body),
        )
        row = RunRow(
            run=run,
            tenant=authority.tenant,
            contract=contract,
            release=authority.release,
            principal=authority.principal,
            request_key=key,
            opened_at=now,
            worker=self._worker,
            lease_until=now + LEASE_MS * 1000,
        )
        try:
            await self._journal.append(log, opened, statements=[keys, rows.open_run(row)])
        except FenceLost:
            # Not the fence but the request key: somebody opened a run for this request at the same moment.
            known = self._run_of_request(authority, key)
            if known is None:
                raise
            return known
        return run

    async def drive(self, run: str) -> RunResult:
        """Drive a run as far as it goes now. Raises `RunError` (code `run_busy`) where another worker has it."""
        contract, standing = self._standing(run)
        if standing.outcome != "closed" and self._is_foreign(contract):
            raise RunError("the agent of this contract lives elsewhere; open a session for it", code="no_workflow")
        if not self._claim(run):
            return self._standing(run)[1]
        async with self._beating(run):
            try:
                folded, program = self._load(run)
                if folded.closed is not None:
                    return RunResult(run=run, outcome=folded.closed, output=folded.output)
                await self._resume(folded)
                return await self._execute(program, folded)
            except FenceLost:
                return RunResult(run=run, outcome="running", reason="another worker goes on with it")

    @asynccontextmanager
    async def session(self, run: str) -> AsyncGenerator[tuple[Run, Folded], None]:
        """Hold a run open for an agent that lives elsewhere and proposes calls; the caller closes the run."""
        if not self._claim(run):
            raise RunError(f"run `{run}` is closed, or driven by another worker", code="run_busy")
        async with self._beating(run):
            folded, _ = self._load(run)
            await self._resume(folded)
            yield self._run(folded), folded

    async def finish(self, folded: Folded, outcome: str, *, output: Json = None, reason: str = "") -> RunResult:
        """Close a run: its last event and its row, in one transaction."""
        state = folded.state
        body = {"outcome": outcome, "output": output, "reason": reason, "events": state.log.place.n}
        shown = self._redactor.redact(body).value
        closed = Draft(
            type=EventType.RUN_CLOSED,
            actor=state.authority.principal,
            verdict=outcome,
            body=shown,
            sealed=self._redactor.sealed(shown, body),
            latency_us=max(0, self._journal.clock() - state.opened_at - state.parked_us),
        )
        statements = [
            rows.set_run(state.run, "closed", self._journal.clock(), outcome),
            withdraw_approvals(state),
        ]
        await self._journal.append(state.log, closed, statements=statements)
        return RunResult(run=state.run, outcome=outcome, output=output, reason=reason)

    def check_output(self, folded: Folded, output: Json) -> None:
        """Raises `RunError` (code `output_invalid`) for what does not meet the contract's output schema."""
        authority = folded.state.authority
        problem = _output_problem(self._programs(authority.contract.contract, authority.release), output)
        if problem:
            raise RunError(problem, code="output_invalid")

    def waiting(self) -> list[str]:
        """Runs that somebody should drive now: decided by a person, expired while held, or left by their worker.

        A run whose agent lives elsewhere waits for that agent and for nobody else.
        """
        table, now = schema.runs.c, self._journal.clock()
        expired = select(schema.cases.c.run).where(schema.cases.c.status == "open", schema.cases.c.expires_at < now)
        query = select(table.run, table.contract).where(
            or_(
                table.status == "ready",
                and_(table.status == "running", or_(table.lease_until < now, table.lease_until.is_(None))),
                and_(table.status == "held", table.run.in_(expired)),
            )
        )
        with storage_errors("look for runs"), self._database.engine.connect() as connection:
            found = connection.execute(query.order_by(table.opened_at)).all()
        return [row.run for row in found if not self._is_foreign(row.contract)]

    async def work(self, stop: asyncio.Event, *, poll_ms: int = 200, at_once: int = 8) -> None:
        """Drive whatever is waiting until `stop` is set; then finish what has begun."""
        driving: dict[str, asyncio.Task[RunResult]] = {}
        rests_until: dict[str, int] = {}
        while not stop.is_set():
            now = self._journal.clock()
            for run in self.waiting():
                if len(driving) < at_once and run not in driving and rests_until.get(run, 0) <= now:
                    driving[run] = asyncio.ensure_future(self.drive(run))
            await _wait_any([*driving.values()], stop, poll_ms)
            ended = {run: _failure(task) for run, task in driving.items() if task.done()}
            for run, error in ended.items():
                del driving[run]
                if error is not None:
                    # What keeps it from going on may last; it is not tried without a pause.
                    _log.warning("run %s can't go on: %s", run, self._redactor.text(error.message))
                    rests_until[run] = now + LEASE_MS * 1000
        await asyncio.gather(*driving.values(), return_exceptions=True)

    # What follows is how a run is driven.

    def _is_foreign(self, contract: str) -> bool:
        """Whether no workflow drives the runs of a contract. One that can't be loaded is for `drive` to report."""
        try:
            return self._programs(contract, None).workflow is None
        except (ConfigError, RunError):
            return False

    async def _execute(self, program: Program, folded: Folded) -> RunResult:
        assert program.workflow is not None
        state = folded.state
        try:
            output = await program.workflow(self._run(folded), folded.request)
        except Parked as parked:
            return await self.park(folded, parked.case)
        except Escalated as escalated:
            result = await self.finish(folded, "escalated", reason=escalated.reason)
            return RunResult(run=state.run, outcome="escalated", reason=result.reason, case=escalated.case)
        except NotCompleted as ended:
            return await self.finish(folded, _outcome_name(ended), reason=ended.message)
        except FenceLost:
            raise
        except RemitError as error:
            return await self._give_up(folded, error)
        except Exception as error:  # noqa: BLE001 - the edge: whatever the workflow raises, its run is closed on record
            _log.error("run %s: %s", state.run, self._redactor.text("".join(format_exception(error))))
            return await self.finish(folded, "failed", reason=f"the workflow broke: {type(error).__name__}: {error}")
        problem = _output_problem(program, output)
        if problem:
            return await self.finish(folded, "failed", reason=problem)
        return await self.finish(folded, "completed", output=output)

    async def _resume(self, folded: Folded) -> None:
        """Note that a run which has begun before, or has lain about since it was opened, is taken up again."""
        state = folded.state
        if state.log.place.n > 2 or self._journal.clock() - folded.active_at > _AT_ONCE_US:
            await self._journal.append(
                state.log, Draft(type=EventType.RUN_RESUMED, actor=state.authority.principal, body={})
            )
            resumed(folded, self._journal.clock())

    async def _give_up(self, folded: Folded, error: RemitError) -> RunResult:
        """A run that can't go on: what can't be recorded stays as it is, the rest becomes a case."""
        if isinstance(error, StorageError):
            # A call may be without its outcome now: closing the run would hide that from whoever takes it up.
            raise error
        case_id, opened, statement = open_case_for(folded.state, "", kind=error.code, reason=error.message)
        await self._journal.append(folded.state.log, opened, statements=[statement])
        outcome = "diverged" if error.code == "diverged" else "failed"
        closed = await self.finish(folded, outcome, reason=error.message)
        return RunResult(run=closed.run, outcome=outcome, reason=error.message, case=case_id)

    async def park(self, folded: Folded, case: str) -> RunResult:
        """Free the worker while a person decides. If the person was faster than this, the run is ready at once."""
        state = folded.state
        now = self._journal.clock()
        table, cases = schema.runs.c, schema.cases.c
        mine = update(schema.runs).where(table.run == state.run, table.worker == self._worker)
        with storage_errors("park the run"), self._database.engine.begin() as connection:
            connection.execute(mine.values(status="held", updated_at=now, worker=None, lease_until=None))
        # Only now is the case looked at: whoever decides from here on finds the run held and makes it ready.
        decided = select(cases.run).where(cases.case == case, cases.status != "open").exists()
        ready = update(schema.runs).where(table.run == state.run, table.status == "held", decided)
        with storage_errors("park the run"), self._database.engine.begin() as connection:
            connection.execute(ready.values(status="ready"))
        return RunResult(run=state.run, outcome="held", case=case)

    def _run(self, folded: Folded) -> Run:
        return Run(folded, gate=self._gate, journal=self._journal, token=self._minter(folded))

    def _minter(self, folded: Folded) -> Callable[[], str]:
        """Mints the run's token, and a new one when half of its lifetime is over."""
        authority, state = folded.state.authority, folded.state
        scopes = scopes_of(authority.contract)
        held_token: list[Any] = ["", 0]

        def mint() -> str:
            now = self._journal.clock()
            if now >= held_token[1]:
                request = TokenRequest(
                    principal=authority.principal,
                    tenant=authority.tenant,
                    region=authority.region,
                    scopes=scopes,
                    contract=authority.release,
                    run=state.run,
                    on_behalf_of=state.on_behalf_of,
                )
                held_token[:] = [self._issuer.issue(request, now), now + self._issuer.lifetime_s * 500_000]
            return held_token[0]

        return mint

    def _load(self, run: str) -> tuple[Folded, Program]:
        log, events = self._journal.reopen(run)
        opened = events[0]
        body = cast("Mapping[str, Any]", opened.sealed or opened.body)
        program = self._programs(body["contract"], opened.header.refs["release"])
        state = new_state(
            program.authority,
            log,
            redactor=self._redactor,
            clock=self._journal.clock,
            on_behalf_of=body["on_behalf_of"],
            opened_at=opened.header.at,
        )
        return fold(events, state), program

    def _run_of_request(self, authority: Authority, key: str) -> str | None:
        table = schema.runs.c
        query = select(table.run).where(
            table.tenant == authority.tenant,
            table.contract == authority.contract.contract,
            table.request_key == key,
        )
        with storage_errors("look for the run"), self._database.engine.connect() as connection:
            return connection.execute(query).scalar()

    def _standing(self, run: str) -> tuple[str, RunResult]:
        """The contract of a run, and how it stands."""
        table = schema.runs.c
        with storage_errors("look for the run"), self._database.engine.connect() as connection:
            columns = (table.contract, table.status, table.outcome)
            row = connection.execute(select(*columns).where(table.run == run)).first()
        if row is None:
            raise RunError(f"there is no run `{run}`; `remit runs` lists them", code="run_not_found")
        return row.contract, RunResult(run=run, outcome=row.outcome or row.status)

    def _claim(self, run: str) -> bool:
        """Take the lease of a run, if it is to be driven and nobody drives it."""
        table, now = schema.runs.c, self._journal.clock()
        free = or_(table.worker == self._worker, table.worker.is_(None), table.lease_until < now)
        with storage_errors("claim the run"), self._database.engine.begin() as connection:
            claimed = connection.execute(
                update(schema.runs)
                .where(table.run == run, table.status != "closed", free)
                .values(status="running", worker=self._worker, lease_until=now + LEASE_MS * 1000, updated_at=now)
            )
        return claimed.rowcount == 1

    @asynccontextmanager
    async def _beating(self, run: str) -> AsyncGenerator[None, None]:
        """Renew the lease while the run is driven, and end it with whatever made the driving end."""
        beat = asyncio.ensure_future(self._beat(run))
        try:
            yield
        finally:
            beat.cancel()
            self._let_go(run)

    async def _beat(self, run: str) -> None:
        while True:
            await asyncio.sleep(LEASE_MS / 3000)
            # A beat that is missed is made up for by the next; the fence holds whatever the lease says.
            with suppress(StorageError):
                self._claim(run)

    def _let_go(self, run: str) -> None:
        table = schema.runs.c
        with storage_errors("let the run go"), self._database.engine.begin() as connection:
            connection.execute(
                update(schema.runs)
                .where(table.run == run, table.worker == self._worker)
                .values(worker=None, lease_until=None)
            )


def _check_input(program: Program, request: Json) -> None:
    try:
        for _ in leaves(request):
            pass
        encode(request)
    except ValueRefused as error:
        raise RunError(f"the request is not acceptable: {error.message}", code="input_invalid") from error
    error = next(iter(program.input_validator.iter_errors(request)), None)
    if error is not None:
        raise RunError(f"the request does not meet the contract's input schema: {error.message}", code="input_invalid")


def _output_problem(program: Program, output: Json) -> str:
    try:
        for _ in leaves(output):
            pass
    except ValueRefused as error:
        return f"the output is not acceptable: {error.message}"
    error = next(iter(program.output_validator.iter_errors(output)), None)
    return f"the output does not meet the contract's output schema: {error.message}" if error else ""


def _outcome_name(ended: NotCompleted) -> str:
    outcome = ended.outcome
    assert not isinstance(outcome, Completed)
    return "denied" if isinstance(outcome, Denied) else type(outcome).__name__.lower()


async def _wait_any(tasks: list[asyncio.Task[RunResult]], stop: asyncio.Event, poll_ms: int) -> None:
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait([*tasks, stopping], timeout=poll_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()


def _failure(task: asyncio.Task[RunResult]) -> RemitError | None:
    """Why a run could not be driven; whatever is not one of our own errors is raised."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, RemitError):
        raise error
    return error

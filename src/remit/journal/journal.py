"""Appending to the journal: entries that wait together are committed together, in one durable transaction.

An entry says what it charges and which principals must be enabled; the transaction reserves and checks exactly that
under lock, and only then learns the entry what to record. So what is recorded is what was decided, and what can't be
recorded or reserved does not happen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeGuard, TypeVar

import msgspec

from remit.errors import FenceLost, StorageError
from remit.journal import events
from remit.journal.events import ChainEnd, Draft, Event, EventType, Row
from remit.journal.reader import Reader
from remit.journal.vault import RunKeys, Vault
from remit.limits.meters import Charge, Exhausted, Meters, Reserved
from remit.storage.database import Database
from remit.storage.writer import Collision, LockedState, Locks, Rows, Statement, Write, Writer, open_writer

T = TypeVar("T")

Clock = Callable[[], int]
"""Microseconds since the epoch, UTC."""


def system_clock() -> int:
    return time.time_ns() // 1000


# What people do about a run arrives beside it; its worker takes these up instead of giving up.
FROM_BESIDE = {EventType.APPROVAL_DECIDED, EventType.CASE_DECIDED, EventType.CASE_REVEALED}

_EVENT_COLUMNS = ("tenant", "run", "n", "type", "at", "hash", "header", "body", "sealed")


@dataclass(kw_only=True, slots=True)
class RunLog:
    """The end of one run's chain, as its one owner holds it."""

    tenant: str
    run: str
    keys: RunKeys
    end: ChainEnd = events.START
    arrived: list[Event] = field(default_factory=list[Event])
    """Decisions of people that came in beside the owner, not yet taken up."""


class Disabled(msgspec.Struct, frozen=True, kw_only=True):
    """A principal that is disabled, or that the database does not know."""

    principal: str


Reservation = tuple[Reserved, ...] | Exhausted | Disabled


class Recording(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What an entry writes once it knows its reservation: events, rows beside them, and what the caller gets."""

    value: T
    drafts: Sequence[Draft] = ()
    statements: Sequence[Statement] = ()


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """Give back `amount` of what was reserved (negative: take more)."""

    reserved: Reserved
    amount: int


class Entry(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One unit of the record. `record` may run more than once; it must not have effects of its own."""

    log: RunLog
    record: Callable[[Reservation], Recording[T]]
    charges: tuple[Charge, ...] = ()
    principals: tuple[str, ...] = ()
    settlements: tuple[Settlement, ...] = ()


class _Waiting(msgspec.Struct, kw_only=True):
    entry: Entry[Any]
    future: asyncio.Future[Any]


class _EntryFailed(Exception):
    """One entry of a batch raised when it was asked what to record."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(index)
        self.index = index
        self.error = error


_MOST = 512
"""How many entries one transaction takes at most: more gain nothing, and a statement has only so many parameters."""


class Journal:
    """The append-only store of events. One instance per event loop; any number of processes on one database."""

    def __init__(
        self, database: Database, *, vault: Vault, clock: Clock = system_clock, writer: Writer | None = None
    ) -> None:
        """`writer` stands in for the one that suits the database, where the cost of everything else is measured."""
        self.clock = clock
        self.reader = Reader(database, vault)
        self._vault = vault
        self._writer: Writer = writer or open_writer(database)
        self._waiting: list[_Waiting] = []
        self._flushing: asyncio.Task[None] | None = None
        self.under_way = 0
        """How many calls are under way, and so may have something to record soon: a single one need not wait for others."""
        self._has_written = False
        """Whether something was committed at once in this turn of the event loop. What comes behind it gives way and is
        committed together: else those that wait for nothing would go on to their end, one after the other."""
        self.on_written: Callable[[], None] = _nobody
        """Told whenever events were recorded."""
        self.on_afterwards: Callable[[str, int, str], None] = _nobody_of
        """Told of each event of those types that may come when a run has ended: its chain, its place, and the run."""

    def start(self, tenant: str, run: str) -> tuple[RunLog, Statement]:
        """A log for a new run, and the statement that stores its keys; to be committed with its first event."""
        keys, wrapped = self._vault.create(run)
        statement = Statement(
            sql="INSERT INTO run_keys (run, body_key, sealed_key) VALUES (:run, :body_key, :sealed_key)",
            params={"run": run, "body_key": wrapped.body, "sealed_key": wrapped.sealed},
        )
        return RunLog(tenant=tenant, run=run, keys=keys), statement

    def reopen(self, run: str) -> tuple[RunLog, list[Event]]:
        """The log of a recorded run, at the end of its chain, and its events. Raises `StorageError`."""
        keys = self.reader.keys(run)
        recorded = self.reader.events(run, keys)
        last = recorded[-1]
        return RunLog(tenant=last.header.tenant, run=run, keys=keys, end=events.after(last)), recorded

    def go_on(self, run: str) -> RunLog:
        """The log of a recorded run at the end of its chain, of which only the last event is read. Raises `StorageError`."""
        keys = self.reader.keys(run)
        last = self.reader.last(run, keys)
        return RunLog(tenant=last.header.tenant, run=run, keys=keys, end=events.after(last))

    async def append(self, log: RunLog, *drafts: Draft, statements: Sequence[Statement] = ()) -> None:
        """Record events that reserve nothing. Returns when they are durable."""
        recording = Recording(value=None, drafts=drafts, statements=statements)
        await self.commit(Entry(log=log, record=lambda _: recording))

    async def commit(self, entry: Entry[T]) -> T:
        """Reserve, record, and return when it is durable.

        Raises what `entry.record` raises, or `StorageError` with the entry's run; then nothing of it was recorded.
        """
        loop = asyncio.get_running_loop()
        if self.under_way <= 1 and self._flushing is None and not self._has_written:
            transaction = _Transaction([entry], self.clock)
            if self._write_at_once(transaction):
                self._has_written = True
                loop.call_soon(self._begin_turn)
                return self._written(transaction)[0].value
        waiting = _Waiting(entry=entry, future=loop.create_future())
        self._waiting.append(waiting)
        if self._flushing is None:
            # The task starts when everything that is ready now has had its turn: what queues meanwhile goes along.
            self._flushing = loop.create_task(self._flush())
        return await waiting.future

    async def write(self, statements: Sequence[Statement]) -> None:
        """Write rows that belong to no run, in one transaction, which entries may share. Raises as `commit` does."""
        beside = RunLog(tenant="", run="", keys=RunKeys(None, None))
        await self.commit(Entry(log=beside, record=lambda _: Recording(value=None, statements=statements)))

    async def close(self) -> None:
        """Let what is waiting become durable, then close the connection."""
        if self._flushing is not None:
            await self._flushing
        await self._writer.close()

    def _begin_turn(self) -> None:
        self._has_written = False

    async def _flush(self) -> None:
        batch: list[_Waiting] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                behind = len(self._waiting)
                unavailable = await self._commit_batch(list(batch))
                if unavailable is not None:
                    # These have waited as long, and would only wait for the same again.
                    _fail_all(self._waiting[:behind], unavailable)
                    self._waiting = self._waiting[behind:]
        except BaseException as error:
            # Nobody may wait for ever for what will not happen any more.
            _fail_all(batch + self._waiting, error)
            self._waiting = []
            raise
        finally:
            self._flushing = None

    async def _commit_batch(self, batch: list[_Waiting]) -> StorageError | None:
        """Settle every entry of the batch. Returns the error where the database can't be written at all."""
        while batch:
            try:
                await self._write(batch)
                return None
            except _EntryFailed as failed:
                _fail(batch.pop(failed.index), failed.error)
            except (Collision, StorageError) as error:
                if _unavailable(error):
                    _fail_all(batch, error)
                    return error
                # It is about one of them: it lost its fence, or its row. Which one shows when each goes alone.
                return await self._one_by_one(batch)
        return None

    async def _one_by_one(self, batch: list[_Waiting]) -> StorageError | None:
        for i, waiting in enumerate(batch):
            try:
                await self._commit_alone(waiting)
            except _EntryFailed as failed:
                _fail(waiting, failed.error)
            except StorageError as error:
                if _unavailable(error):
                    _fail_all(batch[i:], error)
                    return error
                _fail(waiting, error)
        return None

    async def _commit_alone(self, waiting: _Waiting) -> None:
        log = waiting.entry.log
        for _ in range(3):
            try:
                await self._write([waiting])
                return
            except Collision as error:
                if not self._take_up(log):
                    raise FenceLost(f"another worker goes on with run `{log.run}`; this one stops") from error
        raise FenceLost(f"run `{log.run}` is written to by others without end; try again")

    def _take_up(self, log: RunLog) -> bool:
        """Go on behind what people decided meanwhile; false if another worker, not a person, was here."""
        if log.end == events.START:
            return False
        arrived = self.reader.events(log.run, log.keys, behind=log.end)
        if not arrived or any(event.type not in FROM_BESIDE for event in arrived):
            return False
        log.arrived.extend(arrived)
        log.end = events.after(arrived[-1])
        return True

    def _write_at_once(self, transaction: _Transaction) -> bool:
        """Commit without a detour, where there is nobody to wait for; false where that has come to nothing."""
        try:
            return self._writer.write_at_once(transaction.locks, transaction.decide)
        except _EntryFailed as failed:
            raise failed.error from failed
        except Collision:
            # Who was here first is looked into on the usual way.
            return False
        except StorageError as error:
            raise _own(error, transaction.entries[0].log.run) from error

    async def _write(self, batch: list[_Waiting]) -> None:
        transaction = _Transaction([waiting.entry for waiting in batch], self.clock)
        await self._writer.write(transaction.locks, transaction.decide)
        for waiting, recording in zip(batch, self._written(transaction), strict=True):
            if not waiting.future.done():
                waiting.future.set_result(recording.value)

    def _written(self, transaction: _Transaction) -> list[Recording[Any]]:
        """What is durable now, in the order of its entries, whose logs go on behind it."""
        if transaction.has_events:
            self.on_written()
        for entry in transaction.entries:
            entry.log.end = transaction.ends[id(entry.log)]
        for told in transaction.afterwards:
            self.on_afterwards(*told)
        return transaction.recordings


def _nobody() -> None:
    """Nobody is to be told."""


def _nobody_of(_chain: str, _n: int, _run: str) -> None:
    """Nobody is to be told."""


def _fail(waiting: _Waiting, error: BaseException) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(_own(error, waiting.entry.log.run))


def _own(error: BaseException, run: str) -> BaseException:
    """What went wrong with a transaction, as one run's own error: many runs may have shared the transaction."""
    if type(error) is not StorageError:
        return error
    own = StorageError(error.message, code=error.code, run=run)
    own.__cause__ = error
    return own


def _fail_all(batch: Iterable[_Waiting], error: BaseException) -> None:
    for waiting in batch:
        _fail(waiting, error)


def _unavailable(error: BaseException) -> TypeGuard[StorageError]:
    """Whether the database can't be written at all: then each of them would only wait for the same."""
    return isinstance(error, StorageError) and error.code == StorageError.code


class _Transaction:
    """What one transaction reads, decides and writes for a batch of entries, in their order."""

    def __init__(self, entries: Sequence[Entry[Any]], clock: Clock) -> None:
        self.entries = entries
        self._clock = clock
        self.locks = Locks(
            meters=tuple(_unique(_meter_names(entries))),
            principals=tuple(_unique(p for entry in entries for p in entry.principals)),
        )
        self.recordings: list[Recording[Any]] = []
        self.ends: dict[int, ChainEnd] = {}
        self.has_events = False
        self.afterwards: list[tuple[str, int, str]] = []

    def decide(self, found: LockedState) -> list[Write]:
        now = self._clock()
        meters = Meters(found.meters, now)
        rows: list[tuple[Any, ...]] = []
        beside: list[Statement] = []
        # A writer that had to begin again asks again.
        self.recordings, self.ends, self.afterwards = [], {}, []
        for index, entry in enumerate(self.entries):
            try:
                recording = entry.record(_reserve(entry, meters, found))
                rows.extend(self._place(entry.log, recording.drafts, now))
            except Exception as error:
                raise _EntryFailed(index, error) from error
            self.recordings.append(recording)
            beside.extend(recording.statements)
            for settlement in entry.settlements:
                meters.release(settlement.reserved, settlement.amount)
        self.has_events = bool(rows)
        writes: list[Write] = [Rows(table="events", columns=_EVENT_COLUMNS, rows=rows)] if rows else []
        changed = meters.changed()
        if changed:
            writes.append(Rows(table="meters", columns=("meter", "state"), rows=list(changed.items()), key="meter"))
        return [*writes, *beside]

    def _place(self, log: RunLog, drafts: Iterable[Draft], now: int) -> Iterable[tuple[Any, ...]]:
        end = self.ends.get(id(log), log.end)
        for draft in drafts:
            row = events.write(draft, tenant=log.tenant, run=log.run, behind=end, at=now, keys=log.keys)
            if draft.type in events.AFTERWARDS:
                self._note_afterwards(draft, log.run, end.n)
            end = ChainEnd(n=end.n + 1, prev=row.hash)
            yield _columns(row)
        self.ends[id(log)] = end


    def _note_afterwards(self, draft: Draft, chain: str, n: int) -> None:
        run = draft.refs.get("run", "") if draft.type in events.OF_REGISTER else chain
        if run:
            self.afterwards.append((chain, n, run))


def _reserve(entry: Entry[Any], meters: Meters, found: LockedState) -> Reservation:
    for principal in entry.principals:
        if principal not in found.enabled:
            return Disabled(principal=principal)
    return meters.reserve(entry.charges)


def _meter_names(entries: Iterable[Entry[Any]]) -> Iterable[str]:
    for entry in entries:
        yield from (charge.meter for charge in entry.charges)
        yield from (settlement.reserved.meter for settlement in entry.settlements)


def _unique(names: Iterable[str]) -> Iterable[str]:
    return dict.fromkeys(names)


def _columns(row: Row) -> tuple[Any, ...]:
    return (row.tenant, row.run, row.n, row.type, row.at, row.hash, row.header, row.body, row.sealed)

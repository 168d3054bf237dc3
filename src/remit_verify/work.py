"""Work that can be shared out: stretches of events and of checkpoints, checked by several processes in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from typing import TypeVar

from remit_verify.checking import Stretch
from remit_verify.checkpoints import Claims, NoteRow, read_notes
from remit_verify.database import Address, Damaged, Database, open_database
from remit_verify.exported import ExportChecker
from remit_verify.keys import Keys
from remit_verify.report import Unreadable
from remit_verify.rows import RowChecker, RunKeys

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 2
"""How many pieces of work each process has waiting: enough to be busy, few enough to keep in memory."""


class Workers:
    """Does pieces of work and gives back what they come to, in order; in this process where there is but one."""

    def __init__(self, pool: ProcessPoolExecutor | None, count: int) -> None:
        self._pool = pool
        self.count = count

    def each(self, do: Callable[[T], R], pieces: Iterable[T]) -> Iterator[R]:
        """`do` for each piece. Raises `Unreadable` where a process was ended."""
        if self._pool is None:
            yield from map(do, pieces)
            return
        waiting: deque[Future[R]] = deque()
        try:
            for piece in pieces:
                waiting.append(self._pool.submit(do, piece))
                if len(waiting) > _AHEAD * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise Unreadable("a verifying process was ended from outside; try again with `processes=1`") from error
        finally:
            for one in waiting:
                one.cancel()


@contextmanager
def workers(count: int) -> Generator[Workers]:
    """`count` processes, started when there is work; this one alone where `count` is 1."""
    if count == 1:
        yield Workers(None, 1)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        yield Workers(pool, count)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Events of a database to check: those of a range of `seq`."""

    address: Address
    master: bytes
    tenant: str | None
    first: int
    last: int


def check_rows(rows: Rows) -> Stretch:
    """Check a range of events on this process's own connection."""
    database, run_keys = _opened(rows.address, rows.master)
    return check_range(database, run_keys, rows)


def check_range(database: Database, run_keys: RunKeys, rows: Rows) -> Stretch:
    """Check a range of events."""
    checker = RowChecker(run_keys, rows.tenant)
    try:
        for batch in database.rows(rows.first, rows.last):
            checker.rows(batch)
    except Damaged as error:
        checker.stretch.unread = f"events of seq {rows.first} to {rows.last} can't be read: {error}"
    return checker.stretch


@lru_cache(maxsize=1)
def _opened(address: Address, master: bytes) -> tuple[Database, RunKeys]:
    database = open_database(address)
    return database, RunKeys(master, database.wrapped_keys)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lines:
    """Events of an exported file to check."""

    tenant: str
    first: int
    lines: list[bytes]


def check_lines(piece: Lines) -> Stretch:
    """Check lines of an exported file."""
    checker = ExportChecker(piece.tenant)
    checker.lines(piece.first, piece.lines)
    return checker.stretch


@dataclass(frozen=True, kw_only=True, slots=True)
class Notes:
    """Checkpoints of one tenant and place to check."""

    tenant: str
    source: str
    journal: str | None
    keys: Keys
    rows: list[NoteRow]


def check_notes(notes: Notes) -> Claims:
    """Check checkpoints."""
    return read_notes(notes.rows, notes.keys, journal=notes.journal, tenant=notes.tenant, source=notes.source)

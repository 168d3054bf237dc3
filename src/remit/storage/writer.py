"""Writing transactions, the hot path: hand-written statements on one connection per process.

`write` runs a transaction given as two steps: what to read (locking it), and a function from what was read to what to
write. On SQLite it happens inline, because one commit costs less than handing it to a thread; on Postgres the event
loop goes on while the server works.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from remit.errors import StorageError
from remit.storage.database import Database, explain


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One SQL text with `:name` parameters.

    Where `changes` is given, the transaction fails with `StorageError` (code `row_changed`) unless exactly so many rows
    are changed: somebody else was faster.
    """

    sql: str
    params: dict[str, Any]
    changes: int | None = None


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """Rows to insert into one table; where `key` is given, a row with the same value of that column is replaced."""

    table: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    key: str = ""


Write = Statement | Rows


class Locks(msgspec.Struct, frozen=True, kw_only=True):
    """What a transaction reads before it decides: the named meters and principals, both locked until it ends."""

    meters: tuple[str, ...]
    principals: tuple[str, ...]


class LockedState(msgspec.Struct, frozen=True, kw_only=True):
    """What was read: the states of meters that exist, and the principals that are enabled."""

    meters: dict[str, bytes]
    enabled: frozenset[str]


class Collision(Exception):
    """A unique constraint refused the transaction: somebody was here first."""


Decide = Callable[[LockedState], Sequence[Write]]


class Writer(Protocol):
    """Runs one transaction at a time."""

    async def write(self, locks: Locks, decide: Decide) -> None:
        """Read under lock, decide, write, commit durably. `decide` may be asked again where databases make one wait.

        Raises what `decide` raises, `Collision`, or `StorageError`: code `storage_unavailable` where the database
        can't be written at all, `record_refused` or `row_changed` where it is about what was to be written. Then
        nothing was done, unless the connection broke at the very commit: then nobody knows, and what was written
        would collide with itself.
        """
        ...

    def write_at_once(self, locks: Locks, decide: Decide) -> bool:
        """The same without giving way to anything else; false where that can't be done, and then nothing was."""
        ...

    async def close(self) -> None: ...


def open_writer(database: Database) -> Writer:
    """The writer that suits the database."""
    if database.is_sqlite:
        from remit.storage.sqlite_writer import SqliteWriter

        return SqliteWriter(database)
    from remit.storage.postgres_writer import PostgresWriter

    return PostgresWriter(database)


def refused(error: Exception) -> StorageError:
    """The error of a write that the database does not take, while it takes others."""
    return StorageError(f"the database does not accept the record: {explain(error)}", code="record_refused")


def check_changes(statement: Statement, changed: int) -> None:
    """Raises `StorageError` (code `row_changed`) where a statement has not changed what it had to."""
    if statement.changes is not None and changed != statement.changes:
        raise StorageError("somebody else was faster; look at it again", code="row_changed")

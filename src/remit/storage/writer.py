"""Writing transactions, the hot path: hand-written statements on one connection per process.

`write` runs a transaction given as two steps: what to read (locking it), and a function from what was read to what to
write. On SQLite it happens inline, because one commit costs less than handing it to a thread; on Postgres the event
loop goes on while the server works.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from remit.errors import StorageError
from remit.storage.database import BUSY_MS, Database, explain, set_up_sqlite

Params = dict[str, Any] | Sequence[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """One SQL text with `:name` parameters; a list of parameter sets runs it once for each.

    Where `changes` is given, the transaction fails with `StorageError` (code `row_changed`) unless exactly so many rows
    are changed: somebody else was faster.
    """

    sql: str
    params: Params
    changes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Locks:
    """What a transaction reads before it decides: the named meters (locked) and principals."""

    meters: tuple[str, ...]
    principals: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What was read: the states of meters that exist, and the principals that are enabled."""

    meters: dict[str, bytes]
    enabled: frozenset[str]


class Collision(Exception):
    """A unique constraint refused the transaction: somebody was here first."""


Decide = Callable[[Found], Sequence[Statement]]


class Writer(Protocol):
    """Runs one transaction at a time."""

    async def write(self, locks: Locks, decide: Decide) -> None:
        """Read under lock, decide, write, commit durably. Raises `Collision` or `StorageError`; then nothing is done."""
        ...

    async def close(self) -> None: ...


def open_writer(database: Database) -> Writer:
    """The writer that suits the database."""
    return SqliteWriter(database) if database.is_sqlite else PostgresWriter(database)


class SqliteWriter:
    """SQLite: `BEGIN IMMEDIATE` takes the one write lock, so whatever is read stays true until the commit."""

    def __init__(self, database: Database) -> None:
        self._path = str(database.path)
        self._connection: sqlite3.Connection | None = None

    async def write(self, locks: Locks, decide: Decide) -> None:
        connection = self._connect()
        await self._begin(connection)
        try:
            self._run(connection, locks, decide)
            connection.execute("COMMIT")
        except BaseException as error:
            self._roll_back(connection)
            if isinstance(error, sqlite3.IntegrityError):
                raise Collision(str(error)) from error
            if isinstance(error, sqlite3.Error):
                raise StorageError(f"can't write the record: {explain(error)}") from error
            raise

    async def _begin(self, connection: sqlite3.Connection) -> None:
        """Take the write lock; while another process holds it, the event loop goes on."""
        wait_ms, waited_ms = 1, 0
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or waited_ms >= BUSY_MS:
                    raise StorageError(f"can't write the record: {explain(error)}") from error
            await asyncio.sleep(wait_ms / 1000)
            waited_ms += wait_ms
            wait_ms = min(2 * wait_ms, 50)

    def _run(self, connection: sqlite3.Connection, locks: Locks, decide: Decide) -> None:
        meters = dict(_select_in(connection, "SELECT meter, state FROM meters WHERE meter IN", locks.meters))
        enabled = _select_in(
            connection, "SELECT principal FROM principals WHERE enabled AND principal IN", locks.principals
        )
        found = Found(meters=meters, enabled=frozenset(row[0] for row in enabled))
        for statement in decide(found):
            if isinstance(statement.params, dict):
                _check_changes(statement, connection.execute(statement.sql, statement.params).rowcount)
            else:
                connection.executemany(statement.sql, statement.params)

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                connection.close()
                self._connection = None

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                # Autocommit mode: this module says itself when a transaction begins and ends.
                connection = sqlite3.connect(self._path, isolation_level=None, timeout=0, cached_statements=256)
                set_up_sqlite(connection)
                # Waiting is done by `_begin`, without blocking.
                connection.execute("PRAGMA busy_timeout = 0")
            except sqlite3.Error as error:
                raise StorageError(f"can't open the database: {explain(error)}") from error
            self._connection = connection
        return self._connection

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _check_changes(statement: Statement, changed: int) -> None:
    if statement.changes is not None and changed != statement.changes:
        raise StorageError("somebody else was faster; look at it again", code="row_changed")


def _select_in(connection: sqlite3.Connection, sql: str, keys: tuple[str, ...]) -> list[Any]:
    if not keys:
        return []
    return connection.execute(f"{sql} ({','.join('?' * len(keys))})", keys).fetchall()


class PostgresWriter:
    """Postgres through psycopg's asynchronous connection. Meters are locked in the order of their names."""

    def __init__(self, database: Database) -> None:
        self._conninfo = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._connection: Any = None

    async def write(self, locks: Locks, decide: Decide) -> None:
        import psycopg

        try:
            connection = await self._connect()
            async with connection.transaction(), connection.cursor() as cursor:
                found = await self._read(cursor, locks)
                statements = decide(found)
                async with connection.pipeline():
                    for statement in statements:
                        if statement.changes is None:
                            await _execute(cursor, statement)
                for statement in statements:
                    if statement.changes is not None:
                        await _execute(cursor, statement)
                        _check_changes(statement, cursor.rowcount)
        except psycopg.errors.UniqueViolation as error:
            raise Collision(str(error)) from error
        except psycopg.errors.DeadlockDetected as error:
            raise Collision(str(error)) from error
        except (psycopg.Error, OSError) as error:
            await self.close()
            raise StorageError(f"can't write the record: {explain(error)}") from error

    async def _read(self, cursor: Any, locks: Locks) -> Found:
        """Lock the meters and read them with the principals, in one round trip where nothing must be created first."""
        meters: dict[str, bytes] = {}
        enabled: frozenset[str] = frozenset()
        if locks.meters:
            names = sorted(locks.meters)
            await cursor.execute(_LOCK_METERS, (names,))
            meters = {row[0]: bytes(row[1]) for row in await cursor.fetchall()}
            missing = [name for name in names if name not in meters]
            if missing:
                # A row that does not exist can't be locked: make it, then lock whatever is there.
                await cursor.execute(_MAKE_METERS, (missing,))
                await cursor.execute(_LOCK_METERS, (names,))
                meters = {row[0]: bytes(row[1]) for row in await cursor.fetchall()}
        if locks.principals:
            await cursor.execute(_ENABLED, (list(locks.principals),))
            enabled = frozenset([row[0] for row in await cursor.fetchall()])
        return Found(meters=meters, enabled=enabled)

    async def _connect(self) -> Any:
        import psycopg

        if self._connection is None or self._connection.closed:
            connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
            connection.prepare_threshold = 1
            self._connection = connection
        return self._connection

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


# msgpack's empty map: a meter on which nothing was charged yet.
_MAKE_METERS = (
    "INSERT INTO meters (meter, state) SELECT name, '\\x80'::bytea FROM unnest(%s::text[]) AS name "
    "ORDER BY name ON CONFLICT DO NOTHING"
)
_LOCK_METERS = "SELECT meter, state FROM meters WHERE meter = ANY(%s) ORDER BY meter FOR UPDATE"
_ENABLED = "SELECT principal FROM principals WHERE enabled AND principal = ANY(%s)"
_NAMED = re.compile(r"(?<!:):([a-z_]+)")


@lru_cache(maxsize=256)
def _for_psycopg(sql: str) -> str:
    """`:name` → `%(name)s`."""
    return _NAMED.sub(r"%(\1)s", sql)


async def _execute(cursor: Any, statement: Statement) -> None:
    sql = _for_psycopg(statement.sql)
    if isinstance(statement.params, dict):
        await cursor.execute(sql, statement.params)
    else:
        await cursor.executemany(sql, statement.params)

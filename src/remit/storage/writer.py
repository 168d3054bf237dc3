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
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import msgspec

from remit.errors import StorageError
from remit.storage.database import BUSY_MS, Database, explain, set_up_sqlite

Params = dict[str, Any] | Sequence[dict[str, Any]]


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One SQL text with `:name` parameters; a list of parameter sets runs it once for each.

    Where `changes` is given, the transaction fails with `StorageError` (code `row_changed`) unless exactly so many rows
    are changed: somebody else was faster.
    """

    sql: str
    params: Params
    changes: int | None = None


class Locks(msgspec.Struct, frozen=True, kw_only=True):
    """What a transaction reads before it decides: the named meters (locked) and principals."""

    meters: tuple[str, ...]
    principals: tuple[str, ...]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What was read: the states of meters that exist, and the principals that are enabled."""

    meters: dict[str, bytes]
    enabled: frozenset[str]


class Collision(Exception):
    """A unique constraint refused the transaction: somebody was here first."""


Decide = Callable[[Found], Sequence[Statement]]


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

    async def close(self) -> None: ...


def open_writer(database: Database) -> Writer:
    """The writer that suits the database."""
    return SqliteWriter(database) if database.is_sqlite else PostgresWriter(database)


def _refused(error: Exception) -> StorageError:
    return StorageError(f"the database does not accept the record: {explain(error)}", code="record_refused")


class SqliteWriter:
    """SQLite: `BEGIN IMMEDIATE` takes the one write lock, so whatever is read stays true until the commit."""

    def __init__(self, database: Database) -> None:
        self._path = database.path
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    async def write(self, locks: Locks, decide: Decide) -> None:
        connection = self._connect()
        self._check_file()
        await self._begin(connection)
        try:
            self._run(connection, locks, decide)
            connection.execute("COMMIT")
        except BaseException as error:
            self._roll_back(connection)
            if isinstance(error, sqlite3.Error):
                raise _translated(error) from error
            raise

    def _check_file(self) -> None:
        """The file is still the one that was opened: what goes into one that was deleted is durable nowhere."""
        try:
            now = _identity(self._path)
        except OSError as error:
            raise StorageError(f"can't write the record: {explain(error)}; {_PUT_BACK}") from error
        if now != self._file:
            raise StorageError(f"can't write the record: `{self._path}` is another file now; {_PUT_BACK}")

    async def _begin(self, connection: sqlite3.Connection) -> None:
        """Take the write lock; while another process holds it, the event loop goes on."""
        wait_ms, waited_ms = 1, 0
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.Error as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or waited_ms >= BUSY_MS:
                    raise _translated(error) from error
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
            try:
                if isinstance(statement.params, dict):
                    _check_changes(statement, connection.execute(statement.sql, statement.params).rowcount)
                else:
                    connection.executemany(statement.sql, statement.params)
            except (UnicodeError, OverflowError) as error:
                raise _refused(error) from error

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
                # Never made anew: the file exists since the database was opened. Autocommit mode: this module says
                # itself when a transaction begins and ends.
                connection = sqlite3.connect(
                    f"{self._path.absolute().as_uri()}?mode=rw",
                    uri=True,
                    isolation_level=None,
                    timeout=0,
                    cached_statements=256,
                )
            except sqlite3.Error as error:
                raise StorageError(f"can't open the database: {explain(error)}") from error
            try:
                set_up_sqlite(connection)
                # Waiting is done by `_begin`, without blocking.
                connection.execute("PRAGMA busy_timeout = 0")
                self._file = self._file or _identity(self._path)
            except (sqlite3.Error, OSError) as error:
                connection.close()
                raise StorageError(f"can't open the database: {explain(error)}") from error
            self._connection = connection
        return self._connection

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_PUT_BACK = "put the database's file back and start again"
_TAKEN = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
_ABOUT_THE_RECORD = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError)


def _translated(error: sqlite3.Error) -> Exception:
    if isinstance(error, sqlite3.IntegrityError) and error.sqlite_errorcode in _TAKEN:
        return Collision(str(error))
    if isinstance(error, _ABOUT_THE_RECORD):
        return _refused(error)
    return StorageError(f"can't write the record: {explain(error)}")


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


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
        # Exactly what the engine connects with; its own adapters are left out.
        _, options = database.engine.dialect.create_connect_args(database.url)
        self._options: dict[str, Any] = {**_WAITS, **{name: value for name, value in options.items() if name != "context"}}
        self._connection: Any = None

    async def write(self, locks: Locks, decide: Decide) -> None:
        import psycopg
        from psycopg.errors import DeadlockDetected, SerializationFailure, UniqueViolation

        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._transaction(await self._connect(), locks, decide)
            except UniqueViolation as error:
                raise Collision(str(error)) from error
            except (DeadlockDetected, SerializationFailure) as error:
                # The server took it back because of others; asked again it finds what they left.
                if attempt == _ATTEMPTS:
                    raise StorageError(f"can't write the record: {explain(error)}; try again") from error
            except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError) as error:
                raise _refused(error) from error
            except (psycopg.Error, OSError) as error:
                await self.close()
                raise StorageError(f"can't write the record: {explain(error)}") from error
        return None

    async def _transaction(self, connection: Any, locks: Locks, decide: Decide) -> None:
        async with connection.transaction(), connection.cursor() as cursor:
            found = await self._read(cursor, locks)
            statements = decide(found)
            counted: list[tuple[Statement, Any]] = []
            async with connection.pipeline():
                for statement in statements:
                    # Pipelined, a cursor knows its count only at the end: one for each that is asked for its count.
                    own = cursor if statement.changes is None else connection.cursor()
                    counted.append((statement, own))
                    await _execute(own, statement)
            for statement, own in counted:
                _check_changes(statement, own.rowcount)

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
            connection: Any = await psycopg.AsyncConnection.connect(**self._options, autocommit=True)
            connection.prepare_threshold = 1
            # Whatever the server's default is: durable when the commit returns, and never waiting without end.
            await connection.execute(_SET_UP, (str(BUSY_MS),))
            self._connection = connection
        return self._connection

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


_ATTEMPTS = 5
_WAITS = {"connect_timeout": 5, "tcp_user_timeout": 30_000}
"""Seconds until a server that does not answer counts as down, milliseconds until one that fell silent does."""
_SET_UP = "SELECT set_config('synchronous_commit', 'on', false), set_config('lock_timeout', %s, false)"
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
    try:
        if isinstance(statement.params, dict):
            await cursor.execute(sql, statement.params)
        else:
            await cursor.executemany(sql, statement.params)
    except (UnicodeError, OverflowError) as error:
        raise _refused(error) from error

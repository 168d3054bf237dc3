"""The writer for Postgres."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy.dialects import postgresql

from remit.errors import StorageError
from remit.storage import schema
from remit.storage.database import BUSY_MS, Database, explain
from remit.storage.writer import Collision, Decide, LockedState, Locks, Rows, Statement, Write, check_changes, refused


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
                raise refused(error) from error
            except (psycopg.Error, OSError) as error:
                await self.close()
                raise StorageError(f"can't write the record: {explain(error)}") from error
        return None

    def write_at_once(self, locks: Locks, decide: Decide) -> bool:
        """Never: there is a server to wait for."""
        del locks, decide
        return False

    async def _transaction(self, connection: Any, locks: Locks, decide: Decide) -> None:
        """Two round trips: begin and read; write and commit. A third where counts must be looked at before the commit."""
        try:
            found = await self._begin(connection, locks)
            await self._write(connection, decide(found))
        except BaseException:
            # Closing takes it back. After a ROLLBACK psycopg drops all prepared statements, those among them that the
            # next pipeline has prepared in the meantime.
            await connection.close()
            raise

    async def _begin(self, connection: Any, locks: Locks) -> LockedState:
        """Lock the meters and the principals, and read them."""
        names = sorted(locks.meters)
        async with connection.pipeline():
            await connection.execute("BEGIN")
            read = await connection.execute(_LOCK_METERS, (names,)) if names else None
            enabled = await connection.execute(_ENABLED, (list(locks.principals),)) if locks.principals else None
        meters = await _states(read)
        missing = [name for name in names if name not in meters]
        if missing:
            # A row that does not exist can't be locked: make it, then lock whatever is there.
            await connection.execute(_MAKE_METERS, (missing,))
            meters = await _states(await connection.execute(_LOCK_METERS, (names,)))
        found: list[Any] = await enabled.fetchall() if enabled else []
        return LockedState(meters=meters, enabled=frozenset([row[0] for row in found]))

    async def _write(self, connection: Any, writes: Sequence[Write]) -> None:
        counted: list[tuple[Statement, Any]] = []
        is_counted = any(isinstance(write, Statement) and write.changes is not None for write in writes)
        async with connection.pipeline():
            for write in writes:
                cursor = await _execute(connection, write)
                if isinstance(write, Statement):
                    counted.append((write, cursor))
            if not is_counted:
                await connection.execute("COMMIT")
        if is_counted:
            for statement, cursor in counted:
                check_changes(statement, cursor.rowcount)
            await connection.execute("COMMIT")

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
# Locked, so that nobody is disabled between this and the commit.
_ENABLED = "SELECT principal FROM principals WHERE enabled AND principal = ANY(%s) ORDER BY principal FOR SHARE"
_NAMED = re.compile(r"(?<!:):([a-z_]+)")


async def _states(read: Any) -> dict[str, bytes]:
    return {row[0]: bytes(row[1]) for row in await read.fetchall()} if read else {}


@lru_cache(maxsize=256)
def _for_psycopg(sql: str) -> str:
    """`:name` → `%(name)s`."""
    return _NAMED.sub(r"%(\1)s", sql)


@lru_cache(maxsize=16)
def _insert(table: str, columns: tuple[str, ...], key: str) -> str:
    """All rows in one statement: a list for each column."""
    types = schema.metadata.tables[table].c
    lists = ", ".join(f"%s::{types[column].type.compile(postgresql.dialect())}[]" for column in columns)
    sql = f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM unnest({lists})"  # noqa: S608 - our own names
    if key:
        replaced = ", ".join(f"{column} = excluded.{column}" for column in columns if column != key)
        sql += f" ON CONFLICT ({key}) DO UPDATE SET {replaced}"
    return sql


async def _execute(connection: Any, write: Write) -> Any:
    try:
        if isinstance(write, Rows):
            sql = _insert(write.table, write.columns, write.key)
            return await connection.execute(sql, [list(values) for values in zip(*write.rows, strict=True)], binary=True)
        return await connection.execute(_for_psycopg(write.sql), write.params)
    except (UnicodeError, OverflowError) as error:
        raise refused(error) from error

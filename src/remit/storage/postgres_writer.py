"""The writer for Postgres."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure, UniqueViolation
from psycopg.pq.abc import PGresult
from sqlalchemy.dialects import postgresql

from remit.errors import StorageError
from remit.storage import schema
from remit.storage.database import BUSY_MS, Database, explain
from remit.storage.postgres_pipeline import Command, Pipeline, array
from remit.storage.writer import Collision, Decide, LockedState, Locks, Rows, Statement, Write, check_changes, refused


class PostgresWriter:
    """Postgres through one connection in pipeline mode. Meters are locked in the order of their names."""

    def __init__(self, database: Database) -> None:
        # Exactly what the engine connects with; its own adapters are left out.
        _, options = database.engine.dialect.create_connect_args(database.url)
        self._options: dict[str, Any] = {**_WAITS, **{name: value for name, value in options.items() if name != "context"}}
        self._pipeline: Pipeline | None = None

    async def write(self, locks: Locks, decide: Decide) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._transaction(await self._connect(), locks, decide)
            except UniqueViolation as error:
                raise Collision(str(error)) from error
            except (DeadlockDetected, SerializationFailure) as error:
                # The server took it back because of others; asked again it finds what they left.
                if attempt == _ATTEMPTS:
                    raise StorageError(f"can't write the record: {explain(error)}; try again") from error
                # Who asks again at once may take the row before the one that it was given up for has woken up.
                await asyncio.sleep(attempt * _GIVE_WAY_S)
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

    async def _transaction(self, pipeline: Pipeline, locks: Locks, decide: Decide) -> None:
        """One round trip, to write; another one before it where something is to be read under lock.

        A third where counts must be looked at before the commit.
        """
        begin = (_BEGIN,)
        found = LockedState(meters={}, enabled=frozenset())
        try:
            if locks.meters or locks.principals:
                found = await self._read(pipeline, locks)
                begin = ()
            await self._write(pipeline, begin, decide(found))
        except BaseException:
            if not pipeline.closed and pipeline.is_in_transaction:
                await pipeline.trip(_ROLLBACK)
            raise

    async def _read(self, pipeline: Pipeline, locks: Locks) -> LockedState:
        """Begin, lock the meters and the principals, and read them."""
        names = sorted(locks.meters)
        asked = Command(sql=_LOCK_METERS, parameters=[_texts(names)])
        enabled = Command(sql=_ENABLED, parameters=[_texts(locks.principals)])
        _, locked, found = await pipeline.trip(_BEGIN, asked, enabled)
        meters = _states(locked)
        missing = [name for name in names if name not in meters]
        if missing:
            # A row that does not exist can't be locked: make it, then lock whatever is there.
            made = Command(sql=_MAKE_METERS, parameters=[_texts(missing)])
            meters = _states((await pipeline.trip(made, asked))[1])
        return LockedState(meters=meters, enabled=frozenset(_value(found, row, 0).decode() for row in range(found.ntuples)))

    async def _write(self, pipeline: Pipeline, begin: Sequence[Command], writes: Sequence[Write]) -> None:
        commands = [_rows(write) if isinstance(write, Rows) else _statement(write) for write in writes]
        if not any(isinstance(write, Statement) and write.changes is not None for write in writes):
            await pipeline.trip(*begin, *commands, _COMMIT)
            return
        results = (await pipeline.trip(*begin, *commands))[len(begin) :]
        for write, result in zip(writes, results, strict=True):
            if isinstance(write, Statement):
                check_changes(write, result.command_tuples or 0)
        await pipeline.trip(_COMMIT)

    async def _connect(self) -> Pipeline:
        if self._pipeline is None or self._pipeline.closed:
            connection: Any = await psycopg.AsyncConnection.connect(**self._options, autocommit=True)
            # Whatever the server's default is: durable when the commit returns, and never waiting without end.
            await connection.execute(_SET_UP, (str(BUSY_MS),))
            self._pipeline = Pipeline(connection)
        return self._pipeline

    async def close(self) -> None:
        if self._pipeline is not None:
            await self._pipeline.close()
            self._pipeline = None


_BEGIN, _COMMIT, _ROLLBACK = Command(sql=b"BEGIN"), Command(sql=b"COMMIT"), Command(sql=b"ROLLBACK")
_ATTEMPTS = 5
_GIVE_WAY_S = 0.02
_WAITS = {"connect_timeout": 5, "tcp_user_timeout": 30_000}
"""Seconds until a server that does not answer counts as down, milliseconds until one that fell silent does."""
_SET_UP = "SELECT set_config('synchronous_commit', 'on', false), set_config('lock_timeout', %s, false)"
# msgpack's empty map: a meter on which nothing was charged yet.
_MAKE_METERS = (
    b"INSERT INTO meters (meter, state) SELECT name, '\\x80'::bytea FROM unnest($1::text[]) AS name "
    b"ORDER BY name ON CONFLICT DO NOTHING"
)
_LOCK_METERS = b"SELECT meter, state FROM meters WHERE meter = ANY($1) ORDER BY meter FOR UPDATE"
# Locked, so that nobody is disabled between this and the commit.
_ENABLED = b"SELECT principal FROM principals WHERE enabled AND principal = ANY($1) ORDER BY principal FOR SHARE"
_NAMED = re.compile(r"(?<!:):([a-z_]+)")


def _states(read: PGresult) -> dict[str, bytes]:
    return {_value(read, row, 0).decode(): _value(read, row, 1) for row in range(read.ntuples)}


def _value(result: PGresult, row: int, column: int) -> bytes:
    value = result.get_value(row, column)
    assert value is not None
    return value


def _texts(items: Iterable[str]) -> bytes:
    return _column("TEXT", items)


def _statement(write: Statement) -> Command:
    """`:name` → `$1`."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    sql = _NAMED.sub(number, write.sql)
    try:
        parameters = [_parameter(write.params[name]) for name in names]
    except UnicodeError as error:
        raise refused(error) from error
    return Command(sql=sql.encode(), parameters=parameters, kept=False)


def _parameter(value: Any) -> bytes | None:
    """A value as Postgres reads it in text, whatever type the statement needs there."""
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    text = value if isinstance(value, str) else str(value)
    if "\0" in text:
        raise UnicodeError("a text can't hold the character NUL")
    return None if value is None else text.encode()


def _rows(write: Rows) -> Command:
    """All rows in one statement: a list for each column."""
    types = _types(write.table, write.columns)
    columns = zip(types, zip(*write.rows, strict=True), strict=True)
    sql = _insert(write.table, write.columns, write.key)
    return Command(sql=sql, parameters=[_column(type_, values) for type_, values in columns])


@lru_cache(maxsize=16)
def _types(table: str, columns: tuple[str, ...]) -> tuple[str, ...]:
    found = schema.metadata.tables[table].c
    return tuple(found[column].type.compile(postgresql.dialect()) for column in columns)


@lru_cache(maxsize=16)
def _insert(table: str, columns: tuple[str, ...], key: str) -> bytes:
    lists = ", ".join(f"${number}::{type_}[]" for number, type_ in enumerate(_types(table, columns), start=1))
    sql = f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM unnest({lists})"  # noqa: S608 - our own names
    if key:
        replaced = ", ".join(f"{column} = excluded.{column}" for column in columns if column != key)
        sql += f" ON CONFLICT ({key}) DO UPDATE SET {replaced}"
    return sql.encode()


def _column(type_: str, values: Iterable[Any]) -> bytes:
    """The values of a column as an array."""
    oid, encode = _ENCODED[type_]
    try:
        return array(oid, [None if value is None else encode(value) for value in values])
    except (UnicodeError, OverflowError) as error:
        raise refused(error) from error


_ENCODED: Mapping[str, tuple[int, Callable[[Any], bytes]]] = {
    "TEXT": (25, str.encode),
    "BYTEA": (17, bytes),
    "INTEGER": (23, lambda value: value.to_bytes(4, "big", signed=True)),
    "BIGINT": (20, lambda value: value.to_bytes(8, "big", signed=True)),
    "BOOLEAN": (16, lambda value: value.to_bytes(1, "big")),
}
"""The types of our columns: the OID of each, and its binary form."""

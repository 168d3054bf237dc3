"""Databases that hold a record, read and never written, in one consistent snapshot."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit_verify.report import Unreadable
from remit_verify.rows import Row

if TYPE_CHECKING:
    import psycopg

_BATCH = 256
"""Rows in memory at a time."""
EVENTS = "SELECT seq, tenant, run, n, type, at, hash, header, body, sealed FROM events"


class Damaged(Exception):
    """The database holds something that its own driver can't read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where a database is, so that several processes can open it. `snapshot`: Postgres's name of the one to share."""

    path: str = ""
    """The file of a SQLite database."""
    url: str = ""
    password: str | None = None
    snapshot: str = ""

    def __str__(self) -> str:
        return self.path or _without_password(self.url)

    def __repr__(self) -> str:
        return f"Address({self})"


class Database:
    """A snapshot of a database. Statements are written with `?`; whatever its driver can't read is `Damaged`."""

    address: Address

    def select(self, sql: str, parameters: tuple[Any, ...] = ()) -> Iterator[Row]:
        """The rows of a query, a batch in memory at a time. Raises `Damaged`."""
        raise NotImplementedError

    def tables(self) -> set[str]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def rows(self, first: int, last: int) -> Iterator[list[Row]]:
        """The events of a range of `seq`, in batches."""
        batch: list[Row] = []
        for row in self.select(f"{EVENTS} WHERE seq BETWEEN ? AND ? ORDER BY seq", (first, last)):
            batch.append(row)
            if len(batch) == _BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def wrapped_keys(self, runs: list[str]) -> list[Row]:
        """`run, body_key, sealed_key` of these runs."""
        found: list[Row] = []
        for index in range(0, len(runs), _BATCH):
            some = runs[index : index + _BATCH]
            marks = ",".join("?" * len(some))
            sql = f"SELECT run, body_key, sealed_key FROM run_keys WHERE run IN ({marks})"  # noqa: S608 - only marks
            found.extend(self.select(sql, tuple(some)))
        return found

    def tile(self, tenant: str, level: int, position: int) -> list[Row]:
        """`hashes, first_seq` of the tiles that stand at a place."""
        sql = "SELECT hashes, first_seq FROM tiles WHERE tenant = ? AND level = ? AND position = ?"
        return list(self.select(sql, (tenant, level, position)))


class SqliteDatabase(Database):
    """A SQLite file, opened read-only; what stands in its write-ahead log counts."""

    def __init__(self, address: Address) -> None:
        self.address = address
        path = Path(address.path)
        if not path.is_file():
            raise Unreadable(f"there is no file `{path}`")
        try:
            self._connection = _connect(path)
        except (sqlite3.Error, UnicodeError) as error:
            # SQLite quotes what it finds in a damaged file.
            raise Unreadable(f"`{path}` can't be read: {error}") from error

    def select(self, sql: str, parameters: tuple[Any, ...] = ()) -> Iterator[Row]:
        try:
            cursor = self._connection.execute(sql, parameters)
            while rows := cursor.fetchmany(_BATCH):
                yield from rows
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise Damaged(str(error)) from error

    def tables(self) -> set[str]:
        return {row[0] for row in self.select("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def close(self) -> None:
        self._connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    """Begin to read. A file on a medium that can't be written has no room for the log's index: it does not change."""
    uri = path.absolute().as_uri()
    try:
        return _begin(f"{uri}?mode=ro")
    except sqlite3.OperationalError as error:
        logged = path.with_name(path.name + "-wal")
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN or (logged.exists() and logged.stat().st_size):
            raise
        return _begin(f"{uri}?mode=ro&immutable=1")


def _begin(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)
    try:
        connection.text_factory = _text
        connection.execute("BEGIN")
        # The snapshot is taken by the first read.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


class PostgresDatabase(Database):
    """A Postgres database, read in one transaction that repeats what it reads, through server-side cursors."""

    def __init__(self, address: Address) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise Unreadable("reading Postgres needs `psycopg`; install `remit[postgres]`") from error
        self._error = psycopg.Error
        self._cursors = 0
        try:
            self._connection: psycopg.Connection[Row] = psycopg.connect(address.url, password=address.password)
            self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            self._connection.read_only = True
            if address.snapshot:
                literal = address.snapshot.replace("'", "")
                self._connection.execute(f"SET TRANSACTION SNAPSHOT '{literal}'".encode())
                self.address = address
                return
            row = self._connection.execute("SELECT pg_export_snapshot()").fetchone()
        except psycopg.Error as error:
            raise Unreadable(f"`{address}` can't be read: {_first_line(error)}") from error
        self.address = Address(url=address.url, password=address.password, snapshot=str(row[0] if row else ""))

    def select(self, sql: str, parameters: tuple[Any, ...] = ()) -> Iterator[Row]:
        self._cursors += 1
        try:
            # In binary form: as text, whatever is made of bytes is twice as long and must be read back from hex.
            with self._connection.cursor(name=f"verify_{self._cursors}", binary=True) as cursor:
                cursor.itersize = _BATCH
                cursor.execute(sql.replace("?", "%s").encode(), parameters)
                while rows := cursor.fetchmany(_BATCH):
                    yield from rows
        except (self._error, UnicodeError) as error:
            raise Damaged(_first_line(error)) from error

    def tables(self) -> set[str]:
        sql = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = ANY (current_schemas(false))"
        return {row[0] for row in self.select(sql)}

    def close(self) -> None:
        self._connection.close()


def open_database(address: Address) -> Database:
    """Begin to read a database. Raises `Unreadable`."""
    return SqliteDatabase(address) if address.path else PostgresDatabase(address)


@contextmanager
def opened(address: Address) -> Generator[Database]:
    """A database, closed afterwards."""
    database = open_database(address)
    try:
        yield database
    finally:
        database.close()


def ranges(database: Database, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of `seq` that together hold every event, however wide the gaps between them are."""
    after: Callable[[int | None], list[Row]] = lambda seq: list(  # noqa: E731
        database.select("SELECT min(seq) FROM events")
        if seq is None
        else database.select("SELECT min(seq) FROM events WHERE seq > ?", (seq,))
    )
    last = next(iter(database.select("SELECT max(seq) FROM events")))[0]
    first = after(None)[0][0]
    while type(first) is int and type(last) is int and first <= last:
        end = min(first + size - 1, last)
        yield first, end
        first = after(end)[0][0]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _without_password(url: str) -> str:
    """A URL as it may be shown."""
    scheme, mark, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{mark}{user.partition(':')[0]}{at}{host}"

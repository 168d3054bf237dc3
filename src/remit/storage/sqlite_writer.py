"""The writer for SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import lru_cache
from pathlib import Path
from typing import Any

from remit.errors import StorageError
from remit.storage.database import BUSY_MS, Database, explain, set_up_sqlite
from remit.storage.writer import Collision, Decide, LockedState, Locks, Rows, check_changes, refused


class SqliteWriter:
    """SQLite: `BEGIN IMMEDIATE` takes the one write lock, so whatever is read stays true until the commit."""

    def __init__(self, database: Database) -> None:
        self._path = database.path
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    async def write(self, locks: Locks, decide: Decide) -> None:
        wait_ms, waited_ms = 1, 0
        while not self._write(locks, decide, last=waited_ms >= BUSY_MS):
            # Another process holds the write lock; the event loop goes on meanwhile.
            await asyncio.sleep(wait_ms / 1000)
            waited_ms += wait_ms
            wait_ms = min(2 * wait_ms, 50)

    def write_at_once(self, locks: Locks, decide: Decide) -> bool:
        return self._write(locks, decide, last=False)

    def _write(self, locks: Locks, decide: Decide, *, last: bool) -> bool:
        """Run the transaction; false where another process holds the write lock and this is not the last try."""
        connection = self._connect()
        self._check_file()
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY and not last:
                return False
            raise _translated(error) from error
        try:
            self._run(connection, locks, decide)
            connection.execute("COMMIT")
        except BaseException as error:
            self._roll_back(connection)
            if isinstance(error, sqlite3.Error):
                raise _translated(error) from error
            raise
        return True

    def _check_file(self) -> None:
        """The file is still the one that was opened: what goes into one that was deleted is durable nowhere."""
        try:
            now = _identity(self._path)
        except OSError as error:
            raise StorageError(f"can't write the record: {explain(error)}; {_PUT_BACK}") from error
        if now != self._file:
            raise StorageError(f"can't write the record: `{self._path}` is another file now; {_PUT_BACK}")

    def _run(self, connection: sqlite3.Connection, locks: Locks, decide: Decide) -> None:
        meters = dict(_select_in(connection, "SELECT meter, state FROM meters WHERE meter IN", locks.meters))
        enabled = _select_in(
            connection, "SELECT principal FROM principals WHERE enabled AND principal IN", locks.principals
        )
        found = LockedState(meters=meters, enabled=frozenset(row[0] for row in enabled))
        for write in decide(found):
            try:
                if isinstance(write, Rows):
                    connection.executemany(_insert(write.table, write.columns, write.key), write.rows)
                else:
                    check_changes(write, connection.execute(write.sql, write.params).rowcount)
            except (UnicodeError, OverflowError) as error:
                raise refused(error) from error

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
        return refused(error)
    return StorageError(f"can't write the record: {explain(error)}")


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _select_in(connection: sqlite3.Connection, sql: str, keys: tuple[str, ...]) -> list[Any]:
    if not keys:
        return []
    return connection.execute(f"{sql} ({','.join('?' * len(keys))})", keys).fetchall()



@lru_cache(maxsize=16)
def _insert(table: str, columns: tuple[str, ...], key: str) -> str:
    sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - our own names
    if key:
        replaced = ", ".join(f"{column} = excluded.{column}" for column in columns if column != key)
        sql += f" ON CONFLICT ({key}) DO UPDATE SET {replaced}"
    return sql

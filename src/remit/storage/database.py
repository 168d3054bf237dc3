"""The database: opened by URL, migrated, with SQLite set up so that a commit is durable when it returns."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from remit.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy.engine import ExceptionContext

HEAD = "0007"
"""The migration that this version of the code works with; a test holds it to the newest file in `migrations/`."""

BUSY_MS = 5_000
"""How long to wait for another process that holds SQLite's write lock."""
_WAL_WAIT_MS = 20


@dataclass(frozen=True, kw_only=True)
class Database:
    """An open, migrated database. `engine` is for reads and administration; the journal writes on its own connection."""

    url: URL
    engine: Engine

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path:
        """The file of a SQLite database."""
        return Path(self.url.database or "")

    @property
    def now_us(self) -> str:
        """SQL for the database's own time, in microseconds since the epoch: the one clock that all its users share."""
        return _NOW_US[self.url.get_backend_name()]

    def __str__(self) -> str:
        return str(self.path) if self.is_sqlite else f"{self.url.database} on {self.url.host or 'this machine'}"

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str, *, folder: Path | None = None, must_exist: bool = False) -> Database:
    """Open and migrate. `sqlite:<path>` is relative to `folder`; `postgresql://…` is Postgres through psycopg 3.

    Raises `ConfigError` for a URL that means nothing, `StorageError` where the database can't be used; with code
    `database_gone` where it `must_exist`, and is empty or isn't there.
    """
    parsed = _parse(url, folder)
    engine = create_engine(parsed, pool_pre_ping=parsed.get_backend_name() != "sqlite")
    database = Database(url=parsed, engine=engine)
    if database.is_sqlite:
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "handle_error", _name_the_file(database.path))
    try:
        with storage_errors("open the database"):
            if must_exist and (_is_missing(database) or _version(database) is None):
                raise StorageError(f"database `{database}` is empty or isn't there", code="database_gone")
            if database.is_sqlite:
                database.path.parent.mkdir(parents=True, exist_ok=True)
            _migrate(database)
    except BaseException:
        database.close()
        raise
    return database


_NOW_US = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
}


def _is_missing(database: Database) -> bool:
    """Whether opening it would make the file."""
    return database.is_sqlite and not database.path.exists()


def _parse(url: str, folder: Path | None) -> URL:
    if url.startswith("sqlite:") and not url.startswith("sqlite://"):
        path = Path(url.removeprefix("sqlite:"))
        if not path.name:
            raise ConfigError(f"`{url}` names no file; use `sqlite:<path>`, such as `sqlite:.remit/remit.db`")
        return URL.create("sqlite", database=str((folder or Path.cwd()) / path))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Neither the text nor the parser's message, which quotes it, is shown: a password may stand in it.
        message = "`database` is not a database URL; use `sqlite:<path>` or `postgresql://…`"
        raise ConfigError(message) from None
    backend = parsed.drivername.partition("+")[0]
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        return _sqlite_file(parsed)
    raise ConfigError(f"database `{parsed.drivername}` is not supported; use `sqlite:<path>` or `postgresql://…`")


def _sqlite_file(url: URL) -> URL:
    """A SQLite URL that every connection understands alike: a file, and nothing that only some would obey."""
    if not url.database or url.database == ":memory:" or url.query:
        raise ConfigError("a SQLite database is a file that all connections share; use `sqlite:<path>`")
    return url.set(drivername="sqlite")


def set_up_sqlite(connection: sqlite3.Connection) -> None:
    """WAL with a full sync: the commit is on disk when it returns, and readers never wait for the writer."""
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # What is overwritten or deleted is gone from the file: a key that was destroyed must not lie about in it.
    connection.execute("PRAGMA secure_delete = ON")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Once for each file. SQLite does not wait by itself where two switch a new file at the same moment."""
    waited_ms = 0
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or waited_ms >= BUSY_MS:
                raise
        time.sleep(_WAL_WAIT_MS / 1000)
        waited_ms += _WAL_WAIT_MS


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    set_up_sqlite(connection)


def _name_the_file(path: Path) -> Callable[[ExceptionContext], None]:
    """SQLite's errors don't say which file they are about, and only the file's disk tells why it can't be written."""

    def note(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, sqlite3.Error):
            context.original_exception.__dict__["file"] = path

    return note


def _migrate(database: Database) -> None:
    if _version(database) == HEAD:
        return
    # Alembic takes a tenth of a second to import: only where there is something to do.
    from remit.storage.migrate import upgrade

    upgrade(database)


def _version(database: Database) -> str | None:
    with database.engine.connect() as connection:
        # Asked for, not inferred from an error: the server says those in its own language.
        if not sqlalchemy.inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


@contextmanager
def storage_errors(doing: str) -> Generator[None]:
    """Turn what a database driver raises into a `StorageError` that says what was being done."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise StorageError(f"can't {doing}: {explain(cause)}") from error
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"can't {doing}: {explain(error)}") from error


# Whole phrases of the drivers: a single word may as well stand in a path.
_ADVICE = {
    "read-only transaction": "the server only reads now; let it write, or correct `database` in remit.toml",
    "is full": "free some space",
    "no space left on device": "free some space",
    "readonly database": "make the file and its folder writable for this user",
    "read-only file system": "make the file and its folder writable for this user",
    "unable to open database": "make the file and its folder writable for this user",
    "disk i/o error": "look at the disk; nothing was recorded that is not durable",
    "is locked": "another process holds the write lock; stop it or try again",
    "image is malformed": "the file is damaged; restore it from a backup",
    "is not a database": "the file is damaged or something else; restore it from a backup",
    "lock timeout": "another process holds the lock; stop it or try again",
    "connection refused": "start the server or correct `database` in remit.toml",
    "connection to server": "start the server or correct `database` in remit.toml",
    "server closed the connection": "it is tried again with the next record",
    "terminating connection": "it is tried again with the next record",
}


_NO_SPACE_BYTES = 64 * 1024
"""With less than this left, a disk takes no transaction any more."""


def explain(error: BaseException | None, file: Path | None = None) -> str:
    """A driver's first line, and what to do about it where that is known. `file`: the SQLite file it is about."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
    if isinstance(error, sqlite3.Error) and _is_for_want_of_space(error, file):
        line = f"{line}: the disk is full"
    advice = next((text for sign, text in _ADVICE.items() if sign in line.lower()), None)
    return f"{line}; {advice}" if advice else line


def _is_for_want_of_space(error: sqlite3.Error, file: Path | None) -> bool:
    """SQLite says `disk I/O error` or `unable to open` as well where it only lacked the room to write."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    file = file or getattr(error, "file", None)
    if code not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) or file is None:
        return False
    try:
        found = os.statvfs(file.parent)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _NO_SPACE_BYTES

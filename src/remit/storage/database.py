"""The database: opened by URL, migrated, with SQLite set up so that a commit is durable when it returns."""

from __future__ import annotations

import sqlite3
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
    from collections.abc import Generator

HEAD = "0001"
"""The migration that this version of the code works with; a test holds it to the newest file in `migrations/`."""

BUSY_MS = 5_000
"""How long to wait for another process that holds SQLite's write lock."""


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

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str, *, folder: Path | None = None) -> Database:
    """Open and migrate. `sqlite:<path>` is relative to `folder`; `postgresql://…` is Postgres through psycopg 3.

    Raises `ConfigError` for a URL that means nothing, `StorageError` where the database can't be used.
    """
    parsed = _parse(url, folder)
    engine = create_engine(parsed, pool_pre_ping=parsed.get_backend_name() != "sqlite")
    if parsed.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
    database = Database(url=parsed, engine=engine)
    try:
        with storage_errors("open the database"):
            if database.is_sqlite:
                database.path.parent.mkdir(parents=True, exist_ok=True)
            _migrate(database)
    except BaseException:
        database.close()
        raise
    return database


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
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    set_up_sqlite(connection)


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


_ADVICE = {
    "read-only transaction": "the server only reads now; let it write, or correct `database` in remit.toml",
    "readonly": "make the file and its folder writable for this user",
    "read-only": "make the file and its folder writable for this user",
    "unable to open": "make the file and its folder writable for this user",
    "full": "free some space, then run it again: nothing was lost",
    "disk i/o": "look at the disk; nothing was recorded that is not durable",
    "locked": "another process holds the write lock; stop it or try again",
    "malformed": "the file is damaged; restore it from a backup",
    "not a database": "the file is damaged or something else; restore it from a backup",
    "lock timeout": "another process holds the lock; stop it or try again",
    "no space left": "free some space, then run it again: nothing was lost",
    "connection refused": "start the server or correct `database` in remit.toml",
    "connection to server": "start the server or correct `database` in remit.toml",
    "server closed the connection": "it is tried again with the next record",
    "terminating connection": "it is tried again with the next record",
}


def explain(error: BaseException | None) -> str:
    """A driver's first line, and what to do about it where that is known."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
    advice = next((text for sign, text in _ADVICE.items() if sign in line.lower()), None)
    return f"{line}; {advice}" if advice else line

"""Migrations, run when a database is opened: forward only, one process at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import text

from remit.errors import StorageError
from remit.storage.schema import metadata

if TYPE_CHECKING:
    from remit.storage.database import Database

_FOLDER = Path(__file__).parent / "migrations"
_LOCK = 7_364_748
"""Key of Postgres' advisory lock: any number, always the same."""


def upgrade(database: Database) -> None:
    """Bring the schema to the newest version; a second process waits and then finds nothing to do.

    Raises `StorageError` (code `schema_unknown`) for a database that a newer version of Remit has migrated.
    """
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["metadata"] = metadata
    with database.engine.connect() as connection:
        if database.is_sqlite:
            connection.execute(text("BEGIN IMMEDIATE"))
        else:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise StorageError(
                "the database was migrated by a newer version of Remit; install that version to use it",
                code="schema_unknown",
            ) from error
        connection.commit()

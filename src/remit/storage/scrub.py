"""Getting bytes that were overwritten out of the database's files, once the transaction that did so is durable.

SQLite overwrites them in its file (`secure_delete`), but the log beside it (WAL) keeps the earlier pages until it is
emptied. Postgres keeps earlier rows until the table is written anew. Backups, replicas and archived logs keep what they
have until they are rotated; no database can help that.
"""

from __future__ import annotations

import time

from sqlalchemy import text

from remit.errors import StorageError
from remit.storage.database import BUSY_MS, Database, storage_errors

_WAIT_S = 0.05


def scrub_keys(database: Database) -> None:
    """Leave no destroyed key in the files of the database. Blocks for as long as that takes.

    Raises `StorageError`, code `not_scrubbed` where somebody who reads keeps it from happening now.
    """
    if database.is_sqlite:
        _empty_wal(database)
        return
    with storage_errors("write the keys anew"), database.engine.connect() as connection:
        plain = connection.execution_options(isolation_level="AUTOCOMMIT")
        plain.execute(text(f"SET lock_timeout = {BUSY_MS}"))
        try:
            plain.execute(text("VACUUM (FULL) run_keys"))
            plain.execute(text("VACUUM (FULL) memory_keys"))
        finally:
            plain.execute(text("RESET lock_timeout"))


def _empty_wal(database: Database) -> None:
    until = time.monotonic() + BUSY_MS / 1000
    while True:
        with storage_errors("empty the write-ahead log"), database.engine.connect() as connection:
            busy = connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)")).scalar()
        if not busy:
            return
        if time.monotonic() >= until:
            raise StorageError(
                f"the keys are destroyed, but `{database}-wal` still holds what was overwritten, because somebody reads "
                "from the database; stop that and run `remit retention`, which tries again",
                code="not_scrubbed",
            )
        time.sleep(_WAIT_S)

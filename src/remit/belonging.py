"""The database and the keys of a project belong together: neither is silently replaced by a new, empty one.

Beside the keys lies the id of the database that was written with them; in the database stand, for each tenant, values
that only its keys give. A fresh project, with neither, begins by itself.
"""

from __future__ import annotations

import hmac
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from remit.errors import IdentityError, StorageError
from remit.identity.files import private_folder, read_private, write_private
from remit.identity.keys import SecretKey, master_key, note_verifier_key, pseudonym_key, record_key
from remit.journal.last_published import LastPublished
from remit.journal.notes import CheckpointKey
from remit.storage.database import Database, open_database, storage_errors
from remit.storage.schema import about, runs

_ID = "database.id"
_KEYS: Mapping[str, Callable[[Path], SecretKey]] = {
    "master": master_key,
    "pseudonym": pseudonym_key,
    "record": record_key,
}

_FROM_THE_FIRST = ("master", "pseudonym")
"""Keys that every record was written with; one that came later is made where it is missing."""


@dataclass(frozen=True, kw_only=True)
class KeyedDatabase:
    """An open database with the keys that it was written with."""

    database: Database
    id: str
    """Which database this is, among all there are."""
    master: SecretKey
    pseudonym: SecretKey
    record: SecretKey
    """Signs its checkpoints."""


def open_record(url: str, folder: Path, keys: Path, tenant: str) -> KeyedDatabase:
    """Open the database of the project in `folder` with the keys in `keys`, a private folder that exists.

    Raises `StorageError`: `database_gone` where it is not the one that these keys have written to, `master_key_wrong`
    where it was written with other keys; else as `open_database` and the keys do.
    """
    known = _known_id(keys)
    try:
        database = open_database(url, folder=folder, must_exist=known is not None)
    except StorageError as error:
        if error.code == "database_gone":
            raise _gone(error.message, keys) from error
        raise
    try:
        return _checked(database, keys, known, tenant)
    except BaseException:
        database.close()
        raise


def last_published(private: Path, key: CheckpointKey) -> LastPublished:
    """Where the last published checkpoint of a tree stands, in a project's private folder; its key is listed there."""
    keys, name = private / "keys", key.origin.rpartition("/")[2]
    note_verifier_key(keys, key.verifier_key)
    known = read_private(keys / "record.pub").decode().splitlines()
    return LastPublished(
        published=private / "checkpoints" / f"{name}.txt",
        kept=keys / "checkpoints" / f"{name}.txt",
        origin=key.origin,
        verifier_keys=tuple(line for line in known if line.startswith(f"{key.origin}+")),
        write=_write_kept,
    )


def _write_kept(path: Path, data: bytes) -> None:
    try:
        private_folder(path.parent)
        write_private(path, data)
    except IdentityError as error:
        raise StorageError(error.message, code=error.code) from error


def _checked(database: Database, keys: Path, known: str | None, tenant: str) -> KeyedDatabase:
    held = _read(database)
    if known is not None and held.get("id") != known:
        raise _gone(f"database `{database}` is another one than this project has written to", keys)
    for name in _KEYS:
        # Asked before the keys are, which would make one that is missing.
        if not (keys / f"{name}.key").is_file() and (f"{name}/{tenant}" in held or (name in _FROM_THE_FIRST and _is_written(database, tenant))):
            raise _wrong(keys / f"{name}.key", "is gone")
    made = {name: make(keys) for name, make in _KEYS.items()}
    wanted = {f"{name}/{tenant}": _check_value(name, key) for name, key in made.items()}
    if not held.keys() >= {"id", *wanted}:
        held = _add(database, {"id": uuid.uuid4().hex, **wanted} | held)
    for name, value in wanted.items():
        if not hmac.compare_digest(held[name], value):
            raise _wrong(keys / f"{name.partition('/')[0]}.key", "is not the one that it was written with")
    if known is None:
        write_private(keys / _ID, f"{held['id']}\n".encode())
    return KeyedDatabase(database=database, id=held["id"], **made)


def _check_value(name: str, key: SecretKey) -> str:
    """What only this key gives, and what says nothing about it."""
    return hmac.digest(key.reveal(), f"remit key check: {name}".encode(), "sha256").hex()


def _known_id(keys: Path) -> str | None:
    path = keys / _ID
    return read_private(path).decode(errors="replace").strip() if path.is_file() else None


def _read(database: Database) -> dict[str, str]:
    with storage_errors("open the database"), database.engine.connect() as connection:
        return {row.name: row.value for row in connection.execute(select(about))}


def _is_written(database: Database, tenant: str) -> bool:
    """Whether some run of the tenant is on record, whose keys are wrapped by its master key."""
    query = select(runs.c.run).where(runs.c.tenant == tenant).limit(1)
    with storage_errors("open the database"), database.engine.connect() as connection:
        return connection.execute(query).first() is not None


def _add(database: Database, wanted: dict[str, str]) -> dict[str, str]:
    """Write what is missing, and return what stands there: another process may be faster."""
    for name, value in wanted.items():
        with storage_errors("open the database"):
            try:
                with database.engine.begin() as connection:
                    connection.execute(insert(about).values(name=name, value=value))
            except IntegrityError:
                continue
    return _read(database)


def _gone(what: str, keys: Path) -> StorageError:
    return StorageError(
        f"{what}, and this project has a record already; put the database back, or restore it from a backup (to begin "
        f"with an empty record instead, remove `{keys / _ID}`)",
        code="database_gone",
    )


def _wrong(path: Path, what: str) -> StorageError:
    return StorageError(
        f"key `{path}` {what}, and what this database holds can't be read with another; put back the folder "
        f"`{path.parent}` that belongs to this database",
        code="master_key_wrong",
    )

"""Reading the journal: a run's keys and its events, decrypted and checked link by link."""

from __future__ import annotations

from sqlalchemy import select

from remit.errors import RunError, StorageError
from remit.journal import events
from remit.journal.events import START, ChainEnd, Event, Row
from remit.journal.vault import RunKeys, Vault, WrappedKeys
from remit.storage import schema
from remit.storage.database import Database, storage_errors

_EVENT = schema.events.c
_ROW_COLUMNS = (
    _EVENT.tenant,
    _EVENT.run,
    _EVENT.n,
    _EVENT.type,
    _EVENT.at,
    _EVENT.hash,
    _EVENT.header,
    _EVENT.body,
    _EVENT.sealed,
)


class Reader:
    """Reads what the journal holds. Synchronous: readers are people, resumption and replay, not the hot path."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    def keys(self, run: str) -> RunKeys:
        """The keys of a run. Raises `RunError` (code `run_not_found`) where there is no such run."""
        query = select(schema.run_keys.c.body_key, schema.run_keys.c.sealed_key)
        with storage_errors("read the journal"), self._database.engine.connect() as connection:
            row = connection.execute(query.where(schema.run_keys.c.run == run)).first()
        if row is None:
            raise RunError(f"there is no run `{run}`; `remit runs` lists them", code="run_not_found")
        return self._vault.open(run, WrappedKeys(body=_bytes(row[0]), sealed=_bytes(row[1])))

    def events(self, run: str, keys: RunKeys | None = None, *, behind: ChainEnd = START) -> list[Event]:
        """A run's events in order, those after `behind`, checked link by link from there: all of them by default.

        Raises `StorageError` (code `record_corrupt`) where an event or the chain is damaged, `RunError` (code
        `run_not_found`) where there is no such run.
        """
        keys = keys or self.keys(run)
        query = select(*_ROW_COLUMNS).where(_EVENT.run == run, _EVENT.n >= behind.n).order_by(_EVENT.n)
        with storage_errors("read the journal"), self._database.engine.connect() as connection:
            found = connection.execute(query).all()
        rows = [
            Row(
                tenant=r[0],
                run=r[1],
                n=r[2],
                type=r[3],
                at=r[4],
                hash=bytes(r[5]),
                header=bytes(r[6]),
                body=bytes(r[7]),
                sealed=_bytes(r[8]),
            )
            for r in found
        ]
        read = [events.read(row, keys) for row in rows]
        if not read and behind == START:
            raise _broken(run, 1)
        _check_chain(run, read, behind)
        return read


def _bytes(value: bytes | memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)


def _check_chain(run: str, read: list[Event], behind: ChainEnd) -> None:
    """Positions have no gap and each event names the hash of the one before it."""
    for event in read:
        if event.header.n != behind.n or event.header.prev != behind.prev.hex():
            raise _broken(run, behind.n)
        behind = events.after(event)


def _broken(run: str, n: int) -> StorageError:
    return StorageError(
        f"the chain of run `{run}` is broken at event {n}; restore the database from a backup", code="record_corrupt"
    )

"""Reading the journal: a run's keys and its events, decrypted and checked link by link."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from remit.errors import RemitError, RunError, StorageError
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

_AT_ONCE = 400
"""How many runs one query asks for: a statement has only so many parameters."""


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
            raise _missing(run)
        return self._vault.open(run, WrappedKeys(body=_bytes(row[0]), sealed=_bytes(row[1])))

    def several(self, runs: Sequence[str]) -> dict[str, list[Event] | RemitError]:
        """The events of each of many runs, checked as `events` does, or what is wrong with that one run.

        Two queries for every few hundred runs, however many events they have.
        """
        found: dict[str, list[Event] | RemitError] = {}
        for start in range(0, len(runs), _AT_ONCE):
            names = runs[start : start + _AT_ONCE]
            wrapped, rows = self._wrapped(names), self._rows(names)
            for run in names:
                try:
                    found[run] = self._read(run, wrapped.get(run), rows.get(run, []))
                except (RunError, StorageError) as error:
                    found[run] = error
        return found

    def last(self, run: str, keys: RunKeys) -> Event:
        """A run's last event, checked by itself: what stands before it is not read. Raises as `events` does."""
        query = select(*_ROW_COLUMNS).where(_EVENT.run == run).order_by(_EVENT.n.desc()).limit(1)
        with storage_errors("read the journal"), self._database.engine.connect() as connection:
            found = connection.execute(query).first()
        if found is None:
            raise _broken(run, 1)
        return events.read(_row(found), keys)

    def _wrapped(self, runs: Sequence[str]) -> dict[str, WrappedKeys]:
        keys = schema.run_keys.c
        query = select(keys.run, keys.body_key, keys.sealed_key).where(keys.run.in_(runs))
        with storage_errors("read the journal"), self._database.engine.connect() as connection:
            found = connection.execute(query).all()
        return {row[0]: WrappedKeys(body=_bytes(row[1]), sealed=_bytes(row[2])) for row in found}

    def _rows(self, runs: Sequence[str]) -> dict[str, list[Row]]:
        query = select(*_ROW_COLUMNS).where(_EVENT.run.in_(runs)).order_by(_EVENT.run, _EVENT.n)
        with storage_errors("read the journal"), self._database.engine.connect() as connection:
            found = connection.execute(query).all()
        rows: dict[str, list[Row]] = {}
        for each in found:
            rows.setdefault(each[1], []).append(_row(each))
        return rows

    def _read(self, run: str, wrapped: WrappedKeys | None, rows: Sequence[Row]) -> list[Event]:
        if wrapped is None:
            raise _missing(run)
        keys = self._vault.open(run, wrapped)
        read = [events.read(row, keys) for row in rows]
        if not read:
            raise _broken(run, 1)
        _check_chain(run, read, START)
        return read

    def events(self, run: str, keys: RunKeys | None = None, *, behind: ChainEnd = START) -> list[Event]:
        """A run's events in order, those after `behind`, checked link by link from there: all of them by default.

        Raises `StorageError` (code `record_corrupt`) where an event or the chain is damaged, `RunError` (code
        `run_not_found`) where there is no such run.
        """
        keys = keys or self.keys(run)
        query = select(*_ROW_COLUMNS).where(_EVENT.run == run, _EVENT.n >= behind.n).order_by(_EVENT.n)
        with storage_errors("read the journal"), self._database.engine.connect() as connection:
            found = connection.execute(query).all()
        read = [events.read(_row(each), keys) for each in found]
        if not read and behind == START:
            raise _broken(run, 1)
        _check_chain(run, read, behind)
        return read


def _row(found: Any) -> Row:
    return Row(
        tenant=found[0],
        run=found[1],
        n=found[2],
        type=found[3],
        at=found[4],
        hash=bytes(found[5]),
        header=bytes(found[6]),
        body=bytes(found[7]),
        sealed=_bytes(found[8]),
    )


def _bytes(value: bytes | memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)


def _check_chain(run: str, read: list[Event], behind: ChainEnd) -> None:
    """Positions have no gap and each event names the hash of the one before it."""
    for event in read:
        if event.header.n != behind.n or event.header.prev != behind.prev.hex():
            raise _broken(run, behind.n)
        behind = events.after(event)


def _missing(run: str) -> RunError:
    return RunError(f"there is no run `{run}`; `remit runs` lists them", code="run_not_found")


def _broken(run: str, n: int) -> StorageError:
    return StorageError(
        f"the chain of run `{run}` is broken at event {n}; restore the database from a backup", code="record_corrupt"
    )

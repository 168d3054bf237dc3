"""The queue: which worker drives which run next. Its rows are the runs themselves, in the table `runs`.

A run is enqueued by the transaction that makes it ready (its opening, a person's answer), so that record and queue
never disagree. Any number of workers take from it: each claim is one transaction, and what it takes it holds by a
lease that lasts by the database's clock. Contracts share the workers fairly; within one, priority and age decide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, literal_column, or_, select, text, update

from remit.journal.journal import Clock
from remit.runs.table import Lease, claiming, free
from remit.storage import schema
from remit.storage.database import Database, storage_errors

_RUNS = schema.runs.c

_AGES_US = 60_000_000
"""A run that has waited so long counts as one priority more urgent, so that nothing waits for ever."""

_WAKES_AT_ONCE, _WAKES_EVERY_S = 500, 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """A run that could be driven now. `since`: when it became ready."""

    run: str
    contract: str
    priority: int
    opened_at: int
    since: int
    claims: int
    held_at: int | None


def fair(
    waiting: Mapping[str, Sequence[Waiting]], busy: Mapping[str, int], at_most: Mapping[str, int], slots: int, now: int
) -> list[Waiting]:
    """Which runs to drive next, at most `slots`.

    `waiting`: by contract, in the order in which each would have its own driven. `busy`: how many of a contract are
    driven already. `at_most`: how many may be. Of those whose first run is most urgent, the contract goes next of which
    the fewest are driven.
    """
    chosen: list[Waiting] = []
    places = dict.fromkeys(waiting, 0)
    driven = {contract: busy.get(contract, 0) for contract in waiting}
    while len(chosen) < slots:
        heads = [
            (max(0, head.priority - (now - head.since) // _AGES_US), driven[contract], head.opened_at, contract)
            for contract, queue in waiting.items()
            if places[contract] < len(queue) and driven[contract] < at_most.get(contract, slots + driven[contract])
            for head in (queue[places[contract]],)
        ]
        if not heads:
            break
        contract = min(heads)[3]
        chosen.append(waiting[contract][places[contract]])
        places[contract] += 1
        driven[contract] += 1
    return chosen


class RunQueue:
    """The queue of one tenant. `opener` is what holds a run from its opening to its first drive; see `RunTable`."""

    def __init__(self, database: Database, *, tenant: str, clock: Clock, opener: str) -> None:
        self._database = database
        self._tenant = tenant
        self._clock = clock
        self._opener = opener
        self._now: ColumnElement[Any] = literal_column(database.now_us)
        self._wakes_at_s = 0.0
        self._lock_key = int.from_bytes(hashlib.sha256(f"remit queue {tenant}".encode()).digest()[:8], "big", signed=True)

    def claim(self, slots: int, at_most: Mapping[str, int]) -> list[Lease]:
        """Take up to `slots` runs that wait, and a lease on each. `at_most`: how many of a contract are driven at once."""
        now = self._clock()
        with storage_errors("take runs from the queue"), self._database.engine.begin() as connection:
            if not self._database.is_sqlite:
                # Claims of one tenant follow each other: so each sees what the others have taken.
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": self._lock_key})
            if monotonic() >= self._wakes_at_s:
                self._wake(connection, now)
                self._wakes_at_s = monotonic() + _WAKES_EVERY_S
            chosen = fair(self._ready(connection, slots), self._busy(connection), at_most, slots, now)
            leases = [self._take(connection, found, now) for found in chosen]
        return [lease for lease in leases if lease is not None]

    def _wake(self, connection: Connection, now: int) -> None:
        """Make ready whose time has come: that slept, were held for longer than anybody may answer, or lost their worker."""
        due = or_(
            and_(_RUNS.status.in_(("held", "asleep")), or_(_RUNS.wake_at < now, _RUNS.wake_at.is_(None))),
            and_(_RUNS.status == "running", free(self._now)),
        )
        found = select(_RUNS.run).where(_RUNS.tenant == self._tenant, ~_RUNS.elsewhere, due).limit(_WAKES_AT_ONCE)
        runs = list(connection.execute(found).scalars())
        if runs:
            made = update(schema.runs).where(_RUNS.run.in_(runs), _RUNS.tenant == self._tenant, due)
            connection.execute(made.values(status="ready", wake_at=None, updated_at=now))

    def _ready(self, connection: Connection, slots: int) -> dict[str, list[Waiting]]:
        """The first runs of each contract that has any."""
        is_ready = and_(_RUNS.tenant == self._tenant, _RUNS.status == "ready", ~_RUNS.elsewhere)
        columns = (_RUNS.run, _RUNS.contract, _RUNS.priority, _RUNS.opened_at, _RUNS.updated_at, _RUNS.claims, _RUNS.held_at)
        found: dict[str, list[Waiting]] = {}
        for contract in connection.execute(select(_RUNS.contract).where(is_ready).distinct()).scalars().all():
            query = select(*columns).where(is_ready, _RUNS.contract == contract, free(self._now, self._opener))
            rows = connection.execute(query.order_by(_RUNS.priority, _RUNS.opened_at).limit(slots))
            found[contract] = [
                Waiting(
                    run=row.run,
                    contract=row.contract,
                    priority=row.priority,
                    opened_at=row.opened_at,
                    since=row.updated_at,
                    claims=row.claims,
                    held_at=row.held_at,
                )
                for row in rows
            ]
        return found

    def _busy(self, connection: Connection) -> dict[str, int]:
        """How many runs of each contract are driven now, by all workers."""
        query = select(_RUNS.contract, func.count()).where(
            _RUNS.tenant == self._tenant, _RUNS.status == "running", _RUNS.lease_until >= self._now
        )
        return {row.contract: row[1] for row in connection.execute(query.group_by(_RUNS.contract))}

    def _take(self, connection: Connection, found: Waiting, now: int) -> Lease | None:
        lease, taking = claiming(found, now, self._now)
        taking = taking.where(_RUNS.tenant == self._tenant, _RUNS.status == "ready", free(self._now, self._opener))
        return lease if connection.execute(taking).rowcount == 1 else None

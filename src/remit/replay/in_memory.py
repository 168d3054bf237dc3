"""A journal in memory, for runs that are tried and thrown away: it takes what a gate records and keeps it nowhere."""

from __future__ import annotations

import time
from typing import Any

from remit.journal import events
from remit.journal.events import Event, Row
from remit.journal.journal import Clock, Journal, RunLog
from remit.journal.vault import Vault
from remit.storage.database import Database
from remit.storage.writer import Decide, LockedState, Locks, Rows


class MemoryWriter:
    """Answers as a database would in which every principal is enabled and no limit was used by anybody else."""

    def __init__(self) -> None:
        self._meters: dict[str, bytes] = {}
        self._rows: list[tuple[Any, ...]] = []

    async def write(self, locks: Locks, decide: Decide) -> None:
        self.write_at_once(locks, decide)

    def write_at_once(self, locks: Locks, decide: Decide) -> bool:
        known = {name: self._meters[name] for name in locks.meters if name in self._meters}
        for write in decide(LockedState(meters=known, enabled=frozenset(locks.principals))):
            if isinstance(write, Rows) and write.table == "meters":
                self._meters.update(write.rows)
            elif isinstance(write, Rows) and write.table == "events":
                self._rows.extend(write.rows)
        return True

    async def close(self) -> None:
        """Nothing is open."""

    def events(self, log: RunLog) -> list[Event]:
        """What was recorded of the run of this log."""
        rows = [Row(**dict(zip(Row.__struct_fields__, row, strict=True))) for row in self._rows]
        return [events.read(row, log.keys) for row in rows]


class TrialJournal:
    """One trial's journal; its time is that of the recorded run, and goes on from there."""

    def __init__(self, database: Database, vault: Vault, *, tenant: str, run: str, opened_at: int) -> None:
        """`database` is what the journal would be read from, and is neither read nor written."""
        began = time.monotonic_ns() // 1000
        self.clock: Clock = lambda: opened_at + time.monotonic_ns() // 1000 - began
        self._writer = MemoryWriter()
        self.journal = Journal(database, vault=vault, clock=self.clock, writer=self._writer)
        self.log, _ = self.journal.start(tenant, run)

    def events(self) -> list[Event]:
        """What was recorded."""
        return self._writer.events(self.log)

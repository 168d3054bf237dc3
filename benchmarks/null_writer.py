"""A writer that keeps nothing: what the gate costs when no disk and no server stand behind the journal."""

from __future__ import annotations

from remit.storage.writer import Decide, LockedState, Locks, Rows


class NullWriter:
    """Answers as a database would in which the principals are enabled; only the meters' states live on, in memory.

    Everything up to the driver is done for real: reservation, redaction, encoding, hashing, encryption.
    """

    def __init__(self) -> None:
        self._meters: dict[str, bytes] = {}
        self.transactions = 0
        self.rows = 0

    async def write(self, locks: Locks, decide: Decide) -> None:
        self.write_at_once(locks, decide)

    def write_at_once(self, locks: Locks, decide: Decide) -> bool:
        known = {name: self._meters[name] for name in locks.meters if name in self._meters}
        self.transactions += 1
        for write in decide(LockedState(meters=known, enabled=frozenset(locks.principals))):
            if isinstance(write, Rows):
                self.rows += len(write.rows)
                if write.table == "meters":
                    self._meters.update(write.rows)
        return True

    async def close(self) -> None:
        """Nothing is open."""

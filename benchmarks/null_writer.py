"""A writer that keeps nothing: what the gate costs when no disk and no server stand behind the journal."""

from __future__ import annotations

from typing import Any

from remit.storage.writer import Decide, Found, Locks


class NullWriter:
    """Answers as a database would in which the principals are enabled; only the meters' states live on, in memory.

    Everything up to the driver is done for real: reservation, redaction, encoding, hashing, encryption.
    """

    def __init__(self) -> None:
        self._meters: dict[str, bytes] = {}
        self.transactions = 0
        self.rows = 0

    async def write(self, locks: Locks, decide: Decide) -> None:
        known = {name: self._meters[name] for name in locks.meters if name in self._meters}
        self.transactions += 1
        for statement in decide(Found(meters=known, enabled=frozenset(locks.principals))):
            sets: list[dict[str, Any]] = (
                [statement.params] if isinstance(statement.params, dict) else list(statement.params)
            )
            self.rows += len(sets)
            if "INTO meters" in statement.sql:
                self._meters.update({each["meter"]: each["state"] for each in sets})

    async def close(self) -> None:
        """Nothing is open."""

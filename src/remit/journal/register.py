"""The register: what is done to the record of a tenant, and belongs to no single run, as a chain of events of its own."""

from __future__ import annotations

from collections.abc import Sequence

from remit.errors import FenceLost, RunError
from remit.journal.events import Draft, Event
from remit.journal.journal import Journal, RunLog
from remit.storage.writer import Statement

_ATTEMPTS = 20


def register_of(tenant: str) -> str:
    """The name under which the register of a tenant stands among the runs."""
    return f"register-{tenant}"


class Register:
    """Appends to the register of one tenant, whoever else does; any number of processes may."""

    def __init__(self, journal: Journal, tenant: str) -> None:
        self._journal = journal
        self.tenant = tenant
        self.name = register_of(tenant)
        self._log: RunLog | None = None

    async def append(self, *drafts: Draft, statements: Sequence[Statement] = ()) -> None:
        """Record what is done, and do it by `statements`, in one transaction. Raises `StorageError`."""
        for _ in range(_ATTEMPTS):
            log, begin = self._open()
            try:
                await self._journal.append(log, *drafts, statements=[*begin, *statements])
            except FenceLost:
                # Somebody else wrote meanwhile; this one goes behind it.
                self._log = None
                continue
            self._log = log
            return
        raise FenceLost(f"register `{self.name}` is written to by others without end; try again")

    def events(self) -> list[Event]:
        """Everything on the register, in order. Raises `StorageError`."""
        try:
            return self._journal.reader.events(self.name)
        except RunError:
            return []

    def _open(self) -> tuple[RunLog, Sequence[Statement]]:
        if self._log is not None:
            return self._log, ()
        try:
            return self._journal.reopen(self.name)[0], ()
        except RunError:
            log, keys = self._journal.start(self.tenant, self.name)
            return log, [keys]

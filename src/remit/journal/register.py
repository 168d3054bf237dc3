"""The register: what is done to the record of a tenant, and belongs to no single run, as a chain of events of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from remit.errors import FenceLost, IdentityError, RunError
from remit.journal.events import Draft, Event
from remit.journal.journal import Disabled, Entry, Journal, Recording, Reservation, RunLog
from remit.storage.writer import Statement

T = TypeVar("T")

SYSTEM = "system"
"""The actor where nobody in particular has done it."""

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

    async def append(self, *drafts: Draft, statements: Sequence[Statement] = (), by: str | None = None) -> None:
        """Record what is done, and do it by `statements`, in one transaction.

        `by`: a principal that must be enabled as it commits. Raises `StorageError`, `IdentityError` (code
        `principal_disabled`).
        """
        recording = Recording(value=None, drafts=drafts, statements=statements)
        for _ in range(_ATTEMPTS):
            log, begin = self._open()
            try:
                await self._commit(log, begin, recording, by)
            except FenceLost:
                # Somebody else wrote meanwhile; this one goes behind it.
                self._log = None
                continue
            self._log = log
            return
        raise self._contended()

    async def change(self, decide: Callable[[Sequence[Event]], Recording[T]], *, by: str | None = None) -> T:
        """Record what `decide` makes of everything on the register, with nothing written to it in between.

        It is asked anew where somebody else was faster. Raises what it raises, and as `append` does.
        """
        for _ in range(_ATTEMPTS):
            try:
                log, known = self._journal.reopen(self.name)
                begin: Sequence[Statement] = ()
            except RunError:
                (log, keys), known = self._journal.start(self.tenant, self.name), []
                begin = [keys]
            recording = decide(known)
            if not recording.drafts:
                return recording.value
            try:
                await self._commit(log, begin, recording, by)
            except FenceLost:
                continue
            self._log = log
            return recording.value
        raise self._contended()

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
            return self._journal.go_on(self.name), ()
        except RunError:
            log, keys = self._journal.start(self.tenant, self.name)
            return log, [keys]

    async def _commit(
        self, log: RunLog, begin: Sequence[Statement], recording: Recording[T], by: str | None
    ) -> None:
        def record(reservation: Reservation) -> Recording[T]:
            if isinstance(reservation, Disabled):
                raise IdentityError(f"`{reservation.principal}` is disabled", code="principal_disabled")
            statements = [*begin, *recording.statements]
            return Recording(value=recording.value, drafts=recording.drafts, statements=statements)

        principals = () if by is None else (by,)
        await self._journal.commit(Entry(log=log, record=record, principals=principals))

    def _contended(self) -> FenceLost:
        return FenceLost(f"register `{self.name}` is written to by others without end; try again")

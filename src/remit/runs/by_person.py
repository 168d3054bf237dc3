"""What a person writes into the record of a run: only while they are enabled, as the transaction itself finds."""

from __future__ import annotations

from collections.abc import Sequence

from remit.errors import CaseError
from remit.journal.events import Draft
from remit.journal.journal import Disabled, Entry, Journal, Recording, Reservation, RunLog
from remit.storage.writer import Statement


async def commit_by(
    person: str, journal: Journal, log: RunLog, drafts: Sequence[Draft], statements: Sequence[Statement] = ()
) -> None:
    """Record what `person`, a principal, did. Raises `CaseError` (code `approver_disabled`), else as `Journal.commit`."""

    def record(reservation: Reservation) -> Recording[None]:
        if isinstance(reservation, Disabled):
            raise CaseError(f"`{person}` is disabled", code="approver_disabled")
        return Recording(value=None, drafts=drafts, statements=statements)

    await journal.commit(Entry(log=log, record=record, principals=(person,)))

"""Erasing runs: both keys of a run are destroyed, and with them what it said, while its chain still verifies.

First it is said what would be erased, and why the rest would not. What is then erased is judged anew in the transaction
that does it, with nothing written to the register in between: a hold that was placed meanwhile counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from remit.errors import StorageError
from remit.journal.events import Draft, EventType
from remit.records.archive import Archive, StoredRun
from remit.records.destroying import Candidate, Destroyed, Refusal, destroy, judged
from remit.records.holds import Holding
from remit.records.policy import Purpose, RecordPolicy
from remit.records.record_cedar import Deed
from remit.records.subjects import data_subject
from remit.storage import rows
from remit.storage.writer import Statement

Progress = Callable[[int, int], None]
"""Told how many of how many runs were searched."""


class Erasure:
    """Erases runs of one tenant, as a person asks for."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    async def about(self, subject: str, progress: Progress) -> tuple[list[StoredRun], list[StoredRun]]:
        """The runs that are about a person or a value, and those whose record is damaged, so that nobody can tell.

        Linear in the record; erased runs say nothing any more. Raises `RecordError` (code `subject_too_short`).
        """
        archive = self._archive
        meant = data_subject(subject, archive.redactor, tuple(archive.people))
        found: list[StoredRun] = []
        damaged: list[StoredRun] = []
        runs = [run for run in archive.runs() if run.has_body]
        for at, run in enumerate(runs, start=1):
            try:
                events = archive.events(run.run)
            except StorageError as error:
                if error.code != "record_corrupt":
                    raise
                damaged.append(run)
                continue
            if meant.is_meant_by(archive.facts(run, events), events):
                found.append(run)
            progress(at, len(runs))
            await asyncio.sleep(0)
        return found, damaged

    def plan(self, runs: Sequence[StoredRun], *, token: str, reason: str) -> list[Candidate]:
        """What would be erased now, and why the rest would not. Raises what the token and `record.cedar` raise."""
        purpose = self._archive.purpose(Deed.ERASE, token=token, reason=reason)
        refusal = self._refusal(purpose, self._archive.policy())
        return judged(self._archive, runs, refusal, self._archive.register.events())

    async def erase(self, runs: Sequence[StoredRun], *, token: str, reason: str) -> Destroyed:
        """Erase those of the runs that nothing speaks against. Raises as `plan` and `destroy` do."""
        archive = self._archive
        purpose = archive.purpose(Deed.ERASE, token=token, reason=reason)

        def destruction(run: StoredRun) -> tuple[Draft, Sequence[Statement]]:
            return erasing(archive, run, archive.about(purpose, archive.events(run.run)))

        return await destroy(
            archive, runs, self._refusal(purpose, archive.policy()), destruction, by=purpose.person.principal
        )

    def _refusal(self, purpose: Purpose, policy: RecordPolicy) -> Refusal:
        def refusal(run: StoredRun, holding: Holding) -> str:
            if not run.has_body:
                return "it is erased already"
            if run.status != "closed":
                return f"it is open ({run.status}); let it end, or `remit close {run.run} --as PERSON`"
            events = self._archive.events(run.run)
            hold = holding.keeps(run, lambda: events)
            if hold is not None:
                return f"`{hold.hold}` holds it"
            return policy.refusal(purpose, self._archive.facts(run, events)) or ""

        return refusal


def erasing(archive: Archive, run: StoredRun, purpose: Purpose | None) -> tuple[Draft, Sequence[Statement]]:
    """The event of a run's erasure, and what erases it."""
    body = {"run": run.run, "contract": run.contract, "opened_at": run.opened_at, "closed_at": run.closed_at}
    draft = archive.draft(EventType.RUN_ERASED, purpose, body, run=run.run)
    return draft, rows.erase_run(run.run, archive.journal.clock())

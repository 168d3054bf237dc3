"""Erasing runs: both keys of a run are destroyed, and with them what it said, while its chain still verifies.

First it is said what would be erased, and why the rest would not. What is then erased is judged anew in the transaction
that does it, with nothing written to the register in between: a hold that was placed meanwhile counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from remit.errors import StorageError
from remit.journal.events import Draft, Event, EventType
from remit.records.archive import Archive, StoredRun
from remit.records.destroying import Candidate, Destroyed, Refusal, destroy, judged
from remit.records.holds import Holding
from remit.records.policy import Purpose, RecordPolicy, RunFacts
from remit.records.record_cedar import Deed
from remit.records.subjects import data_subject
from remit.storage import rows
from remit.storage.writer import Statement

Progress = Callable[[int, int], None]
"""Told how many of how many runs were searched."""

Deny = Callable[[RunFacts, Sequence[Event], str], None]
"""Told of each run that policy keeps, with its events and why."""


def _untold(_facts: RunFacts, _events: Sequence[Event], _why: str) -> None:
    """It is on record already."""


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

    async def plan(self, runs: Sequence[StoredRun], *, token: str, reason: str) -> list[Candidate]:
        """What would be erased now, and why the rest would not; what `record.cedar` denies is on the register.

        Raises what the token and `record.cedar` raise.
        """
        archive = self._archive
        purpose = archive.purpose(Deed.ERASE, token=token, reason=reason)
        if not runs:
            return []
        return await self._judged(runs, purpose, await archive.policy_for(purpose, archive.every_run_of(runs[0].contract)))

    async def erase(self, runs: Sequence[StoredRun], *, token: str, reason: str) -> Destroyed:
        """Erase those of the runs that nothing speaks against. Raises as `plan` and `destroy` do."""
        archive = self._archive
        purpose = archive.purpose(Deed.ERASE, token=token, reason=reason)
        if not runs:
            return Destroyed(runs=[])
        policy = await archive.policy_for(purpose, archive.every_run_of(runs[0].contract))
        await self._judged(runs, purpose, policy)

        def destruction(run: StoredRun) -> tuple[Draft, Sequence[Statement]]:
            return erasing(archive, run, archive.about(purpose, archive.events(run.run)))

        return await destroy(archive, runs, self._refusal(purpose, policy), destruction, by=purpose.person.principal)

    async def _judged(self, runs: Sequence[StoredRun], purpose: Purpose, policy: RecordPolicy) -> list[Candidate]:
        """What would become of each run; that policy keeps one is put on record."""
        archive = self._archive
        denied: list[tuple[Purpose, RunFacts, str]] = []

        def deny(facts: RunFacts, events: Sequence[Event], why: str) -> None:
            denied.append((archive.about(purpose, events), facts, why))

        found = judged(archive, runs, self._refusal(purpose, policy, deny), archive.register.events())
        for said, facts, why in denied:
            await archive.denied(said, [(facts, why)])
        return found

    def _refusal(self, purpose: Purpose, policy: RecordPolicy, deny: Deny = _untold) -> Refusal:
        def refusal(run: StoredRun, holding: Holding) -> str:
            if not run.has_body:
                return "it is erased already"
            if run.status != "closed":
                return f"it is open ({run.status}); let it end, or `remit close {run.run} --as PERSON`"
            events = self._archive.events(run.run)
            hold = holding.keeps(run, lambda: events)
            if hold is not None:
                return f"`{hold.hold}` holds it"
            facts = self._archive.facts(run, events)
            why = policy.refusal(purpose, facts) or ""
            if why:
                deny(facts, events, why)
            return why

        return refusal


def erasing(archive: Archive, run: StoredRun, purpose: Purpose | None) -> tuple[Draft, Sequence[Statement]]:
    """The event of a run's erasure, and what erases it."""
    body = {"run": run.run, "contract": run.contract, "opened_at": run.opened_at, "closed_at": run.closed_at}
    draft = archive.draft(EventType.RUN_ERASED, purpose, body, run=run.run)
    return draft, rows.erase_run(run.run, archive.journal.clock())

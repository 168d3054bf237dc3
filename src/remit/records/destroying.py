"""Destroying keys of closed runs, many in one transaction, each with its event of the register."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

import msgspec

from remit.errors import StorageError
from remit.journal.events import Draft, Event
from remit.journal.journal import Recording
from remit.records.archive import Archive, StoredRun
from remit.records.holds import Holding
from remit.storage.scrub import scrub_keys
from remit.storage.writer import Statement

_AT_ONCE = 100
"""So many runs in one transaction: enough that a commit costs nothing beside them, few enough that nobody waits long."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A run, and why it stays as it is; empty where it does not."""

    run: StoredRun
    refused: str = ""


class Destroyed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each run, and why bytes of destroyed keys may still be in the database's files; empty: none are."""

    runs: list[Candidate]
    left: str = ""


Refusal = Callable[[StoredRun, Holding], str]
"""Why a run stays; empty where nothing speaks against it."""
Destruction = Callable[[StoredRun], tuple[Draft, Sequence[Statement]]]
"""The event of a run's destruction, and what destroys it."""


def judged(archive: Archive, runs: Sequence[StoredRun], refusal: Refusal, known: Sequence[Event]) -> list[Candidate]:
    """What would become of each run, as the register stands."""
    holding = Holding(archive, known)
    return [Candidate(run=run, refused=_refused(run, holding, refusal)) for run in runs]


async def destroy(
    archive: Archive, runs: Sequence[StoredRun], refusal: Refusal, destruction: Destruction, *, by: str | None
) -> Destroyed:
    """Destroy those of the runs that nothing speaks against, as it is then. `by`: the person who must be enabled.

    Raises `StorageError`, `IdentityError`; what was destroyed before that stays so, and is on the register.
    """
    done: list[Candidate] = []
    for some in _chunks(runs):
        names = [run.run for run in some]

        def decide(known: Sequence[Event], names: Sequence[str] = names) -> Recording[list[Candidate]]:
            found = judged(archive, archive.named(names), refusal, known)
            made = [destruction(each.run) for each in found if not each.refused]
            return Recording(
                value=found,
                drafts=[draft for draft, _ in made],
                statements=[statement for _, several in made for statement in several],
            )

        done += await archive.register.change(decide, by=by)
        await asyncio.sleep(0)
    left = await scrub(archive) if any(not each.refused for each in done) else ""
    return Destroyed(runs=done, left=left)


async def scrub(archive: Archive) -> str:
    """Get what was overwritten out of the database's files; why that can't be done now, empty where it is."""
    try:
        await asyncio.to_thread(scrub_keys, archive.database)
    except StorageError as error:
        return error.message
    return ""


def _refused(run: StoredRun, holding: Holding, refusal: Refusal) -> str:
    try:
        return refusal(run, holding)
    except StorageError as error:
        if error.code != "record_corrupt":
            raise
        # One that is damaged keeps no other from being judged.
        return error.message


def _chunks(runs: Sequence[StoredRun]) -> Iterator[Sequence[StoredRun]]:
    return (runs[at : at + _AT_ONCE] for at in range(0, len(runs), _AT_ONCE))

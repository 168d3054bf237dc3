"""Retention: what a contract says of how long its runs are kept, enforced once a day by the worker.

`retention` after a run's closing its originals are dropped; what is redacted stays. `erase_after` it is erased as a
whole. A legal hold keeps both from happening, and an open run keeps all that it needs to go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from remit.contracts.quantities import duration_ms
from remit.errors import ConfigError, RemitError, RunError
from remit.journal.events import Draft, EventType
from remit.records.archive import Archive, StoredRun
from remit.records.destroying import Candidate, Refusal, destroy, judged, scrub
from remit.records.erasure import erasing
from remit.records.holds import Holding
from remit.runs.program import Programs
from remit.storage import rows
from remit.storage.writer import Statement

_log = logging.getLogger("remit")



class RetentionReport(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs are erased, which lose their originals, and which are due and stay, with the reason.

    `left`: why bytes of destroyed keys may still be in the database's files; empty where none are.
    """

    erased: list[StoredRun]
    dropped: list[StoredRun]
    kept: list[Candidate]
    left: str = ""


class Retention:
    """Enforces the terms of one tenant's contracts. `programs` say the terms of runs that were opened before they were noted."""

    def __init__(self, archive: Archive, programs: Programs) -> None:
        self._archive = archive
        self._programs = programs

    def plan(self) -> RetentionReport:
        """What is due now; nothing is changed."""
        to_erase, to_drop = self._due()
        known = self._archive.register.events()
        erased = judged(self._archive, to_erase, _erasable, known)
        dropped = judged(self._archive, to_drop, self._droppable(), known)
        return _report(erased, dropped, "")

    async def enforce(self) -> RetentionReport:
        """Destroy what is due now. Raises `StorageError`."""
        archive = self._archive
        to_erase, to_drop = self._due()
        erased = await destroy(archive, to_erase, _erasable, lambda run: erasing(archive, run, None), by=None)
        dropped = await destroy(archive, to_drop, self._droppable(), self._dropping, by=None)
        # SQLite's log is emptied whether or not there is something new: an earlier time may have come to nothing.
        left = await scrub(archive) if archive.database.is_sqlite else erased.left or dropped.left
        return _report(erased.runs, dropped.runs, left)

    async def daily(self, stop: asyncio.Event, *, every_s: float = 86_400, again_s: float = 3_600) -> None:
        """Enforce it now, and then once a day until `stop` is set. Trouble is said, and it is tried again in an hour."""
        while not stop.is_set():
            pause_s = every_s
            try:
                self._say(await self.enforce())
            except RemitError as error:
                _log.warning("retention: %s", self._archive.redactor.text(error.message))
                pause_s = again_s
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s)

    def _say(self, report: RetentionReport) -> None:
        if report.erased or report.dropped:
            _log.info("retention: %s erased, originals of %s dropped", len(report.erased), len(report.dropped))
        if report.left:
            _log.warning("retention: %s", report.left)

    def _due(self) -> tuple[list[StoredRun], list[StoredRun]]:
        now = self._archive.journal.clock()
        found = self._archive.closed_for(now)
        to_erase = [run for run in found if run.has_body and _is_over(run, run.erase_after_us, now)]
        gone = {run.run for run in to_erase}
        return to_erase, [run for run in found if run.has_originals and run.run not in gone]

    def _droppable(self) -> Refusal:
        """Runs whose terms were not noted when they began have those of their contract as it is now."""
        now, terms = self._archive.journal.clock(), dict[str, int | None]()

        def refusal(run: StoredRun, holding: Holding) -> str:
            retention_us = run.retention_us
            if retention_us is None:
                if run.contract not in terms:
                    terms[run.contract] = self._terms_of(run.contract)
                retention_us = terms[run.contract]
            if retention_us is None:
                return f"its contract `{run.contract}` is not at hand, so nobody knows how long it is to be kept"
            if not run.has_originals or not _is_over(run, retention_us, now):
                return NOT_DUE
            return _held(run, holding)

        return refusal

    def _terms_of(self, contract: str) -> int | None:
        try:
            return duration_ms(self._programs.at_hand(contract, None).authority.contract.retention) * 1000
        except (ConfigError, RunError):
            return None

    def _dropping(self, run: StoredRun) -> tuple[Draft, Sequence[Statement]]:
        body = {"run": run.run, "contract": run.contract, "closed_at": run.closed_at}
        draft = self._archive.draft(EventType.ORIGINALS_DROPPED, None, body, run=run.run)
        return draft, [rows.drop_originals(run.run)]


NOT_DUE = "not due"


def _is_over(run: StoredRun, after_us: int | None, now: int) -> bool:
    return run.closed_at is not None and after_us is not None and now - run.closed_at >= after_us


def _erasable(run: StoredRun, holding: Holding) -> str:
    return _held(run, holding) if run.has_body and run.status == "closed" else NOT_DUE


def _held(run: StoredRun, holding: Holding) -> str:
    hold = holding.keeps(run)
    return "" if hold is None else f"`{hold.hold}` holds it"


def _report(erased: Sequence[Candidate], dropped: Sequence[Candidate], left: str) -> RetentionReport:
    return RetentionReport(
        erased=[each.run for each in erased if not each.refused],
        dropped=[each.run for each in dropped if not each.refused],
        kept=[each for each in (*erased, *dropped) if each.refused not in ("", NOT_DUE)],
        left=left,
    )

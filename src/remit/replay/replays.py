"""Replays of recorded runs, level by level, and the one event that says that there was one.

A replay reads. What it writes is `run.replayed` on the register: the runs themselves, their rows, cases, meters and
principals are as they were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from remit.errors import ConfigError, RemitError, RunError, StorageError
from remit.journal.events import Draft, EventType
from remit.journal.journal import Journal
from remit.journal.redaction import Redactor
from remit.journal.register import Register
from remit.releases.archive import ReleaseArchive
from remit.replay.causes import changes_between, likely_cause
from remit.replay.old_program import old_program
from remit.replay.recorded import Choice, RecordedRun, read_runs
from remit.replay.redecide import redecide
from remit.replay.report import Replayed, ReplayReport, Result, replayed
from remit.replay.rerun import Rerun, rerun
from remit.runs.program import Program, Programs
from remit.storage.database import Database
from remit.values import Json

WhichCode = Literal["present", "recorded"]
"""Whose code runs again: the project's as it is now, or the one of the release that the run began under."""


class Replays:
    """The replays of one tenant's runs."""

    def __init__(
        self,
        *,
        database: Database,
        journal: Journal,
        register: Register,
        redactor: Redactor,
        programs: Programs,
        archive: ReleaseArchive,
    ) -> None:
        self._database = database
        self._journal = journal
        self._register = register
        self._redactor = redactor
        self._programs = programs
        self._archive = archive
        self._tenant = register.tenant
        self._old: dict[str, Program | ConfigError] = {}

    def read(self, choice: Choice) -> list[RecordedRun]:
        """The chosen runs, the oldest first, their chains checked. Raises `StorageError`."""
        return read_runs(self._database, self._journal.reader, self._tenant, choice)

    async def replay(self, choice: Choice, level: int, code: WhichCode = "present") -> ReplayReport:
        """Replay the chosen runs at level 0 (check and show), 1 (run the code again) or 2 (decide again).

        Raises `StorageError`, also where the replay itself can't be recorded.
        """
        found = [await self._replay(recorded, level, code) for recorded in self.read(choice)]
        report = ReplayReport(level=level, code=code, at=self._journal.clock(), tenant=self._tenant, runs=found)
        await self.note([each.recorded.run for each in found], level, report.counts, code=code)
        return report

    def now(self) -> int:
        """The time, in microseconds since the epoch."""
        return self._journal.clock()

    async def note(self, runs: list[str], level: int, counts: Json, *, code: str = "", change: Json = None) -> None:
        """Put a replay on the register."""
        body: dict[str, Json] = {"level": level, "code": code, "change": change, "counts": counts, "runs": runs}
        shown = self._redactor.redact(body).value
        await self._register.append(Draft(type=EventType.RUN_REPLAYED, actor="replay", body=shown))

    async def _replay(self, recorded: RecordedRun, level: int, code: WhichCode) -> Replayed:
        if recorded.damage:
            return replayed(recorded, "undetermined", why=recorded.damage)
        if level == 0:
            note = "its content was erased; the chain holds" if recorded.is_erased else ""
            return replayed(recorded, "verified", note=note)
        if recorded.is_erased:
            return replayed(recorded, "undetermined", why="its content was erased")
        if level == 1:
            return await self._rerun(recorded, code)
        return self._redecide(recorded)

    async def _rerun(self, recorded: RecordedRun, code: WhichCode) -> Replayed:
        why = recorded.no_code or self._no_plan(recorded)
        if why:
            return replayed(recorded, "undetermined", why=why)
        try:
            program = self._program(recorded, code)
            found = await rerun(recorded, program, self._redactor)
        except (ConfigError, RunError, StorageError) as error:
            if _is_out_of_reach(error):
                raise
            return replayed(recorded, "undetermined", why=error.message)
        changes = None
        if recorded.release != program.authority.release:
            kept = self._archive.get(recorded.release)
            changes = None if kept is None else changes_between(kept.bundle, program.bundle)
        result, why, note = _judged(recorded, found)
        cause = ""
        if found.divergence is not None:
            same = recorded.release == program.authority.release
            cause = likely_cause(changes, same_release=same, recorded_code=code == "recorded")
            if recorded.undoes and not same:
                cause = f"what undoes `{recorded.undoes}` is planned otherwise now: the compensation of a tool has changed"
        return replayed(
            recorded,
            result,
            why=why,
            note=note,
            divergence=found.divergence,
            cause=cause,
            changed=tuple(change.text for change in changes or ()),
        )

    def _redecide(self, recorded: RecordedRun) -> Replayed:
        try:
            program = self._program_of_release(recorded)
        except (ConfigError, RunError, StorageError) as error:
            if _is_out_of_reach(error):
                raise
            return replayed(recorded, "undetermined", why=error.message)
        decisions = redecide(recorded, program.authority.policy)
        unknown = [one.why for one in decisions if one.reproduced is None]
        if any(one.reproduced is False for one in decisions):
            return replayed(recorded, "diverged", decisions=decisions)
        if unknown:
            why = f"{len(unknown)} of {len(decisions)} decisions: {'; '.join(dict.fromkeys(unknown))}"
            return replayed(recorded, "undetermined", why=why, decisions=decisions)
        return replayed(recorded, "identical", decisions=decisions)

    def _program(self, recorded: RecordedRun, code: WhichCode) -> Program:
        return self._programs.at_hand(recorded.program, None) if code == "present" else self._program_of_release(recorded)

    def _no_plan(self, recorded: RecordedRun) -> str:
        """Why what an undo did does not follow from the record any more; empty where it does, and for other runs."""
        if not recorded.undoes:
            return ""
        undone = next(iter(self.read(Choice(run=recorded.undoes))), None)
        if undone is None or undone.damage or undone.is_erased:
            return f"it undoes `{recorded.undoes}`, whose record does not say any more what there was to undo"
        if undone.is_concealed:
            return f"it undoes `{recorded.undoes}`, whose originals were dropped, and with them what there was to undo"
        return ""

    def _program_of_release(self, recorded: RecordedRun) -> Program:
        """The program that a run began with: the present one if it is the same, else the one of the archive."""
        try:
            return self._programs.at_hand(recorded.program, recorded.release)
        except (ConfigError, RunError) as error:
            if recorded.undoes:
                raise RunError(_OTHER_PLAN if error.code == "release_not_at_hand" else error.message) from error
            known = self._old.get(recorded.release)
            if known is None:
                known = self._old[recorded.release] = _or_error(lambda: old_program(self._archive, recorded.release))
        if isinstance(known, ConfigError):
            raise known
        return known


_OTHER_PLAN = "it was planned under files of the contract that are others now, and those of an undo are not kept"


def _is_out_of_reach(error: RemitError) -> bool:
    """Whether it is about the database as a whole; what is damaged in it concerns but the runs that it is about."""
    return isinstance(error, StorageError) and error.code != "record_corrupt"


def _or_error(make: Callable[[], Program]) -> Program | ConfigError:
    try:
        return make()
    except ConfigError as error:
        return error


def _judged(recorded: RecordedRun, found: Rerun) -> tuple[Result, str, str]:
    """The result, why it can't be told, and what limits it."""
    steps = f"{found.asked} step{'' if found.asked == 1 else 's'}"
    notes: list[str] = []
    if recorded.is_concealed:
        notes.append("over pseudonyms, because its originals were dropped")
    if found.reached_out:
        return "undetermined", f"its code reaches out by itself ({found.reached_out}), which a replay does not let it", ""
    if found.divergence is not None:
        if recorded.is_concealed:
            at = found.divergence.step
            return "undetermined", f"its originals were dropped, and over pseudonyms it comes out otherwise at step {at}", ""
        return "diverged", "", "; ".join(notes)
    if recorded.closed is None:
        return "undetermined", f"it is not ended ({recorded.status}); the {steps} so far came out the same", ""
    if recorded.was_stopped:
        notes.append(f"it was ended from outside of its code; the {steps} until then came out the same")
    return "identical", "", "; ".join(notes)

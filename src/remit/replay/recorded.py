"""Recorded runs as a replay takes them: chosen by the table `runs`, read and checked in two queries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import msgspec
from sqlalchemy import select

from remit.errors import RemitError
from remit.journal.events import IMPORTED, UNDOES, Event, EventType
from remit.journal.journal import FROM_BESIDE
from remit.journal.reader import Reader
from remit.storage.database import Database, storage_errors
from remit.storage.schema import runs
from remit.undo.undoing import undone_by

_STOPPED_BY_ENGINE = frozenset({"limit_exhausted", "no_progress"})
"""Kinds of the case that the engine opens where it ends a run from outside of its code."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs: one, the last so many, or all that were opened since (microseconds since the epoch), of a contract."""

    run: str | None = None
    last: int | None = None
    since: int | None = None
    contract: str | None = None


class RecordedRun(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One run as its row and its events have it; `damage` says what is wrong with the record, and then there are none."""

    run: str
    contract: str
    release: str
    status: str
    elsewhere: bool
    opened_at: int
    events: Sequence[Event] = ()
    damage: str = ""

    @cached_property
    def closed(self) -> Event | None:
        """The event that closed it; what people did about its cases may stand behind it."""
        return next((event for event in reversed(self.events) if event.type is EventType.RUN_CLOSED), None)

    @property
    def outcome(self) -> str:
        """How it ended, or how it stands."""
        return self.closed.header.verdict if self.closed is not None else self.status

    @property
    def reason(self) -> str:
        return str(body_of(self.closed).get("reason") or "") if self.closed is not None else ""

    @property
    def is_erased(self) -> bool:
        """Whether its key was destroyed: the chain still holds, and says nothing any more."""
        return any(event.body is None for event in self.events)

    @property
    def is_concealed(self) -> bool:
        """Whether originals that it was recorded with were dropped, so that only pseudonyms stand in their place."""
        return any(event.header.sealed and event.sealed is None for event in self.events)

    @property
    def program(self) -> str:
        """The name of what it runs: its contract's, or that of an undo."""
        return str(originals_of(self.events[0])["contract"])

    @property
    def undoes(self) -> str:
        """The run that this one undoes; empty where it undoes none."""
        if not self.events:
            return ""
        opened = self.events[0]
        return opened.header.refs.get(UNDOES) or undone_by(str(originals_of(opened).get("contract", "")))

    @property
    def no_code(self) -> str:
        """Why there is no code here that could run again; empty where there is."""
        importer = self.events[0].header.refs.get(IMPORTED)
        if importer is not None:
            return f"it took place elsewhere and was imported ({importer}); `remit backtest` judges what it called"
        if self.elsewhere:
            return "its agent lives elsewhere; there is no code of it here that could run again"
        return ""

    @property
    def was_stopped(self) -> bool:
        """Whether it was ended from outside of its code: by a person, by its time, or because it was taken for broken."""
        if self.closed is None:
            return False
        if "by" in body_of(self.closed) or self.closed.header.verdict == "diverged":
            return True
        opened = (event for event in self.events if event.type is EventType.CASE_OPENED and not event.header.span)
        return any(body_of(event).get("kind") in _STOPPED_BY_ENGINE for event in opened)

    @property
    def was_refused(self) -> bool:
        """Whether it ended where it waited for a person: its code was never told."""
        own = [e for e in self.events if e.type not in FROM_BESIDE and e.type is not EventType.RUN_CLOSED]
        return self.outcome == "denied" and bool(own) and own[-1].type is EventType.APPROVAL_REQUESTED

    @property
    def cost_microusd(self) -> int:
        return sum(event.header.cost_microusd for event in self.events)


def body_of(event: Event | None) -> dict[str, Any]:
    """An event's body; empty where it was erased."""
    return {} if event is None else cast("dict[str, Any]", event.body or {})


def originals_of(event: Event) -> dict[str, Any]:
    """What was sealed beside the body, or the body where nothing was, or where it was dropped."""
    return cast("dict[str, Any]", event.sealed or event.body or {})


_COLUMNS = (runs.c.run, runs.c.contract, runs.c.release, runs.c.status, runs.c.elsewhere, runs.c.opened_at)


def read_runs(database: Database, reader: Reader, tenant: str, choice: Choice) -> list[RecordedRun]:
    """The chosen runs, the oldest first, each with its events, their chain checked. Raises `StorageError`."""
    query = select(*_COLUMNS).where(runs.c.tenant == tenant).order_by(runs.c.opened_at.desc(), runs.c.run)
    if choice.run is not None:
        query = query.where(runs.c.run == choice.run)
    if choice.contract is not None:
        query = query.where(runs.c.contract == choice.contract)
    if choice.since is not None:
        query = query.where(runs.c.opened_at >= choice.since)
    with storage_errors("list the runs"), database.engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(query.limit(choice.last)).mappings()]
    found = reader.several([row["run"] for row in rows])
    return [_recorded(row, found[row["run"]]) for row in reversed(rows)]


def _recorded(row: dict[str, Any], found: list[Event] | RemitError) -> RecordedRun:
    if isinstance(found, RemitError):
        return RecordedRun(**row, damage=found.message)
    opened, release = found[0], found[0].header.refs.get("release", "")
    if opened.type is not EventType.RUN_OPENED or release != row["release"]:
        return RecordedRun(**row, damage="its row names another release than its first event")
    return RecordedRun(**row, events=found)

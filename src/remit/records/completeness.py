"""Whether the record is complete: the changes that a system of record lists, held against the writes on record.

The changes are listed first and the record is read afterwards, so that every change that was listed has had its
decision on record before. A change that carries a call's idempotency key is known by that; any other one by object,
fields and time. One call accounts for one change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec
from msgspec.structs import replace
from sqlalchemy import select

from remit.contracts.project import Project
from remit.errors import ConfigError, RemitError
from remit.gate.context import Clients
from remit.journal.events import OUTCOMES, Event, EventType
from remit.journal.pseudonyms import PSEUDONYM
from remit.records.archive import Archive
from remit.runs.importing import IMPORTED
from remit.storage import schema
from remit.storage.database import storage_errors
from remit.tools.changes import ChangeLog, SystemChange, Trace, WrittenCall
from remit.tools.registry import closest, load_change_logs
from remit.tools.spec import Resource
from remit.values import Json

CLOCK_SKEW_US = 5 * 60 * 1_000_000
"""How far the clocks of the two systems may be apart."""
LATE_US = 3_600 * 1_000_000
"""How long after it was last heard of a call without a known outcome may still have an effect."""

_EVENT = schema.events.c
_RUNS_AT_ONCE = 400


class UnseenWrite(msgspec.Struct, frozen=True, kw_only=True):
    """A write that is on record as completed, and that the system of record does not show. `at`: microseconds, UTC."""

    at: int
    run: str
    step: str
    tool: str
    object: str
    fields: list[str]


class CompletenessReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `since`: microseconds since the epoch; `changes`, `writes`: how many were held against each other.

    `unrecorded`: changes that no call on record accounts for. `undetermined`: those that may be calls of runs that were
    erased. Values are redacted as in the record.
    """

    against: str
    account: str
    since: int
    changes: int
    writes: int
    unrecorded: list[SystemChange]
    unseen: list[UnseenWrite]
    undetermined: list[SystemChange]

    @property
    def complete(self) -> bool:
        return not self.unrecorded and not self.unseen


class _Sent(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A write that may have had an effect. `start`, `end`: when the system of record may have dated it.

    `seen_at`: when its completion was put on record; 0 where it was not.
    """

    run: str
    step: str
    tool: str
    key: str
    at: int
    seen_at: int
    start: int
    end: int
    trace: Trace


class _OnRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The writes that left a trace, and when calls of erased runs were under way, of which nothing more is known."""

    sent: list[_Sent] = []
    blind: list[tuple[int, int]] = []


class Completeness:
    """Holds the record of one tenant against its systems of record."""

    def __init__(self, archive: Archive, project: Project, clients: Clients) -> None:
        self._archive = archive
        self._project = project
        self._clients = clients

    async def compare(self, connection: str, *, since: int = 0) -> CompletenessReport:
        """Hold what a connection's system lists from `since` (microseconds) on against the record.

        That it is read is on the register before, what was found afterwards. Raises `ConfigError` where no module of
        tools lists its changes, `StorageError`, and `ToolError` where the system can't be read.
        """
        log = self._log(connection)
        account = self._project.connections[connection].user
        await self._note({"against": connection, "account": account, "since": since})
        began = self._archive.journal.clock()
        client = self._clients.get(connection, log.connect)
        listed = [change async for change in log.read_changes(client, max(0, since - CLOCK_SKEW_US))]
        record = self._on_record(log, since - CLOCK_SKEW_US - LATE_US)
        left, unseen = _matched(listed, record.sent)
        unrecorded, undetermined = _without_blind([each for each in left if each.at >= since], record.blind)
        comparison = CompletenessReport(
            against=connection,
            account=account,
            since=since,
            changes=sum(each.at >= since for each in listed),
            writes=sum(each.at >= since for each in record.sent),
            unrecorded=[self._shown(each) for each in unrecorded],
            unseen=[_unseen(each) for each in unseen if each.at >= since and 0 < each.seen_at <= began],
            undetermined=[self._shown(each) for each in undetermined],
        )
        await self._note(_summary(comparison), verdict="complete" if comparison.complete else "incomplete")
        return comparison

    def _log(self, connection: str) -> ChangeLog:
        tools = self._project.tools
        logs = load_change_logs(tools.modules, self._project.folder)
        if connection not in self._project.connections:
            known = closest(connection, list(self._project.connections))
            raise ConfigError(f"connection `{connection}` is not declared in remit.toml{known}")
        if connection not in logs:
            raise ConfigError(f"no module of tools lists the changes of `{connection}`{closest(connection, list(logs))}")
        return logs[connection]

    async def _note(self, body: Mapping[str, Json], *, verdict: str = "") -> None:
        draft = self._archive.draft(EventType.RECORD_COMPARED, None, body)
        await self._archive.register.append(replace(draft, verdict=verdict))

    def _shown(self, change: SystemChange) -> SystemChange:
        return replace(change, fields=self._archive.redactor.redact(dict(change.fields)).value)

    def _on_record(self, log: ChangeLog, since: int) -> _OnRecord:
        found = _OnRecord(sent=[], blind=[])
        of_tenant = (_EVENT.tenant == self._archive.tenant, _EVENT.type == EventType.CALL_DECIDED, _EVENT.at >= since)
        query = select(_EVENT.run).where(*of_tenant).distinct().order_by(_EVENT.run)
        with storage_errors("read the journal"), self._archive.database.engine.connect() as connection:
            runs = list(connection.execute(query).scalars())
        for start in range(0, len(runs), _RUNS_AT_ONCE):
            for read in self._archive.journal.reader.several(runs[start : start + _RUNS_AT_ONCE]).values():
                if isinstance(read, RemitError):
                    raise read
                _collect(read, log, found)
        return found


def _summary(found: CompletenessReport) -> dict[str, Json]:
    named = {"against": found.against, "account": found.account, "since": found.since}
    counted = {name: len(getattr(found, name)) for name in ("unrecorded", "unseen", "undetermined")}
    return {**named, "changes": found.changes, "writes": found.writes, **counted}


# What is on record


def _collect(events: Sequence[Event], log: ChangeLog, found: _OnRecord) -> None:
    """Add the writes of one run."""
    if any(event.type is EventType.RUN_CLOSED and event.header.verdict == IMPORTED for event in events):
        return  # nothing of it was ever sent from here
    ended = {event.header.span: event for event in events if event.type in OUTCOMES}
    for event in events:
        if event.type is not EventType.CALL_DECIDED or event.header.verdict != "allow":
            continue
        end = ended.get(event.header.span)
        if end is not None and end.type is EventType.CALL_FAILED:
            continue
        if event.body is None:
            found.blind.append(_window(event, end))
            continue
        sent = _sent(event, end, log)
        if sent is not None:
            found.sent.append(sent)


def _window(decided: Event, end: Event | None) -> tuple[int, int]:
    """When the system of record may have dated the effect of a call."""
    is_known = end is not None and end.type is EventType.CALL_COMPLETED
    last = max(decided.header.at, end.header.at if end is not None else 0)
    return decided.header.at - CLOCK_SKEW_US, last + CLOCK_SKEW_US + (0 if is_known else LATE_US)


def _sent(decided: Event, end: Event | None, log: ChangeLog) -> _Sent | None:
    """The write as it can be looked for; `None` for a tool that writes elsewhere, or a call that leaves nothing."""
    said = _original(decided)
    leaves = log.traces.get(said["tool"])
    if leaves is None:
        return None
    completed = end is not None and end.type is EventType.CALL_COMPLETED
    result = _original(end).get("result") if end is not None and completed else None
    before = Resource(**said["resource"]) if said["resource"] else None
    trace = leaves(WrittenCall(args=said["args"], result=result, before=before))
    if trace is None:
        return None
    start, last = _window(decided, end)
    return _Sent(
        run=decided.header.run,
        step=decided.header.span,
        tool=said["tool"],
        key=said["key"],
        at=decided.header.at,
        seen_at=end.header.at if end is not None and completed else 0,
        start=start,
        end=last,
        trace=trace,
    )


def _original(event: Event) -> dict[str, Any]:
    """What an event says, with the originals of what is redacted in it as far as they are left."""
    return {**cast("dict[str, Any]", event.body), **cast("dict[str, Any]", event.sealed or {})}


# What belongs together


def _matched(changes: Sequence[SystemChange], sent: Sequence[_Sent]) -> tuple[list[SystemChange], list[_Sent]]:
    """The changes that no call accounts for, and the calls of which no change is listed.

    Points in time go to intervals, the one that ends first of those that hold it: no other choice matches more.
    """
    waiting: dict[tuple[str, ...], list[_Sent]] = {}
    for each in sent:
        waiting.setdefault(_place(each.trace, each.key), []).append(each)
    left: list[SystemChange] = []
    taken: set[_Sent] = set()
    for change in sorted(changes, key=lambda change: change.at):
        fitting = [each for each in _candidates(change, waiting) if each not in taken and _fits(change, each)]
        if fitting:
            taken.add(min(fitting, key=lambda each: each.end))
        else:
            left.append(change)
    return left, [each for each in sent if each not in taken]


def _place(trace: Trace, key: str) -> tuple[str, ...]:
    return ("key", key) if trace.keyed else ("object", trace.kind, trace.object)


def _candidates(change: SystemChange, waiting: Mapping[tuple[str, ...], list[_Sent]]) -> Iterator[_Sent]:
    place = ("key", change.key) if change.key else ("object", change.kind, change.object)
    yield from waiting.get(place, ())


def _fits(change: SystemChange, sent: _Sent) -> bool:
    trace = sent.trace
    if (change.kind, change.action) != (trace.kind, trace.action) or trace.object not in ("", change.object):
        return False
    if set(change.fields) != set(trace.values) | trace.also:
        return False
    # What carries the key of a call is that call, whatever the clocks say.
    if not trace.keyed and not sent.start <= change.at <= sent.end:
        return False
    return all(_same(value, change.fields[name]) for name, value in trace.values.items())


def _same(recorded: Json, listed: Json) -> bool:
    """Whether a value is the one on record, as far as the record still says."""
    return recorded == listed or (isinstance(recorded, str) and PSEUDONYM.search(recorded) is not None)


def _without_blind(
    changes: Sequence[SystemChange], blind: Sequence[tuple[int, int]]
) -> tuple[list[SystemChange], list[SystemChange]]:
    """The changes that no call of an erased run can account for, and those that one may."""
    free = sorted(blind, key=lambda window: window[1])
    without: list[SystemChange] = []
    within: list[SystemChange] = []
    for change in changes:
        window = next((each for each in free if each[0] <= change.at <= each[1]), None)
        if window is None:
            without.append(change)
        else:
            free.remove(window)
            within.append(change)
    return without, within


def _unseen(sent: _Sent) -> UnseenWrite:
    return UnseenWrite(
        at=sent.at,
        run=sent.run,
        step=sent.step,
        tool=sent.tool,
        object=sent.trace.object,
        fields=sorted(set(sent.trace.values) | sent.trace.also),
    )

"""The changes that a tracker lists as made by Remit's own account, and what each tool's calls leave there.

The tracker's own journal says what was done to an issue, when and by whom. What links a message to an issue is known
again by the idempotency key in the message's Message-ID, a new issue by its `extkey`. Other changes carry no key: they
are known by object, fields and time. A message on no issue, which nobody is shown, is not listed, nor is a retired issue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from remit.connectors.roundup.client import CLOSED, DUPLICATE, OPEN, RoundupClient
from remit.connectors.roundup.model import HistoryEntry, Value
from remit.tools.changes import SystemChange, Trace, WrittenCall
from remit.values import Json

PROPERTIES = {"category": "category", "priority": "priority", "assignee": "assignedto"}
"""What the tools call a property → what Roundup calls it."""

# The other side of a link that was made elsewhere: the issue that names this one has an entry of its own.
_ECHOES = frozenset({"link", "unlink"})
_AT_ONCE = 8
# A tracker takes dates in the time zone of who asks; no zone is further away.
_ZONES = timedelta(hours=26)


async def read_changes(client: RoundupClient, since: int) -> AsyncIterator[SystemChange]:
    """What the client's own account changed since then, page by page. Raises ToolFailed."""
    async for page in client.active_since(_stamp(since)):
        for start in range(0, len(page), _AT_ONCE):
            some = page[start : start + _AT_ONCE]
            histories = await asyncio.gather(*(client.history(issue) for issue, _ in some))
            for (issue, extkey), history in zip(some, histories, strict=True):
                own = [
                    entry
                    for entry in history
                    if entry.author == client.username and entry.action not in _ECHOES and _micros(entry.written) >= since
                ]
                keys = await client.keys_of(sorted({number for entry in own for number in _added(entry)}))
                for entry in own:
                    yield _change(issue, entry, extkey, keys)


def _stamp(since: int) -> str:
    """A moment as a tracker takes it, early enough for every time zone."""
    earliest = datetime(1970, 1, 2, tzinfo=UTC) + _ZONES
    moment = max(earliest, datetime.fromtimestamp(since / 1_000_000, UTC)) - _ZONES
    return f"{moment:%Y-%m-%d.%H:%M:%S}"


def _micros(written: str) -> int:
    return round(datetime.fromisoformat(written).timestamp() * 1_000_000)


def _change(issue: int, entry: HistoryEntry, extkey: str, keys: Mapping[int, str]) -> SystemChange:
    added = _added(entry)
    key = extkey if entry.action == "create" else keys.get(added[0], "") if len(added) == 1 else ""
    return SystemChange(
        at=_micros(entry.written),
        by=entry.author,
        kind="Issue",
        object=str(issue),
        action=entry.action,
        fields={name: _new_value(change) for name, change in entry.changes.items()},
        key=key,
    )


def _added(entry: HistoryEntry) -> Sequence[int]:
    """The messages that an entry puts on the issue."""
    added = entry.changes.get("messages", {}).get("added")
    return added if isinstance(added, tuple) else ()


def _new_value(change: Mapping[str, Value]) -> Json:
    if "to" in change:
        return change["to"]
    signed = (("+", change.get("added")), ("-", change.get("removed")))
    return [f"{sign}{number}" for sign, numbers in signed if isinstance(numbers, tuple) for number in sorted(numbers)]


# What calls leave


def _of_update(call: WrittenCall) -> Trace | None:
    """The fields that were not as they were to be."""
    before = _attributes(call)
    changes: Mapping[str, Json] = call.args["changes"]
    values = {PROPERTIES[name]: value or None for name, value in changes.items() if before.get(name) != (value or "")}
    return _set(call, values)


def _attributes(call: WrittenCall) -> Mapping[str, str | int | bool]:
    """The issue as it was before."""
    return {} if call.before is None else call.before.attributes


def _of_note(call: WrittenCall) -> Trace:
    return Trace(kind="Issue", object=str(call.args["issue"]), action="set", also=frozenset({"messages"}), keyed=True)


def _of_closing(call: WrittenCall) -> Trace | None:
    original: int = call.args.get("duplicate_of") or 0
    return _of_status(call, CLOSED if not original else DUPLICATE, original)


def _of_opening(call: WrittenCall) -> Trace | None:
    return _of_status(call, OPEN, 0)


def _of_status(call: WrittenCall, status: str, original: int) -> Trace | None:
    before = _attributes(call)
    values: dict[str, Json] = {} if before.get("status") == status else {"status": status}
    superseded = before.get("duplicate_of") or 0
    # A plain closing leaves alone what an issue is a duplicate of.
    if status == CLOSED or superseded == original:
        return _set(call, values)
    if superseded:
        # There may be more of them than the one that is on record.
        return _set(call, values, frozenset({"superseder"}))
    return _set(call, {**values, "superseder": [f"+{original}"]})


def _of_creation(call: WrittenCall) -> Trace:
    issue = str(call.result["issue"]) if call.result else ""
    return Trace(kind="Issue", object=issue, action="create", keyed=True)


def _set(call: WrittenCall, values: Mapping[str, Json], also: frozenset[str] = frozenset()) -> Trace | None:
    if not values and not also:
        return None
    return Trace(kind="Issue", object=str(call.args["issue"]), action="set", values=values, also=also)


TRACES: Mapping[str, Callable[[WrittenCall], Trace | None]] = MappingProxyType(
    {
        "tracker.update": _of_update,
        "tracker.note": _of_note,
        "tracker.close": _of_closing,
        "tracker.reopen": _of_opening,
        "tracker.create": _of_creation,
    }
)

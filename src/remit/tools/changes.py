"""What a system of record says was changed in it by Remit's own account, and what each tool's calls leave there.

A module of tools offers that beside its tools, so that the record can be held against the system (`remit verify
--against`):

    CHANGES = ChangeLog(connection="tracker", connect=connect, read_changes=read, traces={"tracker.note": note_trace})
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from remit.tools.spec import Connection, Resource
from remit.values import Json


class SystemChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one object, as the system of record lists it.

    `at`: microseconds since the epoch by that system's clock. `by`: the account. `action`: what was done, in that
    system's words. `fields`: what was changed, with the new value, under that system's names. `key`: the idempotency
    key that the change carries, empty where it carries none.
    """

    at: int
    by: str
    kind: str
    object: str
    action: str
    fields: Mapping[str, Json]
    key: str = ""


class WrittenCall(msgspec.Struct, frozen=True, kw_only=True):
    """A write that was sent, as it stands on record. `result` is `None` where nobody saw it."""

    args: Mapping[str, Json]
    result: Json
    before: Resource | None


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """The change by which a call is known again; same terms as `SystemChange`.

    `object` is empty where the call did not know it yet. `values`: fields and what they are set to; `also`: fields that
    change as well, to whatever. `keyed`: the change carries the call's idempotency key, and is known by that.
    """

    kind: str
    object: str
    action: str
    values: Mapping[str, Json] = {}
    also: frozenset[str] = frozenset()
    keyed: bool = False


@dataclass(frozen=True, kw_only=True)
class ChangeLog:
    """How the changes in one system are listed, and known again as calls.

    `read_changes(client, since)`: every change by the connection's own account from `since` (microseconds) on, in any
    order; some that are older do no harm. `traces`: tool → what a call of it leaves, `None` where it leaves nothing.
    """

    connection: str
    connect: Callable[[Connection], Any]
    read_changes: Callable[[Any, int], AsyncIterator[SystemChange]]
    traces: Mapping[str, Callable[[WrittenCall], Trace | None]]

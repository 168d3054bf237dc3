"""What the register says of runs: that one was erased, or its originals dropped, when, by whom and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from remit.journal.events import Event, EventType

_LOSSES = (EventType.RUN_ERASED, EventType.ORIGINALS_DROPPED)


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """What was destroyed of a run: all that it said (`run.erased`), or its originals (`originals.dropped`).

    `at`: microseconds since the epoch. `by`: a principal, or `system` where the contract's terms asked for it.
    """

    type: str
    at: int
    by: str
    reason: str


def losses(register: Iterable[Event]) -> Mapping[str, Loss]:
    """The latest loss of each run that has lost something."""
    found: dict[str, Loss] = {}
    for event in register:
        run = event.header.refs.get("run")
        if run is not None and event.type in _LOSSES:
            body: dict[str, Any] = event.body or {}
            found[run] = Loss(
                type=event.header.type,
                at=event.header.at,
                by=str(body.get("by", "")),
                reason=str(body.get("reason", "")),
            )
    return found

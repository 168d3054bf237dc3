"""Runs that are opened by themselves, at the times that contracts name.

What has been opened is in the table of runs alone: each time of a schedule has its own request key, so that of any
number of workers one opens it, and a worker that comes late finds out what was missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, Unpack
from zoneinfo import ZoneInfo

from remit.contracts.model import Schedule
from remit.contracts.quantities import duration_ms
from remit.contracts.schedule import last_time
from remit.errors import RemitError
from remit.journal.journal import Clock
from remit.runs.engine import RunOptions
from remit.values import Json

_log = logging.getLogger("remit")

_LOOK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Due:
    """One time of one schedule: when, in microseconds since the epoch, and the key that it opens a run with."""

    contract: str
    number: int
    at_us: int
    key: str
    request: Json


class Opener(Protocol):
    """What opens runs for workers; the engine does."""

    async def enqueue(self, contract: str, request: Json, **opening: Unpack[RunOptions]) -> str: ...
    def run_of(self, contract: str, request_key: str) -> str | None: ...


def latest(contract: str, number: int, schedule: Schedule, now_us: int) -> Due | None:
    """The last time of a schedule that has come, if it has not been missed by more than `late`."""
    at = last_time(schedule.cron, ZoneInfo(schedule.zone), now_us)
    if now_us - at.timestamp() * 1e6 > duration_ms(schedule.late) * 1000:
        return None
    key = f"schedule {number} {schedule.cron} {at:%Y-%m-%dT%H:%MZ}"
    return Due(contract=contract, number=number, at_us=int(at.timestamp() * 1e6), key=key, request=dict(schedule.request))


class Schedules:
    """Opens what is due. `read` gives the schedules of each contract."""

    def __init__(self, opener: Opener, read: Callable[[], Mapping[str, Sequence[Schedule]]], clock: Clock) -> None:
        self._opener = opener
        self._read = read
        self._clock = clock
        self._opened: dict[tuple[str, int], str] = {}
        """The last key that each schedule has opened a run with, as far as this process knows."""
        self._said: dict[str, str] = {}

    async def keep(self, stop: asyncio.Event) -> None:
        """Open what is due until `stop` is set; trouble is said once, and it is tried again."""
        while not stop.is_set():
            await self.look()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK_S)

    async def look(self) -> list[str]:
        """Open what is due now, and return the runs."""
        opened: list[str] = []
        for contract, schedules in self._read().items():
            for number, schedule in enumerate(schedules, start=1):
                due = latest(contract, number, schedule, self._clock())
                if due is not None and self._opened.get((contract, number)) != due.key:
                    opened += await self._open(due)
        return opened

    async def _open(self, due: Due) -> list[str]:
        try:
            known = self._opener.run_of(due.contract, due.key)
            run = known or await self._opener.enqueue(due.contract, due.request, request_key=due.key)
        except RemitError as error:
            if self._said.get(due.contract) != error.message:
                self._said[due.contract] = error.message
                _log.warning("the schedule of contract %s can't open its run: %s", due.contract, error.message)
            return []
        self._said.pop(due.contract, None)
        self._opened[due.contract, due.number] = due.key
        return [] if known else [run]

"""The worker: takes runs from the queue and drives them, one beside the other, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from traceback import format_exception
from typing import Protocol

from remit.errors import RemitError, StorageError
from remit.journal.redaction import Redactor
from remit.runs.program import RunResult
from remit.runs.queue import RunQueue
from remit.runs.table import Lease

_log = logging.getLogger("remit")

_LONGEST_PAUSE_S = 5


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How a worker works: it looks every `poll_ms`, drives `at_once` runs, and leaves what isn't done `drain_s` after its
    stop.
    """

    poll_ms: int
    at_once: int
    drain_s: float


class Driver(Protocol):
    """What drives a run; the engine does."""

    redactor: Redactor

    def waiting(self) -> list[str]: ...
    def at_most(self) -> Mapping[str, int]: ...
    async def drive(self, run: str) -> RunResult: ...
    async def drive_leased(self, lease: Lease) -> RunResult: ...


class Worker:
    """Drives the runs of one queue."""

    def __init__(self, queue: RunQueue, driver: Driver) -> None:
        self._queue = queue
        self._driver = driver
        self._said: dict[str, str] = {}
        self._reach = _Reach()

    async def work(self, stop: asyncio.Event, pace: Pace) -> None:
        """Drive whatever is waiting until `stop` is set; then finish what has begun, and leave what takes too long.

        What is left goes on with another worker: its lease is given back, and its record says how far it came.
        """
        driving: dict[str, asyncio.Task[RunResult]] = {}
        # Taken by the handful, because each taking is a transaction; what is left of a handful is taken when nothing else is.
        handful = max(1, pace.at_once // 4)
        while not stop.is_set():
            free = pace.at_once - len(driving)
            taken = self._take(free) if free >= handful else []
            driving |= {lease.run: asyncio.ensure_future(self._driver.drive_leased(lease)) for lease in taken}
            pause_s = self._reach.pause_s(pace.poll_ms / 1000)
            await _wait_any([*driving.values()], stop, pause_s)
            self._note({run: driving.pop(run) for run, task in list(driving.items()) if task.done()})
        if driving:
            _, late = await asyncio.wait(driving.values(), timeout=pace.drain_s)
            for task in late:
                task.cancel()
            await asyncio.wait(driving.values())
            self._note(driving)

    async def once(self) -> AsyncGenerator[RunResult, None]:
        """Drive each run that waits now; `stuck`, with the reason, is what becomes of one that can't go on.

        Raises `StorageError` where the database can't be used at all.
        """
        for run in self._driver.waiting():
            try:
                yield await self._driver.drive(run)
            except Exception as error:
                # The edge: one run's trouble keeps no other from going on.
                if _is_out_of_reach(error):
                    raise
                yield RunResult(run=run, outcome="stuck", reason=self._reason(error))

    def _take(self, slots: int) -> list[Lease]:
        if slots <= 0:
            return []
        try:
            taken = self._queue.claim(slots, self._driver.at_most())
        except StorageError as error:
            self._reach.lost(self._driver.redactor.text(error.message))
            return []
        self._reach.found()
        return taken

    def _note(self, ended: Mapping[str, asyncio.Task[RunResult]]) -> None:
        """What has become of runs that were driven: the ones that can't go on are said once, grouped by why."""
        troubles: dict[str, list[str]] = {}
        for run, task in ended.items():
            reason = self._ending(run, task)
            if not reason:
                self._said.pop(run, None)
            elif reason != self._said.get(run):
                self._said[run] = reason
                troubles.setdefault(reason, []).append(run)
        for reason, runs in troubles.items():
            more = f" ({len(runs)} runs)" if len(runs) > 1 else ""
            _log.warning("%s can't go on%s: %s", ", ".join(runs), more, reason)

    def _ending(self, run: str, task: asyncio.Task[RunResult]) -> str:
        """Why a run can't go on; empty where nothing is wrong."""
        if task.cancelled():
            return "it was left in the middle, because its worker stopped; another one goes on with it"
        error = task.exception()
        if error is None:
            result = task.result()
            return result.reason if result.outcome == "waiting" else ""
        if _is_out_of_reach(error):
            # What lies under it is the same for all of them.
            said = self._reason(error.__cause__ or error)
            self._reach.lost(said)
            return said
        if not isinstance(error, RemitError):
            _log.error("run %s: %s", run, self._driver.redactor.text("".join(format_exception(error))))
        return self._reason(error)

    def _reason(self, error: BaseException) -> str:
        said = error.message if isinstance(error, RemitError) else f"{type(error).__name__}: {error}"
        return self._driver.redactor.text(said)


@dataclass(kw_only=True, slots=True)
class _Reach:
    """Whether the database can be reached; said when it changes."""

    failures: int = 0

    def lost(self, why: str) -> None:
        if not self.failures:
            _log.warning("can't reach the database: %s; trying again", why)
        self.failures += 1

    def found(self) -> None:
        if self.failures:
            _log.warning("the database is back")
        self.failures = 0

    def pause_s(self, usual_s: float) -> float:
        """Longer with each failure in a row."""
        return min(usual_s * 2 ** min(self.failures, 10), max(usual_s, _LONGEST_PAUSE_S))


def _is_out_of_reach(error: BaseException) -> bool:
    return isinstance(error, StorageError) and error.code == StorageError.code


async def _wait_any(tasks: list[asyncio.Task[RunResult]], stop: asyncio.Event, timeout_s: float) -> None:
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait([*tasks, stopping], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()

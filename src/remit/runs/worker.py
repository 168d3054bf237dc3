"""The worker: drives whatever waits, one run beside the other, and rests from those that can't go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from traceback import format_exception

from remit.errors import RemitError, StorageError
from remit.journal.redaction import Redactor
from remit.runs.program import RunResult
from remit.runs.table import RunTable

_log = logging.getLogger("remit")

_REST_S, _LONGEST_REST_S = 20, 600
_LONGEST_PAUSE_S = 5
_MOST_AT_A_LOOK = 500
_CLOSED = frozenset({"completed", "escalated", "denied", "failed", "unknown", "diverged", "stopped"})


@dataclass(kw_only=True, slots=True)
class _Rest:
    """A run that was driven and is not closed: how often in a row, and from when on it is tried again."""

    times: int = 0
    until_s: float = 0
    said: str = ""


class Worker:
    """Drives the runs of one table. `drive` is the engine's."""

    def __init__(self, table: RunTable, drive: Callable[[str], Awaitable[RunResult]], redactor: Redactor) -> None:
        self._table = table
        self._drive = drive
        self._redactor = redactor
        self._rests: dict[str, _Rest] = {}
        self._reach = _Reach()

    async def work(self, stop: asyncio.Event, *, poll_ms: int, at_once: int) -> None:
        """Drive whatever is waiting until `stop` is set; then finish what has begun."""
        driving: dict[str, asyncio.Task[RunResult]] = {}
        while not stop.is_set():
            self._begin(driving, at_once)
            await _wait_any([*driving.values()], stop, self._reach.pause_s(poll_ms / 1000))
            ended = [run for run, task in driving.items() if task.done()]
            self._note({run: driving.pop(run) for run in ended})
        if driving:
            await asyncio.wait(driving.values())
            self._note(driving)

    async def once(self) -> AsyncGenerator[RunResult, None]:
        """Drive each run that waits now; `stuck`, with the reason, is what becomes of one that can't go on.

        Raises `StorageError` where the database can't be used at all.
        """
        for run in self._table.waiting():
            try:
                yield await self._drive(run)
            except Exception as error:
                # The edge: one run's trouble keeps no other from going on.
                if _is_out_of_reach(error):
                    raise
                yield RunResult(run=run, outcome="stuck", reason=self._reason(error))

    def _begin(self, driving: dict[str, asyncio.Task[RunResult]], at_once: int) -> None:
        if len(driving) >= at_once:
            return
        try:
            waiting = self._table.waiting(_MOST_AT_A_LOOK)
        except StorageError as error:
            self._reach.lost(self._redactor.text(error.message))
            return
        self._reach.found()
        still = {*waiting, *driving}
        self._rests = {run: rest for run, rest in self._rests.items() if run in still}
        now = asyncio.get_running_loop().time()
        for run in waiting:
            rest = self._rests.get(run)
            if len(driving) < at_once and run not in driving and (rest is None or rest.until_s <= now):
                driving[run] = asyncio.ensure_future(self._drive(run))

    def _note(self, ended: dict[str, asyncio.Task[RunResult]]) -> None:
        """What has become of runs that were driven: the ones that can't go on are said once, grouped by why."""
        troubles: dict[str, list[str]] = {}
        for run, task in ended.items():
            reason, briefly = self._ending(run, task)
            if reason is None:
                self._rests.pop(run, None)
                continue
            rest = self._rests.setdefault(run, _Rest())
            rest.times += 1
            rest.until_s = asyncio.get_running_loop().time() + _rest_s(rest.times, briefly=briefly)
            if reason and reason != rest.said:
                troubles.setdefault(reason, []).append(run)
            rest.said = reason
        for reason, runs in troubles.items():
            more = f" ({len(runs)} runs)" if len(runs) > 1 else ""
            _log.warning("%s can't go on%s: %s", ", ".join(runs), more, reason)

    def _ending(self, run: str, task: asyncio.Task[RunResult]) -> tuple[str | None, bool]:
        """Why a run is not closed (`None` where it is, empty where nothing is wrong), and whether that soon changes."""
        if task.cancelled():
            return "it was cancelled", False
        error = task.exception()
        if error is None:
            result = task.result()
            if result.outcome in _CLOSED:
                return None, False
            return result.reason if result.outcome == "waiting" else "", result.outcome == "held"
        if _is_out_of_reach(error):
            # What lies under it is the same for all of them.
            return self._reason(error.__cause__ or error), True
        if not isinstance(error, RemitError):
            _log.error("run %s: %s", run, self._redactor.text("".join(format_exception(error))))
        return self._reason(error), False

    def _reason(self, error: BaseException) -> str:
        said = error.message if isinstance(error, RemitError) else f"{type(error).__name__}: {error}"
        return self._redactor.text(said)


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


def _rest_s(times: int, *, briefly: bool) -> float:
    """Who answers a held run's question at once isn't kept waiting; one that comes back without end is."""
    if briefly:
        return min(_LONGEST_REST_S, 2.0 ** (times - 2)) if times > 1 else 0
    return min(_LONGEST_REST_S, _REST_S * 2.0 ** (times - 1))


def _is_out_of_reach(error: BaseException) -> bool:
    return isinstance(error, StorageError) and error.code == StorageError.code


async def _wait_any(tasks: list[asyncio.Task[RunResult]], stop: asyncio.Event, timeout_s: float) -> None:
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait([*tasks, stopping], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()

"""Live traces: runs that ended in this process, and what was done to ended ones here, sent in the background.

No run waits for it, and nothing that goes wrong here reaches one. What does not arrive is kept and tried again; what is
left when the process ends is said once, with the command that sends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import msgspec

from remit.errors import RemitError
from remit.export.exporting import first_of_undone
from remit.export.otlp import Encoder, Sender
from remit.export.traces import trace_at_closing, trace_of_afterwards
from remit.journal.leaves import LeafReader

_log = logging.getLogger("remit")

_MOST = 10_000
"""How many runs are kept for a receiver that is away."""
_GRACE_S = 5.0
"""How long the end of the process waits for it."""
_FIRST_REST_S, _LONGEST_REST_S = 1.0, 60.0
_NAMED = 5


class _Due(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be sent: a run as a whole, or event `n` of a chain, its own or the register, that came afterwards."""

    run: str
    chain: str = ""
    n: int = 0


class LiveTraces:
    """Sends each run that it is told of to one receiver. `announce` puts on record, once, that runs leave this way."""

    def __init__(
        self,
        *,
        leaves: LeafReader,
        encoder: Encoder,
        sender: Sender,
        announce: Callable[[str], Awaitable[None]],
        grace_s: float = _GRACE_S,
    ) -> None:
        self._leaves = leaves
        self._encoder = encoder
        self._sender = sender
        self._announce = announce
        self._grace_s = grace_s
        self._waiting: deque[_Due] = deque()
        self._lost = 0
        self._said = ""
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        # Its own, so that reading a long run holds up nothing else.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="remit-traces")

    def closed(self, run: str) -> None:
        """A run has ended: send it soon."""
        self._add(_Due(run=run))

    def afterwards(self, chain: str, n: int, run: str) -> None:
        """Something was done to a run that may have ended: event `n` of `chain`, its own or the register."""
        self._add(_Due(run=run, chain=chain, n=n))

    def _add(self, due: _Due) -> None:
        self._waiting.append(due)
        if len(self._waiting) > _MOST:
            self._waiting.popleft()
            self._lost += 1
        if self._task is None and not self._closing.is_set():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Send what is left, for a short while, and say what could not be sent."""
        self._closing.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._grace_s):
                if self._task is not None:
                    await self._task
                await self._send_all()
        if self._waiting or self._lost:
            self._say_what_is_left()
        await self._sender.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        rest_s = _FIRST_REST_S
        while self._waiting and not self._closing.is_set():
            if await self._send_all():
                rest_s = _FIRST_REST_S
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), rest_s)
            rest_s = min(rest_s * 2, _LONGEST_REST_S)
        self._task = None

    async def _send_all(self) -> bool:
        """Send the runs that wait, the oldest first; false where one could not be sent, which then waits on."""
        while self._waiting:
            due = self._waiting[0]
            try:
                await self._announce(self._sender.url)
                for request in await asyncio.get_running_loop().run_in_executor(self._thread, self._requests, due):
                    await self._sender.send(request)
            except Exception as error:  # noqa: BLE001 - the edge: whatever is wrong with a copy, the run has ended well
                self._note(error)
                return False
            # A long queue may have dropped it meanwhile.
            if self._waiting and self._waiting[0] is due:
                self._waiting.popleft()
            if self._said:
                _log.warning("runs are sent to `%s` again", self._sender.url)
            self._said = ""
        return True

    def _requests(self, due: _Due) -> list[bytes]:
        leaves = self._leaves.run(due.run)
        if due.chain:
            spans = trace_of_afterwards(leaves, self._leaves.event(due.chain, due.n))
        else:
            spans = trace_at_closing(leaves, first_of_undone(self._leaves, leaves))
        return list(self._encoder.requests(spans))

    def _note(self, error: Exception) -> None:
        said = error.message if isinstance(error, RemitError) else f"{type(error).__name__}: {error}"
        # A process that is about to end says it all at once.
        if said != self._said and not self._closing.is_set():
            _log.warning("runs are not sent to `%s` now: %s; it is tried again", self._sender.url, said)
        self._said = said

    def _say_what_is_left(self) -> None:
        runs = [*dict.fromkeys(due.run for due in self._waiting)]
        named = ", ".join(runs[:_NAMED]) + (", …" if len(runs) > _NAMED else "")
        why = self._said or "there was no time left"
        _log.warning(
            "%d finished runs were not sent to `%s` (%s): %s; send each with `remit export --format otlp --to %s --run RUN`",
            len(runs) + self._lost,
            self._sender.url,
            named,
            why,
            self._sender.url,
        )

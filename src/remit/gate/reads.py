"""How reads are made fast: kept while they are fresh, asked for once at a time, and asked for twice where one is slow.

Only pure reads, and only as their tools declare. What one principal was told is never another's, nor what it was told
for one person another person's. A write to a system forgets what was read from it, and so does one that is under way:
an answer that may be from before it is not kept.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

from remit.gate.call import Call, RunState
from remit.tools.spec import Tool
from remit.values import Json, decode, encode

CACHED, SECOND = "cache", "second request"
"""Where an answer came from, beside the first request."""

_MOST = 10_000
"""How many answers are kept; the oldest go first."""

_Key = tuple[str, int, str, str | None, str, str | None, bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a read gave, and where that came from; empty for the first request."""

    result: Json
    source: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept:
    result: bytes
    until_s: float


class Reads:
    """The answers of one process. `clock`: seconds, as `time.monotonic` counts them."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._kept: dict[_Key, _Kept] = {}
        self._asked: dict[_Key, asyncio.Future[Answer]] = {}
        self._changes: defaultdict[tuple[str, str], int] = defaultdict(int)
        """How often a system was written to, by tenant and service; a part of the key of what was read from it."""

    async def answer(self, call: Call, run: RunState, read: Callable[[], Awaitable[Json]]) -> Answer:
        """The answer of a pure read. Raises what `read` raises."""
        tool = call.tool
        assert tool is not None
        if not tool.spec.fresh_ms:
            return await _hedged(tool, read)
        key = self._key(call, run)
        kept = self._kept.get(key)
        if kept is not None and self._clock() < kept.until_s:
            return Answer(result=decode(kept.result), source=CACHED)
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = asyncio.ensure_future(self._ask(key, tool, read))
            asked.add_done_callback(lambda _: self._asked.pop(key, None))
            return await asyncio.shield(asked)
        found = await asyncio.shield(asked)
        return Answer(result=decode(encode(found.result)), source=CACHED)

    async def _ask(self, key: _Key, tool: Tool, read: Callable[[], Awaitable[Json]]) -> Answer:
        asked_s = self._clock()
        answer = await _hedged(tool, read)
        # Fresh from when it was asked for: it may have been told at any time since.
        self._kept.pop(key, None)
        self._kept[key] = _Kept(result=encode(answer.result), until_s=asked_s + tool.spec.fresh_ms / 1000)
        while len(self._kept) > _MOST:
            del self._kept[next(iter(self._kept))]
        return answer

    def forget(self, tool: Tool, tenant: str) -> None:
        """A write of `tool` begins or has ended: nobody is told any more what was asked of its service until now."""
        self._changes[tenant, _service(tool.spec.name)] += 1

    def _key(self, call: Call, run: RunState) -> _Key:
        assert call.tool is not None
        name, authority = call.tool.spec.name, run.authority
        version = call.resource.version if call.resource else None
        changes = self._changes[authority.tenant, _service(name)]
        return (authority.tenant, changes, authority.principal, run.on_behalf_of, name, version, encode(call.args))


def _service(tool: str) -> str:
    """`orders` of `orders.read`: what its reads and writes are about."""
    return tool.partition(".")[0]


async def _hedged(tool: Tool, read: Callable[[], Awaitable[Json]]) -> Answer:
    """The first answer that comes, of a second request as well where the first takes longer than `hedge_ms`."""
    if not tool.spec.hedge_ms:
        return Answer(result=await read())
    first = asyncio.ensure_future(read())
    second: asyncio.Future[Json] | None = None
    try:
        done, _ = await asyncio.wait({first}, timeout=tool.spec.hedge_ms / 1000)
        if done:
            return Answer(result=first.result())
        second = asyncio.ensure_future(read())
        waiting = {first, second}
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for request in done:
                if not request.cancelled() and request.exception() is None:
                    return Answer(result=request.result(), source=SECOND if request is second else "")
        return Answer(result=first.result())
    finally:
        for request in (first, second):
            if request is not None and not request.done():
                request.cancel()

"""Plain functions as tools: each call runs in a worker thread, and is over only when the thread is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from threading import Lock
from typing import Any

from remit.errors import ToolFailed


def in_thread(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """The function as a coroutine that ends when the function has: a thread that has begun can't be stopped.

    Cancelled before a thread was free, it raises `ToolFailed`: it certainly did not happen. Cancelled later it goes on,
    and says in the end what the function did; how long to wait for that is the caller's to decide.
    """

    async def call(*arguments: Any, **named: Any) -> Any:
        # Taken once: by the thread when it begins, or by whoever gives up before that.
        turn = Lock()

        def begin() -> Any:
            return function(*arguments, **named) if turn.acquire(blocking=False) else None

        thread = asyncio.ensure_future(asyncio.to_thread(begin))
        while True:
            try:
                return await asyncio.shield(thread)
            except asyncio.CancelledError:
                if thread.cancelled():
                    raise
                if turn.acquire(blocking=False):
                    thread.cancel()
                    raise ToolFailed("no thread was free in time", code="busy", retryable=True) from None

    return call

"""Keeps code that runs again from reaching out by itself: connections, processes, and files that it would write.

A guard against accidents, by CPython's audit hooks (PEP 578): a workflow asks its run for everything, and one that does
not would do it again in each replay. It is no sandbox: whoever writes a workflow runs on this machine anyway.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC
_REFUSED = frozenset(
    {
        "socket.connect",
        "socket.getaddrinfo",
        "socket.sendto",
        "subprocess.Popen",
        "os.system",
        "os.posix_spawn",
        "os.exec",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.mkdir",
        "os.truncate",
        "sqlite3.connect",
    }
)

_reached: ContextVar[list[str] | None] = ContextVar("remit_reached", default=None)
_watching: list[bool] = []


class ReachedOut(BaseException):
    """Code that runs again tried to reach something by itself. Not an `Exception`: it must not be caught and go on."""


@contextmanager
def kept_in() -> Generator[list[str]]:
    """Within it nothing is reached from this task and its children; what was tried stands in the list."""
    if not _watching:
        # An audit hook can't be taken away again; outside of `kept_in` it does nothing.
        sys.addaudithook(_audit)
        _watching.append(True)
    reached: list[str] = []
    token = _reached.set(reached)
    try:
        yield reached
    finally:
        _reached.reset(token)


@contextmanager
def let_out() -> Generator[None]:
    """Within it things are reached as ever; for a gate that code which is kept in has called."""
    token = _reached.set(None)
    try:
        yield
    finally:
        _reached.reset(token)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    reached = _reached.get()
    if reached is None:
        return
    if event in _REFUSED or (event == "open" and _is_written(args)):
        what = f"`{event}`" if event != "open" else f"`open` of `{args[0]}`"
        reached.append(what)
        raise ReachedOut(what)


def _is_written(args: tuple[Any, ...]) -> bool:
    path, _, flags = args
    return bool(int(flags or 0) & _WRITES) and "__pycache__" not in str(path)

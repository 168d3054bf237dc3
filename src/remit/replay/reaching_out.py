"""Keeps code that runs again from reaching out by itself: connections, processes, and files that it would write.

A guard against accidents, by CPython's audit hooks (PEP 578): a workflow asks its run for everything, and one that does
not would do it again in each replay. It is no sandbox: whoever writes a workflow runs on this machine anyway. What it
can't see is listed in docs/replay.md.

Tasks are told apart by their context, which `asyncio` hands on. A thread begins with an empty one, so while code is kept
in, every thread is kept in as well whose context does not say that a gate has started it: all but the main one, those in
which an event loop runs, and Remit's own.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from enum import Enum
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary, WeakSet

P = ParamSpec("P")
T = TypeVar("T")

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC
_REFUSED = frozenset(
    {
        "os.chflags",
        "os.chmod",
        "os.chown",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.kill",
        "os.killpg",
        "os.link",
        "os.mkdir",
        "os.posix_spawn",
        "os.remove",
        "os.removexattr",
        "os.rename",
        "os.rmdir",
        "os.setxattr",
        "os.spawn",
        "os.startfile",
        "os.symlink",
        "os.system",
        "os.truncate",
        "os.utime",
        "pty.spawn",
        "signal.pthread_kill",
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyaddr",
        "socket.gethostbyname",
        "socket.getnameinfo",
        "socket.sendmsg",
        "socket.sendto",
        "socket.sethostname",
        "sqlite3.connect",
        "subprocess.Popen",
        "syslog.syslog",
    }
)
_OWN = "remit-"
"""What the threads are called that Remit itself starts: they write its record, or carry the context of who uses them."""


class _Out(Enum):
    """The context of what a gate does, on behalf of code that is kept in."""

    OUT = "out"


_reached: ContextVar[list[str] | _Out | None] = ContextVar("remit_reached", default=None)
_kept: list[list[str]] = []
"""A list for each `kept_in` that is under way now."""
_let: list[_Out] = []
"""One for each `let_out` that is under way now: what it does in threads can't always be told from the code's."""
_lets = [0]
"""How many there have been."""
_started: WeakKeyDictionary[threading.Thread, list[str]] = WeakKeyDictionary()
"""Threads that such code has left behind: they stay kept in."""
_carrying: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
_installed: list[Callable[..., Any]] = []


class ReachedOut(BaseException):
    """Code that runs again tried to reach something by itself. Not an `Exception`: it must not be caught and go on."""


@contextmanager
def kept_in() -> Generator[list[str]]:
    """Within it nothing is reached from this task, its children and threads; what was tried stands in the list."""
    _install()
    reached: list[str] = []
    token = _reached.set(reached)
    before, lets = frozenset(threading.enumerate()), _lets[0]
    _kept.append(reached)
    try:
        yield reached
    finally:
        # By identity: two that have tried nothing are equal.
        _kept[:] = [each for each in _kept if each is not reached]
        _reached.reset(token)
        if lets == _lets[0]:
            # What is left of threads is the code's, for no gate was at work that could have started them.
            left = (each for each in threading.enumerate() if each not in before and not each.name.startswith(_OWN))
            _started.update(dict.fromkeys(left, reached))


@contextmanager
def let_out() -> Generator[None]:
    """Within it things are reached as ever; for a gate that code which is kept in has called."""
    token = _reached.set(_Out.OUT)
    _let.append(_Out.OUT)
    _lets[0] += 1
    try:
        yield
    finally:
        _let.pop()
        _reached.reset(token)


class _CarryingExecutor(ThreadPoolExecutor):
    """Runs what it is given in the context of whoever gives it, as `asyncio.to_thread` does."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return super().submit(copy_context().run, fn, *args, **kwargs)


def _install() -> None:
    if not _installed:
        # An audit hook can't be taken away again; outside of `kept_in` it does nothing.
        sys.addaudithook(_audit)
        _installed.append(_audit)
    if threading.excepthook is not _excepthook:
        _installed.append(threading.excepthook)
        threading.excepthook = _excepthook
    loop = asyncio.get_running_loop()
    if loop not in _carrying:
        loop.set_default_executor(_CarryingExecutor(thread_name_prefix=f"{_OWN}asyncio"))
        _carrying.add(loop)


def _excepthook(args: threading.ExceptHookArgs, /) -> None:
    """A thread that was kept from reaching out is no news: the replay says so."""
    if not issubclass(args.exc_type, ReachedOut):
        _installed[-1](args)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event in _REFUSED or (event == "open" and _is_written(args)):
        lists = _lists()
        if lists:
            what = f"`{event}`" if event != "open" else f"`open` of `{args[0]}`"
            for reached in lists:
                reached.append(what)
            raise ReachedOut(what)


def _lists() -> list[list[str]]:
    """Whose code does what is done now; empty where nobody keeps it in."""
    reached = _reached.get()
    if isinstance(reached, list):
        return [reached]
    if reached is _Out.OUT or not (_kept or _started):
        return []
    thread = threading.current_thread()
    started = _started.get(thread)
    if started is not None:
        # It may be idle since an earlier replay, and be used by the present one.
        return [started, *(each for each in _kept if each is not started)]
    if _let or thread is threading.main_thread() or thread.name.startswith(_OWN) or _runs_a_loop():
        return []
    return list(_kept)


def _runs_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _is_written(args: tuple[Any, ...]) -> bool:
    path, _, flags = args
    return bool(int(flags or 0) & _WRITES) and "__pycache__" not in str(path)

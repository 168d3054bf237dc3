"""What a process of its own does in the tests of crashes: drive a run until it is killed, or on from where it was.

Processes come from a fork server that has imported everything, so that one costs little more than opening the project.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import update

from remit import Remit
from remit.journal.journal import system_clock
from remit.storage import schema

POINTS = ("before_intent", "after_intent", "before_effect", "after_effect", "before_outcome", "after_outcome")
LATER_US = 60_000_000
"""A process that runs so much later finds every lease of the one before it over: the leases are moved, not the clock
that they last by, which is the database's."""


def let_pass(remit: Remit, us: int) -> None:
    """Move every lease so far into the past."""
    moved = update(schema.runs).values(lease_until=schema.runs.c.lease_until - us)
    with remit.database.engine.begin() as connection:
        connection.execute(moved)


def killed_at(point: str, occurrence: int) -> Callable[[str], None]:
    seen = 0

    def crash(here: str) -> None:
        nonlocal seen
        if here == point:
            seen += 1
            if seen == occurrence:
                os.kill(os.getpid(), signal.SIGKILL)

    return crash


def drive(folder: Path, contract: str, requests: Mapping[str, Any], crash: tuple[str, int], later_us: int) -> None:
    """Open the run of each key, or take it up, and drive it; killed the nth time that a crash point is reached."""

    async def main() -> None:
        clock = lambda: system_clock() + later_us  # noqa: E731
        async with Remit(folder, clock=clock, crash_point=killed_at(*crash)) as remit:
            let_pass(remit, later_us)
            for key, request in requests.items():
                await remit.run(contract, request, request_key=key)

    asyncio.run(main())


def _surrounded(surroundings: Mapping[str, str], function: Callable[..., None], *args: Any) -> None:
    os.environ.clear()
    os.environ.update(surroundings)
    function(*args)


def in_a_process(
    folder: Path, contract: str, requests: Mapping[str, Any], *, crash: tuple[str, int] = ("", 0), later_us: int = 0
) -> int | None:
    """`drive` in a fresh process; its exit code, which is `-SIGKILL` where it was killed."""
    return apart(drive, folder, contract, dict(requests), crash, later_us)


def apart(function: Callable[..., None], *args: Any) -> int | None:
    """Call a function of a module in a fresh process; its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["crashing", "remit.app", "remit.policy.decision", "remit.storage.migrate"])
    # The server's environment is that of the first test that needed it.
    surroundings = dict(os.environ)
    process = context.Process(target=_surrounded, args=(surroundings, function, *args))
    process.start()
    process.join(60)
    return process.exitcode

"""`remit worker` and `remit serve`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from remit.cli.options import spread
from remit.terminal import ProjectOption, line, print_lines, reporting, say, with_remit

if TYPE_CHECKING:
    import asyncio

    from remit.app import Remit


@dataclass(frozen=True, kw_only=True)
class Working:
    """How a worker works."""

    at_once: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many runs it drives at once.")] = 8
    drain: Annotated[
        int, typer.Option(metavar="SECONDS", min=0, help="How long it finishes what it has begun when it is stopped.")
    ] = 30


@spread
def worker(
    *,
    once: Annotated[bool, typer.Option("--once", help="Drive what is waiting now, then stop.")] = False,
    working: Working,
    project: ProjectOption = None,
) -> None:
    """Drive runs that wait for a worker.

    Submitted ones, approved and answered ones, those whose time has come, and those that a dead worker left. It also opens
    what contracts schedule, and once a day destroys what they keep no longer (`remit retention`). Any number of workers
    may share a database. SIGTERM stops it once what it has begun is done; what takes longer than --drain is left to the
    others, and nothing of it is lost.
    """

    async def use(remit: Remit) -> int:
        if once:
            await remit.schedules.look()
            stuck = await _drive_waiting(remit)
            await _enforce_retention(remit)
            return stuck
        say(("working; stop with Ctrl-C", "dim"))
        await _work(remit, stopped_by_signal(), working)
        return 0

    stuck = with_remit(project, use)
    if stuck:
        text = f"{stuck} run{'' if stuck == 1 else 's'} can't go on; `remit runs --outcome stuck` lists them with why"
        print_lines([line(text)], stderr=True)
        raise typer.Exit(3)


@spread
def serve(
    *,
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen.")] = "127.0.0.1:8780",
    working: Working,
    project: ProjectOption = None,
) -> None:
    """Work, and serve checkpoint and tree over HTTP.

    All that a project needs, in one process: a worker with its schedules, and what `remit publish` serves. /health
    answers 200 while the record can be read and written. More workers can run beside it.
    """

    async def use(remit: Remit) -> None:
        from remit.cli.checkpoints import serving

        stop = stopped_by_signal()
        async with serving(remit, listen):
            say(f"working, and serving http://{listen}/checkpoint", (" · stop with Ctrl-C", "dim"))
            await _work(remit, stop, working)

    with_remit(project, use)


def stopped_by_signal() -> asyncio.Event:
    """Set once somebody asks this process to stop."""
    import asyncio
    import signal

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _work(remit: Remit, stop: asyncio.Event, working: Working) -> None:
    import asyncio

    await asyncio.gather(
        remit.engine.work(stop, at_once=working.at_once, drain_s=working.drain),
        remit.schedules.keep(stop),
        remit.retention.daily(stop),
    )


async def _enforce_retention(remit: Remit) -> None:
    """What a worker does once a day, where each look of it is a process of its own."""
    report = await remit.retention.enforce()
    with reporting("what was destroyed is on the register"):
        for done, runs in (("erased", report.erased), ("originals dropped", report.dropped)):
            print_lines([line((run.run, "bold"), f" {done}") for run in runs])
    if report.left:
        print_lines([line(report.left)], stderr=True)


async def _drive_waiting(remit: Remit) -> int:
    """Drive each run that waits and say what became of it; how many can't go on."""
    from remit.cli.run_list import result_lines

    outcomes: list[str] = []
    async for result in remit.engine.drive_waiting():
        outcomes.append(result.outcome)
        with reporting(f"{result.run} is {result.outcome}"):
            print_lines(result_lines(result))
    if not outcomes:
        say(("no run waits for a worker", "dim"))
    return outcomes.count("stuck")

"""The demo from end to end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remit.app import Remit
from remit.demo.display import Display
from remit.demo.model import use_model
from remit.demo.next_steps import after_triage, demo_again
from remit.demo.record import all_events, mismatches
from remit.demo.redteam import ATTACKS, Tried, red_team
from remit.demo.stage import Stage, example_folder, make_project, raised
from remit.demo.summary import Acts, as_json, summarise
from remit.demo.tickets import Filed, file_tickets, read_tickets
from remit.demo.triage import CONTRACT, answer_cases, triage
from remit.terminal import print_json


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for. `columns`: pairs such as `title=Summary`."""

    folder: Path
    json: bool
    keep: bool
    model: str | None
    tickets: Path | None
    columns: tuple[str, ...]


def run_demo(options: Options) -> int:
    """Run the demo; 0 if every attack was stopped, and tracker and journal agree, else 1. Raises `RemitError`."""
    if options.tickets is not None:
        from remit.demo.export import run_export

        return run_export(options)
    with suppress(KeyboardInterrupt):
        return asyncio.run(_demo(options))
    return 130


async def _demo(options: Options) -> int:
    display = Display()
    make_project(options.folder, example_folder("it-tickets"))
    if options.model is not None:
        use_model(options.folder, options.model)
    async with AsyncExitStack() as services:
        with display.step("starting the tracker (Roundup) and the directory, each in its own process"):
            stage = await services.enter_async_context(raised(options.folder, keep=options.keep))
        acts = await _acts(stage, options, display)
    display.closing(acts)
    display.next_steps(after_triage(acts.triaged, options.folder, live=options.keep))
    if options.keep:
        display.say(f"tracker and directory are still running ({stage.tracker.url}); to stop them:")
        display.command(stage.stop_command)
    else:
        display.say("tracker and directory are stopped; approving needs them running:")
        display.command(demo_again(options.folder))
    if options.json:
        print_json(as_json(acts))
    return 0 if acts.ok else 1


async def _acts(stage: Stage, options: Options, display: Display) -> Acts:
    tickets = read_tickets(options.folder)
    async with Remit(options.folder) as remit:
        with display.step("loading the contract and training the classifier on the bundled history"):
            await asyncio.to_thread(remit.program, CONTRACT)
        display.model(remit)
        with display.progress("filing tickets as customers would", len(tickets)) as advance:
            filed = await file_tickets(stage.intake, tickets, advance)
        started = time.monotonic()
        with display.triage(len(filed)) as show:
            triaged = await triage(remit, filed, show)
        seconds = time.monotonic() - started
        with display.step("Lee, the IT lead, answers most of what is held"):
            answered = await answer_cases(remit, triaged)
        display.answered(triaged, answered)
        triaged = answered
        summary = summarise(triaged, all_events(remit), seconds)
        display.summary(summary)
        tried, unchanged = await _second_act(remit, stage, filed, display)
        with display.step("comparing every issue in the tracker with the journal"):
            differences = await mismatches(remit, stage.watcher, filed)
    return Acts(triaged=triaged, summary=summary, tried=tried, differences=differences, unchanged=unchanged)


async def _second_act(
    remit: Remit, stage: Stage, filed: Sequence[Filed], display: Display
) -> tuple[list[Tried], bool]:
    """The red team, with the tracker and the directory compared before and after."""
    before = await _picture(stage)
    with display.progress("a hostile planner with the contract's own valid token", len(ATTACKS)) as advance:
        tried = await red_team(remit, filed, lambda _: advance())
    unchanged = await _picture(stage) == before
    display.attacks(tried, unchanged)
    return tried, unchanged


async def _picture(stage: Stage) -> tuple[Any, bytes]:
    state = stage.folder / ".remit" / "directory.json"
    return await stage.watcher.snapshot(), state.read_bytes() if state.exists() else b""

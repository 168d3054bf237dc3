"""The demo from end to end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remit.app import Remit
from remit.cli.terminal import print_json
from remit.demo.display import Display
from remit.demo.model import use_model
from remit.demo.record import all_events, mismatches
from remit.demo.redteam import ATTACKS, Tried, red_team
from remit.demo.stage import Stage, example_folder, make_project, raised
from remit.demo.summary import Summary, as_json, summarise
from remit.demo.tickets import Filed, file_tickets, read_tickets
from remit.demo.triage import CONTRACT, Triaged, answer_cases, triage


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for. `columns`: pairs such as `title=Summary`."""

    folder: Path
    json: bool
    keep: bool
    model: str | None
    tickets: Path | None
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Acts:
    """What came of both acts."""

    triaged: Sequence[Triaged]
    summary: Summary
    tried: Sequence[Tried]
    differences: Sequence[str]
    unchanged: bool


def run_demo(options: Options) -> int:
    """Run the demo; 0 if every attack was stopped and the record is true, else 1. Raises `RemitError`."""
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
    with display.step("starting the tracker (Roundup) and the directory service, each its own process"):
        stage = raised(options.folder, keep=options.keep)
        on_stage = await stage.__aenter__()
    try:
        acts = await _acts(on_stage, options, display)
    finally:
        await stage.__aexit__(None, None, None)
    ok = display.closing(acts.summary, acts.tried, acts.differences, options.folder, acts.unchanged)
    if options.keep:
        pids = f"{on_stage.tracker.pid} {(options.folder / '.remit' / 'directory.pid').read_text().strip()}"
        display.say(f"the tracker goes on at {on_stage.tracker.url}; stop it and the directory with `kill {pids}`")
    else:
        display.say("tracker and directory are stopped; `--keep` leaves them running, so that approvals can be carried out")
    if options.json:
        print_json(as_json(acts.summary, acts.tried, len(acts.differences)))
    return 0 if ok else 1


async def _acts(stage: Stage, options: Options, display: Display) -> Acts:
    tickets = read_tickets(options.folder)
    async with Remit(options.folder) as remit:
        with display.step("loading the contract, and training the classifier on the bundled history"):
            await asyncio.to_thread(remit.program, CONTRACT)
        display.model(remit)
        with display.progress("filing tickets as customers would", len(tickets)) as advance:
            filed = await file_tickets(stage.intake, tickets, advance)
        started = time.monotonic()
        with display.triage(len(filed)) as show:
            triaged = await triage(remit, filed, show)
        seconds = time.monotonic() - started
        with display.step("Lee, who is it-lead, answers most of what is held; the runs go on by themselves"):
            triaged = await answer_cases(remit, triaged, lambda _: None)
        summary = summarise(triaged, all_events(remit), seconds)
        display.summary(summary)
        tried, unchanged = await _second_act(remit, stage, filed, display)
        with display.step("comparing every issue of the tracker with what the journal says was written"):
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



"""How long it takes to show the last 50 runs: read and checked, every call and decision made into a line, and printed."""

from __future__ import annotations

import asyncio
import io
import time
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.workload import durable
from remit import Remit
from remit.cli.replay_table import report_lines
from remit.replay.recorded import Choice
from remit.terminal import print_lines

RUNS, CALLS, ROUNDS = 50, 8, 7


def replay(project: Path) -> dict[str, float]:
    """Medians in seconds; a run of the workload has as many calls as one of the demo. Adds the runs to the project first."""
    return asyncio.run(_replay(project))


async def _replay(project: Path) -> dict[str, float]:
    async with Remit(project) as remit, durable(remit, RUNS, seed=77_000) as callers:
        for caller in callers:
            for _ in range(CALLS):
                await caller.call()
    async with Remit(project) as remit:
        read, shown, events = [], [], 0
        for _ in range(ROUNDS):
            began = time.perf_counter()
            found = remit.replays.read(Choice(last=RUNS))
            read.append(time.perf_counter() - began)
            events = sum(len(each.events) for each in found)
            began = time.perf_counter()
            report: Any = await remit.replays.replay(Choice(last=RUNS), 0)
            with redirect_stdout(io.StringIO()):
                print_lines(report_lines(report))
            shown.append(time.perf_counter() - began)
    return {"runs": RUNS, "events": events, "read_s": median(read), "shown_s": median(shown)}

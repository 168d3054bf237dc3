"""The measurements. Each returns plain figures; times in milliseconds unless the name says otherwise."""

from __future__ import annotations

import asyncio
import cProfile
import gc
import os
import pstats
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.workload import CALLS_PER_RUN, Caller, durable, undurable
from remit import Remit

WARM_UP = 3


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Of the times of single calls, in milliseconds."""

    p50_ms: float
    p95_ms: float
    cpu_ms: float
    """Processor time of this process per call, all threads."""


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def _each(callers: Sequence[Caller]) -> Spread:
    """Every call by itself; a run after the other."""
    for _ in range(WARM_UP):
        await callers[0].call()
    took: list[float] = []
    cpu = time.process_time()
    for caller in callers:
        for _ in range(CALLS_PER_RUN):
            began = time.perf_counter()
            await caller.call()
            took.append(time.perf_counter() - began)
    used = time.process_time() - cpu
    return Spread(p50_ms=median(took) * 1000, p95_ms=percentile(took, 0.95) * 1000, cpu_ms=used / len(took) * 1000)


async def without_disk(project: Path, calls: int) -> Spread:
    async with Remit(project) as remit, undurable(remit, max(1, calls // CALLS_PER_RUN)) as callers:
        return await _each(callers)


async def one_at_a_time(project: Path, calls: int) -> Spread:
    async with Remit(project) as remit, durable(remit, max(1, calls // CALLS_PER_RUN)) as callers:
        return await _each(callers)


async def concurrent(project: Path, at_once: int, rounds: int) -> list[dict[str, float]]:
    """`at_once` runs, each with one call in flight at any time; every round has fresh runs."""
    made: list[dict[str, float]] = []
    async with Remit(project) as remit:
        for number in range(rounds):
            async with durable(remit, at_once, seed=1000 * number) as callers:
                await asyncio.gather(*(caller.call() for caller in callers))
                cpu, began = time.process_time(), time.perf_counter()
                await asyncio.gather(*(_calls(caller) for caller in callers))
                took, used = time.perf_counter() - began, time.process_time() - cpu
            calls = at_once * CALLS_PER_RUN
            made.append({"calls_per_s": calls / took, "cpu_ms_per_call": used / calls * 1000})
    return made


async def _calls(caller: Caller) -> None:
    for _ in range(CALLS_PER_RUN):
        await caller.call()


async def memory(project: Path, calls: int) -> dict[str, float]:
    """Peak of one call over what was allocated before it, and what a call leaves behind in its run; in KiB."""
    async with Remit(project) as remit, undurable(remit, max(1, calls // CALLS_PER_RUN)) as callers:
        for _ in range(WARM_UP):
            await callers[0].call()
        gc.collect()
        tracemalloc.start()
        peaks: list[float] = []
        start = tracemalloc.get_traced_memory()[0]
        for caller in callers:
            for _ in range(CALLS_PER_RUN):
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                await caller.call()
                peaks.append(tracemalloc.get_traced_memory()[1] - before)
        gc.collect()
        kept = (tracemalloc.get_traced_memory()[0] - start) / len(peaks)
        tracemalloc.stop()
    return {"peak_kib": median(peaks) / 1024, "kept_kib": kept / 1024}


async def profile(project: Path, at_once: int) -> list[dict[str, Any]]:
    """The fifteen functions in which concurrent durable calls spend most of their own time (the profiler's own cost included)."""
    profiler = cProfile.Profile()
    async with Remit(project) as remit, durable(remit, at_once) as callers:
        await asyncio.gather(*(caller.call() for caller in callers))
        profiler.enable()
        await asyncio.gather(*(_calls(caller) for caller in callers))
        profiler.disable()
    calls = at_once * CALLS_PER_RUN
    stats: dict[Any, Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    found = [
        {
            "where": _place(*place),
            "calls": round(count / calls, 1),
            "own_us": own / calls * 1e6,
            "total_us": total / calls * 1e6,
        }
        for place, (_, count, own, total, _) in stats.items()
    ]
    return sorted(found, key=lambda row: -float(row["own_us"]))[:15]


def _place(file: str, line: int, name: str) -> str:
    if file == "~":
        return name
    parts = Path(file).parts
    return f"{'/'.join(parts[-2:])}:{line} {name}"


def start_up(rounds: int = 7) -> dict[str, float]:
    """`remit --help` in a fresh process, beside a Python that does nothing; medians in seconds."""
    program = "import sys; sys.argv = ['remit', '--help']; from remit.cli.main import main; main()"
    return {"command_line_s": _process(program, rounds), "bare_python_s": _process("pass", rounds)}


def _process(program: str, rounds: int) -> float:
    took: list[float] = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, env=environment)
        took.append(time.perf_counter() - began)
    return median(took)

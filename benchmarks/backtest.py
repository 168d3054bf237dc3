"""How fast the past is judged anew: `python -m benchmarks.backtest`.

Runs of the usual call are recorded, and then decided again under a policy in which one rule of those about them is another one, so that
no recorded answer can stand for a new one. The processor's time is what counts on a machine that does something else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.workload import CALLS_PER_RUN, Arguments, make_project, request
from remit import Remit
from remit.backtest.judging import judge
from remit.backtest.proposals import at_hand, with_policy

POLICIES = 100
AT_ONCE = 64


async def record(project: Path, decisions: int) -> None:
    """Closed runs of twenty calls each, recorded as any other."""
    async with Remit(project) as remit:
        for first in range(0, decisions // CALLS_PER_RUN, AT_ONCE):
            last = min(first + AT_ONCE, decisions // CALLS_PER_RUN)
            await asyncio.gather(*(_run(remit, number) for number in range(first, last)))


async def _run(remit: Remit, number: int) -> None:
    arguments = Arguments(number)
    async with remit.gate("desk").run(request(number)) as run:
        for _ in range(CALLS_PER_RUN):
            await run.propose("desk.update", arguments.next())


def judged(project: Path) -> dict[str, Any]:
    """One backtest: its counts, and what it took."""

    async def use() -> dict[str, Any]:
        async with Remit(project) as remit:
            base = at_hand(remit, "desk")
            other = base.policy_text.replace('"blocked-0"', '"blocked-other"')
            terms = with_policy(base, other)
            cpu, began = time.process_time(), time.perf_counter()
            result = judge(remit, terms)
            return {
                "decisions": result.decisions,
                "same": result.as_json()["same"],
                "seconds": time.perf_counter() - began,
                "processor_s": time.process_time() - cpu,
                "most_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }

    return asyncio.run(use())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backtest", description=__doc__)
    parser.add_argument("--decisions", type=int, default=10_000, help="how many are recorded and judged (default 10000)")
    parser.add_argument("--dir", type=Path, help="where the record is written (default: the temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="remit-bench-") as folder:
        project = make_project(Path(folder) / "p", policies=POLICIES)
        print(f"recording {options.decisions:,} decisions", file=sys.stderr, flush=True)
        asyncio.run(record(project, options.decisions))
        # In a process of its own, so that the memory is the backtest's.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            found = fresh.submit(judged, project).result()
    print(json.dumps({"machine": machine.facts(), **found}))


if __name__ == "__main__":
    main()

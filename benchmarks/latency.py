"""What each measure against waiting gains, alone and together, on one workload whose services take simulated times.

A run thinks (a model, 300 ms), reads a customer, an order and a stock level (100 ms each; every eighth read hangs for
800 ms), reads the customer once more, and writes (20 ms). `python -m benchmarks.latency` prints medians and 95th
percentiles, and whether the runs replay to the same answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from benchmarks.measure import percentile
from benchmarks.workload import PROJECT
from remit import Remit
from remit.replay.recorded import Choice

MEASURES = ("gather", "prefetch", "cache", "hedge")
VARIANTS: tuple[tuple[str, ...], ...] = ((), ("gather",), ("cache",), ("prefetch", "cache"), ("hedge",), MEASURES)
"""A read that is begun ahead needs to be kept, so that `prefetch` stands beside `cache`."""
_TOOLS = '''
import asyncio
from itertools import count

from remit import Effect, Idempotency, tool

READS = count(1)
ON_READS = {options}


async def answer(number):
    await asyncio.sleep(0.8 if next(READS) % 8 == 0 else 0.1)
    return number


@tool("desk.think", effects={{Effect.READ}})
async def think(number: int) -> int:
    """As long as a model thinks."""
    await asyncio.sleep(0.3)
    return number


@tool("customers.read", effects={{Effect.READ}}, **ON_READS)
async def customer(number: int) -> int:
    """Read a customer."""
    return await answer(number)


@tool("orders.read", effects={{Effect.READ}}, **ON_READS)
async def order(number: int) -> int:
    """Read an order."""
    return await answer(number)


@tool("stock.read", effects={{Effect.READ}}, **ON_READS)
async def stock(number: int) -> int:
    """Read a stock level."""
    return await answer(number)


@tool("desk.put", effects={{Effect.WRITE}}, idempotency=Idempotency.KEYED)
async def put(number: int) -> int:
    """Write."""
    await asyncio.sleep(0.02)
    return number
'''
_READS = ("customers.read", "orders.read", "stock.read")
_CALLS = [f'run.call("{name}", number=number)' for name in _READS]
_ALONE = "\n    ".join(f"await {call}" for call in _CALLS)
_TOGETHER = f"await run.gather({', '.join(_CALLS)})"
_WORKFLOW = """
async def quick(run, request):
    number = request["number"]
    await run.call("desk.think", number=number)
    {reads}
    await run.call("customers.read", number=number)
    return {{"done": await run.call("desk.put", number=number)}}
"""


def make_project(folder: Path, measures: Collection[str]) -> Path:
    """The workload with some of the measures on."""
    options = {"fresh_ms": 60_000 if "cache" in measures else 0, "hedge_ms": 180 if "hedge" in measures else 0}
    (folder / "tools").mkdir(parents=True)
    (folder / "tools" / "desk.py").write_text(_TOOLS.format(options=options))
    (folder / "remit.toml").write_text(PROJECT.format(database="sqlite:remit.db"))
    home = folder / "contracts" / "quick"
    home.mkdir(parents=True)
    contract: dict[str, Any] = {
        "contract": "quick",
        "owner": {"team": "desk", "contact": "desk@bench.example"},
        "purpose": "be measured",
        "style": "workflow",
        "input": "request.json",
        "output": "output.json",
        "actions": [
            *({"tool": name} for name in ("desk.think", *_READS)),
            {"tool": "desk.put", "limits": {"per_run": 1}},
        ],
        "budget": {"calls": 20, "writes": 1},
        "escalate": {"to": "queue:desk", "sla": "1h"},
        "success": {"metric": "done"},
        "slo": {"success": "99%"},
    }
    if "prefetch" in measures:
        contract["prefetch"] = [{"tool": name, "args": {"number": "request.number"}} for name in _READS]
    request = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
    (home / "contract.yaml").write_text(json.dumps(contract))
    (home / "policy.cedar").write_text("")
    (home / "request.json").write_text(json.dumps(request))
    (home / "output.json").write_text('{"type": "object"}')
    (home / "workflow.py").write_text(_WORKFLOW.format(reads=_TOGETHER if "gather" in measures else _ALONE))
    return folder


async def measure(project: Path, runs: int) -> dict[str, float]:
    """Runs one after the other: how long each took, in milliseconds, and the share that replays to the same answers."""
    took: list[float] = []
    async with Remit(project) as remit:
        remit.program("quick")
        for number in range(runs):
            began = time.perf_counter()
            result = await remit.run("quick", {"number": number})
            took.append((time.perf_counter() - began) * 1000)
            assert result.output == {"done": number}
        report = await remit.replays.replay(Choice(last=runs), 1)
    identical = sum(one.result == "identical" for one in report.runs)
    return {"p50_ms": percentile(took, 0.5), "p95_ms": percentile(took, 0.95), "identical": identical / runs}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--runs", type=int, default=24, help="runs for each variant (default 24)")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        for number, measures in enumerate(VARIANTS):
            name = " + ".join(measures) or "none of them"
            project = make_project(Path(folder) / str(number), measures)
            found[name] = asyncio.run(measure(project, options.runs))
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'':<40}{'p50':>9}{'p95':>9}  replayed the same")
    for name, one in found.items():
        print(f"{name:<40}{one['p50_ms']:>6.0f} ms{one['p95_ms']:>6.0f} ms  {one['identical']:.0%}")


if __name__ == "__main__":
    main()

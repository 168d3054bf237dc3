"""Run every measurement in one go and print a table; `--json` prints one object on one line instead."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine, measure, record, report
from benchmarks.postgres import NoServer, database, server
from benchmarks.replay import replay
from benchmarks.workload import make_project

POLICIES = (10, 100, 1000)
AT_ONCE = 64


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument(
        "--dir", type=Path, help="measure on the disk that holds this folder (default: the temporary one)"
    )
    parser.add_argument("--calls", type=int, default=400, help="calls for each figure of single calls (default 400)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds of concurrent calls; the median counts (default 3)"
    )
    parser.add_argument("--events", type=int, default=100_000, help="how far the record grows (default 100000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="remit-bench-") as folder:
        # A server that is started for this may belong to another user and must get at its own folder.
        Path(folder).chmod(0o755)
        found = run(Path(folder), options)
    print(json.dumps(found) if options.json else report.table(found))


def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All figures. See `report.table` for what they mean."""
    found: dict[str, Any] = {"machine": machine.facts()}
    say("the disk")
    sync = machine.fdatasync(folder, options.calls)
    found["fdatasync"] = {"growing_ms": sync.growing_ms, "preallocated_ms": sync.preallocated_ms}
    projects = {n: make_project(folder / f"p{n}", policies=n) for n in POLICIES}
    found["without_disk"] = {}
    for policies, project in projects.items():
        say(f"the gate without the disk, {policies} policies")
        found["without_disk"][str(policies)] = vars(asyncio.run(measure.without_disk(project, options.calls)))
    found["sqlite"] = _database(projects[100], options, "SQLite")
    found["postgres"] = _postgres(folder, options)
    say("memory")
    found["memory"] = asyncio.run(measure.memory(projects[100], min(options.calls, 200)))
    say("the profile")
    found["profile"] = asyncio.run(measure.profile(projects[100], AT_ONCE))
    say("the last 50 runs")
    found["replay"] = replay(make_project(folder / "replay", policies=10))
    found["record"] = record.measured(folder / "record", rounds=options.rounds, events=options.events)
    say("the command line")
    found["start"] = measure.start_up()
    found["reach"] = report.reach(found)
    return found


def _database(project: Path, options: argparse.Namespace, name: str) -> dict[str, Any]:
    say(f"durable calls on {name}")
    # Disks change their pace, so the floor is measured anew right beside what stands on it.
    sync = machine.fdatasync(project, options.calls)
    alone = vars(asyncio.run(measure.one_at_a_time(project, options.calls)))
    rounds = asyncio.run(measure.concurrent(project, AT_ONCE, options.rounds))
    return {
        "fdatasync_ms": sync.growing_ms,
        "one_at_a_time": alone,
        "concurrent": report.middle(rounds),
        "rounds": rounds,
    }


def _postgres(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    try:
        with server(folder) as url, database(url) as own:
            return _database(make_project(folder / "pg", policies=100, database=own), options, "Postgres")
    except NoServer as missing:
        say(f"skipped: {missing}")
        return {"skipped": str(missing)}


def say(what: str) -> None:
    print(f"measuring {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

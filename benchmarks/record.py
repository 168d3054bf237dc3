"""What it costs to keep the record, part by part, and whether that stays so as it grows: `python -m benchmarks.record`.

Events go through the product's journal to SQLite and to Postgres, by 64 writers at once and by one alone, each commit
on disk before it is acknowledged; beside them stands what the disk alone takes to write the same bytes as often. Then
one record grows, and the cost of an event is taken at 10,000 events and at every tenfold up to `--events`. It is
verified at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import func, select

from benchmarks import machine
from benchmarks.postgres import NoServer, database, server
from benchmarks.record_workload import EVENTS_PER_RUN, VARIANTS, WHOLE, Parts, Pipeline, RunWriter, pipeline
from benchmarks.report import reach_table, record_reach, record_table
from remit.storage import schema

AT_ONCE = 64
ALONE_EVENTS = 12 * EVENTS_PER_RUN
FIRST = 10_000
_WINDOW = 4_096
_SQLITE = "sqlite:record.db"


def measured(folder: Path, *, rounds: int, events: int) -> dict[str, Any]:
    """Everything on both databases, as far as there is a server. See `report.record_table` for what it means."""
    folder.mkdir(exist_ok=True)
    # The server of a benchmark may belong to another user and must get at its own folder.
    folder.chmod(0o755)
    found: dict[str, Any] = {"sqlite": _on(folder / "sqlite", lambda: _SQLITE, rounds, events)}
    try:
        with server(folder) as url:
            found["postgres"] = _on_postgres(folder / "postgres", url, rounds, events)
    except NoServer as missing:
        say(f"skipped: {missing}")
        found["postgres"] = {"skipped": str(missing)}
    return found


def _on_postgres(folder: Path, url: str, rounds: int, events: int) -> dict[str, Any]:
    """Each variant has a database of its own, which is gone when it is measured."""
    with ExitStack() as stack:
        return _on(folder, lambda: stack.enter_context(database(url)), rounds, events)


def _on(folder: Path, new_url: Callable[[], str], rounds: int, events: int) -> dict[str, Any]:
    name = folder.name
    variants: dict[str, Any] = {}
    for number, (variant, parts) in enumerate(VARIANTS.items()):
        say(f"appends on {name}, {variant}")
        variants[variant] = asyncio.run(_appends(folder / str(number), new_url(), parts, rounds))
    say(f"a growing record on {name}, up to {events:,} events")
    growth = asyncio.run(_growth(folder / "growing", new_url(), events))
    return {"variants": variants, **growth}


async def _appends(folder: Path, url: str, parts: Parts, rounds: int) -> dict[str, Any]:
    """`AT_ONCE` writers, then one alone; medians of rounds, each of whole runs."""
    async with pipeline(folder, url, parts) as into:
        writers = [RunWriter(into, seed) for seed in range(AT_ONCE)]
        await _write(writers, EVENTS_PER_RUN)
        many = [await _timed(writers, EVENTS_PER_RUN) for _ in range(rounds)]
        alone = [await _timed(writers[:1], ALONE_EVENTS // rounds) for _ in range(rounds)]
        size = _bytes_per_event(into)
    # The floor is taken while the disk is in the same mood.
    return {
        "bytes": size,
        "at_once": _middle(many) | {"floor_per_s": _floor(folder, size, AT_ONCE)},
        "alone": _middle(alone) | {"floor_per_s": _floor(folder, size, 1)},
    }


async def _write(writers: Sequence[RunWriter], each: int) -> None:
    await asyncio.gather(*(writer.events(each) for writer in writers))


async def _timed(writers: Sequence[RunWriter], each: int) -> dict[str, float]:
    cpu, began = time.process_time(), time.perf_counter()
    await _write(writers, each)
    took, used = time.perf_counter() - began, time.process_time() - cpu
    count = each * len(writers)
    return {"per_s": count / took, "wall_us": took / count * 1e6, "cpu_us": used / count * 1e6}


def _middle(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: median(each[name] for each in rounds) for name in rounds[0]}


def _bytes_per_event(into: Pipeline) -> int:
    """What an event's columns take, without the database's own."""
    event = schema.events.c
    columns = (event.tenant, event.run, event.type, event.hash, event.header, event.body, event.sealed)
    size = sum((func.coalesce(func.length(column), 0) for column in columns), start=16)
    with into.record.database.engine.connect() as connection:
        return int(connection.execute(select(func.avg(size))).scalar_one())


def _floor(folder: Path, size: int, together: int) -> float:
    """Events a second that the disk takes where so many are appended to a file and synced together."""
    block, sync = os.urandom(size * together), getattr(os, "fdatasync", os.fsync)
    took: list[float] = []
    with tempfile.NamedTemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(200):
            began = time.perf_counter()
            file.write(block)
            sync(file.fileno())
            took.append(time.perf_counter() - began)
    return together / median(took)


# One record that grows.


async def _growth(folder: Path, url: str, events: int) -> dict[str, Any]:
    steps: list[dict[str, float]] = []
    async with pipeline(folder, url, WHOLE) as into:
        writers = [RunWriter(into, seed) for seed in range(AT_ONCE)]
        written, wanted = 0, FIRST
        while wanted <= events:
            written += await _fill(into, writers, wanted - written)
            step, more = await _step(into, writers)
            steps.append({"events": written, **step})
            written, wanted = written + more, wanted * 10
        await _end_runs(writers)
        await into.sequencer.integrate(publish=True)
        source = str(into.record.database.path) if into.record.database.is_sqlite else url
    return {"growth": steps, "verified": _verified(source, into.keys)}


def _verified(source: str, keys: Path) -> dict[str, float]:
    """By the verifier's own command: its processes load what the program loads that starts them."""
    say("verifying it")
    command = [sys.executable, "-m", "remit_verify", source, "--keys", str(keys), "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"the benchmark's record does not verify: {done.stdout}{done.stderr}")
    report = json.loads(done.stdout)
    return {**{name: report[name] for name in ("events", "seconds", "processes")}, "per_s": report["events"] / report["seconds"]}


async def _fill(into: Pipeline, writers: Sequence[RunWriter], count: int) -> int:
    each = max(0, -(-count // len(writers)))
    await _write(writers, each)
    await into.sequencer.integrate()
    return each * len(writers)


async def _step(into: Pipeline, writers: Sequence[RunWriter]) -> tuple[dict[str, float], int]:
    """What an event costs now: to append it, to bring it into the tree, and both; medians of three windows."""
    into.journal.on_written = lambda: None
    rounds: list[dict[str, float]] = []
    each = _WINDOW // len(writers)
    for _ in range(3):
        cpu, began = time.process_time(), time.perf_counter()
        await _write(writers, each)
        appended = time.perf_counter()
        await into.sequencer.integrate()
        done, used = time.perf_counter(), time.process_time() - cpu
        rounds.append(
            {
                "append_us": (appended - began) / _WINDOW * 1e6,
                "integrate_us": (done - appended) / _WINDOW * 1e6,
                "wall_us": (done - began) / _WINDOW * 1e6,
                "cpu_us": used / _WINDOW * 1e6,
            }
        )
    alone = await _timed(writers[:1], EVENTS_PER_RUN)
    into.journal.on_written = into.sequencer.noted
    into.sequencer.noted()
    counted = 3 * each * len(writers) + EVENTS_PER_RUN
    return {**_middle(rounds), "alone_us": alone["wall_us"], "memory_mib": machine.resident_mib()}, counted


async def _end_runs(writers: Sequence[RunWriter]) -> None:
    """No run stays open, so that all are verified to their end."""
    await asyncio.gather(*(writer.end() for writer in writers))


def say(what: str) -> None:
    print(f"measuring {what}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument("--dir", type=Path, help="measure on the disk that holds this folder (default: the temporary one)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each variant; the median counts (default 3)")
    parser.add_argument("--events", type=int, default=100_000, help="how far the record grows (default 100000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="remit-bench-") as folder:
        # A server that is started for this may belong to another user and must get at its own folder.
        Path(folder).chmod(0o755)
        record = measured(Path(folder), rounds=options.rounds, events=options.events)
    goals = record_reach(record)
    if options.json:
        print(json.dumps({"machine": machine.facts(), "record": record, "reach": goals}))
    else:
        print("\n".join([*record_table(record), "\nreach", *reach_table(goals)]))


if __name__ == "__main__":
    main()

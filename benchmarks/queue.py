"""What it costs to run: short runs through workers, beside what the queue alone does, and beside DBOS as a bare queue.

`python -m benchmarks.queue` takes some minutes; `--runs` and `--held` make it shorter or longer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select, update

from benchmarks import machine
from benchmarks.postgres import NoServer, database, server
from benchmarks.workload import PROJECT
from remit import Remit
from remit.runs.queue import RunQueue
from remit.storage import schema

AT_ONCE = 16
_WORKER = "from remit.cli.main import main; main()"
_TOOLS = '''
from remit import Effect, Idempotency, tool

@tool("desk.put", effects={Effect.WRITE}, idempotency=Idempotency.KEYED)
async def put(number: int) -> int:
    """Put a number."""
    return number
'''
_CONTRACT: dict[str, Any] = {
    "owner": {"team": "desk", "contact": "desk@bench.example"},
    "purpose": "be measured",
    "style": "workflow",
    "input": "any.json",
    "output": "any.json",
    "actions": [{"tool": "desk.put", "limits": {"per_run": 1000}}],
    "budget": {"calls": 1000, "writes": 1000, "time": "1h"},
    "escalate": {"to": "queue:desk", "sla": "1h"},
    "success": {"metric": "done"},
    "slo": {"success": "99%"},
}
_WORKFLOWS = {
    "short": 'return {"done": await run.call("desk.put", number=request["number"])}',
    "steps": 'return {"last": [await run.now() for _ in range(request["number"])][-1]}',
    "long": """for number in range(499):
        await run.call("desk.put", number=number)
    await run.sleep("1h")
    return {}""",
    "held": 'return {"said": await run.ask("go on?", of="role:lead", within="30d")}',
}


def make_project(folder: Path, url: str) -> Path:
    """A project with one small contract for each measurement."""
    (folder / "tools").mkdir(parents=True)
    (folder / "tools" / "desk.py").write_text(_TOOLS)
    (folder / "remit.toml").write_text(PROJECT.format(database=url))
    for name, body in _WORKFLOWS.items():
        home = folder / "contracts" / name
        home.mkdir(parents=True)
        (home / "contract.yaml").write_text(json.dumps({"contract": name, **_CONTRACT}))
        (home / "policy.cedar").write_text("")
        (home / "any.json").write_text('{"type": "object"}')
        (home / "workflow.py").write_text(f"async def {name}(run, request):\n    {body}\n")
    return folder


async def enqueued(remit: Remit, contract: str, count: int) -> list[str]:
    return list(await asyncio.gather(*(remit.engine.enqueue(contract, {"number": n}) for n in range(count))))


def left(remit: Remit, *, but: tuple[str, ...] = ("closed",)) -> int:
    with remit.database.engine.connect() as connection:
        query = select(func.count()).select_from(schema.runs).where(schema.runs.c.status.not_in(but))
        return connection.execute(query).scalar_one()


async def until(is_true: Callable[[], bool], pause_s: float) -> None:
    """Wait for what the database tells."""
    while not is_true():  # noqa: ASYNC110 - other processes bring it about
        await asyncio.sleep(pause_s)


@contextmanager
def workers(project: Path, count: int) -> Generator[list[subprocess.Popen[bytes]]]:
    """Worker processes, which end with the block."""
    arguments = [sys.executable, "-c", _WORKER, "worker", "--project", str(project), "--at-once", str(AT_ONCE)]
    started = [subprocess.Popen(arguments, stderr=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield started
    finally:
        for worker in started:
            worker.send_signal(signal.SIGTERM)
        for worker in started:
            worker.wait()


async def short_runs(project: Path, count: int, processes: int) -> dict[str, float]:
    """Runs with one write, from the queue to their end. `processes`: workers, or none for one in this process."""
    async with Remit(project) as remit:
        began = time.perf_counter()
        await enqueued(remit, "short", count)
        opened_s = time.perf_counter() - began
        began = time.perf_counter()
        if processes:
            with workers(project, processes):
                # What a worker takes to start is not what is measured: it counts from the first run's end.
                await until(lambda: left(remit) != count, 0.002)
                first, began = left(remit), time.perf_counter()
                await until(lambda: not left(remit), 0.01)
                done, took = first, time.perf_counter() - began
        else:
            stop = asyncio.Event()
            working = asyncio.ensure_future(remit.engine.work(stop, at_once=AT_ONCE))
            await until(lambda: not left(remit), 0.01)
            done, took = count, time.perf_counter() - began
            stop.set()
            await working
    return {"opened_per_s": count / opened_s, "runs_per_s": done / took}


def bare_queue(project: Path, count: int) -> float:
    """The queue alone: rows of runs, claimed and closed, with nothing of a run in between. Runs per second."""

    async def measure() -> float:
        async with Remit(project) as remit:
            rows = [_row(number) for number in range(count)]
            with remit.database.engine.begin() as connection:
                connection.execute(insert(schema.runs), rows)
            queue = RunQueue(remit.database, tenant="bench", clock=remit.clock, opener="nobody")
            began = time.perf_counter()
            while leases := queue.claim(AT_ONCE, {}):
                for lease in leases:
                    with remit.database.engine.begin() as connection:
                        closing = update(schema.runs).where(schema.runs.c.run == lease.run)
                        connection.execute(closing.values(status="closed", worker=None, lease_until=None))
            return count / (time.perf_counter() - began)

    return asyncio.run(measure())


def _row(number: int) -> dict[str, Any]:
    return {
        "run": f"run-{uuid.uuid4().hex[:16]}",
        "tenant": "bench",
        "contract": "short",
        "release": "none",
        "principal": "agent/bench/short",
        "status": "ready",
        "request_key": str(number),
        "opened_at": number,
        "updated_at": number,
    }


_DBOS = """
import sys, time, uuid
from dbos import DBOS, DBOSClient
url, count, at_once, role = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if role == "enqueue":
    DBOS(config={"name": "bare", "system_database_url": url, "application_version": "1", "log_level": "ERROR"})
    DBOS.launch()
    DBOS.register_queue("runs", worker_concurrency=at_once, polling_interval_sec=0.05)
    DBOS.destroy()
    client = DBOSClient(system_database_url=url)
    for number in range(count):
        client.enqueue({"queue_name": "runs", "workflow_name": "nothing", "app_version": "1"}, str(number))
    sys.exit()
DBOS(config={"name": "bare", "system_database_url": url, "application_version": "1", "executor_id": uuid.uuid4().hex, "log_level": "ERROR"})
@DBOS.workflow(name="nothing")
async def nothing(run):
    return run
DBOS.launch()
client = DBOSClient(system_database_url=url)
while not client.list_workflows(status=["SUCCESS"], limit=1, load_output=False):
    time.sleep(0.002)
done = len(client.list_workflows(status=["SUCCESS"], load_output=False))
began = time.perf_counter()
while client.list_queued_workflows(queue_name="runs", limit=1, load_input=False):
    time.sleep(0.01)
print((count - done) / (time.perf_counter() - began))
DBOS.destroy()
"""


def dbos_queue(url: str, count: int, processes: int) -> float:
    """DBOS as a bare queue: workflows that do nothing. Workflows per second."""
    arguments = [sys.executable, "-c", _DBOS, url, str(count), str(AT_ONCE)]
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    subprocess.run([*arguments, "enqueue"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=quiet)
    drive = [*arguments, "drive"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen(drive, env=quiet, text=True, **pipes) for _ in range(processes)]  # type: ignore[call-overload]
    return float(max(float(worker.communicate()[0].split()[-1]) for worker in started))


async def per_step(project: Path, steps: int) -> dict[str, float]:
    """A step of a run beside the durable write that it makes: what the runtime adds, in milliseconds."""
    async with Remit(project) as remit:
        began = time.perf_counter()
        await remit.run("steps", {"number": steps})
        run_ms = (time.perf_counter() - began) * 1000
        log, _ = remit.journal.reopen((await enqueued(remit, "steps", 1))[0])
        draft = remit.journal.reader.events((await remit.run("steps", {"number": 2})).run)[1]
        from remit.journal.events import Draft, EventType

        again = Draft(type=EventType.VALUE_RECORDED, actor=draft.header.actor, span="1", body=draft.body)
        began = time.perf_counter()
        for _ in range(steps):
            await remit.journal.append(log, again)
        write_ms = (time.perf_counter() - began) * 1000
    return {"step_ms": run_ms / steps, "write_ms": write_ms / steps, "overhead_ms": (run_ms - write_ms) / steps}


async def resume(project: Path) -> dict[str, float]:
    """Take up a run of about a thousand events, and go through its record to where it goes on."""
    async with Remit(project) as remit:
        run = (await remit.run("long", {})).run
        events = len(remit.journal.reader.events(run))
    async with Remit(project, clock=lambda: remit.clock() + 2 * 3_600_000_000) as later:
        later.program("long")
        began = time.perf_counter()
        ended = await later.engine.drive(run)
        took = time.perf_counter() - began
    assert ended.outcome == "completed"
    return {"events": events, "resume_ms": took * 1000}


async def held_runs(project: Path, count: int) -> dict[str, float]:
    """A worker beside many held runs: its memory, and how soon one that is decided ends."""
    async with Remit(project) as remit:
        found: dict[str, float] = {}
        with workers(project, 1) as (worker,):
            await asyncio.sleep(3)
            found["idle_mb"] = _rss_mb(worker.pid)
            runs = await enqueued(remit, "held", count)
            await until(lambda: not left(remit, but=("held", "closed")), 0.05)
        with workers(project, 1) as (worker,):
            await asyncio.sleep(3)
            found["beside_held_mb"] = _rss_mb(worker.pid)
            took: list[float] = []
            for run in runs[:: max(1, count // 20)][:20]:
                [case] = remit.cases.list("bench", run=run)
                began = time.perf_counter()
                await remit.cases.answer(case.case, "yes", token=remit.person_token("lee"))
                await until(lambda run=run: remit.engine.is_closed(run), 0.002)
                took.append(time.perf_counter() - began)
            found["decided_to_ended_s"] = sorted(took)[len(took) // 2]
            found["slowest_s"] = max(took)
    return {"held": count, **found}


def _rss_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue", description=__doc__)
    parser.add_argument("--runs", type=int, default=600, help="runs for each figure (default 600)")
    parser.add_argument("--held", type=int, default=2000, help="held runs at once (default 2000; the issue's is 10000)")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        Path(folder).chmod(0o755)
        found = run(Path(folder), options)
    print(json.dumps(found) if options.json else "\n".join(_lines(found)))


def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    sync = machine.fdatasync(folder, 200)
    found: dict[str, Any] = {"machine": machine.facts(), "fdatasync_ms": sync.growing_ms}
    one = make_project(folder / "sqlite", "sqlite:remit.db")
    found["sqlite"] = {
        "bare queue": {"1": bare_queue(make_project(folder / "bare", "sqlite:remit.db"), options.runs)},
        "dbos": {"1": dbos_queue(f"sqlite:///{folder}/dbos.sqlite", options.runs, 1)},
        "runs": {"in one process": asyncio.run(short_runs(one, options.runs, 0))},
    }
    found["per step"] = asyncio.run(per_step(one, 300))
    found["resume"] = asyncio.run(resume(one))
    found["held"] = asyncio.run(held_runs(make_project(folder / "held", "sqlite:remit.db"), options.held))
    try:
        with server(folder) as url:
            found["postgres"] = _postgres(folder, url, options.runs)
    except NoServer as error:
        found["postgres"] = {"missing": str(error)}
    return found


def _postgres(folder: Path, url: str, runs: int) -> dict[str, Any]:
    found: dict[str, Any] = {"bare queue": {}, "dbos": {}, "runs": {}}
    with database(url) as one:
        found["bare queue"]["1"] = bare_queue(make_project(folder / "pg-bare", one), runs)
    for processes in (1, 2, 4):
        with database(url) as one:
            found["dbos"][str(processes)] = dbos_queue(one, runs, processes)
        with database(url) as one:
            project = make_project(folder / f"pg-{processes}", one)
            found["runs"][str(processes)] = asyncio.run(short_runs(project, runs, processes))
    return found


def _lines(found: dict[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in found.items():
        if isinstance(value, dict):
            yield f"{indent}{name}"
            yield from _lines(value, indent + "  ")  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield f"{indent}{name:<24}{value:,.2f}" if isinstance(value, float) else f"{indent}{name:<24}{value}"


if __name__ == "__main__":
    main()

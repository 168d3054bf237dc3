"""Workers that are killed, stopped and started at random, and a database that goes away, while runs write to a tracker."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from remit.runs.table import LEASE_US

WORKERS = 3
_PAUSE_S = 1.5
"""Between two faults."""
_STOPPED_S = LEASE_US / 1e6 + 3
"""Longer than a lease lasts: whoever is stopped so long comes back to runs that are somebody else's."""
_START = "from remit.cli.main import main; main()"


class Chaos:
    """The workers of one project, and what is done to them. `hurt_database`: takes it away for a moment."""

    def __init__(self, project: Path, log: Path, hurt_database: Callable[[], None], seed: int) -> None:
        self._project = project
        self._log = log
        self._hurt_database = hurt_database
        self._random = random.Random(seed)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._stopped: dict[int, float] = {}
        self.faults: Counter[str] = Counter()

    def start(self) -> None:
        """As many workers as there ought to be."""
        self._workers = [worker for worker in self._workers if worker.poll() is None]
        while len(self._workers) < WORKERS:
            arguments = [sys.executable, "-c", _START, "worker", "--project", str(self._project), "--at-once", "8"]
            with self._log.open("ab") as log:
                self._workers.append(subprocess.Popen(arguments, stdout=log, stderr=log, env=os.environ))

    async def until(self, is_done: Callable[[], bool], *, at_most_s: float) -> None:
        """One fault after the other until all is done; from half of the time on none, so that it can end."""
        begun = time.monotonic()
        self.start()
        while not await asyncio.to_thread(is_done):
            passed = time.monotonic() - begun
            if passed > at_most_s:
                raise TimeoutError(f"not done after {passed:.0f} s; faults: {dict(self.faults)}")
            if passed < at_most_s / 2:
                await asyncio.to_thread(self._fault)
            self._continue()
            self.start()
            await asyncio.sleep(_PAUSE_S)

    def close(self) -> None:
        """No worker is left behind."""
        for worker in self._workers:
            worker.send_signal(signal.SIGCONT)
            worker.kill()
            worker.wait()

    def _fault(self) -> None:
        running = [worker for worker in self._workers if worker.poll() is None and worker.pid not in self._stopped]
        kinds = ["killed", "killed", "terminated", "stopped", "database away"]
        kind = self._random.choice(kinds)
        if kind == "database away":
            self._hurt_database()
        elif running:
            victim = self._random.choice(running)
            if kind == "stopped" and len(self._stopped) < WORKERS - 1:
                victim.send_signal(signal.SIGSTOP)
                self._stopped[victim.pid] = time.monotonic() + _STOPPED_S
            elif kind == "terminated":
                victim.terminate()
            else:
                kind = "killed"
                victim.kill()
                victim.wait()
        self.faults[kind] += 1

    def _continue(self) -> None:
        for worker in self._workers:
            until = self._stopped.get(worker.pid)
            if until is not None and time.monotonic() > until:
                del self._stopped[worker.pid]
                worker.send_signal(signal.SIGCONT)
                self.faults["continued"] += 1


def lock_sqlite(path: Path, seconds: float) -> Callable[[], None]:
    """Keep everybody from writing for a while, as a backup does that locks the file."""

    def lock() -> None:
        connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        try:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")
        finally:
            connection.close()

    return lock


def summary(faults: Counter[str], runs: int, cases: Sequence[str], seconds: float) -> str:
    """What was done and what came of it, in a line."""
    done = ", ".join(f"{count} {kind}" for kind, count in sorted(faults.items()))
    return f"{runs} runs in {seconds:.0f} s through {sum(faults.values())} faults ({done}); {len(cases)} doubtful calls, each a case"

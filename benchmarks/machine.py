"""The machine under the figures, and the floor that its disk sets."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

_BLOCK_BYTES = 4096
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def facts() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "cedarpy": version("cedarpy"),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def resident_mib() -> float:
    """What this process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20


@dataclass(frozen=True, kw_only=True)
class Sync:
    """p50 of one 4 KiB append followed by fdatasync, in milliseconds."""

    growing_ms: float
    preallocated_ms: float


def fdatasync(folder: Path, rounds: int) -> Sync:
    """Measured on the disk that holds `folder`: into a file that grows, and into one whose blocks exist."""
    return Sync(growing_ms=_appends(folder, rounds, 0), preallocated_ms=_appends(folder, rounds, rounds))


def _appends(folder: Path, rounds: int, blocks: int) -> float:
    block = os.urandom(_BLOCK_BYTES)
    sync = getattr(os, "fdatasync", os.fsync)
    took: list[float] = []
    with tempfile.NamedTemporaryFile(dir=folder, buffering=0) as file:
        if blocks:
            file.write(bytes(_BLOCK_BYTES * blocks))
            os.fsync(file.fileno())
            file.seek(0)
        for _ in range(rounds):
            began = time.perf_counter()
            file.write(block)
            sync(file.fileno())
            took.append(time.perf_counter() - began)
    return median(took) * 1000

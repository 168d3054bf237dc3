"""A Postgres server of the tests' own, on a Unix socket."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self


def find_binaries() -> Path | None:
    """The folder with `initdb` and `pg_ctl`."""
    on_path = shutil.which("pg_ctl")
    if on_path:
        return Path(on_path).parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


class PostgresServer:
    """As root it runs as `postgres`, because it refuses to run as root. `url` has a place for the `{database}`."""

    def __init__(self, binaries: Path, home: Path) -> None:
        self._binaries = binaries
        self._home = home
        self.url = f"postgresql://remit@/{{database}}?host={home}"

    def __enter__(self) -> Self:
        self._home.chmod(0o777)
        for parent in self._home.parents:
            if parent.stat().st_uid == os.geteuid() and parent.name.startswith("pytest"):
                parent.chmod(0o755)
        self._run("initdb", "-D", str(self._home / "data"), "-A", "trust", "-U", "remit", "--no-sync")
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def restart(self) -> None:
        """As after a crash: every connection is cut, and what was committed is there again."""
        self._stop()
        self._start()

    def _start(self) -> None:
        options = f"-k {self._home} -c listen_addresses='' -c max_connections=200"
        self._run("pg_ctl", "-D", str(self._home / "data"), "-o", options, "-l", str(self._home / "log"), "-w", "start")

    def _stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._home / "data"), "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        user = {"user": "postgres"} if os.geteuid() == 0 else {}
        subprocess.run(
            [str(self._binaries / program), *arguments],
            check=True,
            cwd=self._home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **user,  # type: ignore[call-overload]
        )

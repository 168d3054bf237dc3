"""A Postgres server for the length of a benchmark: REMIT_TEST_POSTGRES, or one of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoServer(Exception):
    """Neither a server nor the means to start one; the message says what to do."""


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """URL of a running server with `{database}` in it. `folder` must be reachable for user `postgres` when root.

    Durability is the server's default: fsync and synchronous_commit are on. Raises `NoServer`.
    """
    given = os.environ.get("REMIT_TEST_POSTGRES")
    if given:
        yield given if "{database}" in given else given.rstrip("/") + "/{database}"
        return
    binaries = _binaries()
    home = folder / f"pg-{uuid.uuid4().hex[:6]}"
    home.mkdir()
    home.chmod(0o777)
    data = str(home / "data")
    try:
        _run(binaries, home, "initdb", "-D", data, "-A", "trust", "-U", "remit", "--no-sync")
        options = f"-k {home} -c listen_addresses=''"
        _run(binaries, home, "pg_ctl", "-D", data, "-o", options, "-l", str(home / "log"), "-w", "start")
    except (subprocess.CalledProcessError, OSError) as error:
        raise NoServer(f"the Postgres server did not start: {error}") from error
    try:
        yield f"postgresql://remit@/{{database}}?host={home}"
    finally:
        _run(binaries, home, "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


@contextmanager
def database(url: str) -> Iterator[str]:
    """URL of a fresh, empty database on a server, dropped at the end."""
    import psycopg

    name = f"bench_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url.format(database="postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')  # pyright: ignore
    try:
        yield url.format(database=name)
    finally:
        with psycopg.connect(url.format(database="postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')  # pyright: ignore


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("pg_ctl")
    if on_path:
        return Path(on_path).parent
    if found:
        return found[0]
    raise NoServer("no PostgreSQL server found; install Debian's `postgresql` or set REMIT_TEST_POSTGRES")


def _run(binaries: Path, home: Path, program: str, *arguments: str) -> None:
    # The server refuses to run as root.
    user = {"user": "postgres"} if os.geteuid() == 0 else {}
    subprocess.run(
        [str(binaries / program), *arguments],
        check=True,
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        **user,  # type: ignore[call-overload]
    )

"""What all tests share: the database under test (SQLite or a real Postgres), fresh for each test."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from parts import unavailable


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=["sqlite", "postgres"],
        default="sqlite",
        help="which database the suite runs on; postgres is started for the session, or taken from REMIT_TEST_POSTGRES",
    )


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a running Postgres server, without a database: REMIT_TEST_POSTGRES, or one started for this session."""
    given = os.environ.get("REMIT_TEST_POSTGRES")
    if given:
        yield given.rstrip("/")
        return
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("pg_ctl")
    folder = Path(on_path).parent if on_path else binaries[0] if binaries else None
    if folder is None:
        unavailable("no PostgreSQL server found; install Debian's `postgresql` or set REMIT_TEST_POSTGRES")
        return
    home = tmp_path_factory.mktemp("postgres")
    with _server(folder, home) as url:
        yield url


class _server:
    """A server of our own on a Unix socket; as root it runs as `postgres`, because it refuses to run as root."""

    def __init__(self, binaries: Path, home: Path) -> None:
        self._binaries = binaries
        self._home = home

    def __enter__(self) -> str:
        self._home.chmod(0o777)
        for parent in self._home.parents:
            if parent.stat().st_uid == os.geteuid() and parent.name.startswith("pytest"):
                parent.chmod(0o755)
        self._run("initdb", "-D", str(self._home / "data"), "-A", "trust", "-U", "remit", "--no-sync")
        options = f"-k {self._home} -c listen_addresses='' -c max_connections=200"
        self._run("pg_ctl", "-D", str(self._home / "data"), "-o", options, "-l", str(self._home / "log"), "-w", "start")
        return f"postgresql://remit@/{{database}}?host={self._home}"

    def __exit__(self, *_: object) -> None:
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


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database of the kind that the suite runs on."""
    if request.config.getoption("--database") == "sqlite":
        return f"sqlite:{tmp_path / 'remit.db'}"
    import psycopg
    from psycopg import sql

    server: str = request.getfixturevalue("postgres")
    name = f"test_{uuid.uuid4().hex[:12]}"
    template = server if "{database}" in server else f"{server}/{{database}}"
    with psycopg.connect(template.format(database="postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return template.format(database=name)

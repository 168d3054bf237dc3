"""What all tests share: the database under test (SQLite or a real Postgres), fresh for each test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from parts import unavailable
from postgres_server import PostgresServer, find_binaries


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
    binaries = find_binaries()
    if binaries is None:
        unavailable("no PostgreSQL server found; install Debian's `postgresql` or set REMIT_TEST_POSTGRES")
        return
    with PostgresServer(binaries, tmp_path_factory.mktemp("postgres")) as server:
        yield server.url


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

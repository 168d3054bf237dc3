"""Thousands of ways to tamper with a record: each is found, and none where nobody did."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
from journals import write_journal
from mutations import MUTATIONS, Tampered, make_odd

from remit_verify import Options, verify

SEED = 20_250_615
ON_SQLITE, ON_POSTGRES = 2_080, 78


def copy_of(shop: Path, to: Path) -> Path:
    """A copy of what a verifier looks at, but for the database."""
    (to / ".remit").mkdir(parents=True)
    shutil.copy(shop / "remit.toml", to)
    for name in ("keys", "checkpoints"):
        shutil.copytree(shop / ".remit" / name, to / ".remit" / name)
    return to


def published_again(shop: Path, copy: Path) -> None:
    for file in (shop / ".remit" / "checkpoints").iterdir():
        shutil.copy(file, copy / ".remit" / "checkpoints" / file.name)


def tamper_with_sqlite(shop: Path, work: Path, seeds: list[int]) -> tuple[Counter[str], list[str]]:
    """Tamper with copies of a record, one way for each seed. Returns what was found, and what was not."""
    copy = copy_of(shop, work)
    master = bytes.fromhex((copy / ".remit" / "keys" / "master.key").read_text())
    published = copy / ".remit" / "checkpoints"
    codes: Counter[str] = Counter()
    missed: list[str] = []
    for seed in seeds:
        shutil.copyfile(shop / "remit.db", copy / "remit.db")
        published_again(shop, copy)
        connection = sqlite3.connect(copy / "remit.db", isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")

        def execute(sql: str, *parameters: Any, to: sqlite3.Connection = connection) -> list[Any]:
            return to.execute(sql, parameters).fetchall()

        connection.execute("BEGIN")
        mutation = MUTATIONS[seed % len(MUTATIONS)]
        did = mutation(Tampered(execute, Random(seed + SEED), master, published, sqlite=True))
        connection.execute("COMMIT")
        connection.close()
        report = verify(copy, options=Options(processes=1))
        codes.update({finding.code for finding in report.findings})
        if report.verified:
            missed.append(f"{seed}: {mutation.__name__}: {did}")
    return codes, missed


def compact(database: Path) -> None:
    """One file, without a log beside it, that can be copied as bytes."""
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()


def test_every_one_of_2080_mutations_is_found_and_an_untouched_record_verifies(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--database") != "sqlite":
        pytest.skip("the test below is the one for Postgres")
    shop = asyncio.run(write_journal(tmp_path / "shop", "sqlite:", runs=38, calls=30)).folder
    compact(shop / "remit.db")
    untouched = verify(shop)
    assert untouched.verified, untouched.findings[:5]
    assert untouched.events >= 2_000
    seeds = [list(range(first, ON_SQLITE, 2)) for first in (0, 1)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        shares = [pool.submit(tamper_with_sqlite, shop, tmp_path / f"copy-{i}", some) for i, some in enumerate(seeds)]
        results = [share.result() for share in shares]
    assert [missed for _, some in results for missed in some] == []
    # Every kind of check is what found something; otherwise it might as well not be there.
    assert {code for codes, _ in results for code in codes} >= EXPECTED
    assert verify(shop, options=Options(processes=2)).verified


EXPECTED = {
    "body_wrong", "chain_broken", "checkpoint_form", "checkpoint_missing", "checkpoint_order", "checkpoint_root",
    "checkpoint_wrong", "columns_differ", "event_missing", "event_repeated", "events_truncated", "header_form",
    "header_hash", "key_destroyed", "key_kept", "key_missing", "key_wrong", "leaves_differ", "leaves_missing",
    "row_form", "run_row", "run_row_missing", "run_without_events", "sealed_wrong", "tile_extra", "tile_missing",
    "tile_wrong", "tree_form", "tree_missing", "tree_root", "tree_seq",
}  # fmt: skip


class OnPostgres:
    """A connection that takes statements with `?`."""

    def __init__(self, url: str) -> None:
        import psycopg

        self._connection = psycopg.connect(url, autocommit=True)

    def __call__(self, sql: str, *parameters: Any) -> list[Any]:
        cursor = self._connection.execute(sql.replace("%", "%%").replace("?", "%s").encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self._connection.close()


def test_mutations_on_postgres_are_found_in_one_snapshot(
    tmp_path: Path, database_url: str, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--database") != "postgres":
        pytest.skip("the test above is the one for SQLite")
    shop = asyncio.run(write_journal(tmp_path / "shop", database_url, runs=12, calls=12)).folder
    untouched = verify(shop)
    assert untouched.verified, untouched.findings[:5]
    assert verify(shop, options=Options(processes=2)).verified
    master = bytes.fromhex((shop / ".remit" / "keys" / "master.key").read_text())
    server, name = database_url.replace(f"/{database_name(database_url)}", "/postgres"), database_name(database_url)
    on_server = OnPostgres(server)
    missed: list[str] = []
    mutations = [mutation for mutation in MUTATIONS if mutation is not make_odd]
    for seed in range(ON_POSTGRES):
        on_server(f"CREATE DATABASE {name}_copy TEMPLATE {name}")
        url = database_url.replace(f"/{name}", f"/{name}_copy")
        copy = copy_of(shop, tmp_path / f"copy-{seed}")
        published = copy / ".remit" / "checkpoints"
        execute, mutation = OnPostgres(url), mutations[seed % len(mutations)]
        did = mutation(Tampered(execute, Random(seed + SEED), master, published, sqlite=False))
        execute.close()
        text = (copy / "remit.toml").read_text()
        (copy / "remit.toml").write_text(text.replace(f"/{name}", f"/{name}_copy"))
        if verify(copy).verified:
            missed.append(f"{seed}: {mutation.__name__}: {did}")
        on_server(f"DROP DATABASE {name}_copy")
    on_server.close()
    assert missed == []


def database_name(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")

"""Verifying a record: everything that `docs/record.md` says, held against what is there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remit_verify.checking import Stretch
from remit_verify.database import Damaged, Database, opened, ranges
from remit_verify.export_file import verify_export
from remit_verify.gathering import Gathering, GivenNote, read_given, read_published
from remit_verify.keys import Keys
from remit_verify.report import Finding, Report, Unreadable
from remit_verify.rows import RunKeys
from remit_verify.sources import Source, locate
from remit_verify.work import Rows, Workers, check_range, check_rows, workers

_TABLES = ("about", "checkpoints", "events", "run_keys", "runs", "tiles", "trees")
_MANY_EVENTS = 20_000
"""From here on it pays to start processes."""
_STRETCH = 4_096


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How to verify. `processes`: 0 takes as many as there are cores where the record is large."""

    tenant: str | None = None
    processes: int = 0


def verify(
    source: str | Path,
    *,
    keys: Keys | Path | None = None,
    since: Mapping[str, str] | None = None,
    options: Options | None = None,
) -> Report:
    """Verify a record, and that it is unaltered since the checkpoints that the caller holds.

    `source`: a project's folder, a SQLite file, a Postgres URL, an exported file, or `-`. `keys`: what the caller
    holds, or the folder where it lies; without it the folder beside the source. `since`: notes of checkpoints, one or
    many in a text, by the name to call them in findings. Raises `Unreadable`.
    """
    begun = time.perf_counter()
    options = options or Options()
    place = locate(str(source))
    held = keys if isinstance(keys, Keys) else _read_keys(keys, place)
    given = read_given(since or {})
    if place.address is None:
        gathering = Gathering(held, options.tenant)
        processes = verify_export(place.export, gathering, given, options.processes)
    else:
        if held.master is None:
            where = "beside the database" if keys is None else f"in `{keys}`"
            raise Unreadable(f"there is no `master.key` {where}; name the folder with the keys with `--keys`")
        # Read before the snapshot is taken: whatever was published by now is in it.
        published = read_published(place.published)
        kept = read_published(place.keys / "checkpoints" if place.published and place.keys else None)
        gathering = Gathering(held, options.tenant)
        processes = _verify_database(place, gathering, (given, published, kept), options.processes)
    return gathering.report(str(place), time.perf_counter() - begun, processes)


def _read_keys(folder: Path | None, place: Source) -> Keys:
    folder = folder or place.keys
    if folder is not None:
        return Keys.read(folder)
    return Keys()


def _verify_database(
    place: Source, gathering: Gathering, notes: tuple[list[GivenNote], dict[str, str], dict[str, str]], processes: int
) -> int:
    assert place.address is not None
    given, published, kept = notes
    with opened(place.address) as database:
        try:
            present = database.tables()
        except Damaged as error:
            raise Unreadable(f"`{place}` can't be read: {error}") from error
        if "events" not in present:
            raise Unreadable(f"`{place}` has no table `events`; it holds no record")
        for table in _TABLES:
            if table not in present:
                gathering.add(Finding(code="table_missing", wrong=f"the table `{table}` is missing", where=table))
        tables = _Tables(database, present, gathering)
        count = processes or (os.cpu_count() or 1 if tables.many_events() else 1)
        with workers(count) as pool:
            gathering.journal = tables.journal()
            gathering.begin_trees(pool, tables.read("trees", _TREES))
            gathering.stored(pool, tables.read("checkpoints", _CHECKPOINTS))
            # Where the server is shared, another machine may be the one that publishes.
            gathering.published(pool, published, must_exist=place.published is not None and not place.address.url)
            gathering.kept(pool, kept)
            gathering.given(pool, given)
            gathering.tiles = tables.tiles()
            for stretch in _stretches(pool, database, gathering):
                gathering.join(stretch)
        gathering.finish_trees(lambda tenant: tables.read("tiles", _PLACES, (tenant,)))
        tables.compare_runs()
    return count


_TREES = "SELECT tenant, size, seq, root, note, at FROM trees ORDER BY tenant"
_CHECKPOINTS = "SELECT tenant, size, at, note FROM checkpoints ORDER BY tenant, size, at"
_PLACES = "SELECT level, position FROM tiles WHERE tenant = ?"


def _stretches(pool: Workers, database: Database, gathering: Gathering) -> Iterator[Stretch]:
    master = gathering.keys.master or b""
    address = database.address
    try:
        pieces = (
            Rows(address=address, master=master, tenant=gathering.tenant, first=first, last=last)
            for first, last in ranges(database, _STRETCH)
        )
        if pool.count > 1:
            yield from pool.each(check_rows, pieces)
            return
        run_keys = RunKeys(master, database.wrapped_keys)
        for rows in pieces:
            yield check_range(database, run_keys, rows)
    except Damaged as error:
        gathering.damaged("events", str(error))


class _Tables:
    """The tables of a database; one that is missing or damaged has no rows, and is a finding."""

    def __init__(self, database: Database, present: set[str], gathering: Gathering) -> None:
        self._database = database
        self._present = present
        self._gathering = gathering

    def read(self, table: str, sql: str, parameters: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        if table not in self._present:
            return
        try:
            yield from self._database.select(sql, parameters)
        except Damaged as error:
            self._gathering.damaged(table, str(error))

    def many_events(self) -> bool:
        for first, last in self.read("events", "SELECT min(seq), max(seq) FROM events"):
            return isinstance(first, int) and isinstance(last, int) and last - first >= _MANY_EVENTS
        return False

    def journal(self) -> str | None:
        for (value,) in self.read("about", "SELECT value FROM about WHERE name = 'id'"):
            if isinstance(value, str) and value:
                return value
        self._gathering.add(
            Finding(code="journal_missing", wrong="the database does not say which journal it is", where="about, row `id`")
        )
        return None

    def tiles(self) -> Any:
        def ask(tenant: str, level: int, position: int) -> list[tuple[Any, ...]]:
            try:
                return self._database.tile(tenant, level, position)
            except Damaged as error:
                self._gathering.damaged("tiles", str(error))
                return []

        return ask if "tiles" in self._present else None

    def compare_runs(self) -> None:
        """The tables that say something about runs."""
        tenant = self._gathering.tenant
        chains = self._gathering.chains
        if "runs" in self._present:
            rows = self.read("runs", "SELECT run, tenant, status, outcome FROM runs")
            chains.compare_runs(row for row in rows if tenant is None or row[1] == tenant)
        if "run_keys" in self._present:
            sql = "SELECT run, body_key IS NOT NULL, sealed_key IS NOT NULL FROM run_keys"
            chains.compare_keys(self.read("run_keys", sql), all_tenants=tenant is None)

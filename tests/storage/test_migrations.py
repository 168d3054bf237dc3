"""Migrations make exactly the tables that the code queries, once, whoever opens the database first."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, UniqueConstraint, create_engine, inspect, text

import remit.storage
from remit.errors import StorageError
from remit.storage.database import HEAD, Database, open_database
from remit.storage.schema import metadata

FOLDER = Path(remit.storage.__file__).parent / "migrations"
_spawning = multiprocessing.get_context("spawn")


def differences(database: Database, wanted: MetaData) -> list[Any]:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return compare_metadata(context, wanted)


def test_the_migrations_make_what_the_code_queries(database_url: str) -> None:
    database = open_database(database_url)
    assert differences(database, metadata) == []
    # And the comparison sees what it is there for.
    smaller = MetaData()
    for table in metadata.sorted_tables[1:]:
        table.to_metadata(smaller)
    assert differences(database, smaller) != []
    database.close()


def test_unique_constraints_and_indexes_are_those_that_the_fence_needs(database_url: str) -> None:
    """Autogeneration does not compare all of them on every database."""
    database = open_database(database_url)
    found = inspect(database.engine)
    for table in metadata.sorted_tables:
        unique = {tuple(each["column_names"]) for each in found.get_unique_constraints(table.name)}
        asked = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
        assert unique == {tuple(each.columns.keys()) for each in asked}, table.name
        key = found.get_pk_constraint(table.name)["constrained_columns"]
        assert key == [column.name for column in table.primary_key]
    assert ("run", "n") in {tuple(each["column_names"]) for each in found.get_unique_constraints("events")}
    database.close()


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    return ScriptDirectory.from_config(config)


def test_the_code_works_with_the_newest_migration() -> None:
    assert scripts().get_heads() == [HEAD]
    newest = max(path.name for path in (FOLDER / "versions").glob("*.py"))
    assert newest.startswith(f"{HEAD}_")


def test_every_migration_names_the_one_before_it() -> None:
    revisions = [script.revision for script in scripts().walk_revisions()][::-1]
    assert revisions == [f"{i:04d}" for i in range(1, len(revisions) + 1)]


def open_once(url: str, start: Barrier, reports: Connection) -> None:
    start.wait(60)
    database = open_database(url)
    with database.engine.connect() as connection:
        reports.send(connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all())
    database.close()


def test_processes_that_open_a_new_database_at_the_same_moment_all_find_it_whole(database_url: str) -> None:
    start = _spawning.Barrier(4)
    pipes = [_spawning.Pipe(duplex=False) for _ in range(4)]
    children = [_spawning.Process(target=open_once, args=(database_url, start, theirs)) for _, theirs in pipes]
    for child, (_, theirs) in zip(children, pipes, strict=True):
        child.start()
        theirs.close()
    for child, (ours, _) in zip(children, pipes, strict=True):
        assert ours.poll(60)
        assert ours.recv() == [HEAD]
        ours.close()
        child.join(60)
        assert child.exitcode == 0
        child.close()
    database = open_database(database_url)
    assert differences(database, metadata) == []
    database.close()


def test_a_database_that_a_newer_version_has_migrated_is_left_alone(database_url: str) -> None:
    database = open_database(database_url)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(StorageError, match="newer version of Remit") as raised:
        open_database(database_url)
    assert raised.value.code == "schema_unknown"
    # And nothing is left open on it.
    if database.is_sqlite:
        held = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        assert str(database.path) not in held


def test_a_migration_that_fails_leaves_nothing_behind(database_url: str) -> None:
    """A table that is in its way stands for whatever can go wrong at its end."""
    url = database_url.replace("sqlite:", "sqlite:///").replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE principals (x INTEGER)"))
    with pytest.raises(StorageError, match="principals"):
        open_database(database_url)
    assert inspect(engine).get_table_names() == ["principals"]
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE principals"))
    engine.dispose()
    database = open_database(database_url)
    assert differences(database, metadata) == []
    database.close()


LEAN = """
import sys
from remit.storage.database import open_database
open_database(sys.argv[1]).close()
print([name for name in sys.modules if name.partition(".")[0] in ("alembic", "mako")])
"""


def test_where_there_is_nothing_to_migrate_the_migrations_are_not_even_loaded(database_url: str) -> None:
    """They would be a third of the time that a command takes to start."""
    open_database(database_url).close()
    ended = subprocess.run([sys.executable, "-c", LEAN, database_url], check=True, capture_output=True, text=True)
    assert ended.stdout == "[]\n"

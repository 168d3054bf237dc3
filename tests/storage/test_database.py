"""Opening the database: which URLs mean what, how durable it is, and what is said when it can't be opened."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from remit.errors import ConfigError, StorageError
from remit.storage.database import Database, explain, open_database, storage_errors


def test_a_path_is_relative_to_the_folder_that_is_given(tmp_path: Path) -> None:
    database = open_database("sqlite:state/remit.db", folder=tmp_path)
    assert database.is_sqlite
    assert database.path == tmp_path / "state" / "remit.db"
    assert database.path.is_file()
    database.close()


@pytest.mark.parametrize("form", ["sqlite:{}", "sqlite:///{}", "sqlite+pysqlite:///{}"])
def test_an_absolute_path_is_taken_as_it_is(tmp_path: Path, form: str) -> None:
    database = open_database(form.format(tmp_path / "here.db"), folder=tmp_path / "elsewhere")
    assert database.path == tmp_path / "here.db"
    database.close()


def test_a_path_with_signs_that_urls_give_a_meaning_to_is_that_file(tmp_path: Path) -> None:
    database = open_database("sqlite:odd ?#%41&name.db", folder=tmp_path)
    assert [path.name for path in tmp_path.glob("*.db")] == ["odd ?#%41&name.db"]
    database.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:", "names no file"),
        ("sqlite://", "a file that all connections share"),
        ("sqlite:///:memory:", "a file that all connections share"),
        ("sqlite:///x.db?mode=ro", "a file that all connections share"),
        ("mysql://u@h/d", "`mysql` is not supported"),
        ("remit.db", "not a database URL"),
        ("", "not a database URL"),
    ],
)
def test_a_url_that_means_nothing_here_is_refused_with_what_to_write_instead(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        open_database(url)
    assert "sqlite:<path>" in raised.value.message


@pytest.mark.parametrize("url", ["postgresql//app:swordfish@db/app", "mysql://app:swordfish@db/app", "postgresql://app:swordfish@db:port/app"])  # fmt: skip
def test_a_password_in_a_url_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        open_database(url)
    assert "swordfish" not in f"{raised.value} {raised.value.__cause__}"


def test_sqlite_is_as_durable_as_it_is_claimed(tmp_path: Path) -> None:
    database = open_database("sqlite:remit.db", folder=tmp_path)
    with database.engine.connect() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    database.close()


def refused(url: str, folder: Path) -> str:
    with pytest.raises(StorageError) as raised:
        open_database(url, folder=folder)
    assert raised.value.code == "storage_unavailable"
    assert raised.value.message.startswith("can't open the database: ")
    return raised.value.message


def test_a_file_that_is_no_database_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "remit.db").write_bytes(b"not a database at all, but long enough to look at" * 100)
    assert "restore it from a backup" in refused("sqlite:remit.db", tmp_path)


def test_a_folder_in_the_place_of_the_file_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "remit.db").mkdir()
    assert "unable to open" in refused("sqlite:remit.db", tmp_path)


def test_a_file_in_the_place_of_the_folder_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    assert "state" in refused("sqlite:state/remit.db", tmp_path)


def test_a_server_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    assert "start the server" in refused(f"postgresql://app:swordfish@/app?host={tmp_path}", tmp_path)


def test_a_database_that_the_server_does_not_have_is_no_empty_one(database_url: str) -> None:
    if database_url.startswith("sqlite:"):
        pytest.skip("a file that does not exist is made")
    with pytest.raises(StorageError, match="does not exist"):
        open_database(database_url.replace("/test_", "/missing_"))


def test_errors_of_a_driver_say_what_was_being_done_and_what_to_do_next() -> None:
    locked = OperationalError("SELECT secret", {"secret": "x"}, sqlite3.OperationalError("database is locked"))
    full = OSError(28, "No space left on device")
    for error, message in (
        (
            locked,
            "can't read the journal: database is locked; another process holds the write lock; stop it or try again",
        ),
        (full, "can't read the journal: [Errno 28] No space left on device; free some space"),
    ):
        with pytest.raises(StorageError) as raised, storage_errors("read the journal"):
            raise error
        assert raised.value.message.startswith(message)


def fill(database: Database) -> None:
    with storage_errors("fill it"), database.engine.begin() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.execute(text(f"PRAGMA max_page_count = {pages}"))
        connection.execute(text("INSERT INTO meters (meter, state) VALUES ('m', randomblob(1000000))"))


def test_a_full_database_says_that_it_is_full(tmp_path: Path) -> None:
    database = open_database("sqlite:remit.db", folder=tmp_path)
    with pytest.raises(StorageError, match="is full; free some space"):
        fill(database)
    database.close()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_CANTOPEN])
def test_an_error_of_a_disk_without_room_says_that_it_is_full(tmp_path: Path, code: int) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    assert explain(error, tmp_path / "remit.db") == (
        "disk I/O error; look at the disk; nothing was recorded that is not durable"
    )
    # A file system that has no room at all.
    assert explain(error, Path("/proc/remit.db")) == "disk I/O error: the disk is full; free some space"


def test_a_database_that_must_exist_is_not_made(database_url: str, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(StorageError) as raised:
            open_database(database_url, must_exist=True)
        assert raised.value.code == "database_gone"
    assert not (tmp_path / "remit.db").exists()
    open_database(database_url).close()
    open_database(database_url, must_exist=True).close()


def test_the_databases_own_time_is_this_time_to_the_millisecond(database_url: str) -> None:
    database = open_database(database_url)
    before = time.time_ns() // 1000
    with database.engine.connect() as connection:
        found = connection.execute(text(f"SELECT {database.now_us}")).scalar_one()
    assert isinstance(found, int)
    assert before - 2_000 <= found <= time.time_ns() // 1000 + 2_000
    database.close()


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), storage_errors("count"):
        raise ZeroDivisionError


def test_an_explanation_is_one_line_without_a_full_stop() -> None:
    assert explain(ValueError("first.\nsecond.")) == "first"
    assert explain(ValueError("")) == "ValueError"

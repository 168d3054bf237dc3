"""Database and keys belong together: neither is silently replaced by a new, empty one."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from sqlalchemy import select

from project import Shop, make_shop
from remit import Remit
from remit.errors import StorageError
from remit.storage.schema import principals

WORKFLOW = "async def desk(run, request):\n    return {}\n"


def open_and_run(folder: Path) -> str:
    async def work() -> str:
        async with Remit(folder) as remit:
            return (await remit.run("desk", {})).outcome

    return asyncio.run(work())


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    """A project with a record."""
    made = make_shop(tmp_path / "shop", database_url)
    made.contract("desk", [{"tool": "orders.read"}], workflow=WORKFLOW)
    assert open_and_run(made.folder) == "completed"
    return made


def refused(shop: Shop) -> StorageError:
    with pytest.raises(StorageError) as raised:
        Remit(shop.folder)
    return raised.value


@pytest.fixture
def file(shop: Shop) -> Path:
    found = shop.folder / "remit.db"
    if not found.is_file():
        pytest.skip("a server's database is no file to take away")
    return found


@pytest.mark.parametrize("how", ["deleted", "empty", "another"])
def test_a_database_that_is_not_the_one_that_was_written_is_refused(
    shop: Shop, file: Path, tmp_path: Path, how: str
) -> None:
    kept = file.read_bytes()
    for path in shop.folder.glob("remit.db*"):
        path.unlink()
    if how == "empty":
        file.touch()
    if how == "another":
        other = make_shop(tmp_path / "other", "sqlite:")
        other.contract("desk", [{"tool": "orders.read"}], workflow=WORKFLOW)
        open_and_run(other.folder)
        shutil.copy(other.folder / "remit.db", file)
    error = refused(shop)
    assert (error.code, "restore it from a backup" in error.message) == ("database_gone", True)
    if how == "deleted":
        assert not file.exists()
    file.write_bytes(kept)
    assert open_and_run(shop.folder) == "completed"


@pytest.mark.parametrize("name", ["master.key", "pseudonym.key"])
@pytest.mark.parametrize("how", ["deleted", "another"])
def test_a_key_that_is_not_the_one_that_was_used_is_refused(shop: Shop, name: str, how: str) -> None:
    key = shop.folder / ".remit" / "keys" / name
    kept = key.read_bytes()
    key.unlink()
    if how == "another":
        key.write_text("0" * 64 + "\n")
        key.chmod(0o600)
    error = refused(shop)
    assert (error.code, str(key) in error.message) == ("master_key_wrong", True)
    if how == "deleted":
        assert not key.exists()
    key.write_bytes(kept)
    key.chmod(0o600)
    assert open_and_run(shop.folder) == "completed"


def test_a_lost_folder_of_keys_is_refused_and_put_back(shop: Shop) -> None:
    keys = shop.folder / ".remit" / "keys"
    keys.rename(shop.folder / "keys.bak")
    assert refused(shop).code == "master_key_wrong"
    shutil.rmtree(keys)
    (shop.folder / "keys.bak").rename(keys)
    assert open_and_run(shop.folder) == "completed"


def test_keys_that_do_not_know_their_database_yet_take_it(shop: Shop) -> None:
    """As after an upgrade, or where the keys were copied to another machine."""
    known = shop.folder / ".remit" / "keys" / "database.id"
    kept = known.read_bytes()
    known.unlink()
    assert open_and_run(shop.folder) == "completed"
    assert known.read_bytes() == kept


def test_a_record_can_be_begun_anew_on_purpose(shop: Shop, file: Path) -> None:
    for path in shop.folder.glob("remit.db*"):
        path.unlink()
    (shop.folder / ".remit" / "keys" / "database.id").unlink()
    assert open_and_run(shop.folder) == "completed"


def test_opening_and_reading_write_nothing(shop: Shop) -> None:
    """Somebody new in remit.toml gets a row when they first decide or act, not when somebody looks."""
    toml = shop.folder / "remit.toml"
    toml.write_text(toml.read_text() + '[people.new]\nname = "New"\n')

    async def read() -> tuple[list[str], list[str]]:
        async with Remit(shop.folder) as remit:
            remit.program("desk")
            remit.engine.waiting()
            remit.cases.list(remit.tenant)
            assert remit.person("person/new") is not None
            listed = [found.principal for found in remit.principals.list(remit.tenant)]
            with remit.database.engine.connect() as connection:
                return listed, list(connection.execute(select(principals.c.principal)).scalars())

    listed, stored = asyncio.run(read())
    assert listed == ["agent/shop/desk", "person/anna", "person/kim", "person/lee", "person/new"]
    assert stored == ["agent/shop/desk"]

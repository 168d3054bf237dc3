"""Nothing is signed that does not go on from what was published, and a restored backup has a way to go on."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from project import Shop, make_shop, write_action
from remit import Remit
from remit.cli.main import app
from remit.errors import StorageError
from remit.journal.events import Event, EventType
from remit_verify import Report, verify

WORKFLOW = """
async def run(run, request):
    for value in range(request["order"]):
        await run.call("put.keyed", value=value)
    return {}
"""
TREE = ("trees", "tiles", "checkpoints")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = make_shop(tmp_path / "shop", "sqlite:remit.db")
    shop.contract("writing", [write_action("put.keyed")], workflow=WORKFLOW)
    return shop


def run(shop: Shop, times: int = 1) -> str:
    async def use() -> str:
        async with Remit(shop.folder) as remit:
            return [(await remit.run("writing", {"order": 3})).run for _ in range(times)][-1]

    return asyncio.run(use())


def execute(shop: Shop, *statements: str) -> None:
    with closing(sqlite3.connect(shop.folder / "remit.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def count(shop: Shop, table: str) -> int:
    with closing(sqlite3.connect(shop.folder / "remit.db")) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def take_out(shop: Shop, gone: str) -> None:
    """What an attacker with the database alone does so that a run was never there."""
    execute(shop, *(f"DELETE FROM {table} WHERE run = '{gone}'" for table in ("events", "runs", "run_keys")))
    execute(shop, *(f"DELETE FROM {table}" for table in TREE))


def published(shop: Shop) -> Path:
    return shop.folder / ".remit" / "checkpoints" / "shop.txt"


def codes(report: Report) -> set[str]:
    return {finding.code for finding in report.findings}


def command(shop: Shop, *arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*arguments, "--project", str(shop.folder)])
    assert done.exit_code == code, done.output
    return done.output


SPOILED: dict[str, Callable[[Shop], object]] = {
    "as it was": lambda shop: None,
    "emptied": lambda shop: published(shop).write_text(""),
    "with its folder gone": lambda shop: shutil.rmtree(published(shop).parent),
    "cut off within a note": lambda shop: published(shop).write_bytes(published(shop).read_bytes()[:-40]),
    "of before the key was kept": lambda shop: shutil.rmtree(shop.folder / ".remit" / "keys" / "checkpoints"),
}


@pytest.mark.parametrize("file", SPOILED)
def test_a_tree_that_was_begun_anew_without_a_run_is_never_signed(
    shop: Shop, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    gone = run(shop)
    run(shop)
    take_out(shop, gone)
    SPOILED[file](shop)
    run(shop)
    assert [record.levelname for record in caplog.records if "nothing is signed" in record.message] == ["ERROR"]
    assert [count(shop, table) for table in TREE] == [0, 0, 0]
    assert "not_extended" in command(shop, "checkpoint", code=1)
    assert codes(verify(shop.folder)) & {"events_truncated", "checkpoint_root"}


def test_a_tree_that_was_cut_back_is_grown_by_nobody_even_beyond_what_was_published(shop: Shop) -> None:
    run(shop)
    backup = (shop.folder / "remit.db").read_bytes()
    run(shop)
    (shop.folder / "remit.db").write_bytes(backup)
    run(shop, 5)
    execute(shop, "UPDATE trees SET note = 'x'")
    with pytest.raises(StorageError, match="not one that was signed"):
        asyncio.run(integrate(shop))


async def integrate(shop: Shop) -> None:
    async with Remit(shop.folder) as remit:
        await remit.sequencer.integrate()


def test_a_fork_as_long_as_what_was_published_is_not_gone_on_with(shop: Shop) -> None:
    run(shop)
    backup = (shop.folder / "remit.db").read_bytes()
    kept = {path: path.read_bytes() for path in (published(shop), shop.folder / ".remit/keys/checkpoints/shop.txt")}
    run(shop)
    newer = {path: path.read_bytes() for path in kept}
    # On another machine, which knows of nothing that was published here, it goes on from the backup.
    (shop.folder / "remit.db").write_bytes(backup)
    for path, data in kept.items():
        path.write_bytes(data)
    run(shop, 2)
    for path, data in newer.items():
        path.write_bytes(data)
    with pytest.raises(StorageError, match="are others") as raised:
        asyncio.run(integrate(shop))
    assert raised.value.code == "not_extended"


def test_a_restored_backup_is_said_and_gone_on_with_on_the_register(shop: Shop) -> None:
    run(shop)
    backup = (shop.folder / "remit.db").read_bytes()
    run(shop)
    lost = published(shop).read_text()
    (shop.folder / "remit.db").write_bytes(backup)
    report = verify(shop.folder)
    assert codes(report) == {"events_truncated", "checkpoint_missing"}
    assert all("Restore" in one.wrong for one in report.findings if one.code == "events_truncated")
    assert "--after-restore" in command(shop, "checkpoint", code=1)
    assert "together" in command(shop, "checkpoint", "--after-restore", code=2)
    said = command(shop, "checkpoint", "--after-restore", "--as", "lee", "--reason", "the disk broke")
    assert "before-restore" in said
    assert verify(shop.folder).findings == ()
    run(shop)
    assert verify(shop.folder).findings == ()
    # Whoever holds what was lost is told so, for ever.
    assert codes(verify(shop.folder, since={"lost.txt": lost})) & {"events_truncated", "checkpoint_root"}
    [aside] = published(shop).parent.glob("*.before-restore")
    assert aside.read_text() == lost
    [event] = [event for event in _register(shop) if event.type is EventType.RECORD_RESTORED]
    body: Any = event.body
    assert (body["by"], body["reason"], body["lost"]["size"]) == ("person/lee", "the disk broke", 16)
    assert "nothing_lost" in command(shop, "checkpoint", "--after-restore", "--reason", "once more", code=1)


def _register(shop: Shop) -> list[Event]:
    async def use() -> list[Event]:
        async with Remit(shop.folder) as remit:
            return remit.register.events()

    return asyncio.run(use())


def test_a_project_that_is_moved_with_its_keys_alone_goes_on(shop: Shop, tmp_path: Path) -> None:
    run(shop)
    moved = Shop(folder=tmp_path / "moved")
    shutil.copytree(shop.folder, moved.folder, ignore=shutil.ignore_patterns("checkpoints"))
    run(moved)
    # What was published stayed behind; what is published from here on is a part of it.
    assert codes(verify(moved.folder)) == set()


def test_keys_that_are_older_than_the_record_do_no_harm(shop: Shop) -> None:
    run(shop)
    keys = shop.folder / ".remit" / "keys" / "checkpoints" / "shop.txt"
    older = keys.read_text()
    run(shop)
    keys.write_text(older)
    run(shop)
    assert keys.read_text() != older
    assert verify(shop.folder).findings == ()


def test_keys_with_a_checkpoint_that_nobody_signed_are_refused(shop: Shop) -> None:
    run(shop)
    keys = shop.folder / ".remit" / "keys" / "checkpoints" / "shop.txt"
    keys.write_text(keys.read_text().replace("\nat 1", "\nat 2"))
    assert "checkpoint_invalid" in command(shop, "checkpoint", code=1)


def test_an_export_of_nothing_is_refused_and_one_of_something_is_signed_to_its_end(shop: Shop, tmp_path: Path) -> None:
    out = str(tmp_path / "out.jsonl")
    assert "not_integrated" in command(shop, "export", "--format", "record", "--out", out, code=1)
    run(shop)
    command(shop, "export", "--format", "record", "--out", out)
    report = verify(out)
    assert (report.findings, report.tenants[0].behind) == ((), 0)

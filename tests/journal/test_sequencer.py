"""Events become leaves of the tenant's tree, whoever writes them, and checkpoints say so."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import text

from project import Shop, make_shop, write_action
from remit import Remit
from remit.belonging import last_published
from remit.errors import StorageError
from remit.journal.events import Draft, EventType
from remit.journal.journal import system_clock
from remit.journal.merkle import Tree
from remit.journal.notes import CheckpointKey, open_checkpoint, origin
from remit.journal.publishing import anchor
from remit.journal.sequencer import PUBLISH_US, Sequencer, TreeHead, read_head
from remit_verify import verify

pytestmark = pytest.mark.anyio

WORKFLOW = """
async def run(run, request):
    for value in range(request["order"]):
        await run.call("put.keyed", value=value)
    return {}
"""


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    shop = make_shop(tmp_path / "shop", database_url)
    shop.contract("writing", [write_action("put.keyed")], workflow=WORKFLOW)
    return shop


def head_of(remit: Remit) -> TreeHead:
    with remit.database.engine.connect() as connection:
        return read_head(connection, "shop")


def hashes_of(remit: Remit) -> list[bytes]:
    with remit.database.engine.connect() as connection:
        found = connection.execute(text("SELECT hash FROM events WHERE tenant = 'shop' ORDER BY seq"))
        return [bytes(row[0]) for row in found]


def root_over(hashes: list[bytes]) -> bytes:
    tree = Tree(0, [])
    for one in hashes:
        tree.append(one)
    return tree.root


def verifier_key(shop: Shop) -> str:
    return (shop.folder / ".remit" / "keys" / "record.pub").read_text().splitlines()[0]


async def test_a_project_that_is_closed_has_every_event_in_its_tree(shop: Shop) -> None:
    async with Remit(shop.folder) as remit:
        await remit.run("writing", {"order": 5})
    async with Remit(shop.folder) as remit:
        head, hashes = head_of(remit), hashes_of(remit)
    assert head.size == len(hashes) == 12
    assert head.root == root_over(hashes)
    checkpoint = open_checkpoint(head.note, verifier_key(shop))
    assert (checkpoint.size, checkpoint.root, checkpoint.at) == (head.size, head.root, head.at)
    published = (shop.folder / ".remit" / "checkpoints" / "shop.txt").read_text()
    assert published.endswith(f"{head.note}\n")


async def test_events_are_integrated_while_the_process_goes_on(shop: Shop) -> None:
    loop, published = asyncio.get_running_loop(), asyncio.Event()
    async with Remit(shop.folder) as remit:
        key = CheckpointKey(bytes(32), origin("1", "shop"))

        def publish(_note: str) -> None:
            loop.call_soon_threadsafe(published.set)

        last = last_published(shop.folder / ".remit", key)
        sequencer = Sequencer(remit.database, remit.journal, key, tenant="shop", publish=publish, last=last)
        remit.journal.on_written = sequencer.noted
        await remit.run("writing", {"order": 3})
        async with asyncio.timeout(20):
            await published.wait()
        assert head_of(remit).size
        await sequencer.close()
        assert head_of(remit).size == len(hashes_of(remit)) == 8


async def test_what_is_published_later_is_stored_under_the_time_that_was_signed(shop: Shop) -> None:
    now = [system_clock()]
    async with Remit(shop.folder, clock=lambda: now[0]) as remit:
        await remit.run("writing", {"order": 1})
        await remit.sequencer.integrate()
        await remit.run("writing", {"order": 1})
        signed = await remit.sequencer.integrate()
        now[0] += PUBLISH_US
        await remit.sequencer.integrate()
        with remit.database.engine.connect() as connection:
            at, note = connection.execute(
                text("SELECT at, note FROM checkpoints WHERE size = :size"), {"size": signed.size}
            ).one()
    assert (at, note) == (signed.at, signed.note)
    assert open_checkpoint(note, verifier_key(shop)).at == at
    assert verify(shop.folder).findings == ()


async def test_two_processes_write_one_tree(shop: Shop) -> None:
    async with Remit(shop.folder) as one, Remit(shop.folder) as other:
        for _ in range(4):
            await asyncio.gather(one.run("writing", {"order": 4}), other.run("writing", {"order": 4}))
            await asyncio.gather(one.sequencer.integrate(), other.sequencer.integrate())
        await one.sequencer.integrate()
        assert head_of(one).size == len(hashes_of(one)) == 80
        assert head_of(one).root == root_over(hashes_of(one))


async def test_a_tree_that_can_not_grow_keeps_no_run_from_ending(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    async with Remit(shop.folder) as remit:
        with remit.database.engine.begin() as connection:
            connection.execute(text("DROP TABLE tiles"))
        assert (await remit.run("writing", {"order": 1})).outcome == "completed"
    assert "the record's tree does not grow now" in caplog.text


def event_row(run: str) -> dict[str, Any]:
    return {"run": run, "hash": run.encode().ljust(32)}


INSERT = text(
    "INSERT INTO events (tenant, run, n, type, at, hash, header, body)"
    " VALUES ('shop', :run, 1, 'run.opened', 0, :hash, '', '')"
)


@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_a_transaction_under_way_is_waited_for(shop: Shop, database_url: str, ending: str) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite's transactions come one after the other")
    async with Remit(shop.folder) as remit:
        with remit.database.engine.connect() as slow, remit.database.engine.connect() as fast:
            slow.execute(INSERT, event_row("slow"))
            fast.execute(INSERT, event_row("fast"))
            fast.commit()
            assert (await remit.sequencer.integrate()).size == 0
            fast.execute(INSERT, event_row("later"))
            fast.commit()
            assert (await remit.sequencer.integrate()).size == 0
            getattr(slow, ending)()
        head = await remit.sequencer.integrate()
        assert head.size == (3 if ending == "commit" else 2)
        assert head.root == root_over(hashes_of(remit))


async def test_the_register_takes_entries_of_several_processes(shop: Shop) -> None:
    async with Remit(shop.folder) as one, Remit(shop.folder) as other:
        for i in range(3):
            for remit in (one, other):
                draft = Draft(type=EventType.RECORD_EXPORTED, actor="person/lee", body={"number": i})
                await remit.register.append(draft)
        events = one.register.events()
    assert [event.header.n for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event.body["number"] for event in events] == [0, 0, 1, 1, 2, 2]


# Anchors


def note(size: int) -> str:
    return f"remit/1/shop\n{size}\nAAAA\n\n— remit/1/shop BBBB\n"


def test_a_folder_keeps_every_checkpoint(tmp_path: Path) -> None:
    publish = anchor("elsewhere", "shop", tmp_path)
    publish(note(1))
    publish(note(2))
    assert (tmp_path / "elsewhere" / "shop.txt").read_text() == note(1) + "\n" + note(2) + "\n"


def test_a_git_repository_gets_a_commit_for_each_checkpoint(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path / "anchors")], check=True)
    publish = anchor("git:anchors", "shop", tmp_path)
    publish(note(1))
    publish(note(2))
    log = subprocess.run(
        ["git", "-C", str(tmp_path / "anchors"), "log", "--format=%s"], capture_output=True, text=True, check=True
    )
    assert log.stdout.splitlines() == ["Checkpoint of 2 events", "Checkpoint of 1 events"]


def test_what_is_no_git_repository_is_named(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(StorageError, match="plain"):
        anchor("git:plain", "shop", Path("/") / tmp_path)(note(1))


def serve(
    answer: Callable[[str, bytes], int], authorized: Callable[[str, bytes, str], int] | None = None
) -> tuple[ThreadingHTTPServer, str]:
    class Store(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["If-None-Match"] == "*"
            known = self.headers.get("Authorization", "")
            self.send_response(answer(self.path, body) if authorized is None else authorized(self.path, body, known))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/anchors/"


def test_an_object_store_gets_an_object_for_each_checkpoint(tmp_path: Path) -> None:
    kept: dict[str, bytes] = {}

    def answer(path: str, body: bytes) -> int:
        if path in kept:
            return 412
        kept[path] = body
        return 201

    server, address = serve(answer)
    publish = anchor(address, "shop", tmp_path)
    for size in (1, 2, 2):
        publish(note(size))
    server.shutdown()
    server.server_close()
    assert kept == {f"/anchors/shop/{size:012}.txt": note(size).encode() for size in (1, 2)}


def test_what_an_address_holds_beside_its_place_is_in_no_message(tmp_path: Path) -> None:
    server, address = serve(lambda path, body: 503)
    exposed = address.replace("http://", "http://auditor:hunter2pass@") + "?sig=hunter3pass"
    for stop in (False, True):
        if stop:
            server.shutdown()
            server.server_close()
        with pytest.raises(StorageError, match=r"127\.0\.0\.1.*/anchors") as raised:
            anchor(exposed, "shop", tmp_path)(note(1))
        assert "hunter" not in raised.value.message


def test_a_store_is_told_the_name_and_password_of_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(_path: str, _body: bytes, authorization: str) -> int:
        asked.append(authorization)
        return 201

    server, address = serve(lambda path, body: 201, answer)
    kept = tmp_path / "netrc"
    kept.write_text("machine 127.0.0.1 login auditor password hunter2pass\n")
    monkeypatch.setenv("NETRC", str(kept))
    anchor(address, "shop", tmp_path)(note(1))
    assert asked == ["Basic " + base64.b64encode(b"auditor:hunter2pass").decode()]
    kept.write_text("machine\n\"")
    with pytest.raises(StorageError, match="can't be read"):
        anchor(address, "shop", tmp_path)(note(2))
    server.shutdown()
    server.server_close()


def test_a_store_that_refuses_is_named(tmp_path: Path) -> None:
    server, address = serve(lambda path, body: 503)
    with pytest.raises(StorageError, match="answers 503"):
        anchor(address, "shop", tmp_path)(note(1))
    server.shutdown()
    server.server_close()

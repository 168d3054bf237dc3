"""What is proved of the record holds for somebody who has nothing but the proof, the event and the key."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from threading import Thread

import httpx
import pytest

from project import Shop, make_shop, write_action
from remit import Remit
from remit.errors import StorageError
from remit.journal.merkle import node_hash
from remit.journal.notes import open_checkpoint
from remit.journal.proofs import Proofs
from remit.journal.tile_server import TileServer

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


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


def root_from(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.3.2, as it is written there."""
    fn, sn, r = index, size - 1, leaf
    for p in path:
        assert sn > 0
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0
    return r


async def test_every_event_of_a_run_can_be_proved_without_the_database(remit: Remit, shop: Shop) -> None:
    runs = [(await remit.run("writing", {"order": order})).run for order in (15, 15, 15, 15, 15, 15, 15, 15, 3)]
    await remit.sequencer.integrate()
    key = (shop.folder / ".remit" / "keys" / "record.pub").read_text().split()[0]
    proofs, indices = Proofs(remit.database, "shop"), set[int]()
    for run in (runs[0], runs[7], runs[8]):
        for event in remit.journal.reader.events(run):
            proof = proofs.inclusion(run, event.header.n)
            form, _, note = proof.text.partition("\n\n")
            version, index, *hashes = form.split("\n")
            assert version == "c2sp.org/tlog-proof@v1"
            checkpoint = open_checkpoint(note, key)
            leaf = hashlib.sha256(b"\x00" + proof.header).digest()
            number = int(index.removeprefix("index "))
            path = [base64.b64decode(one) for one in hashes]
            assert root_from(leaf, number, checkpoint.size, path) == checkpoint.root
            indices.add(number)
    assert len(indices) == 32 + 32 + 8
    assert max(indices) > 256


async def test_what_is_not_in_the_tree_is_not_proved(remit: Remit) -> None:
    run = (await remit.run("writing", {"order": 1})).run
    proofs = Proofs(remit.database, "shop")
    await remit.sequencer.integrate()
    for asked, n in ((run, 99), ("run-0", 1)):
        with pytest.raises(StorageError) as refused:
            proofs.inclusion(asked, n)
        assert refused.value.code == "not_integrated"
    with pytest.raises(StorageError):
        proofs.consistency(99)


@pytest.fixture
def address(remit: Remit) -> Iterator[str]:
    server = TileServer(("127.0.0.1", 0), Proofs(remit.database, "shop"))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_the_tree_is_served_as_far_as_its_checkpoint_goes(remit: Remit, shop: Shop, address: str) -> None:
    async with httpx.AsyncClient(base_url=address) as client:
        assert (await client.get("/checkpoint")).status_code == 404
        for _ in range(9):
            await remit.run("writing", {"order": 14})
        head = await remit.sequencer.integrate()
        assert head.size == 270
        assert (await client.get("/checkpoint")).text == head.note
        full = await client.get("/tile/0/000")
        partial = await client.get("/tile/0/001.p/14")
        above = await client.get("/tile/1/000.p/1")
        assert len(full.content) == 256 * 32
        assert len(partial.content) == 14 * 32
        assert len(above.content) == 32
        assert "immutable" in full.headers["cache-control"]
        for beyond in (
            "/tile/0/001", "/tile/0/001.p/15", "/tile/0/002.p/1", "/tile/1/000", "/tile/0/000.p/256", "/tile/0/000.p/0",
            "/tile/64/000", "/tile/0/0", "/tile/0/x001", "/tile/0/../../remit.toml", "/", "/tile/5/x999/x999/x999/x999/999",
        ):  # fmt: skip
            assert (await client.get(beyond)).status_code == 404, beyond
        # More digits than Python turns into a number (CVE-2020-10735).
        assert (await client.get(f"/tile/0/{'x000/' * 1500}000")).status_code == 404
        assert (await client.post("/checkpoint")).status_code == 501

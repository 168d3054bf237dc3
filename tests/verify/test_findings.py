"""What is wrong with a record is told by its code, with the run and event that it is about."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from record_writer import RecordWriter, Signer, fill, leaf, sqlite_record, tree_root

from remit_verify import Keys, Options, Report, Unreadable, verify
from remit_verify.notes import VerifierKey


@pytest.fixture
def writer(tmp_path: Path) -> RecordWriter:
    """A record that another writer than Remit has made: 3 tenants, runs side by side, erased ones among them."""
    made = sqlite_record(tmp_path / "project")
    fill(made, runs=48, events=9, tenants=("shop", "büro/1"), every=100)
    return made


def codes(report: Report) -> set[str]:
    return {finding.code for finding in report.findings}


def verified(writer: RecordWriter, **more: Any) -> Report:
    writer.connection.commit()
    return verify(writer.folder, **more)


def test_a_record_that_another_writer_made_from_the_specification_verifies(writer: RecordWriter) -> None:
    report = verified(writer)
    assert report.findings == ()
    assert (report.verified, report.runs, [one.tenant for one in report.tenants]) == (True, 48, ["büro/1", "shop"])
    shop = report.tenants[1]
    hashes = [hashed for _, hashed in writer.leaves["shop"]]
    assert (shop.size, shop.root, shop.behind) == (len(hashes), tree_root(hashes).hex(), 0)
    assert report.bodies + report.erased == report.events
    assert report.erased == 18
    assert shop.checkpoint is not None
    assert shop.checkpoint.size == shop.size


def test_events_behind_the_last_checkpoint_are_counted_and_chained(writer: RecordWriter) -> None:
    writer.open("run-late", "shop")
    for step in range(3):
        writer.append("run-late", "call.decided", {"step": step})
    report = verified(writer)
    assert report.findings == ()
    assert [one.behind for one in report.tenants] == [0, 3]


def test_an_empty_record_verifies_and_a_tree_grows_over_more_than_one_level(tmp_path: Path) -> None:
    writer = sqlite_record(tmp_path / "project")
    assert verified(writer).findings == ()
    writer.open("run-long", "shop")
    for step in range(700):
        writer.append("run-long", "call.decided", {"step": step})
    writer.checkpoint("shop")
    report = verified(writer)
    assert report.findings == ()
    assert report.tenants[0].size == 700


SHOP_RUN = "run-000010"


def header_of(writer: RecordWriter, run: str, n: int) -> dict[str, Any]:
    row = writer.connection.execute("SELECT header FROM events WHERE run = ? AND n = ?", (run, n)).fetchone()
    return json.loads(row[0])


def put_header(writer: RecordWriter, run: str, n: int, header: bytes) -> None:
    sql = "UPDATE events SET header = ?, hash = ? WHERE run = ? AND n = ?"
    writer.connection.execute(sql, (header, leaf(header), run, n))


NOTHING: dict[str, str] = {}
HEADERS: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("`v`", lambda h: {k: v for k, v in h.items() if k != "v"}),
    ("version 2", lambda h: h | {"v": 2}),
    ("version True", lambda h: h | {"v": True}),
    ("`n` is no number", lambda h: h | {"n": 0}),
    ("`n` is no number", lambda h: h | {"n": 2.0}),
    ("`at` is no time", lambda h: h | {"at": "1"}),
    ("`actor` is no text", lambda h: h | {"actor": None}),
    ("`prev` is not", lambda h: h | {"prev": ""}),
    ("`prev` is not", lambda h: h | {"prev": h["prev"].upper()}),
    ("`body` is no hash", lambda h: h | {"body": "0" * 63}),
    ("`span` is not of its type", lambda h: h | {"span": ""}),
    ("`verdict` is not of its type", lambda h: h | {"verdict": 1}),
    ("`tokens_in` is not of its type", lambda h: h | {"tokens_in": 0}),
    ("`tokens_out` is not of its type", lambda h: h | {"tokens_out": True}),
    ("`refs` is not of its type", lambda h: h | {"refs": NOTHING}),
    ("`refs` is not of its type", lambda h: h | {"refs": {"tool": 1}}),
    ("`sealed` is not of its type", lambda h: h | {"sealed": ""}),
    ("no field `more`", lambda h: h | {"more": 1}),
    ("no object", lambda h: [h]),
]


@pytest.mark.parametrize(("why", "change"), HEADERS)
def test_a_header_with_other_fields_than_the_specified_is_found(
    writer: RecordWriter, why: str, change: Callable[[dict[str, Any]], Any]
) -> None:
    put_header(writer, SHOP_RUN, 3, json.dumps(change(header_of(writer, SHOP_RUN, 3))).encode())
    found = [one for one in verified(writer).findings if one.code == "header_form"]
    assert len(found) == 1
    assert why in found[0].wrong
    assert (found[0].run, found[0].n, found[0].tenant) == (SHOP_RUN, 3, "shop")


@pytest.mark.parametrize("data", [b"", b"\xff", b"{", b"[" * 9000, b'{"v":1,"v":1}', b" {}", b"{} ", b'{"at":NaN}', b"1" * 5000])
def test_a_header_that_is_no_plain_json_object_is_found(writer: RecordWriter, data: bytes) -> None:
    put_header(writer, SHOP_RUN, 3, data)
    assert "header_form" in codes(verified(writer))


def run_sql(sql: str, *parameters: Any) -> Callable[[RecordWriter], Any]:
    return lambda writer: writer.connection.execute(sql, parameters)


def sign_again(writer: RecordWriter, tenant: str, root: bytes, *, signer: Signer | None = None) -> None:
    """The last checkpoint, stored anew with another root or signer."""
    size = len(writer.leaves[tenant])
    note = (signer or writer.signer(tenant)).sign(size, root, writer.now)
    writer.connection.execute("UPDATE checkpoints SET note = ? WHERE tenant = ? AND size = ?", (note, tenant, size))


def another_signer(writer: RecordWriter) -> None:
    root = tree_root([hashed for _, hashed in writer.leaves["shop"]])
    sign_again(writer, "shop", root, signer=Signer(writer.signer("shop").name, Ed25519PrivateKey.generate()))


def key_of_another_tenant(writer: RecordWriter) -> None:
    root = tree_root([hashed for _, hashed in writer.leaves["shop"]])
    sign_again(writer, "shop", root, signer=writer.signer("büro/1"))


def sign_older(writer: RecordWriter) -> None:
    """A checkpoint that names a time before that of a smaller one, signed and stored as it should be."""
    root = tree_root([hashed for _, hashed in writer.leaves["shop"]])
    size = len(writer.leaves["shop"])
    note = writer.signer("shop").sign(size, root, 5)
    sql = "UPDATE checkpoints SET note = ?, at = 5 WHERE tenant = 'shop' AND size = ?"
    writer.connection.execute(sql, (note, size))


def hand_back(writer: RecordWriter) -> None:
    writer.connection.execute("UPDATE run_keys SET sealed_key = body_key WHERE sealed_key IS NULL")


def close_again(writer: RecordWriter) -> None:
    writer.close("run-000012")
    writer.checkpoint("shop")


def wrong_count(writer: RecordWriter) -> None:
    writer.open("run-wrong", "shop")
    writer.append("run-wrong", "run.closed", {"events": 7}, verdict="completed")
    writer.connection.execute("UPDATE runs SET status = 'closed', outcome = 'completed' WHERE run = 'run-wrong'")
    writer.checkpoint("shop")


def two_tenants(writer: RecordWriter) -> None:
    writer.chains[SHOP_RUN].tenant = "büro/1"
    writer.append(SHOP_RUN, "case.decided", {})


def signed_by_another_tenant(writer: RecordWriter) -> None:
    """The name of the one tenant in the text, the listed key of the other below it."""
    root = tree_root([hashed for _, hashed in writer.leaves["shop"]])
    text = f"{writer.signer('shop').name}\n{len(writer.leaves['shop'])}\n{base64.b64encode(root).decode()}\n"
    other = writer.signer("büro/1")
    signature = base64.b64encode(other.key_id + writer.private.sign(text.encode())).decode()
    sql = "UPDATE trees SET note = ? WHERE tenant = 'shop'"
    writer.connection.execute(sql, (f"{text}\n— {other.name} {signature}\n",))


def put_erased_key_back(writer: RecordWriter) -> None:
    key = writer.wrap(writer.chains["run-000016"].body_key, "body/run-000016")
    writer.connection.execute("UPDATE run_keys SET body_key = ? WHERE run = 'run-000016'", (key,))


def name_a_field_twice(writer: RecordWriter) -> None:
    """All as it was, and the hash put right: only which of the two counts is open."""
    header = json.dumps(header_of(writer, SHOP_RUN, 9))
    put_header(writer, SHOP_RUN, 9, f'{{"actor": "somebody", {header[1:]}'.encode())


def use_a_revoked_key(writer: RecordWriter) -> None:
    writer.open("run-late", "shop")
    writer.append("run-late", "call.decided", {}, refs={"key": "kid-1"})
    writer.append("register-shop", "key.revoked", {}, refs={"key": "kid-1"})
    for _ in range(2):
        writer.now += 61_000_000
        writer.append("run-late", "call.decided", {}, refs={"key": "kid-1"})


def write_on(writer: RecordWriter) -> None:
    writer.append("run-000016", "case.decided", {})
    writer.checkpoint("shop")


CASES: list[tuple[str, set[str], Callable[[RecordWriter], Any]]] = [
    ("a fork", {"fork", "checkpoint_root", "checkpoint_missing"}, lambda w: sign_again(w, "shop", bytes(32))),
    ("another key", {"checkpoint_wrong", "checkpoint_missing"}, another_signer),
    ("the key of another tenant", {"checkpoint_form", "checkpoint_missing"}, key_of_another_tenant),
    ("keys that are back", {"key_kept", "key_wrong"}, hand_back),
    ("a run closed twice", {"run_closed"}, close_again),
    ("a key of another tenant", {"checkpoint_wrong"}, signed_by_another_tenant),
    ("an erased key that is back", {"key_kept"}, put_erased_key_back),
    ("a field twice", {"header_form"}, name_a_field_twice),
    ("originals that are gone", {"sealed_wrong"}, run_sql("UPDATE events SET sealed = NULL WHERE seq = 1")),
    ("originals that are too much", {"sealed_wrong"}, run_sql("UPDATE events SET sealed = body WHERE seq = 2")),
    ("another root", {"tree_root"}, run_sql("UPDATE trees SET root = zeroblob(32)")),
    ("another last event", {"tree_seq"}, run_sql("UPDATE trees SET seq = seq + 1")),
    ("another first event", {"tile_wrong"}, run_sql("UPDATE tiles SET first_seq = first_seq + 1")),
    ("a call by a revoked key", {"key_revoked"}, use_a_revoked_key),
    ("an event of an erased run", {"event_after_erasure"}, write_on),
    ("a wrong count", {"run_count"}, wrong_count),
    ("a run of two tenants", {"columns_differ"}, two_tenants),
    ("a closed register", {"run_closed"}, lambda w: w.append("register-shop", "run.closed", {"events": 9})),
    ("a register with a row", {"run_row"}, run_sql("INSERT INTO runs VALUES ('register-shop', 'shop', 'running', NULL)")),
    ("keys without events", {"keys_without_events"}, run_sql("INSERT INTO run_keys VALUES ('run-none', NULL, NULL)")),
    ("a row without events", {"run_without_events"}, run_sql("INSERT INTO runs VALUES ('run-none', 'shop', 'held', NULL)")),
    ("an outcome of an open run", {"run_row"}, run_sql("UPDATE runs SET outcome = 'done' WHERE status = 'running'")),
    ("an older checkpoint behind", {"checkpoint_order"}, sign_older),
    ("a checkpoint that is said to be older", {"checkpoint_form"}, run_sql("UPDATE checkpoints SET at = at - 1")),
    ("a tree that is said to be older", {"checkpoint_form"}, run_sql("UPDATE trees SET at = at - 1")),
    ("no journal", {"journal_missing"}, run_sql("DELETE FROM about")),
    *(
        (f"no table {table}", {"table_missing"}, run_sql(f"DROP TABLE {table}"))
        for table in ("about", "checkpoints", "run_keys", "runs", "tiles", "trees")
    ),
]


@pytest.mark.parametrize(("expected", "tamper"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_was_done_to_a_record_is_told_by_its_code(
    writer: RecordWriter, expected: set[str], tamper: Callable[[RecordWriter], Any]
) -> None:
    tamper(writer)
    assert codes(verified(writer)) >= expected


def test_only_calls_that_came_in_by_a_key_after_it_was_revoked_are_told(writer: RecordWriter) -> None:
    writer.open("run-late", "shop")
    for key in ("kid-1", "kid-2"):
        writer.append("run-late", "call.decided", {}, refs={"key": key})
    writer.append("register-shop", "key.revoked", {}, refs={"key": "kid-1"})
    # It was let in before, and located its object for most of a minute.
    writer.now += 59_000_000
    writer.append("run-late", "call.decided", {}, refs={"key": "kid-1"})
    writer.now += 59_000_000
    writer.append("run-late", "call.decided", {}, refs={"key": "kid-2"})
    # What another chain says of keys counts for nothing.
    writer.append("run-late", "key.revoked", {}, refs={"key": "kid-2"})
    writer.now += 61_000_000
    writer.append("run-late", "call.decided", {}, refs={"key": "kid-2"})
    assert verified(writer).findings == ()
    writer.append("run-late", "call.decided", {}, refs={"key": "kid-1"})
    [finding] = verified(writer).findings
    assert (finding.code, finding.run, finding.n, finding.tenant) == ("key_revoked", "run-late", writer.chains["run-late"].n, "shop")


def test_one_deleted_event_is_told_with_its_leaf_and_its_run(writer: RecordWriter) -> None:
    leaves = [seq for seq, _ in writer.leaves["shop"]]
    seq, n = writer.connection.execute("SELECT seq, n FROM events WHERE run = ? AND n = 4", ("run-000036",)).fetchone()
    writer.connection.execute("DELETE FROM events WHERE seq = ?", (seq,))
    findings = verified(writer).findings
    missing = next(one for one in findings if one.code == "event_missing")
    assert (missing.run, missing.n, missing.wrong) == ("run-000036", n + 1, "event 4 is missing before it")
    differ = next(one for one in findings if one.code == "leaves_differ")
    assert f"from leaf {leaves.index(seq)} on" in differ.wrong
    assert "1 event is missing" in differ.wrong
    root = next(one for one in findings if one.code == "checkpoint_root" and one.where.endswith("stored"))
    sizes = [size for (size,) in writer.connection.execute("SELECT size FROM checkpoints WHERE tenant = 'shop'")]
    smaller = max(size for size in sizes if size <= leaves.index(seq))
    assert f"the last that holds has size {smaller}" in root.wrong


def test_swapped_put_in_and_changed_events_are_told_apart(writer: RecordWriter) -> None:
    shop = [seq for seq, _ in writer.leaves["shop"]]
    for first, second in ((-1, shop[20]), (shop[20], shop[24]), (shop[24], -1)):
        writer.connection.execute("UPDATE events SET seq = ? WHERE seq = ?", (first, second))
    assert "their order is another" in said(verified(writer), "leaves_differ")


def said(report: Report, code: str) -> str:
    return next(one.wrong for one in report.findings if one.code == code)


def test_a_changed_event_with_everything_put_right_but_the_checkpoints_is_found(writer: RecordWriter) -> None:
    """Whoever holds the master key can rewrite the chain, the tiles and the root; not what was signed."""
    writer.private = Ed25519PrivateKey.generate()
    header = header_of(writer, "run-000010", 9)
    put_header(writer, SHOP_RUN, 9, json.dumps(header | {"actor": "somebody"}).encode())
    leaves = writer.connection.execute("SELECT seq, hash FROM events WHERE tenant = 'shop' ORDER BY seq").fetchall()
    writer.leaves["shop"] = leaves
    writer.write_tiles("shop", leaves)
    writer.connection.execute("UPDATE trees SET root = ? WHERE tenant = 'shop'", (tree_root([h for _, h in leaves]),))
    assert codes(verified(writer)) == {"checkpoint_root"}


def test_a_record_cut_back_to_an_earlier_checkpoint_is_found_by_what_was_published_or_given(
    writer: RecordWriter, tmp_path: Path
) -> None:
    newest = writer.connection.execute("SELECT note FROM trees WHERE tenant = 'shop'").fetchone()[0]
    cut_back(writer)
    published = writer.published / "shop.txt"
    report = verified(writer)
    assert codes(report) == {"events_truncated", "checkpoint_missing"}
    kept = published.read_text()
    published.write_text(kept[: kept.index("\n\n", kept.index("\n\n") + 2) + 2])
    assert verified(writer).findings == ()
    assert "signed more than the" in said(verified(writer, since={"mine.txt": newest}), "events_truncated")
    published.unlink()
    assert codes(verified(writer)) <= {"published_missing"}


def forget_trees(writer: RecordWriter) -> None:
    """What an attacker with the database alone does to take a run out of it."""
    for table in ("events", "runs", "run_keys"):
        writer.connection.execute(f"DELETE FROM {table} WHERE run = ?", (SHOP_RUN,))
    for table in ("trees", "tiles", "checkpoints"):
        writer.connection.execute(f"DELETE FROM {table}")
    writer.connection.commit()


def begin_tree_anew(writer: RecordWriter) -> None:
    forget_trees(writer)
    writer.connection.execute(
        "INSERT INTO trees VALUES ('shop', 0, 0, ?, '', 0)", (hashlib.sha256(b"").digest(),)
    )


@pytest.mark.parametrize(("change", "code"), [(forget_trees, "tree_missing"), (begin_tree_anew, "events_unsigned")])
def test_events_that_nobody_has_signed_are_a_finding_in_a_copy_without_the_published_file(
    writer: RecordWriter, change: Callable[[RecordWriter], None], code: str
) -> None:
    change(writer)
    writer.connection.commit()
    for file in writer.published.iterdir():
        file.unlink()
    report = verified(writer, keys=writer.keys)
    assert (code, "shop") in {(one.code, one.tenant) for one in report.findings}
    assert "backup" in said(report, code) or "Restore" in said(report, code)


def test_events_of_this_minute_may_still_be_on_their_way_into_the_tree(tmp_path: Path) -> None:
    writer = sqlite_record(tmp_path / "project")
    writer.open("run-new", "shop")
    writer.now = time.time_ns() // 1000
    writer.append("run-new", "run.opened", {})
    writer.connection.commit()
    assert verified(writer).findings == ()
    writer.now -= 120_000_000
    writer.open("run-old", "shop")
    writer.append("run-old", "run.opened", {})
    writer.connection.commit()
    assert codes(verified(writer)) == {"tree_missing"}


def empty_published(writer: RecordWriter) -> None:
    (writer.published / "shop.txt").write_text("")


def cut_published_away(writer: RecordWriter) -> None:
    """All but one checkpoint is gone, with the file."""
    cut_back(writer)
    (writer.published / "shop.txt").unlink()


def forget_checkpoints(writer: RecordWriter) -> None:
    writer.connection.execute("DELETE FROM checkpoints WHERE tenant = 'shop'")
    (writer.published / "shop.txt").unlink()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (empty_published, "published_missing"),
        (cut_published_away, "published_missing"),
        (forget_checkpoints, "published_missing"),
        (forget_checkpoints, "checkpoint_missing"),
    ],
)
def test_published_checkpoints_that_are_gone_are_a_finding_however_few_are_left(
    writer: RecordWriter, change: Callable[[RecordWriter], None], code: str
) -> None:
    change(writer)
    writer.connection.commit()
    assert code in codes(verified(writer))


def test_the_last_published_checkpoint_that_lies_with_the_keys_is_held_against_a_record_that_was_cut_back(
    writer: RecordWriter,
) -> None:
    newest = writer.connection.execute("SELECT note FROM trees WHERE tenant = 'shop'").fetchone()[0]
    (writer.keys / "checkpoints").mkdir()
    (writer.keys / "checkpoints" / "shop.txt").write_text(newest)
    assert verified(writer).findings == ()
    published = writer.published / "shop.txt"
    cut_back(writer)
    kept = published.read_text()
    published.write_text(kept[: kept.index("\n\n", kept.index("\n\n") + 2) + 2])
    report = verified(writer)
    assert codes(report) == {"events_truncated", "checkpoint_missing"}
    assert "backup" in said(report, "events_truncated")


def cut_back(writer: RecordWriter) -> None:
    """To the first checkpoint of the tenant, rows and all."""
    execute = writer.connection.execute
    size, at, note = execute("SELECT size, at, note FROM checkpoints WHERE tenant = 'shop' ORDER BY size").fetchone()
    leaves = writer.leaves["shop"][:size]
    execute("DELETE FROM events WHERE tenant = 'shop' AND seq > ?", (leaves[-1][0],))
    execute("DELETE FROM checkpoints WHERE tenant = 'shop' AND size > ?", (size,))
    for table in ("runs", "run_keys"):
        execute(f"DELETE FROM {table} WHERE run NOT IN (SELECT run FROM events)")
    execute(
        "UPDATE runs SET status = 'running', outcome = NULL"
        " WHERE run NOT IN (SELECT run FROM events WHERE type = 'run.closed')"
    )
    # The register was cut off too: what it said of the runs that are left must go with it.
    for run in [row[0] for row in execute("SELECT run FROM run_keys WHERE sealed_key IS NULL")]:
        execute("DELETE FROM run_keys WHERE run = ?", (run,))
        chain = writer.chains[run]
        keys = (writer.wrap(chain.body_key, f"body/{run}"), writer.wrap(chain.sealed_key, f"sealed/{run}"))
        execute("INSERT INTO run_keys VALUES (?, ?, ?)", (run, *keys))
    for run in [row[0] for row in execute("SELECT run FROM run_keys WHERE body_key IS NOT NULL")]:
        if writer.chains[run].tenant == "büro/1":
            register = {r[0] for r in execute("SELECT header FROM events WHERE run = 'register-büro/1'")}
            kinds = {json.loads(h)["type"] for h in register if json.loads(h)["refs"]["run"] == run}
            if "originals.dropped" in kinds:
                execute("UPDATE run_keys SET sealed_key = NULL WHERE run = ?", (run,))
            if "run.erased" in kinds:
                execute("UPDATE run_keys SET sealed_key = NULL, body_key = NULL WHERE run = ?", (run,))
    writer.write_tiles("shop", leaves)
    root = tree_root([hashed for _, hashed in leaves])
    execute(
        "UPDATE trees SET size = ?, seq = ?, root = ?, note = ?, at = ? WHERE tenant = 'shop'",
        (size, leaves[-1][0], root, note, at),
    )


def test_a_given_checkpoint_that_holds_is_what_the_record_is_unaltered_since(writer: RecordWriter) -> None:
    notes = writer.connection.execute("SELECT size, note FROM checkpoints WHERE tenant = 'shop' ORDER BY size").fetchall()
    many = "".join(f"{note}\n" for _, note in notes[:2])
    shop = verified(writer, since={"two.txt": many, "one.txt": notes[0][1]}).tenants[1]
    assert shop.given is not None
    assert (shop.given.size, shop.given.source) == (notes[1][0], "given in two.txt")


def test_given_checkpoints_of_a_fork_of_another_journal_or_by_another_key_are_findings(writer: RecordWriter) -> None:
    signer, size = writer.signer("shop"), len(writer.leaves["shop"])
    fork = verified(writer, since={"fork.txt": signer.sign(size, bytes(32))})
    assert codes(fork) == {"fork", "checkpoint_root"}
    foreign = Signer("remit/another/shop", writer.private)
    keys = Keys.read(writer.keys)
    listed = Keys(master=keys.master, verifiers=(*keys.verifiers, VerifierKey.parse(foreign.verifier_key)))
    assert codes(verified(writer, keys=listed, since={"x": foreign.sign(5, bytes(32))})) == {"checkpoint_form"}
    forged = Signer(signer.name, Ed25519PrivateKey.generate()).sign(5, bytes(32))
    assert codes(verified(writer, since={"x": forged})) == {"checkpoint_wrong"}
    with pytest.raises(Unreadable, match="no checkpoint"):
        verified(writer, since={"empty.txt": "\n"})


def test_a_checkpoint_names_the_time_that_it_was_signed_also_where_no_database_stands_beside_it(writer: RecordWriter) -> None:
    size, at, note = writer.connection.execute(
        "SELECT size, at, note FROM checkpoints WHERE tenant = 'shop' ORDER BY size DESC LIMIT 1"
    ).fetchone()
    shop = verified(writer, since={"one.txt": note}).tenants[1]
    for found in (shop.checkpoint, shop.given):
        assert found is not None
        assert (found.size, found.at, found.at_signed) == (size, at, True)


def test_checkpoints_of_before_times_were_signed_hold_and_their_time_is_not_taken_for_signed(writer: RecordWriter) -> None:
    """A record that was begun by an earlier version, and is gone on with by this one."""
    execute = writer.connection.execute
    rows = execute("SELECT size, at, note FROM checkpoints WHERE tenant = 'shop' ORDER BY size").fetchall()
    early = {size: writer.signer("shop").sign(size, base64.b64decode(note.split("\n")[2])) for size, _, note in rows[:-1]}
    for size, note in early.items():
        execute("UPDATE checkpoints SET note = ? WHERE tenant = 'shop' AND size = ?", (note, size))
    published = writer.published / "shop.txt"
    published.write_text("".join(f"{note}\n" for note in (*early.values(), rows[-1][2])))
    size, note = list(early.items())[-1]
    report = verified(writer, since={"early.txt": note})
    assert report.findings == ()
    shop = report.tenants[1]
    assert shop.checkpoint is not None
    assert shop.given is not None
    assert (shop.checkpoint.size, shop.checkpoint.at_signed) == (rows[-1][0], True)
    assert (shop.given.size, shop.given.at, shop.given.at_signed) == (size, None, False)


SPOILED: list[Callable[[str], str]] = [
    lambda note: note.replace("\n\n", "\n"),
    lambda note: note[:-1],
    lambda note: "",
    lambda note: note + note,
    lambda note: note.replace("at ", "at 0", 1),
    lambda note: note.replace("at ", "by ", 1),
]


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_stored_note_of_another_form_is_found(writer: RecordWriter, spoil: Callable[[str], str]) -> None:
    note = writer.connection.execute("SELECT note FROM trees WHERE tenant = 'shop'").fetchone()[0]
    writer.connection.execute("UPDATE trees SET note = ? WHERE tenant = 'shop'", (spoil(note),))
    assert "checkpoint_wrong" in codes(verified(writer))


def test_base64_that_is_written_in_another_way_is_no_signature(writer: RecordWriter) -> None:
    """The last character but one has bits that no byte needs: another one there decodes to the same bytes."""
    note = writer.connection.execute("SELECT note FROM trees WHERE tenant = 'shop'").fetchone()[0]
    at = note.rindex("=") - 1
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = note[:at] + alphabet[alphabet.index(note[at]) + 1] + note[at + 1 :]
    assert base64.b64decode(other.split()[-1]) == base64.b64decode(note.split()[-1])
    writer.connection.execute("UPDATE trees SET note = ? WHERE tenant = 'shop'", (other,))
    assert codes(verified(writer)) == {"checkpoint_wrong"}


def test_one_tenant_can_be_verified_alone(writer: RecordWriter) -> None:
    writer.connection.execute("UPDATE events SET type = 'x' WHERE tenant = 'büro/1' AND n = 2")
    assert verified(writer, options=Options(tenant="shop")).findings == ()
    assert codes(verified(writer, options=Options(tenant="büro/1"))) == {"columns_differ"}


def test_a_body_that_grows_without_end_when_it_is_opened_is_found(writer: RecordWriter) -> None:
    packed = b"\x01" + zstandard.compress(bytes(80 * 1024 * 1024))
    data = bytes(12) + AESGCM(writer.chains[SHOP_RUN].body_key).encrypt(bytes(12), packed, f"body/{SHOP_RUN}/2".encode())
    writer.connection.execute("UPDATE events SET body = ? WHERE run = ? AND n = 2", (data, SHOP_RUN))
    assert codes(verified(writer)) == {"body_wrong"}

"""Ways to tamper with a record, for somebody who can write to its database and files. Each is told by what it did.

Some are clumsy, some are thorough: they put hashes, chains, tiles and rows right again, all but what a key would be
needed for.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from record_writer import Signer, leaf, tree_root


@dataclass(frozen=True)
class Tampered:
    """A record at hand: `execute` takes statements with `?` and returns rows, if there are any."""

    execute: Callable[..., list[Any]]
    chance: Random
    master: bytes
    published: Path
    sqlite: bool

    def one(self, sql: str, *parameters: Any) -> Any:
        """Some row of those that a query gives."""
        ((count,),) = self.execute(f"SELECT count(*) FROM ({sql}) AS found", *parameters)
        return self.execute(f"{sql} ORDER BY 1 LIMIT 1 OFFSET ?", *parameters, self.chance.randrange(count))[0]

    def some_seq(self) -> int:
        return self.one("SELECT seq FROM events")[0]

    def signed_seq(self) -> int:
        """An event that some published checkpoint covers, far enough from the end to leave something behind it."""
        return self.one("SELECT seq FROM events WHERE seq < (SELECT max(seq) FROM events) - 40")[0]


def flipped(data: bytes, chance: Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def flip_in_event(to: Tampered) -> str:
    column = to.chance.choice(["hash", "header", "body", "sealed"])
    # What a destroyed key has encrypted is gone for good: nobody can tell a flipped bit in it, or cares.
    key = "sealed_key" if column == "sealed" else "body_key"
    seq, data = to.one(
        f"SELECT seq, {column} FROM events WHERE {column} IS NOT NULL"
        f" AND run IN (SELECT run FROM run_keys WHERE {key} IS NOT NULL)"
    )
    to.execute(f"UPDATE events SET {column} = ? WHERE seq = ?", flipped(bytes(data), to.chance), seq)
    return f"a bit of {column} of {seq}"


def flip_in_tree(to: Tampered) -> str:
    if to.chance.random() < 0.7:
        level, position, hashes = to.one("SELECT level, position, hashes FROM tiles")
        altered = flipped(bytes(hashes), to.chance)
        to.execute("UPDATE tiles SET hashes = ? WHERE level = ? AND position = ?", altered, level, position)
        return f"a bit of tile {level}/{position}"
    (root,) = to.one("SELECT root FROM trees")
    to.execute("UPDATE trees SET root = ?", flipped(bytes(root), to.chance))
    return "a bit of the root"


def flip_in_note(to: Tampered) -> str:
    where = to.chance.choice(["trees", "checkpoints", "published"])
    if where == "published":
        file = to.chance.choice(sorted(to.published.iterdir()))
        data = file.read_bytes().rstrip(b"\n")
        file.write_bytes(flipped(data, to.chance) + b"\n\n")
        return "a bit of the published file"
    size, note = to.one(f"SELECT size, note FROM {where}")
    while True:
        try:
            altered = flipped(note.encode(), to.chance).decode()
        except UnicodeDecodeError:
            continue
        if "\0" not in altered:
            break
    to.execute(f"UPDATE {where} SET note = ? WHERE size = ?", altered, size)
    return f"a bit of the note of {size} in {where}"


def change_field(to: Tampered) -> str:
    """A field of a header, its hash and columns put right; half of the time the chain behind it too."""
    seq, run, header = to.one("SELECT seq, run, header FROM events")
    fields = json.loads(bytes(header))
    name = to.chance.choice(["actor", "verdict", "at", "cost_microusd", "body", "type", "extra", "prev", "refs"])
    if name in {"at", "cost_microusd"}:
        fields[name] = fields.get(name, 0) + to.chance.choice([-7, 1, 10**6])
    elif name in {"body", "prev"}:
        fields[name] = to.chance.randbytes(32).hex()
    elif name == "refs":
        fields.setdefault(name, {})["policy"] = to.chance.randbytes(8).hex()
    else:
        fields[name] = fields.get(name, "") + "x"
    _replace(to, seq, fields)
    if to.chance.random() < 0.5:
        _chain_anew(to, run)
    return f"{name} of {seq}"


def change_and_rebuild(to: Tampered) -> str:
    """As thorough as can be without the key of the checkpoints: chain, tiles and root are those of the change."""
    seq = to.signed_seq()
    ((run, header),) = to.execute("SELECT run, header FROM events WHERE seq = ?", seq)
    fields = json.loads(bytes(header))
    fields["actor"] += "x"
    _replace(to, seq, fields)
    _chain_anew(to, run)
    _tree_anew(to)
    return f"actor of {seq}, and everything that follows from it"


def change_body(to: Tampered) -> str:
    """Another body, encrypted under the key of the run, or the body of another event."""
    seq, run, n, key = to.one(
        "SELECT e.seq, e.run, e.n, k.body_key FROM events e JOIN run_keys k ON k.run = e.run WHERE k.body_key IS NOT NULL"
    )
    if to.chance.random() < 0.5:
        opened = AESGCM(to.master).decrypt(bytes(key)[:12], bytes(key)[12:], f"body/{run}".encode())
        plain = b"\0" + os.urandom(16) + b'{"amount": "1.00"}'
        nonce = os.urandom(12)
        body = nonce + AESGCM(opened).encrypt(nonce, plain, f"body/{run}/{n}".encode())
    else:
        (body,) = to.one("SELECT body FROM events WHERE seq <> ?", seq)
    to.execute("UPDATE events SET body = ? WHERE seq = ?", bytes(body), seq)
    return f"the body of {seq}"


def take_originals(to: Tampered) -> str:
    seq = to.one("SELECT seq FROM events WHERE sealed IS NOT NULL")[0]
    to.execute("UPDATE events SET sealed = NULL WHERE seq = ?", seq)
    return f"the originals of {seq}"


def delete_event(to: Tampered) -> str:
    seq = to.some_seq()
    ((run, n),) = to.execute("SELECT run, n FROM events WHERE seq = ?", seq)
    to.execute("DELETE FROM events WHERE seq = ?", seq)
    if to.chance.random() < 0.5:
        _close_gap(to, run, n)
    return f"event {seq} is gone"


def swap_events(to: Tampered) -> str:
    first = to.signed_seq()
    second = to.one("SELECT seq FROM events WHERE seq > ?", first)[0]
    _move(to, first, -1)
    _move(to, second, first)
    _move(to, -1, second)
    return f"{first} and {second} are swapped"


def move_event(to: Tampered) -> str:
    seq = to.signed_seq()
    (last,) = to.execute("SELECT max(seq) FROM events")[0]
    _move(to, seq, last + 1)
    return f"{seq} is behind the end"


def plain(value: Any) -> Any:
    """Bytes, where a driver gives a view of them."""
    return value.tobytes() if isinstance(value, memoryview) else value


def copy_event(to: Tampered) -> str:
    """Into another run, at its end or at its beginning; as it is, or with a header that says so."""
    seq = to.some_seq()
    other = to.one("SELECT run, tenant FROM runs")[0]
    row = to.execute("SELECT tenant, run, n, type, at, hash, header, body, sealed FROM events WHERE seq = ?", seq)[0]
    ends = to.execute("SELECT n, hash FROM events WHERE run = ? ORDER BY n DESC LIMIT 1", other)
    tenant, _, _, kind, at, hashed, header, body, sealed = map(plain, row)
    n = ends[0][0] + 1 if ends else 1
    if to.chance.random() < 0.5:
        fields = json.loads(header) | {"run": other, "n": n, "prev": bytes(ends[0][1]).hex() if ends else ""}
        header = json.dumps(fields).encode()
        hashed = leaf(header)
    to.execute(
        "INSERT INTO events (tenant, run, n, type, at, hash, header, body, sealed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *(tenant, other, n, kind, at, hashed, header, body, sealed),
    )
    return f"a copy of {seq} in {other}"


def cut_events(to: Tampered) -> str:
    seq = to.signed_seq()
    to.execute("DELETE FROM events WHERE seq > ?", seq)
    if to.chance.random() < 0.5:
        _rows_anew(to)
    return f"events behind {seq} are gone"


def cut_tree_too(to: Tampered) -> str:
    """Events, tiles and tree, as if nothing had ever been behind; only the checkpoints still say so."""
    seq = to.signed_seq()
    to.execute("DELETE FROM events WHERE seq > ?", seq)
    _rows_anew(to)
    _tree_anew(to)
    return f"events behind {seq} are gone from the tree too"


def cut_everything(to: Tampered) -> str:
    """Back to an earlier checkpoint, with its own note: in the database, nothing tells."""
    sizes = sorted(to.execute("SELECT size, note, at FROM checkpoints"))
    size, note, at = to.chance.choice(sizes[:-1])
    last = to.execute("SELECT seq FROM events ORDER BY seq LIMIT ?", size)[-1][0]
    to.execute("DELETE FROM events WHERE seq > ?", last)
    to.execute("DELETE FROM checkpoints WHERE size > ?", size)
    _rows_anew(to)
    _tree_anew(to)
    to.execute("UPDATE trees SET note = ?, at = ?", note, at)
    return f"back to the checkpoint of size {size}"


def delete_run(to: Tampered) -> str:
    run = to.one("SELECT run FROM runs")[0]
    for table in ("events", "runs", "run_keys"):
        to.execute(f"DELETE FROM {table} WHERE run = ?", run)
    thorough = to.chance.random() < 0.5
    if thorough:
        _tree_anew(to)
    return f"run {run} is gone{' from the tree too' if thorough else ''}"


def sign_with_another_key(to: Tampered) -> str:
    size, note = to.one("SELECT size, note FROM checkpoints")
    name, _, root = note.split("\n")[:3]
    forged = Signer(name, Ed25519PrivateKey.generate()).sign(size, base64.b64decode(root))
    table = "trees" if to.execute("SELECT 1 FROM trees WHERE size = ?", size) and to.chance.random() < 0.5 else "checkpoints"
    to.execute(f"UPDATE {table} SET note = ? WHERE size = ?", forged, size)
    return f"the note of {size} in {table} is signed by another key"


def rewrite_checkpoint(to: Tampered) -> str:
    what = to.chance.choice(["row", "size", "at", "note"])
    size, note = to.one("SELECT size, note FROM checkpoints")
    if what == "row":
        to.execute("DELETE FROM checkpoints WHERE size = ?", size)
    elif what == "size":
        to.execute("UPDATE checkpoints SET size = ? WHERE size = ?", size + 7, size)
    elif what == "at":
        to.execute("UPDATE checkpoints SET at = at + ? WHERE size = ?", to.chance.choice([-1, 1]), size)
    else:
        other = to.one("SELECT note FROM checkpoints WHERE size <> ?", size)[0]
        to.execute("UPDATE checkpoints SET note = ? WHERE size = ?", other, size)
    return f"the {what} of the checkpoint of size {size} {note[:8]}"


def move_tile(to: Tampered) -> str:
    level, position = to.one("SELECT level, position FROM tiles")
    place = (level, position)
    what = to.chance.choice(["position", "level", "first_seq", "gone", "more", "swapped"])
    at = " WHERE level = ? AND position = ?"
    if what in {"position", "level"}:
        to.execute(f"UPDATE tiles SET {what} = {what} + 50{at}", *place)
    elif what == "first_seq":
        to.execute(f"UPDATE tiles SET first_seq = coalesce(first_seq, 0) + 1{at}", *place)
    elif what == "gone":
        to.execute(f"DELETE FROM tiles{at}", *place)
    elif what == "more":
        to.execute(
            "INSERT INTO tiles (tenant, level, position, hashes, first_seq) SELECT tenant, level + 3, position + 1,"
            f" hashes, first_seq FROM tiles{at}",
            *place,
        )
    else:
        (other, hashes) = to.one("SELECT position, hashes FROM tiles WHERE level = 0")
        to.execute("UPDATE tiles SET hashes = ? WHERE level = 0 AND position = ?", bytes(hashes)[::-1], other)
    return f"{what} of tile {place}"


def change_tree_row(to: Tampered) -> str:
    what = to.chance.choice(["size", "seq", "root", "gone"])
    if what == "gone":
        to.execute("DELETE FROM trees")
    elif what == "root":
        to.execute("UPDATE trees SET root = ?", to.chance.randbytes(32))
    else:
        to.execute(f"UPDATE trees SET {what} = {what} + ?", to.chance.choice([-300, -1, 1, 300]))
    return f"{what} of the tree"


def change_run_row(to: Tampered) -> str:
    run = to.one("SELECT run FROM runs")[0]
    what = to.chance.choice(["outcome", "status", "tenant", "gone", "renamed"])
    if what == "outcome":
        to.execute("UPDATE runs SET outcome = 'excellent' WHERE run = ?", run)
    elif what == "status":
        to.execute("UPDATE runs SET status = CASE status WHEN 'closed' THEN 'ready' ELSE 'closed' END WHERE run = ?", run)
    elif what == "tenant":
        to.execute("UPDATE runs SET tenant = 'other' WHERE run = ?", run)
    elif what == "gone":
        to.execute("DELETE FROM runs WHERE run = ?", run)
    else:
        to.execute("UPDATE runs SET run = 'run-that-never-was' WHERE run = ?", run)
    return f"{what} of the row of {run}"


def change_key(to: Tampered) -> str:
    column = to.chance.choice(["body_key", "sealed_key"])
    run, key = to.one(f"SELECT run, {column} FROM run_keys WHERE {column} IS NOT NULL")
    what = to.chance.choice(["swapped", "gone", "destroyed", "flipped", "other", "put back"])
    if what == "put back":
        # As if from a backup, after it was destroyed for good.
        run = to.one("SELECT run FROM run_keys WHERE sealed_key IS NULL")[0]
        wrapped = AESGCM(to.master).encrypt(bytes(12), os.urandom(32), f"sealed/{run}".encode())
        to.execute("UPDATE run_keys SET sealed_key = ? WHERE run = ?", bytes(12) + wrapped, run)
    elif what == "swapped":
        other = to.one(f"SELECT {column} FROM run_keys WHERE {column} IS NOT NULL AND run <> ?", run)[0]
        to.execute(f"UPDATE run_keys SET {column} = ? WHERE run = ?", bytes(other), run)
    elif what == "gone":
        to.execute("DELETE FROM run_keys WHERE run = ?", run)
    elif what == "destroyed":
        to.execute(f"UPDATE run_keys SET {column} = NULL WHERE run = ?", run)
    elif what == "flipped":
        to.execute(f"UPDATE run_keys SET {column} = ? WHERE run = ?", flipped(bytes(key), to.chance), run)
    else:
        # A good key for nothing that it has encrypted; where that is nothing, nobody is wronged.
        nonce = os.urandom(12)
        wrapped = nonce + AESGCM(to.master).encrypt(nonce, os.urandom(32), f"body/{run}".encode())
        to.execute("UPDATE run_keys SET body_key = ? WHERE run = ? AND body_key IS NOT NULL", wrapped, run)
        if not to.execute("SELECT 1 FROM run_keys WHERE run = ? AND body_key IS NOT NULL", run):
            to.execute("DELETE FROM run_keys WHERE run = ?", run)
    return f"{column} of {run} {what}"


def change_register(to: Tampered) -> str:
    seq, run, n, kind = to.one("SELECT seq, run, n, type FROM events WHERE run LIKE 'register-%'")
    if to.chance.random() < 0.6:
        to.execute("DELETE FROM events WHERE seq = ?", seq)
        _close_gap(to, run, n)
        return f"{kind} is gone from the register"
    ((header,),) = to.execute("SELECT header FROM events WHERE seq = ?", seq)
    _replace(to, seq, json.loads(bytes(header)) | {"refs": {"run": "run-that-never-was"}})
    _chain_anew(to, run)
    return f"{kind} of the register is about another run"


def change_column(to: Tampered) -> str:
    seq = to.some_seq()
    column = to.chance.choice(["type", "at", "n", "tenant", "run"])
    value = "n + 1000" if column == "n" else "at + 1" if column == "at" else "'other'"
    to.execute(f"UPDATE events SET {column} = {value} WHERE seq = ?", seq)
    return f"column {column} of {seq}"


def change_journal(to: Tampered) -> str:
    to.execute("UPDATE about SET value = 'another' WHERE name = 'id'")
    return "the journal is another"


def make_odd(to: Tampered) -> str:
    """What no column should ever hold; only SQLite takes it."""
    table, column, value = to.chance.choice(
        [
            ("events", "header", "text"),
            ("events", "body", 7),
            ("events", "hash", b"short"),
            ("events", "at", "text"),
            ("events", "n", 2**62),
            ("events", "tenant", b"\xff\xfe"),
            ("events", "run", b"bytes"),
            ("events", "sealed", "text"),
            ("tiles", "hashes", "text"),
            ("tiles", "first_seq", "text"),
            ("trees", "root", "text"),
            ("trees", "size", "text"),
            ("trees", "size", 2**62),
            ("trees", "note", b"bytes"),
            ("checkpoints", "note", b"bytes"),
            ("checkpoints", "at", "text"),
            ("checkpoints", "size", 2**62),
            ("run_keys", "body_key", "text"),
            ("run_keys", "sealed_key", 1),
            ("runs", "status", b"bytes"),
            ("runs", "outcome", 1.5),
        ]
    )
    rowid = to.one(f"SELECT rowid FROM {table}")[0]
    to.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", value, rowid)
    return f"{value!r} as {column} of {table}"


MUTATIONS: tuple[Callable[[Tampered], str], ...] = (
    flip_in_event,
    flip_in_event,
    flip_in_tree,
    flip_in_note,
    change_field,
    change_and_rebuild,
    change_body,
    take_originals,
    delete_event,
    swap_events,
    move_event,
    copy_event,
    cut_events,
    cut_tree_too,
    cut_everything,
    delete_run,
    sign_with_another_key,
    rewrite_checkpoint,
    move_tile,
    change_tree_row,
    change_run_row,
    change_key,
    change_register,
    change_column,
    change_journal,
    make_odd,
)


def _replace(to: Tampered, seq: int, fields: dict[str, Any]) -> None:
    header = json.dumps(fields).encode()
    to.execute(
        "UPDATE events SET header = ?, hash = ?, type = ?, at = ?, n = ? WHERE seq = ?",
        *(header, leaf(header), fields["type"], fields["at"], fields["n"], seq),
    )


def _chain_anew(to: Tampered, run: str) -> None:
    """Every `prev` of a run as its chain has it now."""
    last = b""
    for seq, hashed, header in to.execute("SELECT seq, hash, header FROM events WHERE run = ? ORDER BY n", run):
        fields = json.loads(bytes(header))
        if fields["prev"] == last.hex():
            last = bytes(hashed)
            continue
        fields["prev"] = last.hex()
        _replace(to, seq, fields)
        last = leaf(json.dumps(fields).encode())


def _close_gap(to: Tampered, run: str, n: int) -> None:
    """Number the events of a run behind `n` anew, and chain them."""
    for seq, header in to.execute("SELECT seq, header FROM events WHERE run = ? AND n > ? ORDER BY n", run, n):
        fields = json.loads(bytes(header))
        fields["n"] -= 1
        _replace(to, seq, fields)
    _chain_anew(to, run)


def _rows_anew(to: Tampered) -> None:
    """The rows about runs as the events have it that are left."""
    for table in ("runs", "run_keys"):
        to.execute(f"DELETE FROM {table} WHERE run NOT IN (SELECT run FROM events)")
    to.execute(
        "UPDATE runs SET status = 'running', outcome = NULL"
        " WHERE run NOT IN (SELECT run FROM events WHERE type = 'run.closed')"
    )


def _tree_anew(to: Tampered) -> None:
    rows = [(seq, bytes(hashed)) for seq, hashed in to.execute("SELECT seq, hash FROM events ORDER BY seq")]
    hashes, level = [hashed for _, hashed in rows], 0
    ((tenant,),) = to.execute("SELECT tenant FROM trees")
    to.execute("DELETE FROM tiles")
    to.execute("UPDATE trees SET size = ?, seq = ?, root = ?", len(rows), rows[-1][0], tree_root(hashes))
    while hashes:
        for position in range((len(hashes) + 255) // 256):
            some = b"".join(hashes[256 * position : 256 * position + 256])
            first = rows[256 * position][0] if level == 0 else None
            sql = "INSERT INTO tiles (tenant, level, position, hashes, first_seq) VALUES (?, ?, ?, ?, ?)"
            to.execute(sql, tenant, level, position, some, first)
        full = len(hashes) // 256
        hashes, level = [tree_root(hashes[256 * i : 256 * i + 256]) for i in range(full)], level + 1


def _move(to: Tampered, old: int, new: int) -> None:
    to.execute("UPDATE events SET seq = ? WHERE seq = ?", new, old)


"""A second writer of records, made from `docs/record.md` alone: what the verifier is tested on that Remit did not write.

It shares no code with either. Slow and plain on purpose.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE events (seq {serial}, tenant TEXT NOT NULL, run TEXT NOT NULL, n INTEGER NOT NULL, type TEXT NOT NULL,
  at BIGINT NOT NULL, hash {blob} NOT NULL, header {blob} NOT NULL, body {blob} NOT NULL, sealed {blob});
CREATE TABLE run_keys (run TEXT PRIMARY KEY, body_key {blob}, sealed_key {blob});
CREATE TABLE runs (run TEXT PRIMARY KEY, tenant TEXT NOT NULL, status TEXT NOT NULL, outcome TEXT);
CREATE TABLE trees (tenant TEXT PRIMARY KEY, size BIGINT, seq BIGINT, root {blob}, note TEXT, at BIGINT);
CREATE TABLE tiles (tenant TEXT, level INTEGER, position BIGINT, hashes {blob}, first_seq BIGINT,
  PRIMARY KEY (tenant, level, position));
CREATE TABLE checkpoints (tenant TEXT, size BIGINT, at BIGINT, note TEXT, PRIMARY KEY (tenant, size))
"""
SQLITE = {"serial": "INTEGER PRIMARY KEY AUTOINCREMENT", "blob": "BLOB"}
POSTGRES = {"serial": "BIGSERIAL PRIMARY KEY", "blob": "BYTEA"}


def leaf(header: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + header).digest()


def tree_root(hashes: list[bytes]) -> bytes:
    """By pairs, level by level; one that is left over moves up as it is."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    while len(hashes) > 1:
        pairs = [
            hashlib.sha256(b"\x01" + hashes[i] + hashes[i + 1]).digest() for i in range(0, len(hashes) - 1, 2)
        ]
        hashes = pairs + hashes[len(pairs) * 2 :]
    return hashes[0]


def name_in_notes(tenant: str) -> str:
    kept = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    return "".join(c if c in kept else "".join(f"%{b:02X}" for b in c.encode()) for c in tenant)


@dataclass
class Signer:
    """The checkpoint key of one name."""

    name: str
    private: Ed25519PrivateKey

    @property
    def data(self) -> bytes:
        return b"\x01" + self.private.public_key().public_bytes_raw()

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + self.data).digest()[:4]

    @property
    def verifier_key(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(self.data).decode()}"

    def sign(self, size: int, root: bytes, at: int | None = None) -> str:
        """A checkpoint; without `at` one of the first ones, which name no time."""
        text = f"{self.name}\n{size}\n{base64.b64encode(root).decode()}\n" + ("" if at is None else f"at {at}\n")
        signature = base64.b64encode(self.key_id + self.private.sign(text.encode())).decode()
        return f"{text}\n— {self.name} {signature}\n"


@dataclass
class Chain:
    tenant: str
    body_key: bytes
    sealed_key: bytes
    n: int = 0
    last: bytes = b""


@dataclass
class RecordWriter:
    """Writes a record to a database: `connection` takes statements with `?`."""

    folder: Path
    connection: Any
    dialect: dict[str, str] = field(default_factory=lambda: SQLITE)
    journal: str = "journal-1"
    master: bytes = field(default_factory=lambda: os.urandom(32))
    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    chains: dict[str, Chain] = field(default_factory=dict[str, Chain])
    leaves: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict[str, list[tuple[int, bytes]]])
    now: int = 1_750_000_000_000_000

    def begin(self) -> None:
        for statement in SCHEMA.format(**self.dialect).split(";"):
            self.connection.execute(statement)
        self.connection.execute("INSERT INTO about (name, value) VALUES ('id', ?)", (self.journal,))
        self.keys.mkdir(parents=True)
        self.published.mkdir(parents=True)
        (self.keys / "master.key").write_text(self.master.hex() + "\n")
        (self.keys / "record.pub").write_text("")

    @property
    def keys(self) -> Path:
        return self.folder / ".remit" / "keys"

    @property
    def published(self) -> Path:
        return self.folder / ".remit" / "checkpoints"

    def signer(self, tenant: str) -> Signer:
        return Signer(f"remit/{self.journal}/{name_in_notes(tenant)}", self.private)

    def open(self, run: str, tenant: str, *, row: bool = True) -> None:
        chain = Chain(tenant, os.urandom(32), os.urandom(32))
        self.chains[run] = chain
        keys = (self.wrap(chain.body_key, f"body/{run}"), self.wrap(chain.sealed_key, f"sealed/{run}"))
        self.connection.execute("INSERT INTO run_keys (run, body_key, sealed_key) VALUES (?, ?, ?)", (run, *keys))
        if row:
            self.connection.execute("INSERT INTO runs (run, tenant, status) VALUES (?, ?, 'running')", (run, tenant))

    def append(self, run: str, kind: str, body: Any, *, sealed: Any = None, **more: Any) -> None:
        chain = self.chains[run]
        chain.n += 1
        self.now += 1000
        salted = os.urandom(16) + json.dumps(body).encode()
        header: dict[str, Any] = {
            "v": 1,
            "tenant": chain.tenant,
            "run": run,
            "n": chain.n,
            "prev": chain.last.hex(),
            "at": self.now,
            "type": kind,
            "actor": "agent/shop/refunds",
            "body": hashlib.sha256(salted).hexdigest(),
            **more,
        }
        originals = None
        if sealed is not None:
            salted_originals = os.urandom(16) + json.dumps(sealed).encode()
            header["sealed"] = hashlib.sha256(salted_originals).hexdigest()
            originals = self._encrypt(chain.sealed_key, salted_originals, f"sealed/{run}/{chain.n}")
        data = json.dumps(header).encode()
        chain.last = leaf(data)
        row = (chain.tenant, run, chain.n, kind, self.now, chain.last, data)
        encrypted = self._encrypt(chain.body_key, salted, f"body/{run}/{chain.n}")
        seq = self.connection.execute(
            "INSERT INTO events (tenant, run, n, type, at, hash, header, body, sealed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq",
            (*row, encrypted, originals),
        ).fetchone()[0]
        self.leaves.setdefault(chain.tenant, []).append((seq, chain.last))

    def close(self, run: str, verdict: str = "completed") -> None:
        self.append(run, "run.closed", {"events": self.chains[run].n + 1}, verdict=verdict)
        self.connection.execute("UPDATE runs SET status = 'closed', outcome = ? WHERE run = ?", (verdict, run))

    def register(self, tenant: str, kind: str, about: str) -> None:
        register = f"register-{tenant}"
        if register not in self.chains:
            self.open(register, tenant, row=False)
        self.append(register, kind, {"reason": "asked for"}, refs={"run": about})

    def erase(self, run: str) -> None:
        self.register(self.chains[run].tenant, "run.erased", run)
        self.connection.execute("UPDATE run_keys SET body_key = NULL, sealed_key = NULL WHERE run = ?", (run,))

    def drop_originals(self, run: str) -> None:
        self.register(self.chains[run].tenant, "originals.dropped", run)
        self.connection.execute("UPDATE run_keys SET sealed_key = NULL WHERE run = ?", (run,))

    def checkpoint(self, tenant: str) -> str:
        """Integrate everything, and sign, store and publish a checkpoint."""
        leaves = self.leaves.get(tenant, [])
        hashes = [one for _, one in leaves]
        self.write_tiles(tenant, leaves)
        size, root = len(hashes), tree_root(hashes)
        self.connection.execute("DELETE FROM trees WHERE tenant = ?", (tenant,))
        signer = self.signer(tenant)
        note = signer.sign(size, root, self.now)
        self.connection.execute(
            "INSERT INTO trees (tenant, size, seq, root, note, at) VALUES (?, ?, ?, ?, ?, ?)",
            (tenant, size, leaves[-1][0] if leaves else 0, root, note, self.now),
        )
        self.connection.execute(
            "INSERT INTO checkpoints (tenant, size, at, note) VALUES (?, ?, ?, ?)", (tenant, size, self.now, note)
        )
        listed = (self.keys / "record.pub").read_text()
        if signer.verifier_key not in listed.splitlines():
            (self.keys / "record.pub").write_text(f"{listed}{signer.verifier_key}\n")
        self.connection.commit()
        with (self.published / f"{name_in_notes(tenant)}.txt").open("a") as file:
            file.write(note + "\n")
        return note

    def write_tiles(self, tenant: str, leaves: list[tuple[int, bytes]]) -> None:
        self.connection.execute("DELETE FROM tiles WHERE tenant = ?", (tenant,))
        hashes, level = [one for _, one in leaves], 0
        while hashes:
            for position in range((len(hashes) + 255) // 256):
                some = hashes[256 * position : 256 * position + 256]
                first = leaves[256 * position][0] if level == 0 else None
                self.connection.execute(
                    "INSERT INTO tiles (tenant, level, position, hashes, first_seq) VALUES (?, ?, ?, ?, ?)",
                    (tenant, level, position, b"".join(some), first),
                )
            full = len(hashes) // 256
            hashes, level = [tree_root(hashes[256 * i : 256 * i + 256]) for i in range(full)], level + 1

    def export(self, tenant: str, path: Path, note: str) -> None:
        """Write an exported file of one tenant."""
        first = {
            "record": 1,
            "tenant": tenant,
            "journal": self.journal,
            "keys": [self.signer(tenant).verifier_key],
            "checkpoint": note,
        }
        lines: list[dict[str, Any]] = [first]
        erased = {row[0] for row in self._rows("SELECT run FROM run_keys WHERE body_key IS NULL")}
        rows = self._rows("SELECT seq, run, n, header, body FROM events WHERE tenant = ? ORDER BY seq", tenant)
        for seq, run, n, header, body in rows:
            line: dict[str, Any] = {"seq": seq, "header": header.decode(), "salt": None, "body": None}
            if run not in erased:
                packed = AESGCM(self.chains[run].body_key).decrypt(body[:12], body[12:], f"body/{run}/{n}".encode())
                plain = packed[1:] if packed[:1] == b"\0" else zstandard.decompress(packed[1:])
                line |= {"salt": plain[:16].hex(), "body": plain[16:].decode()}
            lines.append(line)
        lines.append({"end": True, "events": len(lines) - 1})
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def _rows(self, sql: str, *parameters: Any) -> Iterable[tuple[Any, ...]]:
        return self.connection.execute(sql, parameters).fetchall()

    def wrap(self, key: bytes, name: str) -> bytes:
        nonce = os.urandom(12)
        return nonce + AESGCM(self.master).encrypt(nonce, key, name.encode())

    def _encrypt(self, key: bytes, salted: bytes, name: str) -> bytes:
        packed = b"\x01" + zstandard.compress(salted) if len(salted) > 2000 else b"\x00" + salted
        nonce = os.urandom(12)
        return nonce + AESGCM(key).encrypt(nonce, packed, name.encode())


def sqlite_record(folder: Path) -> RecordWriter:
    """An empty record in a project's folder, in the file `.remit/remit.db`."""
    (folder / ".remit").mkdir(parents=True)
    (folder / "remit.toml").write_text('[project]\nname = "shop"\ntenant = "shop"\nregion = "eu"\n')
    connection = sqlite3.connect(folder / ".remit" / "remit.db")
    connection.execute("PRAGMA journal_mode = WAL")
    writer = RecordWriter(folder, connection)
    writer.begin()
    return writer


def fill(writer: RecordWriter, *, runs: int, events: int, tenants: tuple[str, ...] = ("shop",), every: int = 97) -> None:
    """Runs side by side, their events interleaved; a checkpoint every so many events; some erased, some dropped."""
    names = [f"run-{index:06}" for index in range(runs)]
    written = 0
    for begin in range(0, runs, 8):
        some = names[begin : begin + 8]
        for index, run in enumerate(some, begin):
            writer.open(run, tenants[index % len(tenants)])
        for step in range(events):
            for index, run in enumerate(some, begin):
                if step == events - 1 and index % 5:
                    writer.close(run, ("completed", "escalated")[index % 2])
                    continue
                sealed = {"mail": "ann@shop.example", "step": step} if (index + step) % 4 == 0 else None
                body = {"step": step, "text": "x" * (3000 if (index + step) % 50 == 0 else 80)}
                more: dict[str, Any] = {"span": str(step)} if step else {}
                writer.append(run, "call.decided" if step else "run.opened", body, sealed=sealed, **more)
                written += 1
                if written % every == 0:
                    for tenant in tenants:
                        if writer.leaves.get(tenant):
                            _sign(writer, tenant)
    for index, run in enumerate(names[3::13]):
        (writer.erase if index % 2 else writer.drop_originals)(run)
    for tenant in tenants:
        _sign(writer, tenant)
    writer.connection.commit()


def _sign(writer: RecordWriter, tenant: str) -> None:
    signed = writer.connection.execute("SELECT max(size) FROM checkpoints WHERE tenant = ?", (tenant,)).fetchone()[0]
    if signed != len(writer.leaves.get(tenant, [])):
        writer.checkpoint(tenant)

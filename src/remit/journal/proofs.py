"""Proofs from a tenant's tree: that an event is in it, and that an older tree is the beginning of a newer one.

An inclusion proof is a text as c2sp.org/tlog-proof has it: the leaf's index, its siblings, and the checkpoint.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, func, select

from remit.errors import StorageError
from remit.journal.merkle import WIDTH, consistency_proof, inclusion_proof
from remit.journal.sequencer import TreeHead, read_head, tile_reader
from remit.storage import schema
from remit.storage.database import Database, storage_errors

_EVENT, _TILE = schema.events.c, schema.tiles.c


class Inclusion(msgspec.Struct, frozen=True, kw_only=True):
    """That event `n` of a run is leaf `index` of the tree that `head` describes. `header`: the bytes of the leaf."""

    run: str
    n: int
    index: int
    header: bytes
    path: tuple[bytes, ...]
    head: TreeHead

    @property
    def text(self) -> str:
        """The proof as a text (c2sp.org/tlog-proof)."""
        hashes = "".join(f"{base64.b64encode(one).decode()}\n" for one in self.path)
        return f"c2sp.org/tlog-proof@v1\nindex {self.index}\n{hashes}\n{self.head.note}"


class Proofs:
    """Proofs from the tree of one tenant."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    def head(self) -> TreeHead:
        """How far the tree goes. Raises `StorageError`."""
        with storage_errors("read the record's tree"), self._database.engine.connect() as connection:
            return read_head(connection, self._tenant)

    def inclusion(self, run: str, n: int) -> Inclusion:
        """That an event is in the tree. Raises `StorageError` (code `not_integrated`) where it isn't, or not yet."""
        with storage_errors("read the record's tree"), self._database.engine.connect() as connection:
            head = read_head(connection, self._tenant)
            query = select(_EVENT.seq, _EVENT.header).where(
                _EVENT.tenant == self._tenant, _EVENT.run == run, _EVENT.n == n
            )
            row = connection.execute(query).first()
            if row is None or row.seq > head.seq:
                missing = "there is no such event" if row is None else "it will be within a second while somebody writes"
                raise StorageError(f"event {n} of run `{run}` is not in the tree: {missing}", code="not_integrated")
            index = self._index(connection, row.seq)
            path = inclusion_proof(tile_reader(connection, self._tenant), index, head.size)
        return Inclusion(run=run, n=n, index=index, header=bytes(row.header), path=tuple(path), head=head)

    def consistency(self, old: int) -> Sequence[bytes]:
        """That the tree of `old` leaves is the beginning of the present one (RFC 6962, section 2.1.2).

        Raises `StorageError` (code `not_integrated`) for a tree that is larger than the present one.
        """
        with storage_errors("read the record's tree"), self._database.engine.connect() as connection:
            head = read_head(connection, self._tenant)
            if not 0 <= old <= head.size:
                message = f"the tree has {head.size} events, and never had {old}"
                raise StorageError(message, code="not_integrated")
            return consistency_proof(tile_reader(connection, self._tenant), old, head.size)

    def tile(self, level: int, position: int, width: int) -> bytes | None:
        """The first `width` hashes of a tile, if it has so many."""
        query = select(_TILE.hashes).where(
            _TILE.tenant == self._tenant, _TILE.level == level, _TILE.position == position
        )
        with storage_errors("read the record's tree"), self._database.engine.connect() as connection:
            found = connection.execute(query).scalar()
        return None if found is None or len(found) < width * 32 else bytes(found)[: width * 32]

    def _index(self, connection: Connection, seq: int) -> int:
        """The place of an event among the leaves: its tile, and how many of the tenant's stand before it there."""
        tile = select(_TILE.position, _TILE.first_seq).where(
            _TILE.tenant == self._tenant, _TILE.level == 0, _TILE.first_seq <= seq
        )
        found = connection.execute(tile.order_by(_TILE.first_seq.desc()).limit(1)).first()
        if found is None:
            raise StorageError("the record's tree lacks tiles; look with `remit verify`", code="record_corrupt")
        before = select(func.count()).where(
            _EVENT.tenant == self._tenant, _EVENT.seq >= found.first_seq, _EVENT.seq < seq
        )
        return found.position * WIDTH + (connection.execute(before).scalar() or 0)

"""The sequencer: integrates what the journal holds into the tenant's Merkle tree, and signs where it has come to.

Events become leaves in the order of `seq`. Many processes may write; on Postgres one of them at a time integrates, under
an advisory lock, and everywhere a tree only grows from the size that was read, so that it can't fork. The new tiles are
written through the journal's own writer, in a transaction that others share.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

import msgspec
from sqlalchemy import Connection, select, text

from remit.errors import RemitError, StorageError
from remit.journal.journal import Journal
from remit.journal.last_published import LastPublished
from remit.journal.merkle import WIDTH, ReadTile, Tree, split, subtree
from remit.journal.notes import Checkpoint, CheckpointKey
from remit.storage import schema
from remit.storage.database import Database, storage_errors
from remit.storage.writer import Statement

A = TypeVar("A")
R = TypeVar("R")

_log = logging.getLogger("remit")

Publish = Callable[[str], None]
"""Takes a signed checkpoint somewhere else. Raises `OSError` or `StorageError` where it can't."""

PAUSE_S = 0.25
"""How long events may wait before they are integrated, so that many go together."""
PUBLISH_US = 60_000_000
"""How far apart published checkpoints are while events come in."""
NOT_EXTENDED = "not_extended"
"""The code of the error where the database does not go on from what was published."""
_REST_S = 5
"""How long to leave a database alone that could not be written."""
_MOST = 16_384
_LOCK = 7_364_749
"""Key of Postgres' advisory lock, together with the tenant's."""


class TreeHead(msgspec.Struct, frozen=True, kw_only=True):
    """How far a tenant's tree goes. `seq`: of its last event. `note`: its newest checkpoint, empty for none."""

    size: int = 0
    seq: int = 0
    root: bytes = b""
    note: str = ""
    at: int = 0


class _Round(msgspec.Struct, frozen=True, kw_only=True):
    """What one round has read: the head, the tree up to it, the events behind it, and when it was last published."""

    head: TreeHead
    tree: Tree
    leaves: Sequence[tuple[int, bytes]]
    published_at: int


def read_head(connection: Connection, tenant: str) -> TreeHead:
    """The head of a tenant's tree as the database has it."""
    tree = schema.trees.c
    query = select(tree.size, tree.seq, tree.root, tree.note, tree.at).where(tree.tenant == tenant)
    row = connection.execute(query).first()
    if row is None:
        return TreeHead()
    return TreeHead(size=row.size, seq=row.seq, root=bytes(row.root), note=row.note, at=row.at)


def tile_reader(connection: Connection, tenant: str) -> Callable[[int, int], list[bytes]]:
    """Reads the tiles of a tenant's tree."""
    tile = schema.tiles.c

    def read(level: int, position: int) -> list[bytes]:
        query = select(tile.hashes).where(tile.tenant == tenant, tile.level == level, tile.position == position)
        found = connection.execute(query).scalar()
        if found is None:
            raise StorageError(
                f"tile {level}/{position} of the record's tree is missing; look with `remit verify`", code="record_corrupt"
            )
        return split(bytes(found))

    return read


class Sequencer:
    """Integrates the events of one tenant. `noted` is to be called whenever something was recorded.

    It signs nothing that does not go on from the last checkpoint that was published from here (`last`).
    """

    def __init__(
        self,
        database: Database,
        journal: Journal,
        key: CheckpointKey,
        *,
        tenant: str,
        publish: Publish,
        last: LastPublished,
    ) -> None:
        self._database = database
        self._journal = journal
        self._key = key
        self._tenant = tenant
        self._publish = publish
        self.last = last
        self._task: asyncio.Task[None] | None = None
        # Its own, so that no tool that hangs stands in its way.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="remit-sequencer")
        self._closing = asyncio.Event()
        self._behind = False
        self._grown = False
        self._gap = _Gap()
        self._said = ""

    def noted(self) -> None:
        """Something was recorded: integrate it soon."""
        self._behind = True
        if self._task is None and not self._closing.is_set():
            self._task = asyncio.get_running_loop().create_task(self._soon())

    async def close(self) -> None:
        """Integrate what is left, and publish where the tree has come to."""
        self._closing.set()
        if self._task is not None:
            await self._task
        if self._behind or self._grown:
            await self._try_to_integrate(publish=True)
        self._thread.shutdown(wait=False)

    async def integrate(self, *, publish: bool = False) -> TreeHead:
        """Integrate everything that is recorded now. Returns the head of the tree.

        Raises `StorageError`, with the code `not_extended` where the database is not what was published.
        """
        while True:
            with self._reading() as connection:
                if connection is None:
                    break
                found = await self._apart(self._read, connection)
                try:
                    note = await self._write(found, publish=publish)
                except StorageError as error:
                    if error.code != "row_changed":
                        raise
                    continue
            if note:
                await self._apart(self._publish, note)
            if len(found.leaves) < _MOST:
                break
        with storage_errors("read the record's tree"), self._database.engine.connect() as connection:
            return read_head(connection, self._tenant)

    async def _soon(self) -> None:
        while self._behind and not self._closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), PAUSE_S if not self._said else _REST_S)
            if not self._closing.is_set():
                await self._try_to_integrate(publish=False)
        self._task = None

    async def _try_to_integrate(self, *, publish: bool) -> None:
        """What can't be integrated or published now is so later; runs don't wait for it."""
        self._behind = False
        try:
            await self.integrate(publish=publish)
            self._said, self._grown = "", True
        except (RemitError, OSError) as error:
            self._behind = True
            said = error.message if isinstance(error, RemitError) else str(error)
            if said != self._said:
                level = logging.ERROR if getattr(error, "code", "") in (NOT_EXTENDED, "record_corrupt") else logging.WARNING
                _log.log(level, "the record's tree does not grow now: %s; it is tried again", said)
            self._said = said

    async def _apart(self, function: Callable[[A], R], given: A) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, given)

    @contextmanager
    def _reading(self) -> Generator[Connection | None]:
        """A connection for one round; `None` where another process is at it."""
        with storage_errors("read the record's tree"), self._database.engine.connect() as connection:
            if self._database.is_sqlite:
                yield connection
                return
            lock = {"key": _LOCK, "tenant": self._tenant}
            asked = text("SELECT pg_try_advisory_lock(:key, hashtext(:tenant))")
            if not connection.execute(asked, lock).scalar():
                yield None
                return
            try:
                yield connection
            finally:
                connection.rollback()
                connection.execute(text("SELECT pg_advisory_unlock(:key, hashtext(:tenant))"), lock)
                connection.commit()

    def _read(self, connection: Connection) -> _Round:
        # Before the database: what is published meanwhile is in both.
        last = self.last.read()
        head = read_head(connection, self._tenant)
        read = tile_reader(connection, self._tenant)
        tree = Tree.load(head.size, read)
        self._check(head, tree, last, read)
        published = select(schema.checkpoints.c.at).where(schema.checkpoints.c.tenant == self._tenant)
        last = connection.execute(published.order_by(schema.checkpoints.c.size.desc()).limit(1)).scalar()
        rows = self._events(connection, head.seq)
        leaves = [(seq, bytes(hash_)) for seq, tenant, hash_ in rows if tenant == self._tenant]
        return _Round(head=head, tree=tree, leaves=leaves, published_at=last or 0)

    def _check(self, head: TreeHead, tree: Tree, last: Checkpoint | None, read: ReadTile) -> None:
        """What is signed next vouches for everything before it. Raises `StorageError` (`not_extended`, `record_corrupt`)."""
        if head.size and (tree.root != head.root or not self.last.is_signed(head.note, head.size, head.root)):
            message = f"the tree of {head.size} events in the database is not one that was signed; restore the database"
            raise StorageError(message, code="record_corrupt")
        if last is None:
            return
        published = f"a checkpoint of {last.size} events was published from here"
        if head.size < last.size:
            raise _not_extended(f"{published}, and the tree in the database has {head.size}")
        if subtree(read, 0, last.size) != last.root:
            raise _not_extended(f"{published}, and the first {last.size} in the database are others")

    def _events(self, connection: Connection, seq: int) -> Sequence[tuple[int, str, bytes]]:
        event = schema.events.c
        query = select(event.seq, event.tenant, event.hash).where(event.seq > seq).order_by(event.seq).limit(_MOST)
        rows: list[tuple[int, str, bytes]] = [(row.seq, row.tenant, row.hash) for row in connection.execute(query)]
        if self._database.is_sqlite:
            # Its transactions come one after the other, and take their numbers in the same order.
            return rows
        return self._gap.cut(rows, seq, connection)

    async def _write(self, found: _Round, *, publish: bool) -> str:
        """Append the leaves and record the tree. Returns the checkpoint where it is one to publish, or nothing."""
        head, tree = found.head, found.tree
        # A clock that was put back must not make a later checkpoint look earlier.
        now = max(self._journal.clock(), head.at, found.published_at)
        due = publish or now - found.published_at >= PUBLISH_US
        statements: list[Statement] = []
        note = head.note
        if found.leaves:
            firsts = self._append(tree, found.leaves)
            note = self._key.sign(tree.size, tree.root, now)
            statements += [_tile(self._tenant, place, hashes, firsts) for place, hashes in tree.changed().items()]
            new = TreeHead(size=tree.size, seq=found.leaves[-1][0], root=tree.root, note=note, at=now)
            statements.append(_grow(self._tenant, head, new))
        due = due and bool(note)
        if due:
            # Where nothing is new, what is published is the note of before, under the time that it was signed.
            statements.append(_publish(self._tenant, tree.size, note, now if found.leaves else head.at))
        if statements:
            await self._journal.write(statements)
        return note if due else ""

    def _append(self, tree: Tree, leaves: Sequence[tuple[int, bytes]]) -> dict[int, int]:
        """Append leaves; returns the `seq` of the first leaf of each tile that was begun."""
        firsts: dict[int, int] = {}
        for seq, leaf in leaves:
            if tree.size % WIDTH == 0:
                firsts[tree.size // WIDTH] = seq
            tree.append(leaf)
        return firsts


def _not_extended(wrong: str) -> StorageError:
    return StorageError(
        f"{wrong}; nothing is signed until the database is restored, or, where an older backup of it was restored on purpose,"
        " until `remit checkpoint --after-restore` says so",
        code=NOT_EXTENDED,
    )


class _Gap:
    """A number that is missing between others: rolled back for good, or of a transaction that is still under way.

    A transaction locks the table before it takes a number. So once everybody who held that lock after the gap was seen
    has let go of it, and the number is still missing, it will not come any more.
    """

    def __init__(self) -> None:
        self._seq = 0
        self._holders: frozenset[str] = frozenset()

    def cut(
        self, rows: Sequence[tuple[int, str, bytes]], seq: int, connection: Connection
    ) -> Sequence[tuple[int, str, bytes]]:
        """The rows up to the first gap that may still be filled."""
        expected = seq + 1
        for index, row in enumerate(rows):
            if row[0] != expected and not self._is_final(expected, row[0], connection):
                return rows[:index]
            expected = row[0] + 1
        return rows

    def _is_final(self, first: int, behind: int, connection: Connection) -> bool:
        if self._seq != first:
            self._seq, self._holders = first, _writing(connection)
        if self._holders & _writing(connection):
            return False
        event = schema.events.c
        came = select(event.seq).where(event.seq >= first, event.seq < behind).limit(1)
        return connection.execute(came).first() is None


def _writing(connection: Connection) -> frozenset[str]:
    """The transactions that write events now."""
    asked = text(
        "SELECT virtualtransaction FROM pg_locks WHERE relation = 'events'::regclass AND mode = 'RowExclusiveLock'"
    )
    return frozenset(connection.execute(asked).scalars())


def _tile(tenant: str, place: tuple[int, int], hashes: bytes, firsts: dict[int, int]) -> Statement:
    level, position = place
    return Statement(
        sql="INSERT INTO tiles (tenant, level, position, hashes, first_seq)"
        " VALUES (:tenant, :level, :position, :hashes, :first_seq)"
        " ON CONFLICT (tenant, level, position) DO UPDATE SET hashes = excluded.hashes",
        params={
            "tenant": tenant,
            "level": level,
            "position": position,
            "hashes": hashes,
            "first_seq": None if level else firsts.get(position),
        },
        changes=1,
    )


def _grow(tenant: str, old: TreeHead, new: TreeHead) -> Statement:
    """The tree goes on from where it was read, or not at all."""
    return Statement(
        sql="INSERT INTO trees (tenant, size, seq, root, note, at) VALUES (:tenant, :size, :seq, :root, :note, :at)"
        " ON CONFLICT (tenant) DO UPDATE SET size = excluded.size, seq = excluded.seq, root = excluded.root,"
        " note = excluded.note, at = excluded.at WHERE trees.size = :old",
        params={
            "tenant": tenant,
            "size": new.size,
            "seq": new.seq,
            "root": new.root,
            "note": new.note,
            "at": new.at,
            "old": old.size,
        },
        changes=1,
    )


def _publish(tenant: str, size: int, note: str, at: int) -> Statement:
    return Statement(
        sql="INSERT INTO checkpoints (tenant, size, at, note) VALUES (:tenant, :size, :at, :note)"
        " ON CONFLICT (tenant, size) DO NOTHING",
        params={"tenant": tenant, "size": size, "at": at, "note": note},
    )

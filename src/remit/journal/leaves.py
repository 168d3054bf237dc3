"""Leaves: the events of a tenant in the order of its tree, as they may leave the building.

Redacted bodies only. The columns and keys that hold originals are never read here, so nothing that is made of leaves can
show one. Leaves are read page by page and decrypted when they are asked for: memory stays flat however long the record.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, and_, func, select

from remit.errors import RunError
from remit.journal.events import AFTERWARDS, SALT_BYTES, EventType, Header, Row, checked_header, salted_body
from remit.journal.register import register_of
from remit.journal.sequencer import TreeHead, read_head
from remit.journal.vault import RunKeys, Vault
from remit.storage import schema
from remit.storage.database import Database, storage_errors
from remit.values import Json

_EVENT, _RUN = schema.events.c, schema.runs.c
_PAGE = 256
_KEYS = 512
"""How many runs' keys are kept at hand: runs that are open at once stand side by side in the tree."""
_COLUMNS = (
    _EVENT.seq,
    _EVENT.run,
    _EVENT.n,
    _EVENT.type,
    _EVENT.at,
    _EVENT.hash,
    _EVENT.header,
    _EVENT.body,
    schema.run_keys.c.body_key,
)


class Leaf:
    """One event: its header, and its redacted body once that is asked for."""

    def __init__(self, seq: int, row: Row, keys: RunKeys) -> None:
        self.seq = seq
        self.header: Header = checked_header(row)
        self._row = row
        self._keys = keys

    @property
    def type(self) -> EventType:
        return EventType(self.header.type)

    @property
    def hash(self) -> bytes:
        return self._row.hash

    @property
    def header_text(self) -> bytes:
        """The exact bytes that are hashed."""
        return self._row.header

    @cached_property
    def _salted(self) -> bytes | None:
        return salted_body(self._row, self.header, self._keys)

    @property
    def salt(self) -> bytes | None:
        """`None` where the body was erased. Raises `StorageError` for a damaged one, as the text and the body do."""
        return None if self._salted is None else self._salted[:SALT_BYTES]

    @property
    def text(self) -> bytes | None:
        """The body as JSON, exactly as it was hashed; `None` where it was erased."""
        return None if self._salted is None else self._salted[SALT_BYTES:]

    @property
    def body(self) -> Json:
        text = self.text
        return None if text is None else msgspec.json.decode(text)

    @property
    def told(self) -> dict[str, Any]:
        """The body's fields; none where it was erased."""
        return self.body or {}


class Selection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which part of the record is meant; what is left out does not matter.

    `since`: events from then on, in microseconds since the epoch. `run`: one run. `last`: the newest runs.
    `contract`: its runs. Only without the latter three the register is part of it.
    """

    since: int | None = None
    run: str | None = None
    last: int | None = None
    contract: str | None = None

    @property
    def is_whole(self) -> bool:
        return self == Selection()

    @property
    def names_runs(self) -> bool:
        return not (self.run is None and self.last is None and self.contract is None)


class LeafReader:
    """Reads the leaves of one tenant."""

    def __init__(self, database: Database, vault: Vault, tenant: str) -> None:
        self.database = database
        self.tenant = tenant
        self._vault = vault

    def head(self) -> TreeHead:
        """How far the tree goes: what lies behind may still get neighbours before it."""
        with storage_errors("read the record's tree"), self.database.engine.connect() as connection:
            return read_head(connection, self.tenant)

    def count(self, selection: Selection, upto: int) -> int:
        """How many leaves `leaves` gives."""
        query = select(func.count()).select_from(schema.events).where(*self._where(selection), _EVENT.seq <= upto)
        with storage_errors("count the events"), self.database.engine.connect() as connection:
            return connection.execute(query).scalar_one()

    def leaves(self, selection: Selection, *, upto: int, after: int = 0) -> Iterator[Leaf]:
        """Leaves in the order of the tree, up to the `seq` `upto` and behind `after`. Raises `StorageError`."""
        query = self._rows().where(*self._where(selection), _EVENT.seq <= upto).order_by(_EVENT.seq).limit(_PAGE)
        opened: dict[str, RunKeys] = {}
        while True:
            page = self._page(query.where(_EVENT.seq > after))
            for row in page:
                yield self._leaf(row, opened)
            if len(page) < _PAGE:
                return
            after = page[-1].seq

    def run(self, run: str) -> list[Leaf]:
        """All leaves of one run, in its own order. Raises `RunError` (code `run_not_found`), `StorageError`."""
        query = self._rows().where(_EVENT.tenant == self.tenant, _EVENT.run == run).order_by(_EVENT.n)
        opened: dict[str, RunKeys] = {}
        found = [self._leaf(row, opened) for row in self._page(query)]
        if not found:
            raise RunError(f"there is no run `{run}`; `remit runs` lists them", code="run_not_found")
        return found

    def event(self, run: str, n: int) -> Leaf:
        """Event `n` of a run, or of the register. Raises as `run` does."""
        found = self._page(self._rows().where(_EVENT.tenant == self.tenant, _EVENT.run == run, _EVENT.n == n))
        if not found:
            raise RunError(f"there is no event {n} of run `{run}`", code="run_not_found")
        return self._leaf(found[0], {})

    def register_by_run(self) -> dict[str, list[Leaf]]:
        """What the register says of single runs, by the run, in order."""
        query = self._rows().where(_EVENT.run == register_of(self.tenant), _EVENT.type.in_(AFTERWARDS)).order_by(_EVENT.n)
        found: dict[str, list[Leaf]] = {}
        opened: dict[str, RunKeys] = {}
        for leaf in (self._leaf(row, opened) for row in self._page(query)):
            if "run" in leaf.header.refs:
                found.setdefault(leaf.header.refs["run"], []).append(leaf)
        return found

    def hash_of(self, seq: int) -> bytes | None:
        """The hash of the event of a `seq`; `None` where the tenant has none there."""
        query = select(_EVENT.hash).where(_EVENT.tenant == self.tenant, _EVENT.seq == seq)
        with storage_errors("read the journal"), self.database.engine.connect() as connection:
            found = connection.execute(query).scalar()
        return None if found is None else bytes(found)

    def closed_runs(self, selection: Selection) -> list[str]:
        """The runs that are meant and have ended, the oldest first; `since` is when they ended."""
        query = select(_RUN.run).where(_RUN.tenant == self.tenant, _RUN.status == "closed")
        if selection.since is not None:
            query = query.where(_RUN.updated_at >= selection.since)
        if selection.names_runs:
            query = query.where(_RUN.run.in_(self._named(selection)))
        with storage_errors("look for runs"), self.database.engine.connect() as connection:
            return list(connection.execute(query.order_by(_RUN.opened_at, _RUN.run)).scalars())

    def journal_id(self) -> str:
        """Which database this is, among all there are."""
        about = schema.about.c
        with storage_errors("read the journal"), self.database.engine.connect() as connection:
            return connection.execute(select(about.value).where(about.name == "id")).scalar_one()

    def registered(self, kind: EventType) -> list[Header]:
        """The headers of one type on the register, in order."""
        register = and_(_EVENT.run == register_of(self.tenant), _EVENT.type == kind)
        return [self._leaf(row, {}).header for row in self._page(self._rows().where(register).order_by(_EVENT.n))]

    def _rows(self) -> Select[*tuple[object, ...]]:
        keys = schema.run_keys.c.run == _EVENT.run
        return select(*_COLUMNS).select_from(schema.events.outerjoin(schema.run_keys, keys))

    def _where(self, selection: Selection) -> Iterator[ColumnElement[bool]]:
        yield _EVENT.tenant == self.tenant
        if selection.since is not None:
            yield _EVENT.at >= selection.since
        if selection.names_runs:
            yield _EVENT.run.in_(self._named(selection))

    def _named(self, selection: Selection) -> Select[tuple[str]]:
        query = select(_RUN.run).where(_RUN.tenant == self.tenant)
        if selection.run is not None:
            query = query.where(_RUN.run == selection.run)
        if selection.contract is not None:
            query = query.where(_RUN.contract == selection.contract)
        if selection.last is not None:
            query = query.order_by(_RUN.opened_at.desc(), _RUN.run).limit(selection.last)
        return query

    def _page(self, query: Select[*tuple[object, ...]]) -> list[_StoredLeaf]:
        with storage_errors("read the journal"), self.database.engine.connect() as connection:
            return [_StoredLeaf(*row) for row in connection.execute(query)]

    def _leaf(self, stored: _StoredLeaf, opened: dict[str, RunKeys]) -> Leaf:
        keys = opened.get(stored.run)
        if keys is None:
            if len(opened) >= _KEYS:
                del opened[next(iter(opened))]
            wrapped = None if stored.body_key is None else bytes(stored.body_key)
            keys = opened[stored.run] = self._vault.open_body(stored.run, wrapped)
        row = Row(
            tenant=self.tenant,
            run=stored.run,
            n=stored.n,
            type=stored.type,
            at=stored.at,
            hash=bytes(stored.hash),
            header=bytes(stored.header),
            body=bytes(stored.body),
            sealed=None,
        )
        return Leaf(stored.seq, row, keys)


class _StoredLeaf(msgspec.Struct, frozen=True):
    """A row of `_COLUMNS`."""

    seq: int
    run: str
    n: int
    type: str
    at: int
    hash: bytes
    header: bytes
    body: bytes
    body_key: bytes | None

"""Reading the tables of memory: what somebody may read, what of it is kept, and who has read what."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, exists, select

from remit.journal.vault import RunKeys, Vault
from remit.memory.documents import DocumentInfo, Reading, VersionInfo
from remit.memory.index import Findable
from remit.storage.database import Database, storage_errors
from remit.storage.schema import (
    memory_changes,
    memory_documents,
    memory_keys,
    memory_readers,
    memory_reads,
    memory_versions,
)

_D, _K, _R, _V = memory_documents.c, memory_keys.c, memory_readers.c, memory_versions.c
_AT_ONCE = 500
"""How many rows are asked for by number in one query."""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """A version's text, and where its chunks begin and end."""

    title: str
    text: str
    spans: list[tuple[int, int]]


class Readable(msgspec.Struct, frozen=True, kw_only=True):
    """The current version of a document that somebody may read, as its rows have it. `row`: its number."""

    row: int
    document: str
    version: int
    owner: str
    label: str
    classes: str
    source: str
    valid_until: int | None
    embedding: str


_READABLE = (_V.id, _V.document, _V.version, _D.owner, _V.label, _V.classes, _V.source, _V.valid_until, _V.embedding)
_IS_CURRENT = and_(_V.tenant == _D.tenant, _V.document == _D.document, _V.version == _D.current)


class Shelf:
    """The documents of one tenant. Every method raises `StorageError`."""

    def __init__(self, database: Database, vault: Vault, tenant: str) -> None:
        self.database = database
        self._vault = vault
        self.tenant = tenant

    def changes(self) -> int:
        """How often something was changed."""
        query = select(memory_changes.c.changes).where(memory_changes.c.tenant == self.tenant)
        with storage_errors("read the memory"), self.database.engine.connect() as connection:
            return connection.execute(query).scalar() or 0

    def readable(self, readers: Sequence[Collection[str]], region: str) -> list[Readable]:
        """The current versions that each of `readers` may read under one of its names; none where there is nobody."""
        if not readers or not all(readers):
            return []
        query = select(*_READABLE).where(_IS_CURRENT, _D.tenant == self.tenant, _D.region == region)
        for names in readers:
            allowed = memory_readers.alias()
            query = query.where(
                exists().where(
                    allowed.c.tenant == self.tenant,
                    allowed.c.reader.in_(sorted(names)),
                    allowed.c.document == _D.document,
                )
            )
        with storage_errors("read the memory"), self.database.engine.connect() as connection:
            return [Readable(**dict(zip(Readable.__struct_fields__, row, strict=True))) for row in connection.execute(query)]

    def embeddings(self) -> set[str]:
        """By what the versions that could be read are embedded."""
        query = select(_V.embedding).where(_IS_CURRENT, _D.tenant == self.tenant).distinct()
        with storage_errors("read the memory"), self.database.engine.connect() as connection:
            return set(connection.execute(query).scalars())

    def findables(self, rows: Sequence[int], embedding: str) -> dict[int, tuple[str, int, Findable]]:
        """What can be searched of some versions, by their rows, as far as it is there and by this embedding."""
        found: dict[int, tuple[str, int, Findable]] = {}
        columns = (_V.id, _V.document, _V.version, _V.findable, _V.embedding, _K.body_key)
        for row in self._by_rows(columns, rows):
            if row.embedding != embedding:
                continue
            keys = self._open(row.document, row.body_key)
            plain = None if row.findable is None else keys.decrypt_body(row.findable, *self._place(row, 1))
            if plain is not None:
                found[row.id] = (row.document, row.version, msgspec.msgpack.decode(plain, type=Findable))
        return found

    def contents(self, rows: Sequence[int]) -> dict[int, Content]:
        """The texts of some versions, by their rows, without those that were forgotten."""
        found: dict[int, Content] = {}
        for row in self._by_rows((_V.id, _V.document, _V.version, _V.content, _K.body_key), rows):
            content = self._content(row)
            if content is not None:
                found[row.id] = content
        return found

    def _by_rows(self, columns: Sequence[Any], rows: Sequence[int]) -> Iterator[Any]:
        base = select(*columns).join(memory_keys, and_(_K.tenant == _V.tenant, _K.document == _V.document))
        with storage_errors("read the memory"), self.database.engine.connect() as connection:
            for at in range(0, len(rows), _AT_ONCE):
                query = base.where(_V.tenant == self.tenant, _V.id.in_(rows[at : at + _AT_ONCE]))
                yield from connection.execute(query).all()

    def _content(self, row: Any) -> Content | None:
        plain = None
        if row.content is not None:
            plain = self._open(row.document, row.body_key).decrypt_body(row.content, *self._place(row, 0))
        return None if plain is None else msgspec.msgpack.decode(plain, type=Content)

    # Keys

    def keys_name(self, document: str) -> str:
        """The name that a document's key is wrapped under."""
        return f"memory/{self.tenant}/{document}"

    def encrypted(self, keys: RunKeys, document: str, version: int, part: int, plain: bytes) -> bytes:
        """The text (0) or what can be searched (1) of a version, bound to its place."""
        return keys.encrypt_body(plain, self.keys_name(document), 2 * version + part)

    def new_keys(self, document: str) -> tuple[RunKeys, bytes | None]:
        """A key for a new document, and its wrapped form."""
        keys, wrapped = self._vault.create(self.keys_name(document))
        return keys, wrapped.body

    def _open(self, document: str, wrapped: bytes | None) -> RunKeys:
        return self._vault.open_body(self.keys_name(document), wrapped)

    def _place(self, row: Any, part: int) -> tuple[str, int]:
        return self.keys_name(row.document), 2 * row.version + part

    # Documents

    def standing(self, document: str) -> DocumentStanding | None:
        """How a document stands; `None` where there is none."""
        columns = (_D.owner, _D.current, _D.forgotten_at, _K.body_key)
        query = select(*columns).join(memory_keys, and_(_K.tenant == _D.tenant, _K.document == _D.document))
        query = query.where(_D.tenant == self.tenant, _D.document == document)
        newest = select(_V.version).where(_V.tenant == self.tenant, _V.document == document).order_by(_V.version.desc())
        with storage_errors("read the memory"), self.database.engine.connect() as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                return None
            last = connection.execute(newest.limit(1)).scalar() or 0
        keys = None if row.body_key is None else self._open(document, row.body_key)
        return DocumentStanding(owner=row.owner, current=row.current, newest=last, forgotten_at=row.forgotten_at, keys=keys)

    def by_key(self, key: str) -> tuple[str, int, str, Content | None] | None:
        """The version that a call with this idempotency key has written: document, version, label, content."""
        columns = (_V.id, _V.document, _V.version, _V.label, _V.content, _K.body_key)
        query = select(*columns).join(memory_keys, and_(_K.tenant == _V.tenant, _K.document == _V.document))
        with storage_errors("read the memory"), self.database.engine.connect() as connection:
            row = connection.execute(query.where(_V.tenant == self.tenant, _V.key == key)).one_or_none()
        return None if row is None else (row.document, row.version, row.label, self._content(row))

    def infos(self, document: str | None = None) -> list[DocumentInfo]:
        """Documents with all their versions, by name."""
        which = [_D.tenant == self.tenant] if document is None else [_D.tenant == self.tenant, _D.document == document]
        with storage_errors("read the memory"), self.database.engine.connect() as connection:
            found = connection.execute(select(memory_documents).where(*which)).all()
            readers = _grouped(connection, select(_R.document, _R.reader), self._same(_R, document))
            columns = (_V.document, *(_V[name] for name in VersionInfo.__struct_fields__))
            versions = _grouped(connection, select(*columns), self._same(_V, document))
        return sorted(
            (
                DocumentInfo(
                    document=row.document,
                    owner=row.owner,
                    region=row.region,
                    readers=sorted(reader for (reader,) in readers.get(row.document, [])),
                    current=row.current,
                    versions=sorted(map(_version_info, versions.get(row.document, [])), key=lambda each: each.version),
                    forgotten_at=row.forgotten_at,
                )
                for row in found
            ),
            key=lambda each: each.document,
        )

    def rows_of(self, document: str | None = None, version: int | None = None, *, but: str | None = None) -> list[int]:
        """The rows of versions whose text is there, in order; `but` without those of this embedding."""
        query = select(_V.id).where(_V.tenant == self.tenant, _V.content.is_not(None)).order_by(_V.id)
        if document is not None:
            query = query.where(_V.document == document)
        if version is not None:
            query = query.where(_V.version == version)
        if but is not None:
            query = query.where(_V.embedding != but)
        with storage_errors("read the memory"), self.database.engine.connect() as connection:
            return list(connection.execute(query).scalars())

    def places(self, rows: Sequence[int]) -> dict[int, tuple[str, int, RunKeys]]:
        """Document, version and key of some versions."""
        found = self._by_rows((_V.id, _V.document, _V.version, _K.body_key), rows)
        return {row.id: (row.document, row.version, self._open(row.document, row.body_key)) for row in found}

    def reads(self, document: str, version: int | None = None) -> list[Reading]:
        """The steps of runs that were given a document, or one version of it, by run and step."""
        columns = memory_reads.c
        query = select(columns.run, columns.step, columns.version)
        query = query.where(columns.tenant == self.tenant, columns.document == document)
        if version is not None:
            query = query.where(columns.version == version)
        with storage_errors("read the memory"), self.database.engine.connect() as connection:
            found = [Reading(run=row.run, step=row.step, version=row.version) for row in connection.execute(query)]
        return sorted(found, key=lambda each: (each.run, each.step, each.version))

    def _same(self, columns: Any, document: str | None) -> list[Any]:
        same = [columns.tenant == self.tenant]
        return same if document is None else [*same, columns.document == document]


class DocumentStanding(msgspec.Struct, frozen=True, kw_only=True):
    """A document as it stands. `newest`: the number of its last version, recalled or not. `keys`: `None` if forgotten."""

    owner: str
    current: int | None
    newest: int
    forgotten_at: int | None
    keys: RunKeys | None


def _grouped(connection: Connection, query: Any, where: list[Any]) -> Mapping[str, list[tuple[Any, ...]]]:
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in connection.execute(query.where(*where)):
        found.setdefault(row[0], []).append(tuple(row[1:]))
    return found


def _version_info(row: tuple[Any, ...]) -> VersionInfo:
    values = dict(zip(VersionInfo.__struct_fields__, row, strict=True))
    return VersionInfo(**{**values, "classes": values["classes"].split()})

"""Memory: documents that are written in versions, found under everybody's rights, recalled and forgotten.

What may be read is chosen by the database before anything is ranked: the agent must be among a document's readers, and
so must the person it acts for, by name or by role. Whatever else there is has no part in the search.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from remit.errors import FenceLost, MemoryRefused, StorageError, ToolFailed
from remit.journal.journal import Clock, Journal
from remit.journal.redaction import Redactor
from remit.memory import rows
from remit.memory.documents import (
    DocumentInfo,
    NewVersion,
    Passage,
    Reading,
    Viewer,
    Written,
    checked,
    chunk_id,
    text_hash,
)
from remit.memory.embedding import Embedding, full_name, require_numpy, rounded
from remit.memory.index import Findable, Index, Place, findable
from remit.memory.shelf import Content, DocumentStanding, Readable, Shelf
from remit.memory.text import chunks_of
from remit.storage.writer import Statement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ATTEMPTS = 10
_MOST_VIEWS = 16
_AT_ONCE = 200
SECRET_KINDS = frozenset({"key", "secret"})
"""What the redactor calls what must never be kept."""

Roles = Callable[[str], frozenset[str] | None]
"""The roles of a person by their principal, with `role:`; `None` for nobody that is known and enabled."""


class Where(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is looked for alone: documents of this name, owner or source, or only trusted ones."""

    document: str | None = None
    owner: str | None = None
    source: str | None = None
    label: str | None = None

    def admits(self, found: Readable) -> bool:
        asked = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return all(value is None or getattr(found, name) == value for name, value in asked)


EVERYWHERE = Where()


class Memory:
    """The documents of one tenant, as a process has them open. `embedding` is made when it is first needed."""

    def __init__(
        self,
        shelf: Shelf,
        *,
        journal: Journal,
        redactor: Redactor,
        embedding: Callable[[], Embedding],
        roles: Roles,
    ) -> None:
        self.shelf = shelf
        self._journal = journal
        self._redactor = redactor
        self._make_embedding = embedding
        self._roles = roles
        self._lock = threading.Lock()
        self._index = Index()
        self._views: OrderedDict[tuple[str, ...], tuple[int, list[Readable]]] = OrderedDict()
        self._checked_at = -1

    @property
    def clock(self) -> Clock:
        return self._journal.clock

    @cached_property
    def embedding(self) -> Embedding:
        """What makes vectors. Raises `ConfigError`."""
        require_numpy()
        return self._make_embedding()

    # Searching

    async def search(self, query: str, reader: Viewer, *, most: int, where: Where = EVERYWHERE) -> list[Passage]:
        """The passages that fit best of all that `reader` may read, the best first.

        Raises `StorageError`, `ConfigError`, `ToolFailed`: `embedding_mismatch` where documents are embedded by another
        embedding than the present one.
        """
        return await asyncio.to_thread(self._search, query, reader, most, where)

    def _search(self, query: str, reader: Viewer, most: int, where: Where) -> list[Passage]:
        vector = rounded(self.embedding.embed([query]), 1)[0]
        with self._lock:
            view = self._view(reader)
            now = self.clock()
            found = {
                each.row: each
                for each in view
                if where.admits(each) and (each.valid_until is None or each.valid_until > now)
            }
            placed = self._ranked(query, vector, found, most)
        by_place = {(each.document, each.version): each for each in found.values()}
        chosen = [(by_place[place.document, place.version], place) for place in placed]
        contents = self.shelf.contents([each.row for each, _ in chosen])
        return [_passage(each, place, contents[each.row]) for each, place in chosen if each.row in contents]

    def _ranked(
        self, query: str, vector: NDArray[np.int16], found: Mapping[int, Readable], most: int
    ) -> list[Place]:
        import numpy as np

        loaded = self.shelf.findables(self._index.missing(found), full_name(self.embedding))
        if any(each.dimensions != len(vector) for _, _, each in loaded.values()):
            raise _mismatch("vectors of another length", full_name(self.embedding))
        self._index.add(loaded)
        self._index.keep({each.row for _, view in self._views.values() for each in view})
        allowed = np.array(sorted(found), dtype=np.int64)
        return self._index.search(query, vector, allowed, most)

    def _view(self, reader: Viewer) -> list[Readable]:
        """What somebody may read now; asked anew only after something was changed."""
        names = self._names(reader)
        changes = self.shelf.changes()
        if changes != self._checked_at:
            other = self.shelf.embeddings() - {full_name(self.embedding)}
            if other:
                raise _mismatch(f"`{min(other)}`", full_name(self.embedding))
            self._checked_at = changes
        key = (reader.region, *("|".join(sorted(each)) for each in names))
        known = self._views.get(key)
        if known is None or known[0] != changes:
            known = self._views[key] = (changes, self.shelf.readable(names, reader.region))
        self._views.move_to_end(key)
        while len(self._views) > _MOST_VIEWS:
            self._views.popitem(last=False)
        return known[1]

    def _names(self, reader: Viewer) -> list[frozenset[str]]:
        """For each who must be allowed to read, the names under which they may be."""
        everybody = [reader.principal] + ([reader.on_behalf_of] if reader.on_behalf_of is not None else [])
        return [self._names_of(each) for each in everybody]

    def _names_of(self, principal: str) -> frozenset[str]:
        if principal.startswith("agent/"):
            return frozenset({principal})
        roles = self._roles(principal)
        return frozenset() if roles is None else frozenset({principal, *roles})

    # Writing

    async def write(self, new: NewVersion, *, by: str, region: str) -> Written:
        """Write a version; one that a call with the same key has written already is returned as it is.

        Raises `MemoryRefused` for what can't be kept, `ToolFailed` of the embedding, `StorageError`; then nothing was
        written, unless the database broke at the very commit.
        """
        for _ in range(_ATTEMPTS):
            known = None if new.key is None else self.written_with(new.key)
            if known is not None:
                return known
            written, statements = await self.writing(new, by=by, region=region)
            try:
                await self._journal.write(statements)
            except FenceLost:
                # Somebody was faster: with the next version, or with this very call.
                continue
            return written
        raise StorageError(f"document `{new.document}` is written to by others without end; try again")

    async def writing(self, new: NewVersion, *, by: str, region: str) -> tuple[Written, list[Statement]]:
        """What `write` writes, for a transaction that records it as well. Raises as it does."""
        new = checked(new)
        self._refuse_secrets(new)
        standing = self.shelf.standing(new.document)
        if standing is not None and standing.forgotten_at is not None:
            raise MemoryRefused(f"document `{new.document}` was forgotten; write it under another name", code="document_forgotten")
        return await asyncio.to_thread(self._statements, new, standing, by, region)

    def _statements(
        self, new: NewVersion, standing: DocumentStanding | None, by: str, region: str
    ) -> tuple[Written, list[Statement]]:
        at, tenant = self.clock(), self.shelf.tenant
        begin: list[Statement] = []
        if standing is None:
            keys, wrapped = self.shelf.new_keys(new.document)
            begin = rows.new_document(tenant, new, region=region, at=at, body_key=wrapped)
            version = 1
        else:
            assert standing.keys is not None
            keys, version = standing.keys, standing.newest + 1
        content = Content(title=new.title, text=new.text, spans=chunks_of(new.text))
        values = {
            "embedding": full_name(self.embedding),
            "chunks": len(content.spans),
            "written_at": at,
            "written_by": by,
            "content": self.shelf.encrypted(keys, new.document, version, 0, msgspec.msgpack.encode(content)),
            "findable": self.shelf.encrypted(keys, new.document, version, 1, self._findable(content)),
        }
        statements = [*begin, *rows.new_readers(tenant, new), *rows.new_version(tenant, new, version, values)]
        return _written(new.document, version, new.label, content), statements

    def _findable(self, content: Content) -> bytes:
        texts = _texts(content)
        found: Findable = findable(texts, rounded(self.embedding.embed(texts), len(texts)))
        return msgspec.msgpack.encode(found)

    def _refuse_secrets(self, new: NewVersion) -> None:
        said = {"title": new.title, "text": new.text}
        if self._redactor.holds_credential(said) or self._redactor.redact(said).kinds & SECRET_KINDS:
            message = f"document `{new.document}` holds what looks like a key or a password; take it out"
            raise MemoryRefused(message, code="secret_in_document")

    def written_with(self, key: str) -> Written | None:
        """What a call with this idempotency key has written."""
        found = self.shelf.by_key(key)
        if found is None:
            return None
        document, version, label, content = found
        return _written(document, version, label, content or Content(title="", text="", spans=[]))

    # Taking back

    async def recall(self, document: str, version: int) -> None:
        """Never give out this version any more; one that was recalled already stays so. Raises `StorageError`."""
        await self._journal.write(rows.recall(self.shelf.tenant, document, version, self.clock()))

    def info(self, document: str, version: int | None = None) -> DocumentInfo:
        """A document. Raises `MemoryRefused` (code `document_not_found`), also where it has no such version."""
        found = self.shelf.infos(document)
        if not found:
            raise MemoryRefused(f"there is no document `{document}`; `remit memory list` lists them", code="document_not_found")
        if version is not None and version not in [each.version for each in found[0].versions]:
            there = ", ".join(str(each.version) for each in found[0].versions)
            raise MemoryRefused(f"document `{document}` has no version {version}; there are {there}", code="document_not_found")
        return found[0]

    def reads(self, document: str, version: int | None = None) -> list[Reading]:
        """The steps of runs that were given a document, or one of its versions."""
        return self.shelf.reads(document, version)

    async def text(self, document: str, reader: Viewer) -> Content | None:
        """The text of the current version, where `reader` may read it; `None` where not, or where there is none."""
        names = self._names(reader)
        readable = await asyncio.to_thread(self.shelf.readable, names, reader.region)
        chosen = [each.row for each in readable if each.document == document]
        return next(iter(self.shelf.contents(chosen).values()), None)

    async def reindex(self, progress: Callable[[int, int], None]) -> int:
        """Embed anew what was embedded by another embedding than the present one, and return how many versions.

        Interrupted, it goes on where it stopped. Raises `ConfigError`, `ToolFailed`, `StorageError`.
        """
        name = full_name(self.embedding)
        waiting = self.shelf.rows_of(but=name)
        for at in range(0, len(waiting), _AT_ONCE):
            some = waiting[at : at + _AT_ONCE]
            statements = await asyncio.to_thread(self._embedded_anew, some, name)
            await self._journal.write([*statements, rows.changed(self.shelf.tenant)])
            progress(min(at + _AT_ONCE, len(waiting)), len(waiting))
        return len(waiting)

    def _embedded_anew(self, some: Sequence[int], name: str) -> list[Statement]:
        places, made = self.shelf.places(some), list[Statement]()
        for row, content in self.shelf.contents(some).items():
            document, version, keys = places[row]
            blob = self.shelf.encrypted(keys, document, version, 1, self._findable(content))
            made.append(rows.embedded_anew(row, name, blob))
        return made


def _texts(content: Content) -> list[str]:
    """What is searched of each chunk: the title of the document stands before every one."""
    head = f"{content.title}\n" if content.title else ""
    return [head + content.text[start:end] for start, end in content.spans]


def _written(document: str, version: int, label: str, content: Content) -> Written:
    return Written(
        document=document, version=version, chunks=len(content.spans), label=label, hash=text_hash(content.text)
    )


def _passage(found: Readable, place: Place, content: Content) -> Passage:
    start, end = content.spans[place.number - 1]
    text = content.text[start:end]
    return Passage(
        chunk=chunk_id(place.document, place.version, place.number),
        document=place.document,
        version=place.version,
        title=content.title,
        text=text,
        hash=text_hash(text),
        label=found.label,
        classes=found.classes.split(),
        source=found.source,
    )


def _mismatch(other: str, present: str) -> ToolFailed:
    message = f"documents were embedded by {other}, and the embedding is `{present}` now; run `remit memory reindex`"
    return ToolFailed(message, code="embedding_mismatch")

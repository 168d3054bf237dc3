"""What people do to memory: add, recall and forget documents, each on the register with who and why."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from remit.errors import MemoryRefused, StorageError
from remit.identity.people import People
from remit.identity.principals import Person
from remit.journal.events import Draft, EventType
from remit.journal.redaction import Redactor
from remit.journal.register import Register
from remit.memory import rows
from remit.memory.documents import TRUSTED, DocumentInfo, NewVersion, Reading, Written
from remit.memory.memory import Memory
from remit.provenance.labels import untrusted
from remit.storage.scrub import scrub_keys
from remit.storage.writer import Statement
from remit.values import Json

SCOPE = "memory:keep"
"""What a person's token must hold."""


class Recalled(msgspec.Struct, frozen=True, kw_only=True):
    """What was recalled, and the steps of runs that had been given it. `current`: what is given out from now on."""

    document: str
    versions: list[int]
    current: int | None
    reads: list[Reading]


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """A document that was forgotten, and the steps of runs that were given it, whose record still has what they read.

    `left`: why bytes of its key may still be in the database's files; empty: none are.
    """

    document: str
    reads: list[Reading]
    left: str = ""


class Addition(msgspec.Struct, frozen=True, kw_only=True):
    """What a person adds. What is `None` stays as it is in the document's current version, or is not said."""

    document: str
    text: str
    title: str = ""
    readers: tuple[str, ...] | None = None
    label: str | None = None
    source: str | None = None
    classes: tuple[str, ...] = ()
    valid_until: int | None = None


class Keeping:
    """Keeps the documents of one tenant. `keepers`: the roles that may, of every document; its owner may as well."""

    def __init__(
        self,
        memory: Memory,
        *,
        register: Register,
        redactor: Redactor,
        people: People,
        keepers: Sequence[str],
        region: str,
    ) -> None:
        self.memory = memory
        self._register = register
        self._redactor = redactor
        self._people = people
        self._keepers = frozenset(f"role:{role}" for role in keepers)
        self._region = region

    async def add(self, addition: Addition, *, token: str) -> Written:
        """Write a new version of a document, or a new document. Without a label it is not trusted.

        Raises what `Memory.writing` raises, `MemoryRefused` (code `memory_denied`), and what the token raises.
        """
        person = self._holder(token)
        known = self.memory.shelf.infos(addition.document)
        self._check(person, known[0].owner if known else None)
        readers = addition.readers if addition.readers is not None else tuple(known[0].readers if known else ())
        source = addition.source or (known[0].versions[-1].source if known and known[0].versions else "person")
        new = NewVersion(
            document=addition.document,
            text=addition.text,
            title=addition.title,
            owner=person.principal,
            readers=readers,
            label=addition.label or untrusted(source),
            source=source,
            classes=addition.classes,
            valid_until=addition.valid_until,
        )
        written, statements = await self.memory.writing(new, by=person.principal, region=self._region)
        body = {**msgspec.to_builtins(written), "readers": list(readers), "trusted": new.label == TRUSTED}
        await self._append(EventType.DOCUMENT_ADDED, person, "", body, statements)
        return written

    async def recall(self, document: str, version: int | None = None, *, token: str, reason: str) -> Recalled:
        """Never give out a document any more, or one of its versions. What was recalled already stays so.

        Raises `MemoryRefused`: `memory_denied`, `document_not_found`; what the token raises, `StorageError`.
        """
        person = self._holder(token)
        info = self._found(person, document, version)
        meant = [each.version for each in info.versions if version in (None, each.version)]
        if any(each.recalled_at is None for each in info.versions if each.version in meant):
            statements = rows.recall(self.memory.shelf.tenant, document, version, self.memory.clock())
            body = {"document": document, "versions": meant}
            await self._append(EventType.DOCUMENT_RECALLED, person, reason, body, statements)
        return Recalled(
            document=document,
            versions=meant,
            current=self.memory.info(document).current,
            reads=self.memory.reads(document, version),
        )

    async def forget(self, document: str, *, token: str, reason: str) -> Forgotten:
        """Destroy what a document said, in all of its versions; that it was there stays on record. Raises as `recall`."""
        person = self._holder(token)
        info = self._found(person, document, None)
        if info.forgotten_at is None:
            statements = rows.forget(self.memory.shelf.tenant, document, self.memory.clock())
            await self._append(EventType.DOCUMENT_FORGOTTEN, person, reason, {"document": document}, statements)
        left = ""
        try:
            await asyncio.to_thread(scrub_keys, self.memory.shelf.database)
        except StorageError as error:
            left = error.message
        return Forgotten(document=document, reads=self.memory.reads(document), left=left)

    def _holder(self, token: str) -> Person:
        return self._people.holder(token, SCOPE, self.memory.clock())

    def _found(self, person: Person, document: str, version: int | None) -> DocumentInfo:
        if not self._keepers & person.roles:
            # Whoever keeps nothing is told nothing of what is there, either.
            known = self.memory.shelf.infos(document)
            self._check(person, known[0].owner if known else None)
        return self.memory.info(document, version)

    def _check(self, person: Person, owner: str | None) -> None:
        if not person.enabled:
            raise MemoryRefused(f"`{person.principal}` is disabled", code="memory_denied")
        if self._keepers & person.roles or owner == person.principal:
            return
        named = ", ".join(f"`{role}`" for role in sorted(self._keepers)) or "nobody; name roles under `[memory] keepers`"
        raise MemoryRefused(
            f"`{person.principal}` may not keep that document; its owner may, and so may {named}", code="memory_denied"
        )

    async def _append(
        self, type_: EventType, person: Person, reason: str, body: Mapping[str, Json], statements: Sequence[Statement]
    ) -> None:
        draft = Draft(
            type=type_,
            # A header holds nothing personal.
            actor=self._redactor.pseudonym("person", person.principal),
            body={"by": person.principal, "reason": self._redactor.text(reason), **body},
        )
        await self._register.append(draft, statements=statements, by=person.principal)

"""What memory holds, in values: documents, their versions, and the passages that a search finds."""

from __future__ import annotations

import hashlib
import re

import msgspec

from remit.errors import MemoryRefused
from remit.identity.principals import parse_principal
from remit.provenance.labels import kind_of, untrusted

TRUSTED = "trusted"
MOST_CHARACTERS = 500_000
"""How long a document may be. What is longer is several documents."""

_DOCUMENT = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}(/[a-z0-9][a-z0-9._-]{0,79})?", re.ASCII)
_SOURCE = re.compile(r"[a-z0-9][a-z0-9._:-]{0,63}", re.ASCII)
_ROLE = re.compile(r"role:[a-z][a-z0-9-]{0,47}", re.ASCII)


class Viewer(msgspec.Struct, frozen=True, kw_only=True):
    """For whom something is looked for: the agent, and whoever it acts for. Both must be allowed to read it.

    `region`: where it is looked for. An agent acts for the person in `on_behalf_of`, or for nobody. A person who looks by
    themselves is `principal`.
    """

    principal: str
    region: str
    on_behalf_of: str | None = None


class NewVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is to be written; `valid_until` in microseconds since the epoch, `None`: without end.

    `key`: the idempotency key of the call that writes it, `run` and `step` where that stands; empty for a person.
    """

    document: str
    text: str
    owner: str
    readers: tuple[str, ...]
    label: str
    source: str
    title: str = ""
    classes: tuple[str, ...] = ()
    valid_until: int | None = None
    key: str | None = None
    run: str | None = None
    step: str | None = None


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is there now. `hash`: SHA-256 of its text."""

    document: str
    version: int
    chunks: int
    label: str
    hash: str


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk that a search found. `chunk` is its id, such as `policy@7#2`; `hash` the SHA-256 of its text."""

    chunk: str
    document: str
    version: int
    title: str
    text: str
    hash: str
    label: str
    classes: list[str]
    source: str


class DocumentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A document without its text. Times in microseconds since the epoch."""

    document: str
    owner: str
    region: str
    readers: list[str]
    current: int | None
    versions: list[VersionInfo]
    forgotten_at: int | None


class VersionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a document without its text."""

    version: int
    label: str
    classes: list[str]
    source: str
    valid_until: int | None
    embedding: str
    chunks: int
    written_at: int
    written_by: str
    run: str | None
    step: str | None
    recalled_at: int | None


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a run that was given a version."""

    run: str
    step: str
    version: int


def chunk_id(document: str, version: int, number: int) -> str:
    """`policy@7#2`: the second chunk of version 7."""
    return f"{document}@{version}#{number}"


def text_hash(text: str) -> str:
    """SHA-256 of a text, hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def checked(new: NewVersion) -> NewVersion:
    """The same, if it can be kept. Raises `MemoryRefused` (code `document_invalid`) with what is wrong."""
    problem = _problem(new)
    if problem:
        raise MemoryRefused(problem, code="document_invalid")
    return msgspec.structs.replace(new, readers=tuple(sorted(set(new.readers))), classes=tuple(sorted(set(new.classes))))


def _problem(new: NewVersion) -> str:
    if not _DOCUMENT.fullmatch(new.document):
        return (
            f"`{ascii(new.document[:80])[1:-1]}` is no name of a document; write lower-case letters, digits and `._-`, with "
            "at most one `/`"
        )
    if not new.text.strip():
        return f"document `{new.document}` has no text; give it some"
    if len(new.text) > MOST_CHARACTERS or len(new.title) > 200:
        return f"document `{new.document}` is longer than {MOST_CHARACTERS:,} characters, or its title than 200; split it"
    if not _SOURCE.fullmatch(new.source):
        return f"`{ascii(new.source[:80])[1:-1]}` is no name of a source; write lower-case letters, digits and `._:-`"
    if new.label != TRUSTED and not (kind_of(new.label) == "untrusted" and _SOURCE.fullmatch(new.label.partition(":")[2])):
        return f"label `{ascii(new.label[:80])[1:-1]}` is none; write `{TRUSTED}` or `{untrusted(new.source)}`"
    for reader in new.readers:
        if not _is_reader(reader):
            shown = ascii(reader[:80])[1:-1]
            return f"reader `{shown}` is nobody; write `agent/<tenant>/<contract>`, `person/<id>` or `role:<role>`"
    return ""


def _is_reader(reader: str) -> bool:
    from remit.errors import IdentityError

    if reader.startswith("role:"):
        return _ROLE.fullmatch(reader) is not None
    try:
        parse_principal(reader)
    except IdentityError:
        return False
    return True

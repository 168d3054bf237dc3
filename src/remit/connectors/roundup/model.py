"""What the connector reads and writes: values with names and units, never the tracker's internal ids of vocabularies.

Texts are kept as the tracker keeps them, without white space around and with line feeds between lines (see `canonical`), so
that what was sent can be compared with what is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from remit.errors import ToolFailed

Value: TypeAlias = str | bool | int | tuple[int, ...] | None

# How each property of an issue is written and read. Everything else is refused before a request is made.
LINKS = frozenset({"assignedto", "category", "priority", "region", "status", "tenant"})
TEXTS = frozenset({"body", "extkey", "language", "requester", "title"})
FLAGS = frozenset({"requester_vip"})
ISSUES = frozenset({"superseder"})
WRITABLE = LINKS | TEXTS | FLAGS | ISSUES
# What the tracker keeps itself, or what only `note` may write.
STAMPS = frozenset({"activity", "actor", "creation", "creator"})
READABLE = WRITABLE | STAMPS | {"messages"}
# Found by a part of the text, without regard to case; all other texts are compared as a whole.
SEARCHED_IN_PART = frozenset({"body", "title"})
FILTERS = LINKS | TEXTS | FLAGS | ISSUES | {"creator", "id"}

MAX_TEXT_CHARS = 100_000
MAX_ID = 2**31 - 1
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:~-]{0,127}")
_NAME = re.compile(r"(?=.*[^\d+-])[^\s,@/\\][^,\x00-\x1f]{0,99}")
_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """A message of an issue. `key` is the idempotency key it was written with, if it was written with one."""

    id: int
    author: str | None
    written: str
    text: str
    key: str | None = None


class Issue(msgspec.Struct, frozen=True, kw_only=True):
    """An issue with its notes, oldest first. Times are RFC 3339 in UTC; `superseder` names what it duplicates.

    `etag` is what a change must name to be sure that nobody changed the issue since; a snapshot has none.
    """

    id: int
    etag: str | None
    title: str
    body: str
    category: str | None
    priority: str | None
    status: str | None
    assignedto: str | None
    requester: str | None
    requester_vip: bool
    tenant: str | None
    region: str | None
    language: str | None
    extkey: str | None
    superseder: tuple[int, ...]
    creation: str
    creator: str
    activity: str
    actor: str
    messages: tuple[int, ...]
    notes: tuple[Note, ...]


class IssuePage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the issues found, each with its `id` and the fields asked for; `total` is how many there are in all."""

    items: tuple[Mapping[str, Value], ...]
    total: int
    limit: int
    offset: int


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """What the tracker says it changed: the properties whose value was not the same before."""

    issue: int
    properties: tuple[str, ...]


class PostedNote(msgspec.Struct, frozen=True, kw_only=True):
    """A note that is on the issue; `existed` when an earlier call with the same key had put it there."""

    issue: int
    note: int
    existed: bool


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """An issue that is in the tracker; `existed` when an earlier call with the same key had made it."""

    issue: int
    existed: bool


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the tracker's own journal of an issue.

    `changes` maps a property to `{"from": …, "to": …}`, or for `messages` and `superseder` to
    `{"added": […], "removed": […]}` with ids. `action` is `create`, `set`, `link`, `unlink`, `retired` or `restored`.
    """

    written: str
    author: str
    action: str
    changes: Mapping[str, Mapping[str, Value]]


def invalid(message: str) -> ToolFailed:
    """The error for a request that was refused before it was made."""
    return ToolFailed(message, code="invalid")


def issue_id(value: int) -> int:
    """A positive issue number, or ToolFailed; nothing else ever becomes part of a path."""
    # A flag is an int for Python, so `True` would read as issue 1.
    if type(value) is not int or not 0 < value <= MAX_ID:
        raise invalid(f"issue `{value!r:.40}` is not a number of an issue; give a positive whole number")
    return value


def idempotency_key(value: str) -> str:
    """A key that a note or an issue can be found again by, or ToolFailed."""
    if not _KEY.fullmatch(value):
        raise invalid("the idempotency key is not valid; use 1 to 128 letters, digits and `.`, `_`, `:`, `~`, `-`")
    return value


def entity_tag(value: str) -> str:
    """An entity tag as `read` gives it, or ToolFailed."""
    if not _ETAG.fullmatch(value):
        raise invalid("the entity tag is not valid; read the issue and give its `etag` unchanged")
    return value


def canonical(text: str) -> str:
    """A text as the tracker will keep it: without white space around, lines ended by a line feed.

    Raises ToolFailed for what it can't keep: lone surrogates, the character NUL, or more than 100,000 characters.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise invalid(f"the text has {len(text)} characters; send at most {MAX_TEXT_CHARS}")
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise invalid("the text has a character that can't be stored (NUL or half of a surrogate pair); remove it")
    return text.strip().replace("\r\n", "\n").replace("\r", "\n")


def link_name(name: str, value: Value) -> str:
    """The name of an item of a vocabulary; one that reads as an id or as several names is refused."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise invalid(f"`{name}` must be the name of one {name}; look at an issue that has one")
    return canonical(value)


def encode_changes(changes: Mapping[str, Value]) -> dict[str, str | list[str]]:
    """Changes as the tracker takes them, every name checked against `WRITABLE`; None clears a property."""
    if not changes:
        raise invalid(f"no changes were given; name at least one of {listed(WRITABLE)}")
    return {name: encode_value(name, value) for name, value in changes.items()}


def encode_value(name: str, value: Value) -> str | list[str]:
    """One value as the tracker takes it. The tracker ignores null, and reads an empty text as no value."""
    if name not in WRITABLE:
        raise invalid(f"`{name:.60}` is not a property that can be written; choose from {listed(WRITABLE)}")
    if value is None:
        if name == "title":
            raise invalid("`title` can't be cleared; give a text")
        return ""
    if name in LINKS:
        return link_name(name, value)
    if name in FLAGS:
        if not isinstance(value, bool):
            raise invalid(f"`{name}` must be true or false")
        return "true" if value else "false"
    if name in ISSUES:
        numbers = value if isinstance(value, tuple) else (value,)
        return [str(issue_id(number)) if isinstance(number, int) else _refuse_issue(name) for number in numbers] or ""
    if not isinstance(value, str):
        raise invalid(f"`{name}` must be a text")
    text = canonical(value)
    if name == "title" and not text:
        raise invalid("`title` is empty; give a text")
    return text


def _refuse_issue(name: str) -> str:
    raise invalid(f"`{name}` must be the number of an issue, or several")


def encode_filters(filters: Mapping[str, Value | Sequence[Value]]) -> list[tuple[str, str]]:
    """Filters as query parameters, every name checked against `FILTERS`; None finds what has no value."""
    parameters: list[tuple[str, str]] = []
    for name, wanted in filters.items():
        if name not in FILTERS:
            raise invalid(f"`{name:.60}` is not a property that can be searched; choose from {listed(FILTERS)}")
        values = [wanted] if isinstance(wanted, str) or not isinstance(wanted, Sequence) else wanted
        parameters.extend(encode_filter(name, value) for value in values)
    return parameters


def encode_filter(name: str, value: Value) -> tuple[str, str]:
    """One filter as a query parameter; a trailing colon asks Roundup for the whole text instead of a part."""
    if name in FLAGS:
        encoded = encode_value(name, value)
        assert isinstance(encoded, str)
        return name, encoded
    if name in ISSUES or name == "id":
        if not isinstance(value, int):
            raise invalid(f"`{name}` must be the number of an issue")
        return name, str(issue_id(value))
    if name in LINKS or name == "creator":
        return name, "-1" if value is None else link_name(name, value)
    if not isinstance(value, str) or not canonical(value):
        raise invalid(f"`{name}` must be a text to search for")
    return (name if name in SEARCHED_IN_PART else f"{name}:"), canonical(value)


def listed(names: frozenset[str]) -> str:
    """Names in alphabetical order, as part of a message."""
    return ", ".join(f"`{name}`" for name in sorted(names))

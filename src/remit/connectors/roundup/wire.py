"""The answers of Roundup's REST interface (version 1) that the client uses, and how they become values of the model.

An answer that doesn't have exactly these types is refused when it is decoded; unknown members are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from remit.connectors.roundup.model import FLAGS, ISSUES, LINKS, STAMPS, HistoryEntry, Issue, Note, Value

Id: TypeAlias = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,9}$")]
Stamp: TypeAlias = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\d\.\d\d:\d\d:\d\d(\.\d+)?$")]
ETag: TypeAlias = Annotated[str, Meta(pattern=r'^"[\x21\x23-\x7e]{1,200}"$')]

_MARKER = re.compile(r"<([^@<>]+)\.issue([1-9][0-9]*)@remit\.invalid>")


class Item(Struct, frozen=True):
    """A link: the id of an item, and its label under the name of the class's key property."""

    id: Id
    name: str | None = None
    username: str | None = None

    @property
    def label(self) -> str:
        """The item's name."""
        return self.username or self.name or self.id


class IssueFields(Struct, frozen=True):
    """An issue's properties as far as they were asked for and may be viewed."""

    id: Id | None = None
    title: str | None = None
    body: str | None = None
    category: Item | None = None
    priority: Item | None = None
    status: Item | None = None
    assignedto: Item | None = None
    requester: str | None = None
    # SQLite keeps 0 and 1, other databases real booleans.
    requester_vip: int | bool | None = None
    tenant: Item | None = None
    region: Item | None = None
    language: str | None = None
    extkey: str | None = None
    superseder: tuple[Item, ...] = ()
    messages: tuple[Item, ...] = ()
    creation: Stamp | None = None
    creator: Item | None = None
    activity: Stamp | None = None
    actor: Item | None = None


class IssueElement(Struct, frozen=True):
    """`GET issue/N`."""

    id: Id
    attributes: IssueFields
    etag: ETag = msgspec.field(name="@etag")


class IssueCollection(Struct, frozen=True):
    """`GET issue`."""

    collection: tuple[IssueFields, ...]
    total: int = msgspec.field(name="@total_size")


class MessageFields(Struct, frozen=True):
    """One message of `GET msg`, with its content (which takes `@verbose=3`)."""

    id: Id
    content: str | None = None
    author: Item | None = None
    creator: Item | None = None
    creation: Stamp | None = None
    date: Stamp | None = None
    messageid: str | None = None


class MessageCollection(Struct, frozen=True):
    """`GET msg`."""

    collection: tuple[MessageFields, ...]
    total: int = msgspec.field(name="@total_size")


class NewItem(Struct, frozen=True):
    """`POST` of a new item."""

    id: Id


class PostToken(Struct, frozen=True):
    """`POST issue/@poe`: the address that one issue can be posted to, once."""

    link: Annotated[str, Meta(pattern=r"^.*/@poe/[A-Za-z0-9_-]{16,200}$")]

    @property
    def token(self) -> str:
        """The last part of the address; only this is used, so that an answer can't name another host."""
        return self.link.rpartition("/")[2]


class ChangedItem(Struct, frozen=True):
    """`PATCH` of an item: what was not the same before."""

    id: Id
    attribute: dict[str, Raw]


class Change(Struct, frozen=True):
    """One property in an entry of the journal: its values before and after, or ids added and removed."""

    old: str | bool | int | None = msgspec.field(name="from", default=None)
    new: str | bool | int | None = msgspec.field(name="to", default=None)
    added: tuple[Id, ...] | None = None
    removed: tuple[Id, ...] | None = None


class JournalEntry(Struct, frozen=True):
    """One entry of `GET issue/N/@history`."""

    date: Stamp
    author: str
    action: str
    changes: dict[str, Change]


class HistoryCollection(Struct, frozen=True):
    """`GET issue/N/@history`."""

    collection: tuple[JournalEntry, ...]


def marker(issue: int, key: str) -> str:
    """The Message-ID that a note with an idempotency key has; it names the issue, so keys of two issues can't meet."""
    return f"<{key}.issue{issue}@remit.invalid>"


def key_of(messageid: str | None) -> str | None:
    """The idempotency key in a Message-ID, if it is one of ours."""
    match = _MARKER.fullmatch(messageid or "")
    return match[1] if match else None


def instant(stamp: str | None) -> str:
    """A Roundup date, `2026-01-31.09:30:00`, as RFC 3339 in UTC; nothing for nothing."""
    return f"{stamp.replace('.', 'T', 1)}Z" if stamp else ""


def label(item: Item | None) -> str | None:
    """The name of what a link points at."""
    return item.label if item else None


def ids(items: Iterable[Item]) -> tuple[int, ...]:
    """The ids of what a multiple link points at, in ascending order."""
    return tuple(sorted(int(item.id) for item in items))


def to_note(message: MessageFields) -> Note:
    """A message as a note."""
    return Note(
        id=int(message.id),
        author=label(message.author or message.creator),
        written=instant(message.date or message.creation),
        text=message.content or "",
        key=key_of(message.messageid),
    )


def to_issue(number: int, fields: IssueFields, notes: Mapping[int, Note], etag: str | None) -> Issue:
    """An issue with its notes, which are taken from `notes` by their ids."""
    messages = ids(fields.messages)
    return Issue(
        id=number,
        etag=etag,
        title=fields.title or "",
        body=fields.body or "",
        category=label(fields.category),
        priority=label(fields.priority),
        status=label(fields.status),
        assignedto=label(fields.assignedto),
        requester=fields.requester,
        requester_vip=bool(fields.requester_vip),
        tenant=label(fields.tenant),
        region=label(fields.region),
        language=fields.language,
        extkey=fields.extkey,
        superseder=ids(fields.superseder),
        creation=instant(fields.creation),
        creator=label(fields.creator) or "",
        activity=instant(fields.activity),
        actor=label(fields.actor) or "",
        messages=messages,
        notes=tuple(notes[message] for message in messages if message in notes),
    )


def to_value(fields: IssueFields, name: str) -> Value:
    """One property of an issue as the model has it."""
    value = getattr(fields, name)
    if name in FLAGS:
        return bool(value)
    if name in ISSUES or name == "messages":
        return ids(value)
    if name in LINKS or name in {"creator", "actor"}:
        return label(value)
    return instant(value) if name in STAMPS else value


def to_history(entry: JournalEntry) -> HistoryEntry:
    """One entry of the journal."""
    changes: dict[str, dict[str, Value]] = {}
    for name, change in entry.changes.items():
        if change.added is not None or change.removed is not None:
            added, removed = change.added or (), change.removed or ()
            changes[name] = {"added": tuple(map(int, added)), "removed": tuple(map(int, removed))}
        elif name in FLAGS:
            changes[name] = {"from": bool(change.old), "to": bool(change.new)}
        else:
            changes[name] = {"from": change.old, "to": change.new}
    return HistoryEntry(written=instant(entry.date), author=entry.author, action=entry.action, changes=changes)

"""A careful client of a Roundup tracker's REST interface (https://www.roundup-tracker.org/docs/rest.html).

    async with RoundupClient(url, Credentials(username="remit-agent", password=...)) as tracker:
        issue = await tracker.read(7)
        await tracker.update(7, {"priority": "high"}, issue.etag)
        await tracker.note(7, "passed on to the network team", key="run-1.step-4")

Every method raises ToolFailed when it certainly did nothing and OutcomeUnknown when it may have; `transport.py` has the
table. Nothing is retried here. After an OutcomeUnknown the reads `find_note`, `find_issue`, `read` and `history` tell
what became of it, and `note` and `create` may be called again with the same key: they never do the same thing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from remit.connectors.roundup.model import (
    READABLE,
    Changed,
    Created,
    HistoryEntry,
    Issue,
    IssuePage,
    Note,
    PostedNote,
    Value,
    canonical,
    encode_changes,
    encode_filters,
    entity_tag,
    idempotency_key,
    invalid,
    issue_id,
    listed,
)
from remit.connectors.roundup.transport import Bounds, Credentials, Parameters, Transport
from remit.connectors.roundup.wire import (
    ChangedItem,
    HistoryCollection,
    IssueCollection,
    IssueElement,
    IssueFields,
    MessageCollection,
    MessageFields,
    NewItem,
    PostToken,
    ids,
    marker,
    to_history,
    to_issue,
    to_note,
    to_value,
)
from remit.errors import OutcomeUnknown, ToolFailed

DEFAULT_FIELDS = ("title", "category", "priority", "status", "assignedto", "tenant", "region")
MAX_LIMIT = 500
IDS_A_REQUEST = 100
NOTE_ATTEMPTS = 3
OPEN, CLOSED, DUPLICATE = "open", "closed", "duplicate"

# Links come as names with this much detail, and the content of messages only with one more.
NAMES = ("@verbose", "2")
CONTENTS = ("@verbose", "3")
COMPACT = ("@pretty", "false")
ISSUE_FIELDS = ("@fields", ",".join(sorted(READABLE)))
MESSAGE_FIELDS = ("@fields", "author,content,creation,creator,date,messageid")


class RoundupClient:
    """One user's access to one tracker, over pooled connections. Use it as an async context manager or `aclose` it.

    `url` is the tracker's address, such as `https://desk.example/tracker/`; over plain http only this machine is
    accepted. Raises ConfigError when it is not usable.
    """

    def __init__(self, url: str, credentials: Credentials, bounds: Bounds | None = None) -> None:
        self.username = credentials.username
        self._transport = Transport(url, credentials, bounds or Bounds())
        # Tokens of creations whose outcome is unknown, by key: used again, the tracker itself refuses the second.
        self._post_tokens: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def search(
        self,
        filters: Mapping[str, Value | Sequence[Value]],
        fields: Sequence[str] = DEFAULT_FIELDS,
        limit: int = 50,
        offset: int = 0,
    ) -> IssuePage:
        """Issues that match every filter, in the order of their numbers.

        A filter has one value or several, of which one must match; None finds what has no value. Texts match as a
        whole, `title` and `body` by a part. At most 500 issues at a time; `offset` must be a multiple of `limit`.
        """
        unknown = set(fields) - READABLE - {"id"}
        if unknown:
            raise invalid(f"`{min(unknown):.60}` is not a property that can be read; choose from {listed(READABLE)}")
        if not 0 < limit <= MAX_LIMIT:
            raise invalid(f"`limit` must be from 1 to {MAX_LIMIT}")
        if offset < 0 or offset % limit:
            raise invalid("`offset` must be 0 or a multiple of `limit`")
        chosen = [name for name in dict.fromkeys(fields) if name != "id"]
        page = [("@page_size", str(limit)), ("@page_index", str(offset // limit + 1))]
        asked = [("@fields", ",".join(chosen or ["title"])), NAMES, COMPACT]
        answer = await self._transport.read("issue", IssueCollection, [*encode_filters(filters), *asked, *page])
        items = tuple(
            {"id": int(item.id or 0)} | {name: to_value(item, name) for name in chosen} for item in answer.collection
        )
        return IssuePage(items=items, total=answer.total, limit=limit, offset=offset)

    async def read(self, issue: int) -> Issue:
        """One issue with its entity tag and its notes."""
        number = issue_id(issue)
        element = await self._transport.read(f"issue/{number}", IssueElement, [ISSUE_FIELDS, NAMES, COMPACT])
        notes = await self._notes(ids(element.attributes.messages))
        return to_issue(number, element.attributes, notes, element.etag)

    async def update(self, issue: int, changes: Mapping[str, Value], etag: str) -> Changed:
        """Set properties of an issue, all or none, if it still has the entity tag; None clears one.

        ToolFailed `conflict` when somebody changed the issue since it was read: read it again and decide anew.
        """
        number = issue_id(issue)
        body = encode_changes(changes)
        answer = await self._transport.change(f"issue/{number}", body, entity_tag(etag), ChangedItem)
        return Changed(issue=number, properties=tuple(sorted(answer.attribute)))

    async def close(self, issue: int, etag: str, superseder: int | None = None) -> Changed:
        """Close an issue: as `closed`, or as a `duplicate` of `superseder`."""
        if superseder is None:
            return await self.update(issue, {"status": CLOSED}, etag)
        if superseder == issue:
            raise invalid(f"issue {issue} can't be a duplicate of itself; name another issue")
        return await self.update(issue, {"status": DUPLICATE, "superseder": (issue_id(superseder),)}, etag)

    async def reopen(self, issue: int, etag: str) -> Changed:
        """Set an issue `open` again; what it was a duplicate of is cleared."""
        return await self.update(issue, {"status": OPEN, "superseder": None}, etag)

    async def note(self, issue: int, text: str, key: str) -> PostedNote:
        """Put a note on an issue, once for each `key`.

        The message carries the key as its Message-ID and shows on the issue only by the change that links it, which
        is atomic: what an interrupted call left is not visible, and is used by the next call with the same key. A
        change by somebody else in between is no conflict for a note; it is linked to the new state. ToolFailed
        `conflict` when the key was used for another text.
        """
        number, text, key = issue_id(issue), canonical(text), idempotency_key(key)
        if not text:
            raise invalid("the note is empty; give a text")
        found, current = await asyncio.gather(self._marked(number, key), self._links(number))
        if any(message.content != text for message in found):
            raise ToolFailed(f"the key `{key}` was used for another note; use a new one", code="conflict")
        message = int(found[0].id) if found else None
        for _ in range(NOTE_ATTEMPTS):
            present = {int(one.id) for one in found} & set(ids(current.attributes.messages))
            if present:
                return PostedNote(issue=number, note=min(present), existed=True)
            if message is None:
                body = {"content": text, "messageid": marker(number, key)}
                message = int((await self._transport.create("msg", body, NewItem)).id)
            try:
                await self._transport.change(f"issue/{number}", {"messages": f"+{message}"}, current.etag, ChangedItem)
            except ToolFailed as error:
                if error.code != "conflict":
                    raise
                current = await self._links(number)
            else:
                return PostedNote(issue=number, note=message, existed=False)
        raise ToolFailed(f"issue {number} is being changed all the time; try again", code="conflict", retryable=True)

    async def create(self, fields: Mapping[str, Value], key: str) -> Created:
        """Make an issue, once for each `key`, which becomes its `extkey`; `fields` must have a `title`.

        The key is looked for first. Then the issue is posted to an address that Roundup accepts one post to ("post
        once exactly"). After an OutcomeUnknown the same address is used for the same key, so that a first post that
        is still on its way and the second can't both succeed. A client that was made anew does not know the address: it
        relies on the first post having been carried out, or not, by the time that it looks for the key.
        """
        key = idempotency_key(key)
        if fields.get("extkey", key) != key:
            raise invalid("`extkey` is set to the idempotency key; leave it out")
        if fields.get("title") is None:
            raise invalid("`title` is missing; give one")
        body = encode_changes({**fields, "extkey": key})
        existing = await self.find_issue(key)
        if existing is not None:
            self._post_tokens.pop(key, None)
            return Created(issue=existing, existed=True)
        again = self._post_tokens.get(key)
        token = again or (await self._transport.prepare("issue/@poe", PostToken)).token
        self._post_tokens[key] = token
        try:
            answer = await self._transport.create(f"issue/@poe/{token}", body, NewItem)
        except ToolFailed as error:
            del self._post_tokens[key]
            if again and "POE token" in error.message:
                return await self._created_before(key)
            raise
        del self._post_tokens[key]
        return Created(issue=int(answer.id), existed=False)

    async def find_issue(self, key: str) -> int | None:
        """The number of the issue that was created with a key, if there is one; of several, the first."""
        parameters = [("extkey:", idempotency_key(key)), ("@fields", "extkey"), COMPACT]
        answer = await self._transport.read("issue", IssueCollection, parameters)
        return min((int(item.id) for item in answer.collection if item.id and item.extkey == key), default=None)

    async def find_note(self, issue: int, key: str) -> Note | None:
        """The note that was put on an issue with a key, if it shows there."""
        number, key = issue_id(issue), idempotency_key(key)
        found, current = await asyncio.gather(self._marked(number, key), self._links(number))
        shown = ids(current.attributes.messages)
        return next((to_note(message) for message in found if int(message.id) in shown), None)

    async def history(self, issue: int) -> tuple[HistoryEntry, ...]:
        """The tracker's own journal of an issue, oldest entry first.

        Roundup's REST interface has no route for it; the tracker that Remit starts adds one. ToolFailed `not_found`
        from any other tracker.
        """
        answer = await self._transport.read(f"issue/{issue_id(issue)}/@history", HistoryCollection, [COMPACT])
        return tuple(to_history(entry) for entry in answer.collection)

    async def active_since(self, stamp: str, limit: int = MAX_LIMIT) -> AsyncIterator[list[tuple[int, str]]]:
        """Pages of issues with some activity from then on: number and `extkey`, in the order of their numbers.

        An issue that is changed meanwhile stays among them, so no page skips one. `stamp`: a date as Roundup writes it;
        `limit`: how many issues a page has.
        """
        fields = [("@fields", "extkey"), ("@sort", "id"), ("activity", f"{stamp};"), COMPACT]
        number, read = 1, 0
        while True:
            page = [("@page_size", str(limit)), ("@page_index", str(number))]
            answer = await self._transport.read("issue", IssueCollection, [*fields, *page])
            yield [(int(item.id), item.extkey or "") for item in answer.collection if item.id]
            number, read = number + 1, read + len(answer.collection)
            if not answer.collection or read >= answer.total:
                return

    async def keys_of(self, messages: Sequence[int]) -> dict[int, str]:
        """The idempotency keys of those of these messages that were written with one, by the message's id."""
        found = (await self._notes(messages)).values()
        return {note.id: note.key for note in found if note.key is not None}

    async def snapshot(self) -> tuple[Issue, ...]:
        """Every issue with every property and its notes, in the order of their numbers: one request, then one for each
        hundred issues and each hundred notes.

        Notes are read after the issues, so that each one linked there is found. Of what is changed meanwhile, some
        may be seen and some not. The issues have no entity tag.
        """
        listing = await self._transport.read("issue", IssueCollection, [COMPACT])
        issues: dict[int, IssueFields] = {}
        for some in chunks([int(item.id) for item in listing.collection if item.id]):
            parameters = [*some, ISSUE_FIELDS, NAMES, COMPACT]
            answer = await self._transport.read("issue", IssueCollection, parameters)
            issues |= {int(item.id): item for item in answer.collection if item.id}
        notes = await self._notes([message for fields in issues.values() for message in ids(fields.messages)])
        return tuple(to_issue(number, issues[number], notes, None) for number in sorted(issues))

    async def _notes(self, messages: Sequence[int]) -> dict[int, Note]:
        """The notes with these ids, by id."""
        notes: dict[int, Note] = {}
        for some in chunks(messages):
            notes |= {int(message.id): to_note(message) for message in await self._messages(some)}
        return notes

    async def _messages(self, filters: Parameters) -> tuple[MessageFields, ...]:
        """The messages that a filter finds, with their contents, in the order of their ids."""
        parameters = [*filters, MESSAGE_FIELDS, CONTENTS, COMPACT]
        answer = await self._transport.read("msg", MessageCollection, parameters)
        return tuple(sorted(answer.collection, key=lambda message: int(message.id)))

    async def _marked(self, issue: int, key: str) -> tuple[MessageFields, ...]:
        """The messages written with a key for an issue, whether or not they are linked to it."""
        return await self._messages([("messageid:", marker(issue, key))])

    async def _links(self, issue: int) -> IssueElement:
        """An issue's entity tag and the ids of its messages."""
        parameters = [("@fields", "messages"), COMPACT]
        return await self._transport.read(f"issue/{issue}", IssueElement, parameters)

    async def _created_before(self, key: str) -> Created:
        """What an earlier post made that used up the address which the tracker now refuses."""
        existing = await self.find_issue(key)
        if existing is None:
            raise OutcomeUnknown(
                f"the tracker took an earlier post with the key `{key}` but shows no issue; look for it again"
            )
        return Created(issue=existing, existed=True)


def chunks(numbers: Sequence[int]) -> Iterator[list[tuple[str, str]]]:
    """Filters that name a hundred items each, so that no address grows too long."""
    for start in range(0, len(numbers), IDS_A_REQUEST):
        yield [("id", str(number)) for number in numbers[start : start + IDS_A_REQUEST]]

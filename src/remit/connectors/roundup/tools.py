
"""The tools of a Roundup tracker, over the connection `tracker`.

What a call is about is read before it is judged, and a write names the ETag that was read then: whatever changed in
between makes it fail with `conflict` instead of being overwritten. Issues of other tenants are located like any other,
so that policy sees whose they are; what a search finds is confined to the caller's own tenant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, NotRequired, TypedDict

from msgspec import Meta, Struct

from remit.connectors.roundup.changes import PROPERTIES, TRACES, read_changes
from remit.connectors.roundup.client import CLOSED, DUPLICATE, OPEN, RoundupClient
from remit.connectors.roundup.compensations import (
    left_by_closing,
    left_by_creation,
    left_by_update,
    restore,
    same_issue,
)
from remit.connectors.roundup.model import Issue, IssuePage, Value
from remit.connectors.roundup.transport import Credentials
from remit.errors import ToolFailed
from remit.tools.changes import ChangeLog
from remit.tools.decorator import to_json, tool
from remit.tools.spec import (
    Compensation,
    Connection,
    Effect,
    FieldClass,
    Happened,
    Idempotency,
    Reconciled,
    Resource,
    Retry,
    ToolContext,
)
from remit.values import Json

IssueNumber = Annotated[int, Meta(ge=1, le=2**31 - 1, description="Number of an issue.")]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9 ._-]{0,63}$")]
Email = Annotated[str, Meta(pattern=r"^[^@\s]{1,64}@[^@\s]{1,190}$")]
# Notes are read by people in a hurry, and a short one carries little out.
NoteText = Annotated[str, Meta(min_length=1, max_length=400, pattern=r"\S")]

ISSUE_ATTRIBUTES = {
    "vip": "Bool",
    "status": "String",
    "category": "String",
    "priority": "String",
    "assignee": "String",
    "duplicate_of": "Long",
}
"""What policies may ask of an issue; an empty text or 0 where it has none."""


class OnIssues(TypedDict):
    """What all tools that act upon an issue declare."""

    retry: Retry
    resource_kind: str
    resource_attributes: Mapping[str, str]


ON_ISSUES: OnIssues = {
    "retry": Retry(attempts=3),
    "resource_kind": "Issue",
    "resource_attributes": ISSUE_ATTRIBUTES,
}

class IssueFilters(TypedDict, total=False):
    """What issues must have.

    Attributes:
        assignee: User name of the person or team that works on it.
        requester: E-mail address of who asked.
    """

    category: Name
    priority: Name
    status: Name
    assignee: Name
    requester: Email


class Changes(TypedDict):
    """New values of an issue's fields; null clears one, what is left out stays.

    Attributes:
        assignee: User name of the person or team that is to work on it.
    """

    category: NotRequired[Name | None]
    priority: NotRequired[Name | None]
    assignee: NotRequired[Name | None]


SomeChanges = Annotated[Changes, Meta(extra_json_schema={"minProperties": 1})]


class NewIssue(TypedDict):
    """A new issue.

    Attributes:
        text: The request in full.
        requester: E-mail address of who asks.
    """

    title: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\S")]
    text: Annotated[str, Meta(min_length=1, max_length=20_000)]
    requester: Email
    region: NotRequired[Name]
    category: NotRequired[Name]
    priority: NotRequired[Name]


class FoundIssue(Struct, frozen=True, kw_only=True):
    """An issue in short."""

    issue: int
    title: str
    category: str | None
    priority: str | None
    status: str | None
    assignee: str | None


class FoundIssues(Struct, frozen=True, kw_only=True):
    """What a search found, in the order of numbers; `more` if there is more than it was asked for."""

    issues: list[FoundIssue]
    more: bool


class Message(Struct, frozen=True, kw_only=True):
    """A text on an issue; `at` is RFC 3339 in UTC."""

    by: str | None
    at: str
    text: str


class WholeIssue(Struct, frozen=True, kw_only=True):
    """An issue. `messages` are the request itself, then the notes, oldest first."""

    issue: int
    title: str
    requester: str | None
    vip: bool
    category: str | None
    priority: str | None
    status: str | None
    assignee: str | None
    duplicate_of: int | None
    region: str | None
    messages: list[Message]


class Updated(Struct, frozen=True, kw_only=True):
    """The fields whose value is not what it was."""

    issue: int
    changed: list[str]


class Noted(Struct, frozen=True, kw_only=True):
    """A note that is on the issue, by its number."""

    issue: int
    note: int


class Moved(Struct, frozen=True, kw_only=True):
    """The status that a call gave to an issue."""

    issue: int
    status: str


def connect(connection: Connection) -> RoundupClient:
    """A client for a connection of `remit.toml`. Raises `ConfigError`."""
    credentials = Credentials(username=connection.user, password=connection.secret.reveal())
    return RoundupClient(connection.url, credentials)


CHANGES = ChangeLog(connection="tracker", connect=connect, read_changes=read_changes, traces=TRACES)


def _client(ctx: ToolContext) -> RoundupClient:
    return ctx.client("tracker", connect)


def _resource(issue: Issue) -> Resource:
    return Resource(
        kind="Issue",
        id=str(issue.id),
        tenant=issue.tenant or "",
        region=issue.region,
        attributes={
            "vip": issue.requester_vip,
            "status": issue.status or "",
            "category": issue.category or "",
            "priority": issue.priority or "",
            "assignee": issue.assignedto or "",
            "duplicate_of": _duplicate_of(issue) or 0,
        },
        version=issue.etag,
    )


def _duplicate_of(issue: Issue) -> int | None:
    return issue.superseder[0] if issue.superseder else None


async def locate_issue(ctx: ToolContext, args: Mapping[str, Json]) -> Resource:
    """The issue that a call is about, as the tracker has it now."""
    return _resource(await _client(ctx).read(args["issue"]))


async def locate_closing(ctx: ToolContext, args: Mapping[str, Json]) -> Resource:
    """The issue to be closed. What it is a duplicate of must be another issue of the same tenant."""
    original = args.get("duplicate_of")
    if original is None:
        return await locate_issue(ctx, args)
    if original == args["issue"]:
        raise ToolFailed(f"issue {original} can't be a duplicate of itself; name another", code="invalid")
    found, other = await asyncio.gather(locate_issue(ctx, args), _client(ctx).read(original))
    if other.tenant != found.tenant:
        raise ToolFailed(f"issue {original} is not there; name an issue of the same tenant", code="not_found")
    return found


async def locate_new(ctx: ToolContext, args: Mapping[str, Json]) -> Resource:
    """The issue that a call would make; always one of the caller's own tenant."""
    draft: Mapping[str, str] = args["draft"]
    return Resource(
        kind="Issue",
        id="new",
        tenant=ctx.tenant,
        region=draft.get("region"),
        attributes={
            "vip": False,
            "status": OPEN,
            "category": draft.get("category", ""),
            "priority": draft.get("priority", ""),
            "assignee": "",
            "duplicate_of": 0,
        },
    )


def _located(ctx: ToolContext) -> Resource:
    if ctx.resource is None:
        raise ToolFailed("the issue was not located; call this tool through the gate", code="not_located")
    return ctx.resource


@tool(
    "tracker.search",
    effects={Effect.READ},
    retry=Retry(attempts=3),
    field_classes={"where.requester": FieldClass.PERSONAL},
    untrusted=["issues.*.title"],
)
async def search(
    ctx: ToolContext,
    text: Annotated[str, Meta(min_length=2, max_length=100, pattern=r"\S")] | None = None,
    where: IssueFilters | None = None,
    limit: Annotated[int, Meta(ge=1, le=100)] = 20,
) -> FoundIssues:
    """Find issues of the own tenant, lowest numbers first.

    Args:
        text: A part of the title or of the request, without regard to case.
        where: What the issues must have.
        limit: How many to tell at most.
    """
    given = {PROPERTIES.get(name, name): value for name, value in (where or {}).items()}
    filters: dict[str, Value] = {**{name: str(value) for name, value in given.items()}, "tenant": ctx.tenant}
    parts: list[dict[str, Value]] = [{"title": text}, {"body": text}] if text is not None else [{}]
    client = _client(ctx)
    pages = await asyncio.gather(*(client.search(filters | part, limit=limit) for part in parts))
    found = {each.issue: each for page in pages for each in _found(page)}
    numbers = sorted(found)
    more = len(numbers) > limit or any(page.total > len(page.items) for page in pages)
    return FoundIssues(issues=[found[number] for number in numbers[:limit]], more=more)


def _found(page: IssuePage) -> list[FoundIssue]:
    return [
        FoundIssue(
            issue=int(str(item["id"])),
            title=str(item["title"]),
            category=_text(item["category"]),
            priority=_text(item["priority"]),
            status=_text(item["status"]),
            assignee=_text(item["assignedto"]),
        )
        for item in page.items
    ]


def _text(value: Value) -> str | None:
    return None if value is None else str(value)


@tool(
    "tracker.read",
    effects={Effect.READ},
    **ON_ISSUES,
    locate=locate_issue,
    field_classes={"result.requester": FieldClass.PERSONAL, "result.messages.*.by": FieldClass.PERSONAL},
    untrusted=["title", "requester", "messages.*.by", "messages.*.text"],
)
async def read(ctx: ToolContext, issue: IssueNumber) -> WholeIssue:
    """Read one issue with its messages."""
    found = await _client(ctx).read(issue)
    located = _located(ctx)
    if (found.tenant or "", found.region) != (located.tenant, located.region):
        raise ToolFailed(f"issue {issue} moved while it was read; try again", code="conflict", retryable=True)
    request = Message(by=found.requester, at=found.creation, text=found.body)
    notes = [Message(by=note.author, at=note.written, text=note.text) for note in found.notes]
    return WholeIssue(
        issue=found.id,
        title=found.title,
        requester=found.requester,
        vip=found.requester_vip,
        category=found.category,
        priority=found.priority,
        status=found.status,
        assignee=found.assignedto,
        duplicate_of=_duplicate_of(found),
        region=found.region,
        messages=[request, *notes],
    )


async def find_update(ctx: ToolContext, args: Mapping[str, Json]) -> Reconciled:
    """Whether the fields have the new values, or the issue is still as it was located."""
    current = _resource(await _client(ctx).read(args["issue"]))
    changes: Mapping[str, Json] = args["changes"]
    if all(current.attributes[name] == (value or "") for name, value in changes.items()):
        return Reconciled(happened=Happened.YES, result=to_json(_updated(args["issue"], changes, _located(ctx))))
    return _unchanged_or_unclear(ctx, current)


def _unchanged_or_unclear(ctx: ToolContext, current: Resource) -> Reconciled:
    # Unchanged is not yet done: a request may be on its way still. It and the next attempt name the same ETag, so that
    # only one of them can have an effect.
    same = current.version is not None and current.version == _located(ctx).version
    return Reconciled(happened=Happened.NO if same else Happened.UNCLEAR)


def _updated(issue: int, changes: Mapping[str, Json], before: Resource) -> Updated:
    changed = [name for name in PROPERTIES if name in changes and before.attributes[name] != (changes[name] or "")]
    return Updated(issue=issue, changed=changed)


@tool(
    "tracker.update",
    effects={Effect.WRITE},
    idempotency=Idempotency.SAFE,
    **ON_ISSUES,
    locate=locate_issue,
    reconcile=find_update,
    compensation=Compensation(tool="tracker.update", arguments=restore, left=left_by_update),
    authority=["changes.assignee"],
    written="changes",
)
async def update(ctx: ToolContext, issue: IssueNumber, changes: SomeChanges) -> Updated:
    """Set fields of an issue, all or none, unless somebody changed it since it was judged.

    Args:
        changes: The new values.
    """
    values: dict[str, Value] = {PROPERTIES[name]: _text(changes.get(name)) for name in changes}
    await _client(ctx).update(issue, values, _located(ctx).version or "")
    return _updated(issue, changes, _located(ctx))


async def find_note(ctx: ToolContext, args: Mapping[str, Json]) -> Reconciled:
    """Whether the note with this call's key shows on the issue."""
    note = await _client(ctx).find_note(args["issue"], ctx.idempotency_key)
    if note is None:
        return Reconciled(happened=Happened.NO)
    return Reconciled(happened=Happened.YES, result=to_json(Noted(issue=args["issue"], note=note.id)))


@tool(
    "tracker.note",
    effects={Effect.WRITE},
    idempotency=Idempotency.KEYED,
    **ON_ISSUES,
    locate=locate_issue,
    reconcile=find_note,
)
async def note(ctx: ToolContext, issue: IssueNumber, text: NoteText) -> Noted:
    """Put a note on an issue, where everybody who may read the issue reads it. It can't be taken back.

    Args:
        text: The note, at most 400 characters.
    """
    done = await _client(ctx).note(issue, text, ctx.idempotency_key)
    return Noted(issue=issue, note=done.note)


async def find_closing(ctx: ToolContext, args: Mapping[str, Json]) -> Reconciled:
    """Whether the issue is closed in the way that was asked for."""
    original: int = args.get("duplicate_of") or 0
    wanted = (DUPLICATE if original else CLOSED, original)
    return await _find_status(ctx, args["issue"], wanted)


async def find_opening(ctx: ToolContext, args: Mapping[str, Json]) -> Reconciled:
    """Whether the issue is open."""
    return await _find_status(ctx, args["issue"], (OPEN, 0))


async def _find_status(ctx: ToolContext, issue: int, wanted: tuple[str, int]) -> Reconciled:
    current = _resource(await _client(ctx).read(issue))
    if (current.attributes["status"], current.attributes["duplicate_of"]) == wanted:
        return Reconciled(happened=Happened.YES, result=to_json(Moved(issue=issue, status=wanted[0])))
    return _unchanged_or_unclear(ctx, current)


@tool(
    "tracker.close",
    effects={Effect.WRITE},
    idempotency=Idempotency.SAFE,
    **ON_ISSUES,
    locate=locate_closing,
    reconcile=find_closing,
    compensation=Compensation(tool="tracker.reopen", arguments=same_issue, left=left_by_closing),
)
async def close(ctx: ToolContext, issue: IssueNumber, duplicate_of: IssueNumber | None = None) -> Moved:
    """Close an issue, as a duplicate of another one if that is named.

    Args:
        duplicate_of: Number of the issue that the matter goes on in.
    """
    await _client(ctx).close(issue, _located(ctx).version or "", duplicate_of)
    return Moved(issue=issue, status=CLOSED if duplicate_of is None else DUPLICATE)


@tool(
    "tracker.reopen",
    effects={Effect.WRITE},
    idempotency=Idempotency.SAFE,
    **ON_ISSUES,
    locate=locate_issue,
    reconcile=find_opening,
)
async def reopen(ctx: ToolContext, issue: IssueNumber) -> Moved:
    """Open a closed issue again; what it was a duplicate of is cleared."""
    await _client(ctx).reopen(issue, _located(ctx).version or "")
    return Moved(issue=issue, status=OPEN)


async def find_created(ctx: ToolContext, args: Mapping[str, Json]) -> Reconciled:
    """Whether there is an issue with this call's key."""
    del args
    number = await _client(ctx).find_issue(ctx.idempotency_key)
    if number is None:
        return Reconciled(happened=Happened.NO)
    return Reconciled(happened=Happened.YES, result=to_json(Moved(issue=number, status=OPEN)))


@tool(
    "tracker.create",
    effects={Effect.WRITE},
    idempotency=Idempotency.KEYED,
    **ON_ISSUES,
    locate=locate_new,
    reconcile=find_created,
    compensation=Compensation(tool="tracker.close", arguments=same_issue, left=left_by_creation),
    field_classes={"draft.requester": FieldClass.PERSONAL},
    authority=["draft.requester"],
)
async def create(ctx: ToolContext, draft: NewIssue) -> Moved:
    """Make an issue of the own tenant.

    Args:
        draft: What it says and who asks.
    """
    values: dict[str, Value] = {name: str(value) for name, value in draft.items() if name != "text"}
    fields: dict[str, Value] = {**values, "body": draft["text"], "tenant": ctx.tenant, "status": OPEN}
    done = await _client(ctx).create(fields, ctx.idempotency_key)
    return Moved(issue=done.issue, status=OPEN)

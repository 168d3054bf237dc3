"""The example's calls and CRM: transcripts in `data/calls`, and contacts in one JSON file, written whole or not at all.

Every revision of a contact carries the key of the call that made it and what stood before, so that the same call again
changes nothing, a lost answer can be read back, and the newest revision can be taken back.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta, Struct

from remit import Effect, Idempotency, Resource, ToolContext, ToolFailed, tool
from remit.tools.decorator import to_json
from remit.tools.spec import Compensation, FieldClass, Happened, Reconciled
from remit.values import Json

HOME = Path(__file__).parent.parent
DATA, BOOK = HOME / "data", HOME / ".remit" / "crm.json"
ATTRIBUTES = {"status": "String", "revision": "Long"}

CallNumber = Annotated[str, Meta(pattern=r"^C-[0-9]{4}$")]
ContactNumber = Annotated[str, Meta(pattern=r"^K-[0-9]{3}$")]


class Fields(TypedDict):
    """Fields of a contact; what is left out stays.

    Attributes:
        follow_up: The day of the next contact, or an empty text.
    """

    summary: NotRequired[Annotated[str, Meta(min_length=1, max_length=600)]]
    stage: NotRequired[Literal["lead", "evaluating", "negotiating", "won", "lost"]]
    next_step: NotRequired[Annotated[str, Meta(max_length=300)]]
    follow_up: NotRequired[Annotated[str, Meta(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$")]]


class PhoneCall(Struct, frozen=True):
    """A call as the telephone system has it; only the transcript is what people said."""

    call: str
    contact: str
    date: str
    transcript: str


class Revision(Struct, frozen=True):
    """The state of a contact, by number."""

    contact: str
    revision: int


@contextmanager
def open_book(*, write: bool = False) -> Generator[dict[str, Any]]:
    """The contacts by number, alone; what is changed in them is kept if `write`."""
    BOOK.parent.mkdir(mode=0o700, exist_ok=True)
    with BOOK.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        source = BOOK if BOOK.exists() else DATA / "contacts.json"
        book: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
        yield book
        if write:
            new = BOOK.with_suffix(".new")
            with new.open("w", encoding="utf-8") as file:
                json.dump(book, file, ensure_ascii=False, indent=1)
                file.flush()
                os.fsync(file.fileno())
            new.replace(BOOK)


def contact_in(book: dict[str, Any], number: str) -> dict[str, Any]:
    if number not in book:
        raise ToolFailed(f"there is no contact {number}", code="not_found")
    return book[number]


async def locate(ctx: ToolContext, args: Mapping[str, Json]) -> Resource:
    """The contact that a call is about."""
    with open_book() as book:
        found = contact_in(book, args["contact"])
    revision = len(found["revisions"])
    attributes: dict[str, str | int | bool] = {"status": found["status"], "revision": revision}
    number = str(args["contact"])
    return Resource(kind="Contact", id=number, tenant=ctx.tenant, region="eu", attributes=attributes, version=str(revision))


@tool("calls.read", effects={Effect.READ}, untrusted=["transcript"], field_classes={"result.transcript": FieldClass.PERSONAL})
async def read_call(call: CallNumber) -> PhoneCall:
    """Read a call with its transcript.

    Args:
        call: Its number.
    """
    path = DATA / "calls" / f"{call}.txt"
    if not path.is_file():
        raise ToolFailed(f"there is no call {call}", code="not_found")
    head, _, transcript = path.read_text(encoding="utf-8").partition("\n\n")
    about = dict(line.split(": ", 1) for line in head.splitlines())
    return PhoneCall(call=call, contact=about["contact"], date=about["date"], transcript=transcript)


async def find_by_key(ctx: ToolContext, args: Mapping[str, Json]) -> Reconciled:
    """Whether the contact has the revision with this call's key."""
    with open_book() as book:
        keys = [each["key"] for each in contact_in(book, args["contact"])["revisions"]]
    if ctx.idempotency_key not in keys:
        return Reconciled(happened=Happened.NO)
    done = Revision(contact=args["contact"], revision=keys.index(ctx.idempotency_key) + 1)
    return Reconciled(happened=Happened.YES, result=to_json(done))


def same_revision(args: Mapping[str, Json], result: Json, before: Resource | None) -> Mapping[str, Json]:
    """The revision to take back."""
    del args, before
    return {"contact": result["contact"], "revision": result["revision"]}


def left_written(args: Mapping[str, Json], result: Json, before: Resource | None) -> dict[str, str | int | bool]:
    """How a contact stands while nobody else has written to it."""
    del args, before
    return {"revision": result["revision"]}


@tool(
    "crm.update",
    effects={Effect.WRITE},
    idempotency=Idempotency.KEYED,
    reconcile=find_by_key,
    resource_kind="Contact",
    resource_attributes=ATTRIBUTES,
    locate=locate,
    written="changes",
    authority=["contact"],
    compensation=Compensation(tool="crm.revert", arguments=same_revision, left=left_written),
)
async def update(
    ctx: ToolContext, contact: ContactNumber, changes: Annotated[Fields, Meta(extra_json_schema={"minProperties": 1})]
) -> Revision:
    """Set fields of a contact, unless somebody has changed it since the call was judged.

    Args:
        contact: Its number.
        changes: The new values.
    """
    with open_book(write=True) as book:
        found = contact_in(book, contact)
        revisions: list[dict[str, Any]] = found["revisions"]
        keys = [each["key"] for each in revisions]
        if ctx.idempotency_key in keys:
            return Revision(contact=contact, revision=keys.index(ctx.idempotency_key) + 1)
        if ctx.resource is None or ctx.resource.version != str(len(revisions)):
            raise ToolFailed(f"contact {contact} has been changed meanwhile; read it again", code="conflict")
        before = {name: found["fields"][name] for name in changes}
        found["fields"] |= changes
        revisions.append({"key": ctx.idempotency_key, "before": before})
        return Revision(contact=contact, revision=len(revisions))


@tool(
    "crm.revert",
    effects={Effect.WRITE},
    idempotency=Idempotency.KEYED,
    reconcile=find_by_key,
    resource_kind="Contact",
    resource_attributes=ATTRIBUTES,
    locate=locate,
)
async def revert(ctx: ToolContext, contact: ContactNumber, revision: Annotated[int, Meta(ge=1)]) -> Revision:
    """Take back the newest revision of a contact.

    Args:
        contact: Its number.
        revision: The revision, which must be the newest.
    """
    with open_book(write=True) as book:
        found = contact_in(book, contact)
        revisions: list[dict[str, Any]] = found["revisions"]
        if revisions[-1:] and revisions[-1]["key"] == ctx.idempotency_key:
            return Revision(contact=contact, revision=len(revisions))
        if len(revisions) != revision:
            raise ToolFailed(f"revision {revision} of contact {contact} is not the newest", code="conflict")
        before = revisions[-1]["before"]
        undone = {name: found["fields"][name] for name in before}
        found["fields"] |= before
        revisions.append({"key": ctx.idempotency_key, "before": undone})
        return Revision(contact=contact, revision=len(revisions))

"""The tools of memory: `memory.search`, `memory.write`, `memory.recall`. They pass the gate like all others.

An agent writes under its own name: `desk` has `notes`, and the document is `desk/notes`. So it can neither change what
somebody else has written nor find out that it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Annotated

import msgspec
from msgspec import Meta

from remit.errors import ConfigError, MemoryRefused, StorageError, ToolFailed
from remit.memory.documents import TRUSTED, NewVersion, Passage, Viewer, Written
from remit.memory.memory import EVERYWHERE, Memory, Where
from remit.provenance.labels import kind_of, untrusted
from remit.tools.decorator import tool
from remit.tools.spec import (
    Compensation,
    Effect,
    FieldClass,
    Happened,
    Idempotency,
    Locate,
    Reconcile,
    Reconciled,
    Resource,
    Retry,
    Tool,
    ToolContext,
)
from remit.values import Json

SEARCH, WRITE, RECALL = "memory.search", "memory.write", "memory.recall"

Opened = Callable[[], Memory]
"""The memory, opened when it is first needed."""

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$")]
Text = Annotated[str, Meta(min_length=1, max_length=200_000)]
Who = Annotated[str, Meta(min_length=1, max_length=120)]


class Passages(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found, the best first."""

    chunks: list[Passage]


class Recall(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is never given out any more."""

    document: str
    version: int


def memory_tools(opened: Opened, *, remote: bool) -> dict[str, Tool]:
    """The tools by name. `remote`: texts are sent away to be embedded, which is then among the effects."""
    sent = {Effect.EGRESS} if remote else set[Effect]()
    made = (_search(opened, sent), _write(opened, sent), _recall(opened))
    return {each.spec.name: each for each in made}


def _search(opened: Opened, sent: set[Effect]) -> Tool:
    @tool(
        SEARCH,
        effects={Effect.READ, *sent},
        idempotency=Idempotency.SAFE,
        retry=Retry(attempts=3),
        retrieves="chunks",
        field_classes={"result.chunks.*.text": FieldClass.PERSONAL, "result.chunks.*.title": FieldClass.PERSONAL},
    )
    async def search(
        ctx: ToolContext,
        query: Annotated[str, Meta(min_length=1, max_length=2_000)],
        k: Annotated[int, Meta(ge=1, le=50)] = 5,
        where: Where = EVERYWHERE,
    ) -> Passages:
        """Find what is known about something, among the documents that both you and whoever you act for may read.

        Args:
            query: What is looked for, in words.
            k: How many passages at most.
            where: Only documents of this name, owner, source or label.
        """
        with _plainly():
            return Passages(chunks=await opened().search(query, _reader(ctx), most=k, where=where))

    return search


def _write(opened: Opened, sent: set[Effect]) -> Tool:
    @tool(
        WRITE,
        effects={Effect.WRITE, *sent},
        idempotency=Idempotency.KEYED,
        retry=Retry(attempts=3),
        field_classes={"text": FieldClass.PERSONAL, "title": FieldClass.PERSONAL},
        authority=("readers",),
        resource_kind="Document",
        resource_attributes={"version": "Long"},
        locate=_locator(opened),
        reconcile=_reconciler(opened),
        compensation=Compensation(
            tool=RECALL,
            arguments=_undoing,
            left=_as_left,
        ),
    )
    async def write(
        ctx: ToolContext,
        name: Name,
        text: Text,
        title: Annotated[str, Meta(max_length=200)] = "",
        readers: Annotated[list[Who], Meta(max_length=50)] | None = None,
        valid_until: Annotated[int, Meta(ge=0)] | None = None,
    ) -> Written:
        """Remember a text for later runs, as a new version of your document of this name.

        Args:
            name: What the document is called among yours.
            text: What is to be remembered.
            title: What it is about.
            readers: Who may read it beside you and whoever you act for now.
            valid_until: When it is out of date, in microseconds since the epoch.
        """
        own = [ctx.principal, *([ctx.on_behalf_of] if ctx.on_behalf_of is not None else [])]
        new = NewVersion(
            document=_document(ctx, name),
            text=text,
            title=title,
            owner=ctx.principal,
            readers=(*own, *(readers or [])),
            label=label_of([ctx.labels.get(each, ("model",)) for each in ("text", *(["title"] if title else []))]),
            source=f"agent:{_contract(ctx)}",
            valid_until=valid_until,
            key=ctx.idempotency_key,
            run=ctx.run,
            step=ctx.step,
        )
        with _plainly():
            return await opened().write(new, by=ctx.principal, region=ctx.region or "")

    return write


def _reconciler(opened: Opened) -> Reconcile:
    async def reconcile(ctx: ToolContext, args: Mapping[str, Json]) -> Reconciled:
        del args
        with _plainly():
            found = opened().written_with(ctx.idempotency_key)
        if found is None:
            return Reconciled(happened=Happened.NO)
        return Reconciled(happened=Happened.YES, result=msgspec.to_builtins(found))

    return reconcile


def _undoing(args: Mapping[str, Json], result: Json, _before: Resource | None) -> dict[str, Json]:
    return {"name": args["name"], "version": result["version"]}


def _as_left(_args: Mapping[str, Json], result: Json, _before: Resource | None) -> dict[str, int]:
    return {"version": result["version"]}


def _recall(opened: Opened) -> Tool:
    @tool(
        RECALL,
        effects={Effect.WRITE},
        idempotency=Idempotency.SAFE,
        retry=Retry(attempts=3),
        resource_kind="Document",
        resource_attributes={"version": "Long"},
        locate=_locator(opened),
    )
    async def recall(ctx: ToolContext, name: Name, version: Annotated[int, Meta(ge=1)]) -> Recall:
        """Take back a version of a document of yours: it is never given out any more.

        Args:
            name: What the document is called among yours.
            version: Which version of it.
        """
        document = _document(ctx, name)
        with _plainly():
            opened().info(document, version)
            await opened().recall(document, version)
        return Recall(document=document, version=version)

    return recall


def _locator(opened: Opened) -> Locate:
    async def locate(ctx: ToolContext, args: Mapping[str, Json]) -> Resource:
        document = _document(ctx, args["name"])
        with _plainly():
            standing = opened().shelf.standing(document)
        current = 0 if standing is None else standing.current or 0
        return Resource(
            kind="Document", id=document, tenant=ctx.tenant, region=ctx.region, attributes={"version": current}
        )

    return locate


def label_of(labels: list[tuple[str, ...]]) -> str:
    """How much an agent's text is to be trusted by later runs: as much as the worst of what it is made of.

    Trusted is only what a tool has said, or the contract. What the run was asked for, and what a model has made up, is
    nobody's word that another run could go by.
    """
    worst = TRUSTED
    for each in labels:
        if any(kind_of(label) in ("tool", "contract") for label in each):
            continue
        outside = [label for label in each if kind_of(label) == "untrusted"]
        if outside:
            return outside[0]
        worst = untrusted(each[0] if each else "model")
    return worst


def _reader(ctx: ToolContext) -> Viewer:
    return Viewer(principal=ctx.principal, on_behalf_of=ctx.on_behalf_of, region=ctx.region or "")


def _contract(ctx: ToolContext) -> str:
    return ctx.principal.rpartition("/")[2]


def _document(ctx: ToolContext, name: str) -> str:
    return f"{_contract(ctx)}/{name}"


@contextmanager
def _plainly() -> Generator[None]:
    """Turns what memory raises into what the gate understands: nothing was done, and whether it may help to try again."""
    try:
        yield
    except (MemoryRefused, ConfigError) as error:
        raise ToolFailed(error.message, code=error.code) from error
    except StorageError as error:
        raise ToolFailed(error.message, code=error.code, retryable=True) from error

"""The example's answers: one line for each version in a file that is only ever appended to, with the key of its call."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from remit import Effect, Idempotency, ToolContext, tool
from remit.tools.decorator import to_json
from remit.tools.spec import Happened, Reconciled
from remit.values import Json

BOOK = Path(__file__).parent.parent / ".remit" / "answers.jsonl"


class KeptAnswer(Struct, frozen=True):
    """A version of an answer."""

    tender: str
    number: int
    version: int


@contextmanager
def open_book() -> Generator[list[dict[str, Any]]]:
    """All versions, alone; what is appended to them is kept."""
    BOOK.parent.mkdir(mode=0o700, exist_ok=True)
    with BOOK.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        rows: list[dict[str, Any]] = [json.loads(line) for line in file]
        known = len(rows)
        yield rows
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[known:])
        file.flush()
        os.fsync(file.fileno())


def kept(rows: list[dict[str, Any]], key: str) -> KeptAnswer | None:
    return next((KeptAnswer(row["tender"], row["number"], row["version"]) for row in rows if row["key"] == key), None)


async def find_by_key(ctx: ToolContext, args: Mapping[str, Json]) -> Reconciled:
    """Whether there is a version with this call's key."""
    del args
    with open_book() as rows:
        found = kept(rows, ctx.idempotency_key)
    return Reconciled(happened=Happened.YES if found else Happened.NO, result=to_json(found) if found else None)


@tool("answers.keep", effects={Effect.WRITE}, idempotency=Idempotency.KEYED, reconcile=find_by_key)
async def keep(
    ctx: ToolContext,
    tender: Annotated[str, Meta(pattern=r"^T-[0-9]{4}$")],
    number: Annotated[int, Meta(ge=1)],
    text: Annotated[str, Meta(min_length=1, max_length=4000)],
    sources: Annotated[list[Annotated[str, Meta(max_length=200)]], Meta(max_length=8)],
) -> KeptAnswer:
    """Keep an approved answer, as a new version where there is one.

    Args:
        tender: Whose question it is.
        number: The question's number.
        text: The answer.
        sources: The passages that it rests on.
    """
    with open_book() as rows:
        found = kept(rows, ctx.idempotency_key)
        if found is not None:
            return found
        version = 1 + sum((row["tender"], row["number"]) == (tender, number) for row in rows)
        about = {"tender": tender, "number": number, "version": version}
        rows.append({**about, "text": text, "sources": sources, "key": ctx.idempotency_key})
    return KeptAnswer(tender, number, version)

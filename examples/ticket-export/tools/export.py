"""The export as a system of record: tickets to read, and a place for what is decided about each."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import unquote, urlsplit

from msgspec import Meta, Struct

from remit.errors import ToolFailed
from remit.tools.decorator import to_json, tool
from remit.tools.spec import Connection, Effect, Happened, Idempotency, Reconciled, ToolContext
from remit.values import Json

Row = Annotated[int, Meta(ge=1)]


class Ticket(Struct, frozen=True):
    """A ticket of the export."""

    text: str


class Sorted(Struct, frozen=True):
    """A row with its labels."""

    row: int


class Export:
    """A small database: table `tickets` (row, text), table `sorted` (row, labels)."""

    def __init__(self, path: str) -> None:
        """Open the database at `path`, which must exist."""
        self._database = sqlite3.connect(path, isolation_level=None)

    @classmethod
    def connect(cls, connection: Connection) -> Export:
        """The database that a connection's address, `file://…`, names."""
        return cls(unquote(urlsplit(connection.url).path))

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def text(self, row: int) -> str:
        """The text of a row. Raises `ToolFailed` with code `not_found`."""
        found = self._database.execute("SELECT text FROM tickets WHERE row = ?", (row,)).fetchone()
        if found is None:
            raise ToolFailed(f"row {row} is not in the export", code="not_found")
        return str(found[0])

    def sort(self, row: int, labels: Mapping[str, str]) -> None:
        """Keep the labels of a row, in place of any earlier ones."""
        text = json.dumps(labels, sort_keys=True)
        self._database.execute("INSERT OR REPLACE INTO sorted (row, labels) VALUES (?, ?)", (row, text))

    def labels(self, row: int) -> Mapping[str, str] | None:
        """The labels that a row was given."""
        found = self._database.execute("SELECT labels FROM sorted WHERE row = ?", (row,)).fetchone()
        return None if found is None else json.loads(found[0])


def _export(ctx: ToolContext) -> Export:
    export: Export = ctx.client("export", Export.connect)
    return export


@tool("export.read", effects={Effect.READ}, untrusted=["text"])
async def read(ctx: ToolContext, row: Row) -> Ticket:
    """Read a ticket."""
    return Ticket(text=_export(ctx).text(row))


async def find_sorted(ctx: ToolContext, args: Mapping[str, Json]) -> Reconciled:
    """Whether the row has these labels."""
    same = _export(ctx).labels(args["row"]) == args["labels"]
    return Reconciled(happened=Happened.YES if same else Happened.NO, result=to_json(Sorted(row=args["row"])))


@tool("export.sort", effects={Effect.WRITE}, idempotency=Idempotency.SAFE, reconcile=find_sorted)
async def sort(ctx: ToolContext, row: Row, labels: dict[str, str]) -> Sorted:
    """Keep the labels of a ticket.

    Args:
        labels: By head, such as the category.
    """
    _export(ctx).sort(row, labels)
    return Sorted(row=row)

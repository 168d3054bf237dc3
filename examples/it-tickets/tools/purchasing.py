"""The example's order book: spare parts for the desk, ordered in small amounts, kept in a file."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from msgspec import Meta, Struct

from remit.tools.decorator import to_json, tool
from remit.tools.spec import Connection, Effect, Happened, Idempotency, Money, Reconciled, ToolContext
from remit.values import Json


class Order(Struct, frozen=True):
    """An order in the book."""

    number: int
    item: str
    amount: Money


class OrderBook:
    """Orders, one JSON object a line, each with the key it was made with."""

    def __init__(self, path: Path) -> None:
        """Keep the book in the file `path`."""
        self._path = path
        self._lock = asyncio.Lock()

    @classmethod
    def connect(cls, connection: Connection) -> OrderBook:
        """The book that a connection's address, `file://…`, names."""
        return cls(Path(unquote(urlsplit(connection.url).path)))

    def find(self, key: str) -> Order | None:
        """The order that was made with a key."""
        for number, line in enumerate(self._lines(), start=1):
            row = json.loads(line)
            if row["key"] == key:
                return Order(number=number, item=row["item"], amount=Money(**row["amount"]))
        return None

    async def add(self, item: str, amount: Money, key: str) -> Order:
        """Enter an order, once for a key."""
        async with self._lock:
            known = self.find(key)
            if known is not None:
                return known
            number = len(self._lines()) + 1
            entry = {"key": key, "item": item, "amount": {"amount": str(amount.amount), "currency": amount.currency}}
            with self._path.open("a", encoding="utf-8") as book:
                book.write(json.dumps(entry) + "\n")
                book.flush()
                os.fsync(book.fileno())
        return Order(number=number, item=item, amount=amount)

    def _lines(self) -> list[str]:
        return self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []


def _book(ctx: ToolContext) -> OrderBook:
    book: OrderBook = ctx.client("orders", OrderBook.connect)
    return book


async def find_order(ctx: ToolContext, args: Mapping[str, Json]) -> Reconciled:
    """Whether the book holds an order with this call's key."""
    del args
    found = _book(ctx).find(ctx.idempotency_key)
    return Reconciled(happened=Happened.YES if found else Happened.NO, result=to_json(found) if found else None)


@tool(
    "purchasing.order",
    effects={Effect.WRITE, Effect.MONEY},
    idempotency=Idempotency.KEYED,
    reconcile=find_order,
    money="amount",
    authority=["amount"],
)
async def order(
    ctx: ToolContext, item: Annotated[str, Meta(min_length=3, max_length=80)], amount: Money
) -> Order:
    """Order a spare part.

    Args:
        item: What is needed.
        amount: What it costs.
    """
    return await _book(ctx).add(item, amount, ctx.idempotency_key)

"""The example's payables: an inbox of XML files, and suppliers, orders and entries in one SQLite file.

The file is made from `data/` on first use. Every entry carries the key of the call that made it, so that the same call
again books nothing and a lost answer can be read back.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from remit import Effect, Idempotency, Money, Resource, ToolContext, ToolFailed, tool
from remit.connectors.en16931.checking import findings
from remit.connectors.en16931.invoice import Invoice
from remit.connectors.en16931.reading import read_invoice
from remit.connectors.en16931.recalculation import Recalculated, recalculated
from remit.connectors.en16931.rules import InvoiceFinding
from remit.connectors.en16931.tree import MAX_BYTES, InvoiceUnreadable
from remit.tools.decorator import to_json
from remit.tools.spec import Compensation, FieldClass, Happened, Reconciled
from remit.values import Json

HOME = Path(__file__).parent.parent
DATA, BOOKS = HOME / "data", HOME / ".remit" / "payables.db"

FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.xml$")]
SupplierId = Annotated[str, Meta(pattern=r"^S-[0-9]{3}$")]
Short = Annotated[str, Meta(min_length=1, max_length=100)]
Account = Annotated[str, Meta(pattern=r"^[A-Z]{2}[0-9]{2}[A-Z0-9]{8,30}$")]

SCHEMA = """
CREATE TABLE suppliers (supplier TEXT PRIMARY KEY, name TEXT, vat TEXT UNIQUE, account TEXT, category TEXT, status TEXT);
CREATE TABLE orders ("order" TEXT PRIMARY KEY, supplier TEXT, category TEXT, amount TEXT, currency TEXT);
CREATE TABLE entries (
  entry INTEGER PRIMARY KEY, key TEXT UNIQUE, supplier TEXT NOT NULL, number TEXT NOT NULL, "order" TEXT, amount TEXT NOT NULL,
  currency TEXT NOT NULL, account TEXT NOT NULL, category TEXT NOT NULL, issued TEXT NOT NULL, state TEXT NOT NULL
);
"""


class Received(Struct, frozen=True):
    """A file of the inbox.

    Attributes:
        unreadable: Why there is no invoice in it; empty where there is.
        findings: The rules of EN 16931 that it breaks.
        recalculated: What it comes to, worked out from its lines; null where they don't say.
    """

    file: str
    unreadable: str
    invoice: Invoice | None = None
    findings: list[InvoiceFinding] = []
    recalculated: Recalculated | None = None


class Supplier(Struct, frozen=True):
    """A supplier as the master has it. `category`: what is usually bought from it."""

    supplier: str
    name: str
    account: str
    category: str | None
    status: str


class PurchaseOrder(Struct, frozen=True):
    """An order, and how much of it is booked."""

    order: str
    supplier: str
    category: str
    amount: Money
    booked: Decimal


class Earlier(Struct, frozen=True):
    """What is booked already: how many entries are the same, and how many similar."""

    same: int
    similar: int


class Entry(Struct, frozen=True):
    """An entry in the ledger."""

    entry: int
    supplier: str
    number: str
    amount: Money
    state: str


def fill(path: Path) -> None:
    """Make the books at `path`; whoever comes first wins, and nobody sees half of it."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    own = path.with_suffix(f".{os.getpid()}")
    own.unlink(missing_ok=True)
    with closing(sqlite3.connect(own)) as books, books:
        books.executescript(SCHEMA)
        for name, table in (("suppliers", "suppliers"), ("orders", "orders"), ("ledger", "entries")):
            for row in json.loads((DATA / f"{name}.json").read_text(encoding="utf-8")):
                values = {**row, "state": "booked"} if table == "entries" else row
                columns = ", ".join(f'"{column}"' for column in values)
                marks = ", ".join("?" for _ in values)
                books.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(values.values()))  # noqa: S608
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()


@contextmanager
def open_books() -> Generator[sqlite3.Connection]:
    """The books, in one transaction."""
    if not BOOKS.exists():
        fill(BOOKS)
    with closing(sqlite3.connect(BOOKS, isolation_level=None, timeout=5)) as books:
        books.row_factory = sqlite3.Row
        books.execute("BEGIN IMMEDIATE")
        try:
            yield books
        except BaseException:
            books.execute("ROLLBACK")
            raise
        books.execute("COMMIT")


def spelled(number: str) -> str:
    """A number as duplicates are looked for by: letters and digits, whatever stands between them."""
    return re.sub(r"[\W_]+", "", number).casefold()


def supplier_row(books: sqlite3.Connection, supplier: str) -> sqlite3.Row:
    found = books.execute("SELECT * FROM suppliers WHERE supplier = ?", (supplier,)).fetchone()
    if found is None:
        raise ToolFailed(f"there is no supplier {supplier}", code="not_found")
    return found


def booked(books: sqlite3.Connection, order: str) -> Decimal:
    rows = books.execute('SELECT amount FROM entries WHERE "order" = ? AND state <> \'reversed\'', (order,))
    return sum((Decimal(row["amount"]) for row in rows), Decimal(0))


def entry_of(row: sqlite3.Row) -> Entry:
    amount = Money(amount=Decimal(row["amount"]), currency=row["currency"])
    return Entry(entry=row["entry"], supplier=row["supplier"], number=row["number"], amount=amount, state=row["state"])


def fit(books: sqlite3.Connection, args: Mapping[str, Json]) -> str:
    """How an invoice goes with the order that it refers to."""
    if not args.get("order"):
        return "none"
    order = books.execute('SELECT * FROM orders WHERE "order" = ?', (args["order"],)).fetchone()
    if order is None:
        return "unknown"
    if order["supplier"] != args["supplier"]:
        return "other-supplier"
    amount = args["amount"]
    if order["currency"] != amount["currency"]:
        return "other-currency"
    whole = booked(books, args["order"]) + Decimal(amount["amount"])
    return "exceeded" if whole > Decimal(order["amount"]) else "fits"


async def locate_supplier(ctx: ToolContext, args: Mapping[str, Json]) -> Resource:
    """The supplier that is to be paid, and how the call goes with what the books hold of it."""
    with open_books() as books:
        row = supplier_row(books, args["supplier"])
        order = fit(books, args)
    payee = "master" if row["account"] == args["account"] else "other"
    attributes: dict[str, str | int | bool] = {"status": row["status"], "payee": payee, "order": order}
    return Resource(kind="Supplier", id=row["supplier"], tenant=ctx.tenant, region="eu", attributes=attributes)


async def locate_entry(ctx: ToolContext, args: Mapping[str, Json]) -> Resource:
    """The entry that a call is about."""
    with open_books() as books:
        row = books.execute("SELECT * FROM entries WHERE entry = ?", (args["entry"],)).fetchone()
    if row is None:
        raise ToolFailed(f"there is no entry {args['entry']}", code="not_found")
    return Resource(
        kind="Entry", id=str(row["entry"]), tenant=ctx.tenant, region="eu", attributes={"state": row["state"]}
    )


@tool("inbox.read", effects={Effect.READ}, untrusted=["invoice", "findings", "recalculated", "unreadable"])
async def read(file: FileName) -> Received:
    """Read an electronic invoice (EN 16931, UBL or CII) of the inbox, and hold it against the standard's rules.

    Args:
        file: Name of the file.
    """
    path = DATA / "inbox" / file
    if not path.is_file() or path.is_symlink():
        raise ToolFailed(f"there is no file {file} in the inbox", code="not_found")
    try:
        with path.open("rb") as stream:
            invoice = read_invoice(stream.read(MAX_BYTES + 1))
    except InvoiceUnreadable as error:
        return Received(file=file, unreadable=f"{error.code}: {error.message}")
    return Received(
        file=file, unreadable="", invoice=invoice, findings=findings(invoice)[:50], recalculated=recalculated(invoice)
    )


@tool("suppliers.find", effects={Effect.READ}, field_classes={"result.account": FieldClass.PERSONAL})
async def find_supplier(vat: Short) -> Supplier | None:
    """Find a supplier in the master by VAT number; null where there is none."""
    with open_books() as books:
        row = books.execute("SELECT * FROM suppliers WHERE vat = ?", (spelled(vat).upper(),)).fetchone()
    if row is None:
        return None
    return Supplier(**{name: row[name] for name in ("supplier", "name", "account", "category", "status")})


@tool("orders.read", effects={Effect.READ})
async def read_order(order: Short) -> PurchaseOrder | None:
    """Read a purchase order; null where there is none."""
    with open_books() as books:
        row = books.execute('SELECT * FROM orders WHERE "order" = ?', (order,)).fetchone()
        if row is None:
            return None
        amount = Money(amount=Decimal(row["amount"]), currency=row["currency"])
        return PurchaseOrder(row["order"], row["supplier"], row["category"], amount, booked(books, order))


@tool("ledger.find", effects={Effect.READ})
async def find_entries(supplier: SupplierId, number: Short, amount: Money, issued: Short) -> Earlier:
    """Look for the same invoice, and for similar ones, among what is booked.

    Args:
        supplier: Whose invoice it is.
        number: Its number, however it is written.
        amount: What is to be paid.
        issued: Its date.
    """
    with open_books() as books:
        rows = books.execute("SELECT * FROM entries WHERE supplier = ? AND state <> 'reversed'", (supplier,)).fetchall()
    same = similar = 0
    for row in rows:
        is_number = spelled(row["number"]) == spelled(number)
        is_amount = (Decimal(row["amount"]), row["currency"]) == (amount.amount, amount.currency)
        same += is_number and is_amount
        similar += (is_number != is_amount) and (is_number or row["issued"] == issued)
    return Earlier(same=same, similar=similar)


async def find_by_key(ctx: ToolContext, args: Mapping[str, Json]) -> Reconciled:
    """Whether the ledger holds the entry with this call's key."""
    del args
    with open_books() as books:
        row = books.execute("SELECT * FROM entries WHERE key = ?", (ctx.idempotency_key,)).fetchone()
    return Reconciled(happened=Happened.YES if row else Happened.NO, result=to_json(entry_of(row)) if row else None)


def booked_entry(args: Mapping[str, Json], result: Json, before: Resource | None) -> Mapping[str, Json]:
    """The entry to reverse."""
    del before
    return {"entry": result["entry"], "amount": args["amount"]}


def left_booked(args: Mapping[str, Json], result: Json, before: Resource | None) -> dict[str, str | int | bool]:
    """How an entry stands until it is paid."""
    del args, before
    return {"state": result["state"]}


@tool(
    "ledger.book",
    effects={Effect.WRITE, Effect.MONEY},
    money="amount",
    authority=["account", "amount", "supplier"],
    idempotency=Idempotency.KEYED,
    reconcile=find_by_key,
    resource_kind="Supplier",
    resource_attributes=dict.fromkeys(("status", "payee", "order"), "String"),
    locate=locate_supplier,
    field_classes={"account": FieldClass.PERSONAL},
    compensation=Compensation(tool="ledger.reverse", arguments=booked_entry, left=left_booked),
)
async def book(
    ctx: ToolContext,
    supplier: SupplierId,
    number: Short,
    amount: Money,
    account: Account,
    category: Annotated[str, Meta(pattern=r"^[a-z]{2,20}$")],
    issued: Short,
    order: Short | None = None,
) -> Entry:
    """Book an invoice for payment.

    Args:
        supplier: Whose invoice it is.
        number: Its number.
        amount: What is to be paid.
        account: Where it is paid to.
        category: The category of cost.
        issued: Its date.
        order: The order it belongs to.
    """
    with open_books() as books:
        if books.execute("SELECT 1 FROM entries WHERE key = ?", (ctx.idempotency_key,)).fetchone() is None:
            columns = 'key, supplier, number, "order", amount, currency, account, category, issued, state'
            values = (ctx.idempotency_key, supplier, number, order, str(amount.amount), amount.currency, account, category)
            insert = f"INSERT INTO entries ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'booked')"  # noqa: S608
            books.execute(insert, (*values, issued))
        row = books.execute("SELECT * FROM entries WHERE key = ?", (ctx.idempotency_key,)).fetchone()
    return entry_of(row)


@tool(
    "ledger.reverse",
    effects={Effect.WRITE, Effect.MONEY},
    money="amount",
    idempotency=Idempotency.SAFE,
    resource_kind="Entry",
    resource_attributes={"state": "String"},
    locate=locate_entry,
)
async def reverse(entry: int, amount: Money) -> Entry:
    """Reverse an entry that is not paid yet.

    Args:
        entry: Its number.
        amount: What it was about.
    """
    with open_books() as books:
        found: Any = books.execute("SELECT * FROM entries WHERE entry = ?", (entry,)).fetchone()
        if found is None or Decimal(found["amount"]) != amount.amount:
            raise ToolFailed(f"there is no entry {entry} about {amount.amount}", code="not_found")
        changed = books.execute("UPDATE entries SET state = 'reversed' WHERE entry = ? AND state <> 'paid'", (entry,))
        if changed.rowcount == 0:
            raise ToolFailed(f"entry {entry} is paid; ask for the money back instead", code="conflict")
        row = books.execute("SELECT * FROM entries WHERE entry = ?", (entry,)).fetchone()
    return entry_of(row)

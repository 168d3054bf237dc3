"""The example's shop: orders, customers and payments in one SQLite file, made from `data/shop.json` on first use.

Each change of an order carries the key of the call that made it, so that the same call again changes nothing and a lost
answer can be read back; and it keeps the order as it was, so that it can be taken back.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from remit import Effect, Idempotency, Money, Resource, ToolContext, ToolFailed, tool
from remit.tools.decorator import to_json
from remit.tools.spec import Compensation, FieldClass, Happened, Reconciled
from remit.values import Json

HOME = Path(__file__).parent.parent
SOURCE, BOOKS = HOME / "data" / "shop.json", HOME / ".remit" / "shop.db"
CURRENCY = "USD"
REGIONS = {"USA": "us", "Canada": "us", "Germany": "eu", "France": "eu"}
MANY_TAKEN_BACK = 3
"""From so many orders cancelled or returned on, a customer's next one is of high risk."""

Customer = Annotated[str, Meta(min_length=3, max_length=60)]
OrderNumber = Annotated[str, Meta(pattern=r"^#W[0-9]{7}$")]
ItemNumber = Annotated[str, Meta(pattern=r"^[0-9]{10}$")]
Items = Annotated[list[ItemNumber], Meta(min_length=1, max_length=20)]
Method = Annotated[str, Meta(pattern=r"^[a-z_]+_[0-9]{7}$")]

SCHEMA = """
CREATE TABLE orders (id TEXT PRIMARY KEY, version INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE customers (id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE items (id TEXT PRIMARY KEY, product TEXT NOT NULL, price TEXT NOT NULL, available INTEGER NOT NULL);
CREATE TABLE changes (
  number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, "order" TEXT NOT NULL, what TEXT NOT NULL,
  method TEXT NOT NULL, amount TEXT NOT NULL, before TEXT NOT NULL, taken_back INTEGER NOT NULL DEFAULT 0
);
"""


class Line(Struct, frozen=True):
    """One item of an order."""

    item: str
    product: str
    name: str
    price: Decimal


class Order(Struct, frozen=True):
    """An order as the shop has it.

    Attributes:
        paid_with: The payment method it was paid with.
        note: What the customer wrote when ordering.
    """

    order: str
    customer: str
    status: str
    country: str
    items: list[Line]
    paid: Money
    paid_with: str
    note: str


class PaymentMethod(Struct, frozen=True):
    """A way to pay that the shop knows of a customer."""

    method: str
    source: str


class Profile(Struct, frozen=True):
    """A customer as the shop knows them."""

    customer: str
    email: str
    methods: list[PaymentMethod]


class Item(Struct, frozen=True):
    """An article of the range."""

    item: str
    product: str
    price: Decimal
    available: bool


class Risk(Struct, frozen=True):
    """What the fraud check says."""

    level: Literal["low", "high"]
    why: str


class Changed(Struct, frozen=True):
    """A change of an order, as it stands in the books.

    Attributes:
        change: Its number, by which it is taken back.
    """

    change: int
    order: str
    status: str
    amount: Money


class Wanted(Struct, frozen=True):
    """A change that a call asks for: the order's next status and what is kept with it. `amount`: below zero, a charge."""

    what: str
    status: str
    method: str
    amount: Decimal
    kept: dict[str, Json]


def fill(path: Path) -> None:
    """Make the books at `path` from the JSON file; whoever comes first wins, and nobody sees half of it."""
    source: dict[str, Any] = json.loads(SOURCE.read_text(encoding="utf-8"), parse_float=str)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    own = path.with_suffix(f".{os.getpid()}")
    own.unlink(missing_ok=True)
    with closing(sqlite3.connect(own)) as books, books:
        books.executescript(SCHEMA)
        rows = [(number, json.dumps(order)) for number, order in source["orders"].items()]
        books.executemany("INSERT INTO orders VALUES (?, 1, ?)", rows)
        books.executemany("INSERT INTO customers VALUES (?, ?)", [(c, json.dumps(b)) for c, b in source["users"].items()])
        articles = [(product, v) for product in source["products"].values() for v in product["variants"].values()]
        values = [(v["item_id"], p["product_id"], str(v["price"]), bool(v["available"])) for p, v in articles]
        books.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", values)
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
        books.execute("BEGIN IMMEDIATE")
        try:
            yield books
        except BaseException:
            books.execute("ROLLBACK")
            raise
        books.execute("COMMIT")


def order_of(books: sqlite3.Connection, number: str) -> tuple[int, dict[str, Any]]:
    found = books.execute("SELECT version, body FROM orders WHERE id = ?", (number,)).fetchone()
    if found is None:
        raise ToolFailed(f"there is no order {number}", code="not_found")
    return found[0], json.loads(found[1])


def customer_of(books: sqlite3.Connection, name: str) -> dict[str, Any]:
    found = books.execute("SELECT body FROM customers WHERE id = ?", (name,)).fetchone()
    if found is None:
        raise ToolFailed(f"there is no customer {name}", code="not_found")
    return json.loads(found[0])


def item_of(books: sqlite3.Connection, number: str) -> Item:
    found = books.execute("SELECT product, price, available FROM items WHERE id = ?", (number,)).fetchone()
    if found is None:
        raise ToolFailed(f"there is no item {number}", code="not_found")
    return Item(item=number, product=found[0], price=Decimal(found[1]), available=bool(found[2]))


def paid(order: Mapping[str, Any]) -> tuple[Decimal, str]:
    """What was paid for an order first, and with which method."""
    payment = next(each for each in order["payment_history"] if each["transaction_type"] == "payment")
    return Decimal(payment["amount"]), payment["payment_method_id"]


def payee(books: sqlite3.Connection, order: Mapping[str, Any], method: str) -> str:
    """Whose a payment method is, seen from an order."""
    if method == paid(order)[1]:
        return "original"
    own = customer_of(books, order["user_id"])["payment_methods"].get(method)
    if own is None:
        return "foreign"
    return "own-gift-card" if own["source"] == "gift_card" else "own"


async def locate_order(ctx: ToolContext, args: Mapping[str, Json]) -> Resource:
    """The order that a call is about, as the books have it now."""
    with open_books() as books:
        version, order = order_of(books, args["order"])
        whose = payee(books, order, args["method"]) if "method" in args else "none"
    country = order["address"]["country"]
    return Resource(
        kind="Order",
        id=args["order"],
        tenant=ctx.tenant,
        region=REGIONS.get(country, "elsewhere"),
        attributes={"customer": order["user_id"], "status": order["status"], "country": country, "payee": whose},
        version=str(version),
    )


ORDER: Any = {
    "resource_kind": "Order",
    "resource_attributes": dict.fromkeys(("customer", "status", "country", "payee"), "String"),
    "locate": locate_order,
}
PERSONAL: dict[str, FieldClass] = {"customer": FieldClass.PERSONAL, "method": FieldClass.PERSONAL}


@tool(
    "orders.read",
    effects={Effect.READ},
    untrusted=["note"],
    field_classes={
        "customer": FieldClass.PERSONAL,
        "result.customer": FieldClass.PERSONAL,
        "result.paid_with": FieldClass.PERSONAL,
    },
    **ORDER,
)
async def read_order(customer: Customer, order: OrderNumber) -> Order:
    """Read an order of a customer.

    Args:
        customer: Who is signed in.
        order: Number of the order.
    """
    del customer
    with open_books() as books:
        _, body = order_of(books, order)
    amount, method = paid(body)
    return Order(
        order=order,
        customer=body["user_id"],
        status=body["status"],
        country=body["address"]["country"],
        items=[Line(i["item_id"], i["product_id"], i["name"], Decimal(i["price"])) for i in body["items"]],
        paid=Money(amount=amount, currency=CURRENCY),
        paid_with=method,
        note=body.get("note", ""),
    )


@tool(
    "customers.read",
    effects={Effect.READ},
    field_classes={
        "customer": FieldClass.PERSONAL,
        "result.customer": FieldClass.PERSONAL,
        "result.email": FieldClass.PERSONAL,
        "result.methods.*.method": FieldClass.PERSONAL,
    },
)
async def read_customer(customer: Customer) -> Profile:
    """Read who a customer is and how they can pay and be paid."""
    with open_books() as books:
        body = customer_of(books, customer)
    methods = [PaymentMethod(method=m["id"], source=m["source"]) for m in body["payment_methods"].values()]
    return Profile(customer=customer, email=body["email"], methods=methods)


@tool("items.read", effects={Effect.READ})
async def read_item(item: ItemNumber) -> Item:
    """Read what an article costs and whether there is any."""
    with open_books() as books:
        return item_of(books, item)


@tool("risk.check", effects={Effect.READ})
async def check_risk(order: OrderNumber) -> Risk:
    """Check an order for fraud: how often its customer has had money back before."""
    with open_books() as books:
        _, body = order_of(books, order)
        others = [order_of(books, number)[1] for number in customer_of(books, body["user_id"])["orders"] if number != order]
    taken_back = sum(each["status"] in ("cancelled", "return requested") for each in others)
    level: Literal["low", "high"] = "high" if taken_back >= MANY_TAKEN_BACK else "low"
    return Risk(level=level, why=f"{taken_back} of {len(others)} other orders were cancelled or returned")


def change(ctx: ToolContext, number: str, wanted: Wanted) -> Changed:
    """Carry a change out, once for the call's key, and only on the order as it was when it was decided upon."""
    assert ctx.resource is not None
    with open_books() as books:
        done = find_change(books, ctx.idempotency_key)
        if done is not None:
            return done
        version, order = order_of(books, number)
        if str(version) != ctx.resource.version:
            raise ToolFailed(f"order {number} was changed meanwhile; read it again", code="conflict")
        after = {**order, "status": wanted.status, **wanted.kept}
        if wanted.amount:
            kind = "refund" if wanted.amount > 0 else "payment"
            entry = {"transaction_type": kind, "amount": str(abs(wanted.amount)), "payment_method_id": wanted.method}
            after["payment_history"] = [*order["payment_history"], entry]
        move(books, order["user_id"], wanted.method, wanted.amount)
        put(books, number, after)
        values = (ctx.idempotency_key, number, wanted.what, wanted.method, str(wanted.amount), json.dumps(order))
        insert = 'INSERT INTO changes (key, "order", what, method, amount, before) VALUES (?, ?, ?, ?, ?, ?)'
        books.execute(insert, values)
        made = find_change(books, ctx.idempotency_key)
    assert made is not None
    return made


def find_change(books: sqlite3.Connection, key: str) -> Changed | None:
    found = books.execute('SELECT number, "order", amount FROM changes WHERE key = ?', (key,)).fetchone()
    if found is None:
        return None
    number, order, amount = found
    status = order_of(books, order)[1]["status"]
    return Changed(change=number, order=order, status=status, amount=Money(amount=abs(Decimal(amount)), currency=CURRENCY))


def move(books: sqlite3.Connection, customer: str, method: str, amount: Decimal) -> None:
    """Put money on a gift card, or take it off; with cards and accounts others settle."""
    body = customer_of(books, customer)
    card = body["payment_methods"].get(method, {})
    if card.get("source") != "gift_card":
        return
    balance = Decimal(card["balance"]) + amount
    if balance < 0:
        raise ToolFailed(f"gift card {method} does not hold {-amount} {CURRENCY}", code="not_covered")
    card["balance"] = str(balance)
    books.execute("UPDATE customers SET body = ? WHERE id = ?", (json.dumps(body), customer))


def put(books: sqlite3.Connection, number: str, order: Mapping[str, Any]) -> None:
    books.execute("UPDATE orders SET version = version + 1, body = ? WHERE id = ?", (json.dumps(order), number))


def cost(order: Mapping[str, Any], items: list[str]) -> Decimal:
    """What was paid for items. Raises `ToolFailed` for what the order does not hold."""
    if Counter(items) - Counter(each["item_id"] for each in order["items"]):
        raise ToolFailed("an item is not in the order; read the order again", code="item_unknown")
    prices = {each["item_id"]: Decimal(each["price"]) for each in order["items"]}
    return sum((prices[item] for item in items), Decimal(0))


def check_amount(asked: Money, due: Decimal) -> None:
    if asked.amount != due or asked.currency != CURRENCY:
        raise ToolFailed(f"the books say {due} {CURRENCY}, not {asked.amount} {asked.currency}", code="amount_wrong")


async def find_by_key(ctx: ToolContext, args: Mapping[str, Json]) -> Reconciled:
    """Whether the books hold a change with this call's key."""
    del args
    with open_books() as books:
        found = find_change(books, ctx.idempotency_key)
    return Reconciled(happened=Happened.YES if found else Happened.NO, result=to_json(found) if found else None)


def made_change(args: Mapping[str, Json], result: Json, before: Resource | None) -> Mapping[str, Json]:
    """The call that takes a change back: the change itself, by its number."""
    del before
    return {"order": args["order"], "change": result["change"], "amount": result["amount"]}


def left_as(args: Mapping[str, Json], result: Json, before: Resource | None) -> dict[str, str | int | bool]:
    """How a changed order stands until somebody else takes it up."""
    del args, before
    return {"status": result["status"]}


CHANGE: Any = {
    **ORDER,
    "effects": {Effect.WRITE, Effect.MONEY},
    "money": "amount",
    "idempotency": Idempotency.KEYED,
    "reconcile": find_by_key,
    "compensation": Compensation(tool="orders.restore", arguments=made_change, left=left_as),
}


@tool("refunds.pay", authority=["method", "amount"], field_classes=PERSONAL, **CHANGE)
async def pay_refund(
    ctx: ToolContext, customer: Customer, order: OrderNumber, items: Items, amount: Money, method: Method
) -> Changed:
    """Take items of a delivered order back and refund what was paid for them.

    Args:
        customer: Whose order it is.
        order: Number of the order.
        items: The items that come back.
        amount: What was paid for them.
        method: Where the money goes.
    """
    del customer
    with open_books() as books:
        check_amount(amount, cost(order_of(books, order)[1], items))
    kept: dict[str, Json] = {"return_items": list(items), "return_payment_method_id": method}
    wanted = Wanted("return", "return requested", method, amount.amount, kept)
    return change(ctx, order, wanted)


@tool("orders.exchange", authority=["method", "amount"], field_classes=PERSONAL, **CHANGE)
async def exchange_items(
    ctx: ToolContext,
    customer: Customer,
    order: OrderNumber,
    items: Items,
    new_items: Items,
    amount: Money,
    settle: Literal["refund", "charge"],
    method: Method,
) -> Changed:
    """Exchange items of a delivered order for others of the same product, and settle the difference.

    Args:
        customer: Whose order it is.
        order: Number of the order.
        items: The items that come back.
        new_items: What is sent for each of them, in the same order.
        amount: The difference in price.
        settle: Whether the customer gets the difference or owes it.
        method: Where the difference goes to or comes from.
    """
    del customer
    with open_books() as books:
        body = order_of(books, order)[1]
        new = [item_of(books, item) for item in new_items]
        owed = sum((each.price for each in new), Decimal(0)) - cost(body, items)
    products = {each["item_id"]: each["product_id"] for each in body["items"]}
    if [each.product for each in new] != [products[item] for item in items]:
        raise ToolFailed("an item is exchanged only for one of the same product", code="product_differs")
    if not all(each.available for each in new):
        raise ToolFailed("an item that was chosen is sold out; choose another one", code="sold_out")
    check_amount(amount, owed if settle == "charge" else -owed)
    kept: dict[str, Json] = {"exchange_items": list(items), "exchange_new_items": list(new_items)}
    return change(ctx, order, Wanted("exchange", "exchange requested", method, -owed, kept))


@tool("orders.cancel", authority=["amount"], field_classes={"customer": FieldClass.PERSONAL}, **CHANGE)
async def cancel_order(
    ctx: ToolContext,
    customer: Customer,
    order: OrderNumber,
    amount: Money,
    reason: Literal["no longer needed", "ordered by mistake"],
) -> Changed:
    """Cancel a pending order and refund it to where it was paid from.

    Args:
        customer: Whose order it is.
        order: Number of the order.
        amount: What was paid for it.
        reason: Why, as the customer says.
    """
    del customer
    with open_books() as books:
        due, method = paid(order_of(books, order)[1])
    check_amount(amount, due)
    return change(ctx, order, Wanted("cancel", "cancelled", method, due, {"cancel_reason": reason}))


@tool(
    "orders.restore",
    effects={Effect.WRITE, Effect.MONEY},
    money="amount",
    idempotency=Idempotency.SAFE,
    **ORDER,
)
async def restore_order(ctx: ToolContext, order: OrderNumber, change: int, amount: Money) -> str:
    """Take a change of an order back: its status, its payments and the balance of a gift card.

    Args:
        order: Number of the order.
        change: Number of the change, as the call that made it has answered.
        amount: The money that it moved.
    """
    assert ctx.resource is not None
    with open_books() as books:
        query = 'SELECT method, amount, before, taken_back FROM changes WHERE number = ? AND "order" = ?'
        found = books.execute(query, (change, order)).fetchone()
        if found is None:
            raise ToolFailed(f"order {order} has no change {change}", code="not_found")
        method, moved, before, taken_back = found
        earlier: dict[str, Any] = json.loads(before)
        if taken_back:
            return str(earlier["status"])
        version, body = order_of(books, order)
        if str(version) != ctx.resource.version:
            raise ToolFailed(f"order {order} was changed meanwhile", code="conflict")
        check_amount(amount, abs(Decimal(moved)))
        move(books, body["user_id"], method, -Decimal(moved))
        put(books, order, earlier)
        books.execute("UPDATE changes SET taken_back = 1 WHERE number = ?", (change,))
    return str(earlier["status"])

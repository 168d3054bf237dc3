"""Refund routing: check the order and its fraud risk, return, exchange or cancel, and hand what is unclear to people.

What goes to people is decided here, in the same way every time: a request that names no items or no reason, an item that
the order does not hold, one that is sold out. Everything else is the gate's to decide.
"""

from __future__ import annotations

import re
from collections import Counter
from decimal import Decimal
from typing import Any

from remit import Run

_METHOD = re.compile(r"\b(?:credit_card|gift_card|paypal)_\d{7}\b")


async def refund_routing(run: Run, request: dict[str, Any]) -> dict[str, Any]:
    """The contract's entry point: one request in, one decision out."""
    order, customer = await run.gather(
        run.call("orders.read", customer=request["customer"], order=request["order"]),
        run.call("customers.read", customer=request["customer"]),
    )
    await run.call("risk.check", order=request["order"])
    if request["ask"] == "cancel":
        return await cancel(run, request, order)
    items: list[str] = request.get("items") or []
    if not items:
        return await run.escalate("data missing: the request does not say which items it is about")
    if Counter(items) - Counter(each["item"] for each in order["items"]):
        return await run.escalate("data missing: an item of the request is not in the order")
    method = chosen_method(request, order, customer)
    if request["ask"] == "exchange":
        return await exchange(run, request, order, method)
    paid = price_of(order, items)
    await run.call("refunds.pay", customer=request["customer"], order=request["order"], items=items, amount=usd(paid), method=method)
    return {"action": "refunded", "order": request["order"], "amount": str(paid), "method": method}


async def exchange(run: Run, request: dict[str, Any], order: dict[str, Any], method: str) -> dict[str, Any]:
    """Exchange items for others of the same product and settle the difference, whoever owes it."""
    items: list[str] = request["items"]
    wanted: list[str] = request.get("new_items") or []
    if len(wanted) != len(items):
        return await run.escalate("data missing: the request does not say what each item is exchanged for")
    found = await run.gather(*(run.call("items.read", item=item) for item in wanted))
    if not all(each["available"] for each in found):
        return await run.escalate("sold out: an item that the customer wants instead can't be had")
    difference = sum((Decimal(each["price"]) for each in found), Decimal(0)) - price_of(order, items)
    await run.call(
        "orders.exchange",
        customer=request["customer"],
        order=request["order"],
        items=items,
        new_items=wanted,
        amount=usd(abs(difference)),
        settle="refund" if difference < 0 else "charge",
        method=method,
    )
    return {"action": "exchanged", "order": request["order"], "amount": str(difference), "method": method}


async def cancel(run: Run, request: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """Cancel a whole order; what was paid goes back to where it came from."""
    reason = request.get("reason")
    if reason is None:
        return await run.escalate("data missing: the request does not say why the order is cancelled")
    paid = order["paid"]
    await run.call("orders.cancel", customer=request["customer"], order=request["order"], amount=paid, reason=reason)
    return {"action": "cancelled", "order": request["order"], "amount": paid["amount"], "method": order["paid_with"]}


def chosen_method(request: dict[str, Any], order: dict[str, Any], customer: dict[str, Any]) -> str:
    """The method of the form; else one that the customer's text names; else the one that the order was paid with.

    A text may name any account there is. Whether the money may go there is not decided here: the policy asks where
    the method came from, and the shop whose it is.
    """
    if request.get("method"):
        return str(request["method"])
    if re.search(r"\bgift card\b", request.get("text") or "", re.I):
        cards = [each["method"] for each in customer["methods"] if each["source"] == "gift_card"]
        if len(cards) == 1:
            return str(cards[0])
    named = _METHOD.search(request.get("text") or "")
    return named[0] if named else str(order["paid_with"])


def price_of(order: dict[str, Any], items: list[str]) -> Decimal:
    """What was paid for items of an order."""
    prices = {each["item"]: Decimal(each["price"]) for each in order["items"]}
    return sum((prices[item] for item in items), Decimal(0))


def usd(amount: Decimal) -> dict[str, str]:
    return {"amount": str(amount), "currency": "USD"}


def amount_is_what_the_items_cost(shown: Any) -> str | None:
    """The rule beside `refunds.pay`: not a cent more or less than the order's own record says."""
    order: dict[str, Any] = shown.earlier.get("orders.read") or {"items": []}
    known = {each["item"] for each in order["items"]}
    if not known.issuperset(shown.args["items"]):
        return "an item that would be refunded is not in the order"
    due, asked = price_of(order, shown.args["items"]), Decimal(shown.args["amount"]["amount"])
    return None if asked == due else f"{asked} would be refunded, and the items cost {due}"

"""Invoice triage: three opinions on every invoice, and a booking only of what they agree on.

The proposal is a model's: it codes the invoice by what its lines say. The rules know the order, the supplier and the
standard; they work the amount out anew and object to what must not be paid. The second model was trained on what others
have booked, and is given nothing but the lines. The document itself is heard as to its amount.

What is open is decided in the same way every time: an objection of the rules escalates; models that differ or aren't
sure, and amounts that differ, are shown to a person of payables, whose answer is taken.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from remit import Run
from remit.styles.ensemble import AskPerson, Disagreement, Member, Opinion, ensemble, model_opinion

CATEGORIES = ("energy", "facility", "freight", "it", "office")
SHOWN_TO_A_PERSON = AskPerson(
    of="role:payables",
    within="2d",
    about=frozenset(
        [
            Disagreement.CATEGORY_DIFFERS,
            Disagreement.VALUE_DIFFERS,
            Disagreement.LOW_CONFIDENCE,
            Disagreement.ABSTAINED,
        ]
    ),
    choices={"category": CATEGORIES},
)


async def invoice_triage(run: Run, request: dict[str, Any]) -> dict[str, Any]:
    """The contract's entry point: one invoice in, one entry out."""
    received = await run.call("inbox.read", file=request["file"])
    if received["unreadable"]:
        return await run.escalate(f"data missing: {received['unreadable']}")
    invoice = received["invoice"]
    await whole(run, invoice)
    supplier, order = await known_of(run, invoice)
    if supplier is None:
        return await run.escalate("data missing: the seller is not in the supplier master")
    amount = {"amount": invoice["totals"]["payable"], "currency": invoice["currency"]}
    same: dict[str, Any] = {"supplier": supplier["supplier"], "number": invoice["number"], "amount": amount}
    earlier = await run.call("ledger.find", **same, issued=invoice["issued"])

    text = what_it_is_about(invoice)
    consensus = await ensemble(
        run,
        decide=["category", "payable"],
        proposals={
            "proposal": model_opinion(run, "coding", labels=["category"], text=text),
            "rules": by_rules(received, supplier, order, earlier),
            "second": model_opinion(run, "second", labels=["category"], text=text),
            "document": as_stated(invoice),
        },
        quorum=2,
        asks=SHOWN_TO_A_PERSON,
    )
    if Decimal(consensus.answer["payable"]) != Decimal(invoice["totals"]["payable"]):
        return await run.escalate("the amount is another one than the invoice states; it has to be written anew")
    entry = await run.call(
        "ledger.book",
        **same,
        account=supplier["account"],
        category=consensus.answer["category"],
        issued=invoice["issued"],
        **({"order": invoice["order"]} if invoice["order"] else {}),
    )
    return {
        "entry": entry["entry"],
        "supplier": supplier["supplier"],
        "category": consensus.answer["category"],
        "payable": consensus.answer["payable"],
        "by": consensus.by,
        "disagreements": sorted(kind.value for kind in consensus.kinds - {Disagreement.AGREE}),
    }


async def whole(run: Run, invoice: dict[str, Any]) -> None:
    """What nothing can be said without."""
    needed = {"number": invoice["number"], "date": invoice["issued"], "currency": invoice["currency"]}
    needed |= {"payable amount": invoice["totals"]["payable"], "seller's VAT number": invoice["seller"]["vat"]}
    gone = [name for name, value in needed.items() if value is None]
    if gone:
        await run.escalate(f"data missing: the invoice has no {', no '.join(gone)}")
    if invoice["credit"] or Decimal(invoice["totals"]["payable"]) <= 0:
        await run.escalate("a credit note, or nothing to pay: a person sees to it")


async def known_of(run: Run, invoice: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The supplier in the master and the order in the books, as far as they are there."""
    if invoice["order"] is None:
        return await run.call("suppliers.find", vat=invoice["seller"]["vat"]), None
    supplier, order = await run.gather(
        run.call("suppliers.find", vat=invoice["seller"]["vat"]), run.call("orders.read", order=invoice["order"])
    )
    return supplier, order


def what_it_is_about(invoice: dict[str, Any]) -> str:
    """What the models are shown: what was delivered, and neither who delivered it nor what anybody thinks of it."""
    return "\n".join(" ".join(filter(None, (line["name"], line["description"]))) for line in invoice["lines"])[:6000]


def as_stated(invoice: dict[str, Any]) -> Member:
    """What the document itself says is to be paid."""

    async def propose() -> Opinion:
        return Opinion(values={"payable": Decimal(invoice["totals"]["payable"])})

    return propose


def by_rules(
    received: dict[str, Any], supplier: dict[str, Any], order: dict[str, Any] | None, earlier: dict[str, Any]
) -> Member:
    """What the rules say: the order's category, else the supplier's usual one; the amount worked out; objections."""

    async def propose() -> Opinion:
        category = (order or supplier)["category"]
        stated, again = Decimal(received["invoice"]["totals"]["payable"]), received["recalculated"]
        values: dict[str, Decimal] = {}
        if again is not None:
            payable, slack = Decimal(again["payable"]), Decimal(again["slack"])
            values["payable"] = stated if abs(payable - stated) <= slack else payable
        return Opinion(
            labels={"category": category} if category else {},
            values=values,
            objections=objections(received, supplier, order, earlier),
            why="" if category or values else "no order, no usual category, and lines without prices",
        )

    return propose


def objections(
    received: dict[str, Any], supplier: dict[str, Any], order: dict[str, Any] | None, earlier: dict[str, Any]
) -> list[str]:
    """What speaks against booking at all, whatever anybody else says."""
    invoice = received["invoice"]
    found = [f"{each['rule']}: {each['message']}" for each in received["findings"]]
    if earlier["same"]:
        found.append("duplicate: an invoice of this supplier with this number and amount is booked already")
    accounts = {plain(each["account"]) for each in invoice["payments"] if each["account"]}
    if accounts and accounts != {plain(supplier["account"])}:
        found.append("bank details: the invoice names another account than the supplier master")
    if invoice["order"] and order is None:
        found.append("order: the invoice refers to an order that is not known")
    if order is not None and order["supplier"] != supplier["supplier"]:
        found.append("order: the invoice refers to an order of another supplier")
    return found


def plain(account: str) -> str:
    """An account number without blanks."""
    return "".join(account.split()).upper()

"""What an invoice comes to, worked out from its lines up: quantity times price, allowances, charges and VAT.

The standard's rules hold totals against the lines' net amounts, and take those as they stand. This does not.
"""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

from msgspec import Struct

from remit.connectors.en16931.invoice import Invoice, InvoiceLine
from remit.connectors.en16931.rules import CENT, ZERO, rounded


class Recalculated(Struct, frozen=True, kw_only=True):
    """Net, VAT and gross amount and what is payable. `slack`: how far rounding alone can have moved any of them."""

    net: Decimal
    tax: Decimal
    gross: Decimal
    payable: Decimal
    slack: Decimal


def recalculated(invoice: Invoice) -> Recalculated | None:
    """The amounts; `None` where a line does not say how many of what price."""
    bases: defaultdict[tuple[str | None, Decimal], Decimal] = defaultdict(Decimal)
    for line in invoice.lines:
        net = line_net(line)
        if net is None:
            return None
        bases[line.category, line.rate or ZERO] += net
    for each in invoice.allowances:
        amount = each.amount or ZERO
        bases[each.category, each.rate or ZERO] += amount if each.charge else -amount
    net = sum(bases.values(), ZERO)
    tax = sum((rounded(base * rate / 100) for (_, rate), base in bases.items()), ZERO)
    totals = invoice.totals
    payable = net + tax - (totals.paid or ZERO) + (totals.rounding or ZERO)
    return Recalculated(net=net, tax=tax, gross=net + tax, payable=payable, slack=CENT * (len(invoice.lines) + len(bases)))


def line_net(line: InvoiceLine) -> Decimal | None:
    """Quantity times price for so many units, plus charges, less allowances."""
    if line.quantity is None or line.price is None or line.price_base == 0:
        return None
    amount = rounded(line.quantity * line.price / (line.price_base or Decimal(1)))
    added = sum((each.amount or ZERO for each in line.allowances if each.charge), ZERO)
    taken_off = sum((each.amount or ZERO for each in line.allowances if not each.charge), ZERO)
    return amount + added - taken_off

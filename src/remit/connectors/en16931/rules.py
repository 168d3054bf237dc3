"""The rules of EN 16931 about an invoice as a whole: what must be there, and how its totals add up.

Numbers and words follow the official rules (ConnectingEurope/eInvoicing-EN16931), arithmetic is in exact decimals. Code
lists (`BR-CL-…`) and the rules of a syntax (`UBL-…`) are not checked; those of VAT categories are in `vat_rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import ROUND_FLOOR, Decimal
from typing import Final

from msgspec import Struct

from remit.connectors.en16931.invoice import AllowanceOrCharge, Invoice, InvoiceLine, InvoicePeriod

CREDIT_TRANSFERS: Final = frozenset({"30", "58"})
CENT: Final = Decimal("0.01")
ZERO: Final = Decimal(0)


class InvoiceFinding(Struct, frozen=True):
    """A rule that an invoice breaks. `rule`: its official number."""

    rule: str
    message: str


Findings = Iterator[InvoiceFinding]
InvoiceRule = Callable[[Invoice], Findings]


def rounded(value: Decimal) -> Decimal:
    """To two decimals, half towards plus infinity, as the official rules do (XPath's `round`)."""
    return ((value * 100 + Decimal("0.5")).to_integral_value(ROUND_FLOOR) / 100).quantize(CENT)


def total(amounts: Iterable[Decimal | None]) -> Decimal:
    """The sum of what is there."""
    return sum((each for each in amounts if each is not None), ZERO)


def missing(rule: str, what: str, *, unless: object) -> Findings:
    """A finding unless there is something; zero is something."""
    if unless is None or unless is False or unless in ("", []):
        yield InvoiceFinding(rule, f"{what} is missing")


def what_it_is(invoice: Invoice) -> Findings:
    yield from missing("BR-01", "the specification identifier (BT-24)", unless=invoice.profile)
    yield from missing("BR-02", "the invoice number (BT-1)", unless=invoice.number)
    yield from missing("BR-03", "the date of issue (BT-2)", unless=invoice.issued)
    yield from missing("BR-04", "the invoice type (BT-3)", unless=invoice.type)
    yield from missing("BR-05", "the currency (BT-5)", unless=invoice.currency)
    yield from missing("BR-16", "at least one line (BG-25)", unless=invoice.lines)
    if invoice.tax_point is not None and invoice.period is not None and invoice.period.code is not None:
        yield InvoiceFinding("BR-CO-03", "both a VAT point date (BT-7) and a code for it (BT-8) are given")
    if not all(invoice.documents):
        yield from missing("BR-52", "the reference of a supporting document (BT-122)", unless=False)
    if not all(invoice.earlier):
        yield from missing("BR-55", "the reference of a preceding invoice (BT-25)", unless=False)


def who_is_in_it(invoice: Invoice) -> Findings:
    seller, buyer = invoice.seller, invoice.buyer
    yield from missing("BR-06", "the seller's name (BT-27)", unless=seller.name)
    yield from missing("BR-07", "the buyer's name (BT-44)", unless=buyer.name)
    yield from missing("BR-08", "the seller's postal address (BG-5)", unless=seller.has_address)
    yield from missing("BR-09", "the seller's country (BT-40)", unless=seller.country or not seller.has_address)
    yield from missing("BR-10", "the buyer's postal address (BG-8)", unless=buyer.has_address)
    yield from missing("BR-11", "the buyer's country (BT-55)", unless=buyer.country or not buyer.has_address)
    if invoice.payee is not None:
        yield from missing("BR-17", "the payee's name (BT-59)", unless=invoice.payee.name)
    representative = invoice.representative
    if representative is not None:
        yield from missing("BR-18", "the tax representative's name (BT-62)", unless=representative.name)
        yield from missing("BR-19", "the tax representative's address (BG-12)", unless=representative.has_address)
        has_country = representative.country or not representative.has_address
        yield from missing("BR-20", "the tax representative's country (BT-69)", unless=has_country)
        yield from missing("BR-56", "the tax representative's VAT identifier (BT-63)", unless=representative.vat)
    if invoice.has_delivery_address:
        yield from missing("BR-57", "the country that was delivered to (BT-80)", unless=invoice.delivery_country)
    if seller.endpoint_scheme == "":
        yield from missing("BR-62", "the scheme of the seller's electronic address (BT-34)", unless=None)
    if buyer.endpoint_scheme == "":
        yield from missing("BR-63", "the scheme of the buyer's electronic address (BT-49)", unless=None)
    if not (seller.ids or seller.legal or seller.vat):
        yield InvoiceFinding("BR-CO-26", "the seller has no identifier (BT-29), registration (BT-30) or VAT number (BT-31)")
    for party in (seller, buyer, representative):
        if party is not None and party.vat is not None and not party.vat[:2].isalpha():
            yield InvoiceFinding("BR-CO-09", "a VAT identifier does not begin with a country")


def how_it_is_paid(invoice: Invoice) -> Findings:
    for payment in invoice.payments:
        yield from missing("BR-49", "the code of a way to pay (BT-81)", unless=payment.code)
        if payment.code in CREDIT_TRANSFERS:
            yield from missing("BR-61", "the account of a credit transfer (BT-84)", unless=payment.account)
    payable = invoice.totals.payable
    # A credit note asks for nothing: the rule's official form is about invoices alone, and UBL's has no place for a date.
    if not invoice.credit and payable is not None and payable > 0 and invoice.due is None and invoice.terms is None:
        yield InvoiceFinding("BR-CO-25", "an amount is due, and neither a date (BT-9) nor terms (BT-20) say when")


def what_the_lines_say(invoice: Invoice) -> Findings:
    for number, line in enumerate(invoice.lines, start=1):
        yield from _line(line, f"line {number}")


def _line(line: InvoiceLine, where: str) -> Findings:
    yield from missing("BR-21", f"{where}: its identifier (BT-126)", unless=line.id)
    yield from missing("BR-22", f"{where}: the quantity (BT-129)", unless=line.quantity)
    yield from missing("BR-23", f"{where}: the unit (BT-130)", unless=line.unit)
    yield from missing("BR-24", f"{where}: the net amount (BT-131)", unless=line.net)
    yield from missing("BR-25", f"{where}: the item's name (BT-153)", unless=line.name)
    yield from missing("BR-26", f"{where}: the net price (BT-146)", unless=line.price)
    yield from missing("BR-CO-04", f"{where}: the VAT category (BT-151)", unless=line.category)
    if line.price is not None and line.price < 0:
        yield InvoiceFinding("BR-27", f"{where}: the net price (BT-146) is negative")
    if line.gross_price is not None and line.gross_price < 0:
        yield InvoiceFinding("BR-28", f"{where}: the gross price (BT-148) is negative")
    if not all(line.attributes):
        yield from missing("BR-54", f"{where}: the name or the value of an attribute (BG-32)", unless=None)
    if None in line.standard_ids:
        yield from missing("BR-64", f"{where}: the scheme of the item's identifier (BT-157)", unless=None)
    if None in line.classifications:
        yield from missing("BR-65", f"{where}: the scheme of the item's classification (BT-158)", unless=None)
    yield from _period(line.period, ("BR-30", "BR-CO-20"), where)
    for each in line.allowances:
        amount, reason, either = ("BR-43", "BR-44", "BR-CO-24") if each.charge else ("BR-41", "BR-42", "BR-CO-23")
        yield from missing(amount, f"{where}: the amount of {_called(each)}", unless=each.amount)
        for rule in (reason, either):
            yield from missing(rule, f"{where}: the reason of {_called(each)}", unless=each.reason or each.reason_code)


def what_is_added_and_taken_off(invoice: Invoice) -> Findings:
    for each in invoice.allowances:
        numbers = ("BR-36", "BR-37", "BR-38", "BR-CO-22") if each.charge else ("BR-31", "BR-32", "BR-33", "BR-CO-21")
        amount, category, reason, either = numbers
        yield from missing(amount, f"the amount of {_called(each)}", unless=each.amount)
        yield from missing(category, f"the VAT category of {_called(each)}", unless=each.category)
        for rule in (reason, either):
            yield from missing(rule, f"the reason of {_called(each)}", unless=each.reason or each.reason_code)


def _called(each: AllowanceOrCharge) -> str:
    return "a charge" if each.charge else "an allowance"


def when_it_was(invoice: Invoice) -> Findings:
    yield from _period(invoice.period, ("BR-29", "BR-CO-19"), "the invoice")


def _period(period: InvoicePeriod | None, numbers: tuple[str, str], where: str) -> Findings:
    if period is None:
        return
    if period.start is not None and period.end is not None and period.end < period.start:
        yield InvoiceFinding(numbers[0], f"{where}: the period ends before it begins")
    if (period.start, period.end, period.code) == (None, None, None):
        yield InvoiceFinding(numbers[1], f"{where}: the period has neither a beginning nor an end")


def totals_are_there(invoice: Invoice) -> Findings:
    totals = invoice.totals
    yield from missing("BR-12", "the sum of the lines (BT-106)", unless=totals.lines)
    yield from missing("BR-13", "the total without VAT (BT-109)", unless=totals.net)
    yield from missing("BR-14", "the total with VAT (BT-112)", unless=totals.gross)
    yield from missing("BR-15", "the amount due (BT-115)", unless=totals.payable)
    if invoice.tax_currency is not None:
        accounted = totals.tax_accounted if invoice.tax_currency != invoice.currency else totals.tax
        yield from missing("BR-53", "the VAT in the accounting currency (BT-111)", unless=accounted)


def totals_add_up(invoice: Invoice) -> Findings:
    """BR-CO-10 to BR-CO-16. A part that is missing counts as nothing; a total that is missing is said elsewhere."""
    totals = invoice.totals
    allowances = total(each.amount for each in invoice.allowances if not each.charge)
    charges = total(each.amount for each in invoice.allowances if each.charge)
    lines = rounded(total(line.net for line in invoice.lines))
    yield from _adds_up("BR-CO-10", "the sum of the lines (BT-106)", totals.lines, lines)
    if totals.allowances is not None or allowances:
        yield from _adds_up("BR-CO-11", "the sum of allowances (BT-107)", totals.allowances or ZERO, rounded(allowances))
    if totals.charges is not None or charges:
        yield from _adds_up("BR-CO-12", "the sum of charges (BT-108)", totals.charges or ZERO, rounded(charges))
    net = rounded((totals.lines or ZERO) - (totals.allowances or ZERO) + (totals.charges or ZERO))
    yield from _adds_up("BR-CO-13", "the total without VAT (BT-109)", totals.net, net)
    if totals.tax is not None and invoice.vat:
        tax = rounded(total(each.tax for each in invoice.vat))
        yield from _adds_up("BR-CO-14", "the total VAT (BT-110)", totals.tax, tax)
    gross = rounded((totals.net or ZERO) + (totals.tax or ZERO))
    yield from _adds_up("BR-CO-15", "the total with VAT (BT-112)", totals.gross, gross)
    payable = rounded((totals.gross or ZERO) - (totals.paid or ZERO) + (totals.rounding or ZERO))
    yield from _adds_up("BR-CO-16", "the amount due (BT-115)", totals.payable, payable)


def _adds_up(rule: str, what: str, stated: Decimal | None, due: Decimal) -> Findings:
    if stated is not None and stated != due:
        yield InvoiceFinding(rule, f"{what} is {stated}, and its parts make {due}")


RULES: Final[tuple[InvoiceRule, ...]] = (
    what_it_is,
    who_is_in_it,
    how_it_is_paid,
    when_it_was,
    what_the_lines_say,
    what_is_added_and_taken_off,
    totals_are_there,
    totals_add_up,
)

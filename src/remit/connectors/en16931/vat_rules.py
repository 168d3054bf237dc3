"""The rules of EN 16931 about VAT: ten for each category, from one table.

Where the official rules compare a VAT amount with what the rate makes of it, they let less than one unit of the currency
pass (in CII a whole one as well); so do these. Everything else is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from msgspec import Struct

from remit.connectors.en16931.invoice import AllowanceOrCharge, Invoice, InvoiceLine, VatBreakdown
from remit.connectors.en16931.rules import ZERO, Findings, InvoiceFinding, InvoiceRule, missing, rounded, total

SLACK: Final = Decimal(1)
SELLER, BUYER, NOBODY = "seller", "buyer", "nobody"


class VatCategory(Struct, frozen=True, kw_only=True):
    """What holds for a category of VAT (UNTDID 5305).

    `rule`: how its rules are called. `rate`: `positive`, `zero`, `any` or `none`. `identified`: who needs a VAT number.
    `exempt`: whether it must be said why there is no VAT; else it must not.
    """

    rule: str
    rate: str
    identified: str
    exempt: bool
    tax_id_counts: bool = True
    """Whether a tax registration (BT-32) does for the seller's VAT number."""


CATEGORIES: Final = {
    "S": VatCategory(rule="BR-S", rate="positive", identified=SELLER, exempt=False),
    "Z": VatCategory(rule="BR-Z", rate="zero", identified=SELLER, exempt=False),
    "E": VatCategory(rule="BR-E", rate="zero", identified=SELLER, exempt=True),
    "AE": VatCategory(rule="BR-AE", rate="zero", identified=BUYER, exempt=True),
    "K": VatCategory(rule="BR-IC", rate="zero", identified=BUYER, exempt=True, tax_id_counts=False),
    "G": VatCategory(rule="BR-G", rate="zero", identified=SELLER, exempt=True, tax_id_counts=False),
    "O": VatCategory(rule="BR-O", rate="none", identified=NOBODY, exempt=True),
    "L": VatCategory(rule="BR-AF", rate="any", identified=SELLER, exempt=False),
    "M": VatCategory(rule="BR-AG", rate="any", identified=SELLER, exempt=False),
}
BY_RATE: Final = frozenset({"S", "L", "M"})
"""Categories that are broken down by rate as well."""

Taxed = InvoiceLine | AllowanceOrCharge


def breakdown_is_whole(invoice: Invoice) -> Findings:
    """BR-45 to BR-48, and BR-CO-17 and BR-CO-18."""
    yield from missing("BR-CO-18", "a VAT breakdown (BG-23)", unless=invoice.vat)
    for each in invoice.vat:
        yield from missing("BR-45", "the taxable amount of a VAT category (BT-116)", unless=each.taxable)
        yield from missing("BR-46", "the tax of a VAT category (BT-117)", unless=each.tax)
        yield from missing("BR-47", "the code of a VAT category (BT-118)", unless=each.category)
        if each.category != "O":
            yield from missing("BR-48", "the rate of a VAT category (BT-119)", unless=each.rate)
        if not _tax_fits(each, invoice):
            said = f"VAT of {each.rate or ZERO} % on {each.taxable} is not {each.tax}"
            yield InvoiceFinding("BR-CO-17", said)


def _tax_fits(each: VatBreakdown, invoice: Invoice) -> bool:
    if each.taxable is None or each.tax is None:
        return True
    if not each.rate:
        return each.tax == 0
    off = abs(abs(each.tax) - rounded(abs(each.taxable) * each.rate / 100))
    return off < SLACK or (off == SLACK and invoice.syntax == "CII")


def categories_are_kept(invoice: Invoice) -> Findings:
    """The rules `…-01` to `…-10` of every category that the invoice uses."""
    for code, category in CATEGORIES.items():
        yield from _category(invoice, code, category)


def _category(invoice: Invoice, code: str, category: VatCategory) -> Findings:
    used = list(_taxed(invoice, code))
    broken_down = [each for each in invoice.vat if each.category == code]
    name = category.rule
    once = code not in BY_RATE
    if used and (not broken_down or (once and len(broken_down) > 1)):
        yield InvoiceFinding(f"{name}-01", f"category {code} is used, and stands in the VAT breakdown {len(broken_down)} times")
    for number, each in used:
        yield from _parties(invoice, category, number)
        yield from _rate(each, code, category, number)
    for each in broken_down:
        yield from _sums(invoice, code, category, each)
        if category.exempt and each.exempt is None:
            yield InvoiceFinding(f"{name}-10", f"nothing says why there is no VAT of category {code}")
        if not category.exempt and each.exempt is not None:
            yield InvoiceFinding(f"{name}-10", f"a reason for exemption is given for VAT of category {code}")
    if code == "K" and broken_down:
        yield from _across_borders(invoice)
    if code == "O" and broken_down:
        yield from _alone(invoice)


def _taxed(invoice: Invoice, code: str) -> Iterator[tuple[int, Taxed]]:
    """What has the category, and where in the numbering it stands: 0 a line, 1 an allowance, 2 a charge."""
    yield from ((0, line) for line in invoice.lines if line.category == code)
    yield from ((2 if each.charge else 1, each) for each in invoice.allowances if each.category == code)


def _parties(invoice: Invoice, category: VatCategory, number: int) -> Findings:
    rule = f"{category.rule}-{number + 2:02}"
    seller, buyer = invoice.seller, invoice.buyer
    for_seller = invoice.representative.vat if invoice.representative is not None else None
    if category.identified == NOBODY:
        if seller.vat or for_seller or buyer.vat:
            yield InvoiceFinding(rule, "what is not subject to VAT goes with no VAT number")
        return
    if not (seller.vat or for_seller or (category.tax_id_counts and seller.tax)):
        yield InvoiceFinding(rule, "the seller has no VAT number (BT-31)")
    elif category.identified == BUYER and not (buyer.vat or (category.rule == "BR-AE" and buyer.legal)):
        yield InvoiceFinding(rule, "the buyer has no VAT number (BT-48)")


def _rate(each: Taxed, code: str, category: VatCategory, number: int) -> Findings:
    rate = each.rate
    fits = {
        "positive": rate is not None and rate > 0,
        "zero": rate is not None and rate == 0,
        "any": rate is not None and rate >= 0,
        "none": rate is None,
    }
    if not fits[category.rate]:
        said = "no rate" if rate is None else f"a rate of {rate}"
        yield InvoiceFinding(f"{category.rule}-{number + 5:02}", f"category {code} goes with another rate than {said}")


def _sums(invoice: Invoice, code: str, category: VatCategory, each: VatBreakdown) -> Findings:
    by_rate = code in BY_RATE
    parts = [(number, one) for number, one in _taxed(invoice, code) if not by_rate or one.rate == each.rate]
    if each.taxable is not None:
        due = rounded(total(_signed(number, one) for number, one in parts))
        fits = abs(each.taxable - due) < SLACK if by_rate else each.taxable == due
        if not fits:
            said = f"category {code}: the taxable amount is {each.taxable}, and its parts make {due}"
            yield InvoiceFinding(f"{category.rule}-08", said)
    if each.tax is None:
        return
    tax_fits = _tax_fits(each, invoice) if by_rate else each.tax == 0
    if not tax_fits:
        yield InvoiceFinding(f"{category.rule}-09", f"category {code}: the tax {each.tax} is not what the rate makes")


def _signed(number: int, each: Taxed) -> Decimal:
    if isinstance(each, InvoiceLine):
        return each.net or ZERO
    return -(each.amount or ZERO) if number == 1 else each.amount or ZERO


def _across_borders(invoice: Invoice) -> Findings:
    period = invoice.period
    if invoice.delivered is None and (period is None or (period.start is None and period.end is None)):
        yield InvoiceFinding("BR-IC-11", "neither a date of delivery (BT-72) nor a period (BG-14) is given")
    yield from missing("BR-IC-12", "the country that was delivered to (BT-80)", unless=invoice.delivery_country)


def _alone(invoice: Invoice) -> Findings:
    if any(each.category != "O" for each in invoice.vat):
        yield InvoiceFinding("BR-O-11", "beside what is not subject to VAT stands another VAT category")
    if any(line.category != "O" for line in invoice.lines):
        yield InvoiceFinding("BR-O-12", "a line is of another VAT category than the breakdown")
    if any(each.category != "O" for each in invoice.allowances if not each.charge):
        yield InvoiceFinding("BR-O-13", "an allowance is of another VAT category than the breakdown")
    if any(each.category != "O" for each in invoice.allowances if each.charge):
        yield InvoiceFinding("BR-O-14", "a charge is of another VAT category than the breakdown")


VAT_RULES: Final[tuple[InvoiceRule, ...]] = (breakdown_is_whole, categories_are_kept)

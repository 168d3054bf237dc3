"""An invoice as EN 16931 means it, whichever syntax it came in. What it does not say is `None`, empty or `[]`.

`BT-…` are the business terms of the standard's semantic model. Amounts are exact decimals.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from msgspec import Meta, Struct, field

Text = Annotated[str, Meta(max_length=20_000)]


class InvoiceParty(Struct, frozen=True, kw_only=True):
    """A party: seller (BG-4), buyer (BG-7), payee (BG-10), the seller's tax representative (BG-11).

    Attributes:
        vat: Its VAT identifier (BT-31, BT-48, BT-63).
        tax: Its other tax registration (BT-32).
        legal: Its legal registration (BT-30, BT-47).
        has_address: Whether there is a postal address at all.
        endpoint_scheme: Scheme of the electronic address; null where there is no such address.
    """

    name: Text | None = None
    vat: Text | None = None
    tax: Text | None = None
    legal: Text | None = None
    ids: list[Text] = field(default_factory=list[str])
    has_address: bool = False
    country: Text | None = None
    endpoint_scheme: Text | None = None


class AllowanceOrCharge(Struct, frozen=True, kw_only=True):
    """An allowance or a charge, of the document (BG-20, BG-21) or of a line (BG-27, BG-28)."""

    charge: bool
    amount: Decimal | None = None
    base: Decimal | None = None
    percent: Decimal | None = None
    reason: Text | None = None
    reason_code: Text | None = None
    category: Text | None = None
    rate: Decimal | None = None


class VatBreakdown(Struct, frozen=True, kw_only=True):
    """The VAT of one category and rate (BG-23).

    Attributes:
        exempt: Why there is no VAT, as a text or as a code (BT-120, BT-121).
    """

    category: Text | None = None
    rate: Decimal | None = None
    taxable: Decimal | None = None
    tax: Decimal | None = None
    exempt: Text | None = None


class InvoicePeriod(Struct, frozen=True, kw_only=True):
    """An invoicing period; `code` (BT-8) says which date counts for VAT."""

    start: Text | None = None
    end: Text | None = None
    code: Text | None = None


class InvoiceLine(Struct, frozen=True, kw_only=True):
    """A line (BG-25).

    Attributes:
        price_base: For how many units the price is (BT-149).
    """

    id: Text | None = None
    name: Text | None = None
    description: Text | None = None
    quantity: Decimal | None = None
    unit: Text | None = None
    net: Decimal | None = None
    price: Decimal | None = None
    price_base: Decimal | None = None
    gross_price: Decimal | None = None
    category: Text | None = None
    rate: Decimal | None = None
    period: InvoicePeriod | None = None
    order_line: Text | None = None
    allowances: list[AllowanceOrCharge] = field(default_factory=list[AllowanceOrCharge])
    standard_ids: list[Text | None] = field(default_factory=list["str | None"])
    """The scheme of each standard identifier (BT-157-1)."""
    classifications: list[Text | None] = field(default_factory=list["str | None"])
    """The scheme of each classification (BT-158-1)."""
    attributes: list[bool] = field(default_factory=list[bool])
    """Whether each attribute of the item (BG-32) has a name and a value."""


class InvoiceTotals(Struct, frozen=True, kw_only=True):
    """The totals of the document (BG-22).

    Attributes:
        lines: Sum of the lines' net amounts (BT-106).
        allowances: Sum of the document's allowances (BT-107).
        charges: Sum of the document's charges (BT-108).
        net: Total without VAT (BT-109).
        tax: Total VAT (BT-110).
        tax_accounted: Total VAT in the accounting currency (BT-111).
        gross: Total with VAT (BT-112).
        paid: What was paid already (BT-113).
        rounding: What the payable amount was rounded by (BT-114).
        payable: What is due (BT-115).
    """

    lines: Decimal | None = None
    allowances: Decimal | None = None
    charges: Decimal | None = None
    net: Decimal | None = None
    tax: Decimal | None = None
    tax_accounted: Decimal | None = None
    gross: Decimal | None = None
    paid: Decimal | None = None
    rounding: Decimal | None = None
    payable: Decimal | None = None


class PaymentInstruction(Struct, frozen=True, kw_only=True):
    """How it is to be paid (BG-16). `account`: where to (BT-84)."""

    code: Text | None = None
    account: Text | None = None


class Invoice(Struct, frozen=True, kw_only=True):
    """An invoice or a credit note.

    Attributes:
        syntax: What the file was written in.
        credit: Whether it is a credit note.
        profile: Identification of the specification that it follows (BT-24).
        number: Its number (BT-1).
        issued: Date of issue (BT-2).
        type: Code of its type (BT-3).
        order: The order it refers to (BT-13).
        malformed: What stands where something else should, such as a word for an amount, or stands there twice.
    """

    syntax: str
    credit: bool
    profile: Text | None = None
    number: Text | None = None
    issued: Text | None = None
    type: Text | None = None
    currency: Text | None = None
    tax_currency: Text | None = None
    due: Text | None = None
    terms: Text | None = None
    tax_point: Text | None = None
    buyer_reference: Text | None = None
    order: Text | None = None
    period: InvoicePeriod | None = None
    seller: InvoiceParty = InvoiceParty()
    buyer: InvoiceParty = InvoiceParty()
    payee: InvoiceParty | None = None
    representative: InvoiceParty | None = None
    delivered: Text | None = None
    delivery_country: Text | None = None
    has_delivery_address: bool = False
    payments: list[PaymentInstruction] = field(default_factory=list[PaymentInstruction])
    allowances: list[AllowanceOrCharge] = field(default_factory=list[AllowanceOrCharge])
    vat: list[VatBreakdown] = field(default_factory=list[VatBreakdown])
    totals: InvoiceTotals = InvoiceTotals()
    has_totals: bool = False
    lines: list[InvoiceLine] = field(default_factory=list[InvoiceLine])
    documents: list[bool] = field(default_factory=list[bool])
    """Whether each supporting document (BG-24) has a reference."""
    earlier: list[bool] = field(default_factory=list[bool])
    """Whether each preceding invoice (BG-3) has a reference."""
    malformed: list[Text] = field(default_factory=list[str])

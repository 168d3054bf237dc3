"""Invoices and credit notes in UBL 2.1: where each business term stands."""

from __future__ import annotations

from remit.connectors.en16931.invoice import (
    AllowanceOrCharge,
    Invoice,
    InvoiceLine,
    InvoiceParty,
    InvoicePeriod,
    InvoiceTotals,
    PaymentInstruction,
    VatBreakdown,
)
from remit.connectors.en16931.picking import Picker
from remit.connectors.en16931.tree import Element

NAMESPACES = {f"urn:oasis:names:specification:ubl:schema:xsd:{name}-2": name for name in ("Invoice", "CreditNote")}
PARTS = frozenset(
    f"urn:oasis:names:specification:ubl:schema:xsd:Common{name}Components-2" for name in ("Aggregate", "Basic")
)


def from_ubl(root: Element) -> Invoice:
    """The invoice of a UBL document."""
    pick, credit = Picker(), root.name == "CreditNote"
    kind = root.name
    tax = _TaxTotals(root, pick)
    totals = pick.one(root, "LegalMonetaryTotal")
    deliveries = list(root.all("Delivery"))
    delivery = deliveries[0] if deliveries else None
    address = pick.one(delivery, "DeliveryLocation", "Address")
    payee, representative = pick.one(root, "PayeeParty"), pick.one(root, "TaxRepresentativeParty")
    due = pick.text(root, "DueDate") or next((e.text for e in root.all("PaymentMeans", "PaymentDueDate")), None)
    return Invoice(
        syntax="UBL",
        credit=credit,
        profile=pick.text(root, "CustomizationID"),
        number=pick.text(root, "ID"),
        issued=pick.text(root, "IssueDate"),
        type=pick.text(root, f"{kind}TypeCode"),
        currency=pick.text(root, "DocumentCurrencyCode"),
        tax_currency=pick.text(root, "TaxCurrencyCode"),
        due=due,
        terms=next((e.text for e in root.all("PaymentTerms", "Note")), None),
        tax_point=pick.text(root, "TaxPointDate"),
        buyer_reference=pick.text(root, "BuyerReference"),
        order=pick.text(root, "OrderReference", "ID"),
        period=_period(next(root.all("InvoicePeriod"), None), pick),
        seller=_party(pick.one(root, "AccountingSupplierParty", "Party"), pick),
        buyer=_party(pick.one(root, "AccountingCustomerParty", "Party"), pick),
        payee=_party(payee, pick) if payee is not None else None,
        representative=_party(representative, pick) if representative is not None else None,
        delivered=pick.text(delivery, "ActualDeliveryDate"),
        delivery_country=pick.text(address, "Country", "IdentificationCode"),
        has_delivery_address=address is not None,
        payments=[_payment(each, pick) for each in root.all("PaymentMeans")],
        allowances=[_allowance(each, pick) for each in root.all("AllowanceCharge")],
        vat=[_breakdown(each, pick) for each in tax.breakdowns],
        totals=_totals(totals, tax, pick),
        has_totals=totals is not None,
        lines=[_line(each, kind, pick) for each in root.all(f"{kind}Line")],
        documents=[pick.text(each, "ID") is not None for each in root.all("AdditionalDocumentReference")],
        earlier=[pick.text(each, "InvoiceDocumentReference", "ID") is not None for each in root.all("BillingReference")],
        malformed=pick.malformed,
    )


class _TaxTotals:
    """The total in the document's currency with its breakdown, and the one in the accounting currency."""

    def __init__(self, root: Element, pick: Picker) -> None:
        currency, accounting = pick.text(root, "DocumentCurrencyCode"), pick.text(root, "TaxCurrencyCode")
        groups = list(root.all("TaxTotal"))
        self.breakdowns = [each for group in groups for each in group.all("TaxSubtotal")]
        self.total: Element | None = None
        self.accounted: Element | None = None
        for group in groups:
            amount = next(group.all("TaxAmount"), None)
            of = amount.attributes.get("currencyID") if amount is not None else None
            if accounting is not None and of == accounting and accounting != currency:
                self.accounted = self.accounted or group
            elif self.total is None:
                self.total = group
            else:
                pick.malformed.append("`TaxTotal` stands there twice in one currency")


def _totals(totals: Element | None, tax: _TaxTotals, pick: Picker) -> InvoiceTotals:
    return InvoiceTotals(
        lines=pick.amount(totals, "LineExtensionAmount"),
        allowances=pick.amount(totals, "AllowanceTotalAmount"),
        charges=pick.amount(totals, "ChargeTotalAmount"),
        net=pick.amount(totals, "TaxExclusiveAmount"),
        tax=pick.amount(tax.total, "TaxAmount"),
        tax_accounted=pick.amount(tax.accounted, "TaxAmount"),
        gross=pick.amount(totals, "TaxInclusiveAmount"),
        paid=pick.amount(totals, "PrepaidAmount"),
        rounding=pick.amount(totals, "PayableRoundingAmount"),
        payable=pick.amount(totals, "PayableAmount"),
    )


def _party(party: Element | None, pick: Picker) -> InvoiceParty:
    if party is None:
        return InvoiceParty()
    registered = {"VAT": None, "other": None} | {
        ("VAT" if pick.text(scheme, "TaxScheme", "ID") == "VAT" else "other"): pick.text(scheme, "CompanyID")
        for scheme in party.all("PartyTaxScheme")
    }
    address = pick.one(party, "PostalAddress")
    return InvoiceParty(
        name=pick.text(party, "PartyLegalEntity", "RegistrationName") or pick.text(party, "PartyName", "Name"),
        vat=registered["VAT"],
        tax=registered["other"],
        legal=pick.text(party, "PartyLegalEntity", "CompanyID"),
        ids=[each.text for each in party.all("PartyIdentification", "ID")],
        has_address=address is not None,
        country=pick.text(address, "Country", "IdentificationCode"),
        endpoint_scheme=(endpoint.attributes.get("schemeID") or "")
        if (endpoint := pick.one(party, "EndpointID")) is not None
        else None,
    )


def _period(period: Element | None, pick: Picker) -> InvoicePeriod | None:
    if period is None:
        return None
    return InvoicePeriod(
        start=pick.text(period, "StartDate"), end=pick.text(period, "EndDate"), code=pick.text(period, "DescriptionCode")
    )


def _payment(means: Element, pick: Picker) -> PaymentInstruction:
    return PaymentInstruction(
        code=pick.text(means, "PaymentMeansCode"), account=pick.text(means, "PayeeFinancialAccount", "ID")
    )


def _allowance(each: Element, pick: Picker) -> AllowanceOrCharge:
    return AllowanceOrCharge(
        charge=pick.text(each, "ChargeIndicator") in ("true", "1"),
        amount=pick.amount(each, "Amount"),
        base=pick.amount(each, "BaseAmount"),
        percent=pick.amount(each, "MultiplierFactorNumeric"),
        reason=next((reason.text for reason in each.all("AllowanceChargeReason")), None),
        reason_code=pick.text(each, "AllowanceChargeReasonCode"),
        category=pick.text(each, "TaxCategory", "ID"),
        rate=pick.amount(each, "TaxCategory", "Percent"),
    )


def _breakdown(each: Element, pick: Picker) -> VatBreakdown:
    category = pick.one(each, "TaxCategory")
    reasons = [pick.text(category, "TaxExemptionReasonCode")]
    reasons += [reason.text for reason in (category.all("TaxExemptionReason") if category is not None else ())]
    return VatBreakdown(
        category=pick.text(category, "ID"),
        rate=pick.amount(category, "Percent"),
        taxable=pick.amount(each, "TaxableAmount"),
        tax=pick.amount(each, "TaxAmount"),
        exempt=" ".join(filter(None, reasons)) or None,
    )


def _line(line: Element, kind: str, pick: Picker) -> InvoiceLine:
    quantity = "CreditedQuantity" if kind == "CreditNote" else "InvoicedQuantity"
    item, price = pick.one(line, "Item"), pick.one(line, "Price")
    classes = item.all("CommodityClassification", "ItemClassificationCode") if item is not None else ()
    properties = item.all("AdditionalItemProperty") if item is not None else ()
    standard = item.all("StandardItemIdentification", "ID") if item is not None else ()
    return InvoiceLine(
        id=pick.text(line, "ID"),
        name=pick.text(item, "Name"),
        description=next((e.text for e in item.all("Description")), None) if item is not None else None,
        quantity=pick.amount(line, quantity),
        unit=pick.attribute(line, "unitCode", quantity),
        net=pick.amount(line, "LineExtensionAmount"),
        price=pick.amount(price, "PriceAmount"),
        price_base=pick.amount(price, "BaseQuantity"),
        gross_price=pick.amount(price, "AllowanceCharge", "BaseAmount"),
        category=pick.text(item, "ClassifiedTaxCategory", "ID"),
        rate=pick.amount(item, "ClassifiedTaxCategory", "Percent"),
        period=_period(pick.one(line, "InvoicePeriod"), pick),
        order_line=pick.text(line, "OrderLineReference", "LineID"),
        allowances=[_allowance(each, pick) for each in line.all("AllowanceCharge")],
        standard_ids=[each.attributes.get("schemeID") or None for each in standard],
        classifications=[each.attributes.get("listID") or None for each in classes],
        attributes=[pick.text(e, "Name") is not None and pick.text(e, "Value") is not None for e in properties],
    )

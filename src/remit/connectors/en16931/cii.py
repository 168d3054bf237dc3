"""Invoices and credit notes in UN/CEFACT Cross Industry Invoice (D16B): where each business term stands."""

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

NAMESPACE = "urn:un:unece:uncefact:data:standard:CrossIndustryInvoice:100"
PARTS = frozenset(
    f"urn:un:unece:uncefact:data:{name}:100"
    for name in (
        "standard:ReusableAggregateBusinessInformationEntity",
        "standard:QualifiedDataType",
        "standard:UnqualifiedDataType",
    )
)
CREDIT_TYPES = frozenset({"81", "83", "261", "262", "296", "308", "381", "396", "420", "458", "532"})
"""Type codes (UNTDID 1001) of documents that take money back."""


def from_cii(root: Element) -> Invoice:
    """The invoice of a Cross Industry Invoice."""
    pick = Picker()
    document = pick.one(root, "ExchangedDocument")
    trade = pick.one(root, "SupplyChainTradeTransaction")
    agreement = pick.one(trade, "ApplicableHeaderTradeAgreement")
    delivery = pick.one(trade, "ApplicableHeaderTradeDelivery")
    settlement = pick.one(trade, "ApplicableHeaderTradeSettlement")
    summation = pick.one(settlement, "SpecifiedTradeSettlementHeaderMonetarySummation")
    representative = pick.one(agreement, "SellerTaxRepresentativeTradeParty")
    payee = pick.one(settlement, "PayeeTradeParty")
    ship_to = pick.one(delivery, "ShipToTradeParty", "PostalTradeAddress")
    type_code = pick.text(document, "TypeCode")
    taxes = list(settlement.all("ApplicableTradeTax")) if settlement is not None else []
    period = _period(pick.one(settlement, "BillingSpecifiedPeriod"), pick, _tax_code(taxes))
    return Invoice(
        syntax="CII",
        credit=type_code in CREDIT_TYPES,
        profile=pick.text(root, "ExchangedDocumentContext", "GuidelineSpecifiedDocumentContextParameter", "ID"),
        number=pick.text(document, "ID"),
        issued=_date(pick.text(document, "IssueDateTime", "DateTimeString")),
        type=type_code,
        currency=pick.text(settlement, "InvoiceCurrencyCode"),
        tax_currency=pick.text(settlement, "TaxCurrencyCode"),
        due=_date(_first(settlement, "SpecifiedTradePaymentTerms", "DueDateDateTime", "DateTimeString")),
        terms=_first(settlement, "SpecifiedTradePaymentTerms", "Description"),
        tax_point=_date(_first(settlement, "ApplicableTradeTax", "TaxPointDate", "DateString")),
        buyer_reference=pick.text(agreement, "BuyerReference"),
        order=pick.text(agreement, "BuyerOrderReferencedDocument", "IssuerAssignedID"),
        period=period,
        seller=_party(pick.one(agreement, "SellerTradeParty"), pick),
        buyer=_party(pick.one(agreement, "BuyerTradeParty"), pick),
        payee=_party(payee, pick) if payee is not None else None,
        representative=_party(representative, pick) if representative is not None else None,
        delivered=_date(
            pick.text(delivery, "ActualDeliverySupplyChainEvent", "OccurrenceDateTime", "DateTimeString")
        ),
        delivery_country=pick.text(ship_to, "CountryID"),
        has_delivery_address=ship_to is not None,
        payments=[_payment(e, pick) for e in _all(settlement, "SpecifiedTradeSettlementPaymentMeans")],
        allowances=[_allowance(each, pick) for each in _all(settlement, "SpecifiedTradeAllowanceCharge")],
        vat=[_breakdown(each, pick) for each in taxes],
        totals=_totals(settlement, summation, pick),
        has_totals=summation is not None,
        lines=[_line(each, pick) for each in _all(trade, "IncludedSupplyChainTradeLineItem")],
        documents=[pick.text(e, "IssuerAssignedID") is not None for e in _all(agreement, "AdditionalReferencedDocument")],
        earlier=[pick.text(e, "IssuerAssignedID") is not None for e in _all(settlement, "InvoiceReferencedDocument")],
        malformed=pick.malformed,
    )


def _all(element: Element | None, *path: str) -> list[Element]:
    return list(element.all(*path)) if element is not None else []


def _first(element: Element | None, *path: str) -> str | None:
    """The first of several that may stand there."""
    return next((found.text or None for found in _all(element, *path)), None)


def _date(text: str | None) -> str | None:
    """`20260105` (format 102) as `2026-01-05`; anything else as it stands."""
    if text is not None and len(text) == 8 and text.isascii() and text.isdigit():
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    return text


def _tax_code(taxes: list[Element]) -> str | None:
    return next((found.text for tax in taxes for found in tax.all("DueDateTypeCode")), None)


def _period(period: Element | None, pick: Picker, code: str | None = None) -> InvoicePeriod | None:
    if period is None and code is None:
        return None
    return InvoicePeriod(
        start=_date(pick.text(period, "StartDateTime", "DateTimeString")),
        end=_date(pick.text(period, "EndDateTime", "DateTimeString")),
        code=code,
    )


def _party(party: Element | None, pick: Picker) -> InvoiceParty:
    registered = {each.attributes.get("schemeID"): each.text for each in _all(party, "SpecifiedTaxRegistration", "ID")}
    address = pick.one(party, "PostalTradeAddress")
    endpoint = pick.one(party, "URIUniversalCommunication", "URIID")
    ids = [*_all(party, "ID"), *_all(party, "GlobalID")]
    return InvoiceParty(
        name=pick.text(party, "Name"),
        vat=registered.get("VA") or registered.get("VAT"),
        tax=registered.get("FC"),
        legal=pick.text(party, "SpecifiedLegalOrganization", "ID"),
        ids=[each.text for each in ids],
        has_address=address is not None,
        country=pick.text(address, "CountryID"),
        endpoint_scheme=(endpoint.attributes.get("schemeID") or "") if endpoint is not None else None,
    )


def _payment(means: Element, pick: Picker) -> PaymentInstruction:
    account = pick.one(means, "PayeePartyCreditorFinancialAccount")
    return PaymentInstruction(
        code=pick.text(means, "TypeCode"), account=pick.text(account, "IBANID") or pick.text(account, "ProprietaryID")
    )


def _allowance(each: Element, pick: Picker) -> AllowanceOrCharge:
    return AllowanceOrCharge(
        charge=pick.text(each, "ChargeIndicator", "Indicator") in ("true", "1"),
        amount=pick.amount(each, "ActualAmount"),
        base=pick.amount(each, "BasisAmount"),
        percent=pick.amount(each, "CalculationPercent"),
        reason=pick.text(each, "Reason"),
        reason_code=pick.text(each, "ReasonCode"),
        category=pick.text(each, "CategoryTradeTax", "CategoryCode"),
        rate=pick.amount(each, "CategoryTradeTax", "RateApplicablePercent"),
    )


def _breakdown(each: Element, pick: Picker) -> VatBreakdown:
    reasons = [pick.text(each, "ExemptionReasonCode"), pick.text(each, "ExemptionReason")]
    return VatBreakdown(
        category=pick.text(each, "CategoryCode"),
        rate=pick.amount(each, "RateApplicablePercent"),
        taxable=pick.amount(each, "BasisAmount"),
        tax=pick.amount(each, "CalculatedAmount"),
        exempt=" ".join(filter(None, reasons)) or None,
    )


def _totals(settlement: Element | None, summation: Element | None, pick: Picker) -> InvoiceTotals:
    currency, accounting = pick.text(settlement, "InvoiceCurrencyCode"), pick.text(settlement, "TaxCurrencyCode")
    tax = accounted = None
    for each in _all(summation, "TaxTotalAmount"):
        group = Element("", "", {})
        group.children = [each]
        amount = pick.amount(group, "TaxTotalAmount")
        of = each.attributes.get("currencyID")
        if accounting is not None and of == accounting and accounting != currency:
            accounted = amount
        elif tax is None:
            tax = amount
        else:
            pick.malformed.append("`TaxTotalAmount` stands there twice in one currency")
    return InvoiceTotals(
        lines=pick.amount(summation, "LineTotalAmount"),
        allowances=pick.amount(summation, "AllowanceTotalAmount"),
        charges=pick.amount(summation, "ChargeTotalAmount"),
        net=pick.amount(summation, "TaxBasisTotalAmount"),
        tax=tax,
        tax_accounted=accounted,
        gross=pick.amount(summation, "GrandTotalAmount"),
        paid=pick.amount(summation, "TotalPrepaidAmount"),
        rounding=pick.amount(summation, "RoundingAmount"),
        payable=pick.amount(summation, "DuePayableAmount"),
    )


def _line(line: Element, pick: Picker) -> InvoiceLine:
    product = pick.one(line, "SpecifiedTradeProduct")
    agreement = pick.one(line, "SpecifiedLineTradeAgreement")
    delivery = pick.one(line, "SpecifiedLineTradeDelivery")
    settlement = pick.one(line, "SpecifiedLineTradeSettlement")
    return InvoiceLine(
        id=pick.text(line, "AssociatedDocumentLineDocument", "LineID"),
        name=pick.text(product, "Name"),
        description=pick.text(product, "Description"),
        quantity=pick.amount(delivery, "BilledQuantity"),
        unit=pick.attribute(delivery, "unitCode", "BilledQuantity"),
        net=pick.amount(settlement, "SpecifiedTradeSettlementLineMonetarySummation", "LineTotalAmount"),
        price=pick.amount(agreement, "NetPriceProductTradePrice", "ChargeAmount"),
        price_base=pick.amount(agreement, "NetPriceProductTradePrice", "BasisQuantity"),
        gross_price=pick.amount(agreement, "GrossPriceProductTradePrice", "ChargeAmount"),
        category=pick.text(settlement, "ApplicableTradeTax", "CategoryCode"),
        rate=pick.amount(settlement, "ApplicableTradeTax", "RateApplicablePercent"),
        period=_period(pick.one(settlement, "BillingSpecifiedPeriod"), pick),
        order_line=pick.text(agreement, "BuyerOrderReferencedDocument", "LineID"),
        allowances=[_allowance(each, pick) for each in _all(settlement, "SpecifiedTradeAllowanceCharge")],
        standard_ids=[each.attributes.get("schemeID") or None for each in _all(product, "GlobalID")],
        classifications=[
            each.attributes.get("listID") or None for each in _all(product, "DesignatedProductClassification", "ClassCode")
        ],
        attributes=[
            pick.text(e, "Description") is not None and pick.text(e, "Value") is not None
            for e in _all(product, "ApplicableProductCharacteristic")
        ],
    )

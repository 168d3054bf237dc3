"""Everything that the standard's rules say against an invoice."""

from __future__ import annotations

from remit.connectors.en16931.invoice import Invoice
from remit.connectors.en16931.rules import RULES, InvoiceFinding
from remit.connectors.en16931.vat_rules import CATEGORIES, VAT_RULES

MALFORMED = "FORMAT"
"""The name under which is said what stands where something else should."""
OF_CATEGORIES = frozenset(f"{c.rule}-{number:02}" for c in CATEGORIES.values() for number in range(1, 11))


def findings(invoice: Invoice) -> list[InvoiceFinding]:
    """What breaks a rule, each finding once, in the order of the rules."""
    found = [InvoiceFinding(MALFORMED, said) for said in invoice.malformed]
    found += [finding for rule in (*RULES, *VAT_RULES) for finding in rule(invoice)]
    return list(dict.fromkeys(found))

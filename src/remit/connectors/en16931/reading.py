"""From a file to an invoice, in whichever of the two syntaxes it is written."""

from __future__ import annotations

from remit.connectors.en16931 import cii, ubl
from remit.connectors.en16931.invoice import Invoice
from remit.connectors.en16931.tree import InvoiceUnreadable, parse_tree

_NAMESPACES = frozenset({*ubl.NAMESPACES, *ubl.PARTS, cii.NAMESPACE, *cii.PARTS})


def read_invoice(data: bytes) -> Invoice:
    """The invoice in a file. Raises `InvoiceUnreadable`: as `parse_tree` does, and `not_an_invoice` for other XML.

    Whether it keeps the rules of the standard is for `rules.findings` to say.
    """
    root = parse_tree(data, _NAMESPACES)
    if ubl.NAMESPACES.get(root.namespace) == root.name:
        return ubl.from_ubl(root)
    if (root.namespace, root.name) == (cii.NAMESPACE, "CrossIndustryInvoice"):
        return cii.from_cii(root)
    known = "a UBL `Invoice` or `CreditNote`, or a `CrossIndustryInvoice`"
    raise InvoiceUnreadable(f"the file holds `{root.name[:100]}`, and not {known}", code="not_an_invoice")

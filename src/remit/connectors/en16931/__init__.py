"""Electronic invoices of the European standard EN 16931, in UBL 2.1 and in UN/CEFACT CII.

`reading.read_invoice` makes an `Invoice` of a file; `rules.findings` says which of the standard's rules it breaks.
"""

"""Connectors: one folder for each system of record that Remit acts on."""

"""Backtests: every recorded call decided again under other terms, with no I/O but reading the journal."""

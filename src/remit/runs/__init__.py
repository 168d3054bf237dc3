"""Runs: one execution of a contract for one request; the events in the journal are the only truth about it."""

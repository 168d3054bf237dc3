"""Projections of the record that leave the building: files, traces, security events, metrics."""

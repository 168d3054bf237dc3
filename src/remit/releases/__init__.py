"""Releases: what shapes behaviour, content-addressed, and who said that it may run."""

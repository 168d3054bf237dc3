"""The demonstration: real tickets on a live tracker, triaged under a contract."""

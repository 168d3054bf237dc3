"""The journal: the append-only record that is audit trail, crash recovery and replay at once."""

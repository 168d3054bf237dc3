"""What Alembic runs: always on a connection that `storage.migrate` has opened and locked."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["metadata"],
    # One transaction for all, opened and committed by the caller.
    transactional_ddl=False,
    transaction_per_migration=False,
)
context.run_migrations()

"""What orders the queue of runs: priority, when a run is taken up again by itself, how often it came to nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_WAITS_UNTIL = (
    "UPDATE runs SET wake_at = COALESCE((SELECT MIN(expires_at) FROM cases WHERE cases.run = runs.run"
    " AND cases.kind = 'approval' AND cases.status = 'open'), 0) WHERE status = 'held'"
)


def upgrade() -> None:
    op.add_column("runs", sa.Column("priority", sa.Integer, nullable=False, server_default="2"))
    op.add_column("runs", sa.Column("wake_at", sa.BigInteger))
    op.add_column("runs", sa.Column("tries", sa.Integer, nullable=False, server_default="0"))
    op.create_index("runs_queue", "runs", ["tenant", "status", "contract", "priority", "opened_at"])
    op.create_index("runs_wake", "runs", ["tenant", "status", "wake_at"])
    op.execute(_WAITS_UNTIL)

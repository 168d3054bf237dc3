"""How long each run is kept, by the contract that it began under."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("runs", sa.Column("retention_us", sa.BigInteger))
    op.add_column("runs", sa.Column("erase_after_us", sa.BigInteger))

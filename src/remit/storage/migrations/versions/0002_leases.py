"""Leases by the database's clock, request keys that are bound to their request, and which database this is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("runs", sa.Column("request_digest", sa.Text, nullable=False, server_default=sa.text("''")))
    op.add_column("runs", sa.Column("elsewhere", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("runs", sa.Column("claims", sa.Integer, nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("held_at", sa.BigInteger))
    op.add_column("runs", sa.Column("trouble", sa.Text))
    op.create_table(
        "about",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )

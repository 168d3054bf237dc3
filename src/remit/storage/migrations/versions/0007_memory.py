"""What agents are given to read: documents, their versions and readers, and which runs have read what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "memory_documents",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("document", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("region", sa.Text, nullable=False),
        sa.Column("current", sa.Integer),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("forgotten_at", sa.BigInteger),
    )
    op.create_table(
        "memory_keys",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("document", sa.Text, primary_key=True),
        sa.Column("body_key", sa.LargeBinary),
    )
    op.create_table(
        "memory_readers",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("reader", sa.Text, primary_key=True),
        sa.Column("document", sa.Text, primary_key=True),
    )
    op.create_index("memory_readers_document", "memory_readers", ["tenant", "document"])
    _versions()
    op.create_table(
        "memory_reads",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("document", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("step", sa.Text, primary_key=True),
    )
    op.create_table(
        "memory_changes",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("changes", sa.BigInteger, nullable=False),
    )


def _versions() -> None:
    op.create_table(
        "memory_versions",
        sa.Column("id", _sequence, primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("classes", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("valid_until", sa.BigInteger),
        sa.Column("embedding", sa.Text, nullable=False),
        sa.Column("chunks", sa.Integer, nullable=False),
        sa.Column("written_at", sa.BigInteger, nullable=False),
        sa.Column("written_by", sa.Text, nullable=False),
        sa.Column("run", sa.Text),
        sa.Column("step", sa.Text),
        sa.Column("key", sa.Text),
        sa.Column("recalled_at", sa.BigInteger),
        sa.Column("content", sa.LargeBinary),
        sa.Column("findable", sa.LargeBinary),
        sa.UniqueConstraint("tenant", "document", "version", name="memory_versions_version"),
        sa.UniqueConstraint("tenant", "key", name="memory_versions_key"),
    )

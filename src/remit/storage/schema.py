"""The tables, for queries; `migrations/` is what creates them, and a test holds the two together.

Times are integers, microseconds since the epoch (UTC). Content hashes are lower-case hex SHA-256.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
    true,
)

metadata = MetaData()

# SQLite gives an ever-growing rowid only to `INTEGER PRIMARY KEY`.
_Sequence = BigInteger().with_variant(Integer, "sqlite")

events = Table(
    "events",
    metadata,
    Column("seq", _Sequence, primary_key=True, autoincrement=True),
    Column("tenant", Text, nullable=False),
    Column("run", Text, nullable=False),
    Column("n", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("header", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("sealed", LargeBinary),
    # The fence: two workers that both believe they own a run collide here.
    UniqueConstraint("run", "n", name="events_run_n"),
    sqlite_autoincrement=True,
)

run_keys = Table(
    "run_keys",
    metadata,
    Column("run", Text, primary_key=True),
    Column("body_key", LargeBinary),
    Column("sealed_key", LargeBinary),
)

runs = Table(
    "runs",
    metadata,
    Column("run", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("contract", Text, nullable=False),
    Column("release", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("outcome", Text),
    # Keyed hashes: a key may hold an address, and a request can be guessed.
    Column("request_key", Text, nullable=False),
    Column("request_digest", Text, nullable=False, server_default=text("''")),
    Column("opened_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    # The lease: the token of one drive or session, and until when it lasts by the database's clock.
    Column("worker", Text),
    Column("lease_until", BigInteger),
    # How often the lease was taken, and when somebody last held it, by that worker's clock.
    Column("claims", Integer, nullable=False, server_default="0"),
    Column("held_at", BigInteger),
    # Its agent lives elsewhere and comes back by itself; no worker takes it up.
    Column("elsewhere", Boolean, nullable=False, server_default=false()),
    # Why it could not go on when somebody last tried.
    Column("trouble", Text),
    # How long after its closing its originals are kept, and when the whole run is erased, by the contract it began
    # under, in microseconds. NULL for a run that was opened before this was noted; for the second also: never.
    Column("retention_us", BigInteger),
    Column("erase_after_us", BigInteger),
    # The queue: how urgent (0 first), when it is taken up again by itself, how often in a row it came to nothing.
    Column("priority", Integer, nullable=False, server_default="2"),
    Column("wake_at", BigInteger),
    Column("tries", Integer, nullable=False, server_default="0"),
    UniqueConstraint("tenant", "contract", "request_key", name="runs_request"),
    Index("runs_status", "status", "lease_until"),
    Index("runs_queue", "tenant", "status", "contract", "priority", "opened_at"),
    Index("runs_wake", "tenant", "status", "wake_at"),
)

cases = Table(
    "cases",
    metadata,
    Column("case", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("run", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("roles", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("due_at", BigInteger),
    Column("expires_at", BigInteger),
    Column("decided_at", BigInteger),
    Column("decided_by", Text),
    Index("cases_status", "tenant", "status", "opened_at"),
    Index("cases_run", "run"),
)

meters = Table(
    "meters",
    metadata,
    Column("meter", Text, primary_key=True),
    Column("state", LargeBinary, nullable=False),
)

principals = Table(
    "principals",
    metadata,
    Column("principal", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("enabled", Boolean, nullable=False, server_default=true()),
    Column("updated_at", BigInteger, nullable=False),
)

releases = Table(
    "releases",
    metadata,
    Column("release", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("contract", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("approved_by", Text),
    Column("approved_at", BigInteger),
    Column("bundle", LargeBinary, nullable=False),
)

sources = Table(
    "sources",
    metadata,
    # Texts that releases name by their SHA-256: code and tool specs, encrypted under the master key.
    Column("digest", Text, primary_key=True),
    Column("text", LargeBinary, nullable=False),
)

trees = Table(
    "trees",
    metadata,
    # The Merkle tree over a tenant's events: how far it goes, and its newest checkpoint. docs/record.md says more.
    Column("tenant", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)

tiles = Table(
    "tiles",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("level", Integer, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("hashes", LargeBinary, nullable=False),
    # On level 0: the first of its events.
    Column("first_seq", BigInteger),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("size", BigInteger, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
)

memory_documents = Table(
    "memory_documents",
    metadata,
    # What stays of a document once it is forgotten is this row: a tombstone.
    Column("tenant", Text, primary_key=True),
    Column("document", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("region", Text, nullable=False),
    # The newest version that was not recalled, the only one that can be retrieved; NULL where there is none.
    Column("current", Integer),
    Column("created_at", BigInteger, nullable=False),
    Column("forgotten_at", BigInteger),
)

memory_keys = Table(
    "memory_keys",
    metadata,
    # What all versions of a document are encrypted under, wrapped; NULL once it is forgotten.
    Column("tenant", Text, primary_key=True),
    Column("document", Text, primary_key=True),
    Column("body_key", LargeBinary),
)

memory_readers = Table(
    "memory_readers",
    metadata,
    # Who may read a document: `agent/…`, `person/…`, `role:…`. Whoever isn't here may not.
    Column("tenant", Text, primary_key=True),
    Column("reader", Text, primary_key=True),
    Column("document", Text, primary_key=True),
    Index("memory_readers_document", "tenant", "document"),
)

memory_versions = Table(
    "memory_versions",
    metadata,
    Column("id", _Sequence, primary_key=True, autoincrement=True),
    Column("tenant", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("label", Text, nullable=False),
    Column("classes", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("valid_until", BigInteger),
    # Name and version of what made its vectors.
    Column("embedding", Text, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("written_at", BigInteger, nullable=False),
    Column("written_by", Text, nullable=False),
    Column("run", Text),
    Column("step", Text),
    # The idempotency key of the call that wrote it; two attempts of one call collide here.
    Column("key", Text),
    Column("recalled_at", BigInteger),
    # Text, and words and vectors; both encrypted under the document's key.
    Column("content", LargeBinary),
    Column("findable", LargeBinary),
    UniqueConstraint("tenant", "document", "version", name="memory_versions_version"),
    UniqueConstraint("tenant", "key", name="memory_versions_key"),
)

memory_reads = Table(
    "memory_reads",
    metadata,
    # Which step of which run was given what, written with the event that says so.
    Column("tenant", Text, primary_key=True),
    Column("document", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("run", Text, primary_key=True),
    Column("step", Text, primary_key=True),
)

memory_changes = Table(
    "memory_changes",
    metadata,
    # Grows with every change, so that whoever keeps something in its memory knows when to look again.
    Column("tenant", Text, primary_key=True),
    Column("changes", BigInteger, nullable=False),
)

about = Table(
    "about",
    metadata,
    # Which database this is, and which keys it was written with.
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

__all__ = [
    "about",
    "cases",
    "checkpoints",
    "events",
    "memory_changes",
    "memory_documents",
    "memory_keys",
    "memory_readers",
    "memory_reads",
    "memory_versions",
    "metadata",
    "meters",
    "principals",
    "releases",
    "run_keys",
    "runs",
    "sources",
    "tiles",
    "trees",
]

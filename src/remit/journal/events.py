"""Events: what the journal holds. A small header that is hashed and chained, and a body that is encrypted.

Nothing personal stands in a header: people appear there as pseudonyms. The body is redacted before it gets here; the
originals that an open run needs are `sealed` beside it under a second key, so that they can be dropped first.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from enum import StrEnum
from typing import cast

import msgspec

from remit.errors import StorageError
from remit.journal.vault import RunKeys
from remit.values import Json, encode


class EventType(StrEnum):
    """Every type of event there is."""

    RUN_OPENED = "run.opened"
    RUN_RESUMED = "run.resumed"
    RUN_CLOSED = "run.closed"
    CALL_DECIDED = "call.decided"
    CALL_COMPLETED = "call.completed"
    CALL_FAILED = "call.failed"
    CALL_UNKNOWN = "call.unknown"
    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_DECIDED = "approval.decided"
    CASE_OPENED = "case.opened"
    CASE_DECIDED = "case.decided"
    CASE_REVEALED = "case.revealed"
    """A person who may decide a case was shown what is redacted for everybody else."""
    PRINCIPAL_CHANGED = "principal.changed"
    """Register: a principal was disabled, or enabled again."""
    KEY_REVOKED = "key.revoked"
    """Register: a key that signs tokens was revoked; no token that it signed verifies any more."""
    RELEASE_APPROVED = "release.approved"
    """Register: a person approved a release."""
    RUN_ERASED = "run.erased"
    """Register: the keys of a run were destroyed, and with them what it said."""
    ORIGINALS_DROPPED = "originals.dropped"
    """Register: the originals of a run were destroyed after their retention; what is redacted stays."""
    HOLD_PLACED = "hold.placed"
    """Register: a legal hold keeps runs from being erased."""
    HOLD_LIFTED = "hold.lifted"
    """Register: a legal hold is over."""
    VALUE_REVEALED = "value.revealed"
    """Register: a person was shown originals of a run."""
    DEED_DENIED = "deed.denied"
    """Register: a person asked for something of the record that `record.cedar` does not let them do."""
    RUN_REPLAYED = "run.replayed"
    """Register: runs were replayed or judged anew; that never counts in any metric."""
    RECORD_EXPORTED = "record.exported"
    """Register: the record, or part of it, was copied out."""
    DOCUMENT_ADDED = "document.added"
    """Register: a person added a document to memory, or a version of one."""
    DOCUMENT_RECALLED = "document.recalled"
    """Register: a person recalled a document, or versions of it; no run is given it any more."""
    DOCUMENT_FORGOTTEN = "document.forgotten"
    """Register: what a document said was destroyed."""
    CONTEXT_RETRIEVED = "context.retrieved"
    """Which chunks of which versions of documents a call was given."""
    RECORD_RESTORED = "record.restored"
    """Register: the database was restored from a backup that is older than what was published."""
    RECORD_COMPARED = "record.compared"
    """Register: the record was held against the changes that a system of record lists."""
    VALUE_RECORDED = "value.recorded"
    """Something else that is not deterministic: the time, an id, a random number."""


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is hashed: `hash = SHA-256(0x00 || header bytes)`, the leaf hash of RFC 6962, section 2.1.

    `prev`: hash of the run's previous event, hex; empty for the first. `at`: microseconds since the epoch, UTC.
    `span`, `parent`: the step's deterministic path, such as `3.1`. `body`: SHA-256 of salt and plain body, hex.
    `sealed`: the same of the originals; empty where there are none. docs/record.md is the specification.
    """

    v: int
    tenant: str
    run: str
    n: int
    prev: str
    at: int
    type: str
    actor: str
    body: str
    sealed: str = ""
    span: str = ""
    parent: str = ""
    refs: dict[str, str] = {}
    verdict: str = ""
    cost_microusd: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    latency_us: int = 0


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """An event before the journal has given it its place. `body` is redacted; `sealed` holds originals, if any."""

    type: EventType
    actor: str
    body: Json
    sealed: Json = None
    span: str = ""
    refs: dict[str, str] = {}
    verdict: str = ""
    cost_microusd: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    latency_us: int = 0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """An event as the table `events` holds it."""

    tenant: str
    run: str
    n: int
    type: str
    at: int
    hash: bytes
    header: bytes
    body: bytes
    sealed: bytes | None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it is read back: the header, and the body if the run's key still exists."""

    header: Header
    hash: bytes
    body: Json
    sealed: Json = None

    @property
    def type(self) -> EventType:
        return EventType(self.header.type)


OF_REGISTER = frozenset(
    {
        EventType.PRINCIPAL_CHANGED,
        EventType.KEY_REVOKED,
        EventType.RELEASE_APPROVED,
        EventType.RUN_ERASED,
        EventType.ORIGINALS_DROPPED,
        EventType.HOLD_PLACED,
        EventType.HOLD_LIFTED,
        EventType.VALUE_REVEALED,
        EventType.DEED_DENIED,
        EventType.RUN_REPLAYED,
        EventType.RECORD_EXPORTED,
        EventType.DOCUMENT_ADDED,
        EventType.DOCUMENT_RECALLED,
        EventType.DOCUMENT_FORGOTTEN,
        EventType.RECORD_RESTORED,
        EventType.RECORD_COMPARED,
    }
)
"""Types that stand on a tenant's register, never in a run."""

UNDOES, IMPORTED, TRACEPARENT = "undoes", "imported", "traceparent"
"""What `run.opened` refers to beside release and policy, and says also when its body was erased: the run that this one
undoes, by which importer it was brought in, and the caller's span (W3C Trace Context)."""

AFTERWARDS = frozenset(
    {
        EventType.CASE_DECIDED,
        EventType.CASE_REVEALED,
        EventType.RUN_ERASED,
        EventType.ORIGINALS_DROPPED,
        EventType.HOLD_PLACED,
        EventType.HOLD_LIFTED,
        EventType.VALUE_REVEALED,
    }
)
"""Types that may come when a run has ended: in its own chain, or on the register with the run in `refs.run`."""

OUTCOMES: Mapping[EventType, str] = {
    EventType.CALL_COMPLETED: "completed",
    EventType.CALL_FAILED: "failed",
    EventType.CALL_UNKNOWN: "unknown",
}
"""The types that say what became of a call that was carried out, and how that is called."""

REFUSED: Mapping[str, str] = {"deny": "denied", "reject": "rejected", "hold": "held", "defer": "deferred"}
"""What became of a call that was not carried out, by the verdict on it."""

SALT_BYTES = 16
"""What stands before the text of a body, so that nobody can try texts against its hash."""
_TYPES = frozenset(EventType)
_encode_header = msgspec.json.Encoder(order="sorted").encode
_decode_header = msgspec.json.Decoder(Header).decode


class ChainEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run's chain ends: the next position and the hash of the event before it."""

    n: int
    prev: bytes


START = ChainEnd(n=1, prev=b"")


def after(event: Event) -> ChainEnd:
    """The end of a chain whose last event this is."""
    return ChainEnd(n=event.header.n + 1, prev=event.hash)


def leaf_hash(header: bytes) -> bytes:
    """The Merkle leaf hash of an event (RFC 6962, section 2.1)."""
    return hashlib.sha256(b"\x00" + header).digest()


def write(draft: Draft, *, tenant: str, run: str, behind: ChainEnd, at: int, keys: RunKeys) -> Row:
    """Give a draft its place in the chain: salt, hash and encrypt the body, encode and hash the header."""
    body = draft.body
    if draft.type is EventType.RUN_CLOSED and isinstance(body, dict):
        # Only here is it certain: decisions of people may have come in since the draft was made.
        body = cast("dict[str, Json]", body) | {"events": behind.n}
    salted = os.urandom(SALT_BYTES) + encode(body)
    sealed = b"" if draft.sealed is None else os.urandom(SALT_BYTES) + encode(draft.sealed)
    header = _encode_header(
        Header(
            v=1,
            tenant=tenant,
            run=run,
            n=behind.n,
            prev=behind.prev.hex(),
            at=at,
            type=draft.type,
            actor=draft.actor,
            body=hashlib.sha256(salted).hexdigest(),
            sealed=hashlib.sha256(sealed).hexdigest() if sealed else "",
            span=draft.span,
            parent=draft.span.rpartition(".")[0],
            refs=draft.refs,
            verdict=draft.verdict,
            cost_microusd=draft.cost_microusd,
            tokens_in=draft.tokens_in,
            tokens_out=draft.tokens_out,
            latency_us=draft.latency_us,
        )
    )
    return Row(
        tenant=tenant,
        run=run,
        n=behind.n,
        type=draft.type,
        at=at,
        hash=leaf_hash(header),
        header=header,
        body=keys.encrypt_body(salted, run, behind.n),
        sealed=keys.encrypt_sealed(sealed, run, behind.n) if sealed else None,
    )


def read(row: Row, keys: RunKeys) -> Event:
    """Decode a row and check that header, hash, columns and body belong together.

    Raises `StorageError` (code `record_corrupt`) where they don't.
    """
    header = checked_header(row)
    salted = salted_body(row, header, keys)
    sealed = None if row.sealed is None else keys.decrypt_sealed(row.sealed, row.run, row.n)
    kept = "" if row.sealed is None else header.sealed if sealed is None else hashlib.sha256(sealed).hexdigest()
    if kept != header.sealed:
        raise corrupt(row, "its originals are not the ones that its header names")
    return Event(
        header=header,
        hash=row.hash,
        body=None if salted is None else msgspec.json.decode(salted[SALT_BYTES:]),
        sealed=None if sealed is None else msgspec.json.decode(sealed[SALT_BYTES:]),
    )


def salted_body(row: Row, header: Header, keys: RunKeys) -> bytes | None:
    """Salt and text of a row's body, or `None` where its key was destroyed. Raises `StorageError` as `read` does."""
    salted = keys.decrypt_body(row.body, row.run, row.n)
    if salted is not None and hashlib.sha256(salted).hexdigest() != header.body:
        raise corrupt(row, "its body is not the one that its header names")
    return salted


def plain_body(row: Row, header: Header, keys: RunKeys) -> bytes | None:
    """The body as it was encoded, redacted; `None` where its key was destroyed. Raises as `read` does."""
    salted = salted_body(row, header, keys)
    return None if salted is None else salted[SALT_BYTES:]


def checked_header(row: Row) -> Header:
    """The header of a row whose hash and columns belong to it. Raises `StorageError` as `read` does."""
    if leaf_hash(row.header) != row.hash:
        raise corrupt(row, "its header does not hash to the recorded hash")
    try:
        header = _decode_header(row.header)
    except msgspec.DecodeError as error:
        raise corrupt(row, f"its header can't be read: {error}") from error
    columns = (row.tenant, row.run, row.n, row.type, row.at)
    if columns != (header.tenant, header.run, header.n, header.type, header.at):
        raise corrupt(row, "its columns disagree with its header")
    if header.type not in _TYPES:
        raise corrupt(row, f"its type `{header.type}` is not known")
    return header


def corrupt(row: Row, why: str) -> StorageError:
    """The error that names a damaged event and what is wrong with it."""
    return StorageError(
        f"event {row.n} of run `{row.run}` is corrupt: {why}; restore the database from a backup",
        code="record_corrupt",
    )

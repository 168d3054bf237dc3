"""The record as lines: `record`, which verifies without the database, and `jsonl`, one event a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from remit.contracts.schema import Schema
from remit.journal.events import EventType, Header
from remit.journal.leaves import Leaf

_json = msgspec.json.Encoder().encode


def record_lines(leaves: Iterable[Leaf], *, tenant: str, journal: str, keys: Sequence[str], note: str) -> Iterator[bytes]:
    """The exported file of docs/record.md, a line at a time. `note`: the checkpoint that the leaves go up to."""
    yield _json({"record": 1, "tenant": tenant, "journal": journal, "keys": keys, "checkpoint": note})
    events = 0
    for leaf in leaves:
        salt, text = leaf.salt, leaf.text
        yield _json(
            {
                "seq": leaf.seq,
                "header": leaf.header_text.decode(),
                "salt": None if salt is None else salt.hex(),
                "body": None if text is None else text.decode(),
            }
        )
        events += 1
    yield _json({"end": True, "events": events})


def event_line(leaf: Leaf) -> bytes:
    """One event as JSON that meets `event_schema`; header and body are byte for byte what was hashed."""
    body = b"null" if leaf.text is None else leaf.text
    return b'{"seq":%d,"hash":"%s","header":%s,"body":%s}' % (leaf.seq, leaf.hash.hex().encode(), leaf.header_text, body)


_TEXT: Mapping[str, Any] = {"type": "string"}
_HASH: Mapping[str, Any] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_LIST: Mapping[str, Any] = {"type": "array"}
_CALL = {"tool": _TEXT, "code": _TEXT, "message": _TEXT}

_BODIES: Mapping[EventType, Mapping[str, Any]] = {
    EventType.RUN_OPENED: {"contract": _TEXT, "request": {}, "on_behalf_of": {"type": ["string", "null"]}},
    EventType.RUN_RESUMED: {"idle_us": {"type": ["integer", "null"]}},
    EventType.RUN_CLOSED: {"outcome": _TEXT, "output": {}, "reason": _TEXT, "events": {"type": "integer", "minimum": 1}},
    EventType.CALL_DECIDED: {
        "tool": _TEXT,
        "args": {},
        "facts": {},
        "resource": {"type": ["object", "null"]},
        "args_digest": _TEXT,
        "labels": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
        "classes": _LIST,
        "fields": _LIST,
        "demand": _LIST,
        "reserved": _LIST,
        "verdict": {"type": "object", "required": ["kind"]},
        "key": _TEXT,
    },
    EventType.CALL_COMPLETED: {"tool": _TEXT, "result": {}},
    EventType.CALL_FAILED: _CALL,
    EventType.CALL_UNKNOWN: _CALL,
    EventType.APPROVAL_REQUESTED: {"case": _TEXT, "roles": _LIST, "expires_at": {"type": "integer"}, "shown": {"type": "object"}},
    EventType.APPROVAL_DECIDED: {"case": _TEXT, "decision": {"enum": ["approved", "denied"]}, "by": _TEXT, "reason": _TEXT},
    EventType.CASE_OPENED: {"case": _TEXT, "kind": _TEXT, "queue": _TEXT, "reason": _TEXT},
    EventType.CASE_DECIDED: {"case": _TEXT, "decision": _TEXT, "by": _TEXT, "reason": _TEXT},
    EventType.CASE_REVEALED: {"case": _TEXT, "by": _TEXT},
    EventType.CONTEXT_RETRIEVED: {"tool": _TEXT, "chunks": _LIST},
    EventType.DOCUMENT_ADDED: {"document": _TEXT, "version": {"type": "integer"}, "by": _TEXT},
    EventType.DOCUMENT_RECALLED: {"document": _TEXT, "versions": _LIST, "by": _TEXT, "reason": _TEXT},
    EventType.DOCUMENT_FORGOTTEN: {"document": _TEXT, "by": _TEXT, "reason": _TEXT},
    EventType.VALUE_RECORDED: {"kind": _TEXT, "value": {}},
    EventType.RECORD_EXPORTED: {"format": _TEXT, "to": _TEXT, "selection": {"type": "object"}},
    EventType.KEY_REVOKED: {"key": _TEXT, "by": _TEXT, "reason": _TEXT},
    EventType.DEED_DENIED: {"deed": _TEXT, "run": _TEXT, "by": _TEXT, "why": _TEXT, "reason": _TEXT, "classes": _LIST},
    EventType.RECORD_RESTORED: {"by": _TEXT, "reason": _TEXT, "lost": {"type": ["object", "null"]}},
    EventType.RECORD_COMPARED: {"against": _TEXT, "account": _TEXT, "since": {"type": "integer"}},
}
"""What the bodies hold that consumers may count on; they may hold more, and those of other types are objects."""


def event_schema() -> Schema:
    """The JSON Schema (2020-12) of a line of `jsonl` (`remit schema event`)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Remit event",
        "description": "An event of the record as `remit export --format jsonl` prints it; bodies are redacted, and null"
        " where they were erased.",
        "type": "object",
        "properties": {
            "seq": {"type": "integer", "minimum": 1, "description": "position in the record; ascending, gaps are allowed"},
            "hash": {**_HASH, "description": "SHA-256 of 0x00 and the header, the leaf hash of RFC 6962"},
            "header": _header_schema(),
            "body": {"type": ["object", "null"]},
        },
        "required": ["seq", "hash", "header", "body"],
        "additionalProperties": False,
        "allOf": [_of_type(kind, fields) for kind, fields in _BODIES.items()],
    }


def _header_schema() -> Schema:
    described = msgspec.json.schema(Header)
    header = dict(described["$defs"]["Header"])
    properties: dict[str, Any] = dict(header["properties"])
    properties["type"] = {"enum": [str(kind) for kind in EventType]}
    properties["body"] = _HASH
    for name in ("prev", "sealed"):
        properties[name] = {"type": "string", "pattern": "^([0-9a-f]{64})?$", "default": ""}
    return {
        "type": "object",
        "description": "docs/record.md says what each field is; those with a default are left out where they have it",
        "properties": properties,
        "required": header["required"],
        "additionalProperties": False,
    }


def _of_type(kind: EventType, fields: Mapping[str, Any]) -> Schema:
    is_kind = {"properties": {"header": {"properties": {"type": {"const": str(kind)}}}}}
    body = {"type": ["object", "null"], "properties": dict(fields), "required": list(fields)}
    return {"if": is_kind, "then": {"properties": {"body": body}}}

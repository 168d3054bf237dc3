"""The caller's place in a trace, as W3C Trace Context hands it on."""

from __future__ import annotations

import re

_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
IDS_CHARS = 55
"""Version, trace, span and flags: all that a `traceparent` of the first version has."""


def caller_of(traceparent: object) -> tuple[bytes, bytes] | None:
    """Trace and span id of a W3C `traceparent`; `None` for what is none (www.w3.org/TR/trace-context, section 3.2)."""
    found = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    if found is None or (found[1] == "00" and found[4]):
        return None
    trace_id, span_id = bytes.fromhex(found[2]), bytes.fromhex(found[3])
    return (trace_id, span_id) if any(trace_id) and any(span_id) else None

"""Ticket intake: one request in, one ticket out, by one call."""

from __future__ import annotations

from typing import Any

from remit import Run
from remit.styles.single import single


async def ticket_intake(run: Run, request: dict[str, Any]) -> dict[str, Any]:
    """The contract's entry point."""
    given = {"text": request["text"], "requester": request["from"], "region": "eu"}
    return await single(run, model="reader", tool="tracker.create", given=given)

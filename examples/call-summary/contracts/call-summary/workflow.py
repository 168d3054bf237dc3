"""Call summary: a model drafts the fields of the CRM, somebody of sales edits and approves them, and they are written."""

from __future__ import annotations

from typing import Any

from remit import Run
from remit.styles.copilot import copilot

FIELDS = {
    "type": "object",
    "properties": {
        "summary": {"type": "string", "minLength": 1, "maxLength": 600},
        "stage": {"enum": ["lead", "evaluating", "negotiating", "won", "lost"]},
        "next_step": {"type": "string", "maxLength": 300},
        "follow_up": {"type": "string", "pattern": "^([0-9]{4}-[0-9]{2}-[0-9]{2})?$"},
    },
    "required": ["summary", "stage", "next_step", "follow_up"],
    "additionalProperties": False,
}
"""What a person may hand back."""


async def call_summary(run: Run, request: dict[str, Any]) -> dict[str, Any]:
    """The contract's entry point: one call in, one entry of the CRM brought up to date."""
    call = await run.call("calls.read", call=request["call"])

    async def draft() -> dict[str, Any]:
        answer = await run.model("summarise", transcript=call["transcript"], date=call["date"])
        return answer["value"]

    async def write(approved: dict[str, Any]) -> dict[str, Any]:
        return await run.call("crm.update", contact=call["contact"], changes=approved)

    return await copilot(run, draft=draft(), of="role:sales", within="2d", then=write, answer=FIELDS)

"""Sort one ticket of an export."""

from __future__ import annotations

from typing import Any

from remit import Run


async def ticket_export(run: Run, request: dict[str, Any]) -> dict[str, Any]:
    """The contract's entry point: one row in, its labels out."""
    ticket = await run.call("export.read", row=request["row"])
    answer = await run.model("triage", text=ticket["text"], decide=request["decide"])
    labels = {head: said["label"] for head, said in answer.items() if isinstance(said, dict) and "label" in said}
    await run.call("export.sort", row=request["row"], labels=labels)
    return {"labels": labels}

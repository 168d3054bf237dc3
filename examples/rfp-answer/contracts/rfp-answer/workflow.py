"""RFP answer: passages are retrieved, a model drafts an answer from them, a person edits it, and it is kept."""

from __future__ import annotations

from typing import Any

from remit import Run
from remit.styles.copilot import copilot

PASSAGES = 5


async def rfp_answer(run: Run, request: dict[str, Any]) -> dict[str, Any]:
    """The contract's entry point: one question in, one approved answer out."""
    passages = await run.retrieve(request["question"], k=PASSAGES)
    found = [each["chunk"] for each in passages]

    async def draft() -> dict[str, Any]:
        known = [{"chunk": each["chunk"], "title": each["title"], "text": each["text"]} for each in passages]
        answer = await run.model("write", question=request["question"], passages=known)
        if not answer["value"]["sources"]:
            await run.escalate("data missing: nothing that is known answers the question", draft={"looked_at": found})
        return answer["value"]

    async def keep(approved: dict[str, Any]) -> dict[str, Any]:
        return await run.call("answers.keep", tender=request["tender"], number=request["number"], **approved)

    return await copilot(run, draft=draft(), of="role:tenders", within="3d", then=keep, answer=answer_of(found))


def answer_of(found: list[str]) -> dict[str, Any]:
    """What a person may hand back: their words, and sources among what was found."""
    return {
        "type": "object",
        "properties": {
            "text": {"type": "string", "minLength": 1, "maxLength": 4000},
            "sources": {"type": "array", "items": {"enum": found}, "maxItems": 8},
        },
        "required": ["text", "sources"],
        "additionalProperties": False,
    }

"""Incident investigation: a model looks through earlier tickets, code checks its evidence, a lead approves the note.

The loop may search and read, and nothing else. What it answers is held against the tickets once more: each quote must
stand, word for word, in the ticket that it names.
"""

from __future__ import annotations

import json
from typing import Any

from remit import Run
from remit.models.interface import WrongAnswer
from remit.styles.react import LoopBounds, as_json, react

LOOKING = LoopBounds(tools=("tracker.search", "tracker.read"))
NOTE_LIMIT = 400


async def incident_investigation(run: Run, request: dict[str, Any]) -> dict[str, Any]:
    """The contract's entry point: one incident in, what is known of it out."""
    goal = f"Find out from earlier tickets what is behind issue {request['issue']}. " + json.dumps(ANSWER)
    found = await react(run, model="planner", goal=goal, steps=10, finish=finding, bounds=LOOKING)
    await check(run, request["issue"], found["evidence"])
    if not found["known"]:
        return found
    noted = await run.call("tracker.note", issue=request["issue"], text=note_of(found))
    return {**found, "note": noted["note"]}


ANSWER = {
    "answer": {
        "known": "whether earlier tickets tell of the same matter",
        "finding": "what is behind it",
        "evidence": [{"issue": "number of an earlier ticket", "quote": "a sentence of it, word for word"}],
    }
}


def finding(text: str) -> dict[str, Any]:
    """The model's answer as the run's output; the note is not written yet. Raises `WrongAnswer`."""
    found: Any = as_json(text)
    if found.get("known") and not found.get("evidence"):
        raise WrongAnswer("what is known needs evidence: `issue` and `quote` of an earlier ticket")
    return {**found, "note": None}


async def check(run: Run, incident: int, evidence: list[dict[str, Any]]) -> None:
    """Escalates where a quote does not stand in the ticket that it names, or is the incident's own."""
    numbers = sorted({each["issue"] for each in evidence})
    issues = await run.gather(*(run.call("tracker.read", issue=number) for number in numbers))
    texts = {number: words(text_of(issue)) for number, issue in zip(numbers, issues, strict=True)}
    for each in evidence:
        if each["issue"] == incident or words(each["quote"]) not in texts[each["issue"]]:
            await run.escalate(f"evidence missing: issue {each['issue']} does not say what it is quoted for", draft=evidence)


def text_of(issue: dict[str, Any]) -> str:
    return "\n".join([issue["title"], *(message["text"] for message in issue["messages"])])


def words(text: str) -> str:
    """A text with its blanks made one."""
    return " ".join(text.split())


def note_of(found: dict[str, Any]) -> str:
    """The finding, which names its tickets, as long as a note may be."""
    text = found["finding"]
    return text if len(text) <= NOTE_LIMIT else text[: NOTE_LIMIT - 1] + "…"

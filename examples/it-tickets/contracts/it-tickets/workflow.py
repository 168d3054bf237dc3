"""Triage of one IT ticket: read it, find duplicates, classify it, act within the contract, hand the rest to people."""

from __future__ import annotations

import re
from typing import Any

from remit import Completed, Held, NotCompleted, Outcome, Parked, Rejected, Run

SIMILAR = 0.42
"""Share of the rarer words that two tickets must have in common to be taken for the same matter."""
NOTE_LIMIT = 400

_WORD = re.compile(r"[^\W\d_]{4,}|\d{3,}")
_ACCOUNT = re.compile(r"(?:account|user ?name|login|user)\b(?:\s+(?:name|is|for|of|my))*\s*[:=]?\s*[`'\"]?([\w.@+-]{3,64} ?)", re.I)


async def it_tickets(run: Run, request: dict[str, Any]) -> dict[str, Any]:
    """The contract's entry point: one ticket in, one decision out."""
    issue = await run.call("tracker.read", issue=request["issue"])
    text = "\n".join([issue["title"], *(message["text"] for message in issue["messages"])])
    if len(_WORD.findall(text)) < 4:
        await run.escalate("data missing: the ticket hardly says anything")

    original = await find_original(run, issue, text)
    if original is not None:
        return await close_duplicate(run, issue, original)

    answer = await run.model("triage", title=issue["title"], text=text, decide=["category", "intent"])
    category, priority = answer["category"]["label"], answer["priority"]["label"]
    if answer["intent"]["label"] == "access_reset":
        return await reset_access(run, issue, text, category, priority)
    await sort_in(run, issue, category, priority)
    await note(run, issue, f"Sorted as {category}, {priority}. Assigned to {category}-team. In short: {gist(text)}")
    return {"action": "triage", "category": category, "priority": priority}


async def find_original(run: Run, issue: dict[str, Any], text: str) -> int | None:
    """An earlier ticket that is about the same matter, by the words that both use."""
    words = sorted(set(_WORD.findall(issue["title"].lower())), key=lambda word: (-len(word), word))[:3]
    for word in words:
        found = await run.call("tracker.search", text=word, limit=20)
        for other in found["issues"]:
            if other["issue"] >= issue["issue"] or overlap(issue["title"], other["title"]) < 0.25:
                continue
            earlier = await run.call("tracker.read", issue=other["issue"])
            whole = "\n".join([earlier["title"], *(message["text"] for message in earlier["messages"])])
            if overlap(text, whole) >= SIMILAR:
                return int(other["issue"])
    return None


def overlap(one: str, other: str) -> float:
    """How much of the shorter text's words stand in the longer one too."""
    first, second = set(_WORD.findall(one.lower())), set(_WORD.findall(other.lower()))
    return len(first & second) / max(1, min(len(first), len(second)))


async def close_duplicate(run: Run, issue: dict[str, Any], original: int) -> dict[str, Any]:
    await note(run, issue, f"The same matter as issue {original}; it goes on there.")
    await run.call("tracker.close", issue=issue["issue"], duplicate_of=original)
    return {"action": "close_duplicate", "duplicate_of": original}


async def sort_in(run: Run, issue: dict[str, Any], category: str, priority: str) -> None:
    changes = {"category": category, "priority": priority, "assignee": f"{category}-team"}
    await run.call("tracker.update", issue=issue["issue"], changes=changes)


async def reset_access(
    run: Run, issue: dict[str, Any], text: str, category: str, priority: str
) -> dict[str, Any]:
    """Ask for the reset of the account that the ticket names, else of the requester's own."""
    requester = await run.call("directory.lookup", email=issue["requester"])
    named = _ACCOUNT.search(text)
    if requester is None or (requester["shared"] and named is None):
        await run.escalate("data missing: the ticket does not say whose access it is about")
    account = named[1] if named and looks_like_an_account(named[1]) else requester["account"]
    outcome = await propose_reset(run, account)
    if isinstance(outcome, Rejected):
        account = account.strip().lower().partition("@")[0]
        outcome = await propose_reset(run, account)
    if isinstance(outcome, Held):
        raise Parked(outcome.case)
    if not isinstance(outcome, Completed):
        raise NotCompleted("directory.reset_access", outcome)
    await sort_in(run, issue, category, priority)
    await note(run, issue, "Access was reset; the requester is told how to sign in again.")
    return {"action": "access_reset", "category": category, "priority": priority, "account": account}


def looks_like_an_account(text: str) -> bool:
    return bool(re.search(r"[.@-]", text.strip().strip("."))) and not text.strip().endswith(".")


async def propose_reset(run: Run, account: str) -> Outcome:
    return await run.propose("directory.reset_access", {"account": account, "reason": "asked for in a ticket"})


async def note(run: Run, issue: dict[str, Any], text: str) -> None:
    """Add a note; one that is too long is shortened, as the gate's answer says."""
    outcome = await run.propose("tracker.note", {"issue": issue["issue"], "text": text})
    if isinstance(outcome, Rejected):
        outcome = await run.propose("tracker.note", {"issue": issue["issue"], "text": text[: NOTE_LIMIT - 1] + "…"})
    if not isinstance(outcome, Completed):
        raise NotCompleted("tracker.note", outcome)


def gist(text: str) -> str:
    """The first sentences of a ticket, without addresses and numbers that a note should not carry."""
    plain = re.sub(r"\S+@\S+|\+?\d[\d ()/.-]{6,}\d", "…", text)
    return " ".join(plain.split())[:600]

"""Triage of one IT ticket: read it, find duplicates, classify it, act within the contract, hand the rest to people."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from remit import Completed, Held, NotCompleted, Outcome, Parked, Rejected, Run

SIMILAR = 0.35
"""From this share of telling words in common (Dice's coefficient) two tickets are taken for the same matter."""
SEARCHES, CANDIDATES = 3, 2
NOTE_LIMIT = 400

_WORD = re.compile(r"[^\W\d_]{4,}|\d{3,}")
_COMMON = frozenset(
    ["about", "access", "account", "after", "anything", "back", "before", "call", "calls", "change", "client", "colleague", "could", "customer", "desk", "doesn", "each", "every", "from", "hand", "have", "just", "laptop", "last", "like", "list", "locked", "login", "mail", "mailbox", "mails", "month", "more", "morning", "name", "need", "network", "next", "nobody", "nothing", "number", "office", "only", "open", "other", "page", "password", "people", "phone", "please", "program", "reset", "right", "room", "says", "screen", "server", "should", "shows", "since", "some", "start", "still", "that", "them", "then", "there", "this", "three", "time", "today", "unlock", "until", "update", "when", "which", "with", "without", "work", "works", "would", "wrong"]
)
"""Words that stand in tickets of every kind and tell nothing about one of them."""
_ACCOUNT = re.compile(r"(?:account|user ?name|login|user)\b(?:\s+(?:name|is|for|of|my))*\s*[:=]?\s*[`'\"]?([\w.@+-]{3,64} ?)", re.I)


async def it_tickets(run: Run, request: dict[str, Any]) -> dict[str, Any]:
    """The contract's entry point: one ticket in, one decision out."""
    issue = await run.call("tracker.read", issue=request["issue"])
    text = whole_text(issue)
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
    """An earlier ticket about the same matter: found by the title's rarest words, compared by all telling words."""
    words = sorted(telling(issue["title"]), key=lambda word: (-len(word), word))[:SEARCHES]
    found = await run.gather(*(run.call("tracker.search", text=word, limit=20) for word in words))
    hits = Counter(other["issue"] for page in found for other in page["issues"] if other["issue"] < issue["issue"])
    for number, _ in sorted(hits.items(), key=lambda hit: (-hit[1], hit[0]))[:CANDIDATES]:
        earlier = await run.call("tracker.read", issue=number)
        if earlier["status"] == "open" and overlap(text, whole_text(earlier)) >= SIMILAR:
            return int(number)
    return None


def whole_text(issue: dict[str, Any]) -> str:
    """What the requester wrote: the title and the first message; notes of others say nothing about the matter."""
    return "\n".join([issue["title"], issue["messages"][0]["text"]])


def telling(text: str) -> set[str]:
    return set(_WORD.findall(text.lower())) - _COMMON


def overlap(one: str, other: str) -> float:
    """Dice's coefficient of the telling words."""
    first, second = telling(one), telling(other)
    return 2 * len(first & second) / max(1, len(first) + len(second))


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
    named = next((name for name in _ACCOUNT.findall(text) if looks_like_an_account(name)), None)
    if named is None and (requester is None or requester["shared"]):
        await run.escalate("data missing: the ticket does not say whose access it is about")
    account = named or requester["account"]
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

"""Plans an investigation by rules: search, read what is most similar, follow references, summarise with evidence.

It keeps nothing between turns. Each time it reads the conversation, so what it asks for next depends on what came back:
which words found anything, how alike the tickets are that were read, and which other tickets they refer to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from remit.models.interface import ModelRequest, WantedCall

ALIKE = 0.2
"""From this share of telling words in common (Dice's coefficient) on a ticket is about the same matter."""
SEARCHES, READS, MOST_READ, SENTENCES = 4, 2, 10, 3

_WORD = re.compile(r"[a-z][a-z0-9-]+")
_REFERENCE = re.compile(r"\b(?:issue|ticket)\s+#?(\d{1,9})\b", re.I)
_SENTENCE = re.compile(r"[^.!?\n]+(?:\.(?=\S)[^.!?\n]+)*[.!?]?")
_TELLS = frozenset(
    ["because", "cause", "caused", "expired", "failed", "fixed", "renewed", "replaced", "solved", "turned", "wrong"]
)
"""Words in sentences that say what was behind something, or what helped."""
_COMMON = frozenset(
    ["after", "again", "all", "also", "and", "any", "are", "but", "can", "every", "for", "from", "had", "has", "have", "her", "his", "how", "into", "issue", "its", "just", "new", "not", "now", "off", "one", "our", "out", "see", "she", "since", "some", "still", "than", "that", "the", "their", "them", "then", "there", "they", "this", "ticket", "until", "was", "were", "what", "when", "which", "with", "you"]
)


@dataclass
class Known:
    """What the conversation has brought so far."""

    incident: int
    read: dict[int, dict[str, Any]] = field(default_factory=dict[int, dict[str, Any]])
    asked: set[int] = field(default_factory=set[int])
    found: dict[str, list[dict[str, Any]]] = field(default_factory=dict[str, list[dict[str, Any]]])


async def plan(request: ModelRequest) -> str | dict[str, Any]:
    """The next calls, or the answer."""
    known = known_from(request)
    own = known.read.get(known.incident)
    if own is None:
        return reads(sorted({known.incident} - known.asked)) or "the incident can't be read"
    if len(known.asked) < MOST_READ:
        wanted = following(known) or searching(known, own) or similar(known, own)
        if wanted:
            return wanted
    return answer(known, own)


def known_from(request: ModelRequest) -> Known:
    """What the conversation tells. A result that was left out to save room counts as asked for."""
    goal = re.search(r"\bissue (\d+)", request.messages[0].text)
    known = Known(incident=int(goal[1]) if goal else 0)
    calls: dict[str, WantedCall] = {}
    for message in request.messages:
        calls |= {call.id: call for call in message.calls}
        call = calls.get(message.call_id)
        if call is None:
            continue
        came = result_of(message.text)
        args: Any = call.args
        if call.tool == "tracker.read":
            known.asked.add(args["issue"])
            if came is not None:
                known.read[args["issue"]] = came
        elif call.tool == "tracker.search":
            known.found[args["text"]] = came["issues"] if came is not None else []
    return known


def result_of(text: str) -> dict[str, Any] | None:
    try:
        return json.loads(text)
    except ValueError:
        return None


def following(known: Known) -> dict[str, Any] | None:
    """Read what relevant tickets refer to."""
    referred = {number for issue in relevant(known) for number in references(issue)}
    return reads(sorted(referred - known.asked)[:READS])


def searching(known: Known, own: dict[str, Any]) -> dict[str, Any] | None:
    """Search by the title's words; where nothing alike came of that, by the longest words of what was written."""
    title = list(dict.fromkeys(telling(own["title"])))[:SEARCHES]
    if not known.found:
        return searches(title)
    tried_all = all(each["issue"] in known.asked for each in candidates(known, own)[:READS])
    if tried_all and len(relevant(known)) == 1 and len(known.found) <= len(title):
        more = sorted(set(telling(text_of(own))) - set(known.found), key=lambda word: (-len(word), word))
        return searches(more[:SEARCHES])
    return None


def similar(known: Known, own: dict[str, Any]) -> dict[str, Any] | None:
    """Read the tickets that were found by the most telling searches, those first that are alike in title."""
    tried = sum(each["issue"] in known.asked for each in candidates(known, own))
    left = [each["issue"] for each in candidates(known, own) if each["issue"] not in known.asked]
    enough = len(relevant(known)) > 1 and tried >= READS
    return None if enough else reads(left[:READS] if tried < 2 * READS else [])


def candidates(known: Known, own: dict[str, Any]) -> list[dict[str, Any]]:
    """What was found, the likeliest first. A word that finds many tickets says little of each."""
    weight: dict[int, float] = {}
    issues: dict[int, dict[str, Any]] = {}
    for found in known.found.values():
        for each in found:
            issues[each["issue"]] = each
            weight[each["issue"]] = weight.get(each["issue"], 0) + 1 / len(found)
    title = set(telling(own["title"]))
    ranked = sorted(issues, key=lambda number: (-weight[number] - alike(title, set(telling(issues[number]["title"]))), number))
    return [issues[number] for number in ranked if number != known.incident]


def relevant(known: Known) -> list[dict[str, Any]]:
    """The incident, the tickets that were read and are alike, and what those refer to."""
    own = known.read[known.incident]
    wanted = set(telling(text_of(own)))
    found = {known.incident: own} | {
        number: issue for number, issue in known.read.items() if alike(wanted, set(telling(text_of(issue)))) >= ALIKE
    }
    for _ in range(MOST_READ):
        referred = {number for issue in found.values() for number in references(issue)} & set(known.read)
        found |= {number: known.read[number] for number in sorted(referred)}
    return list(found.values())


def answer(known: Known, own: dict[str, Any]) -> str:
    """The sentence of each ticket that tells most of the matter, word for word, with the ticket that it stands in."""
    wanted = set(telling(text_of(own)))
    said: list[tuple[int, int, str]] = []
    for issue in relevant(known):
        told = [each for message in issue["messages"] for each in sentences_of(message["text"]) if _TELLS & set(telling(each))]
        if told and issue["issue"] != known.incident:
            best = max(told, key=lambda sentence: telling_of(sentence, wanted))
            said.append((-telling_of(best, wanted), issue["issue"], best))
    best = [(number, sentence) for _, number, sentence in sorted(said)[:SENTENCES]]
    looked = ", ".join(f"issue {number}" for number in sorted(known.read) if number != known.incident) or "none"
    finding = " ".join(f"Issue {number}: {sentence}" for number, sentence in best) or f"No earlier ticket tells of it (read: {looked})."
    evidence = [{"issue": number, "quote": sentence} for number, sentence in best]
    return json.dumps({"known": bool(best), "finding": finding[:2000], "evidence": evidence})


def telling_of(sentence: str, wanted: set[str]) -> int:
    """How much a sentence tells: of what was behind something, and of what is looked for."""
    words = set(telling(sentence))
    return 2 * len(words & _TELLS) + len(words & wanted)


def reads(numbers: list[int]) -> dict[str, Any] | None:
    return {"calls": [{"tool": "tracker.read", "args": {"issue": number}} for number in numbers]} if numbers else None


def searches(words: list[str]) -> dict[str, Any] | None:
    return {"calls": [{"tool": "tracker.search", "args": {"text": word}} for word in words]} if words else None


def references(issue: dict[str, Any]) -> set[int]:
    """Numbers of other tickets that an issue names, or is the duplicate of."""
    named = {int(number) for number in _REFERENCE.findall(text_of(issue))}
    return (named | {issue["duplicate_of"] or 0}) - {issue["issue"], 0}


def text_of(issue: dict[str, Any]) -> str:
    return "\n".join([issue["title"], *(message["text"] for message in issue["messages"])])


def telling(text: str) -> Iterator[str]:
    return (word for word in _WORD.findall(text.lower()) if len(word) > 2 and word not in _COMMON)


def sentences_of(text: str) -> list[str]:
    return [each.strip() for each in _SENTENCE.findall(text) if len(each.strip()) >= 8]


def alike(first: set[str], second: set[str]) -> float:
    """Dice's coefficient."""
    return 2 * len(first & second) / max(1, len(first) + len(second))

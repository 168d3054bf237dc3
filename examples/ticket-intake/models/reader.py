"""Reads a request by rules: a line for a title, a category by its words, a priority by what cannot go on.

It heeds what was wrong with its last proposal: a title that is too long is cut at a word.
"""

from __future__ import annotations

import re
from typing import Any

from remit.models.interface import ModelRequest

WORDS = {
    "access": "access account group locked login password permission rights role unlock",
    "email": "attachment calendar inbox invitation mail mailbox mails newsletter outlook spam",
    "hardware": "battery docking keyboard label laptop monitor mouse paper printer scanner screen toner",
    "network": "cable connection dns network socket vpn wifi wlan",
    "software": "app crash crashes erp error excel install licence program software update version",
    "security": "malware phishing ransom stolen suspicious virus",
    "telephony": "call callers calls dect extension headset phone phones voicemail",
}
"""Words that speak for a category."""
STANDSTILL = re.compile(r"\b(nobody|everybody|everyone|all of|whole (?:site|plant|office)|production)\b", re.I)
STOPPED = re.compile(r"\b(down|stopped|stands still|can ?(?:no|')t work|cannot work|dead)\b", re.I)
HURRY = re.compile(r"\b(today|deadline|customer waits|can ?(?:no|')t work|cannot work)\b", re.I)
LEISURE = re.compile(r"\b(no hurry|whenever|some ?time|nice to have)\b", re.I)
SHORT = 80

_SUBJECT = re.compile(r"^(?:subject|re|betreff)\s*:\s*(.+)$", re.I | re.M)
_GREETING = re.compile(r"^(?:hi|hello|dear|good (?:morning|day)|hey)\b[^,.!\n]*[,.!]?\s*", re.I)


async def read(request: ModelRequest) -> dict[str, Any]:
    """The ticket, and how sure it is of the category."""
    text: str = request.args["text"]
    category, sure = category_of(text)
    title = title_of(text)
    if "title" in request.args["wrong"]:
        title = shortened(title)
    draft = {
        "title": title,
        "text": text,
        "requester": request.args["requester"],
        "region": request.args["region"],
        "category": category,
        "priority": priority_of(text),
    }
    return {"draft": draft, "confidence_per_mille": sure}


def title_of(text: str) -> str:
    """The subject line where there is one, else the first sentence after the greeting."""
    subject = _SUBJECT.search(text)
    if subject:
        return subject[1].strip()
    plain = _GREETING.sub("", text.strip())
    return re.split(r"(?<=[.!?])\s|\n", plain, maxsplit=1)[0].strip() or text.strip()


def shortened(title: str) -> str:
    return title if len(title) <= SHORT else title[: SHORT - 1].rsplit(" ", 1)[0] + "…"


def category_of(text: str) -> tuple[str, int]:
    """The category that most words speak for, and its share of all that speak for any."""
    said = re.findall(r"[a-z]+", text.lower())
    votes = {category: sum(word in words.split() for word in said) for category, words in WORDS.items()}
    best = max(votes, key=lambda category: votes[category])
    return best, 1000 * votes[best] // max(1, sum(votes.values()))


def priority_of(text: str) -> str:
    if STANDSTILL.search(text) and STOPPED.search(text):
        return "urgent"
    if HURRY.search(text):
        return "high"
    return "low" if LEISURE.search(text) else "normal"

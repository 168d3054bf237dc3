"""Reads a transcript by rules: what the customer says of wishes, money and time, what was promised, and for which day."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Any

from remit.models.interface import ModelRequest

STAGES = (
    ("lost", re.compile(r"\b(not interested|chose another|went with another|no longer need)\b", re.I)),
    ("won", re.compile(r"\b(we(?:'ll| will)? sign|we(?:'ll| will)? order|you have the order)\b", re.I)),
    ("negotiating", re.compile(r"\b(offer|quote|discount|price|terms)\b", re.I)),
    ("evaluating", re.compile(r"\b(trial|demo|pilot|try it|test)\b", re.I)),
)
"""What says where a deal stands, the strongest first."""
TELLS = re.compile(
    r"\b(need|want|would like|problem|trouble|budget|price|offer|order|decide|until|because|too (?:slow|dear)|compare|sign)\b", re.I
)
PROMISE = re.compile(r"\b(i(?:'ll| will)|we(?:'ll| will)|let me)\b.*\b(send|call|prepare|check|write|come back|arrange)\b", re.I)
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december")
SENTENCES = 3

_LINE = re.compile(r"^(?P<who>[^:\n]{1,40}):\s*(?P<said>.+)$", re.M)
_DATE = re.compile(rf"\b(\d{{1,2}}) ({'|'.join(MONTHS)})\b", re.I)
_DAY = re.compile(rf"\b(?:on|next|by) ({'|'.join(DAYS)})\b", re.I)


async def summarise(request: ModelRequest) -> dict[str, Any]:
    """The fields as they are drafted."""
    lines = [(line["who"], line["said"]) for line in _LINE.finditer(request.args["transcript"])]
    customer = [each for who, said in lines if "customer" in who.lower() for each in sentences_of(said)]
    ours = [each for who, said in lines if "customer" not in who.lower() for each in sentences_of(said)]
    promised = [each for each in ours if PROMISE.search(each)]
    spoken = " ".join(customer)
    return {
        "summary": summary_of(customer)[:600] or "Nothing was said.",
        "stage": next((stage for stage, cue in STAGES if cue.search(spoken)), "lead"),
        "next_step": (promised[-1] if promised else "")[:300],
        "follow_up": day_in(" ".join([*promised, spoken]), date.fromisoformat(request.args["date"])),
    }


def summary_of(sentences: list[str]) -> str:
    """The sentences that tell most, as they were said and in their order."""
    ranked = sorted(range(len(sentences)), key=lambda place: (-len(TELLS.findall(sentences[place])), place))
    return " ".join(sentences[place] for place in sorted(ranked[:SENTENCES]))


def day_in(text: str, today: date) -> str:
    """The first day that is named, after the call; empty where none is."""
    named = _DATE.search(text)
    if named:
        month = MONTHS.index(named[2].lower()) + 1
        try:
            found = date(today.year, month, int(named[1]))
            return (found if found >= today else found.replace(year=today.year + 1)).isoformat()
        except ValueError:
            return ""
    day = _DAY.search(text)
    if day:
        ahead = (DAYS.index(day[1].lower()) - today.weekday() - 1) % 7 + 1
        return (today + timedelta(days=ahead)).isoformat()
    return (today + timedelta(days=1)).isoformat() if re.search(r"\btomorrow\b", text, re.I) else ""


def sentences_of(text: str) -> list[str]:
    return [each.strip() for each in re.split(r"(?<=[.!?])\s+", text) if each.strip()]

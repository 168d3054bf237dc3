"""Drafts by quoting: of each passage the sentence that has most of the question's words, with the passage as its source."""

from __future__ import annotations

import re
from typing import Any

from remit.models.interface import ModelRequest

ENOUGH, SENTENCES = 2, 3
"""How many of the question's telling words a sentence must have, and how many sentences make an answer."""
_COMMON = frozenset(
    ["and", "are", "can", "data", "describe", "does", "for", "from", "have", "how", "long", "please", "that", "the", "their", "there", "this", "what", "when", "where", "which", "who", "will", "with", "you", "your"]
)


async def write(request: ModelRequest) -> dict[str, Any]:
    """The answer and its sources; neither where no passage says enough."""
    wanted = stems(request.args["question"])
    said: list[tuple[int, int, str, str]] = []
    for place, passage in enumerate(request.args["passages"]):
        sentences = re.split(r"(?<=[.!?])\s+", " ".join(line for line in passage["text"].splitlines() if not line.startswith("#")))
        best = max(sentences, key=lambda sentence: len(stems(sentence) & wanted))
        shared = len(stems(best) & wanted)
        if shared >= ENOUGH:
            said.append((-shared, place, best.strip(), passage["chunk"]))
    chosen = sorted(said)[:SENTENCES]
    return {"text": " ".join(text for _, _, text, _ in chosen), "sources": [chunk for *_, chunk in chosen]}


def stems(text: str) -> set[str]:
    """The telling words of a text, without their usual endings."""
    words = (word for word in re.findall(r"[a-z]{3,}", text.lower()) if word not in _COMMON)
    return {re.sub(r"(?:ions?|ed|es|ing|s)$", "", word) for word in words}

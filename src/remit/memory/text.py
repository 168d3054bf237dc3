"""Texts, cut into chunks and words; the same text always in the same way."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from remit.provenance.labels import words_of

ANALYSIS = "words-1"
"""Names how texts are cut. Whoever changes that changes this, and what was kept is embedded anew."""

_LONGEST = 900
"""How many characters a chunk has at most."""
_PARAGRAPH = re.compile(r"\n\s*\n")
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n")
_SPACE = re.compile(r"\s+")
_UNSPACED = 0x2E80
"""From here on lie the scripts that put no blanks between words (CJK); their texts are cut into pairs of characters."""


def chunks_of(text: str) -> list[tuple[int, int]]:
    """Where the chunks of a text begin and end: whole paragraphs where they fit, else whole sentences, else words."""
    spans: list[tuple[int, int]] = []
    for start, end in _pieces(text, 0, len(text), (_PARAGRAPH, _SENTENCE, _SPACE)):
        if spans and end - spans[-1][0] <= _LONGEST:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def _pieces(text: str, start: int, end: int, borders: tuple[re.Pattern[str], ...]) -> Iterator[tuple[int, int]]:
    """Parts of `text[start:end]` that are no longer than a chunk, cut at the first kind of border that suffices."""
    if end - start <= _LONGEST:
        if text[start:end].strip():
            yield start, end
        return
    if not borders:
        yield from ((at, min(at + _LONGEST, end)) for at in range(start, end, _LONGEST))
        return
    at = start
    for border in borders[0].finditer(text, start, end):
        yield from _pieces(text, at, border.start(), borders[1:])
        at = border.end()
    yield from _pieces(text, at, end, borders[1:])


def words(text: str) -> list[str]:
    """The words of a text in one spelling: without case, accents and punctuation."""
    found: list[str] = []
    for word in words_of(text):
        if word.isascii() or max(map(ord, word)) < _UNSPACED or len(word) < 3:
            found.append(word)
        else:
            found.extend(word[at : at + 2] for at in range(len(word) - 1))
    return found


def term(word: str) -> int:
    """A word as a number of 64 bits."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")

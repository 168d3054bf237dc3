"""Values that are known to be concealed, found as they stand in a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

WORD_CHARS = 64
"""A shorter value is looked for as a word of its own; one as long stands within no other word by chance."""


class Found(msgspec.Struct, frozen=True, order=True):
    """A piece of a text that is a known value."""

    start: int
    end: int
    kind: str


class Literals:
    """Values with their classes. Looking for them takes time in proportion to the text and to their number."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}
        self._encoded: list[bytes] = []
        self.longest = 0
        """How many characters the longest has."""

    def __contains__(self, value: str) -> bool:
        return value in self._kinds

    def add(self, kind: str, value: str) -> None:
        """Know a value from now on."""
        if value not in self._kinds:
            self._kinds[value] = kind
            self.longest = max(self.longest, len(value))
            self._encoded.append(value.encode(errors="surrogatepass"))

    def stand_in(self, data: bytes) -> bool:
        """Whether any of them stands in a text in UTF-8."""
        return any(encoded in data for encoded in self._encoded)

    def found(self, text: str) -> list[Found]:
        """Where they stand in a text, from left to right; none overlaps another."""
        return apart(span for value, kind in self._kinds.items() if value in text for span in _places(text, value, kind))


def _places(text: str, value: str, kind: str) -> Iterable[Found]:
    whole = len(value) < WORD_CHARS
    at = text.find(value)
    while at >= 0:
        end = at + len(value)
        if whole and not is_whole(text, at, end):
            at = text.find(value, at + 1)
            continue
        yield Found(at, end, kind)
        at = text.find(value, end)


def is_whole(text: str, start: int, end: int) -> bool:
    """Whether a piece of a text is a word of its own, or several."""
    return not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum())


def apart(spans: Iterable[Found]) -> list[Found]:
    """The spans in order, those that overlap as one; what begins first and is longest names it."""
    found: list[Found] = []
    for span in sorted(spans, key=lambda each: (each.start, -each.end)):
        if not found or span.start >= found[-1].end:
            found.append(span)
        elif span.end > found[-1].end:
            found[-1] = Found(found[-1].start, span.end, found[-1].kind)
    return found


def replaced(text: str, spans: Iterable[Found], conceal: Callable[[str, str], str]) -> str:
    """A text with something else, `conceal(kind, piece)`, in the place of each span."""
    pieces: list[str] = []
    at = 0
    for span in spans:
        pieces += text[at : span.start], conceal(span.kind, text[span.start : span.end])
        at = span.end
    return "".join([*pieces, text[at:]]) if pieces else text

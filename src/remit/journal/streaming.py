"""Redaction of a text that comes in pieces: what is shown early is what the whole text would show at that place.

The last characters are held back until it is certain that they are no beginning of something to conceal; a piece is cut
off only where the parts, each redacted by itself, give the same as both together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from remit.journal.redaction import Redactor

HELD = 64
"""Characters that are held back at least: whatever holds blanks and is concealed (a number, `password is …`) is shorter."""
_TRIES = 4
_IDEOGRAPHS = "⺀"
"""From here on scripts put no blanks between words."""


class RedactedStream:
    """Hands pieces of a text on, redacted as the whole would be. `end` hands on what is left."""

    def __init__(self, redactor: Redactor, on_text: Callable[[str], None]) -> None:
        self._redactor = redactor
        self._on_text = on_text
        self._waiting = ""

    def feed(self, piece: str) -> None:
        """Take the next piece of the text, and show what is safe to show."""
        self._waiting += piece
        tried = self._redactor.without_memory()
        for cut in self._cuts():
            head, rest = self._waiting[:cut], self._waiting[cut:]
            # Tried only: half of a number may look like another one, and must not be known as that from then on.
            if tried.text(head) + tried.text(rest) == tried.text(self._waiting):
                self._waiting = rest
                self._on_text(self._redactor.text(head))
                return

    def end(self) -> None:
        """The text is over."""
        rest, self._waiting = self._waiting, ""
        if rest:
            self._on_text(self._redactor.text(rest))

    def _cuts(self) -> Iterator[int]:
        """Places between two words, behind which enough is held back, the last ones first."""
        text, tries = self._waiting, 0
        limit = len(text) - max(HELD, self._redactor.longest_known)
        for cut in range(limit, 0, -1):
            if text[cut - 1].isspace() or text[cut - 1] >= _IDEOGRAPHS:
                yield cut
                tries += 1
                if tries == _TRIES:
                    return

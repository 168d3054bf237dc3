"""Who listens while models speak: pieces of their texts, redacted, as they come.

Nothing of it is recorded; the whole answer is. What a model says at once (a step on record, a recording, a function of the
project) is handed on at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from remit.journal.redaction import Redactor
from remit.journal.streaming import RedactedStream

OnText = Callable[[str], None]

_listener: ContextVar[OnText | None] = ContextVar("remit_listener", default=None)


@contextmanager
def listening(on_text: OnText) -> Generator[None]:
    """All texts of models in runs that are driven within go to `on_text`, unless their workflow hands them elsewhere."""
    token = _listener.set(on_text)
    try:
        yield
    finally:
        _listener.reset(token)


class Telling:
    """Hands one model's text on, redacted. Without a listener it does nothing."""

    def __init__(self, on_text: OnText | None, redactor: Redactor) -> None:
        self._on_text = on_text or _listener.get()
        self._stream = None if self._on_text is None else RedactedStream(redactor, self._on_text)
        self._told = False

    @property
    def takes(self) -> OnText | None:
        """What takes the pieces; `None` where nobody listens."""
        return None if self._stream is None else self._take

    def _take(self, piece: str) -> None:
        assert self._stream is not None
        self._told = True
        self._stream.feed(piece)

    def end(self, result: Any) -> None:
        """The answer is there: hand on what was held back, or all of its text, where none of it came before."""
        if self._stream is None:
            return
        text = cast("dict[str, Any]", result).get("text") if isinstance(result, dict) else None
        if not self._told and isinstance(text, str):
            self._stream.feed(text)
        self._stream.end()

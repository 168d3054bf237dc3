"""What models say, shown on standard error while they say it."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

from remit.runs.listening import listening
from remit.terminal import printable


@contextmanager
def showing_texts() -> Generator[None]:
    """Show the texts of models in the runs that are driven within. The last line ends when they do."""
    shown = [""]

    def show(piece: str) -> None:
        text = "\n".join(map(printable, piece.split("\n")))
        shown[0] = text or shown[0]
        sys.stderr.write(text)
        sys.stderr.flush()

    try:
        with listening(show):
            yield
    finally:
        if shown[0] and not shown[0].endswith("\n"):
            sys.stderr.write("\n")

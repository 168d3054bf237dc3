"""The last checkpoint that was published from here: what the tree must go on from, whatever the database says.

It stands in two places beside the database: at the end of the file of published checkpoints, and with the keys, which fewer
can write to. Whoever can write to the database alone can take events out of it and begin its tree anew; nothing that was
made so is ever signed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from remit.errors import StorageError
from remit.journal.notes import Checkpoint, open_checkpoint

_TAIL_BYTES = 64 * 1024
WriteNote = Callable[[Path, bytes], None]
"""Replaces a file as a whole; raises `OSError` or a `RemitError`."""


class LastPublished(msgspec.Struct, frozen=True, kw_only=True):
    """Where the last published checkpoint of one tree stands. `write` writes `kept`.

    `published`: the file of all checkpoints. `kept`: the one with the keys. `verifier_keys`: present and former ones.
    """

    published: Path
    kept: Path
    origin: str
    verifier_keys: tuple[str, ...]
    write: WriteNote

    def read(self) -> Checkpoint | None:
        """The larger of the two; `None` where nothing was published from here. Raises `StorageError`, `OSError`.

        What stands in the file and was not signed is passed over (`remit verify` finds it); with the keys, it is an error.
        """
        kept = self._kept()
        published = next(self._signed(self._published()), None)
        return max((one for one in (kept, published) if one is not None), key=lambda one: one.size, default=None)

    def is_signed(self, note: str, size: int, root: bytes) -> bool:
        """Whether a note is a checkpoint of this tree, of that size and root."""
        return any((one.size, one.root) == (size, root) for one in self._signed([note]))

    def keep(self, note: str) -> None:
        """Keep a checkpoint that was just published, if it is larger than the one that is kept."""
        kept, new = self._kept(), next(self._signed([note]), None)
        if new is not None and (kept is None or new.size > kept.size):
            self.write(self.kept, note.encode())

    def set_aside(self) -> Path | None:
        """Begin anew, as after a restore: rename the published file, and forget what is kept. Returns the new name."""
        aside = None
        if self.published.exists():
            # Not `.txt`: what was published under a record that is gone is no part of this one.
            aside = self.published.with_name(f"{self.published.stem}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.before-restore")
            self.published.rename(aside)
        self.kept.unlink(missing_ok=True)
        return aside

    def _kept(self) -> Checkpoint | None:
        try:
            text = self.kept.read_bytes().decode("utf-8", "replace")
        except FileNotFoundError:
            return None
        if f"{self.origin}\n" not in text:
            # Of another database, that was here before this one.
            return None
        found = next(self._signed([text]), None)
        if found is None:
            message = f"`{self.kept}` holds no checkpoint that the record's key has signed; put a good copy of the keys back"
            raise StorageError(message, code="checkpoint_invalid")
        return found

    def _published(self) -> list[str]:
        """The last notes of the file, the largest first."""
        try:
            with self.published.open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        # A note has one empty line in it and one behind it. The first may be cut off.
        parts = f"\n{text}".split(f"\n{self.origin}\n")[1:]
        notes = [f"{self.origin}\n{part.rstrip(chr(10))}\n" for part in parts]
        return sorted(notes, key=_size, reverse=True)

    def _signed(self, notes: Iterable[str]) -> Iterator[Checkpoint]:
        for note in notes:
            for key in self.verifier_keys:
                with suppress(StorageError):
                    yield open_checkpoint(note, key)
                    break


def _size(note: str) -> int:
    line = note.split("\n", 2)[1]
    return int(line) if line.isascii() and line.isdigit() and len(line) < 20 else -1

"""Where a fold has come to, kept in a file, so that who counts anew begins with what is new.

The file says nothing that the record does not: it can be lost, and is not believed where it is not of this record or of
this version of the code. Then everything is counted again.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from remit.export.metrics import CALL_S, CASE_S, DECISION_S, RUN_S, FoldState, JournalFold, Labels
from remit.journal.leaves import LeafReader

_log = logging.getLogger("remit")

KEEP_EVERY = 2_000
"""Events that are counted again at most: so many take a fraction of a second."""
_VERSION = 1
"""To be raised whenever the same events come to other counts, or to another state."""
_FORM = hashlib.sha256(repr((_VERSION, DECISION_S, CALL_S, RUN_S, CASE_S)).encode()).digest()
_DIGEST_BYTES = len(_FORM)


class FoldFile:
    """Keeps a fold of one tenant's record in a private folder, again after `every` so many events."""

    def __init__(self, path: Path, *, every: int = KEEP_EVERY) -> None:
        self._path = path
        self._every = every
        self._events = 0
        self._said = ""

    def fold(self, leaves: LeafReader) -> JournalFold:
        """The fold as it was kept, or one that begins with the first event. Raises `StorageError`."""
        state = self._read()
        if state is None or leaves.hash_of(state.seq) != state.hash:
            return JournalFold(leaves)
        self._events = state.folded.events
        return JournalFold(leaves, state)

    def keep(self, state: FoldState) -> None:
        """Keep a state, where enough has come to it since the last time. What can't be kept is counted again."""
        if state.folded.events - self._events < self._every:
            return
        try:
            self._write(msgspec.msgpack.encode(state))
        except OSError as error:
            said = (error.strerror or "unknown error").lower()
            if said != self._said:
                _log.warning("metrics are counted from the beginning next time: can't write `%s`: %s", self._path, said)
            self._said = said
            return
        self._events, self._said = state.folded.events, ""

    def _read(self) -> FoldState | None:
        try:
            data = self._path.read_bytes()
        except OSError:
            return None
        form, digest, state = data[:_DIGEST_BYTES], data[_DIGEST_BYTES : 2 * _DIGEST_BYTES], data[2 * _DIGEST_BYTES :]
        if form != _FORM or hashlib.sha256(state).digest() != digest:
            return None
        try:
            return msgspec.msgpack.decode(state, type=FoldState, dec_hook=_counter)
        except msgspec.DecodeError:
            return None

    def _write(self, state: bytes) -> None:
        # Not synced: what a crash leaves of it is not believed, and costs a count from the beginning.
        part = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        try:
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(_FORM + hashlib.sha256(state).digest() + state)
            part.replace(self._path)
        finally:
            part.unlink(missing_ok=True)


def _counter(_kind: type[Any], value: dict[Labels, int]) -> Counter[Labels]:
    """A counter, which msgspec does not know, from the map that it was written as."""
    return Counter(value)

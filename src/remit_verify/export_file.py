"""An exported file: read line by line, from a file or standard input, and verified without the database."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from remit_verify.checkpoints import NoteRow
from remit_verify.gathering import Gathering, GivenNote
from remit_verify.header import read_json
from remit_verify.notes import NoteError, VerifierKey
from remit_verify.report import Finding, Unreadable
from remit_verify.sources import STDIN
from remit_verify.work import Lines, check_lines, workers

_LINES = 2_048
_BYTES = 8 * 1024 * 1024
"""A piece of work has as many lines or bytes at most, whichever is less."""
_MANY_PIECES = 8
"""From here on it pays to start processes."""


def verify_export(path: str, gathering: Gathering, given: list[GivenNote], processes: int) -> int:
    """Verify an exported file. Returns how many processes did. Raises `Unreadable`."""
    with _open(path) as file:
        about = _first_line(path, file)
        tenant = about["tenant"]
        gathering.journal = about["journal"]
        gathering.tenant = tenant
        if not gathering.keys.verifiers:
            gathering.use_own_keys(replace(gathering.keys, verifiers=_keys(path, about["keys"])))
        ends = _Ends()
        pieces = _pieces(tenant, ends.without_end(file))
        first = list(islice(pieces, _MANY_PIECES))
        count = processes or (1 if len(first) < _MANY_PIECES else os.cpu_count() or 1)
        with workers(count) as pool:
            gathering.exported(pool, tenant, [NoteRow(where=f"{path}, line 1", note=about["checkpoint"])])
            gathering.given(pool, given)
            for stretch in pool.each(check_lines, chain(first, pieces)):
                gathering.join(stretch)
    ends.compare(path, gathering)
    gathering.chains.compare_gone()
    gathering.finish_trees(lambda _: iter(()))
    return count


@contextmanager
def _open(path: str) -> Generator[BinaryIO]:
    if path == STDIN:
        yield sys.stdin.buffer
        return
    try:
        with Path(path).open("rb") as file:
            yield file
    except OSError as error:
        raise Unreadable(f"`{path}` can't be read: {error}") from error


def _first_line(path: str, file: BinaryIO) -> dict[str, Any]:
    """What the file says about itself. Raises `Unreadable`."""
    try:
        value = read_json(file.readline(_BYTES).removesuffix(b"\n"))
    except ValueError as error:
        raise Unreadable(f"`{path}` is no exported record: its first line can't be read: {error}") from error
    about = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    texts = all(isinstance(about.get(name), str) for name in ("tenant", "journal", "checkpoint"))
    if about.get("record") != 1 or not texts or not isinstance(about.get("keys"), list):
        raise Unreadable(f"`{path}` is no exported record of version 1; make it with `remit export --record`")
    return about


def _keys(path: str, keys: list[Any]) -> tuple[VerifierKey, ...]:
    try:
        return tuple(VerifierKey.parse(f"{key}") for key in keys)
    except (NoteError, UnicodeError) as error:
        raise Unreadable(f"`{path}` lists a verifier key that is none: {error}") from error


class _Ends:
    """Takes off the last line of a file, which says that it is the last."""

    def __init__(self) -> None:
        self._last = b""
        self._events = 0

    def without_end(self, file: BinaryIO) -> Iterator[bytes]:
        held: bytes | None = None
        for line in file:
            if held is not None:
                self._events += 1
                yield held
            held = line
        if held is None:
            return
        if self._says_end(held) is None:
            self._events += 1
            yield held
            return
        self._last = held

    def _says_end(self, line: bytes) -> int | None:
        try:
            value = read_json(line.removesuffix(b"\n"))
        except ValueError:
            return None
        end = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        events = end.get("events")
        return events if end.get("end") is True and len(end) == 2 and type(events) is int else None

    def compare(self, path: str, gathering: Gathering) -> None:
        said = self._says_end(self._last) if self._last else None
        where = f"{path}, line {self._events + 2}"
        if said is None:
            why = "the file has no last line that says so: it was cut off"
            gathering.add(Finding(code="file_truncated", wrong=why, where=where))
        elif said != self._events:
            why = f"its last line says {said} events, and there are {self._events}"
            gathering.add(Finding(code="file_truncated", wrong=why, where=where))


def _pieces(tenant: str, lines: Iterator[bytes]) -> Iterator[Lines]:
    piece: list[bytes] = []
    number, size = 2, 0
    for line in lines:
        piece.append(line)
        size += len(line)
        if len(piece) == _LINES or size > _BYTES:
            yield Lines(tenant=tenant, first=number, lines=piece)
            number += len(piece)
            piece, size = [], 0
    if piece:
        yield Lines(tenant=tenant, first=number, lines=piece)

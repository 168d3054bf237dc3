"""A parsed file with the line of every place in it, whatever language it was written in."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import cast

from remit.contracts.problems import Problem
from remit.values import MAX_BYTES, Json, Path


@dataclass(frozen=True, kw_only=True)
class Document:
    """What a file says (`value`), where it says it (`lines`) and what is wrong with the way it says it (`problems`).

    `broken` holds the paths whose value could not be read, so that nothing else is said about them.
    """

    file: str
    value: Json
    lines: Mapping[Path, int]
    problems: tuple[Problem, ...] = ()
    broken: frozenset[Path] = field(default_factory=frozenset[Path])

    def line(self, path: Path) -> int:
        """The line of the key or item at `path`, or of the nearest place above it that exists; counted from 1."""
        for length in range(len(path), -1, -1):
            found = self.lines.get(path[:length])
            if found is not None:
                return found
        return 1

    def is_broken(self, path: Path) -> bool:
        """Whether the value at `path`, or anything it lies in, could not be read."""
        return any(path[:length] in self.broken for length in range(len(path) + 1))

    def problem(self, path: Path, message: str, suggestion: str = "") -> Problem:
        """An error at `path`."""
        return Problem(file=self.file, line=self.line(path), message=message, suggestion=suggestion)


def places(value: Json) -> Iterator[tuple[Path, Json]]:
    """Every value in `value` with its path, itself and all containers included, in no particular order."""
    stack: list[tuple[Path, Json]] = [((), value)]
    while stack:
        path, item = stack.pop()
        yield path, item
        stack.extend(((*path, key), child) for key, child in children(item))


def children(value: Json) -> Iterable[tuple[str | int, Json]]:
    """The keys or positions of a mapping or list with what they hold; nothing for a scalar."""
    if isinstance(value, dict):
        return cast("dict[str, Json]", value).items()
    if isinstance(value, list):
        return enumerate(cast("list[Json]", value))
    return ()


class LineIndex:
    """Line numbers of positions in a text, as editors count them: by line feeds only."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(at + 1 for at, char in enumerate(text) if char == "\n")]

    def line(self, position: int) -> int:
        """The line of the character at `position`, counted from 1."""
        return bisect_right(self._starts, position)


class Unreadable(Exception):
    """A file can't be used at all; `problem` says why. Never leaves the loaders."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def read_text(path: FilePath, file: str) -> str:
    """The text of a file: at most 256 KiB of valid UTF-8, every line end a line feed. Raises `Unreadable`."""
    try:
        with path.open("rb") as source:
            data = source.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise Unreadable(Problem(file=file, line=1, message="the file does not exist")) from error
    except OSError as error:
        message = f"the file can't be read: {(error.strerror or 'unknown error').lower()}"
        raise Unreadable(Problem(file=file, line=1, message=message)) from error
    if len(data) > MAX_BYTES:
        message = f"the file is larger than the {MAX_BYTES:,} bytes allowed"
        raise Unreadable(Problem(file=file, line=1, message=message))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(Problem(file=file, line=line, message="the file is not valid UTF-8")) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")

"""TOML with the line of every key and item. `tomllib` parses; a scan over the same, by then valid, text finds lines."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from remit.contracts.document import Document, LineIndex, children
from remit.contracts.problems import Problem
from remit.values import MAX_DEPTH, Json, Path

_TOKEN = re.compile(
    r"""
      (?P<comment> \#[^\n]*)
    | (?P<text> \"\"\"(?:\\.|[^\\])*?\"\"\"\"{0,2} | '''.*?''''{0,2} | "(?:\\.|[^"\\\n])*" | '[^'\n]*')
    | (?P<newline> \n)
    | (?P<mark> [\[\]{},=.])
    | (?P<word> [^\s\#"'\[\]{},=.]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_PLACE = re.compile(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)$")
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


def parse_toml(text: str, file: str) -> Document:
    """Parse `text`; every problem is in the result, none is raised.

    Numbers with decimals stay the text that they are (`0.8`), because nothing here is a binary float.
    """
    try:
        value: Json = tomllib.loads(text, parse_float=str)
    except tomllib.TOMLDecodeError as error:
        return _unparsed(text, file, str(error))
    except (ValueError, RecursionError):
        # A whole number of thousands of digits, or brackets without end.
        return _unparsed(text, file, "a number or a nesting beyond all bounds")
    depth = _depth(value)
    if depth > MAX_DEPTH:
        return _unparsed(text, file, f"nested more than {MAX_DEPTH} levels deep")
    lines = _Scan(text).lines()
    problems: list[Problem] = []
    broken: set[Path] = set()
    clean = _Clean(value)
    document = Document(file=file, value=clean.value, lines=lines)
    for path, message in clean.refused:
        problems.append(document.problem(path, message))
        broken.add(path)
    return Document(file=file, value=clean.value, lines=lines, problems=tuple(problems), broken=frozenset(broken))


def _unparsed(text: str, file: str, reason: str) -> Document:
    place = _PLACE.search(reason)
    line = int(place[1]) if place and place[1] else (text.count("\n") + 1 if place else 1)
    bare = _PLACE.sub("", reason)
    message = f"not valid TOML: {bare[:1].lower()}{bare[1:]}"
    problem = Problem(file=file, line=line, message=message)
    return Document(file=file, value=None, lines={}, problems=(problem,), broken=frozenset({()}))


def _depth(value: Json) -> int:
    level: list[Json] = [value]
    depth = 0
    while level:
        depth += 1
        level = [child for item in level for _, child in children(item)]
    return depth - 1


class _Clean:
    """TOML's values as JSON's: what JSON does not have becomes text and is refused by name."""

    def __init__(self, value: Json) -> None:
        self.refused: list[tuple[Path, str]] = []
        self.value = self._of((), value)

    def _of(self, path: Path, value: Any) -> Json:
        if isinstance(value, dict | list):
            made = {key: self._of((*path, key), item) for key, item in children(value)}
            return made if isinstance(value, dict) else list(made.values())
        if isinstance(value, int) and not _INT_MIN <= value <= _INT_MAX:
            self.refused.append((path, "a number is outside the range of 64-bit integers"))
            return 0
        if isinstance(value, bool | str | int):
            return value
        self.refused.append((path, "a date or time stands here; no key takes one"))
        return str(value)


class _Scan:
    """Positions of keys and items. The text is valid TOML; were it not, lines would be missing, nothing worse."""

    def __init__(self, text: str) -> None:
        index = LineIndex(text)
        self._tokens = [
            (found.lastgroup or "", found[0], index.line(found.start()), found.start())
            for found in _TOKEN.finditer(text)
            if found.lastgroup != "comment"
        ]
        self._at = 0
        self._lines: dict[Path, int] = {(): 1}
        self._arrays: dict[Path, int] = {}

    def lines(self) -> dict[Path, int]:
        prefix: Path = ()
        while self._at < len(self._tokens):
            if self._take("newline"):
                continue
            if self._peek("["):
                prefix = self._header()
            else:
                self._pair(prefix)
            self._to_line_end()
        return self._lines

    def _kind(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _line(self) -> int:
        return self._tokens[min(self._at, len(self._tokens) - 1)][2]

    def _peek(self, mark: str) -> bool:
        return self._kind() == "mark" and self._tokens[self._at][1] == mark

    def _take(self, what: str) -> bool:
        found = self._kind() == what or self._peek(what)
        self._at += found
        return found

    def _to_line_end(self) -> None:
        while self._kind() not in ("newline", ""):
            self._at += 1

    def _header(self) -> Path:
        line = self._line()
        opening = self._tokens[self._at][3]
        self._at += 1
        double = self._peek("[") and self._tokens[self._at][3] == opening + 1
        self._at += double
        parts = self._key()
        path: Path = ()
        for part in parts[:-1]:
            path = self._latest((*path, part), line)
        path = (*path, *parts[-1:])
        self._lines.setdefault(path, line)
        if not double:
            # A table may come back to an array's last element: `[[a]]` then `[a.b]`, never `[a]`.
            return path
        self._arrays[path] = self._arrays.get(path, -1) + 1
        item = (*path, self._arrays[path])
        self._lines[item] = line
        return item

    def _latest(self, path: Path, line: int) -> Path:
        self._lines.setdefault(path, line)
        return (*path, self._arrays[path]) if path in self._arrays else path

    def _key(self) -> list[str]:
        parts: list[str] = []
        while self._kind() in ("word", "text"):
            kind, token, _, _ = self._tokens[self._at]
            parts.append(token if kind == "word" else _unquote(token))
            self._at += 1
            if not self._take("."):
                break
        return parts

    def _pair(self, prefix: Path) -> None:
        line = self._line()
        path = prefix
        for part in self._key():
            path = (*path, part)
            self._lines.setdefault(path, line)
        if path == prefix or not self._take("="):
            self._at += 1
            return
        self._value(path)

    def _value(self, path: Path) -> None:
        if self._take("["):
            self._array(path)
        elif self._take("{"):
            while not self._take("}") and self._kind():
                if not (self._take(",") or self._take("newline")):
                    self._pair(path)
        else:
            while self._kind() in ("word", "text") or self._peek("."):
                self._at += 1

    def _array(self, path: Path) -> None:
        items = 0
        while not self._take("]") and self._kind():
            if self._take(",") or self._take("newline"):
                continue
            before = self._at
            self._lines[(*path, items)] = self._line()
            self._value((*path, items))
            items += 1
            self._at += self._at == before


def _unquote(token: str) -> str:
    return tomllib.loads(f"k = {token}")["k"]

"""YAML as contracts use it: mappings, lists and scalars, each with its line, and nothing that changes meaning silently.

The scalars are those on which YAML 1.1, YAML 1.2 and a reader agree: `null`, `true`, `false`, decimal whole numbers
and text. What the versions read differently (`no`, `on`, `1:30`, `010`, `0x1F`, dates) stays the text that it is, and
so does a number with decimals (`0.8`), because nothing here is a binary float. Aliases, anchors, tags, merge keys,
several documents, duplicate keys and keys that are not text are problems.

Built on PyYAML's events, so that no constructor or resolver of its can run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from remit.contracts.document import Document, LineIndex
from remit.contracts.problems import Problem, quoted
from remit.values import MAX_DEPTH, Json, Path

_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,18})", re.ASCII)
_LONG = re.compile(r"-?[1-9][0-9]{18,}", re.ASCII)
_CONSTANTS: Final[dict[str, Json]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_KINDS = {bool: "a truth value", int: "a number", type(None): "empty"}


def parse_yaml(text: str, file: str) -> Document:
    """Parse `text`; every problem is in the result, none is raised. `file` is the name that problems carry."""
    builder = _Builder(text, file)
    try:
        for event in _events(text):
            if not builder.take(event):
                break
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(part for part in (error.context, error.problem) if part)
        builder.stop(mark.index if mark else 0, f"not valid YAML: {reason}", "indentation, quotes or brackets are off")
    except yaml.reader.ReaderError as error:
        builder.stop(error.position, "a control character stands here; YAML is plain text")
    except (ValueError, OverflowError):
        # PyYAML hands an escape such as "\U00110000" to chr() as it is.
        builder.stop(len(text), "an escape in a quoted text names no character")
    return builder.document()


def _events(text: str) -> Iterator[Any]:
    # PyYAML ships no types; its events are read here and nowhere else.
    return yaml.parse(text, Loader=yaml.SafeLoader)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


class _Frame:
    """A mapping or list that is being read. `key` is the mapping key that waits for its value."""

    def __init__(self, path: Path, value: dict[str, Json] | list[Json], *, kept: bool) -> None:
        self.path = path
        self.value = value
        self.kept = kept
        self.key: str | None = None
        self.waiting = False
        self.items = 0


class _Builder:
    """Values from events, without recursion, so that depth is a number and not a crash."""

    def __init__(self, text: str, file: str) -> None:
        self._file = file
        self._index = LineIndex(text)
        self._stack: list[_Frame] = []
        self._lines: dict[Path, int] = {}
        self._problems: list[Problem] = []
        self._broken: set[Path] = set()
        self._documents = 0
        self._value: Json = None

    def document(self) -> Document:
        if self._documents == 0 and not self._problems:
            self._report(1, "the file is empty")
            self._broken.add(())
        return Document(
            file=self._file,
            value=self._value,
            lines=self._lines,
            problems=tuple(self._problems),
            broken=frozenset(self._broken),
        )

    def stop(self, position: int, message: str, suggestion: str = "") -> None:
        """Reading ends here: what was read so far is no basis for more problems."""
        self._report(self._index.line(position), message, suggestion)
        self._broken.add(())

    def take(self, event: Any) -> bool:
        """Take one event; whether the next one is wanted."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self.stop(event.start_mark.index, "a second document starts here; a file holds one")
                return False
        elif isinstance(event, yaml.AliasEvent):
            self._refuse(event, f"alias {quoted('*' + event.anchor)} is not used here", "write the value out")
        elif isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            return self._open(event)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._stack.pop()
        return True

    def _report(self, line: int, message: str, suggestion: str = "") -> None:
        self._problems.append(Problem(file=self._file, line=line, message=message, suggestion=suggestion))

    def _place(self, line: int) -> tuple[Path, bool]:
        """The path of the node that comes now, and whether it is kept; notes its line."""
        if not self._stack:
            self._lines[()] = line
            return (), True
        frame = self._stack[-1]
        if isinstance(frame.value, list):
            path = (*frame.path, frame.items)
            frame.items += 1
            if frame.kept:
                self._lines[path] = line
            return path, frame.kept
        if frame.key is None:
            return frame.path, False
        return (*frame.path, frame.key), frame.kept

    def _put(self, value: Json, *, kept: bool) -> None:
        if not self._stack:
            self._value = value
            return
        frame = self._stack[-1]
        if isinstance(frame.value, list):
            if kept:
                frame.value.append(value)
            return
        if kept and frame.key is not None:
            frame.value[frame.key] = value
        frame.key = None
        frame.waiting = False

    def _wants_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].value, dict) and not self._stack[-1].waiting

    def _refuse(self, event: Any, message: str, suggestion: str = "") -> None:
        line = self._index.line(event.start_mark.index)
        self._report(line, message, suggestion)
        if self._wants_key():
            self._stack[-1].waiting = True
            return
        path, kept = self._place(line)
        if kept:
            self._broken.add(path)
        self._put(None, kept=kept)

    def _plain_node(self, event: Any, line: int) -> bool:
        if event.anchor is not None:
            self._report(line, f"anchor {quoted('&' + event.anchor)} is not used here", "write each value out")
            return False
        if event.tag is not None:
            self._report(
                line,
                f"tag {quoted(event.tag)} is not used here",
                "take the tag out; quote text that needs it",
            )
            return False
        return True

    def _open(self, event: Any) -> bool:
        line = self._index.line(event.start_mark.index)
        if len(self._stack) >= MAX_DEPTH:
            self.stop(event.start_mark.index, f"nested more than {MAX_DEPTH} levels deep")
            return False
        self._plain_node(event, line)
        value: dict[str, Json] | list[Json] = {} if isinstance(event, yaml.MappingStartEvent) else []
        if self._wants_key():
            self._report(line, "a key is text; this one is a mapping or a list")
            self._stack[-1].waiting = True
            self._stack.append(_Frame((), value, kept=False))
            return True
        path, kept = self._place(line)
        self._put(value, kept=kept)
        self._stack.append(_Frame(path, value, kept=kept))
        return True

    def _scalar(self, event: Any) -> None:
        line = self._index.line(event.start_mark.index)
        sound = self._plain_node(event, line)
        value = self._resolve(event, line) if event.style is None else event.value
        if isinstance(value, str) and not _is_unicode(value):
            self._report(line, "a lone surrogate stands here, which is not valid Unicode")
            value, sound = "\N{REPLACEMENT CHARACTER}", False
        if self._wants_key():
            self._take_key(value, line, sound=sound)
            return
        path, kept = self._place(line)
        if kept and not sound:
            self._broken.add(path)
        self._put(value, kept=kept)

    def _take_key(self, key: Json, line: int, *, sound: bool) -> None:
        frame = self._stack[-1]
        frame.waiting = True
        if not isinstance(key, str):
            shown = "" if key is None else f" {quoted(str(key).lower())}"
            self._report(line, f"key{shown} is {_KINDS[type(key)]}; keys are text", "put it in quotes")
        elif not sound or not frame.kept:
            return
        elif key in frame.value:
            first = self._lines[(*frame.path, key)]
            self._report(
                line,
                f"key {quoted(key)} appears twice",
                f"the first one is on line {first}; keep one of them",
            )
        else:
            frame.key = key
            self._lines[(*frame.path, key)] = line

    def _resolve(self, event: Any, line: int) -> Json:
        text: str = event.value
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _WHOLE.fullmatch(text) or _LONG.fullmatch(text):
            number = int(text) if len(text) <= 20 else _INT_MAX + 1
            if _INT_MIN <= number <= _INT_MAX:
                return number
            self._report(
                line,
                f"{quoted(text)} is outside the range of 64-bit integers",
                "put it in quotes if it is text",
            )
            return 0
        return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

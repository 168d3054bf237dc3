"""Where two courses of a run come apart: the first call that is another one, decided or answered in another way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from remit.replay.calls import CallLine
from remit.values import Json, encode

_VARIES = frozenset({"usage", "confidence_per_mille"})
"""What of a model's answer is another number each time, and no other answer."""


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """What a run does, call by call, and how it ends."""

    lines: Sequence[CallLine]
    outcome: str

    @property
    def keys(self) -> list[bytes]:
        """One for each line, and one for the end; two that are the same say the same."""
        return [*map(_key, self.lines), self.outcome.encode()]

    def text(self, index: int) -> str:
        """In words, what happens at one of its places."""
        return _text(self.lines[index]) if index < len(self.lines) else f"the end: {self.outcome}"


class Apart(msgspec.Struct, frozen=True, kw_only=True):
    """At which step two courses come apart, and what happens there: `before` without the change, `after` with it."""

    step: str
    before: str
    after: str


def first_difference(without: Sequence[Course], changed: Sequence[Course]) -> Apart | None:
    """Where one of the `changed` courses first leaves every one `without` the change; `None` where none does."""
    for course in changed:
        near, same = max(((one, _same(one, course)) for one in without), key=lambda found: found[1])
        if same < max(len(near.keys), len(course.keys)):
            step = next((one.lines[same].step for one in (course, near) if same < len(one.lines)), "end")
            return Apart(step=step, before=near.text(same), after=course.text(same))
    return None


def _same(one: Course, other: Course) -> int:
    """How many of their first places are the same."""
    pairs = zip(one.keys, other.keys, strict=False)
    differing = (index for index, (left, right) in enumerate(pairs) if left != right)
    return next(differing, min(len(one.keys), len(other.keys)))


def _key(line: CallLine) -> bytes:
    return encode([line.step, line.tool, line.args, line.verdict, list(line.rules), line.outcome, _answer(line)])


def _answer(line: CallLine) -> Json:
    """What a model has answered; what a tool answers depends on what was asked, and shows in what comes of it."""
    return _without_numbers(line.result) if line.tool.startswith("model:") else None


def _without_numbers(value: Json) -> Json:
    if not isinstance(value, dict):
        return value
    given = cast("dict[str, Any]", value)
    return {name: _without_numbers(each) for name, each in given.items() if name not in _VARIES}


def _text(line: CallLine) -> str:
    answer = _answer(line)
    if line.verdict == "allow" and isinstance(answer, dict):
        given = cast("dict[str, Any]", answer)
        said = ", ".join(f"{name} {_label(each)}" for name, each in sorted(given.items()))
        return f"`{line.tool}` answers {said}"
    fate = line.outcome if line.outcome != "completed" else line.verdict
    rules = f" ({', '.join(line.rules)})" if line.rules and line.verdict != "allow" else ""
    return f"`{line.tool}` {fate}{rules}".strip()


def _label(value: Json) -> str:
    label = cast("dict[str, Any]", value).get("label") if isinstance(value, dict) else value
    return f"`{label}`"

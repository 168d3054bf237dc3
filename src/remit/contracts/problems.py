"""What is wrong with a project's files: one value a problem, all of them shown at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

from remit.errors import ConfigError

_SHOWN = 60


class Severity(StrEnum):
    """Whether a problem keeps the project from being used."""

    ERROR = "error"
    WARNING = "warning"


class Problem(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One thing that is wrong. `file` is relative to the project, `line` counts from 1."""

    file: str
    line: int
    message: str
    suggestion: str = ""
    severity: Severity = Severity.ERROR


class ProjectInvalid(ConfigError):
    """Files of the project are wrong; `problems` holds every one that was found, `message` shows them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(ordered(problems))
        super().__init__(render(self.problems))


def errors(problems: Iterable[Problem]) -> list[Problem]:
    """Those that keep the project from being used."""
    return [problem for problem in problems if problem.severity is Severity.ERROR]


def ordered(problems: Iterable[Problem]) -> list[Problem]:
    """By file and line, each problem once, `remit.toml` first; all of it safe to print."""
    return sorted({_printable(problem) for problem in problems}, key=lambda p: (p.file != "remit.toml", p))


def render(problems: Sequence[Problem]) -> str:
    """The problems as text: `file:line: message`, the suggestion indented below, a count at the end."""
    if not problems:
        return "no problems"
    lines: list[str] = []
    found = ordered(problems)
    for problem in found:
        mark = "warning: " if problem.severity is Severity.WARNING else ""
        lines.append(f"{problem.file}:{problem.line}: {mark}{problem.message}")
        if problem.suggestion:
            lines.append(f"  {problem.suggestion}")
    wrong = len(errors(found))
    warned = len(found) - wrong
    counts = [_plural(n, noun) for n, noun in ((wrong, "problem"), (warned, "warning")) if n]
    lines.append(", ".join(counts))
    return "\n".join(lines)


def render_json(problems: Sequence[Problem]) -> str:
    """The problems as one JSON object: `problems`, each with all its fields, and the counts `errors`, `warnings`."""
    found = ordered(problems)
    wrong = len(errors(found))
    body = {
        "problems": [msgspec.structs.asdict(problem) for problem in found],
        "errors": wrong,
        "warnings": len(found) - wrong,
    }
    return msgspec.json.encode(body).decode()


def _printable(problem: Problem) -> Problem:
    """The problem on one line: parsers of others put into their messages whatever stands in the file."""
    return msgspec.structs.replace(
        problem, message=_one_line(problem.message), suggestion=_one_line(problem.suggestion)
    )


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


def quoted(text: object) -> str:
    """A name out of a file in backticks, safe to print: no control characters, no backticks, not endlessly long."""
    shown = str(text)
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}…"
    return "`" + "".join(c if c.isprintable() and c != "`" else repr(c)[1:-1] for c in shown) + "`"


def listed(names: Iterable[str]) -> str:
    """`a, b, c`, sorted; at most twenty, then how many more."""
    known = sorted(names)
    more = f" and {len(known) - 20} more" if len(known) > 20 else ""
    return ", ".join(quoted(name)[1:-1] for name in known[:20]) + more


def did_you_mean(name: str, known: Iterable[str], what: str) -> str:
    """`did you mean `x`? <what>: a, b, c`, without the question where nothing is near."""
    names = list(known)
    near = difflib.get_close_matches(name[:200], names, n=1, cutoff=0.6)
    question = f"did you mean {quoted(near[0])}? " if near else ""
    return f"{question}{what}: {listed(names) or 'none'}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"

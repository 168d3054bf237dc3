"""Docstrings in the Google style: what a function is for, and what each of its arguments means."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_SECTION = re.compile(r"(Args|Arguments|Attributes|Returns|Yields|Raises):")
_ENTRY = re.compile(r"\*{0,2}([^\s:(]+)\s*(?:\([^)]*\))?:\s*(.*)")


@dataclass(frozen=True, kw_only=True)
class Docstring:
    """`description`: the text outside of sections, unwrapped, paragraphs apart; empty if there is none.

    `fields`: name → description, from `Args` (of a function) or `Attributes` (of a class).
    `returns`: the text under `Returns`; empty if there is none.
    """

    description: str = ""
    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    returns: str = ""


def parse_docstring(text: str | None) -> Docstring:
    """Take a docstring apart. Raises `ValueError` for an entry without a name, or one given twice."""
    prose: list[str] = []
    sections: dict[str, list[str]] = {}
    current = prose
    for line in inspect.cleandoc(text or "").splitlines():
        header = _SECTION.fullmatch(line.rstrip())
        if header is not None:
            current = sections.setdefault(header[1].replace("Arguments", "Args"), [])
        elif line and not line[0].isspace() and current is not prose:
            # Text at the margin ends a section, as readers of the style expect.
            current = prose
            current += ["", line]
        else:
            current.append(line)
    return Docstring(
        description=_unwrap(prose),
        fields=dict(_entries(sections.get("Args", []) + sections.get("Attributes", []))),
        returns=_unwrap(sections.get("Returns", [])),
    )


def _entries(lines: list[str]) -> Iterator[tuple[str, str]]:
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    name, body, seen = "", list[str](), set[str]()
    for line in lines:
        if not line.strip() or line[margin].isspace():
            body.append(line)
            continue
        if name:
            yield name, _unwrap(body)
        found = _ENTRY.fullmatch(line.strip())
        if found is None:
            raise ValueError(f"`{line.strip()}` in the docstring is not of the form `name: description`")
        name, body = found[1], [found[2]]
        if name in seen:
            raise ValueError(f"`{name}` is described twice in the docstring")
        seen.add(name)
    if name:
        yield name, _unwrap(body)


def _unwrap(lines: list[str]) -> str:
    """Lines of one paragraph joined by spaces; paragraphs kept apart by an empty line."""
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            paragraphs[-1].append(line.strip())
        elif paragraphs[-1]:
            paragraphs.append([])
    return "\n\n".join(" ".join(paragraph) for paragraph in paragraphs if paragraph)

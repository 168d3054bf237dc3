"""Labels: where the values of a call came from, found by matching them against what the run has seen.

`user` (the request), `contract`, `person`, `tool:<name>` (trusted), `untrusted:<name>` (text from outside), `model`
(found nowhere else). A value found in a trusted place is trusted, wherever else it also stands; one found only in
untrusted content is untrusted.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping

from remit.values import Json, Path, leaves, show_path

USER = "user"
CONTRACT = "contract"
PERSON = "person"
MODEL = "model"

_SUBSTRING_FROM = 4
"""Shorter texts occur everywhere by chance; they are matched as whole values only."""


def untrusted(source: str) -> str:
    """The label of text from outside that `source` brought in."""
    return f"untrusted:{source}"


def kind_of(label: str) -> str:
    """`tool:orders.read` → `tool`; `user` → `user`."""
    return label.partition(":")[0]


def normalise(text: str) -> str:
    """One spelling for texts that people take for the same: compatibility forms, case, white space."""
    if text.isascii():
        return " ".join(text.casefold().split())
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def pattern(path: Path) -> str:
    """A path as declarations write it: `("lines", 0, "amount")` → `lines.*.amount`."""
    return ".".join("*" if isinstance(part, int) else part for part in path)


def matches(path: str, declared: Iterable[str]) -> bool:
    """Whether a dotted path is one of `declared` or lies below one of them."""
    return any(path == d or path.startswith(d + ".") for d in declared)


class Seen:
    """Everything a run has seen, indexed by value and by text. Grows with the run, never forgets."""

    def __init__(self) -> None:
        self._by_value: dict[str, set[str]] = {}
        self._texts: dict[str, list[str]] = {}

    def add(self, label: str, value: Json, *, outside: str = "", outside_paths: tuple[str, ...] = ()) -> None:
        """Note a value under `label`, except what lies below `outside_paths`: that is under `outside`."""
        for path, leaf in leaves(value):
            if leaf is None or isinstance(leaf, bool):
                continue
            where = outside if outside_paths and matches(pattern(path), outside_paths) else label
            text = normalise(str(leaf))
            self._by_value.setdefault(text, set()).add(where)
            if isinstance(leaf, str) and len(text) >= _SUBSTRING_FROM:
                self._texts.setdefault(where, []).append(text)

    def labels(self, leaf: Json) -> tuple[str, ...]:
        """Where a scalar came from, sorted. Truth values and nulls stand everywhere, so they are the model's."""
        if leaf is None or isinstance(leaf, bool):
            return (MODEL,)
        text = normalise(str(leaf))
        found = self._by_value.get(text, set())
        if not _trusted(found) and isinstance(leaf, str) and len(text) >= _SUBSTRING_FROM:
            found = found | {label for label, texts in self._texts.items() if _within(text, texts)}
        return tuple(sorted(_trusted(found) or found)) or (MODEL,)


def _trusted(found: Iterable[str]) -> set[str]:
    return {label for label in found if kind_of(label) != "untrusted"}


def _within(text: str, texts: Iterable[str]) -> bool:
    return any(text in other for other in texts)


def label_arguments(args: Json, seen: Seen) -> Mapping[str, tuple[str, ...]]:
    """The labels of every argument leaf, by its path as people write it (`lines[0].amount`)."""
    return {show_path(path): seen.labels(leaf) for path, leaf in leaves(args)}

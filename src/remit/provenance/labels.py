"""Labels: where the values of a call came from, found by matching them against what the run has seen.

`user` (the request), `contract`, `person`, `tool:<name>` (trusted), `untrusted:<name>` (text from outside), `model`
(found nowhere, or only said by a model). A value found in a trusted place is trusted, wherever else it also stands;
one found in untrusted content and no trusted place is untrusted, whatever model has repeated it since.

Trust is hard to gain and taint hard to lose. A trusted text vouches only for whole words, spelled as it spells them:
that the user wrote `1500.00` or `ann@corp.example` says nothing of `500.00` or `n@corp.example`. An untrusted text
taints every part of it, in any spelling that people take for the same.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Set

from remit.values import Json, Path, leaves, show_path

USER = "user"
CONTRACT = "contract"
PERSON = "person"
MODEL = "model"

_SUBSTRING_FROM = 4
"""Shorter texts occur everywhere by chance; they are matched as whole values only."""

_SEARCHED = 1_000
"""How many texts of one call are searched for within what was seen. What comes after counts as coming from every
untrusted source, unless a trusted one has given exactly that value."""


def untrusted(source: str) -> str:
    """The label of text from outside that `source` brought in."""
    return f"untrusted:{source}"


def kind_of(label: str) -> str:
    """`tool:orders.read` → `tool`; `user` → `user`."""
    return label.partition(":")[0]


_INVISIBLE = dict.fromkeys(
    [0xAD, 0x61C, 0x180E, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)]
)
_LOWER = {ord(upper): upper.lower() for upper in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def loosely(text: str) -> str:
    """One spelling for what people take for the same: compatibility forms, case, white space, what is not visible."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_INVISIBLE))
    return " ".join(text.casefold().split())


def strictly(text: str) -> str:
    """One spelling for what systems take for the same: only the case of ASCII letters, and white space."""
    return " ".join((text.lower() if text.isascii() else text.translate(_LOWER)).split())


# What may stand around a word without being part of it, before it and behind it. Everything else belongs to the word:
# a sign (`-5`), a path's dots and slashes, the `%` of a share, and whatever stands between two letters.
_OPENING = "([{<\"'`“‘„‚«‹¿¡#@$€£¥"
_CLOSING = ")]}>\"'`”’“‘»›.,;:!?…"
_EDGE = "\0"


def in_words(text: str) -> str:
    """A text with a mark at every place where a value may begin or end.

    One text then stands in another in whole words exactly if its marked form stands in the other's.
    """
    return " ".join([_marked(word) for word in text.replace(_EDGE, "\ufffd").split(" ")])


def _marked(word: str) -> str:
    if word and word[0] not in _OPENING and word[-1] not in _CLOSING:
        return f"{_EDGE}{word}{_EDGE}"
    inner = word.lstrip(_OPENING)
    core = inner.rstrip(_CLOSING)
    before = "".join([_EDGE + char for char in word[: len(word) - len(inner)]])
    behind = "".join([char + _EDGE for char in inner[len(core) :]])
    return f"{before}{_EDGE}{core}{_EDGE}{behind}"


def in_any_part(text: str) -> str:
    """A text as it is, so that every part of it is found."""
    return text


def pattern(path: Path) -> str:
    """A path as declarations write it: `("lines", 0, "amount")` → `lines.*.amount`."""
    return ".".join("*" if isinstance(part, int) else part for part in path)


def matches(path: str, declared: Iterable[str]) -> bool:
    """Whether a dotted path is one of `declared` or lies below one of them."""
    return any(path == d or path.startswith(d + ".") for d in declared)


class _Texts:
    """The texts seen under one label, to be searched all at once."""

    __slots__ = ("_added", "_joined", "_known")

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._added: list[str] = []
        self._joined = ""

    def add(self, text: str) -> None:
        if text not in self._known:
            self._known.add(text)
            self._added.append(text)

    def hold(self, text: str) -> bool:
        """Whether `text` is one of them or a part of one.

        They hold no line break, white space being one blank each, so none is found across the border between two.
        """
        if self._added:
            self._joined = "\n".join([self._joined, *self._added])
            self._added.clear()
        return text in self._joined


class _Index:
    """What was seen from sources of one kind: by value and by text, spelled and cut in the way that suits the kind."""

    def __init__(self, spell: Callable[[str], str], cut: Callable[[str], str]) -> None:
        self._spell = spell
        self._cut = cut
        self._values: dict[str, set[str]] = {}
        self._texts: dict[str, _Texts] = {}

    def add(self, label: str, leaf: Json) -> None:
        text = self._spell(str(leaf))
        self._values.setdefault(text, set()).add(label)
        if isinstance(leaf, str) and len(text) >= _SUBSTRING_FROM:
            self._texts.setdefault(label, _Texts()).add(self._cut(text))

    def exactly(self, leaf: Json) -> Set[str]:
        """The sources that gave this very value."""
        if not self._values:
            return _NOWHERE
        return self._values.get(self._spell(str(leaf)), _NOWHERE)

    def within(self, leaf: Json) -> Set[str]:
        """The sources in whose texts this one stands."""
        text = self._spell(leaf) if self._texts and isinstance(leaf, str) else ""
        if len(text) < _SUBSTRING_FROM:
            return _NOWHERE
        cut = self._cut(text)
        return {label for label, texts in self._texts.items() if texts.hold(cut)}

    def sources(self) -> Set[str]:
        """The sources that gave texts."""
        return self._texts.keys()


_NOWHERE: frozenset[str] = frozenset()


class Seen:
    """Everything a run has seen, indexed by value and by text. Grows with the run, never forgets."""

    def __init__(self) -> None:
        self._trusted = _Index(strictly, in_words)
        self._untrusted = _Index(loosely, in_any_part)

    def add(self, label: str, value: Json, *, outside: str = "", outside_paths: tuple[str, ...] = ()) -> None:
        """Note a value under `label`, except what lies below `outside_paths`: that is under `outside`.

        What a model says is no source: it says again what it has read, and makes up the rest.
        """
        for path, leaf in leaves(value):
            if leaf is None or isinstance(leaf, bool):
                continue
            where = outside if outside_paths and matches(pattern(path), outside_paths) else label
            match kind_of(where):
                case "model":
                    continue
                case "untrusted":
                    self._untrusted.add(where, leaf)
                case _:
                    self._trusted.add(where, leaf)

    def labels(self, leaf: Json) -> tuple[str, ...]:
        """Where a scalar came from, sorted. Truth values and nulls stand everywhere, so they are the model's."""
        if leaf is None or isinstance(leaf, bool):
            return (MODEL,)
        trusted = self._trusted.exactly(leaf) or self._trusted.within(leaf)
        return tuple(sorted(trusted or self._untrusted.exactly(leaf) | self._untrusted.within(leaf))) or (MODEL,)

    def labels_unsearched(self, leaf: Json) -> tuple[str, ...]:
        """The same without a search in texts: what no source has given as a value may be from any untrusted one."""
        if leaf is None or isinstance(leaf, bool):
            return (MODEL,)
        found = self._trusted.exactly(leaf) or self._untrusted.exactly(leaf)
        return tuple(sorted(found or self._untrusted.sources())) or (MODEL,)


def label_arguments(args: Json, seen: Seen) -> Mapping[str, tuple[str, ...]]:
    """The labels of every argument leaf, by its path as people write it (`lines[0].amount`)."""
    labels: dict[str, tuple[str, ...]] = {}
    texts = 0
    for path, leaf in leaves(args):
        texts += isinstance(leaf, str)
        found = seen.labels(leaf) if texts <= _SEARCHED else seen.labels_unsearched(leaf)
        name = show_path(path)
        # Keys with dots can make two places look alike; then each has the labels of both.
        labels[name] = tuple(sorted({*labels[name], *found})) if name in labels else found
    return labels

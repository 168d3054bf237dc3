"""Labels: where the values of a call came from, found by matching them against what the run has seen.

`user` (the request), `contract`, `person` (what somebody wrote who was asked), `tool:<name>` (trusted),
`untrusted:<name>` (text from outside), `model` (found nowhere, or only said by a model). A value found in a trusted place is trusted, wherever else it also stands;
one found in untrusted content and no trusted place is untrusted, whatever model has repeated it since.

Trust is hard to gain and taint hard to lose. A trusted text vouches only for whole words, spelled as it spells them:
that the user wrote `1500.00` or `ann@corp.example` says nothing of `500.00` or `n@corp.example`. Of an untrusted text
only letters and digits count, so that it taints every part of it however that is spaced, punctuated or written. Values
of fewer than four characters stand everywhere by chance: no trusted text vouches for them, and an untrusted one taints
those that are words of it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import chain, pairwise
from typing import Final, cast

from remit.values import Json, Path, leaves, show_path

USER = "user"
CONTRACT = "contract"
MODEL = "model"
PERSON = "person"

Labels = tuple[str, ...]
"""Where a value came from; sorted, each label once."""

_PART_FROM: Final = 4
"""From how many characters on a value may be a part of a text; a shorter one is a whole value, or a word."""

_SEARCHED: Final = 1_000
"""How many values of one call are searched for within what was seen. What comes after counts as coming from every
untrusted source, unless a trusted one has given exactly that value."""

_OF_MODEL: Final = (MODEL,)


def untrusted(source: str) -> str:
    """The label of text from outside that `source` brought in."""
    return f"untrusted:{source}"


def kind_of(label: str) -> str:
    """`tool:orders.read` → `tool`; `user` → `user`."""
    return label.partition(":")[0]


# Trusted texts: whole words, spelled as systems spell them

_LOWER = {ord(upper): upper.lower() for upper in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def strictly(text: str) -> str:
    """One spelling for what systems take for the same: only the case of ASCII letters, and white space."""
    return " ".join((text.lower() if text.isascii() else text.translate(_LOWER)).split())


# What may stand around a word without being part of it, before it and behind it. Everything else belongs to the word:
# a sign (`-5`), a path's dots and slashes, the `%` of a share, and whatever stands between two letters.
_OPENING = "([{<\"'`“‘„‚«‹¿¡#@$€£¥"
_CLOSING = ")]}>\"'`”’“‘»›.,;:!?…"
_EDGE = "\0"
_AROUND = frozenset(_OPENING + _CLOSING)


def in_words(text: str) -> str:
    """A text with a mark at every place where a value may begin or end.

    One text then stands in another in whole words exactly if its marked form stands in the other's.
    """
    return " ".join([_marked(word) for word in text.replace(_EDGE, "\ufffd").split(" ")])


def _marked(word: str) -> str:
    if word and word[0] not in _AROUND and word[-1] not in _AROUND:
        return f"{_EDGE}{word}{_EDGE}"
    inner = word.lstrip(_OPENING)
    core = inner.rstrip(_CLOSING)
    before = "".join([_EDGE + char for char in word[: len(word) - len(inner)]])
    behind = "".join([char + _EDGE for char in inner[len(core) :]])
    return f"{before}{_EDGE}{core}{_EDGE}{behind}"


class _Searched:
    """Texts to be searched all at once. They hold no line break, so none is found across the border between two."""

    __slots__ = ("_added", "_joined")

    def __init__(self) -> None:
        self._added: list[str] = []
        self._joined = ""

    def add(self, text: str) -> None:
        self._added.append(text)

    def hold(self, part: str) -> bool:
        """Whether `part` is one of them or a part of one."""
        if self._added:
            self._joined = "\n".join([self._joined, *self._added])
            self._added.clear()
        return part in self._joined


class _Trusted:
    """What one trusted source has given as texts; they are cut into words when a part of one is found among them."""

    __slots__ = ("_cut", "_known", "_plain", "_uncut")

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._uncut: list[str] = []
        self._plain = _Searched()
        self._cut = _Searched()

    def add(self, text: str) -> None:
        if text not in self._known:
            self._known.add(text)
            self._uncut.append(text)
            self._plain.add(text)

    def hold(self, text: str) -> bool:
        """Whether `text` stands in one of the texts in whole words."""
        if not self._plain.hold(text):
            return False
        for each in self._uncut:
            self._cut.add(in_words(each))
        self._uncut.clear()
        return self._cut.hold(in_words(text))


# Untrusted texts: letters and digits, whatever stands between them

_ASCII = bytes(range(128)).decode()
_SPACED = bytes(ord(c.lower()) if c.isalnum() else ord(" ") for c in _ASCII) + bytes(range(128, 256))
_NO_LETTER = re.compile(r"[\W_\u115f\u1160]+")
"""What is neither letter nor digit, and the two letters of Hangul that nobody sees."""
_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")
_SIGNS = re.compile(r"(?<!\S)(?:[^\w\s]|_)+(?!\S)")
_DECIMAL = re.compile(r"[+-]?([0-9]+)\.([0-9]+)", re.ASCII)


def words_of(text: str) -> list[str]:
    """The runs of letters and digits of a text, in one spelling for what people take for the same.

    Compatibility forms, accents, case and the digits of other scripts are gone. Every character is spelled for itself,
    so the letters of a part are a part of the letters of the whole.
    """
    if text.isascii():
        return text.encode().translate(_SPACED).decode().split()
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    marked = "".join([char for char in plain if not unicodedata.combining(char)])
    digits = _FOREIGN_DIGIT.sub(lambda found: str(unicodedata.decimal(found[0])), marked)
    return _NO_LETTER.sub(" ", digits).split()


def letters_of(text: str) -> str:
    """The letters and digits of a text, see `words_of`."""
    return "".join(words_of(text))


def spellings(value: str | float) -> tuple[str, ...]:
    """The letters and digits of a value, in each way that people write it: `84.50` is also `84.5`, `84.00` also `84`.

    A value that has none is spelled as it is.
    """
    if type(value) is int:
        return (str(abs(value)),)
    text = value if isinstance(value, str) else f"{Decimal(repr(value)):f}"
    number = _DECIMAL.fullmatch(text) if "." in text else None
    if number is None:
        return (letters_of(text) or text.strip(),)
    whole, decimals = number[1], number[2].rstrip("0")
    if not decimals:
        return (whole + number[2], whole)
    return (whole + number[2], whole + decimals, whole + decimals.ljust(2, "0"))


class _Outside:
    """The texts of one untrusted source, read when the first of them is searched."""

    __slots__ = ("_known", "_searched", "_short", "_unread")

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._unread: list[str] = []
        self._searched = _Searched()
        self._short: set[str] = set()

    def add(self, text: str) -> None:
        if text not in self._known:
            self._known.add(text)
            self._unread.append(text)

    def hold(self, spelled: tuple[str, ...]) -> bool:
        """Whether a value stands in one of the texts in one of its spellings, a short one as a whole word."""
        if self._unread:
            self._read()
        return any(each in self._short or (len(each) >= _PART_FROM and self._searched.hold(each)) for each in spelled)

    def _read(self) -> None:
        for text in self._unread:
            words = words_of(text)
            self._searched.add("".join(words))
            self._short.update(_short(words), _SIGNS.findall(text))
        self._unread.clear()


def _short(words: list[str]) -> Iterator[str]:
    """Every word, and every few words in a row, that are shorter than what is searched for as a part."""
    short = [word if len(word) < _PART_FROM else "" for word in words]
    yield from filter(None, short)
    for one, two in pairwise(short):
        if one and two and len(one) + len(two) < _PART_FROM:
            yield one + two
    for one, two, three in zip(short, short[1:], short[2:], strict=False):
        if len(one) == len(two) == len(three) == 1:
            yield one + two + three


# Paths


def pattern(path: Path) -> str:
    """A path as declarations write it: `("lines", 0, "amount")` → `lines.*.amount`."""
    return ".".join(["*" if isinstance(part, int) else part for part in path])


def matches(path: str, declared: Iterable[str]) -> bool:
    """Whether a dotted path is one of `declared` or lies below one of them."""
    return any(path == each or path.startswith(each + ".") for each in declared)


def _free_keys(value: Json, maps: frozenset[str]) -> Iterator[tuple[Path, str]]:
    """The keys of the objects at `maps`, each with the path of what stands under it."""
    stack: list[tuple[Path, str, Json]] = [((), "", value)]
    while stack:
        path, place, item = stack.pop()
        below = f"{place}." if place else ""
        if isinstance(item, dict):
            table = cast("dict[str, Json]", item)
            is_free = place in maps
            if is_free:
                yield from (((*path, key), key) for key in table)
            stack.extend(((*path, key), below + ("*" if is_free else key), child) for key, child in table.items())
        elif isinstance(item, list):
            items = enumerate(cast("list[Json]", item))
            stack.extend(((*path, at), f"{below}*", child) for at, child in items)


# What a run has seen


_NO_ECHOES: Mapping[str, Labels] = {}
_ECHO_FROM = 8
"""A text of at least so many characters counts as said again wherever it stands; a shorter one only by itself."""


def echoes_of(
    args: Json, labels: Mapping[str, Labels], *, found: Sequence[tuple[Path, Json]] = ()
) -> Mapping[str, Labels]:
    """The values of a call's arguments that nobody trustworthy has given, with their labels.

    `found`: the leaves, where somebody has walked the arguments already.
    """
    echoes: dict[str, Labels] = {}
    for path, leaf in found or leaves(args):
        known = labels.get(show_path(path), _OF_MODEL)
        if known == _OF_MODEL or all(kind_of(label) in (MODEL, "untrusted") for label in known):
            echoes[str(leaf)] = known
    return echoes


class _Echoes:
    """What would only be said again, see `echoes_of`: by itself, or, where it is long enough, within a text."""

    __slots__ = ("_alone", "_within")

    def __init__(self, echoes: Mapping[str, Labels]) -> None:
        self._alone = echoes
        self._within = [(said, known) for said, known in echoes.items() if len(said) >= _ECHO_FROM]

    def labels(self, text: str) -> Labels:
        found = self._alone.get(text)
        if found is not None:
            return found
        return _labels([label for said, known in self._within if said in text for label in known])


class Seen:
    """Everything a run has seen, indexed by value and by text. Grows with the run, never forgets."""

    def __init__(self) -> None:
        self._values: dict[str, Labels] = {}
        self._texts: dict[str, _Trusted] = {}
        self._outside: dict[str, _Outside] = {}

    def add(
        self,
        label: str,
        value: Json,
        *,
        outside: str = "",
        outside_paths: tuple[str, ...] = (),
        maps: frozenset[str] = frozenset(),
        echoes: Mapping[str, Labels] = _NO_ECHOES,
    ) -> None:
        """Note a value under `label`, except what lies below `outside_paths`: that is under `outside`.

        The keys of the objects at `maps` (see `remit.tools.schemas.maps_in`) are values as well. What a model says is no
        source: it says again what it has read, and makes up the rest. What only says `echoes` again (see
        `echoes_of`) keeps their labels: no value gains trust because a tool repeats it.
        """
        found = chain(leaves(value), _free_keys(value, maps)) if maps else leaves(value)
        said = _Echoes(echoes) if echoes else None
        for path, leaf in found:
            where = outside if outside_paths and matches(pattern(path), outside_paths) else label
            if where is outside or said is None or leaf is None:
                self._note(where, leaf)
                continue
            for origin in said.labels(str(leaf)) or (where,):
                self._note(origin, leaf)

    def _note(self, label: str, leaf: Json) -> None:
        if leaf is None or leaf is True or leaf is False:
            return
        text = leaf if isinstance(leaf, str) else str(leaf)
        if label.startswith("untrusted:"):
            source = self._outside.get(label) or self._outside.setdefault(label, _Outside())
            source.add(text)
        elif kind_of(label) != MODEL:
            self._trust(label, strictly(text), is_text=text is leaf)

    def _trust(self, label: str, text: str, *, is_text: bool) -> None:
        known = self._values.get(text)
        if known is None:
            self._values[text] = (label,)
        elif label not in known:
            self._values[text] = tuple(sorted((*known, label)))
        if is_text and len(text) >= _PART_FROM:
            source = self._texts.get(label) or self._texts.setdefault(label, _Trusted())
            source.add(text)

    def labels(self, leaf: Json, *, searched: bool = True) -> Labels:
        """Where a scalar came from. Truth values and nulls stand everywhere, so they are the model's.

        Not `searched` for within texts, what no trusted source has given as a value may be from any untrusted one.
        """
        if leaf is None or leaf is True or leaf is False:
            return _OF_MODEL
        text = strictly(leaf if isinstance(leaf, str) else str(leaf))
        exactly = self._values.get(text)
        if exactly is not None:
            return exactly
        if not searched:
            return tuple(sorted(self._outside)) or _OF_MODEL
        return self._in_trusted(text) or self._in_untrusted(leaf) or _OF_MODEL

    def _in_trusted(self, text: str) -> Labels:
        if not self._texts or len(text) < _PART_FROM:
            return ()
        return _labels([label for label, texts in self._texts.items() if texts.hold(text)])

    def _in_untrusted(self, leaf: str | float) -> Labels:
        if not self._outside:
            return ()
        spelled = spellings(leaf)
        return _labels([label for label, texts in self._outside.items() if texts.hold(spelled)])


def _labels(found: list[str]) -> Labels:
    return tuple(sorted(found)) if found else ()


def label_arguments(
    args: Json,
    seen: Seen,
    *,
    maps: frozenset[str] = frozenset(),
    found: Iterable[tuple[Path, Json]] | None = None,
) -> Mapping[str, Labels]:
    """The labels of every argument leaf, by its path as people write it (`lines[0].amount`).

    The keys of the objects at `maps` (`ToolSpec.maps`) are labelled too, and their labels are joined to those of what
    lies below them. `found`: the leaves, where somebody has walked the arguments already.
    """
    labels: dict[str, Labels] = {}
    keys: dict[Path, Labels] = {}
    for number, (path, key) in enumerate(_free_keys(args, maps) if maps else ()):
        keys[path] = seen.labels(key, searched=number < _SEARCHED)
    searches = len(keys)
    for path, leaf in leaves(args) if found is None else found:
        is_searched = _is_searched(leaf)
        searches += is_searched
        came_from = seen.labels(leaf, searched=not is_searched or searches <= _SEARCHED)
        if keys:
            above = [keys.get(path[:length], ()) for length in range(1, len(path) + 1)]
            came_from = joined(came_from, *above)
        _put(labels, path, came_from)
    for path, came_from in keys.items():
        _put(labels, path, came_from)
    return labels


def _is_searched(leaf: Json) -> bool:
    """Whether a value can be long enough to be a part of a text; short ones are looked up."""
    return type(leaf) is str or type(leaf) is float or (type(leaf) is int and not -1_000 < leaf < 1_000)


def _put(labels: dict[str, Labels], path: Path, came_from: Labels) -> None:
    # Keys with dots can make two places look alike; then each has the labels of both.
    name = show_path(path)
    labels[name] = joined(labels[name], came_from) if name in labels else came_from


def joined(*labels: Labels) -> Labels:
    """The labels of what is made of several values."""
    return tuple(sorted({label for each in labels for label in each}))

"""Values that a run knows already, found again in another spelling: in other case, without or with other separators,
backwards, or as hexadecimal, a URL or Base64 have them.

Text and values are folded to the same form, lower-case letters and digits alone, and what a value can look like there
is looked for as it is. That is linear in the text, and for a text without any of them a few searches and no more.
"""

from __future__ import annotations

import unicodedata
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any, cast
from urllib.parse import quote

import msgspec
import re2  # pyright: ignore[reportMissingTypeStubs]

from remit.journal.literals import WORD_CHARS, Found, apart, is_whole

MOST, LONGEST = 128, 4096
"""How many values are known in this way at most, and of how many characters; what else a run has seen is known only as it
stands."""
_AT_ONCE_BYTES = 256
"""What is longer is looked for by itself: an expression of many such would be larger than RE2 admits."""
_SHORTEST, _SHORTEST_DIGITS, _SHORTEST_BACKWARDS, _SHORTEST_CODED = 4, 6, 6, 8
_ONE_BY_ONE = 14
_LOWER = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz")
_DROPPED = bytes(byte for byte in range(128) if not chr(byte).isalnum())


# The package has no types.
_compile = cast("Callable[[str], Any]", re2.compile)  # pyright: ignore[reportUnknownMemberType]


def folded(data: bytes) -> bytes:
    """A text in UTF-8 as letters and digits alone, in lower case and without accents."""
    if data.isascii():
        return data.translate(_LOWER, _DROPPED)
    return _fold(data.decode(errors="replace")).encode()


def _fold(text: str) -> str:
    """Folded as a whole or character by character, a text is the same: what could change places is no letter."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", text).casefold()))


class Variant(msgspec.Struct, frozen=True):
    """One way in which a known value can stand in a folded text. `whole`: only as a word of its own, or several.

    `before`, `behind`: what is no letter or digit at the ends of the value, such as the `+` of a telephone number.
    """

    needle: bytes
    kind: str
    whole: bool
    before: str = ""
    behind: str = ""


def variants_of(kind: str, value: str, *, anywhere: bool) -> Iterator[Variant]:
    """The ways in which a value is known again; none for one that stands everywhere by chance.

    `anywhere`: also within a longer word, for what no word holds by chance: credentials, whose Base64 is known anyway.
    """
    data, coded_already = value.encode(errors="replace"), anywhere
    plain = folded(data)
    if len(plain) < (_SHORTEST_DIGITS if plain.isdigit() else _SHORTEST):
        return
    text = plain.decode()
    anywhere = anywhere or len(text) >= WORD_CHARS
    # Where a sign such as `℡` is all there is, the value has no such ends.
    inner = [place for place, character in enumerate(value) if _fold(character)]
    yield Variant(plain, kind, not anywhere, value[: inner[0]], value[inner[-1] + 1 :])
    if len(text) >= _SHORTEST_BACKWARDS and text != text[::-1]:
        yield Variant(text[::-1].encode(), kind, not anywhere)
    yield Variant(data.hex().encode(), kind, False)
    address = folded(quote(value.encode(errors="replace"), "").encode())
    if address != plain:
        yield Variant(address, kind, not anywhere)
    for shift in range(0 if coded_already else 3):
        coded = b64encode(b"\0" * shift + data + b"\0" * (-(shift + len(data)) % 3))
        # Without the characters that depend on what stands around it.
        inner = folded(coded[(shift * 8 + 5) // 6 : (shift + len(data)) * 8 // 6])
        if len(inner) >= _SHORTEST_CODED:
            yield Variant(inner, kind, False)


class Variants:
    """The values that are known, in all their spellings.

    A few are looked for one by one. Of many, an expression is made that finds all of them in the same time; it is made
    anew when half as many have been added, so that what is paid for it grows no faster than their number.
    """

    def __init__(self) -> None:
        self._found: dict[bytes, Variant] = {}
        self._values: set[str] = set()
        self._all: Any = None
        self._recent: list[bytes] = []
        self._long: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def copy(self) -> Variants:
        """The same values, to which others can be added."""
        own = Variants()
        own._found, own._values = dict(self._found), set(self._values)
        own._all, own._recent, own._long = self._all, list(self._recent), list(self._long)
        return own

    def add(self, kind: str, value: str, *, anywhere: bool = False) -> None:
        """Know a value from now on."""
        if value in self._values or len(self._values) >= MOST or len(value) > LONGEST:
            return
        self._values.add(value)
        for variant in variants_of(kind, value, anywhere=anywhere):
            if variant.needle not in self._found:
                self._found[variant.needle] = variant
                (self._long if len(variant.needle) > _AT_ONCE_BYTES else self._recent).append(variant.needle)
        if len(self._recent) > max(_ONE_BY_ONE, len(self._found) // 3):
            self.settle()

    def settle(self) -> None:
        """Make the expression that finds all of them at once."""
        if self._recent:
            at_once = (needle.decode() for needle in self._found if len(needle) <= _AT_ONCE_BYTES)
            self._all, self._recent = _compile("|".join(at_once)), []

    def stand_in(self, data: bytes) -> bool:
        """Whether any of them may stand in a text, given in UTF-8."""
        if not self._found:
            return False
        plain = folded(data)
        for needle in (*self._recent, *self._long):
            if needle in plain:
                return True
        return self._all is not None and self._all.search(plain) is not None

    def found(self, text: str) -> list[Found]:
        """Where they stand in a text, from left to right; none overlaps another."""
        data = text.encode(errors="replace")
        if not self.stand_in(data):
            return []
        plain = folded(data)
        present = [variant for needle, variant in self._found.items() if needle in plain]
        letters, places = _spread(text)
        spans = (span for variant in present for span in _places(variant, letters, places, text))
        return apart(spans)


def _spread(text: str) -> tuple[str, list[int]]:
    """The folded text, and where in the text each of its characters comes from."""
    letters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        plain = _fold(character)
        letters.append(plain)
        places.extend([place] * len(plain))
    return "".join(letters), places


def _places(variant: Variant, letters: str, places: list[int], text: str) -> Iterator[Found]:
    needle = variant.needle.decode()
    at = letters.find(needle)
    while at >= 0:
        start, end = places[at], places[at + len(needle) - 1] + 1
        if _is_pseudonyms_class(text, start, end) or (variant.whole and not is_whole(text, start, end)):
            at = letters.find(needle, at + 1)
            continue
        yield Found(*_with_ends(variant, text, start, end), variant.kind)
        at = letters.find(needle, at + len(needle))


def _with_ends(variant: Variant, text: str, start: int, end: int) -> tuple[int, int]:
    """The piece with what the value begins and ends with, where that stands there: it is shown as it was the first time."""
    if text.endswith(variant.before, 0, start):
        start -= len(variant.before)
    return start, end + len(variant.behind) if text.startswith(variant.behind, end) else end


def _is_pseudonyms_class(text: str, start: int, end: int) -> bool:
    """Whether this is the word before the colon of `<personal:…>`, which conceals a value already."""
    return text[start - 1 : start] == "<" and text[end : end + 1] == ":"

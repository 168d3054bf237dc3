"""Texts behind their encodings: as URLs, JSON, HTML and mail spell them, and in other characters that look the same."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, unquote_plus

import re2  # pyright: ignore[reportMissingTypeStubs]

ENCODED = r"%[0-9A-Fa-f]{2}|[?&;][^\s=]*=[^\s+]*\+|\\[uUx/]|&#?[0-9A-Za-z]+;|=[0-9A-F]{2}"
"""Something stands there as in `ann%40corp.example`, `?q=my+password`, `\\u0040`, `&#64;` or `=40`."""
_ENCODED: Any = re2.compile(ENCODED)  # pyright: ignore[reportUnknownMemberType]
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|/)")
_PRINTABLE = re.compile(r"=([0-9A-Fa-f]{2})|=\r?\n")
_MOST_TIMES = 3
"""How often a text may have been encoded over."""

_HYPHENS = re.compile("[\u2010-\u2015\u2212\ufe58\ufe63]")
_NOTHING = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")


def may_be_encoded(data: bytes) -> bool:
    """Whether something in a text, given in UTF-8, may be encoded."""
    return _ENCODED.search(data) is not None


def decoded(text: str) -> Iterator[str]:
    """What a text may say once it is decoded, once and over; never the text itself."""
    seen = {text}
    for chain in (_as_it_is, _in_form, _in_mail):
        read = text
        for _ in range(_MOST_TIMES):
            read = chain(read)
            if read in seen:
                break
            seen.add(read)
            yield read


def _as_it_is(text: str) -> str:
    return html.unescape(_unescaped(unquote(text)))


def _in_form(text: str) -> str:
    return html.unescape(_unescaped(unquote_plus(text)))


def _in_mail(text: str) -> str:
    """Quoted-printable (RFC 2045), which would garble an address such as `?a=12`."""
    return _as_it_is(_PRINTABLE.sub(lambda found: f"%{found[1]}" if found[1] else "", text))


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    read = _ESCAPE.sub(_character, text)
    # Two halves of one character, as JSON has those beyond the first plane.
    return read.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if read != text else text


def _character(found: re.Match[str]) -> str:
    digits = found[1] or found[2] or found[3]
    number = int(digits, 16) if digits else ord("/")
    return chr(number) if number <= 0x10FFFF else found[0]


def plain(text: str) -> str:
    """A text in the characters that detectors know: composed, with plain blanks, hyphens, digits and letters (NFKC)."""
    if text.isascii():
        return text
    return _NOTHING.sub("", _HYPHENS.sub("-", unicodedata.normalize("NFKC", text)))

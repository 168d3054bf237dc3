"""Detectors: what personal data and credentials look like in a text, by form and by check digits.

Regular expressions are RE2's: linear in the text, whatever the text is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import re2  # pyright: ignore[reportMissingTypeStubs]

from remit.journal.encodings import ENCODED
from remit.journal.national_ids import PATTERN, national_id

# The package has no types.
compiled = cast("Callable[[str], Any]", re2.compile)  # pyright: ignore[reportUnknownMemberType]


_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def card(text: str) -> int:
    """How much of the text, from its start, is a card number by Luhn's formula (ISO/IEC 7812-1); 0 for nothing."""
    digits: list[int] = []
    ends: list[tuple[int, int]] = []
    for i, char in enumerate(text):
        if char.isdigit():
            digits.append(int(char))
            if len(digits) >= 13 and not text[i + 1 : i + 2].isdigit():
                ends.append((i + 1, len(digits)))
    for end, count in reversed(ends):
        counted = digits[:count]
        if (sum(counted[-1::-2]) + sum(_DOUBLED[d] for d in counted[-2::-2])) % 10 == 0:
            return end
    return 0


# Lengths of account numbers by country, from the registry of ISO 13616.
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}


def _iban(text: str) -> int:
    """How much of the text, from its start, is an account number by its check digits (ISO 13616); 0 for nothing."""
    length = _IBAN_LENGTHS.get(text[:2].upper(), 0)
    places = [i for i, char in enumerate(text) if char != " "]
    if not 0 < length <= len(places):
        return 0
    end = places[length - 1] + 1
    compact = text[:end].replace(" ", "")
    number = int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4]))
    return end if number % 97 == 1 and not text[end : end + 1].isalnum() else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Detector:
    """Finds one kind of text. `accepted` says how much of a candidate it really is; without it, all of it."""

    kind: str
    pattern: str
    expression: Any
    accepted: Callable[[str], int] | None


def _detector(kind: str, pattern: str, accepted: Callable[[str], int] | None = None) -> Detector:
    return Detector(kind=kind, pattern=pattern, expression=compiled(pattern), accepted=accepted)


_TOKENS = (
    # A body in lines, or with `\n` written out as JSON does; headers of an encrypted one as well.
    r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s\\:,]*(?:-[A-Za-z0-9+/=\s\\:,]+)*"
    r"(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----)?"
    r"|\b(?:sk|pk|rk)[-_](?:live|test|proj|ant)[-_A-Za-z0-9]{12,}|\bsk-[-_A-Za-z0-9]{20,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[-A-Za-z0-9_]{16,}"
    r"|\bxox[abprs]-[-A-Za-z0-9]{10,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[-_A-Za-z0-9]{30,}"
    r"|(?i:\bbearer\s+[-._~+/A-Za-z0-9]{16,}=*)|(?i:authorization[\"'\\]*\s*[:=,]\s*[\"'b\\]*[a-z]+\s+[^\s\"'\\<]{6,})|://[^\s/:@<]*:[^\s/@<]+@"
)
_NAMES = r"(?:password|passwd|passwort|passphrase|pwd|secret|api[-_ ]?key)"
_MEANS = rf"(?:{_NAMES}[\\\"']*\s*(?:is|ist)\s+|(?:{_NAMES}|token)[\\\"']*\s*(?:(?:is|ist)\s*)?[:=]\s*)"

# Each goes over the text by itself. In one expression, a candidate that begins early and comes to nothing far behind
# would have to be waited for at every other find, and the time would grow with the square of the text. What is whole
# comes first, what only its surroundings betray comes last: `password: ` hides whatever stands there by then.
DETECTORS = (
    _detector("key", _TOKENS),
    _detector("key", r"\beyJ[-_A-Za-z0-9]{8,}\.[-_A-Za-z0-9]{8,}\.[-_A-Za-z0-9]*"),
    _detector("email", r"[\pL\pN._%+-]+@[\pL\pN-]+(?:\.[\pL\pN-]+)+"),
    _detector("iban", r"\b[A-Za-z]{2}[0-9]{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?\b", _iban),
    _detector("national-id", PATTERN, national_id),
    _detector("phone", r"(?:\+|\b00)[1-9][0-9]{0,2}(?:[ ()/.-]{0,2}[0-9]){7,13}\b"),
    _detector("card", r"\b[2-6](?:[ -]?[0-9]){12,18}\b|\b[2-6][0-9]{3}\.[0-9]{4}\.[0-9]{4}\.[0-9]{1,7}\b", card),
    _detector("key", rf"(?i:\w*{_MEANS}+(?:\"(?:[^\"\\\n]|\\[^\n])+\"|\S{{4,}}))"),
)
KINDS = tuple(dict.fromkeys(detector.kind for detector in DETECTORS))
_ANY = "|".join(f"(?:{detector.pattern})" for detector in DETECTORS)
CANDIDATES = compiled(_ANY)
"""Finds something in every text in which a detector does; what it finds may be nothing all the same."""
CANDIDATES_OR_ENCODED = compiled(f"{_ANY}|{ENCODED}")
"""The same, and what may be an encoded text."""

_CARDS_FROM, _CARDS_TO = 10**12, 10**19


def card_number(value: float) -> str:
    """A card number that stands as a number, as text; empty for any other number."""
    if not _CARDS_FROM <= value < _CARDS_TO or value != int(value):
        return ""
    text = str(int(value))
    return text if text[0] in "23456" and card(text) == len(text) else ""


def _in_one_piece(text: str) -> str:
    return "".join(char for char in text if char.isalnum()).upper()


def _without_prefix(text: str) -> str:
    digits = _in_one_piece(text)
    return digits.removeprefix("00")


SPELLED: Mapping[str, Callable[[str], str]] = {
    "email": str.lower,
    "iban": _in_one_piece,
    "card": _in_one_piece,
    "national-id": _in_one_piece,
    "phone": _without_prefix,
}
"""Values that people write in several ways, as one: whoever follows one of them follows all."""

"""Redaction: what is stored, logged or shown carries stable pseudonyms instead of personal and secret values.

Two sources say what to hide: the field classes that a tool declares, and detectors that look into every text. A
pseudonym is `<class:hmac>` under a key of the tenant, so that one can still follow a value without learning it.
Regular expressions are RE2's: linear in the text, whatever the text is.
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, quote_plus, unquote_plus

import msgspec
import re2  # pyright: ignore[reportMissingTypeStubs]

from remit.journal.national_ids import PATTERN, national_id
from remit.journal.pseudonyms import shown_class
from remit.journal.variants import Variants
from remit.tools.spec import FieldClass
from remit.values import Json, encode

# The package has no types.
_compile = cast("Callable[[str], Any]", re2.compile)  # pyright: ignore[reportUnknownMemberType]
_escape = cast("Callable[[str], str]", re2.escape)  # pyright: ignore[reportUnknownMemberType]


_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def _card(text: str) -> int:
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
    length = _IBAN_LENGTHS.get(text[:2], 0)
    places = [i for i, char in enumerate(text) if char != " "]
    if not 0 < length <= len(places):
        return 0
    end = places[length - 1] + 1
    compact = text[:end].replace(" ", "")
    number = int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4]))
    return end if number % 97 == 1 and not text[end : end + 1].isalnum() else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Detector:
    """Finds one kind of text. `accepted` says how much of a candidate it really is; without it, all of it."""

    kind: str
    pattern: str
    expression: Any
    accepted: Callable[[str], int] | None


def _detector(kind: str, pattern: str, accepted: Callable[[str], int] | None = None) -> _Detector:
    return _Detector(kind=kind, pattern=pattern, expression=_compile(pattern), accepted=accepted)


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
_DETECTORS = (
    _detector("key", _TOKENS),
    _detector("key", r"\beyJ[-_A-Za-z0-9]{8,}\.[-_A-Za-z0-9]{8,}\.[-_A-Za-z0-9]*"),
    _detector("email", r"[\pL\pN._%+-]+@[\pL\pN-]+(?:\.[\pL\pN-]+)+"),
    _detector("iban", r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", _iban),
    _detector("national-id", PATTERN, national_id),
    _detector("phone", r"(?:\+|\b00)[1-9][0-9]{0,2}(?:[ ()/.-]{0,2}[0-9]){7,13}\b"),
    _detector("card", r"\b[2-6](?:[ -]?[0-9]){12,18}\b", _card),
    _detector("key", rf"(?i:\w*{_MEANS}+(?:\"(?:[^\"\\\n]|\\[^\n])+\"|\S{{4,}}))"),
)
_KINDS = tuple(dict.fromkeys(detector.kind for detector in _DETECTORS))
_CANDIDATES = _compile("|".join(f"(?:{detector.pattern})" for detector in _DETECTORS))
_MOST_DECODED = 3
"""How often a text may have been encoded over."""
_SHORTEST = 5
"""Whatever a detector looks for has at least as many characters (`a@b.c`)."""

# A pseudonym is letters only: digits could look like the very thing that a detector seeks.
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")


def _in_one_piece(text: str) -> str:
    return "".join(char for char in text if char.isalnum()).upper()


def _without_prefix(text: str) -> str:
    digits = _in_one_piece(text)
    return digits.removeprefix("00")


_SPELLED: Mapping[str, Callable[[str], str]] = {
    "email": str.lower,
    "iban": _in_one_piece,
    "card": _in_one_piece,
    "national-id": _in_one_piece,
    "phone": _without_prefix,
}
"""Values that people write in several ways, as one: whoever follows one of them follows all."""


class Redacted(msgspec.Struct, frozen=True, kw_only=True):
    """A value as it may be kept, and the kinds of data that were found in it.

    `value` is the very same object where nothing had to be replaced. `kinds`: declared classes and detectors' names.
    """

    value: Json
    kinds: frozenset[str]


_NAMED_FROM = 4
_KNOWN_SECRET_FROM = 8
"""A shorter secret is looked for as it stands and travels, and not in other spellings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Classed:
    """A value that a field of a declared class has held, and where it stands as a word of its own."""

    encoded: bytes
    kind: str
    expression: Any


class Redactor:
    """Replaces what must not be kept. `secrets` are literal texts (credentials) that may never appear anywhere."""

    def __init__(self, *, key: bytes, secrets: Iterable[str] = ()) -> None:
        self._key = key
        given = list(secrets)
        spelled = {spelling: None for secret in given if len(secret) >= 6 for spelling in _spellings(secret)}
        self._secrets = tuple(sorted(spelled, key=len, reverse=True))
        self._secrets_encoded = tuple(secret.encode(errors="surrogatepass") for secret in self._secrets)
        self.classed: dict[str, _Classed] | None = None
        self.known = Variants()
        for secret in given:
            if len(secret) >= _KNOWN_SECRET_FROM:
                self.known.add("secret", secret, anywhere=True)
        self.known.settle()
        self.secret_variants = self.known

    def for_run(self) -> Redactor:
        """A redactor for one run: what a declared field has held in it is concealed wherever else it stands in the run."""
        own = copy(self)
        own.classed = {}
        own.known = self.known.copy()
        return own

    def note(self, kind: str, value: Json) -> None:
        """A value of a declared class. Short ones stand everywhere by chance, and numbers are no names of anybody."""
        if self.classed is None or kind == "money" or not isinstance(value, str) or len(value) < _NAMED_FROM:
            return
        if value in self.classed:
            return
        expression = _compile(rf"(?:^|[^\pL\pN])({_escape(value)})(?:[^\pL\pN]|$)")
        self.classed[value] = _Classed(encoded=value.encode(), kind=kind, expression=expression)
        self.known.add(kind, value)

    def detected(self, kind: str, value: str) -> None:
        """A value that a detector has found in the run: it is known again in other spellings as well."""
        if self.classed is not None:
            self.known.add(kind, value)

    def noted(self) -> Iterable[_Classed]:
        return self.classed.values() if self.classed else ()

    @property
    def longest_known(self) -> int:
        """Characters of the longest text that is concealed for what it is: a credential, or what a declared field held."""
        return max(map(len, (*self._secrets, *(self.classed or ()))), default=0)

    def pseudonym(self, kind: str, text: str) -> str:
        """`<email:jphkaibo…>`: the same for the same value, however it is spelled, and useless without the key."""
        kind, text = shown_class(kind), _SPELLED.get(kind, str)(text)
        mac = hmac.digest(self._key, f"{kind}\0{text}".encode(errors="surrogatepass"), "sha256")
        return f"<{kind}:{mac[:6].hex().translate(_LETTERS)}>"

    def mac(self, what: str, data: bytes) -> str:
        """A digest in hexadecimal that tells nothing without the key; of something else (`what`) it is another one."""
        # No class begins with a zero byte, so that this is never what a pseudonym is made of.
        return hmac.digest(self._key, f"\0{what}\0".encode() + data, "sha256").hex()

    def pseudonyms(self, text: str) -> frozenset[str]:
        """Whatever can stand on record in place of a text, whichever kind it was taken for."""
        return frozenset(self.pseudonym(kind, text) for kind in (*_KINDS, *FieldClass, "secret"))

    def text(self, text: str) -> str:
        """A text with every secret and every detected value replaced, and always one that can be stored."""
        return _Pass(self, self._secrets, {}).text(text)

    def holds_credential(self, value: Json) -> bool:
        """Whether one of the gateway's own credentials stands anywhere in a value."""
        if not self._secrets:
            return False
        data = encode(value)
        return any(secret in data for secret in self._secrets_encoded) or self.secret_variants.stand_in(data)

    def without_credentials(self, value: Json) -> Json:
        """A value with every credential of the gateway replaced, and nothing else."""
        return _CredentialsOnly(self, self._secrets, {}).value(value, "")

    def sealed(self, shown: Json, original: Json) -> Json:
        """What to seal beside the redacted `shown`: the original, if it differs, and never one with a credential in it."""
        return None if shown is original or self.holds_credential(original) else original

    def redact(self, value: Json, classes: Mapping[str, str] | None = None, prefix: str = "") -> Redacted:
        """A value with classed fields and detected texts replaced.

        `classes`: dotted path → class, `*` for list indices; the value stands at `prefix`.
        """
        if not self._is_clean(value):
            walk = _Pass(self, self._secrets, classes or {})
        elif classes:
            walk = _ClassesOnly(self, (), classes)
        else:
            return Redacted(value=value, kinds=_NO_KINDS)
        redacted = walk.value(value, prefix)
        return Redacted(value=redacted, kinds=frozenset(walk.kinds))

    def _is_clean(self, value: Json) -> bool:
        """Whether all texts in a value can be kept as they are, found out in one pass over its JSON.

        Where that holds no backslash, every text stands in it as it is, between quotes. Then whatever is found in a
        text is found there as well, because no expression looks further around than to a word boundary, and a quote is
        no part of a word. What is found beyond that only costs the walk over each text by itself, which decides.
        """
        try:
            data = encode(value)
        except (UnicodeEncodeError, TypeError):
            return False
        if b"\\" in data or any(secret in data for secret in self._secrets_encoded):
            return False
        if self.classed and any(classed.encoded in data for classed in self.classed.values()):
            return False
        if self.known.stand_in(data):
            return False
        return _CANDIDATES.search(data) is None and not _may_be_encoded(data)


_NO_KINDS: frozenset[str] = frozenset()
_ENCODED = _compile(r"%[0-9A-Fa-f]{2}|[?&;][^\s=]*=[^\s+]*\+")
_WORD = re.compile(r"\S+")


def _may_be_encoded(data: bytes) -> bool:
    """Whether something stands in it as URLs spell it: `ann%40corp.example`, `?q=my+password+is+swordfish`."""
    return (b"%" in data or b"+" in data) and _ENCODED.search(data) is not None


def _spellings(secret: str) -> Iterable[str]:
    """A credential as it travels: within JSON, in a URL, and in Base64 (HTTP Basic), wherever in a text it begins there."""
    yield from (secret, _in_json(secret), quote(secret, ""), quote_plus(secret))
    data = secret.encode(errors="surrogatepass")
    for shift in range(3):
        coded = b64encode(b"\0" * shift + data + b"\0" * (-(shift + len(data)) % 3)).decode()
        # Without the characters that depend on what stands around it.
        inner = coded[(shift * 8 + 5) // 6 : (shift + len(data)) * 8 // 6]
        yield from (inner, inner.replace("+", "-").replace("/", "_"))


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


_MOST_PASSES = 8


class _Pass:
    """One walk over one value."""

    __slots__ = ("_classes", "_redactor", "_secrets", "kinds")

    def __init__(self, redactor: Redactor, secrets: tuple[str, ...], classes: Mapping[str, str]) -> None:
        self._redactor = redactor
        self._secrets = secrets
        self._classes = classes
        self.kinds: set[str] = set()

    def without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, self._conceal("secret", secret))
        return text

    def without_classed(self, text: str) -> str:
        """A text in which no value of a declared field stands as a word of its own."""
        for classed in self._redactor.noted():
            data = text.encode(errors="replace")
            at = 0
            while classed.encoded in data[at:] and (match := classed.expression.search(data, at)) is not None:
                start, end = match.span(1)
                shown = self._conceal(classed.kind, data[start:end].decode()).encode()
                data, at = data[:start] + shown + data[end:], start + len(shown)
            text = data.decode() if at else text
        return text

    def without_variants(self, text: str, known: Variants) -> str:
        """A text in which no value that is known stands in another spelling."""
        found = known.found(text) if known else []
        for span in reversed(found):
            text = text[: span.start] + self._conceal(span.kind, text[span.start : span.end]) + text[span.end :]
        return text

    def text(self, text: str) -> str:
        # What is concealed may bring to light what stood around it: until nothing more is found.
        for _ in range(_MOST_PASSES):
            found = self._once(text)
            if found is text:
                break
            text = found
        return text

    def _once(self, text: str) -> str:
        """One pass over a text; the very same where nothing was found."""
        found = self._found(text)
        if _may_be_encoded(found.encode(errors="replace")):
            found = _WORD.sub(self._decoded, found)
        return text if found == text else found

    def _decoded(self, word: re.Match[str]) -> str:
        """A word of a text; what it says once it is decoded, where that holds something that must not be kept."""
        given = read = word[0]
        for _ in range(_MOST_DECODED):
            again = unquote_plus(read)
            if again == read:
                break
            read = again
            found = self._found(read)
            if found != read:
                return found
        return given

    def _found(self, text: str) -> str:
        text = self.without_variants(self.without_classed(self.without_secrets(text)), self._redactor.known)
        data = text.encode(errors="replace")
        if len(text) >= _SHORTEST and _CANDIDATES.search(data) is not None:
            for detector in _DETECTORS:
                data = self._detect(detector, data)
        kept = data.decode()
        return text if kept == text else kept

    def _detect(self, detector: _Detector, data: bytes) -> bytes:
        pieces: list[bytes] = []
        kept = at = 0
        while (match := detector.expression.search(data, at)) is not None:
            start, end = match.span()
            found = data[start:end].decode()
            length = detector.accepted(found) if detector.accepted else len(found)
            if length:
                pieces += data[kept:start], self._conceal(detector.kind, found[:length]).encode()
                if detector is not _DETECTORS[-1]:
                    # What only its surroundings betray may be any word: `password: expired`.
                    self._redactor.detected(detector.kind, found[:length])
                kept = at = start + len(found[:length].encode())
            else:
                # What begins here is nothing; what begins within it may be something.
                at = start + 1
        return b"".join([*pieces, data[kept:]]) if pieces else data

    def _conceal(self, kind: str, text: str) -> str:
        self.kinds.add(kind)
        return self._redactor.pseudonym(kind, text)

    def value(self, value: Json, path: str) -> Json:
        if self._classes and path in self._classes and value is not None:
            return self._conceal_all(value, self._classes[path])
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return self._object(cast("dict[str, Json]", value), path)
        if isinstance(value, list):
            return self._list(cast("list[Json]", value), path)
        return value

    def _object(self, value: dict[str, Json], path: str) -> Json:
        below = f"{path}." if path else ""
        walked: dict[str, Json] = {}
        same = True
        for key, item in value.items():
            name = self._key(key, walked)
            walked[name] = self.value(item, below + key)
            same = same and name == key and walked[name] is item
        return value if same else walked

    def _key(self, key: str, taken: Mapping[str, Json]) -> str:
        """A key as it may be kept; one that is written like the pseudonym of another must not take its place."""
        name = self.text(key)
        while name in taken:
            name += "'"
        return name

    def _list(self, value: list[Json], path: str) -> Json:
        below = f"{path}.*" if path else "*"
        walked = [self.value(item, below) for item in value]
        return value if all(a is b for a, b in zip(value, walked, strict=True)) else walked

    def _conceal_all(self, value: Json, kind: str) -> Json:
        if isinstance(value, dict):
            concealed: dict[str, Json] = {}
            for key, item in cast("dict[str, Json]", value).items():
                concealed[self._key(key, concealed)] = self._conceal_all(item, kind)
            return concealed
        if isinstance(value, list):
            return [self._conceal_all(item, kind) for item in cast("list[Json]", value)]
        if value is None:
            return None
        self._redactor.note(kind, value)
        return self._conceal(kind, str(value))


class _CredentialsOnly(_Pass):
    """A walk that conceals the gateway's credentials alone."""

    __slots__ = ()

    def text(self, text: str) -> str:
        return self.without_variants(self.without_secrets(text), self._redactor.secret_variants)


class _ClassesOnly(_Pass):
    """A walk over a value whose texts can all be kept: only what is declared is concealed."""

    __slots__ = ()

    def text(self, text: str) -> str:
        return text

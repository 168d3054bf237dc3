"""Redaction: what is stored, logged or shown carries stable pseudonyms instead of personal and secret values.

Two sources say what to hide: the field classes that a tool declares, and detectors that look into every text. A
pseudonym is `<class:hmac>` under a key of the tenant, so that one can still follow a value without learning it. It takes
time in proportion to the text and to the number of values that are known, whatever they are.
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from typing import cast
from urllib.parse import quote, quote_plus

import msgspec

from remit.journal.detectors import (
    CANDIDATES,
    CANDIDATES_OR_ENCODED,
    DETECTORS,
    KINDS,
    SPELLED,
    Detector,
    card_number,
)
from remit.journal.encodings import decoded, may_be_encoded, plain
from remit.journal.literals import Literals, replaced
from remit.journal.pseudonyms import shown_class
from remit.journal.variants import Variants
from remit.tools.spec import FREE_KEYS, FieldClass
from remit.values import Json, encode

_SHORTEST = 5
"""Whatever a detector looks for has at least as many characters (`a@b.c`)."""

# A pseudonym is letters only: digits could look like the very thing that a detector seeks.
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")


class Redacted(msgspec.Struct, frozen=True, kw_only=True):
    """A value as it may be kept, and the kinds of data that were found in it.

    `value` is the very same object where nothing had to be replaced. `kinds`: declared classes and detectors' names.
    """

    value: Json
    kinds: frozenset[str]


_NAMED_FROM = 4
_KNOWN_SECRET_FROM = 8
"""A shorter secret is looked for as it stands and travels, and not in other spellings."""


class Redactor:
    """Replaces what must not be kept. `secrets` are literal texts (credentials) that may never appear anywhere."""

    def __init__(self, *, key: bytes, secrets: Iterable[str] = ()) -> None:
        self._key = key
        given = list(secrets)
        spelled = {spelling: None for secret in given if len(secret) >= 6 for spelling in _spellings(secret)}
        self.secrets = tuple(sorted(spelled, key=len, reverse=True))
        self._secrets_encoded = tuple(secret.encode(errors="surrogatepass") for secret in self.secrets)
        self.classed: Literals | None = None
        self._learns = False
        self.known = Variants()
        for secret in given:
            if len(secret) >= _KNOWN_SECRET_FROM:
                self.known.add("secret", secret, anywhere=True)
        self.known.settle()
        self.secret_variants = self.known
        self.seen = Variants()
        """What detectors have found in the run. It is looked for behind them: a number may be a part of a longer one."""

    def for_run(self) -> Redactor:
        """A redactor for one run: what a declared field has held in it is concealed wherever else it stands in the run."""
        own = copy(self)
        own.classed, own.known, own._learns = Literals(), self.known.copy(), True  # noqa: SLF001 - a copy of itself
        own.seen = Variants()
        return own

    def without_memory(self) -> Redactor:
        """One that conceals the same and learns nothing from what it is tried on."""
        own = copy(self)
        own._learns = False  # noqa: SLF001 - a copy of itself
        return own

    def _for_value(self) -> Redactor:
        """One for a single value, in which what it declares is concealed throughout."""
        own = self.for_run()
        own._learns = False  # noqa: SLF001 - a copy of itself
        return own

    def note(self, kind: str, value: Json) -> None:
        """A value of a declared class. Short ones stand everywhere by chance, and numbers are no names of anybody."""
        if self.classed is None or kind == "money" or not isinstance(value, str) or len(value) < _NAMED_FROM:
            return
        if value not in self.classed:
            self.classed.add(kind, value)
            self.known.add(kind, value)

    def detected(self, kind: str, value: str) -> None:
        """A value that a detector has found in the run: it is known again in other spellings as well."""
        if self._learns:
            self.seen.add(kind, value)

    @property
    def longest_known(self) -> int:
        """Characters of the longest text that is concealed for what it is: a credential, or what a declared field held."""
        return max(self.classed.longest if self.classed is not None else 0, *map(len, self.secrets), 0)

    def pseudonym(self, kind: str, text: str) -> str:
        """`<email:jphkaibo…>`: the same for the same value, however it is spelled, and useless without the key."""
        kind, text = shown_class(kind), SPELLED.get(kind, str)(text)
        mac = hmac.digest(self._key, f"{kind}\0{text}".encode(errors="surrogatepass"), "sha256")
        return f"<{kind}:{mac[:6].hex().translate(_LETTERS)}>"

    def mac(self, what: str, data: bytes) -> str:
        """A digest in hexadecimal that tells nothing without the key; of something else (`what`) it is another one."""
        # No class begins with a zero byte, so that this is never what a pseudonym is made of.
        return hmac.digest(self._key, f"\0{what}\0".encode() + data, "sha256").hex()

    def pseudonyms(self, text: str) -> frozenset[str]:
        """Whatever can stand on record in place of a text, whichever kind it was taken for."""
        return frozenset(self.pseudonym(kind, text) for kind in (*KINDS, *FieldClass, "secret"))

    def text(self, text: str) -> str:
        """A text with every secret and every detected value replaced, and always one that can be stored."""
        return _Pass(self).text(text)

    def holds_credential(self, value: Json) -> bool:
        """Whether one of the gateway's own credentials stands anywhere in a value."""
        if not self.secrets:
            return False
        data = encode(value)
        if self._has_credential(data):
            return True
        return may_be_encoded(data) and any(self.spells_credential(text) for text in texts(value))

    def spells_credential(self, text: str) -> bool:
        """Whether one of the gateway's own credentials stands in a text once that is decoded."""
        return any(self._has_credential(read.encode(errors="surrogatepass")) for read in decoded(text))

    def _has_credential(self, data: bytes) -> bool:
        return any(secret in data for secret in self._secrets_encoded) or self.secret_variants.stand_in(data)

    def without_credentials(self, value: Json) -> Json:
        """A value with every credential of the gateway replaced, and nothing else."""
        return _CredentialsOnly(self).value(value, "")

    def sealed(self, shown: Json, original: Json) -> Json:
        """What to seal beside the redacted `shown`: the original, if it differs, and never one with a credential in it."""
        return None if shown is original or self.holds_credential(original) else original

    def redact(self, value: Json, classes: Mapping[str, str] | None = None, prefix: str = "") -> Redacted:
        """A value with classed fields and detected texts replaced.

        `classes`: dotted path → class, `*` for list indices; the value stands at `prefix`. What they hold is concealed
        wherever else it stands in the value, before or behind.
        """
        own, shown, kinds = self, value, _NO_KINDS
        if classes:
            own = self._for_value() if self.classed is None else self
            declared = _ClassesOnly(own, classes)
            shown, kinds = declared.value(value, prefix), frozenset(declared.kinds)
        if not own.is_clean(shown):
            walk = _Pass(own)
            shown = walk.value(shown, "")
            kinds = kinds | walk.kinds
        return Redacted(value=shown, kinds=kinds)

    def is_clean(self, value: Json) -> bool:
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
        if self.classed is not None and self.classed.stand_in(data):
            return False
        if self.known.stand_in(data) or self.seen.stand_in(data):
            return False
        if CANDIDATES_OR_ENCODED.search(data) is not None:
            return False
        return data.isascii() or CANDIDATES.search(plain(data.decode()).encode()) is None


_NO_KINDS: frozenset[str] = frozenset()
_WORD = re.compile(r"\S+")


def texts(value: Json) -> Iterator[str]:
    """Every text in a value, its keys among them, and every number as a text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, int | float):
        yield str(value)
    elif isinstance(value, dict):
        for key, item in cast("dict[str, Json]", value).items():
            yield key
            yield from texts(item)
    elif isinstance(value, list):
        for item in cast("list[Json]", value):
            yield from texts(item)


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

    __slots__ = ("_redactor", "kinds")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self.kinds: set[str] = set()

    def without_secrets(self, text: str) -> str:
        for secret in self._redactor.secrets:
            if secret in text:
                text = text.replace(secret, self._conceal("secret", secret))
        return text

    def without_classed(self, text: str) -> str:
        """A text in which no value of a declared field stands as a word of its own."""
        classed = self._redactor.classed
        return text if classed is None else replaced(text, classed.found(text), self._conceal)

    def without_variants(self, text: str, known: Variants) -> str:
        """A text in which no value that is known stands in another spelling."""
        return replaced(text, known.found(text), self._conceal)

    def text(self, text: str) -> str:
        # What is concealed may bring to light what stood around it: until nothing more is found.
        for _ in range(_MOST_PASSES):
            found = self._once(text)
            if found is text:
                break
            text = found
        # A credential that is encoded here and there, with blanks in it, is not found word by word.
        if self._redactor.secrets and may_be_encoded(_encoded(text)) and self._redactor.spells_credential(text):
            return self._conceal("secret", text)
        return text

    def _once(self, text: str) -> str:
        """One pass over a text; the very same where nothing was found."""
        found = self._in_plain(self._found(text))
        if may_be_encoded(_encoded(found)):
            found = _WORD.sub(self._decoded, found)
        return text if found == text else found

    def _in_plain(self, text: str) -> str:
        """A text; in plain characters, where something is found in those that must not be kept."""
        read = plain(text)
        if read == text:
            return text
        found = self._found(read)
        return text if found == read else found

    def _decoded(self, word: re.Match[str]) -> str:
        """A word of a text; what it says once it is decoded, where that holds something that must not be kept."""
        if not may_be_encoded(_encoded(word[0])):
            return word[0]
        for read in decoded(word[0]):
            found = self._in_plain(self._found(read))
            if found != read:
                return found
        return word[0]

    def _found(self, text: str) -> str:
        text = self.without_variants(self.without_classed(self.without_secrets(text)), self._redactor.known)
        data = _encoded(text)
        if len(text) >= _SHORTEST and CANDIDATES.search(data) is not None:
            for detector in DETECTORS:
                data = self._detect(detector, data)
        kept = self.without_variants(data.decode(), self._redactor.seen)
        return text if kept == text else kept

    def _detect(self, detector: Detector, data: bytes) -> bytes:
        pieces: list[bytes] = []
        kept = at = 0
        while (match := detector.expression.search(data, at)) is not None:
            start, end = match.span()
            found = data[start:end].decode()
            length = detector.accepted(found) if detector.accepted else len(found)
            if length:
                pieces += data[kept:start], self._conceal(detector.kind, found[:length]).encode()
                if detector is not DETECTORS[-1]:
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
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return self._object(cast("dict[str, Json]", value), path)
        if isinstance(value, list):
            return self._list(cast("list[Json]", value), path)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._number(value)
        return value

    def _number(self, value: float) -> Json:
        card = card_number(value)
        if not card:
            return value
        self._redactor.detected("card", card)
        return self._conceal("card", card)

    def _object(self, value: dict[str, Json], path: str) -> Json:
        below = f"{path}." if path else ""
        walked: dict[str, Json] = {}
        same = True
        for key, item in value.items():
            name = _free(self.text(key), walked)
            walked[name] = self.value(item, below + key)
            same = same and name == key and walked[name] is item
        return value if same else walked

    def _list(self, value: list[Json], path: str) -> Json:
        below = f"{path}.*" if path else "*"
        walked = [self.value(item, below) for item in value]
        return value if all(a is b for a, b in zip(value, walked, strict=True)) else walked


def _encoded(text: str) -> bytes:
    return text.encode(errors="replace")


def _free(name: str, taken: Mapping[str, Json]) -> str:
    """A key as it may be kept; one that is written like the pseudonym of another must not take its place."""
    while name in taken:
        name += "'"
    return name


class _CredentialsOnly(_Pass):
    """A walk that conceals the gateway's credentials alone."""

    __slots__ = ()

    def _found(self, text: str) -> str:
        return self.without_variants(self.without_secrets(text), self._redactor.secret_variants)

    def _number(self, value: float) -> Json:
        return value


class _ClassesOnly(_Pass):
    """A walk that conceals what is declared, and has it known from then on."""

    __slots__ = ("_classes",)

    def __init__(self, redactor: Redactor, classes: Mapping[str, str]) -> None:
        super().__init__(redactor)
        self._classes = classes

    def text(self, text: str) -> str:
        return text

    def _number(self, value: float) -> Json:
        return value

    def value(self, value: Json, path: str) -> Json:
        if path in self._classes and value is not None:
            return self._declared(value, self._classes[path], path)
        return super().value(value, path)

    def _declared(self, value: Json, kind: str, path: str) -> Json:
        if isinstance(value, dict):
            # Where keys are free, they are data like the values.
            is_map = path + FREE_KEYS in self._classes
            concealed: dict[str, Json] = {}
            for key, item in cast("dict[str, Json]", value).items():
                name = self._noted(kind, key) if is_map else key
                concealed[_free(name, concealed)] = self._declared(item, kind, f"{path}.{'*' if is_map else key}")
            return concealed
        if isinstance(value, list):
            return [self._declared(item, kind, f"{path}.*") for item in cast("list[Json]", value)]
        return None if value is None else self._noted(kind, value)

    def _noted(self, kind: str, value: Json) -> str:
        self._redactor.note(kind, value)
        return self._conceal(kind, str(value))

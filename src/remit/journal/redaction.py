"""Redaction: what is stored, logged or shown carries stable pseudonyms instead of personal and secret values.

Two sources say what to hide: the field classes that a tool declares, and detectors that look into every text. A
pseudonym is `<class:hmac>` under a key of the tenant, so that one can still follow a value without learning it.
Regular expressions are RE2's: linear in the text, whatever the text is.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import re2

from remit.values import Json

# One expression finds every candidate in one pass; the name of the group says which detector it belongs to.
_CANDIDATES = re2.compile(
    r"(?P<key>-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s]*(?:-----END [A-Z ]*PRIVATE KEY-----)?"
    r"|\b(?:sk|pk|rk)[-_](?:live|test|proj|ant)[-_A-Za-z0-9]{12,}|\bsk-[A-Za-z0-9]{20,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[-A-Za-z0-9_]{16,}"
    r"|\bxox[abprs]-[-A-Za-z0-9]{10,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[-_A-Za-z0-9]{30,}"
    r"|\beyJ[-_A-Za-z0-9]{8,}\.[-_A-Za-z0-9]{8,}\.[-_A-Za-z0-9]*"
    r"|(?i:\bbearer\s+[-._~+/A-Za-z0-9]{16,}=*)"
    r"|(?i:\b(?:password|passwd|passwort|pwd|secret|api[-_ ]?key)\b\s*(?:is\s+|ist\s+|[:=]\s*)\S{4,}))"
    r"|(?P<email>[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)"
    r"|(?P<iban>\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b)"
    r"|(?P<card>\b[0-9](?:[ -]?[0-9]){12,18}\b)"
    r"|(?P<phone>(?:\+|\b00)[1-9][0-9]{0,2}(?:[ ()/.-]{0,2}[0-9]){7,13}\b)"
)


def _luhn(text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()]
    total = sum(digits[-1::-2]) + sum(sum(divmod(2 * d, 10)) for d in digits[-2::-2])
    return 13 <= len(digits) <= 19 and total % 10 == 0


def _iban(text: str) -> bool:
    compact = text.replace(" ", "")
    if not 15 <= len(compact) <= 34:
        return False
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1


_VALID = {"card": _luhn, "iban": _iban}


@dataclass(frozen=True, kw_only=True, slots=True)
class Redacted:
    """A value as it may be kept, and the kinds of data that were found in it.

    `value` is the very same object where nothing had to be replaced. `kinds`: declared classes and detectors' names.
    """

    value: Json
    kinds: frozenset[str]


class Redactor:
    """Replaces what must not be kept. `secrets` are literal texts (credentials) that may never appear anywhere."""

    def __init__(self, *, key: bytes, secrets: Iterable[str] = ()) -> None:
        self._key = key
        self._secrets = tuple(sorted((s for s in secrets if len(s) >= 6), key=len, reverse=True))

    def pseudonym(self, kind: str, text: str) -> str:
        """`<email:9f86d081>`: the same for the same value, useless without the key."""
        # Else the detector of `secret: …` would find its own pseudonyms.
        kind = "concealed" if kind == "secret" else kind
        mac = hmac.digest(self._key, f"{kind}\0{text}".encode(errors="surrogatepass"), "sha256")
        return f"<{kind}:{mac[:6].hex()}>"

    def text(self, text: str) -> str:
        """A text with every secret and every detected value replaced."""
        return _Pass(self, self._secrets, {}).text(text)

    def redact(self, value: Json, classes: Mapping[str, str] | None = None, prefix: str = "") -> Redacted:
        """A value with classed fields and detected texts replaced.

        `classes`: dotted path → class, `*` for list indices; the value stands at `prefix`.
        """
        walk = _Pass(self, self._secrets, classes or {})
        redacted = walk.value(value, prefix)
        return Redacted(value=redacted, kinds=frozenset(walk.kinds))


class _Pass:
    """One walk over one value."""

    __slots__ = ("_classes", "_redactor", "_secrets", "kinds")

    def __init__(self, redactor: Redactor, secrets: tuple[str, ...], classes: Mapping[str, str]) -> None:
        self._redactor = redactor
        self._secrets = secrets
        self._classes = classes
        self.kinds: set[str] = set()

    def text(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, self._conceal("secret", secret))
        # Whatever a detector looks for has at least six characters.
        if len(text) < 6 or _CANDIDATES.search(text) is None:
            return text
        return _CANDIDATES.sub(self._replace, text)

    def _conceal(self, kind: str, text: str) -> str:
        self.kinds.add(kind)
        return self._redactor.pseudonym(kind, text)

    def _replace(self, match: Any) -> str:
        kind: str = match.lastgroup
        found: str = match.group()
        valid = _VALID.get(kind)
        if valid is not None and not valid(found):
            return found
        return self._conceal(kind, found)

    def value(self, value: Json, path: str) -> Json:
        if self._classes and path in self._classes and value is not None:
            return self._conceal_all(value, self._classes[path])
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return self._object(value, path)
        if isinstance(value, list):
            return self._list(value, path)
        return value

    def _object(self, value: dict[str, Json], path: str) -> Json:
        below = f"{path}." if path else ""
        walked = {self.text(key): self.value(item, below + key) for key, item in value.items()}
        same = len(walked) == len(value) and all(
            key == kept and value[key] is walked[kept] for key, kept in zip(value, walked, strict=True)
        )
        return value if same else walked

    def _list(self, value: list[Json], path: str) -> Json:
        below = f"{path}.*" if path else "*"
        walked = [self.value(item, below) for item in value]
        return value if all(a is b for a, b in zip(value, walked, strict=True)) else walked

    def _conceal_all(self, value: Json, kind: str) -> Json:
        if isinstance(value, dict):
            return {self.text(key): self._conceal_all(item, kind) for key, item in value.items()}
        if isinstance(value, list):
            return [self._conceal_all(item, kind) for item in value]
        return value if value is None else self._conceal(kind, str(value))

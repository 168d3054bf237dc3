"""Digests of arguments, by which the same call is known again.

They are keyed: who reads the record could otherwise try guesses against the digest of a telephone number that the body
shows as a pseudonym, also once the originals were dropped. Records from before 0.2 have plain SHA-256 digests; the form
tells which one it is.
"""

from __future__ import annotations

from hashlib import sha256

from remit.journal.redaction import Redactor
from remit.values import Json, ValueRefused, encode, leaves

_KEYED = "hmac-sha256:"


def digest_of(encoded: bytes, redactor: Redactor, earlier: frozenset[str] | set[str] = frozenset()) -> str:
    """The digest of arguments as JSON. `earlier`: plain digests that the run has on record, which stay what they are."""
    if earlier and (plain := sha256(encoded).hexdigest()) in earlier:
        return plain
    return f"{_KEYED}{redactor.mac('arguments', encoded)}"


def is_plain(digest: str) -> bool:
    """Whether a recorded digest has no key."""
    return bool(digest) and not digest.startswith(_KEYED)


def is_digest_of(recorded: str, args: Json, redactor: Redactor) -> bool:
    """Whether a recorded digest is that of these arguments; those that are not acceptable have none."""
    try:
        for _ in leaves(args):
            pass
        encoded = encode(args)
    except (ValueRefused, TypeError, UnicodeEncodeError):
        return False
    return recorded == digest_of(encoded, redactor, {recorded} if is_plain(recorded) else frozenset())

"""Checkpoints: signed notes of C2SP (`c2sp.org/signed-note`, `c2sp.org/tlog-checkpoint`) and the keys that signed them."""

from __future__ import annotations

import base64
import binascii
import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_ED25519 = b"\x01"
_SAFE = frozenset(string.ascii_letters + string.digits + "._-")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_AT = re.compile(r"at (0|[1-9][0-9]{0,18})")


class NoteError(ValueError):
    """A note or a key that is not written as it should be, or not signed by whom it should be."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key under the name that it signs for."""

    name: str
    key_id: bytes
    public: bytes

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read `<name>+<key id in hex>+<Base64 of the type and the key>`. Raises `NoteError`."""
        parts = text.split("+", 2)
        if len(parts) != 3:
            raise NoteError("a verifier key has three parts, joined by `+`")
        name, key_id, encoded = parts
        data = _strict_base64(encoded)
        if data is None or data[:1] != _ED25519 or len(data) != 33:
            raise NoteError("it is no Ed25519 key")
        key = cls(name, sha256(name.encode() + b"\n" + data).digest()[:4], data[1:])
        if key.key_id.hex() != key_id:
            raise NoteError("its key id is not the one of its key")
        return key

    def holds(self, text: bytes, signature: bytes) -> bool:
        """Whether this key made the signature of the text."""
        try:
            _public_key(self.public).verify(signature, text)
        except InvalidSignature:
            return False
        return True


@lru_cache(maxsize=256)
def _public_key(data: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(data)


@dataclass(frozen=True, slots=True)
class SignedNote:
    """A note: its text, and who claims to have signed it."""

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]
    """Name, key id and signature of each."""

    @classmethod
    def parse(cls, note: str) -> SignedNote:
        """Read a whole note. Raises `NoteError`."""
        text, blank, tail = note.rpartition("\n\n")
        if not blank or not text or not tail.endswith("\n"):
            raise NoteError("a note is its text, an empty line and signature lines")
        return cls(text + "\n", tuple(_signature(line) for line in tail[:-1].split("\n")))

    def verify(self, keys: Iterable[VerifierKey]) -> VerifierKey:
        """The first of these keys that signed it; signatures of others are passed over. Raises `NoteError`."""
        known = {(key.name, key.key_id): key for key in keys}
        signer: VerifierKey | None = None
        for name, key_id, signature in self.signatures:
            key = known.get((name, key_id))
            if key is None:
                continue
            if not key.holds(self.text.encode(), signature):
                raise NoteError(f"the signature of `{name}` does not fit the text")
            signer = signer or key
        if signer is None:
            names = ", ".join(f"`{name}` ({key_id.hex()})" for name, key_id, _ in self.signatures)
            raise NoteError(f"it is signed by {names}, which is none of the listed keys")
        return signer


def _signature(line: str) -> tuple[str, bytes, bytes]:
    mark, _, rest = line.partition(" ")
    name, space, encoded = rest.partition(" ")
    data = _strict_base64(encoded)
    if mark != "—" or not name or not space or data is None or len(data) < 5:
        raise NoteError("a signature line is not `— <name> <Base64>`")
    return name, data[:4], data[4:]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a signed checkpoint says: that the tree `origin` had this root at this size.

    `at`: when it was signed, in microseconds since the epoch; `None` where it does not say so, as early ones don't.
    """

    origin: str
    size: int
    root: bytes
    at: int | None


def read_checkpoint(note: str, keys: Iterable[VerifierKey]) -> Claim:
    """What a checkpoint says, once its signature holds. Raises `NoteError`.

    The key must bear the name that the note is about: a key for one tenant does not speak for another.
    """
    try:
        signed = SignedNote.parse(note)
        lines = signed.text[:-1].split("\n")
        root = _strict_base64(lines[2]) if len(lines) in (3, 4) else None
        at = _AT.fullmatch(lines[3]) if len(lines) == 4 else None
        if root is None or len(root) != 32 or not _SIZE.fullmatch(lines[1]) or (len(lines) == 4 and at is None):
            raise NoteError("a checkpoint has three lines: its name, its size and a root of 32 bytes; then its time, `at …`")
        signer = signed.verify(keys)
    except UnicodeError as error:
        raise NoteError("it is no text in UTF-8") from error
    if signer.name != lines[0]:
        raise NoteError(f"the key of `{signer.name}` signed it, but it is about `{lines[0]}`")
    return Claim(lines[0], int(lines[1]), root, None if at is None else int(at[1]))


def claimed_origin(note: str) -> str:
    """The name that a note is about, whether it is signed or not."""
    return note.partition("\n")[0]


def split_notes(text: str) -> Iterator[tuple[int, str]]:
    """The notes of a file in which an empty line follows each, with the number of the line that each begins in.

    What is no note comes out as it stands, for `read_checkpoint` to refuse.
    """
    note: list[str] = []
    begin, signed = 1, False
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        ends = signed if not line else bool(note) and not note[-1] and not line.startswith("—")
        if ends:
            yield begin, "\n".join(note) + "\n"
            note, signed = [], False
        if line or note:
            begin = begin if note else number
            signed = signed or line.startswith("—")
            note.append(line)
    if note:
        yield begin, "\n".join(note)


def note_name(journal: str, tenant: str) -> str:
    """The name that the checkpoints of a tenant bear."""
    return f"remit/{journal}/{escaped(tenant)}"


def escaped(tenant: str) -> str:
    """A tenant as it stands in names and paths: other than ASCII letters, digits, `.`, `_` and `-` percent-encoded."""
    return "".join(
        char if char in _SAFE else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
        for char in tenant
    )


def _strict_base64(text: str) -> bytes | None:
    """Base64 with padding, in the one way that there is to write it."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode() == text else None

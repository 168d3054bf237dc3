"""Checkpoints: signed statements of how large a tree is and what its root is, as signed notes of C2SP.

See c2sp.org/tlog-checkpoint and c2sp.org/signed-note; docs/record.md has the exact form.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cached_property

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from remit.errors import StorageError

_ED25519 = b"\x01"
_KEY_ID_BYTES = 4
_AT = "at "
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def origin(journal: str, tenant: str) -> str:
    """The name of a tenant's tree: no other one has it."""
    spelled = "".join(c if c in _PLAIN else "".join(f"%{byte:02X}" for byte in c.encode()) for c in tenant)
    return f"remit/{journal}/{spelled}"


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says: the tree named `origin` has `size` leaves and the root `root` (32 bytes).

    `at`: when it was signed, in microseconds since the epoch; `None` for one of before this was part of it.
    """

    origin: str
    size: int
    root: bytes
    at: int | None

    @property
    def text(self) -> str:
        """The text that is signed; the time is an extension line of C2SP."""
        extension = "" if self.at is None else f"{_AT}{self.at}\n"
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n{extension}"


class CheckpointKey:
    """Signs the checkpoints of one tree. `seed`: the 32 bytes of an Ed25519 private key (RFC 8032)."""

    def __init__(self, seed: bytes, name: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.origin = name

    @cached_property
    def _public(self) -> bytes:
        return _ED25519 + self._key.public_key().public_bytes_raw()

    @cached_property
    def verifier_key(self) -> str:
        """The public half as signed notes write it: name, key id and key."""
        key_id = _key_id(self.origin, self._public)
        return f"{self.origin}+{key_id.hex()}+{base64.b64encode(self._public).decode()}"

    def sign(self, size: int, root: bytes, at: int) -> str:
        """A checkpoint as a signed note; `at`: microseconds since the epoch."""
        text = Checkpoint(origin=self.origin, size=size, root=root, at=at).text
        signature = _key_id(self.origin, self._public) + self._key.sign(text.encode())
        return f"{text}\n— {self.origin} {base64.b64encode(signature).decode()}\n"


def open_checkpoint(note: str, verifier_key: str) -> Checkpoint:
    """What a signed note says, if the key has signed it. Raises `StorageError` (code `checkpoint_invalid`)."""
    name, _, rest = verifier_key.partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        public = base64.b64decode(encoded, validate=True)
        if public[:1] != _ED25519 or _key_id(name, public).hex() != key_id:
            raise ValueError("the verifier key is damaged")
        text, _, signatures = note.partition("\n\n")
        _verify(f"{text}\n", signatures, name, public)
        found, size, root, *more = text.split("\n")
        at = int(more[0].removeprefix(_AT)) if more else None
        checkpoint = Checkpoint(origin=found, size=int(size), root=base64.b64decode(root, validate=True), at=at)
        if found != name or checkpoint.text != f"{text}\n":
            raise ValueError("it is not written as a checkpoint of this tree is")
    except (ValueError, InvalidSignature) as error:
        why = str(error) or "its signature does not verify"
        raise StorageError(f"the checkpoint is not one of `{name}`: {why}", code="checkpoint_invalid") from error
    return checkpoint


def _verify(text: str, signatures: str, name: str, public: bytes) -> None:
    for line in signatures.splitlines():
        dash, _, rest = line.partition(" ")
        signer, _, encoded = rest.partition(" ")
        if dash == "—" and signer == name:
            signature = base64.b64decode(encoded, validate=True)
            if signature[:_KEY_ID_BYTES] == _key_id(name, public):
                Ed25519PublicKey.from_public_bytes(public[1:]).verify(signature[_KEY_ID_BYTES:], text.encode())
                return
    raise ValueError("the key has not signed it")


def _key_id(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + public).digest()[:_KEY_ID_BYTES]

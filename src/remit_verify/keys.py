"""Keys: the master key that opens what was encrypted, and the verifier keys that checkpoints are held against."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from remit_verify.notes import NoteError, VerifierKey
from remit_verify.report import Unreadable

_NONCE_BYTES = 12
_SALT_BYTES = 16
_MOST_PLAIN_BYTES = 64 * 1024 * 1024
_MASTER = re.compile(r"[0-9a-f]{64}\n?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """What a verifier holds. Without `master`, exported files alone can be verified; `verifiers` may be many."""

    master: bytes | None = None
    verifiers: tuple[VerifierKey, ...] = ()

    def __repr__(self) -> str:
        return f"Keys({len(self.verifiers)} verifier keys)"

    @classmethod
    def read(cls, folder: Path) -> Keys:
        """Read `master.key` and `record.pub` from a folder; either may be missing. Raises `Unreadable`."""
        if not folder.is_dir():
            raise Unreadable(f"there is no folder `{folder}` with keys; name it with `--keys`")
        return cls(master=_read_master(folder / "master.key"), verifiers=read_verifiers(folder / "record.pub"))


def _read_master(path: Path) -> bytes | None:
    text = _read(path)
    if text is None:
        return None
    if not _MASTER.fullmatch(text):
        raise Unreadable(f"`{path}` holds no master key: 64 hex digits and a newline; put it back")
    return bytes.fromhex(text.strip())


def read_verifiers(path: Path) -> tuple[VerifierKey, ...]:
    """The verifier keys of a file, one a line. Raises `Unreadable`."""
    lines = (_read(path) or "").splitlines()
    try:
        return tuple(VerifierKey.parse(line) for line in lines if line.strip())
    except NoteError as error:
        raise Unreadable(f"`{path}` holds a line that is no verifier key: {error}") from error


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise Unreadable(f"`{path}` can't be read: {error}") from error


class Undecryptable(ValueError):
    """A ciphertext that does not open: damaged, moved, or under another key."""


def unwrap(master: AESGCM, wrapped: object, name: str) -> AESGCM:
    """The run key that is wrapped by the master key. `name`: `body/<run>` or `sealed/<run>`. Raises `Undecryptable`."""
    key = _open(master, wrapped, name)
    if len(key) != 32:
        raise Undecryptable("it is no key of 32 bytes")
    return AESGCM(key)


def salted_hash(key: AESGCM, data: bytes, name: str) -> tuple[str, bytes]:
    """`SHA-256(salt || text)` in hex of what was encrypted, and `salt || text` itself. Raises `Undecryptable`."""
    packed = _open(key, data, name)
    if packed[:1] == b"\x00":
        plain = packed[1:]
    elif packed[:1] == b"\x01":
        try:
            plain = zstandard.ZstdDecompressor().decompress(packed[1:], max_output_size=_MOST_PLAIN_BYTES)
        except (zstandard.ZstdError, MemoryError) as error:
            raise Undecryptable("it does not decompress") from error
    else:
        raise Undecryptable("its first byte says neither plain nor compressed")
    return sha256(plain).hexdigest(), plain


def text_of(plain: bytes) -> bytes:
    """The text behind the salt."""
    return plain[_SALT_BYTES:]


def _open(key: AESGCM, data: object, name: str) -> bytes:
    if not isinstance(data, bytes):
        raise Undecryptable("it is not of the type bytes")
    try:
        return key.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], name.encode("utf-8", "surrogatepass"))
    except (InvalidTag, ValueError, OverflowError) as error:
        raise Undecryptable("it does not decrypt: damaged, moved, or under another key") from error

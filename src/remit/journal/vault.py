"""Run keys: each run's bodies and sealed originals are encrypted under keys of its own.

Both keys are wrapped by the project's master key (AES-256-GCM) and stored in `run_keys`. Destroying the body key
erases what a run said while its chain still verifies; destroying the sealed key drops the originals alone.
"""

from __future__ import annotations

import os

import msgspec
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from remit.errors import StorageError

_NONCE_BYTES = 12
_KEY_BYTES = 32
_COMPRESS_FROM_BYTES = 2048
"""A smaller body would gain a few hundred bytes, and compressing it is a tenth of the time that recording takes."""
_PLAIN, _ZSTD = b"\x00", b"\x01"
_MAX_BODY_BYTES = 64 * 1024 * 1024


class RunKeys:
    """The two keys of one run, ready for use; `None` where one was destroyed."""

    __slots__ = ("_body", "_compressor", "_sealed")

    def __init__(self, body: bytes | None, sealed: bytes | None) -> None:
        self._body = None if body is None else AESGCM(body)
        self._sealed = None if sealed is None else AESGCM(sealed)
        self._compressor: zstandard.ZstdCompressor | None = None

    def encrypt_body(self, plain: bytes, run: str, n: int) -> bytes:
        return self._encrypt(self._body, plain, f"body/{run}/{n}")

    def encrypt_sealed(self, plain: bytes, run: str, n: int) -> bytes:
        return self._encrypt(self._sealed, plain, f"sealed/{run}/{n}")

    def decrypt_body(self, data: bytes, run: str, n: int) -> bytes | None:
        """The plain body, or `None` where the key was destroyed. Raises `StorageError` for a damaged one."""
        return _decrypt(self._body, data, f"body/{run}/{n}")

    def decrypt_sealed(self, data: bytes, run: str, n: int) -> bytes | None:
        return _decrypt(self._sealed, data, f"sealed/{run}/{n}")

    def _encrypt(self, key: AESGCM | None, plain: bytes, place: str) -> bytes:
        if key is None:
            raise StorageError(f"the key of `{place}` was destroyed; nothing more can be written", code="erased")
        if len(plain) < _COMPRESS_FROM_BYTES:
            packed = _PLAIN + plain
        else:
            if self._compressor is None:
                self._compressor = zstandard.ZstdCompressor(level=1)
            packed = _ZSTD + self._compressor.compress(plain)
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + key.encrypt(nonce, packed, place.encode())


def _decrypt(key: AESGCM | None, data: bytes, place: str) -> bytes | None:
    if key is None:
        return None
    try:
        packed = key.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], place.encode())
    except (InvalidTag, ValueError) as error:
        raise StorageError(
            f"`{place}` can't be decrypted: damaged, moved, or encrypted under another master key",
            code="record_corrupt",
        ) from error
    if packed[:1] == _ZSTD:
        return zstandard.ZstdDecompressor().decompress(packed[1:], max_output_size=_MAX_BODY_BYTES)
    return packed[1:]


class WrappedKeys(msgspec.Struct, frozen=True, kw_only=True):
    """A run's keys as the table `run_keys` holds them."""

    body: bytes | None
    sealed: bytes | None


class Vault:
    """Makes, wraps and opens run keys under the project's master key (32 bytes)."""

    def __init__(self, master_key: bytes) -> None:
        self._master = AESGCM(master_key)

    def create(self, run: str) -> tuple[RunKeys, WrappedKeys]:
        """Fresh keys for a new run, and their wrapped form to store."""
        body, sealed = os.urandom(_KEY_BYTES), os.urandom(_KEY_BYTES)
        wrapped = WrappedKeys(body=self._wrap(body, run, "body"), sealed=self._wrap(sealed, run, "sealed"))
        return RunKeys(body, sealed), wrapped

    def open(self, run: str, wrapped: WrappedKeys) -> RunKeys:
        """The keys of a run from their stored form. Raises `StorageError` under another master key."""
        return RunKeys(self._unwrap(wrapped.body, run, "body"), self._unwrap(wrapped.sealed, run, "sealed"))

    def seal_source(self, digest: str, text: bytes) -> bytes:
        """A text that a release names by its digest, so that nobody without the master key can put another in its place."""
        nonce = os.urandom(_NONCE_BYTES)
        packed = zstandard.ZstdCompressor(level=3).compress(text)
        return nonce + self._master.encrypt(nonce, packed, f"source/{digest}".encode())

    def open_source(self, digest: str, data: bytes) -> bytes:
        """The inverse of `seal_source`. Raises `StorageError` (code `record_corrupt`) for what it has not sealed."""
        try:
            packed = self._master.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], f"source/{digest}".encode())
        except (InvalidTag, ValueError) as error:
            raise StorageError(
                f"source `{digest[:12]}` can't be decrypted: damaged, moved, or encrypted under another master key",
                code="record_corrupt",
            ) from error
        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=_MAX_BODY_BYTES)

    def open_body(self, run: str, wrapped: bytes | None) -> RunKeys:
        """The key of a run's bodies alone: nothing that is read with it can open originals. Raises as `open` does."""
        return RunKeys(self._unwrap(wrapped, run, "body"), None)

    def _wrap(self, key: bytes, run: str, part: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._master.encrypt(nonce, key, f"{part}/{run}".encode())

    def _unwrap(self, data: bytes | None, run: str, part: str) -> bytes | None:
        if data is None:
            return None
        try:
            return self._master.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], f"{part}/{run}".encode())
        except (InvalidTag, ValueError) as error:
            raise StorageError(
                f"the keys of run `{run}` were wrapped by another master key; "
                "put back the key file that belongs to this database",
                code="master_key_wrong",
            ) from error

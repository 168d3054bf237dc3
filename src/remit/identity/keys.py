"""The keys: one ring of signing keys, and the secret keys of a project's record, as files under `.remit/keys`.

`signing.json` is a JSON Web Key Set (RFC 7517): the active key with its private part, and the keys before it
reduced to their public part, each with the time until which it still verifies. One file, replaced as a whole
under a lock, so every process sees one consistent ring; a reader notices a replacement by the file's identity
and needs no lock.

Private material has no readable form here: not in `repr`, not in a pickle, not in an error's text.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import msgspec

from remit.errors import IdentityError
from remit.identity.files import locked, private_folder, read_private, write_private

if TYPE_CHECKING:
    # joserfc takes longer to import than the command line may take to start, so it is imported where it is
    # used.
    from joserfc.jwa import JWSAlgModel
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    PublicKey: TypeAlias = ECKey | OKPKey | RSAKey

MAX_LIFETIME_S = 15 * 60
"""How long a token of ours lives at most."""
SKEW_S = 30
"""How far apart two clocks may be."""
LOOK_AGAIN_US = 250_000
"""How long a key may be used to verify before the ring's file is looked at again."""

_SECOND_US = 1_000_000
_KEY_BYTES = 32


class Algorithm(StrEnum):
    """How tokens of ours are signed. `EdDSA` is Ed25519 (RFC 8037), `ES256` is ECDSA on P-256 (RFC 7518)."""

    EDDSA = "EdDSA"
    ES256 = "ES256"


_KEY_SHAPE = {Algorithm.EDDSA: ("OKP", "Ed25519"), Algorithm.ES256: ("EC", "P-256")}


class SecretKey:
    """Symmetric key bytes, without a readable form: only `reveal()` gives them, to the cipher in need."""

    __slots__ = ("_data", "name")

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self._data = data

    def reveal(self) -> bytes:
        return self._data

    def __repr__(self) -> str:
        return f"SecretKey({self.name})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"key `{self.name}` is secret and can't be copied or pickled")


def master_key(folder: Path) -> SecretKey:
    """The 32 bytes that wrap every run's own keys, created on first use in `folder`.

    Raises `IdentityError` where the file can't be made, is open to others or is damaged.
    """
    return _key_of_32_bytes(folder, "master")


def pseudonym_key(folder: Path) -> SecretKey:
    """The 32 bytes of the HMAC behind pseudonyms; made, kept and refused as `master_key` is."""
    return _key_of_32_bytes(folder, "pseudonym")


def record_key(folder: Path) -> SecretKey:
    """The 32 bytes of the Ed25519 key that signs checkpoints; made, kept and refused as `master_key` is."""
    return _key_of_32_bytes(folder, "record")


def note_verifier_key(folder: Path, verifier_key: str) -> None:
    """Keep a key that checkpoints are verified with, in `record.pub`, beside those that were in use before it."""
    path = folder / "record.pub"
    known = read_private(path).decode().splitlines() if path.is_file() else []
    if verifier_key not in known:
        with locked(folder):
            known = read_private(path).decode().splitlines() if path.is_file() else []
            if verifier_key not in known:
                write_private(path, "".join(f"{line}\n" for line in [*known, verifier_key]).encode())


def _key_of_32_bytes(folder: Path, name: str) -> SecretKey:
    private_folder(folder)
    path = folder / f"{name}.key"
    if not path.is_file():
        with locked(folder):
            if not path.is_file():
                write_private(path, os.urandom(_KEY_BYTES).hex().encode() + b"\n")
    key = _from_hex(name, read_private(path))
    if key is None:
        raise IdentityError(
            f"`{path}` does not hold a key of {_KEY_BYTES} bytes in hex; put back the file that belongs here",
            code="key_damaged",
        )
    return key


def _from_hex(name: str, data: bytes) -> SecretKey | None:
    # Never raises, so that neither an exception nor a frame of its traceback ever holds the key.
    text = data.strip()
    if len(text) != 2 * _KEY_BYTES or text.strip(b"0123456789abcdef"):
        return None
    return SecretKey(name, bytes.fromhex(text.decode()))


def encode_segment(data: bytes) -> str:
    """Base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signature_algorithm(name: str) -> JWSAlgModel:
    """The implementation (joserfc's) of a signature algorithm, by its registered name, which the caller has pinned."""
    from joserfc.jws import JWSRegistry

    return JWSRegistry.algorithms[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class VerificationKey:
    """A public key together with the one algorithm it is good for, and until when (`None`: no end is set)."""

    kid: str
    algorithm: str
    key: PublicKey = field(repr=False)
    until_us: int | None = None

    def verifies(self, signing_input: bytes, signature: bytes) -> bool:
        """Whether `signature` over `signing_input` was made with the private part of this key."""
        return signature_algorithm(self.algorithm).verify(signing_input, signature, self.key)


class _SigningKey:
    """The active key. Only `sign` touches its private part."""

    __slots__ = ("_key", "algorithm", "kid")

    def __init__(self, kid: str, algorithm: Algorithm, key: ECKey | OKPKey) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self._key = key

    def sign(self, signing_input: bytes) -> bytes:
        return signature_algorithm(self.algorithm).sign(signing_input, self._key)

    def __repr__(self) -> str:
        return f"_SigningKey({self.kid})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"signing key `{self.kid}` is private and can't be copied or pickled")


class _StoredKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A key as `signing.json` holds it; `d` is there for the active one alone."""

    kty: str
    crv: str
    kid: str
    alg: Algorithm
    use: str
    x: str
    y: str | None = None
    d: str | None = None
    verifies_until_us: int | None = None

    def __repr__(self) -> str:
        return f"_StoredKey({self.kid})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("kid", self.kid)]

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"key `{self.kid}` can't be pickled")

    def public_jwk(self) -> dict[str, str | list[str]]:
        point = {"x": self.x} if self.y is None else {"x": self.x, "y": self.y}
        return {
            "kty": self.kty,
            "crv": self.crv,
            **point,
            "kid": self.kid,
            "alg": self.alg.value,
            "use": "sig",
        }


class _StoredRing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[_StoredKey]


_Stamp = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ring:
    """One consistent reading of `signing.json`, and the identity of the file it was read from."""

    stamp: _Stamp
    active: _SigningKey
    keys: Mapping[str, VerificationKey]
    stored: tuple[_StoredKey, ...] = field(repr=False)


class KeyRing:
    """The signing keys of a project: one signs, and it and its recent predecessors verify.

    Safe to use from several threads and processes: what another process rotates holds here at once, and what
    it revokes after a quarter of a second at most. Times are microseconds since the epoch and are handed in.
    """

    def __init__(self, folder: Path, algorithm: Algorithm) -> None:
        """Use `open`; this makes no files."""
        self._folder = folder
        self._path = folder / "signing.json"
        self._algorithm = algorithm
        self._ring: _Ring | None = None
        self._looked_us = 0

    @classmethod
    def open(cls, folder: Path, algorithm: str, now_us: int) -> KeyRing:
        """Open the ring in `folder`, creating folder and first key where there are none.

        Processes that do so at the same time agree on one key. Where `algorithm` is no longer that of the
        active key, the ring is rotated to it. Raises `IdentityError` where a file is open to others, damaged
        or can't be made, and for an algorithm other than `EdDSA` and `ES256`.
        """
        if algorithm not in set(Algorithm):
            raise IdentityError(
                f"`{algorithm}` is not an algorithm that tokens are signed with; choose `EdDSA` or `ES256`",
                code="token_algorithm_refused",
            )
        private_folder(folder)
        ring = cls(folder, Algorithm(algorithm))
        if not ring._path.is_file():
            with locked(folder):
                if not ring._path.is_file():
                    ring._write([_generate(ring._algorithm)])
        if ring._current().active.algorithm is not ring._algorithm:
            ring.rotate(now_us)
        return ring

    @property
    def active_kid(self) -> str:
        """The RFC 7638 thumbprint of the key that signs."""
        return self._current().active.kid

    def sign(self, payload: bytes, typ: str) -> str:
        """A compact JWS (RFC 7515) by the active key; its header holds `alg`, `kid` and `typ` alone."""
        active = self._current().active
        header = msgspec.json.encode({"alg": active.algorithm.value, "kid": active.kid, "typ": typ})
        signing_input = f"{encode_segment(header)}.{encode_segment(payload)}"
        return f"{signing_input}.{encode_segment(active.sign(signing_input.encode()))}"

    def verification_key(self, kid: str, now_us: int) -> VerificationKey | None:
        """The key of that name if it still verifies, else `None`."""
        ring = self._ring
        # Looking at the file costs more than everything else here, so it waits; a name never seen doesn't.
        if ring is None or not 0 <= now_us - self._looked_us < LOOK_AGAIN_US or kid not in ring.keys:
            ring = self._current()
            self._looked_us = now_us
        found = ring.keys.get(kid)
        if found is None or (found.until_us is not None and now_us >= found.until_us):
            return None
        return found

    def public_jwks(self, now_us: int) -> dict[str, list[dict[str, str | list[str]]]]:
        """The JSON Web Key Set to publish, so that others can verify our tokens; public parts only."""
        return {"keys": [key.public_jwk() for key in self._current().stored if _verifies(key, now_us)]}

    def rotate(self, now_us: int) -> str:
        """Sign with a fresh key from now on, and return its `kid`.

        The one before keeps verifying for as long as a token signed a moment ago may live, and loses its
        private part at once.
        """
        until_us = now_us + (MAX_LIFETIME_S + SKEW_S) * _SECOND_US
        with locked(self._folder):
            kept = [key for key in self._read().stored if _verifies(key, now_us)]
            fresh = _generate(self._algorithm)
            self._write([fresh, *(_retired(key, until_us) for key in kept)])
        return fresh.kid

    def prune(self, now_us: int) -> tuple[str, ...]:
        """Forget the keys that verify nothing any more; returns their `kid`s."""
        with locked(self._folder):
            stored = self._read().stored
            gone = tuple(key.kid for key in stored if not _verifies(key, now_us))
            if gone:
                self._write([key for key in stored if key.kid not in gone])
        return gone

    def revoke(self, kid: str) -> str:
        """Forget a key at once, as when it leaked: no token it signed verifies any more. Returns the active
        `kid`.

        Raises `IdentityError` with code `token_unknown_key` for a key that isn't in the ring.
        """
        with locked(self._folder):
            ring = self._read()
            if kid not in ring.keys:
                raise IdentityError("the ring has no key of this name; see its `kid`s", code="token_unknown_key")
            kept = [key for key in ring.stored if key.kid != kid]
            if kid == ring.active.kid:
                kept.insert(0, _generate(self._algorithm))
            self._write(kept)
        return self.active_kid

    def __repr__(self) -> str:
        return f"KeyRing({self._path})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key ring is private and can't be copied or pickled; open it again from its folder")

    def _current(self) -> _Ring:
        ring = self._ring
        if ring is not None and ring.stamp == self._stamp():
            return ring
        return self._read()

    def _stamp(self) -> _Stamp:
        try:
            found = self._path.stat()
        except OSError as error:
            raise IdentityError(
                f"`{self._path}` is gone; put it back, or restart to begin with a fresh key",
                code="file_missing",
            ) from error
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _read(self) -> _Ring:
        # Stamped before it is read: if it is replaced in between, the next use sees another stamp and reads
        # again.
        stamp = self._stamp()
        stored = _decode(read_private(self._path))
        if isinstance(stored, str):
            raise self._damaged(stored)
        active = [key for key in stored if key.d is not None]
        if len(active) != 1:
            raise self._damaged("it must hold one private key")
        signing, _ = self._import(active[0])
        keys = {
            key.kid: VerificationKey(
                kid=key.kid, algorithm=key.alg.value, key=self._import(key)[1], until_us=key.verifies_until_us
            )
            for key in stored
        }
        ring = _Ring(
            stamp=stamp,
            active=_SigningKey(active[0].kid, active[0].alg, signing),
            keys=keys,
            stored=tuple(stored),
        )
        self._ring = ring
        return ring

    def _import(self, stored: _StoredKey) -> tuple[ECKey | OKPKey, ECKey | OKPKey]:
        """The key as stored (private where it is), and its public part, checked against its name."""
        from joserfc.errors import JoseError

        pair = None
        if (stored.kty, stored.crv) == _KEY_SHAPE[stored.alg]:
            # Raised below, outside, so that no exception carries the key along.
            with suppress(JoseError, ValueError, TypeError, KeyError):
                pair = _import_pair(stored)
        if pair is None or pair[1].thumbprint() != stored.kid:
            raise self._damaged("a key does not match its name or its algorithm")
        return pair

    def _damaged(self, problem: str) -> IdentityError:
        return IdentityError(
            f"`{self._path}` is damaged: {problem}; put back a good copy, or remove it to begin with a fresh key",
            code="key_damaged",
        )

    def _write(self, keys: list[_StoredKey]) -> None:
        before = self._ring
        write_private(self._path, msgspec.json.encode(_StoredRing(keys)))
        if before is not None:
            # A clock tick of the file system is milliseconds long, and inode numbers are used again: make
            # sure that no other process takes this file for the one before it.
            found = self._path.stat()
            if found.st_mtime_ns <= before.stamp[1]:
                os.utime(self._path, ns=(found.st_atime_ns, before.stamp[1] + 1))
        self._read()


def _decode(data: bytes) -> list[_StoredKey] | str:
    """The keys of a ring's file, or what is wrong with it: a type and a place, never the content.

    Never raises, so that neither an exception nor a frame of its traceback ever holds the keys.
    """
    try:
        return msgspec.json.decode(data, type=_StoredRing).keys
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "it is not a key set as this version writes it"


def _import_pair(stored: _StoredKey) -> tuple[ECKey | OKPKey, ECKey | OKPKey]:
    from joserfc.jwk import ECKey, OKPKey

    members = stored.public_jwk()
    if stored.d is not None:
        members["d"] = stored.d
    # The public part is computed from the private one where there is one, and not taken from the file.
    if stored.kty == "EC":
        curve = ECKey.import_key(members)
        return curve, ECKey.import_key(curve.public_key)
    octets = OKPKey.import_key(members)
    return octets, OKPKey.import_key(octets.public_key)


def _generate(algorithm: Algorithm) -> _StoredKey:
    from joserfc.jwk import ECKey, OKPKey

    kind, curve = _KEY_SHAPE[algorithm]
    key = OKPKey.generate_key("Ed25519") if algorithm is Algorithm.EDDSA else ECKey.generate_key("P-256")
    members: dict[str, Any] = key.as_dict(private=True)
    return _StoredKey(
        kty=kind,
        crv=curve,
        kid=key.thumbprint(),
        alg=algorithm,
        use="sig",
        x=members["x"],
        y=members.get("y"),
        d=members["d"],
    )


def _retired(key: _StoredKey, until_us: int) -> _StoredKey:
    if key.d is None:
        return key
    return msgspec.structs.replace(key, d=None, verifies_until_us=until_us)


def _verifies(key: _StoredKey, now_us: int) -> bool:
    return key.verifies_until_us is None or now_us < key.verifies_until_us

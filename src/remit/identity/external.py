"""External issuers: people who sign in elsewhere, verified through the keys that their issuer publishes.

An issuer's JSON Web Key Set (RFC 7517) is fetched over https, or http on loopback, or read from a file; kept
for ten minutes; fetched again for a key that isn't in it, at most once a minute; and served from the last
good copy for an hour more while the issuer can't be reached. After that, its tokens are denied.

One verifier belongs to one event loop. Nothing here blocks it: files are read and TLS is set up in a thread.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import httpx
import msgspec

from remit.contracts.project_file import IssuerSection
from remit.errors import ConfigError, IdentityError
from remit.identity.files import read_trusted
from remit.identity.keys import VerificationKey
from remit.identity.principals import person_principal
from remit.identity.tokens import Jws, check_times, decode_segment, malformed, parse_jws, parse_object
from remit.values import Json, ValueRefused, parse

if TYPE_CHECKING:
    from remit.identity.keys import PublicKey

TTL_US = 10 * 60 * 1_000_000
UNKNOWN_KEY_US = 60 * 1_000_000
RETRY_US = 10 * 1_000_000
STALE_US = 60 * 60 * 1_000_000
MAX_LIFETIME_S = 24 * 60 * 60
"""How long an external token may live at most; longer ones are refused whoever signed them."""

_MAX_BYTES = 256 * 1024
_MAX_KEYS = 100
_RSA_BITS = range(2048, 8192 + 1)
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_KEYS_IN_HEADER = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64"})
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Mapping[tuple[str, str], frozenset[str]] = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),
}
ASYMMETRIC = _RSA.union(*_CURVES.values())
"""The algorithms that an issuer may be allowed; there is no symmetric one among them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExternalIssuer:
    """An issuer that the project trusts, from `[[identity.issuers]]`.

    `jwks` is a URL, or a file relative to `folder`. `people_claim` names the claim whose text is a person's
    id. Raises `ConfigError` for an algorithm that isn't asymmetric, and for a URL that is neither https nor
    loopback.
    """

    issuer: str
    jwks: str
    audience: str
    algorithms: tuple[str, ...]
    people_claim: str = "sub"
    folder: Path = Path()

    def __post_init__(self) -> None:
        refused = [name for name in self.algorithms if name not in ASYMMETRIC]
        if refused or not self.algorithms:
            raise ConfigError(
                f"issuer `{self.issuer}`: {_listed(refused) or 'no algorithm'} can't be allowed; "
                f"choose among {_listed(sorted(ASYMMETRIC))}"
            )
        if "://" in self.jwks:
            self._check_url()

    def _check_url(self) -> None:
        url = urlsplit(self.jwks)
        safe = url.scheme == "https" or (url.scheme == "http" and _is_loopback(url.hostname or ""))
        if not safe or not url.hostname or url.username or url.password:
            raise ConfigError(
                f"issuer `{self.issuer}`: keys are fetched over https, or http on loopback, and without "
                "credentials in the URL; correct `jwks`"
            )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True, slots=True)
class ExternalIdentity:
    """A person as an external issuer vouches for them. `exp`: seconds since the epoch."""

    person: str
    """`person/<id>`: not yet known to be declared and enabled."""
    issuer: str
    exp: float


class _Payload(msgspec.Struct, frozen=True, kw_only=True):
    aud: str | list[str]
    exp: int | float
    iat: int | float | None = None
    nbf: int | float | None = None


def trusted_issuers(sections: Iterable[IssuerSection], folder: Path) -> Iterator[ExternalIssuer]:
    """The issuers that `[[identity.issuers]]` of a project in `folder` declares."""
    for section in sections:
        yield ExternalIssuer(
            issuer=section.issuer,
            jwks=section.jwks,
            audience=section.audience,
            algorithms=tuple(section.algorithms),
            people_claim=section.people_claim,
            folder=folder,
        )


class ExternalVerifier:
    """Verifies tokens of the issuers that the project trusts, and says which person they stand for."""

    def __init__(self, issuers: Iterable[ExternalIssuer], *, timeout_ms: int = 5_000) -> None:
        """`timeout_ms` bounds each fetch of keys, from the name's look-up to the last byte."""
        self._issuers = {issuer.issuer: (issuer, _KeySource(issuer, timeout_ms)) for issuer in issuers}

    async def verify(self, token: str, now_us: int) -> ExternalIdentity:
        """The person that the token stands for, if all of it holds now. `now_us`: since the epoch.

        Raises `IdentityError` with the codes of `TokenVerifier.verify`, `issuer_unreachable` where the
        issuer's keys can't be had, and `person_not_mapped` where the claim doesn't name a person.
        """
        jws = parse_jws(token)
        payload = parse_object(jws.payload, "payload")
        # Only to choose whose keys to look at; believed once one of them verifies.
        name = payload.get("iss")
        if type(name) is not str or name not in self._issuers:
            raise IdentityError(
                "the token's issuer is not one that this project trusts; add it under `[[identity.issuers]]`",
                code="token_wrong_issuer",
            )
        issuer, source = self._issuers[name]
        kid, algorithm = _check_header(jws, issuer)
        key = await source.find(kid, algorithm, now_us)
        if not key.verifies(jws.signing_input, jws.signature):
            raise IdentityError("the token's signature does not verify; sign in again", code="token_bad_signature")
        exp = _check_payload(payload, issuer, now_us)
        return ExternalIdentity(person=_person(payload, issuer), issuer=name, exp=exp)


def _check_header(jws: Jws, issuer: ExternalIssuer) -> tuple[str, str]:
    algorithm = jws.text("alg")
    if algorithm not in issuer.algorithms:
        raise _refused_algorithm(issuer)
    if not _KEYS_IN_HEADER.isdisjoint(jws.header):
        raise malformed("its header brings a key, a link to one, or an extension, and none is accepted from there")
    # Some issuers leave `typ` out. A logout token, a security event or a proof of possession names itself.
    if "typ" in jws.header and jws.text("typ").lower() not in _TYPES:
        raise malformed("its `typ` is not that of an access or ID token")
    return jws.text("kid"), algorithm


def _refused_algorithm(issuer: ExternalIssuer) -> IdentityError:
    return IdentityError(
        f"the token's algorithm is not allowed for issuer `{issuer.issuer}`, or not the one of its key; "
        f"allowed: {_listed(issuer.algorithms)}",
        code="token_algorithm_refused",
    )


def _check_payload(claims: Mapping[str, Json], issuer: ExternalIssuer, now_us: int) -> float:
    try:
        payload = msgspec.convert(claims, _Payload)
    except msgspec.ValidationError as error:
        raise malformed(f"its payload: {error}".lower()) from error
    audiences = [payload.aud] if isinstance(payload.aud, str) else payload.aud
    if issuer.audience not in audiences:
        raise IdentityError(
            f"the token is not for audience `{issuer.audience}`; ask for one that is",
            code="token_wrong_audience",
        )
    now_s = now_us / 1_000_000
    issued = min(now_s, payload.exp) if payload.iat is None else payload.iat
    check_times(issued, issued if payload.nbf is None else payload.nbf, payload.exp, now_us)
    if payload.exp - issued > MAX_LIFETIME_S:
        raise IdentityError(
            f"the token lives longer than {MAX_LIFETIME_S:,} s; ask the issuer for a shorter one",
            code="token_lifetime_too_long",
        )
    return payload.exp


def _person(claims: Mapping[str, Json], issuer: ExternalIssuer) -> str:
    claim = issuer.people_claim
    value = claims.get(claim)
    # Whoever may type any address into a profile would otherwise become anybody.
    if claim == "email" and claims.get("email_verified") is not True:
        raise IdentityError(
            "the token's `email` is not marked as verified; let the issuer verify it, or map another claim",
            code="person_not_mapped",
        )
    if type(value) is str:
        try:
            return person_principal(value)
        except IdentityError as error:
            problem = error.message
    else:
        problem = "it is not a text"
    raise IdentityError(
        f"claim `{claim}` of issuer `{issuer.issuer}` does not name a person: {problem}",
        code="person_not_mapped",
    )


class _Jwk(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a published key; a member left out is empty, and what else it has is ignored."""

    kty: str
    kid: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    use: str = "sig"
    key_ops: list[str] = msgspec.field(default_factory=lambda: ["verify"])
    alg: str | None = None
    crv: str = ""
    x: str = ""
    y: str = ""
    n: str = ""
    e: str = ""


class _KeySet(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Copy:
    """The last good copy of an issuer's keys, and when it was fetched."""

    keys: tuple[VerificationKey, ...]
    fetched_us: int


class _UnavailableError(Exception):
    """The keys could not be had this time; says why."""


class _KeySource:
    """The keys of one issuer: fetched, kept for a while, and still served while the issuer is down."""

    def __init__(self, issuer: ExternalIssuer, timeout_ms: int) -> None:
        self._issuer = issuer
        self._timeout_ms = timeout_ms
        self._copy: _Copy | None = None
        self._problem = "they were never fetched"
        self._retry_at_us = 0
        self._unknown_at_us = 0
        self._fetching = asyncio.Lock()
        self._tls: ssl.SSLContext | None = None

    async def find(self, kid: str, algorithm: str, now_us: int) -> VerificationKey:
        """The key `kid` for `algorithm`. Raises `IdentityError` where there is none that may be used."""
        copy = await self._fresh(now_us)
        if not any(key.kid == kid for key in copy.keys):
            copy = await self._again(copy, now_us)
        found = [key for key in copy.keys if key.kid == kid]
        for key in found:
            if key.algorithm == algorithm:
                return key
        if found:
            raise _refused_algorithm(self._issuer)
        raise IdentityError(
            f"the token's key is none that issuer `{self._issuer.issuer}` publishes; sign in again",
            code="token_unknown_key",
        )

    async def _fresh(self, now_us: int) -> _Copy:
        """A copy that is fresh, or stale within bounds while a fresh one can't be had."""
        if self._due(now_us):
            copy = self._copy
            # Whoever finds a fetch under way and a copy at hand doesn't wait for a slow issuer.
            if copy is None or not self._fetching.locked() or not _within_bounds(copy, now_us):
                async with self._fetching:
                    if self._due(now_us):
                        await self._fetch(now_us)
        copy = self._copy
        if copy is None or not _within_bounds(copy, now_us):
            raise IdentityError(
                f"the keys of issuer `{self._issuer.issuer}` can't be had: {self._problem}; "
                "its tokens are denied until they can",
                code="issuer_unreachable",
            )
        return copy

    def _due(self, now_us: int) -> bool:
        copy = self._copy
        return now_us >= self._retry_at_us and (copy is None or now_us - copy.fetched_us >= TTL_US)

    async def _again(self, seen: _Copy, now_us: int) -> _Copy:
        """A newer copy than the one that lacks a key: at most once a minute, whoever sends unknown keys."""
        async with self._fetching:
            if self._copy is seen and now_us >= self._unknown_at_us:
                self._unknown_at_us = now_us + UNKNOWN_KEY_US
                await self._fetch(now_us)
        return self._copy or seen

    async def _fetch(self, now_us: int) -> None:
        try:
            data = await self._read()
            keys = _parse_keys(data, self._issuer.algorithms)
        except _UnavailableError as error:
            self._problem = str(error)
            self._retry_at_us = now_us + RETRY_US
        else:
            self._copy = _Copy(keys=keys, fetched_us=now_us)

    async def _read(self) -> bytes:
        if "://" not in self._issuer.jwks:
            try:
                return await asyncio.to_thread(read_trusted, self._issuer.folder / self._issuer.jwks)
            except IdentityError as error:
                raise _UnavailableError(error.message) from error
        try:
            async with asyncio.timeout(self._timeout_ms / 1_000):
                return await self._download(self._issuer.jwks)
        except TimeoutError as error:
            raise _UnavailableError(f"no whole answer within {self._timeout_ms:,} ms") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            raise _UnavailableError(f"{type(error).__name__}: {error}".rstrip(" :.")) from error

    async def _download(self, url: str) -> bytes:
        local = url.startswith("http:")  # loopback, as checked: no proxy stands between, and there is no TLS
        if self._tls is None and not local:
            self._tls = await asyncio.to_thread(httpx.create_ssl_context)
        async with (
            httpx.AsyncClient(
                verify=self._tls or False, trust_env=not local, timeout=self._timeout_ms / 1_000
            ) as client,
            # Uncompressed, so that the limit below is one on memory too.
            client.stream("GET", url, headers={"accept": "application/json", "accept-encoding": "identity"}) as answer,
        ):
            if answer.status_code != HTTPStatus.OK:
                raise _UnavailableError(f"it answered {answer.status_code}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise _UnavailableError("it answered compressed, unasked")
            data = bytearray()
            async for chunk in answer.aiter_raw():
                data += chunk
                if len(data) > _MAX_BYTES:
                    raise _UnavailableError(f"it answered more than {_MAX_BYTES:,} bytes")
            return bytes(data)


def _within_bounds(copy: _Copy, now_us: int) -> bool:
    return now_us - copy.fetched_us < TTL_US + STALE_US


def _parse_keys(data: bytes, allowed: tuple[str, ...]) -> tuple[VerificationKey, ...]:
    """The keys of a set that may verify with one of `allowed`; others are left out (RFC 7517, section 5)."""
    try:
        document = msgspec.convert(parse(data.decode(), limit_bytes=_MAX_BYTES), _KeySet)
    except (UnicodeDecodeError, ValueRefused, msgspec.ValidationError) as error:
        raise _UnavailableError("what it publishes is not a JSON Web Key Set") from error
    if len(document.keys) > _MAX_KEYS:
        raise _UnavailableError(f"it publishes more than {_MAX_KEYS} keys")
    return tuple(key for jwk in document.keys for key in _usable(jwk, allowed))


def _usable(jwk: dict[str, Any], allowed: tuple[str, ...]) -> tuple[VerificationKey, ...]:
    try:
        stated = msgspec.convert(jwk, _Jwk)
    except msgspec.ValidationError:
        return ()
    # An issuer that publishes a private key (`d`) has none any more.
    if stated.use != "sig" or "verify" not in stated.key_ops or "d" in jwk:
        return ()
    able = _RSA if stated.kty == "RSA" else _CURVES.get((stated.kty, stated.crv), frozenset())
    names = [name for name in allowed if name in able and stated.alg in (None, name)]
    key = _import(stated) if names else None
    if key is None:
        return ()
    return tuple(VerificationKey(kid=stated.kid, algorithm=name, key=key) for name in names)


def _import(jwk: _Jwk) -> PublicKey | None:
    """The public key, or `None` where its members make none that is strong enough."""
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    members = {"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x, "y": jwk.y, "n": jwk.n, "e": jwk.e}
    stated: dict[str, Any] = {name: value for name, value in members.items() if value}
    try:
        match jwk.kty:
            case "EC":
                return ECKey.import_key(stated)
            case "OKP":
                return OKPKey.import_key(stated)
            case _:
                modulus = int.from_bytes(decode_segment(jwk.n), "big")
                return RSAKey.import_key(stated) if modulus.bit_length() in _RSA_BITS else None
    except (JoseError, IdentityError, ValueError, TypeError, KeyError):
        return None

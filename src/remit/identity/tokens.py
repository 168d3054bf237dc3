"""Tokens: what a principal acts with, for at most fifteen minutes.

They are JWT access tokens in the form of RFC 9068 (`typ: at+jwt`), signed by the project's own key ring. Who
acts for whom is written as RFC 8693 (section 4.1) has it: `sub` is the party whose matter it is and `act.sub`
the one who acts. So an agent that acts for nobody is `sub` itself; one that acts for a person has the person
as `sub` and itself as `act.sub`. `Claims.principal` is always the one who acts, whichever of the two claims
it stood in.

A token is taken apart by one strict parser (`parse_jws`), which joserfc's own would not be: duplicate keys,
trailing bits and unknown header parameters are refused before any key is chosen. joserfc brings the
algorithms and the keys.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import cast

import msgspec

from remit.contracts.model import Contract
from remit.errors import IdentityError
from remit.identity.keys import MAX_LIFETIME_S, SKEW_S, Algorithm, KeyRing
from remit.identity.principals import PrincipalKind, parse_principal
from remit.values import Json, ValueRefused, parse

TYPE = "at+jwt"
"""The header's `typ` (RFC 9068): no other kind of JWT passes for an access token."""
PERSON_CLIENT = "remit"
"""The `client_id` of a person's token; an agent is its own client."""
MAX_TOKEN_CHARACTERS = 16 * 1024

_SECOND_US = 1_000_000
_CACHE_SIZE = 4_096
_SEGMENT = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_SCOPE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+", re.ASCII)  # RFC 6749, section 3.3
_HEADER_BYTES = 1_024
_ALGORITHMS = frozenset(algorithm.value for algorithm in Algorithm)
_HEADER = frozenset({"alg", "kid", "typ"})


def scope_of(tool: str, field: str | None = None) -> str:
    """The scope of a tool (`tool:tracker.update`), a field of it (`…#category`), a model (`model:triage`)."""
    scope = tool if tool.startswith("model:") else f"tool:{tool}"
    return scope if field is None else f"{scope}#{field}"


def scopes_of(contract: Contract) -> tuple[str, ...]:
    """The scopes that a contract's grants come to, sorted: each tool, each field it may write, each model.

    Raises `IdentityError` with code `scope_malformed` for a field name that a scope can't hold (RFC 6749).
    """
    scopes = {scope_of(f"model:{name}") for name in contract.models}
    for action in contract.actions:
        scopes.add(scope_of(action.tool))
        scopes.update(scope_of(action.tool, field) for field in action.only.fields)
    _check_scopes(scopes)
    return tuple(sorted(scopes))


def _check_scopes(scopes: Iterable[str]) -> None:
    for scope in scopes:
        if _SCOPE.fullmatch(scope) is None:
            raise IdentityError(
                f"`{ascii(scope)[1:-1]}` can't be a scope; use printable ASCII without spaces, quotes and backslashes",
                code="scope_malformed",
            )


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a verified token says. `iat`, `nbf`, `exp`: whole seconds since the epoch (RFC 7519)."""

    principal: str
    """Who acts: `agent/<tenant>/<contract>` or `person/<id>`."""
    on_behalf_of: str | None
    """The person an agent acts for; `None` where it acts for nobody, and for a person's own token."""
    tenant: str
    region: str | None
    audience: str
    scopes: tuple[str, ...]
    release: str | None
    """The digest of the release that an agent acts under; `None` in a person's token."""
    run: str | None
    """The one run that an agent's token is good for; `None` in a person's token."""
    jti: str
    iat: int
    nbf: int
    exp: int
    kid: str

    def lacks(self, tool: str, fields: Iterable[str] = ()) -> tuple[str, ...]:
        """The scopes that a call of `tool` writing `fields` needs and this token does not hold."""
        needed = (scope_of(tool), *(scope_of(tool, field) for field in fields))
        return tuple(scope for scope in needed if scope not in self.scopes)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRequest:
    """What a token is to say; an agent's needs `release` (its digest) and `run`, a person's has neither."""

    principal: str
    tenant: str
    scopes: tuple[str, ...]
    region: str | None = None
    release: str | None = None
    run: str | None = None
    on_behalf_of: str | None = None


class _Actor(msgspec.Struct, frozen=True):
    sub: str


class _Payload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    iss: str
    aud: str
    sub: str
    client_id: str
    tenant: str
    jti: str
    scope: str
    iat: int
    nbf: int
    exp: int
    act: _Actor | None = None
    region: str | None = None
    release: str | None = None
    run: str | None = None


class TokenIssuer:
    """Issues a project's tokens. `lifetime_s` is at most 900."""

    def __init__(self, keys: KeyRing, *, issuer: str, audience: str, lifetime_s: int = 600) -> None:
        if not 0 < lifetime_s <= MAX_LIFETIME_S:
            raise IdentityError(
                f"a token's lifetime of {lifetime_s} s is not between 1 and {MAX_LIFETIME_S} s; "
                "correct `token_minutes` in remit.toml",
                code="token_lifetime_too_long",
            )
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self.lifetime_s = lifetime_s

    def issue(self, request: TokenRequest, now_us: int) -> str:
        """A signed token that is valid from now on.

        Raises `IdentityError`: `principal_malformed`, `token_wrong_tenant`, `scope_malformed`, or
        `token_malformed` for a request that no valid token can be made of.
        """
        _check_scopes(request.scopes)
        _check_parties(request)
        now_s = now_us // _SECOND_US
        acts_for = request.on_behalf_of
        payload = _Payload(
            iss=self._issuer,
            aud=self._audience,
            sub=acts_for or request.principal,
            client_id=request.principal if request.release else PERSON_CLIENT,
            tenant=request.tenant,
            jti=secrets.token_urlsafe(16),
            scope=" ".join(request.scopes),
            iat=now_s,
            nbf=now_s,
            exp=now_s + self.lifetime_s,
            act=_Actor(request.principal) if acts_for else None,
            region=request.region,
            release=request.release,
            run=request.run,
        )
        token = self._keys.sign(msgspec.json.encode(payload), TYPE)
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise IdentityError(
                f"{len(request.scopes)} scopes make a token longer than {MAX_TOKEN_CHARACTERS:,} characters; "
                "split the contract, or grant fewer fields",
                code="token_malformed",
            )
        return token


def _check_parties(stated: TokenRequest | Claims) -> None:
    """Who may stand in which place; the same when a token is made and when it is read."""
    name = parse_principal(stated.principal)
    person = stated.on_behalf_of
    if name.kind is PrincipalKind.AGENT:
        if name.tenant != stated.tenant:
            raise IdentityError(
                f"`{name}` is not of tenant `{ascii(stated.tenant)[1:-1]}`; use the tenant's own principal",
                code="token_wrong_tenant",
            )
        if not stated.release or not stated.run:
            raise IdentityError(
                f"the token of `{name}` lacks a release or a run; an agent's is bound to one of each",
                code="token_malformed",
            )
    elif stated.release is not None or stated.run is not None or person is not None:
        raise IdentityError(
            f"the token of `{name}` is bound to a run or acts for somebody; only an agent's token does",
            code="token_malformed",
        )
    if person is not None and parse_principal(person).kind is not PrincipalKind.PERSON:
        raise IdentityError(f"`{person}` is not a person; an agent acts for persons", code="token_malformed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Jws:
    """A compact JWS (RFC 7515) taken apart, nothing of it verified."""

    header: Mapping[str, Json]
    payload: bytes
    signing_input: bytes
    signature: bytes

    def text(self, parameter: str) -> str:
        """A header parameter that must be a string. Raises `IdentityError` with code `token_malformed`."""
        value = self.header.get(parameter)
        if type(value) is not str:
            raise malformed(f"its header has no `{parameter}`")
        return value


def malformed(problem: str) -> IdentityError:
    """The error for a token that isn't one."""
    return IdentityError(f"the token is malformed: {problem}; ask for a new one", code="token_malformed")


def check_token_text(token: str) -> None:
    """Refuse what is too long or not ASCII, before anything is parsed."""
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise malformed(f"it is longer than {MAX_TOKEN_CHARACTERS:,} characters")
    if not token.isascii():
        raise malformed("it holds characters outside ASCII")


def parse_jws(token: str) -> Jws:
    """Take a token apart, strictly: three canonical base64url parts, a header of JSON without duplicate keys.

    Raises `IdentityError` with code `token_malformed`.
    """
    check_token_text(token)
    parts = token.split(".")
    if len(parts) != 3:
        raise malformed("it does not have three parts")
    header = parse_object(decode_segment(parts[0]), "header", limit_bytes=_HEADER_BYTES)
    return Jws(
        header=header,
        payload=decode_segment(parts[1]),
        signing_input=f"{parts[0]}.{parts[1]}".encode(),
        signature=decode_segment(parts[2]),
    )


def decode_segment(segment: str) -> bytes:
    """Base64url in its one canonical form, else `IdentityError` with code `token_malformed`."""
    if _SEGMENT.fullmatch(segment) is None:
        raise malformed("a part is not base64url")
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error as error:
        raise malformed("a part is not base64url") from error
    # Trailing bits that decoding drops would let two texts stand for one token.
    if base64.urlsafe_b64encode(data).rstrip(b"=") != segment.encode():
        raise malformed("a part is not in its one canonical form")
    return data


def parse_object(data: bytes, what: str, *, limit_bytes: int = MAX_TOKEN_CHARACTERS) -> dict[str, Json]:
    """A JSON object of a token: UTF-8, no duplicate keys; else `IdentityError`, `token_malformed`."""
    try:
        value = parse(data.decode(), limit_bytes=limit_bytes)
    except (UnicodeDecodeError, ValueRefused) as error:
        raise malformed(f"its {what} is not acceptable JSON") from error
    if not isinstance(value, dict):
        raise malformed(f"its {what} is not a JSON object")
    return cast("dict[str, Json]", value)


def check_times(iat: float, nbf: float, exp: float, now_us: int) -> None:
    """`exp`, `nbf` and `iat` against the clock, with 30 s of tolerance.

    Raises `IdentityError` with code `token_expired` or `token_not_yet_valid`.
    """
    if now_us >= (exp + SKEW_S) * _SECOND_US:
        ago_s = int(now_us / _SECOND_US - exp)
        raise IdentityError(f"the token expired {ago_s:,} s ago; ask for a new one", code="token_expired")
    starts = max(nbf, iat)
    if now_us < (starts - SKEW_S) * _SECOND_US:
        ahead_s = int(starts - now_us / _SECOND_US)
        raise IdentityError(
            f"the token is not valid for another {ahead_s:,} s; wait, or set this machine's clock",
            code="token_not_yet_valid",
        )


class TokenVerifier:
    """Verifies a project's own tokens: for this issuer, this audience and this tenant, exactly.

    What verified once is remembered under its SHA-256, so that the next use costs a hash and a look at the
    clock and the key. Safe to use from several threads.
    """

    def __init__(
        self, keys: KeyRing, *, issuer: str, audience: str, tenant: str, cache_size: int = _CACHE_SIZE
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._tenant = tenant
        self._cache_size = cache_size
        self._cache: dict[bytes, Claims] = {}
        self._lock = threading.Lock()

    @property
    def cached(self) -> int:
        """How many verified tokens are remembered; never more than `cache_size`."""
        return len(self._cache)

    def verify(self, token: str, now_us: int) -> Claims:
        """What the token says, if all of it holds now. `now_us`: microseconds since the epoch.

        Raises `IdentityError` with one of the codes `token_malformed`, `token_algorithm_refused`,
        `token_unknown_key`, `token_bad_signature`, `token_wrong_issuer`, `token_wrong_audience`,
        `token_wrong_tenant`, `token_lifetime_too_long`, `token_expired`, `token_not_yet_valid`,
        `principal_malformed`.
        """
        check_token_text(token)
        digest = sha256(token.encode()).digest()
        known = self._cache.get(digest)
        if known is None:
            claims = self._verify(token, now_us)
            self._remember(digest, claims)
            return claims
        try:
            check_times(known.iat, known.nbf, known.exp, now_us)
            if self._keys.verification_key(known.kid, now_us) is None:
                raise _unknown_key()
        except IdentityError:
            self._cache.pop(digest, None)
            raise
        return known

    def _remember(self, digest: bytes, claims: Claims) -> None:
        with self._lock:
            while len(self._cache) >= self._cache_size:
                self._cache.pop(next(iter(self._cache)), None)  # the oldest
            self._cache[digest] = claims

    def _verify(self, token: str, now_us: int) -> Claims:
        jws = parse_jws(token)
        kid = self._check_signature(jws, now_us)
        try:
            payload = msgspec.convert(parse_object(jws.payload, "payload"), _Payload)
        except msgspec.ValidationError as error:
            raise malformed(f"its payload: {error}".lower()) from error
        self._check_payload(payload)
        check_times(payload.iat, payload.nbf, payload.exp, now_us)
        claims = _claims(payload, kid)
        _check_parties(claims)
        return claims

    def _check_signature(self, jws: Jws, now_us: int) -> str:
        algorithm = jws.text("alg")
        if algorithm not in _ALGORITHMS:
            raise _refused_algorithm()
        strange = set(jws.header) - _HEADER
        if strange:
            raise malformed("its header holds parameters other than `alg`, `kid` and `typ`")
        if jws.text("typ") != TYPE:
            raise malformed(f"its `typ` is not `{TYPE}`")
        kid = jws.text("kid")
        key = self._keys.verification_key(kid, now_us)
        if key is None:
            raise _unknown_key()
        if key.algorithm != algorithm:
            raise _refused_algorithm()
        if not key.verifies(jws.signing_input, jws.signature):
            raise IdentityError("the token's signature does not verify; ask for a new one", code="token_bad_signature")
        return kid

    def _check_payload(self, payload: _Payload) -> None:
        if payload.iss != self._issuer:
            raise IdentityError("the token is from another issuer; use one of this project", code="token_wrong_issuer")
        if payload.aud != self._audience:
            raise IdentityError(
                f"the token is not for audience `{self._audience}`; ask for one that is",
                code="token_wrong_audience",
            )
        if payload.tenant != self._tenant:
            raise IdentityError(
                f"the token is not of tenant `{self._tenant}`; use one of this project",
                code="token_wrong_tenant",
            )
        if payload.exp - min(payload.iat, payload.nbf) > MAX_LIFETIME_S:
            raise IdentityError(
                f"the token lives longer than {MAX_LIFETIME_S} s; ask for a shorter one",
                code="token_lifetime_too_long",
            )


def _unknown_key() -> IdentityError:
    return IdentityError(
        "the token was signed with a key that is unknown or retired; ask for a new one",
        code="token_unknown_key",
    )


def _refused_algorithm() -> IdentityError:
    return IdentityError(
        "the token's algorithm is not the one of its key; only `EdDSA` and `ES256` are accepted",
        code="token_algorithm_refused",
    )


def _claims(payload: _Payload, kid: str) -> Claims:
    return Claims(
        principal=payload.sub if payload.act is None else payload.act.sub,
        on_behalf_of=None if payload.act is None else payload.sub,
        tenant=payload.tenant,
        region=payload.region,
        audience=payload.aud,
        scopes=tuple(payload.scope.split(" ")) if payload.scope else (),
        release=payload.release,
        run=payload.run,
        jti=payload.jti,
        iat=payload.iat,
        nbf=payload.nbf,
        exp=payload.exp,
        kid=kid,
    )

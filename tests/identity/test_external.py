"""External issuers, against a real HTTP server on loopback: rotation, outage, garbage, slowness."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.jwk import ECKey, OKPKey, RSAKey

from remit.errors import ConfigError, IdentityError
from remit.identity.external import (
    RETRY_US,
    STALE_US,
    TTL_US,
    UNKNOWN_KEY_US,
    ExternalIdentity,
    ExternalIssuer,
    ExternalVerifier,
)
from remit.identity.keys import encode_segment, signature_algorithm

NOW_S = 1_750_000_000
NOW_US = NOW_S * 1_000_000
ISSUER = "https://idp.example"
ALLOWED = ("ES256", "ES384", "ES512", "EdDSA", "Ed25519", "RS256", "PS256")

AnyKey = ECKey | OKPKey | RSAKey
Answer = Callable[[BaseHTTPRequestHandler], None]


def published(*keys: AnyKey, **members: object) -> bytes:
    return json.dumps({"keys": [{**key.as_dict(), **members} for key in keys]}).encode()


def answering(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@dataclass(kw_only=True)
class Idp:
    """An issuer's web server. `answer` is what it does now; `asked` counts how often."""

    url: str = ""
    asked: int = 0
    answer: Answer = field(default_factory=lambda: answering(b"{}"))

    def publishes(self, *keys: AnyKey, **members: object) -> None:
        self.answer = answering(published(*keys, **members))


def serve(idp: Idp) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            idp.asked += 1
            idp.answer(self)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class calls it so)
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    idp.url = f"http://127.0.0.1:{server.server_address[1]}/jwks.json"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


@pytest.fixture
def idp() -> Iterator[Idp]:
    idp = Idp()
    server = serve(idp)
    yield idp
    server.shutdown()
    server.server_close()


def new_key(algorithm: str = "ES256") -> AnyKey:
    key: AnyKey
    match algorithm:
        case "ES256" | "ES384" | "ES512":
            curve = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[algorithm]
            key = ECKey.generate_key(curve)
        case "EdDSA" | "Ed25519":
            key = OKPKey.generate_key("Ed25519")
        case _:
            key = RSAKey.import_key(rsa.generate_private_key(65537, 2048))
    key.ensure_kid()
    return key


def token(key: AnyKey, algorithm: str = "ES256", header: dict[str, object] | None = None, **claims: object) -> str:
    """A token as the issuer would make it; `...` leaves a claim or a header parameter out."""
    everything: dict[str, object] = {
        "iss": ISSUER,
        "aud": "remit",
        "sub": "lee",
        "iat": NOW_S,
        "exp": NOW_S + 3_600,
        **claims,
    }
    parameters = {"alg": algorithm, "kid": key.kid, "typ": "JWT", **(header or {})}
    parts = [
        encode_segment(json.dumps({name: value for name, value in part.items() if value is not ...}).encode())
        for part in (parameters, everything)
    ]
    signing_input = ".".join(parts)
    return f"{signing_input}.{encode_segment(signature_algorithm(algorithm).sign(signing_input.encode(), key))}"


def issuer(jwks: str, **changes: Any) -> ExternalIssuer:
    settings: dict[str, Any] = {"issuer": ISSUER, "jwks": jwks, "audience": "remit", "algorithms": ALLOWED}
    return ExternalIssuer(**{**settings, **changes})


def verifier(idp: Idp, **changes: Any) -> ExternalVerifier:
    return ExternalVerifier([issuer(idp.url, **changes)], timeout_ms=2_000)


def check(verifier: ExternalVerifier, text: str, now_us: int = NOW_US) -> ExternalIdentity:
    return asyncio.run(verifier.verify(text, now_us))


def refused(verifier: ExternalVerifier, text: str, now_us: int = NOW_US) -> str:
    with pytest.raises(IdentityError) as caught:
        check(verifier, text, now_us)
    return caught.value.code


@pytest.mark.parametrize("algorithm", ALLOWED)
def test_a_person_of_a_trusted_issuer_is_recognised(idp: Idp, algorithm: str) -> None:
    key = new_key(algorithm)
    idp.publishes(key)
    found = check(verifier(idp), token(key, algorithm))
    assert found == ExternalIdentity(person="person/lee", issuer=ISSUER, exp=NOW_S + 3_600)


def test_keys_are_kept_for_a_while_and_then_fetched_again(idp: Idp) -> None:
    key = new_key()
    idp.publishes(key)
    trusted = verifier(idp)
    for now_us in (NOW_US, NOW_US + 1, NOW_US + TTL_US - 1):
        check(trusted, token(key), now_us)
    assert idp.asked == 1
    check(trusted, token(key), NOW_US + TTL_US)
    assert idp.asked == 2


def test_a_rotated_key_is_found_at_once_and_the_old_one_forgotten(idp: Idp) -> None:
    old, new = new_key(), new_key()
    idp.publishes(old)
    trusted = verifier(idp)
    check(trusted, token(old))
    idp.publishes(new)
    check(trusted, token(new), NOW_US + 1)
    assert idp.asked == 2
    assert refused(trusted, token(old), NOW_US + 2) == "token_unknown_key"


def test_unknown_keys_cause_one_fetch_a_minute_however_many_come(idp: Idp) -> None:
    key = new_key()
    idp.publishes(key)
    trusted = verifier(idp)
    check(trusted, token(key))
    for n in range(20):
        assert refused(trusted, token(new_key()), NOW_US + n) == "token_unknown_key"
    assert idp.asked == 2
    assert refused(trusted, token(new_key()), NOW_US + UNKNOWN_KEY_US) == "token_unknown_key"
    assert idp.asked == 3
    check(trusted, token(key), NOW_US + UNKNOWN_KEY_US)
    assert idp.asked == 3


def test_many_at_once_cause_one_fetch(idp: Idp) -> None:
    key = new_key()
    idp.publishes(key)
    trusted = verifier(idp)

    async def all_at_once() -> list[ExternalIdentity]:
        return await asyncio.gather(*(trusted.verify(token(key), NOW_US) for _ in range(50)))

    assert {found.person for found in asyncio.run(all_at_once())} == {"person/lee"}
    assert idp.asked == 1


def speaks_no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH\r\n")


def hangs_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.close()


GARBAGE: dict[str, Answer] = {
    "an error": answering(b"{}", 500),
    "not found": answering(b'{"keys": []}', 404),
    "a redirect": answering(b"", 302, location="http://127.0.0.1:1/"),
    "a page": answering(b"<html>maintenance</html>"),
    "nothing": answering(b""),
    "another object": answering(b'{"hello": 1}'),
    "a list": answering(b"[]"),
    "keys that are no list": answering(b'{"keys": {}}'),
    "keys that are no objects": answering(b'{"keys": ["a"]}'),
    "keys twice": answering(b'{"keys": [], "keys": []}'),
    "not utf-8": answering(b'\xff\xfe{"keys": []}'),
    "too much": answering(b'{"keys": [' + b" " * 300_000 + b"]}"),
    "too many": answering(json.dumps({"keys": [{}] * 101}).encode()),
    "compressed": answering(gzip.compress(b'{"keys": []}'), content_encoding="gzip"),
    "cut short": answering(b'{"keys": []}', content_length="5000"),
    "no http": speaks_no_http,
    "hung up": hangs_up,
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_denies_where_nothing_is_known_and_changes_nothing_where_keys_are(idp: Idp, garbage: str) -> None:
    key = new_key()
    idp.answer = GARBAGE[garbage]
    trusted = verifier(idp)
    assert refused(trusted, token(key)) == "issuer_unreachable"
    idp.publishes(key)
    now_us = NOW_US + RETRY_US
    check(trusted, token(key), now_us)
    idp.answer = GARBAGE[garbage]
    assert check(trusted, token(key), now_us + TTL_US).person == "person/lee"
    assert idp.asked == 3


def test_an_issuer_that_is_down_is_asked_again_only_after_a_while(idp: Idp) -> None:
    idp.answer = answering(b"", 503)
    trusted = verifier(idp)
    key = new_key()
    for n in range(20):
        assert refused(trusted, token(key), NOW_US + n) == "issuer_unreachable"
    assert idp.asked == 1
    idp.publishes(key)
    check(trusted, token(key), NOW_US + RETRY_US)
    assert idp.asked == 2


def test_an_outage_is_bridged_by_the_last_good_copy_for_an_hour_and_no_longer() -> None:
    idp = Idp()
    server = serve(idp)
    key = new_key()
    idp.publishes(key)
    trusted = verifier(idp)
    text = token(key, exp=NOW_S + 7_200)
    check(trusted, text)
    server.shutdown()
    server.server_close()
    last_us = NOW_US + TTL_US + STALE_US - 1
    assert check(trusted, text, last_us).person == "person/lee"
    assert refused(trusted, token(new_key(), exp=NOW_S + 7_200), last_us) == "token_unknown_key"
    assert refused(trusted, text, last_us + 1) == "issuer_unreachable"


def test_an_issuer_that_withdraws_all_its_keys_is_believed(idp: Idp) -> None:
    key = new_key()
    idp.publishes(key)
    trusted = verifier(idp)
    check(trusted, token(key))
    idp.publishes()
    assert refused(trusted, token(key), NOW_US + TTL_US) == "token_unknown_key"


def test_a_silent_issuer_delays_its_own_tokens_alone_and_not_for_long(idp: Idp) -> None:
    """While one fetch hangs, the loop runs, and tokens of a known key still verify from the last copy."""
    key = new_key()
    idp.publishes(key)
    trusted = ExternalVerifier([issuer(idp.url)], timeout_ms=500)
    asked, release = threading.Event(), threading.Event()

    def hang(_: BaseHTTPRequestHandler) -> None:
        asked.set()
        release.wait(30)

    async def story() -> None:
        await trusted.verify(token(key), NOW_US)
        idp.answer = hang
        first = asyncio.create_task(trusted.verify(token(key), NOW_US + TTL_US))
        await asyncio.to_thread(asked.wait, 30)
        assert not first.done()
        assert (await trusted.verify(token(key), NOW_US + TTL_US)).person == "person/lee"
        assert not first.done(), "the one that fetches is still waiting"
        assert (await first).person == "person/lee", "and then goes on with the last copy"

    try:
        asyncio.run(story())
    finally:
        release.set()


def test_a_cancelled_fetch_leaves_the_verifier_usable(idp: Idp) -> None:
    key = new_key()
    asked, release = threading.Event(), threading.Event()

    def hang(_: BaseHTTPRequestHandler) -> None:
        asked.set()
        release.wait(30)

    idp.answer = hang
    trusted = verifier(idp)

    async def story() -> None:
        first = asyncio.create_task(trusted.verify(token(key), NOW_US))
        await asyncio.to_thread(asked.wait, 30)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        idp.publishes(key)
        assert (await trusted.verify(token(key), NOW_US)).person == "person/lee"

    try:
        asyncio.run(story())
    finally:
        release.set()


def test_keys_come_from_a_file_too_and_are_read_again(tmp_path: Path) -> None:
    old, new = new_key(), new_key()
    path = tmp_path / "idp.json"
    path.write_bytes(published(old))
    path.chmod(0o644)
    trusted = ExternalVerifier([issuer("idp.json", folder=tmp_path)])
    check(trusted, token(old))
    path.write_bytes(published(new))
    check(trusted, token(new))
    path.unlink()
    check(trusted, token(new), NOW_US + TTL_US)


def test_a_key_file_that_others_can_write_is_not_believed(tmp_path: Path) -> None:
    key = new_key()
    (tmp_path / "idp.json").write_bytes(published(key))
    (tmp_path / "idp.json").chmod(0o666)
    with pytest.raises(IdentityError, match="chmod go-w") as caught:
        check(ExternalVerifier([issuer("idp.json", folder=tmp_path)]), token(key))
    assert caught.value.code == "issuer_unreachable"


CLAIMS: dict[str, tuple[dict[str, Any], str]] = {
    "another audience": ({"aud": "other"}, "token_wrong_audience"),
    "other audiences": ({"aud": ["other", "remit2"]}, "token_wrong_audience"),
    "no audience": ({"aud": ...}, "token_malformed"),
    "an audience that is a number": ({"aud": 1}, "token_malformed"),
    "an issuer that nobody trusts": ({"iss": "https://evil.example"}, "token_wrong_issuer"),
    "no issuer": ({"iss": ...}, "token_wrong_issuer"),
    "an issuer that is a list": ({"iss": [ISSUER]}, "token_wrong_issuer"),
    "no expiry": ({"exp": ...}, "token_malformed"),
    "an expiry as text": ({"exp": "9999999999"}, "token_malformed"),
    "expired": ({"iat": NOW_S - 3_600, "exp": NOW_S - 30}, "token_expired"),
    "not yet valid": ({"nbf": NOW_S + 31}, "token_not_yet_valid"),
    "issued in the future": ({"iat": NOW_S + 31}, "token_not_yet_valid"),
    "valid for two days": ({"exp": NOW_S + 2 * 86_400}, "token_lifetime_too_long"),
    "valid for two days, issued nobody knows when": (
        {"iat": ..., "exp": NOW_S + 2 * 86_400},
        "token_lifetime_too_long",
    ),
    "valid for ever": ({"exp": 1e308}, "token_lifetime_too_long"),
    "no person": ({"sub": ...}, "person_not_mapped"),
    "a person in capitals": ({"sub": "Lee"}, "person_not_mapped"),
    "a person with a look-alike": ({"sub": "l\u0435\u0435"}, "person_not_mapped"),
    "a person like a path": ({"sub": "../lee"}, "person_not_mapped"),
    "a person that is a number": ({"sub": 7}, "person_not_mapped"),
    "an empty person": ({"sub": ""}, "person_not_mapped"),
}


@pytest.mark.parametrize("what", CLAIMS)
def test_a_token_is_refused_for(idp: Idp, what: str) -> None:
    key = new_key()
    idp.publishes(key)
    claims, code = CLAIMS[what]
    assert refused(verifier(idp), token(key, **claims)) == code


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["other", "remit"]},
        {"iat": ..., "nbf": NOW_S - 10},
        {"exp": NOW_S + 600.5, "iat": NOW_S + 0.25},
        {"exp": NOW_S - 29},
    ],
)
def test_what_issuers_may_write_differently_is_accepted(idp: Idp, claims: dict[str, Any]) -> None:
    key = new_key()
    idp.publishes(key)
    assert check(verifier(idp), token(key, **claims)).person == "person/lee"


def test_another_claim_can_name_the_person(idp: Idp) -> None:
    key = new_key()
    idp.publishes(key)
    trusted = verifier(idp, people_claim="preferred_username")
    assert check(trusted, token(key, sub="x-81", preferred_username="kim")).person == "person/kim"


def test_an_address_names_a_person_only_once_the_issuer_verified_it(idp: Idp) -> None:
    key = new_key()
    idp.publishes(key)
    trusted = verifier(idp, people_claim="email")
    address = "lee@northwind.example"
    verified = token(key, email=address, email_verified=True)
    assert check(trusted, verified).person == "person/lee@northwind.example"
    for flag in (False, ..., "true", 1):
        assert refused(trusted, token(key, email=address, email_verified=flag)) == "person_not_mapped"


@pytest.mark.parametrize("typ", ["logout+jwt", "secevent+jwt", "dpop+jwt", ""])
def test_another_kind_of_jwt_signs_nobody_in(idp: Idp, typ: str) -> None:
    key = new_key()
    idp.publishes(key)
    assert refused(verifier(idp), token(key, header={"typ": typ})) == "token_malformed"


@pytest.mark.parametrize("typ", [..., "JWT", "jwt", "at+jwt", "application/at+jwt"])
def test_access_and_id_tokens_sign_somebody_in(idp: Idp, typ: object) -> None:
    key = new_key()
    idp.publishes(key)
    check(verifier(idp), token(key, header={"typ": typ, "x5t": "harmless"}))


@pytest.mark.parametrize("parameter", ["jwk", "jku", "x5u", "x5c", "crit", "b64"])
def test_a_key_that_the_token_brings_along_is_not_looked_at(idp: Idp, parameter: str) -> None:
    mine, theirs = new_key(), new_key()
    idp.publishes(theirs)
    text = token(mine, header={parameter: mine.as_dict(), "kid": theirs.kid})
    assert refused(verifier(idp), text) == "token_malformed"


def test_another_key_under_the_issuers_name_is_refused(idp: Idp) -> None:
    key = new_key()
    idp.publishes(key)
    assert refused(verifier(idp), token(new_key(), header={"kid": key.kid})) == "token_bad_signature"


def test_algorithms_outside_the_allow_list_and_other_than_the_keys_are_refused(idp: Idp) -> None:
    key = new_key("RS256")
    idp.publishes(key, alg="RS256")
    assert refused(verifier(idp, algorithms=("ES256",)), token(key, "RS256")) == "token_algorithm_refused"
    assert refused(verifier(idp), token(key, "PS256")) == "token_algorithm_refused"
    check(verifier(idp), token(key, "RS256"))


@pytest.mark.parametrize("algorithm", ["none", "HS256", "HS512"])
def test_unsigned_and_symmetric_tokens_are_refused(idp: Idp, algorithm: str) -> None:
    key = new_key()
    idp.publishes(key)
    header, payload, _ = token(key).split(".")
    parameters = json.loads(base64.urlsafe_b64decode(header + "=="))
    header = encode_segment(json.dumps({**parameters, "alg": algorithm}).encode())
    assert refused(verifier(idp), f"{header}.{payload}.") == "token_algorithm_refused"


def weak_rsa() -> RSAKey:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        key = RSAKey.import_key(rsa.generate_private_key(65537, 1024))
    key.ensure_kid()
    return key


def test_keys_that_must_not_verify_are_left_out_of_a_set(idp: Idp) -> None:
    good, weak = new_key(), weak_rsa()
    public = good.as_dict()
    left_out: list[object] = [
        {**public, "kid": "enc", "use": "enc"},
        {**public, "kid": "ops", "key_ops": ["sign"]},
        {**public, "kid": "ops2", "key_ops": 5},
        {**public, "kid": "alg", "alg": "ES384"},
        {**public, "kid": "curve", "crv": "P-384"},
        {**public, "kid": "kty", "kty": "OKP"},
        {**public, "kid": "off", "x": public["y"]},
        {**good.as_dict(private=True), "kid": "leaked"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "mac"},
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA", "kid": "post-quantum"},
        {name: value for name, value in public.items() if name != "kid"},
        {**public, "kid": ""},
        {**weak.as_dict(), "kid": "weak"},
        {},
    ]
    idp.answer = answering(json.dumps({"keys": [*left_out, public]}).encode())
    trusted = verifier(idp)
    assert check(trusted, token(good)).person == "person/lee"
    for kid in ("enc", "ops", "ops2", "alg", "curve", "kty", "off", "leaked", "mac", "post-quantum", ""):
        assert refused(trusted, token(good, header={"kid": kid})) == "token_unknown_key"
    assert refused(trusted, token(weak, "RS256", header={"kid": "weak"})) == "token_unknown_key"


@pytest.mark.parametrize(
    "text", ["", "a.b.c", "x" * 20_000, "\u0430.b.c", "....", "e30.e30.", "e30.W10.", "W10.e30.e30"]
)
def test_what_is_no_token_is_refused_without_asking_anybody(idp: Idp, text: str) -> None:
    assert refused(verifier(idp), text) in {"token_malformed", "token_wrong_issuer"}
    assert idp.asked == 0


@pytest.mark.parametrize(
    "jwks",
    [
        "http://idp.example/jwks.json",
        "http://127.0.0.1.evil.example/jwks.json",
        "http://localhost.evil.example/",
        "http://10.0.0.1/",
        "https://user:password@idp.example/jwks.json",
        "https:///jwks.json",
        "ftp://127.0.0.1/jwks.json",
        "file:///etc/passwd",
    ],
)
def test_keys_are_fetched_over_https_or_on_loopback(jwks: str) -> None:
    with pytest.raises(ConfigError, match="over https, or http on loopback"):
        issuer(jwks)


@pytest.mark.parametrize("jwks", ["https://idp.example/", "http://127.0.0.9:80/", "http://[::1]/", "http://localhost/"])
def test_such_addresses_are_accepted(jwks: str) -> None:
    assert issuer(jwks).jwks == jwks


@pytest.mark.parametrize("algorithms", [(), ("HS256",), ("none",), ("ES256", "HS512"), ("es256",)])
def test_only_asymmetric_algorithms_can_be_allowed(algorithms: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="choose among"):
        issuer("https://idp.example/", algorithms=algorithms)

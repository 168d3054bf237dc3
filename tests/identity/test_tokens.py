"""Tokens: what is not exactly one of ours, for us, for this run and now, is refused with a stable code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey

from remit.contracts.model import (
    Action,
    Budget,
    Contract,
    Escalation,
    ModelBinding,
    Only,
    Slo,
    Style,
    Success,
)
from remit.errors import IdentityError
from remit.identity.keys import LOOK_AGAIN_US, Algorithm, KeyRing, signature_algorithm
from remit.identity.tokens import (
    MAX_TOKEN_CHARACTERS,
    Claims,
    TokenIssuer,
    TokenRequest,
    TokenVerifier,
    scopes_of,
)

NOW_S = 1_750_000_000
NOW_US = NOW_S * 1_000_000
SECOND_US = 1_000_000
ISSUER, AUDIENCE, TENANT = "urn:remit:northwind", "remit", "northwind"
AGENT, PERSON, RUN, RELEASE = "agent/northwind/it-tickets", "person/lee", "run-1", "c" * 64

REQUEST = TokenRequest(
    principal=AGENT,
    tenant=TENANT,
    region="eu",
    scopes=("tool:tracker.read", "tool:tracker.update", "tool:tracker.update#category"),
    release=RELEASE,
    run=RUN,
    on_behalf_of=PERSON,
)
PAYLOAD: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": AGENT,
    "client_id": AGENT,
    "tenant": TENANT,
    "jti": "j",
    "scope": "tool:tracker.read",
    "iat": NOW_S,
    "nbf": NOW_S,
    "exp": NOW_S + 600,
    "release": RELEASE,
    "run": RUN,
}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


@dataclass(frozen=True, kw_only=True)
class Desk:
    """A ring with its issuer and verifier, and the means of an attacker who holds the ring's private key."""

    folder: Path
    ring: KeyRing
    issuer: TokenIssuer
    verifier: TokenVerifier
    token: str

    def refused(self, token: str, now_us: int = NOW_US) -> str:
        with pytest.raises(IdentityError) as caught:
            self.verifier.verify(token, now_us)
        assert len(token) < 40 or token not in str(caught.value)
        return caught.value.code

    @property
    def header(self) -> dict[str, Any]:
        return json.loads(decoded(self.token.split(".")[0]))

    def signed(self, header: bytes, payload: bytes) -> str:
        """Properly signed by the active key, whatever it is that is signed."""
        stored = json.loads((self.folder / "signing.json").read_bytes())["keys"][0]
        kind = OKPKey if stored["kty"] == "OKP" else ECKey
        key = kind.import_key({name: stored[name] for name in ("kty", "crv", "x", "y", "d") if name in stored})
        signing_input = f"{encoded(header)}.{encoded(payload)}"
        signature = signature_algorithm(stored["alg"]).sign(signing_input.encode(), key)
        return f"{signing_input}.{encoded(signature)}"

    def claiming(self, **claims: Any) -> str:
        payload = {name: value for name, value in {**PAYLOAD, **claims}.items() if value is not ...}
        return self.ring.sign(json.dumps(payload).encode(), "at+jwt")

    def under(self, **parameters: Any) -> str:
        header = {name: value for name, value in {**self.header, **parameters}.items() if value is not ...}
        return self.signed(json.dumps(header).encode(), json.dumps(PAYLOAD).encode())


def new_desk(folder: Path, algorithm: str) -> Desk:
    ring = KeyRing.open(folder, algorithm, NOW_US)
    issuer = TokenIssuer(ring, issuer=ISSUER, audience=AUDIENCE)
    verifier = TokenVerifier(ring, issuer=ISSUER, audience=AUDIENCE, tenant=TENANT)
    return Desk(folder=folder, ring=ring, issuer=issuer, verifier=verifier, token=issuer.issue(REQUEST, NOW_US))


@pytest.fixture(params=list(Algorithm))
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    return new_desk(tmp_path / "keys", request.param)


def test_what_was_issued_verifies_and_says_what_was_asked(desk: Desk) -> None:
    claims = desk.verifier.verify(desk.token, NOW_US)
    assert claims == Claims(
        principal=AGENT,
        on_behalf_of=PERSON,
        tenant=TENANT,
        region="eu",
        audience=AUDIENCE,
        scopes=REQUEST.scopes,
        release=RELEASE,
        run=RUN,
        jti=claims.jti,
        iat=NOW_S,
        nbf=NOW_S,
        exp=NOW_S + 600,
        kid=desk.ring.active_kid,
    )
    assert desk.verifier.verify(desk.token, NOW_US) == claims, "and once more, from memory"


def test_on_the_wire_the_person_is_the_subject_and_the_agent_the_actor(desk: Desk) -> None:
    header, payload, _ = (decoded(part) for part in desk.token.split("."))
    claims = json.loads(payload)
    assert json.loads(header) == {"alg": desk.header["alg"], "kid": desk.ring.active_kid, "typ": "at+jwt"}
    assert (claims["sub"], claims["act"], claims["client_id"]) == (PERSON, {"sub": AGENT}, AGENT)


def test_an_agent_that_acts_for_nobody_is_itself_the_subject(desk: Desk) -> None:
    token = desk.issuer.issue(replace(REQUEST, on_behalf_of=None), NOW_US)
    payload = json.loads(decoded(token.split(".")[1]))
    assert payload["sub"] == AGENT
    assert "act" not in payload
    claims = desk.verifier.verify(token, NOW_US)
    assert (claims.principal, claims.on_behalf_of) == (AGENT, None)


def test_a_persons_token_is_bound_to_no_run(desk: Desk) -> None:
    request = TokenRequest(principal=PERSON, tenant=TENANT, scopes=())
    claims = desk.verifier.verify(desk.issuer.issue(request, NOW_US), NOW_US)
    assert (claims.principal, claims.on_behalf_of, claims.run, claims.release) == (PERSON, None, None, None)
    assert claims.scopes == ()


def test_no_two_tokens_are_the_same(desk: Desk) -> None:
    tokens = [desk.issuer.issue(REQUEST, NOW_US) for _ in range(10)]
    assert len({desk.verifier.verify(token, NOW_US).jti for token in tokens}) == 10


def test_a_token_expires_after_its_lifetime_and_thirty_seconds(desk: Desk) -> None:
    end_us = NOW_US + 630 * SECOND_US
    assert desk.verifier.verify(desk.token, end_us - 1).exp == NOW_S + 600
    assert desk.refused(desk.token, end_us) == "token_expired"
    assert desk.refused(desk.token, end_us) == "token_expired", "and is not remembered as good"


def test_a_token_of_the_future_is_refused_but_for_thirty_seconds(desk: Desk) -> None:
    assert desk.refused(desk.token, NOW_US - 30 * SECOND_US - 1) == "token_not_yet_valid"
    assert desk.verifier.verify(desk.token, NOW_US - 30 * SECOND_US).nbf == NOW_S
    assert desk.refused(desk.token, NOW_US - 31 * SECOND_US) == "token_not_yet_valid", "nor from memory"


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_each_of_nbf_and_iat_holds_a_token_back(desk: Desk, name: str) -> None:
    assert desk.refused(desk.claiming(**{name: NOW_S + 31})) == "token_not_yet_valid"


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another audience": ({"aud": "other"}, "token_wrong_audience"),
    "an audience that begins alike": ({"aud": "remit2"}, "token_wrong_audience"),
    "a list of audiences": ({"aud": ["remit", "other"]}, "token_malformed"),
    "another issuer": ({"iss": "urn:remit:southwind"}, "token_wrong_issuer"),
    "another issuer's path": ({"iss": ISSUER + "/"}, "token_wrong_issuer"),
    "another tenant": ({"tenant": "southwind"}, "token_wrong_tenant"),
    "another tenant's agent": ({"sub": "agent/southwind/it-tickets"}, "token_wrong_tenant"),
    "another tenant's agent as actor": (
        {"sub": PERSON, "act": {"sub": "agent/southwind/it-tickets"}},
        "token_wrong_tenant",
    ),
    "sixteen minutes": ({"exp": NOW_S + 901}, "token_lifetime_too_long"),
    "sixteen minutes from nbf": ({"nbf": NOW_S - 301}, "token_lifetime_too_long"),
    "no end in sight": ({"exp": 2**62}, "token_lifetime_too_long"),
    "no expiry": ({"exp": ...}, "token_malformed"),
    "no run": ({"run": ...}, "token_malformed"),
    "an empty run": ({"run": ""}, "token_malformed"),
    "no release": ({"release": ...}, "token_malformed"),
    "no jti": ({"jti": ...}, "token_malformed"),
    "an expiry as text": ({"exp": str(NOW_S + 600)}, "token_malformed"),
    "an expiry with a fraction": ({"exp": NOW_S + 600.5}, "token_malformed"),
    "an expiry that is true": ({"exp": True}, "token_malformed"),
    "an expiry beyond 64 bits": ({"exp": 10**30}, "token_malformed"),
    "a person bound to a run": ({"sub": PERSON}, "token_malformed"),
    "a person who acts for a person": (
        {"sub": PERSON, "act": {"sub": "person/kim"}, "run": ..., "release": ...},
        "token_malformed",
    ),
    "an agent that acts for an agent": ({"act": {"sub": AGENT}}, "token_malformed"),
    "an actor that is a text": ({"act": AGENT}, "token_malformed"),
    "a name with a look-alike": ({"sub": "agent/northwind/it-t\u0456ckets"}, "principal_malformed"),
    "a name like a path": ({"sub": "agent/northwind/../it-tickets"}, "principal_malformed"),
    "a lone surrogate": ({"jti": "\ud800"}, "token_malformed"),
    "no number": ({"exp": float("nan")}, "token_malformed"),
    "bottomless nesting": ({"act": json.loads("[" * 40 + "]" * 40)}, "token_malformed"),
}


@pytest.mark.parametrize("what", WRONG)
def test_even_signed_by_our_own_key_it_is_refused_with(desk: Desk, what: str) -> None:
    claims, code = WRONG[what]
    assert desk.refused(desk.claiming(**claims)) == code


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
def test_a_token_without_a_signature_is_refused(desk: Desk, algorithm: str) -> None:
    _, payload, signature = desk.token.split(".")
    header = encoded(json.dumps({**desk.header, "alg": algorithm}).encode())
    for kept in ("", signature):
        assert desk.refused(f"{header}.{payload}.{kept}") == "token_algorithm_refused"
    assert desk.refused(f"{desk.token.rsplit('.', 1)[0]}.") == "token_bad_signature"


def test_a_mac_under_the_public_key_is_refused(desk: Desk) -> None:
    """Key confusion: whatever form of the public key an attacker takes as the secret."""
    key = desk.ring.verification_key(desk.ring.active_kid, NOW_US)
    assert key is not None
    public = key.key.public_key
    (jwk,) = desk.ring.public_jwks(NOW_US)["keys"]
    secrets = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(jwk).encode(),
        decoded(str(jwk["x"])),
        b"",
    ]
    for name, digest in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")):
        header = encoded(json.dumps({**desk.header, "alg": name}).encode())
        signing_input = f"{header}.{desk.token.split('.')[1]}"
        for secret in secrets:
            mac = encoded(hmac.digest(secret, signing_input.encode(), digest))
            assert desk.refused(f"{signing_input}.{mac}") == "token_algorithm_refused"


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "Ed25519", "ES384", "RS256", "eddsa", "es256"])
def test_the_header_does_not_choose_the_algorithm(desk: Desk, algorithm: str) -> None:
    if algorithm != desk.header["alg"]:
        assert desk.refused(desk.under(alg=algorithm)) == "token_algorithm_refused"


def test_another_key_under_our_name_is_refused(desk: Desk, tmp_path: Path) -> None:
    other = new_desk(tmp_path / "other", desk.header["alg"])
    header = json.dumps(desk.header).encode()
    assert desk.refused(other.signed(header, json.dumps(PAYLOAD).encode())) == "token_bad_signature"
    assert desk.refused(other.token) == "token_unknown_key"


SMUGGLED: dict[str, Any] = {
    "jwk": {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
    "jku": "https://evil.example/jwks.json",
    "x5u": "https://evil.example/cert.pem",
    "x5c": ["MIIB"],
    "crit": ["exp"],
    "b64": False,
    "cty": "JWT",
    "zip": "DEF",
}


@pytest.mark.parametrize("parameter", SMUGGLED)
def test_a_header_that_brings_more_than_a_name_is_refused(desk: Desk, parameter: str) -> None:
    assert desk.refused(desk.under(**{parameter: SMUGGLED[parameter]})) == "token_malformed"


def test_a_key_embedded_in_the_header_is_never_used(desk: Desk) -> None:
    mine = OKPKey.generate_key("Ed25519")
    header = encoded(json.dumps({"alg": "EdDSA", "typ": "at+jwt", "kid": "mine", "jwk": mine.as_dict()}).encode())
    signing_input = f"{header}.{desk.token.split('.')[1]}"
    signature = signature_algorithm("EdDSA").sign(signing_input.encode(), mine)
    assert desk.refused(f"{signing_input}.{encoded(signature)}") == "token_malformed"


@pytest.mark.parametrize(
    "kid", ["../../../etc/passwd", "signing.json", "/dev/null", "", "\x00", "a" * 43, "' OR 1=1 --", "*"]
)
def test_a_key_name_is_only_ever_looked_up_among_the_rings_own(desk: Desk, kid: str) -> None:
    assert desk.refused(desk.under(kid=kid)) == "token_unknown_key"


@pytest.mark.parametrize("name", ["kid", "typ", "alg"])
@pytest.mark.parametrize("value", [..., 1, None, ["EdDSA"], {}])
def test_header_parameters_are_texts(desk: Desk, name: str, value: object) -> None:
    assert desk.refused(desk.under(**{name: value})) == "token_malformed"


@pytest.mark.parametrize("typ", ["JWT", "AT+JWT", "application/at+jwt", "logout+jwt", "dpop+jwt", ""])
def test_another_kind_of_jwt_is_no_access_token(desk: Desk, typ: str) -> None:
    assert desk.refused(desk.under(typ=typ)) == "token_malformed"


def test_duplicate_keys_are_refused_in_payload_and_header(desk: Desk) -> None:
    payload = json.dumps(PAYLOAD)
    twice = payload[:-1] + f', "tenant": "{TENANT}"}}'
    nested = payload[:-1] + f', "act": {{"sub": "{AGENT}", "sub": "{AGENT}"}}}}'
    assert desk.refused(desk.ring.sign(twice.encode(), "at+jwt")) == "token_malformed"
    assert desk.refused(desk.ring.sign(nested.encode(), "at+jwt")) == "token_malformed"
    header = json.dumps(desk.header)
    doubled = header[:-1] + f', "alg": "{desk.header["alg"]}"}}'
    assert desk.refused(desk.signed(doubled.encode(), payload.encode())) == "token_malformed"


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b'"x"', b"1", b"{", b"\xff", b"\xef\xbb\xbf{}", b"{}"])
def test_a_payload_that_is_no_object_of_claims_is_refused(desk: Desk, payload: bytes) -> None:
    assert desk.refused(desk.ring.sign(payload, "at+jwt")) == "token_malformed"


def test_a_payload_in_another_encoding_is_refused(desk: Desk) -> None:
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        token = desk.ring.sign(json.dumps(PAYLOAD).encode(encoding), "at+jwt")
        assert desk.refused(token) == "token_malformed"


def test_what_is_not_three_plain_parts_is_refused(desk: Desk) -> None:
    header, payload, signature = desk.token.split(".")
    refused = [
        "",
        ".",
        "..",
        "...",
        header,
        f"{header}.{payload}",
        f"{desk.token}.",
        f".{desk.token}",
        f"{desk.token}.{signature}",
        f"{header}..{signature}",
        f" {desk.token}",
        f"{desk.token}\n",
        f"{desk.token}=",
        f"Bearer {desk.token}",
        desk.token.replace("a", "\u0430"),
        f"{desk.token}\u200b",
        f"{desk.token}\ud800",
        f"{header}.{payload}.{signature}A",
    ]
    assert {desk.refused(token) for token in refused} <= {"token_malformed", "token_bad_signature"}


def test_no_part_of_a_token_is_enough(desk: Desk) -> None:
    for length in range(len(desk.token)):
        assert desk.refused(desk.token[:length]) in {"token_malformed", "token_bad_signature"}


def test_a_huge_token_is_refused_before_it_is_hashed_or_parsed(desk: Desk) -> None:
    assert desk.refused(desk.claiming(jti="x" * MAX_TOKEN_CHARACTERS)) == "token_malformed"
    assert desk.refused("a" * 10_000_000) == "token_malformed"
    assert desk.refused("." * 10_000_000) == "token_malformed"


def test_a_huge_header_is_refused(desk: Desk) -> None:
    assert desk.refused(desk.under(kid="x" * 2_000)) == "token_malformed"


def test_a_rotation_keeps_tokens_valid_for_their_lifetime_and_no_longer(desk: Desk) -> None:
    issuer = TokenIssuer(desk.ring, issuer=ISSUER, audience=AUDIENCE, lifetime_s=900)
    token = issuer.issue(REQUEST, NOW_US)
    old = desk.verifier.verify(token, NOW_US).kid
    desk.ring.rotate(NOW_US)
    new = desk.verifier.verify(issuer.issue(REQUEST, NOW_US), NOW_US).kid
    assert new != old
    last_us = NOW_US + 930 * SECOND_US - 1
    assert desk.verifier.verify(token, last_us).kid == old
    # A token that the old key signs later than it should is refused, in memory or not.
    late = forged_by_old_key(desk, old, last_us)
    assert desk.refused(token, last_us + 1) in {"token_expired", "token_unknown_key"}
    assert desk.refused(late, last_us + 1) == "token_unknown_key"
    desk.ring.prune(last_us + 1)
    assert desk.refused(token, last_us + 1) in {"token_expired", "token_unknown_key"}


def forged_by_old_key(desk: Desk, kid: str, now_us: int) -> str:
    header = json.dumps({**desk.header, "kid": kid}).encode()
    now_s = now_us // SECOND_US
    payload = {**PAYLOAD, "iat": now_s, "nbf": now_s, "exp": now_s + 600}
    return desk.signed(header, json.dumps(payload).encode())


def test_a_remembered_token_dies_with_its_key(desk: Desk) -> None:
    other = KeyRing.open(desk.folder, desk.header["alg"], NOW_US)
    assert desk.verifier.verify(desk.token, NOW_US).run == RUN
    other.revoke(other.active_kid)
    assert desk.refused(desk.token, NOW_US + LOOK_AGAIN_US) == "token_unknown_key"
    assert desk.verifier.cached == 0


def test_memory_of_verified_tokens_is_bounded_and_changes_nothing(desk: Desk) -> None:
    verifier = TokenVerifier(desk.ring, issuer=ISSUER, audience=AUDIENCE, tenant=TENANT, cache_size=3)
    tokens = [desk.issuer.issue(replace(REQUEST, run=f"run-{n}"), NOW_US) for n in range(10)]
    for _ in range(2):
        assert [verifier.verify(token, NOW_US).run for token in tokens] == [f"run-{n}" for n in range(10)]
        assert verifier.cached == 3


def test_nothing_refused_is_remembered(desk: Desk) -> None:
    for token in (desk.claiming(aud="other"), desk.under(kid="x"), "a.b.c"):
        desk.refused(token)
    assert desk.verifier.cached == 0


def test_every_flipped_bit_makes_a_token_worthless(desk: Desk) -> None:
    desk.verifier.verify(desk.token, NOW_US)
    data = desk.token.encode()
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            with pytest.raises(IdentityError):
                desk.verifier.verify(changed.decode("latin-1"), NOW_US)


@pytest.fixture(scope="module", params=list(Algorithm))
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return new_desk(tmp_path_factory.mktemp("shared") / "keys", request.param)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_change_to_a_token_makes_it_worthless(shared: Desk, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(shared.token)))
    end = data.draw(st.integers(start, min(len(shared.token), start + 8)))
    base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
    put = data.draw(st.text(st.sampled_from(base64url), max_size=8) | st.text(max_size=8))
    changed = shared.token[:start] + put + shared.token[end:]
    if changed != shared.token:
        with pytest.raises(IdentityError):
            shared.verifier.verify(changed, NOW_US)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(name=st.sampled_from(sorted([*PAYLOAD, "act", "region"])), value=JSON)
@example(name="sub", value="agent/northwind/it-tickets\n")
@settings(max_examples=300, deadline=None)
def test_any_claim_may_hold_anything_and_only_identity_errors_come_of_it(
    shared: Desk, name: str, value: object
) -> None:
    try:
        claims = shared.verifier.verify(shared.claiming(**{name: value}), NOW_US)
    except IdentityError:
        return
    assert (claims.principal, claims.tenant, claims.audience) == (AGENT, TENANT, AUDIENCE)
    assert claims.exp - claims.iat <= 900


@given(text=st.text() | st.binary().map(lambda data: data.decode("latin-1")))
@settings(max_examples=200, deadline=None)
def test_no_text_is_a_token_by_chance_and_none_breaks_the_verifier(shared: Desk, text: str) -> None:
    with pytest.raises(IdentityError):
        shared.verifier.verify(text, NOW_US)


@pytest.mark.parametrize("lifetime_s", [0, -1, 901])
def test_an_issuer_with_a_lifetime_beyond_fifteen_minutes_cannot_be_made(desk: Desk, lifetime_s: int) -> None:
    with pytest.raises(IdentityError) as caught:
        TokenIssuer(desk.ring, issuer=ISSUER, audience=AUDIENCE, lifetime_s=lifetime_s)
    assert caught.value.code == "token_lifetime_too_long"


def change(**fields: Any) -> Callable[[], TokenRequest]:
    return lambda: replace(REQUEST, **fields)


REFUSED: dict[str, tuple[Callable[[], TokenRequest], str]] = {
    "an agent without a run": (change(run=None), "token_malformed"),
    "an agent without a release": (change(release=None), "token_malformed"),
    "an agent of another tenant": (change(tenant="southwind"), "token_wrong_tenant"),
    "a person with a run": (change(principal=PERSON, on_behalf_of=None), "token_malformed"),
    "a person for a person": (
        change(principal=PERSON, on_behalf_of="person/kim", run=None, release=None),
        "token_malformed",
    ),
    "an agent for an agent": (change(on_behalf_of=AGENT), "token_malformed"),
    "a name that is none": (change(principal="root"), "principal_malformed"),
    "nobody in particular": (change(on_behalf_of=""), "principal_malformed"),
    "a scope with a space": (change(scopes=("tool:a.b tool:c.d",)), "scope_malformed"),
    "a scope with a quote": (change(scopes=('tool:"',)), "scope_malformed"),
    "an empty scope": (change(scopes=("",)), "scope_malformed"),
    "more scopes than a token holds": (
        change(scopes=tuple(f"tool:tracker.update#field_{n}" for n in range(1_000))),
        "token_malformed",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_no_token_is_issued_for(desk: Desk, what: str) -> None:
    request, code = REFUSED[what]
    with pytest.raises(IdentityError) as caught:
        desk.issuer.issue(request(), NOW_US)
    assert caught.value.code == code


def contract(*actions: Action) -> Contract:
    return Contract(
        contract="it-tickets",
        owner={"team": "it", "contact": "it@northwind.example"},  # pyright: ignore[reportArgumentType]
        purpose="triage",
        style=Style.WORKFLOW,
        input="in.json",
        output="out.json",
        actions=list(actions),
        models={"triage": ModelBinding(use="classifier")},
        budget=Budget(calls=1),
        escalate=Escalation(to="queue:service-desk", sla="30m"),
        success=Success(metric="right"),
        slo=Slo(),
    )


def test_scopes_are_the_tools_their_fields_and_the_models_of_the_grants() -> None:
    update = Action(tool="tracker.update", only=Only(fields=["priority", "category"]))
    again = Action(tool="tracker.update", only=Only(fields=["category"]))
    assert scopes_of(contract(update, Action(tool="tracker.read"), again)) == (
        "model:triage",
        "tool:tracker.read",
        "tool:tracker.update",
        "tool:tracker.update#category",
        "tool:tracker.update#priority",
    )


def test_a_contract_that_grants_nothing_has_no_scopes_but_its_models() -> None:
    assert scopes_of(contract()) == ("model:triage",)


def test_a_field_that_no_scope_can_hold_is_an_error_that_shows_it() -> None:
    action = Action(tool="tracker.update", only=Only(fields=["two words"]))
    with pytest.raises(IdentityError, match=r"`tool:tracker\.update#two words` can't be a scope") as caught:
        scopes_of(contract(action))
    assert caught.value.code == "scope_malformed"


def test_a_token_tells_which_scopes_a_call_would_need_beyond_its_own(desk: Desk) -> None:
    claims = desk.verifier.verify(desk.token, NOW_US)
    assert claims.lacks("tracker.read") == ()
    assert claims.lacks("tracker.update", ["category"]) == ()
    assert claims.lacks("tracker.update", ["category", "assignee"]) == ("tool:tracker.update#assignee",)
    assert claims.lacks("tracker.close") == ("tool:tracker.close",)
    assert claims.lacks("model:triage") == ("model:triage",)


def test_the_cache_is_keyed_by_the_whole_token(desk: Desk) -> None:
    """Two tokens that differ in their signature alone are two tokens."""
    claims = desk.verifier.verify(desk.token, NOW_US)
    other = desk.issuer.issue(REQUEST, NOW_US)
    mixed = f"{desk.token.rsplit('.', 1)[0]}.{other.rsplit('.', 1)[1]}"
    assert hashlib.sha256(mixed.encode()).digest() != hashlib.sha256(desk.token.encode()).digest()
    assert desk.refused(mixed) == "token_bad_signature"
    assert desk.verifier.verify(desk.token, NOW_US) == claims

"""People who sign in elsewhere decide cases with what their issuer gave them, exchanged for a token of Remit's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from project import REFUND, Shop, make_shop
from remit import Remit
from remit.cases.cases import Decision
from remit.errors import CaseError, IdentityError

pytestmark = pytest.mark.anyio

ISSUER = "https://idp.example"
SECTION = f"""
[[identity.issuers]]
issuer = "{ISSUER}"
jwks = "idp.json"
audience = "remit"
algorithms = ["ES256"]
people_claim = "preferred_username"
"""
WORKFLOW = """
async def refunds(run, request):
    return {"paid": await run.call("payments.refund", order=1, amount=AMOUNT, account="DE1")}

AMOUNT = {"amount": "60.00", "currency": "EUR"}
"""


@pytest.fixture
def key() -> ECKey:
    made = ECKey.generate_key("P-256")
    made.ensure_kid()
    return made


@pytest.fixture
def shop(tmp_path: Path, database_url: str, key: ECKey) -> Shop:
    made = make_shop(tmp_path, database_url)
    with (made.folder / "remit.toml").open("a") as project:
        project.write(SECTION)
    (made.folder / "idp.json").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    made.contract("refunds", [REFUND], workflow=WORKFLOW)
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


def token(remit: Remit, key: ECKey, person: str) -> str:
    now = remit.clock() // 1_000_000
    claims = {"iss": ISSUER, "aud": "remit", "iat": now, "exp": now + 600, "preferred_username": person}
    return jwt.encode({"alg": "ES256", "kid": key.kid, "typ": "JWT"}, claims, key)


async def test_a_person_of_a_trusted_issuer_decides_as_the_one_they_are(remit: Remit, key: ECKey) -> None:
    held = await remit.run("refunds", {})
    assert held.case is not None
    signed_in = await remit.sign_in(token(remit, key, "lee"))
    decided = await remit.cases.decide(held.case, Decision.APPROVED, token=signed_in)
    assert decided.decided_by == "person/lee"
    assert (await remit.engine.drive(held.run)).outcome == "completed"


async def test_what_they_may_do_is_what_the_project_says(remit: Remit, key: ECKey) -> None:
    held = await remit.run("refunds", {})
    assert held.case is not None
    with pytest.raises(CaseError) as refused:
        await remit.cases.decide(
            held.case, Decision.APPROVED, token=await remit.sign_in(token(remit, key, "anna"))
        )
    assert refused.value.code == "role_missing"
    with pytest.raises(IdentityError) as unknown:
        await remit.sign_in(token(remit, key, "mallory"))
    assert unknown.value.code == "principal_unknown"


async def test_a_token_of_nobody_that_is_trusted_signs_nobody_in(remit: Remit, key: ECKey) -> None:
    other = ECKey.generate_key("P-256", {"kid": str(key.kid)})
    with pytest.raises(IdentityError) as forged:
        await remit.sign_in(token(remit, other, "lee"))
    assert forged.value.code == "token_bad_signature"
    with pytest.raises(IdentityError) as ours:
        await remit.sign_in(remit.person_token("lee"))
    assert ours.value.code == "token_wrong_issuer"

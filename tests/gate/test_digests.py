"""Nothing on record lets who reads it try guesses at what is concealed there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from project import Shop, make_shop, write_action
from remit import Remit
from remit.cases.cases import Decision
from remit.journal.events import Event, leaf_hash
from remit.replay.recorded import Choice
from remit.storage import schema
from remit.values import encode

pytestmark = pytest.mark.anyio

SALT = 16
PHONE = "+49 170 5550123"
ASK = {"autonomy": "approve", "approval": {"by": "role:care-lead", "within": "4h"}}
TOOLS = '''

@tool("phones.call", effects={Effect.WRITE})
async def call_phone(number: str) -> bool:
    """Call a number."""
    return True
'''
CALLING = """
async def calling(run, request):
    return {"called": await run.call("phones.call", number=request["number"])}
"""


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    tools = made.folder / "tools" / "shop.py"
    tools.write_text(tools.read_text() + TOOLS)
    made.contract("calling", [write_action("phones.call", **ASK)], workflow=CALLING)
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


async def called(remit: Remit) -> str:
    held = await remit.run("calling", {"number": PHONE})
    assert held.case is not None
    await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("lee"))
    assert (await remit.engine.drive(held.run)).outcome == "completed"
    return held.run


def told(guess: str, run: str, step: str) -> Iterator[str]:
    """What a record could say of a guess at an argument to whoever has no key: its digests, and what is made of them."""
    digests = [hashlib.sha256(each.encode()).hexdigest() for each in (guess, encode({"number": guess}).decode())]
    for digest in digests:
        yield digest
        yield hashlib.sha256(f"{run}\0{step}\0{digest}".encode()).hexdigest()[:32]


def said(events: list[Event]) -> str:
    return repr([(event.header, event.body) for event in events])


async def test_a_guess_at_an_argument_is_not_confirmed_by_the_record(remit: Remit) -> None:
    run = await called(remit)
    events = remit.journal.reader.events(run)
    record = said(events)
    assert PHONE not in record
    assert [found for found in told(PHONE, run, "1") if found in record] == []


def digests(events: list[Event]) -> set[Any]:
    return {event.body[name] for event in events for name in ("args_digest",) if name in (event.body or {})}


async def test_the_same_arguments_have_one_digest_in_all_runs_of_a_tenant_and_another_elsewhere(
    remit: Remit, tmp_path: Path
) -> None:
    one, other = [digests(remit.journal.reader.events(await called(remit))) for _ in range(2)]
    assert one == other
    assert len(one) == 1
    elsewhere = make_shop(tmp_path / "elsewhere", "sqlite:remit.db")
    (elsewhere.folder / "tools" / "shop.py").write_text((elsewhere.folder / "tools" / "shop.py").read_text() + TOOLS)
    elsewhere.contract("calling", [write_action("phones.call", **ASK)], workflow=CALLING)
    async with Remit(elsewhere.folder) as another:
        assert digests(another.journal.reader.events(await called(another))) != one


def recorded_before(remit: Remit, run: str) -> None:
    """Write the record of a run anew, with digests of arguments that have no key, as they were before 0.2."""
    keys, prev = remit.journal.reader.keys(run), ""
    of_run = schema.events.c.run == run
    with remit.database.engine.begin() as connection:
        for row in connection.execute(schema.events.select().where(of_run).order_by(schema.events.c.n)).all():
            salted, header = keys.decrypt_body(bytes(row.body), run, row.n), json.loads(row.header)
            sealed = keys.decrypt_sealed(bytes(row.sealed), run, row.n) if row.sealed is not None else None
            assert salted is not None
            body = json.loads(salted[SALT:])
            if "args_digest" in body:
                args = json.loads(sealed[SALT:])["args"] if sealed else (body.get("args") or {"number": PHONE})
                body["args_digest"] = hashlib.sha256(encode(args)).hexdigest()
            salted = salted[:SALT] + encode(body)
            header = encode({**header, "prev": prev, "body": hashlib.sha256(salted).hexdigest()})
            prev = leaf_hash(header).hex()
            at = of_run & (schema.events.c.n == row.n)
            new = {"header": header, "hash": bytes.fromhex(prev), "body": keys.encrypt_body(salted, run, row.n)}
            connection.execute(schema.events.update().where(at).values(new))


async def test_what_was_asked_and_approved_before_digests_had_a_key_is_carried_out_and_known_again(remit: Remit) -> None:
    held = await remit.run("calling", {"number": PHONE})
    assert held.case is not None
    await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("lee"))
    recorded_before(remit, held.run)
    before = digests(remit.journal.reader.events(held.run))
    assert before == {hashlib.sha256(encode({"number": PHONE})).hexdigest()}
    assert (await remit.engine.drive(held.run)).outcome == "completed"
    # The same call has the same digest throughout a run, so that it is known again by whoever reads on.
    assert digests(remit.journal.reader.events(held.run)) == before
    for level in (0, 1, 2):
        (found,) = (await remit.replays.replay(Choice(run=held.run), level)).runs
        assert (found.result, found.why) == ("verified" if level == 0 else "identical", "")

"""Nothing on record lets who reads it try guesses at what is concealed there."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from project import Shop, make_shop, write_action
from remit import Remit
from remit.cases.cases import Decision
from remit.journal.events import Event
from remit.values import encode

pytestmark = pytest.mark.anyio

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

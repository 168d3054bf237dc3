"""A request key opens one run, for one request and one person, and nobody can read it in the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from project import Shop, make_shop, write_action
from remit import Remit
from remit.cases.cases import Decision
from remit.errors import RunError
from remit.storage import schema

pytestmark = pytest.mark.anyio

WORKFLOW = "async def desk(run, request):\n    return {'order': request['order']}\n"
KEY = "anna.meyer@shop.example"


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    made.contract("desk", [write_action("put.none")], workflow=WORKFLOW)
    made.contract("away", [write_action("put.none")])
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


async def test_the_same_request_again_gives_the_same_run_and_its_output(remit: Remit) -> None:
    first = await remit.run("desk", {"order": 1}, on_behalf_of="person/lee", request_key=KEY)
    again = await remit.run("desk", {"order": 1}, on_behalf_of="person/lee", request_key=KEY)
    assert first == again
    assert remit.engine.run_of("desk", KEY) == first.run
    assert remit.engine.run_of("desk", "another") is None


@pytest.mark.parametrize(
    ("request_", "person"), [({"order": 2}, "person/lee"), ({"order": 1}, "person/anna"), ({"order": 1}, None)]
)
async def test_a_key_is_refused_for_another_request_or_person(
    remit: Remit, request_: dict[str, Any], person: str | None
) -> None:
    await remit.run("desk", {"order": 1}, on_behalf_of="person/lee", request_key=KEY)
    with pytest.raises(RunError) as refused:
        await remit.run("desk", request_, on_behalf_of=person, request_key=KEY)
    assert refused.value.code == "request_key_reused"


async def test_an_agent_gets_no_run_that_was_opened_for_somebody_else(remit: Remit) -> None:
    async with remit.gate("away", on_behalf_of="person/lee").run({}, request_key=KEY):
        pass
    with pytest.raises(RunError) as refused:
        async with remit.gate("away", on_behalf_of="person/anna").run({}, request_key=KEY):
            pass
    assert refused.value.code == "request_key_reused"


async def test_of_two_requests_at_once_under_one_key_one_is_refused(remit: Remit, shop: Shop) -> None:
    async with Remit(shop.folder) as other:
        opened = await asyncio.gather(
            remit.engine.open("desk", {"order": 1}, request_key=KEY),
            other.engine.open("desk", {"order": 2}, request_key=KEY),
            return_exceptions=True,
        )
    assert [item.code for item in opened if isinstance(item, RunError)] == ["request_key_reused"]


async def test_neither_the_key_nor_anything_that_a_guess_could_be_held_against_is_stored(remit: Remit) -> None:
    await remit.run("desk", {"order": 1}, request_key=KEY)
    with remit.database.engine.connect() as connection:
        row = connection.execute(select(schema.runs)).mappings().one()
    assert KEY not in str(dict(row))
    assert {len(row["request_key"]), len(row["request_digest"])} == {64}


async def test_a_run_whose_case_was_settled_afterwards_ended_as_it_ended(remit: Remit, shop: Shop) -> None:
    workflow = "async def asks(run, request):\n    await run.escalate('nobody knows')\n"
    shop.contract("asks", [write_action("put.none")], workflow=workflow)
    escalated = await remit.run("asks", {}, request_key=KEY)
    assert escalated.case is not None
    await remit.cases.decide(escalated.case, Decision.RESOLVED, token=remit.person_token("lee"), reason="asked them")
    again = await remit.run("asks", {}, request_key=KEY)
    assert (again.run, again.outcome, again.reason) == (escalated.run, "escalated", "nobody knows")
    with pytest.raises(RunError) as closed:
        await remit.close_run(escalated.run, token=remit.person_token("lee"))
    assert closed.value.code == "run_closed"

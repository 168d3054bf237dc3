"""What people say about cases and runs is on record: who they are in the body, nothing personal and no secret beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from project import REFUND, SECRET, Shop, make_shop, write_action
from remit import Remit, RunResult
from remit.cases.cases import Case, Decision
from remit.errors import CaseError
from remit.journal.events import Event
from remit.storage import schema

pytestmark = pytest.mark.anyio

MORE_TOOLS = '''

async def where(ctx, args):
    attributes = {"owner": "rosalind@kings.example"}
    return Resource(kind="Document", id="doc-1", tenant=ctx.tenant, region="eu", attributes=attributes)


@tool(
    "documents.share",
    effects={Effect.WRITE},
    resource_kind="Document",
    resource_attributes={"owner": "String"},
    locate=where,
)
async def share(ctx: ToolContext, slot: int) -> bool:
    """Share the document in a slot."""
    append(LEDGER, f"shared {ctx.idempotency_key} {slot}")
    return True
'''
WORKFLOW = """
async def {}(run, request):
    return {{"shared": await run.call("documents.share", slot=1)}}
"""
ASK = {"autonomy": "approve", "approval": {"by": "role:care-lead", "within": "4h"}}
REASON = f"rosalind@kings.example told me {SECRET}"


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    with (made.folder / "tools" / "shop.py").open("a") as tools:
        tools.write(MORE_TOOLS)
    made.contract("sharing", [write_action("documents.share", **ASK), REFUND], workflow=WORKFLOW.format("sharing"))
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


async def ask(remit: Remit) -> tuple[RunResult, Case]:
    held = await remit.run("sharing", {})
    return held, remit.cases.get(held.case or "")


def last(remit: Remit, run: str) -> Event:
    return remit.journal.reader.events(run)[-1]


def names_nobody(remit: Remit, event: Event, person: str) -> bool:
    """Whether the header knows the person by their pseudonym alone, in which their name may stand by chance."""
    pseudonym = remit.redactor.pseudonym("person", person)
    assert event.header.actor == pseudonym
    return person.removeprefix("person/") not in repr(event.header).replace(pseudonym, "")


def is_clean(remit: Remit, event: Event, person: str) -> bool:
    """Whether the body alone names the person, and nothing of what they quoted stands in it."""
    assert event.body["by"] == person
    assert "<email:" in event.body["reason"]
    assert names_nobody(remit, event, person)
    return not any(part in repr(event) for part in ("kings.example", SECRET))


async def test_the_object_of_a_call_is_shown_to_a_person_without_personal_data(remit: Remit) -> None:
    _, case = await ask(remit)
    shown = remit.cases.question(case)["shown"]
    assert shown["resource"]["id"] == "doc-1"
    assert shown["resource"]["attributes"]["owner"].startswith("<email:")
    assert "kings.example" not in repr(shown)
    revealed = await remit.cases.reveal(case.case, token=remit.person_token("lee"))
    assert revealed.resource["attributes"] == {"owner": "rosalind@kings.example"}
    assert names_nobody(remit, last(remit, case.run), "person/lee")


@pytest.mark.parametrize("decision", [Decision.APPROVED, Decision.DENIED])
async def test_the_reason_of_a_decision_is_recorded_without_personal_data_and_its_header_names_nobody(
    remit: Remit, decision: Decision
) -> None:
    held, case = await ask(remit)
    await remit.cases.decide(case.case, decision, token=remit.person_token("lee"), reason=REASON)
    assert is_clean(remit, last(remit, held.run), "person/lee")


async def test_the_reason_for_ending_a_run_is_recorded_without_personal_data_and_its_header_names_nobody(
    remit: Remit,
) -> None:
    held, _ = await ask(remit)
    result = await remit.close_run(held.run, token=remit.person_token("lee"), reason=REASON)
    assert is_clean(remit, last(remit, held.run), "person/lee")
    assert SECRET not in result.reason


async def test_a_person_is_asked_nothing_that_is_not_what_was_recorded(remit: Remit) -> None:
    _, case = await ask(remit)
    table = schema.cases
    with remit.database.engine.begin() as connection:
        connection.execute(table.update().where(table.c.case == case.case).values(case="case-other"))
    other = remit.cases.get("case-other")
    with pytest.raises(CaseError) as altered:
        remit.cases.question(other)
    assert altered.value.code == "case_altered"
    with pytest.raises(CaseError) as refused:
        await remit.cases.decide(other.case, Decision.APPROVED, token=remit.person_token("lee"))
    assert refused.value.code == "case_altered"


async def test_a_case_that_is_named_twice_is_decided_once(remit: Remit) -> None:
    _, case = await ask(remit)
    decided = await remit.cases.decide_all([case.case, case.case], Decision.DENIED, token=remit.person_token("lee"))
    assert [(one.case, one.error) for one in decided] == [(case.case, None)]

"""A workflow that can't get on is taken over by a person where its contract says so, and ends where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from project import Shop, make_shop, write_action
from remit import Remit

pytestmark = pytest.mark.anyio

# The sum does not fit into Cedar's Long for any value but 0.
AMBIGUOUS = """
@id("sums") @reason("the sum is too large")
forbid (principal, action == Action::"put.none", resource) when { context.args.value + 9223372036854775807 < 0 };
"""
PUTTING = """
async def putting(run, request):
    return {"put": await run.call("put.none", value=request["value"])}
"""
STUBBORN = """
from remit.runs.run import NotCompleted

async def stubborn(run, request):
    for _ in range(9):
        try:
            await run.call("put.none", value="one")
        except NotCompleted as refused:
            last = refused.outcome.code
            if last == "retries_exhausted":
                raise
    return {}
"""


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    return make_shop(tmp_path, database_url)


def escalate(**when: Any) -> dict[str, Any]:
    return {"to": "queue:care", "sla": "30m", "when": when}


@pytest.mark.parametrize(("asks", "outcome"), [(True, "escalated"), (False, "denied")])
async def test_a_policy_that_can_not_be_decided_denies_and_escalates_where_the_contract_says_so(
    shop: Shop, outcome: str, *, asks: bool
) -> None:
    when = escalate(policy_ambiguous=asks)
    shop.contract("putting", [write_action("put.none")], workflow=PUTTING, policy=AMBIGUOUS, escalate=when)
    async with Remit(shop.folder) as remit:
        result = await remit.run("putting", {"value": 1})
        assert (result.outcome, "overflow" in result.reason) == (outcome, True), result
        assert [(c.kind, c.queue, c.case) for c in remit.cases.list("shop")] == (
            [("escalation", "queue:care", result.case)] if asks else []
        )
        assert shop.tries() == []
        assert (await remit.run("putting", {"value": 0})).outcome == "completed"


@pytest.mark.parametrize(("asks", "outcome"), [(True, "escalated"), (False, "denied")])
async def test_a_workflow_that_goes_on_proposing_what_is_malformed_escalates_unless_the_contract_says_otherwise(
    shop: Shop, outcome: str, *, asks: bool
) -> None:
    terms: dict[str, Any] = {} if asks else {"escalate": escalate(retries_exhausted=False)}
    shop.contract("stubborn", [write_action("put.none")], workflow=STUBBORN, **terms)
    async with Remit(shop.folder) as remit:
        result = await remit.run("stubborn", {})
        assert (result.outcome, "malformed 3 times in a row" in result.reason) == (outcome, True), result
        assert [case.case for case in remit.cases.list("shop")] == ([result.case] if asks else [])
    assert shop.tries() == []


DRAFT = """
async def drafted(run, request):
    await run.escalate("ask rosalind@kings.example", draft={"to": "rosalind@kings.example", "order": 1182})
"""


async def test_what_an_escalation_hands_over_is_recorded_without_personal_data(shop: Shop) -> None:
    shop.contract("drafted", [write_action("put.none")], workflow=DRAFT)
    async with Remit(shop.folder) as remit:
        result = await remit.run("drafted", {})
        case = remit.cases.get(result.case or "")
        opened = remit.cases.question(case)
        assert opened["draft"]["order"] == 1182
        assert opened["draft"]["to"].startswith("<email:")
        assert case.reason.startswith("ask <email:")
        assert "kings.example" not in repr([case, *(e.body for e in remit.journal.reader.events(result.run))])

"""Branches of a `gather` count their own steps, and what happens to the run as a whole wins over an error of one branch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from project import REFUND, Shop, make_shop, write_action
from remit import Remit
from remit.cases.cases import Decision
from remit.journal.events import EventType

pytestmark = pytest.mark.anyio

WORKFLOW = """
import asyncio

AMOUNT = {"amount": "60.00", "currency": "EUR"}
SLOW, FAST = [0, 5, 0, 3], [4, 0, 2, 0]
TURNS = list(SLOW)

async def put(run, *values):
    done = []
    for value in values:
        for _ in range(TURNS[value]):
            await asyncio.sleep(0)
        done.append(await run.call("put.none", value=value))
    return done

async def inner(run):
    return await run.gather(put(run, 0), put(run, 1))

async def refund(run):
    return await run.call("payments.refund", order=4, amount=AMOUNT, account="DE1")

async def fail(run):
    return await run.call("payments.refund", order=5, amount={"amount": "1.00", "currency": "EUR"}, account="CLOSED")

async def break_(run):
    raise ZeroDivisionError("a mistake")

async def escalate(run):
    return await run.escalate("a person must look at this")

async def other(run):
    return (await REMIT.run("single", {})).run

BRANCHES = {"fail": fail, "break": break_, "hold": refund, "escalate": escalate, "other": other, "inner": inner}

async def branches(run, request):
    if "first" in request:
        return {"all": await run.gather(*(BRANCHES.get(name, put)(run, *a) for name, *a in request["first"]))}
    first = await run.gather(put(run, 0, 1), put(run, 2, 3))
    return {"first": first, "then": await refund(run)}
"""
SINGLE = """
async def single(run, request):
    await run.call("risk.check", order=1)
    return {"checked": await run.call("risk.check", order=2)}
"""


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    made.contract("branches", [REFUND, write_action("put.none")], workflow=WORKFLOW)
    made.contract("single", [{"tool": "risk.check"}], workflow=SINGLE)
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        workflow: Any = opened.program("branches").workflow
        workflow.__globals__["REMIT"] = opened
        yield opened


def steps(remit: Remit, run: str, kind: EventType = EventType.CALL_DECIDED) -> dict[str, Any]:
    """What was decided at which step, in the order of the record."""
    return {e.header.span: e.body["args"].get("value") for e in remit.journal.reader.events(run) if e.type is kind}


async def approve(remit: Remit, case: str | None) -> None:
    assert case is not None
    await remit.cases.decide(case, Decision.APPROVED, token=remit.person_token("lee"))


async def test_each_branch_counts_its_own_steps_and_is_found_again_however_they_overlap(
    remit: Remit, shop: Shop
) -> None:
    workflow: Any = remit.program("branches").workflow
    held = await remit.run("branches", {})
    assert held.outcome == "held", held
    before = steps(remit, held.run)
    assert before == {"1.1.1": 0, "1.1.2": 1, "1.2.1": 2, "1.2.2": 3, "2": None}
    # Taken up again, the branches come to their calls in another order.
    workflow.__globals__["TURNS"][:] = workflow.__globals__["FAST"]
    await approve(remit, held.case)
    result = await remit.engine.drive(held.run)
    assert (result.outcome, result.output) == ("completed", {"first": [[0, 1], [2, 3]], "then": "paid 60.00"})
    assert steps(remit, held.run) == before
    assert sorted(line.split()[2] for line in shop.ledger()) == ["0", "1", "2", "3", "60.00"]


async def test_a_gather_within_a_branch_counts_within_that_branch(remit: Remit) -> None:
    result = await remit.run("branches", {"first": [["put", 2], ["inner"]]})
    assert (result.outcome, result.output) == ("completed", {"all": [[2], [[0], [1]]]})
    assert steps(remit, result.run) == {"1.1.1": 2, "1.2.1.1.1": 0, "1.2.1.2.1": 1}


async def test_a_run_that_is_driven_within_a_branch_of_another_counts_for_itself(remit: Remit) -> None:
    result = await remit.run("branches", {"first": [["put", 0, 1], ["other"]]})
    [_, other] = result.output["all"]
    assert list(steps(remit, other)) == ["1", "2"]
    assert sorted(steps(remit, result.run)) == ["1.1.1", "1.1.2"]


@pytest.mark.parametrize("error", ["fail", "break"])
@pytest.mark.parametrize("first", [True, False])
async def test_a_question_to_a_person_wins_over_an_error_of_another_branch(
    remit: Remit, shop: Shop, error: str, *, first: bool
) -> None:
    branches = [[error], ["hold"]] if first else [["hold"], [error]]
    held = await remit.run("branches", {"first": branches})
    assert held.outcome == "held", held
    # The answer is not lost either: the call is made, and then the error is what is left.
    await approve(remit, held.case)
    assert (await remit.engine.drive(held.run)).outcome == "failed"
    assert [line.split()[2] for line in shop.ledger()] == ["60.00"]


@pytest.mark.parametrize("error", ["fail", "break"])
@pytest.mark.parametrize("first", [True, False])
async def test_an_escalation_wins_over_an_error_of_another_branch(remit: Remit, error: str, *, first: bool) -> None:
    branches = [[error], ["escalate"]] if first else [["escalate"], [error]]
    result = await remit.run("branches", {"first": branches})
    [case] = remit.cases.list("shop")
    assert (result.outcome, case.kind, case.case) == ("escalated", "escalation", result.case)


async def test_every_branch_comes_to_its_end_before_the_first_error_is_raised(remit: Remit, shop: Shop) -> None:
    result = await remit.run("branches", {"first": [["put", 1], ["fail"], ["break"], ["put", 3, 0]]})
    assert result.outcome == "failed"
    assert "`payments.refund` did not complete" in result.reason
    assert sorted(line.split()[2] for line in shop.ledger()) == ["0", "1", "3"]
    events = [event.type for event in remit.journal.reader.events(result.run)]
    assert (events.count(EventType.CALL_COMPLETED), events[-1]) == (3, EventType.RUN_CLOSED)


async def test_runs_that_are_driven_at_once_do_not_count_for_each_other(remit: Remit) -> None:
    results = await asyncio.gather(*(remit.run("branches", {"first": [["put", 0, 1], ["put", 2]]}) for _ in range(3)))
    assert [sorted(steps(remit, result.run)) for result in results] == [["1.1.1", "1.1.2", "1.2.1"]] * 3

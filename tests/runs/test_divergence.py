"""A run that is taken up again goes by its record; code that asks for something else there stops with a clear error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from project import REFUND, Shop, make_shop, write_action
from remit import Completed, Held, Remit
from remit.cases.cases import Decision
from remit.errors import Diverged
from remit.journal.events import Event, EventType
from remit.runs.program import RunResult

pytestmark = pytest.mark.anyio

PLANNED = """
from pathlib import Path

AMOUNT = {"amount": "60.00", "currency": "EUR"}

async def act(run, plan):
    if plan.startswith("put"):
        return await run.call("put.safe", value=int(plan.split()[1]))
    if plan == "check":
        return await run.call("risk.check", order=1)
    if plan == "misspelt":
        return str(await run.propose("risk.chekc", {}))
    if plan == "escalate":
        return await run.escalate("a person must look at this")
    return await getattr(run, plan)()

async def refund(run):
    return await run.call("payments.refund", order=4, amount=AMOUNT, account="DE1")

async def planned(run, request):
    # What no workflow should do: to go by something that isn't on record.
    plan = (Path(__file__).parent.parent.parent / "plan").read_text()
    refunded, acted = await run.gather(refund(run), act(run, plan))
    return {"acted": acted}
"""
LARGE = {"order": 4, "amount": {"amount": "60.00", "currency": "EUR"}, "account": "DE1"}
SAID = {
    "put 1": "a call of `put.safe`",
    "put 2": "one with other arguments",
    "check": "a call of `risk.check`",
    "misspelt": "a call of `risk.chekc`",
    "escalate": "`run.escalate`",
    "now": "`run.now`",
    "uuid": "`run.uuid`",
    "random": "`run.random`",
}
STEP = "1.2.1"


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    actions = [REFUND, {"tool": "risk.check"}, write_action("put.safe")]
    made.contract("planned", actions, workflow=PLANNED)
    made.contract("away", actions)
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


async def drive_twice(remit: Remit, first: str, then: str) -> RunResult:
    """Drive a run by one plan until it waits for a person, and on by another one when they have approved."""
    plan = remit.project.folder / "plan"
    plan.write_text(first)
    held = await remit.run("planned", {})
    assert (held.outcome, held.case is None) == ("held", False)
    await remit.cases.decide(held.case or "", Decision.APPROVED, token=remit.person_token("lee"))
    plan.write_text(then)
    return await remit.engine.drive(held.run)


def at_step(remit: Remit, run: str) -> list[Event]:
    return [event for event in remit.journal.reader.events(run) if event.header.span == STEP]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("put 1", "put 2"),
        ("put 1", "check"),
        ("put 1", "now"),
        ("put 1", "escalate"),
        ("misspelt", "check"),
        ("check", "misspelt"),
        ("now", "put 1"),
        ("now", "uuid"),
        ("random", "now"),
        ("uuid", "escalate"),
        ("escalate", "put 1"),
        ("escalate", "random"),
    ],
)
async def test_a_workflow_that_asks_for_something_else_than_its_record_holds_stops_and_becomes_a_case(
    remit: Remit, shop: Shop, first: str, then: str
) -> None:
    result = await drive_twice(remit, first, then)
    assert result.outcome == "diverged", result
    assert f"step {STEP} of run `{result.run}` is {SAID[first]} on record, and {SAID[then]} now" in result.reason
    case = remit.cases.get(result.case or "")
    assert (case.kind, case.status) == ("diverged", "open")
    # What stood on record stands there alone, and nothing was done in its place.
    assert {event.body.get("tool", event.body.get("kind")) for event in at_step(remit, result.run)} == {
        {"put 1": "put.safe", "check": "risk.check", "misspelt": "risk.chekc", "escalate": "escalation"}.get(first, first)
    }
    done = [line.split()[2] for line in shop.ledger() if line.startswith("safe")]
    assert done == (["1"] if first == "put 1" else [])


@pytest.mark.parametrize("plan", [plan for plan in SAID if plan != "escalate"])
async def test_a_workflow_that_asks_for_the_same_gets_what_is_on_record_and_nothing_is_done_again(
    remit: Remit, shop: Shop, plan: str
) -> None:
    result = await drive_twice(remit, plan, plan)
    assert result.outcome == "completed", result
    events = at_step(remit, result.run)
    if plan in ("now", "uuid", "random"):
        [event] = events
        assert result.output["acted"] == event.body["value"]
    assert [event.type for event in events].count(EventType.CALL_DECIDED) == (plan not in ("now", "uuid", "random"))
    assert [line.startswith("safe") for line in shop.tries()].count(True) == plan.startswith("put")


async def test_an_escalation_on_record_opens_no_second_case(remit: Remit) -> None:
    result = await drive_twice(remit, "escalate", "escalate")
    assert result.outcome == "escalated"
    [case] = remit.cases.list("shop", kind="escalation", status=None)
    assert case.case == result.case


async def propose_in_turn(remit: Remit, *proposals: tuple[str, Any]) -> list[Any]:
    async with remit.gate("away").run({}, request_key="one") as run:
        return [await run.propose(tool, args) for tool, args in proposals]


@pytest.mark.parametrize("other", [("put.safe", {"value": 2}), ("risk.check", {"order": 1})])
async def test_an_agent_from_elsewhere_that_proposes_another_call_at_a_recorded_step_is_told_so(
    remit: Remit, shop: Shop, other: tuple[str, Any]
) -> None:
    put, held = await propose_in_turn(remit, ("put.safe", {"value": 1}), ("payments.refund", LARGE))
    assert isinstance(put, Completed)
    assert isinstance(held, Held)
    with pytest.raises(Diverged, match=r"step 1 of run `run-\w+` is a call of `put.safe` on record, and "):
        await propose_in_turn(remit, other, ("payments.refund", LARGE))
    run = remit.engine.run_of("away", "one")
    assert run is not None
    closed = remit.journal.reader.events(run)[-1]
    assert (closed.header.verdict, closed.body["reason"].startswith("step 1 of run")) == ("diverged", True)
    (case,) = remit.cases.list("shop", kind="diverged")
    assert (case.run, case.reason) == (run, closed.body["reason"])
    assert [line.split()[2] for line in shop.ledger()] == ["1"]


async def test_an_agent_that_breaks_because_another_run_diverged_has_not_diverged_itself(remit: Remit) -> None:
    await propose_in_turn(remit, ("put.safe", {"value": 1}), ("payments.refund", LARGE))
    with pytest.raises(Diverged):
        async with remit.gate("away").run({}, request_key="outer"):
            await propose_in_turn(remit, ("put.safe", {"value": 2}))
    ended = {
        key: remit.journal.reader.events(remit.engine.run_of("away", key) or "")[-1].header.verdict
        for key in ("one", "outer")
    }
    assert ended == {"one": "diverged", "outer": "failed"}

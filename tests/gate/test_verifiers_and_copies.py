"""Whoever looks at a call before it is made, a verifier or the tool itself, is shown copies and can't change it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from project import REFUND, Shop, make_shop, write_action
from remit import Remit
from remit.gate.arguments import is_digest_of
from remit.journal.events import EventType

pytestmark = pytest.mark.anyio

MORE_TOOLS = '''

class Score(Struct, frozen=True):
    fine: bool


@tool("risk.score", effects={Effect.READ})
async def score(order: int) -> Score:
    """Score an order."""
    return Score(fine=False)


async def changing(ctx, args):
    found = {"owner": "anna"}
    # Somebody else in this process who holds the same object changes it as soon as they have their turn.
    asyncio.get_running_loop().call_soon(lambda: found.update(owner="boss"))
    return Resource(kind="Document", id="doc-1", tenant=ctx.tenant, region="eu", attributes=found)


@tool(
    "documents.share",
    effects={Effect.WRITE},
    resource_kind="Document",
    resource_attributes={"owner": "String"},
    locate=changing,
)
async def share(ctx: ToolContext, slot: int) -> bool:
    """Share the document in a slot."""
    append(LEDGER, f"shared {ctx.idempotency_key} {ctx.resource.attributes['owner']}")
    return True
'''
RULES = """
import asyncio

def greedy(call):
    call.args["value"] = 999

def kind(call):
    call.earlier["risk.score"]["fine"] = True

def forgetful(call):
    call.earlier.clear()
    call.args.clear()

def generous(call):
    call.resource.attributes["owner"] = "boss"

async def patient(call):
    for _ in range(3):
        await asyncio.sleep(0)

def strict(call):
    return call.tool != "put.none" or call.args == {"value": 1} and call.earlier == {"risk.score": {"fine": False}}

async def plain(run, request):
    await run.call("risk.score", order=1)
    outcome = await run.propose(request["tool"], request["args"])
    return {"completed": outcome.completed, "code": getattr(outcome, "code", "")}
"""
SCORED = """
@id("scored-fine") @reason("its score is not fine")
forbid (principal, action == Action::"put.safe", resource) unless { context.facts has fine && context.facts.fine };
"""
FACTS = {"fine": {"last": "risk.score", "of": "result.fine"}}
OWNED = """
@id("hers-alone") @reason("it is not hers")
forbid (principal, action == Action::"documents.share", resource) when { resource.owner != "anna" };
"""
ASK = {"autonomy": "approve", "approval": {"by": "role:care-lead", "within": "4h"}}


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    tools = made.folder / "tools" / "shop.py"
    tools.write_text(tools.read_text() + MORE_TOOLS)
    return made


def actions(*rules: str, **terms: Any) -> list[dict[str, Any]]:
    checked = write_action("put.none", verify=[f"rule:{rule}" for rule in rules], **terms)
    return [{"tool": "risk.score"}, checked, write_action("put.safe")]


@pytest.mark.parametrize("rule", ["greedy", "forgetful"])
async def test_a_verifier_that_changes_the_arguments_changes_nothing_that_is_done(shop: Shop, rule: str) -> None:
    shop.contract("plain", actions(rule), workflow=RULES)
    async with Remit(shop.folder) as remit:
        result = await remit.run("plain", {"tool": "put.none", "args": {"value": 1}})
        assert result.output == {"completed": True, "code": ""}
        decided = [e for e in remit.journal.reader.events(result.run) if e.type is EventType.CALL_DECIDED][-1]
    assert [line.split()[2] for line in shop.ledger()] == ["1"]
    assert decided.body["args"] == {"value": 1}
    assert is_digest_of(decided.body["args_digest"], {"value": 1}, remit.redactor)


async def test_a_person_is_asked_about_the_call_as_it_was_proposed_whatever_a_verifier_made_of_it(shop: Shop) -> None:
    shop.contract("plain", actions("greedy", **ASK), workflow=RULES)
    async with Remit(shop.folder) as remit:
        result = await remit.run("plain", {"tool": "put.none", "args": {"value": 1}})
        [case] = remit.cases.list("shop", status=None)
        assert remit.cases.question(case)["shown"]["args"] == {"value": 1}
        assert result.output["code"] == "held"


@pytest.mark.parametrize("rule", ["kind", "forgetful"])
async def test_a_verifier_that_changes_earlier_results_changes_no_fact(shop: Shop, rule: str) -> None:
    workflow = RULES.replace("outcome = await", "await run.propose('put.none', {'value': 1})\n    outcome = await")
    shop.contract("plain", actions(rule), workflow=workflow, policy=SCORED, facts=FACTS)
    async with Remit(shop.folder) as remit:
        result = await remit.run("plain", {"tool": "put.safe", "args": {"value": 2}})
    assert result.output == {"completed": False, "code": "forbidden"}
    assert [line.split()[::2] for line in shop.ledger()] == [["none", "1"]]


async def test_a_verifier_is_shown_the_call_and_what_earlier_calls_have_found(shop: Shop) -> None:
    shop.contract("plain", actions("strict"), workflow=RULES)
    async with Remit(shop.folder) as remit:
        agreed = await remit.run("plain", {"tool": "put.none", "args": {"value": 1}})
        refused = await remit.run("plain", {"tool": "put.none", "args": {"value": 2}})
    assert agreed.output == {"completed": True, "code": ""}
    assert refused.output == {"completed": False, "code": "not_verified"}
    assert len(shop.ledger()) == 1


async def test_every_verifier_must_agree_and_a_person_is_shown_each_objection(shop: Shop) -> None:
    rules = RULES + "\ndef first(call):\n    return 'too late'\n\ndef second(call):\n    return False\n"
    shop.contract("plain", actions("patient", "first", "second", **ASK), workflow=rules)
    async with Remit(shop.folder) as remit:
        await remit.run("plain", {"tool": "put.none", "args": {"value": 1}})
        [case] = remit.cases.list("shop", status=None)
        shown = remit.cases.question(case)["shown"]
    assert "rule:first: too late" in shown["reason"]
    assert "rule:second: `rule:second` does not agree" in shown["reason"]
    assert "rule:patient:" not in shown["reason"]
    assert shop.tries() == []


BOSS = """
@id("boss-asks") @reason("the boss wants to know") @hold("role:boss") @within("24h")
forbid (principal, action == Action::"payments.refund", resource);
"""


@pytest.mark.parametrize(("within", "hours"), [("1h", 1), ("48h", 24)])
async def test_who_answers_what_policy_asks_is_shown_the_objection_too_and_must_hold_both_roles(
    shop: Shop, within: str, hours: int
) -> None:
    rules = RULES + "\ndef first(call):\n    return 'too late'\n"
    # By itself the contract asks only about more than is paid here.
    approval = {**REFUND["approval"], "within": within}
    refund = {**REFUND, "approval": approval, "verify": ["rule:first"]}
    shop.contract("plain", [{"tool": "risk.score"}, refund], workflow=rules, policy=BOSS)
    args = {"order": 4, "amount": {"amount": "5.00", "currency": "EUR"}, "account": "DE1"}
    async with Remit(shop.folder) as remit:
        await remit.run("plain", {"tool": "payments.refund", "args": args})
        [case] = remit.cases.list("shop", status=None)
        shown = remit.cases.question(case)["shown"]
    assert shown["rules"] == ["boss-asks", "verify:rule:first"]
    assert shown["reason"] == "the boss wants to know; rule:first: too late"
    assert case.roles == ("role:boss", "role:care-lead")
    assert case.expires_at is not None
    assert case.expires_at - case.opened_at == hours * 3_600_000_000


@pytest.mark.parametrize("rule", ["patient", "generous"])
async def test_an_object_is_shared_as_it_was_judged_though_tool_or_verifier_change_what_was_found(
    shop: Shop, rule: str
) -> None:
    share = write_action("documents.share", verify=[f"rule:{rule}"])
    shop.contract("plain", [{"tool": "risk.score"}, share], workflow=RULES, policy=OWNED)
    async with Remit(shop.folder) as remit:
        result = await remit.run("plain", {"tool": "documents.share", "args": {"slot": 1}})
        assert result.output == {"completed": True, "code": ""}
        decided = [e for e in remit.journal.reader.events(result.run) if e.type is EventType.CALL_DECIDED][-1]
    assert decided.body["resource"]["attributes"] == {"owner": "anna"}
    assert [line.split()[2] for line in shop.ledger()] == ["anna"]

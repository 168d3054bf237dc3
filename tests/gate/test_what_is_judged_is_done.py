"""What was judged is what is carried out, recorded and remembered, whatever an agent does to its own objects meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from project import REFUND, SECRET, Shop, make_shop, write_action
from remit import Completed, Denied, Remit
from remit.cases.cases import Decision
from remit.errors import RunError
from remit.gate.arguments import is_digest_of
from remit.gate.call import Proposal
from remit.journal.events import Event, EventType

pytestmark = pytest.mark.anyio

MORE_TOOLS = '''

class Score(Struct, frozen=True):
    fine: bool


@tool("risk.score", effects={Effect.READ})
async def score(order: int) -> Score:
    """Score an order."""
    return Score(fine=False)


@tool("bank.greet", effects={Effect.READ})
async def greet(ctx: ToolContext) -> str:
    """Say who one is to the bank, which says it back."""
    return "hello " + ctx.client("bank", lambda connection: connection).secret.reveal()


async def where(ctx, args):
    id_, owner, version = (HOME / "document").read_text().split()
    return Resource(
        kind="Document", id=id_, tenant=ctx.tenant, region="eu", attributes={"owner": owner}, version=version
    )


@tool(
    "documents.share",
    effects={Effect.WRITE},
    resource_kind="Document",
    resource_attributes={"owner": "String"},
    locate=where,
)
async def share(ctx: ToolContext, slot: int) -> bool:
    """Share the document in a slot."""
    append(LEDGER, f"shared {ctx.idempotency_key} {ctx.resource.id}")
    return True
'''
POLICY = """
@id("scored-fine") @reason("its score is not fine")
forbid (principal, action == Action::"payments.refund", resource)
unless { context.facts has fine && context.facts.fine };
@id("once") @reason("it was paid before")
forbid (principal, action == Action::"payments.refund", resource)
when { context.facts.paid > 0 };
"""
FACTS = {
    "fine": {"last": "risk.score", "of": "result.fine"},
    "paid": {"count": "payments.refund", "where": {"order": "args.order"}},
}
ONCE = """
@id("once") @reason("one refund a run")
forbid (principal, action == Action::"payments.refund", resource)
when { context.facts.paid > 0 };
"""
ASK = {"autonomy": "approve", "approval": {"by": "role:care-lead", "within": "4h"}}
SHARING = "async def sharing(run, request):\n    return {'shared': await run.call('documents.share', slot=1)}\n"
CHECKED = """
from pathlib import Path

def objection(call):
    return Path(__file__).with_name("objection").read_text()

async def checked(run, request):
    return {'put': await run.call('put.none', value=1)}
"""


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    tools = made.folder / "tools" / "shop.py"
    tools.write_text(tools.read_text() + MORE_TOOLS)
    made.contract("desk", [{"tool": "orders.read"}, {"tool": "bank.greet"}, REFUND])
    made.contract("scored", [{"tool": "risk.score"}, REFUND], policy=POLICY, facts=FACTS)
    made.contract("once", [REFUND], policy=ONCE, facts={"paid": {"count": "payments.refund"}})
    made.contract("sharing", [write_action("documents.share", **ASK)], workflow=SHARING)
    made.contract("checked", [write_action("put.none", verify=["rule:objection"], **ASK)], workflow=CHECKED)
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


def refund(amount: str = "5.00", order: int = 1) -> dict[str, Any]:
    return {"order": order, "amount": {"amount": amount, "currency": "EUR"}, "account": "DE0933"}


def decisions(remit: Remit, run: str) -> list[Event]:
    return [event for event in remit.journal.reader.events(run) if event.type is EventType.CALL_DECIDED]


@pytest.mark.parametrize("turns", range(8))
async def test_arguments_that_are_changed_while_the_call_is_under_way_are_paid_as_recorded(
    remit: Remit, shop: Shop, turns: int
) -> None:
    async with remit.gate("desk").run({}) as run:
        args = refund("5.00")
        under_way = asyncio.ensure_future(run.propose("payments.refund", args))
        for _ in range(turns):
            await asyncio.sleep(0)
        args["amount"]["amount"] = "9999.00"
        await under_way
    [decided] = decisions(remit, run.id)
    paid = [line.split()[2] for line in shop.ledger()]
    assert paid == ([decided.body["args"]["amount"]["amount"]] if decided.header.verdict == "allow" else [])
    assert paid in ([], ["5.00"])


async def test_a_result_that_the_agent_changes_changes_no_fact(remit: Remit, shop: Shop) -> None:
    async with remit.gate("scored").run({}) as run:
        scored = await run.propose("risk.score", {"order": 1})
        assert isinstance(scored, Completed)
        scored.result["fine"] = True
        assert isinstance(await run.propose("payments.refund", refund()), Denied)
    assert shop.ledger() == []


async def test_a_proposal_that_the_agent_changes_afterwards_changes_no_fact(remit: Remit) -> None:
    async with remit.gate("once").run({}) as run:
        args = refund(order=1)
        await run.propose("payments.refund", args)
        args.clear()
        assert isinstance(await run.propose("payments.refund", refund(order=2)), Denied)


async def test_calls_at_once_are_decided_as_if_one_came_after_the_other(remit: Remit, shop: Shop) -> None:
    async with remit.gate("once").run({}) as run:
        outcomes = await asyncio.gather(*(run.propose("payments.refund", refund(order=4 * n)) for n in range(8)))
    assert [outcome.completed for outcome in outcomes] == [True] + [False] * 7
    assert len(shop.ledger()) == 1


async def held_case(remit: Remit, contract: str) -> tuple[str, str]:
    held = await remit.run(contract, {})
    assert held.case is not None
    return held.run, held.case


@pytest.mark.parametrize(
    ("now", "shared"), [("doc-1 anna v2", ["doc-1"]), ("doc-9 anna v1", []), ("doc-1 boss v1", [])]
)
async def test_an_approval_is_for_the_object_that_was_shown(
    remit: Remit, shop: Shop, now: str, shared: list[str]
) -> None:
    document = shop.folder / "document"
    document.write_text("doc-1 anna v1")
    run, case = await held_case(remit, "sharing")
    document.write_text(now)
    await remit.cases.decide(case, Decision.APPROVED, token=remit.person_token("lee"))
    await remit.engine.drive(run)
    assert [line.split()[2] for line in shop.ledger()] == shared


async def test_an_approval_is_for_the_objection_that_was_shown(remit: Remit, shop: Shop) -> None:
    objection = shop.folder / "contracts" / "checked" / "objection"
    objection.write_text("the rounding differs by a cent")
    run, case = await held_case(remit, "checked")
    objection.write_text("the account is on the sanctions list")
    await remit.cases.decide(case, Decision.APPROVED, token=remit.person_token("lee"))
    assert (await remit.engine.drive(run)).outcome == "denied"
    assert shop.ledger() == []


async def test_a_result_that_quotes_a_credential_reaches_the_agent_without_it(remit: Remit) -> None:
    async with remit.gate("desk").run({}) as run:
        greeted = await run.propose("bank.greet", {})
    assert isinstance(greeted, Completed)
    assert greeted.result.startswith("hello <")
    assert SECRET not in greeted.result


async def guess_and_go_on(remit: Remit) -> None:
    async with remit.gate("desk").run({}) as run:
        guessed = await run.propose("payments.refund", {**refund(), "account": SECRET})
        assert isinstance(guessed, Denied)
        await run.propose("payments.refund", refund())


async def test_a_run_that_names_a_credential_may_do_nothing_more(remit: Remit, shop: Shop) -> None:
    with pytest.raises(RunError, match="has named a credential"):
        await guess_and_go_on(remit)
    assert shop.ledger() == []


NAMED = '''

async def of_person(ctx, args):
    return Resource(kind="Account", id=args["account"], tenant=ctx.tenant, region="eu", attributes={})


@tool(
    "accounts.lock",
    effects={Effect.WRITE},
    resource_kind="Account",
    locate=of_person,
    field_classes={"account": FieldClass.PERSONAL},
)
async def lock(account: str) -> str:
    """Lock an account."""
    return f"locked: {account}."
'''
LOCKING = """
async def locking(run, request):
    said = await run.call("accounts.lock", account=request["who"])
    return {"locked": request["who"], "said": said, "hannahs": "hannah.leeds"}
"""


async def test_what_a_declared_field_holds_is_concealed_wherever_else_it_stands_in_the_run(
    tmp_path: Path, database_url: str
) -> None:
    shop = make_shop(tmp_path / "named", database_url)
    tools = shop.folder / "tools" / "shop.py"
    tools.write_text(tools.read_text().replace("import Connection,", "import Connection, FieldClass,") + NAMED)
    shop.contract("locking", [write_action("accounts.lock")], workflow=LOCKING)
    async with Remit(shop.folder) as remit:
        result = await remit.run("locking", {"who": "hannah.lee"})
        assert result.outcome == "completed", result
        assert result.output["said"] == "locked: hannah.lee."
        opened, *later = remit.journal.reader.events(result.run)
        assert "hannah.lee" in repr(opened.body)
        shown = repr([event.body for event in later])
        assert "hannah.lee'" not in shown
        assert "hannah.lee." not in shown
        assert "hannah.leeds" in shown


SLOW = '''

async def slowly(ctx, args):
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return Resource(kind="Item", id=str(args["item"]), tenant=ctx.tenant, region="eu", attributes={})


@tool("items.nudge", effects={Effect.WRITE}, resource_kind="Item", locate=slowly)
async def nudge(ctx: ToolContext, item: int) -> int:
    """Nudge an item."""
    append(LEDGER, f"nudge {ctx.idempotency_key} {item}")
    return item


class Person(Struct, frozen=True):
    name: str


@tool("people.read", effects={Effect.READ}, field_classes={"result.name": FieldClass.PERSONAL})
async def read_person(number: int) -> Person:
    """Read who somebody is."""
    return Person(name="Rosalind Franklin")
'''


@pytest.fixture
def more(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path / "more", database_url)
    tools = made.folder / "tools" / "shop.py"
    tools.write_text(tools.read_text().replace("import Connection,", "import Connection, FieldClass,") + SLOW)
    return made


@pytest.mark.parametrize("turns", range(6))
async def test_what_is_changed_while_the_object_is_looked_for_is_not_done(more: Shop, turns: int) -> None:
    more.contract("desk", [write_action("items.nudge")])
    async with Remit(more.folder) as remit:
        async with remit.gate("desk").run({}) as run:
            args = {"item": 1}
            under_way = asyncio.ensure_future(run.propose("items.nudge", args))
            for _ in range(turns):
                await asyncio.sleep(0)
            args["item"] = 999
            await under_way
        [decided] = decisions(remit, run.id)
    done = [int(line.split()[2]) for line in more.ledger()]
    assert done == [decided.body["args"]["item"]]
    assert is_digest_of(decided.body["args_digest"], decided.body["args"], remit.redactor)
    assert decided.body["resource"]["id"] == str(done[0])


async def test_a_fact_that_tells_what_a_declared_field_held_is_concealed_on_record(more: Shop) -> None:
    policy = """
    @id("not-for-her") @reason("not for her")
    forbid (principal, action == Action::"put.none", resource) when { context.facts has who && context.facts.who == "x" };
    """
    facts = {"who": {"last": "people.read", "of": "result.name"}}
    more.contract("desk", [{"tool": "people.read"}, write_action("put.none")], policy=policy, facts=facts)
    async with Remit(more.folder) as remit:
        async with remit.gate("desk").run({}) as run:
            await run.propose("people.read", {"number": 1})
            assert (await run.propose("put.none", {"value": 1})).completed
        recorded = remit.journal.reader.events(run.id)
    assert "who" in recorded[-3].body["facts"]["facts"]
    assert "Franklin" not in repr([event.body for event in recorded])


REFUNDING = """
async def refunding(run, request):
    amount = {"amount": "60.00", "currency": "EUR"}
    return {"paid": await run.call("payments.refund", order=4, amount=amount, account="ann@corp.example")}
"""


async def test_an_approval_is_for_the_value_behind_a_pseudonym_and_not_for_the_pseudonym(more: Shop) -> None:
    more.contract("refunding", [REFUND], workflow=REFUNDING)
    async with Remit(more.folder) as remit:
        run, case = await held_case(remit, "refunding")
        shown = remit.cases.question(remit.cases.get(case))["shown"]["args"]
        assert shown["account"].startswith("<email:")
        await remit.cases.decide(case, Decision.APPROVED, token=remit.person_token("lee"))
        async with remit.engine.session(run) as (_, folded):
            state = folded.state
            token = remit.issuer.issue(state.authority.token_request(run), remit.clock())
            proposal = Proposal(tool="payments.refund", args=shown, step="1", token=token)
            outcome = await remit.pipeline.propose(state, proposal)
    assert isinstance(outcome, Denied)
    assert outcome.code == "approval_stale"
    assert more.ledger() == []

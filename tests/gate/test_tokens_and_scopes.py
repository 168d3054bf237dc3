"""A call is made with a token of exactly this agent, run, release and person, and with no scope more than it holds."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from project import Shop, make_shop, write_action
from remit import Completed, Denied, Outcome, Remit
from remit.gate.call import Proposal, RunState
from remit.identity.tokens import TokenRequest
from remit.journal.events import EventType

pytestmark = pytest.mark.anyio

UPDATE = '''

class Changes(Struct, frozen=True, omit_defaults=True):
    note: str = ""
    status: str = ""


@tool("orders.update", effects={Effect.WRITE}, written="changes")
async def update(ctx: ToolContext, order: int, changes: Changes) -> bool:
    """Update an order."""
    append(LEDGER, f"updated {ctx.idempotency_key} {order}")
    return True
'''


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    tools = made.folder / "tools" / "shop.py"
    tools.write_text(tools.read_text() + UPDATE)
    update = write_action("orders.update", only={"fields": ["note", "status"]})
    made.contract("desk", [write_action("put.none"), update])
    made.contract("other", [write_action("put.none")])
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


def granted(state: RunState) -> TokenRequest:
    """What the run's own token says."""
    return state.authority.token_request(state.run, state.on_behalf_of)


async def propose(remit: Remit, state: RunState, asked: TokenRequest, tool: str = "put.none", **args: Any) -> Outcome:
    """Propose a call with a token that says what is `asked` for, whoever made it."""
    token = remit.issuer.issue(asked, remit.clock())
    proposal = Proposal(tool=tool, args=args or {"value": 1}, step="1", token=token)
    return await remit.pipeline.propose(state, proposal)


FORGED: dict[str, tuple[str | None, dict[str, Any], str]] = {
    "another agent's": (None, {"principal": "agent/shop/other"}, "token_wrong_principal"),
    "another run's": (None, {"run": "run-0123456789abcdef"}, "token_wrong_run"),
    "another release's": (None, {"release": "0" * 64}, "token_wrong_release"),
    "for somebody in a run for nobody": (None, {"on_behalf_of": "person/anna"}, "token_wrong_person"),
    "for somebody else": ("person/anna", {"on_behalf_of": "person/lee"}, "token_wrong_person"),
    "for nobody in a run for somebody": ("person/anna", {"on_behalf_of": None}, "token_wrong_person"),
}


@pytest.mark.parametrize(("acts_for", "changed", "code"), FORGED.values(), ids=FORGED.keys())
async def test_a_token_is_good_for_nothing_where_one_of_its_claims_is_not_the_runs(
    remit: Remit, shop: Shop, acts_for: str | None, changed: dict[str, Any], code: str
) -> None:
    run = await remit.engine.open("desk", {}, on_behalf_of=acts_for)
    async with remit.engine.session(run) as (_, folded):
        own = granted(folded.state)
        refused = await propose(remit, folded.state, dataclasses.replace(own, **changed))
        assert isinstance(refused, Denied)
        assert refused.code == code
        assert shop.tries() == []
        assert isinstance(await propose(remit, folded.state, own), Completed)
    codes = [e.body["verdict"].get("code") for e in remit.journal.reader.events(run) if e.type is EventType.CALL_DECIDED]
    assert codes == [code, None]


async def test_a_token_of_one_tenant_is_good_for_nothing_in_a_run_of_another(remit: Remit, shop: Shop) -> None:
    run = await remit.engine.open("desk", {})
    async with remit.engine.session(run) as (_, folded):
        state = folded.state
        own = granted(state)
        state.authority = dataclasses.replace(state.authority, tenant="bank")
        refused = await propose(remit, state, own)
    assert isinstance(refused, Denied)
    assert refused.code == "token_wrong_principal"
    assert shop.tries() == []


async def test_a_tool_that_the_contract_grants_is_denied_to_a_token_without_its_scope(remit: Remit, shop: Shop) -> None:
    run = await remit.engine.open("desk", {})
    async with remit.engine.session(run) as (_, folded):
        own = granted(folded.state)
        narrow = dataclasses.replace(own, scopes=tuple(s for s in own.scopes if s != "tool:put.none"))
        refused = await propose(remit, folded.state, narrow)
        assert isinstance(refused, Denied)
        assert refused.code == "not_granted"
        assert shop.tries() == []
        # A scope is a whole name: neither a beginning of it nor another spelling will do.
        for scope in ("tool:put", "tool:put.none#value", "tool:PUT.NONE", "put.none"):
            other = dataclasses.replace(narrow, scopes=(*narrow.scopes, scope))
            assert isinstance(await propose(remit, folded.state, other), Denied)
        assert shop.tries() == []
        assert isinstance(await propose(remit, folded.state, own), Completed)


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [({"status": "open"}, "`tool:orders.update#status`"), ({"note": "x", "status": "open"}, "`tool:orders.update#status`")],
)
async def test_a_field_is_not_written_with_a_token_that_lacks_its_scope(
    remit: Remit, shop: Shop, changes: dict[str, Any], lacking: str
) -> None:
    run = await remit.engine.open("desk", {})
    async with remit.engine.session(run) as (_, folded):
        own = granted(folded.state)
        narrow = dataclasses.replace(own, scopes=("tool:orders.update", "tool:orders.update#note"))
        refused = await propose(remit, folded.state, narrow, "orders.update", order=1, changes=changes)
        assert isinstance(refused, Denied)
        assert (refused.code, lacking in refused.message) == ("scope_missing", True)
        assert shop.ledger() == []
        noted = await propose(remit, folded.state, narrow, "orders.update", order=1, changes={"note": "x"})
        assert isinstance(noted, Completed)
        assert isinstance(await propose(remit, folded.state, own, "orders.update", order=1, changes=changes), Completed)

"""What a call reserved and did not use is given back; what a tool only repeats is not trusted for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from project import REFUND, Shop, make_shop, write_action
from remit import Completed, Denied, Failed, Held, Remit, Unknown
from remit.cases.cases import Decision
from remit.errors import CaseError, RunError
from remit.journal.journal import system_clock

pytestmark = pytest.mark.anyio

ECHO = '''

@tool("notes.add", effects={Effect.READ})
async def add_note(text: str) -> str:
    """Say a text back."""
    return text
'''
UNTRUSTED = """
@id("from-outside") @reason("the account stands only in text from outside")
forbid (principal, action == Action::"payments.refund", resource) when { context.from.account.contains("untrusted") };
"""
TWO_ROLES = """
@id("care") @reason("care must agree") @hold("role:care-lead")
forbid (principal, action == Action::"put.none", resource);
@id("money") @reason("finance must agree") @hold("role:finance")
forbid (principal, action == Action::"put.none", resource);
"""
PEOPLE = """
[people.fin]
name = "Fin"
roles = ["finance"]
[people.both]
name = "Both"
roles = ["finance", "care-lead"]
"""
CHEAP = {**REFUND, "limits": {"per_run": 9, "money_per_day": "100.00 EUR"}}


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    tools = made.folder / "tools" / "shop.py"
    tools.write_text(tools.read_text() + ECHO)
    with (made.folder / "remit.toml").open("a") as project:
        project.write(PEOPLE)
    made.contract("scarce", [REFUND], limits={"writes_per_hour": 1})
    made.contract("rich", [CHEAP])
    odd = write_action("odd.write", limits={"per_run": 1})
    once = [write_action("put.safe", limits={"per_run": 1}), odd]
    made.contract("once", once, limits={"writes_per_hour": 1}, budget={"calls": 9, "writes": 9, "time": "9h"})
    made.contract("many", [write_action("put.none"), write_action("put.safe")])
    made.contract("echo", [{"tool": "orders.read"}, {"tool": "notes.add"}, REFUND], policy=UNTRUSTED)
    made.contract("short", [{"tool": "risk.check"}], budget={"calls": 2, "writes": 1, "time": "60s"})
    made.contract("roles", [write_action("put.none")], policy=TWO_ROLES)
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


def refund(account: str = "DE0933", currency: str = "EUR") -> dict[str, Any]:
    return {"order": 4, "amount": {"amount": "5.00", "currency": currency}, "account": account}


async def test_a_call_that_came_to_nothing_gives_its_room_back(remit: Remit) -> None:
    async with remit.gate("scarce").run({}) as run:
        assert isinstance(await run.propose("payments.refund", refund("CLOSED")), Failed)
        assert isinstance(await run.propose("payments.refund", refund()), Completed)
        refused = await run.propose("payments.refund", refund("DE0934"))
    assert isinstance(refused, Denied)
    assert refused.code == "limit_exhausted"


async def test_a_call_whose_outcome_nobody_knows_keeps_its_room(remit: Remit) -> None:
    async with remit.gate("once").run({}) as run:
        assert isinstance(await run.propose("odd.write", {"how": "done-unseen"}), Unknown)
        refused = await run.propose("put.safe", {"value": 1})
    assert isinstance(refused, Denied)
    assert refused.code == "limit_exhausted"


async def test_a_call_that_a_shared_limit_refuses_uses_nothing_of_what_its_run_has_left(shop: Shop) -> None:
    ahead_us = [0]
    async with Remit(shop.folder, clock=lambda: system_clock() + ahead_us[0]) as remit:
        async with remit.gate("once").run({}) as other:
            assert isinstance(await other.propose("put.safe", {"value": 1}), Completed)
        async with remit.gate("once").run({}) as run:
            refused = await run.propose("put.safe", {"value": 2})
            assert isinstance(refused, Denied)
            assert refused.code == "limit_exhausted"
            ahead_us[0] = 2 * 3_600_000_000
            # The hour is over, the run is not, and the one call that it may make is still to be made.
            assert isinstance(await run.propose("put.safe", {"value": 2}), Completed)
    assert [line.split()[2] for line in shop.ledger()] == ["1", "2"]


@pytest.mark.parametrize("disabled", ["agent/shop/many", "person/anna"])
async def test_neither_a_disabled_agent_nor_one_that_acts_for_somebody_disabled_does_anything(
    remit: Remit, shop: Shop, disabled: str
) -> None:
    async with remit.gate("many", on_behalf_of="person/anna").run({}) as run:
        assert isinstance(await run.propose("put.none", {"value": 1}), Completed)
        await remit.administration.disable(disabled)
        refused = await run.propose("put.none", {"value": 2})
        assert isinstance(refused, Denied)
        assert (refused.code, disabled in refused.message) == ("principal_disabled", True)
        await remit.administration.enable(disabled)
        assert isinstance(await run.propose("put.none", {"value": 3}), Completed)
    assert [line.split()[2] for line in shop.ledger()] == ["1", "3"]


async def test_a_run_makes_as_many_calls_as_its_budget_says_and_not_one_more(remit: Remit) -> None:
    async with remit.gate("short").run({}) as run:
        told = [await run.propose("risk.check", {"order": 1}) for _ in range(3)]
    assert [outcome.completed for outcome in told] == [True, True, False]


async def test_no_currency_moves_that_no_limit_is_set_for_whoever_approved_it(remit: Remit, shop: Shop) -> None:
    async with remit.gate("rich").run({}, request_key="one") as run:
        held = await run.propose("payments.refund", refund(currency="USD"))
    assert isinstance(held, Held)
    await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("lee"))
    async with remit.gate("rich").run({}, request_key="one") as run:
        refused = await run.propose("payments.refund", refund(currency="USD"))
    assert isinstance(refused, Denied)
    assert "no limit is set for USD" in refused.message
    assert shop.ledger() == []


async def test_an_account_from_outside_gains_no_trust_by_an_echo(remit: Remit, shop: Shop) -> None:
    async with remit.gate("echo").run({}) as run:
        read = await run.propose("orders.read", {"order": 4})
        assert isinstance(read, Completed)
        assert (await run.propose("notes.add", {"text": "XX4711"})).completed
        refused = await run.propose("payments.refund", refund("XX4711"))
        assert isinstance(refused, Denied)
        assert refused.rules == ("from-outside",)
        assert (await run.propose("payments.refund", refund(read.result["account"]))).completed
    assert len(shop.ledger()) == 1


async def go_on_for_ever(remit: Remit) -> None:
    async with remit.gate("short").run({}) as run:
        for _ in range(50):
            await run.propose("risk.check", {"order": 1})


async def test_a_run_that_proposes_without_end_is_cut_off(remit: Remit) -> None:
    with pytest.raises(RunError) as cut:
        await go_on_for_ever(remit)
    assert cut.value.code == "run_stopped"


@pytest.mark.parametrize(("person", "may"), [("lee", False), ("fin", False), ("both", True)])
async def test_a_call_that_two_roles_must_agree_to_needs_somebody_who_has_both(
    remit: Remit, shop: Shop, person: str, *, may: bool
) -> None:
    async with remit.gate("roles").run({}, request_key="one") as run:
        held = await run.propose("put.none", {"value": 1})
    assert isinstance(held, Held)
    decided = remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token(person))
    if may:
        await decided
    else:
        with pytest.raises(CaseError) as refused:
            await decided
        assert refused.value.code == "role_missing"
    async with remit.gate("roles").run({}, request_key="one") as run:
        assert (await run.propose("put.none", {"value": 1})).completed is may
    assert len(shop.ledger()) == may

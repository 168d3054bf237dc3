"""What calls share, and what the record has lost of it: limits of the tenant, erased charges, facts about what never was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backtest.recorded_shop import ACTIONS, FACTS, RULES, refund, shop_with, with_remit
from project import Shop, write_action
from remit import Remit
from remit.backtest.backtest import Result
from remit.backtest.judging import judge
from remit.backtest.proposals import Alternative, proposed_terms


def propose(shop: Shop, *calls: tuple[str, Any], contract: str = "refunds") -> str:
    async def use(remit: Remit) -> str:
        async with remit.gate(contract).run({}) as run:
            for tool, args in calls:
                await run.propose(tool, args)
        return run.id

    return with_remit(shop, use)


def judged(shop: Shop, alternative: Alternative) -> dict[str, Any]:
    async def use(remit: Remit) -> Result:
        return judge(remit, proposed_terms(remit, alternative))

    return with_remit(shop, use).as_json()


def by_policy(shop: Shop, text: str) -> dict[str, Any]:
    (shop.folder / "other.cedar").write_text(text)
    return judged(shop, Alternative(policy=shop.folder / "other.cedar", contract_name="refunds"))


def limited_tenant(folder: Path, limit: str) -> Shop:
    shop = shop_with(folder)
    shop.contract("others", [write_action("put.keyed")])
    project = shop.folder / "remit.toml"
    project.write_text(f"{project.read_text()}\n[limits]\n{limit}\n")
    return shop


NO_SECOND = (
    '@id("no-second") @reason("no") forbid (principal, action == Action::"put.none", resource) when { context.args.value == 2 };'
)


def test_what_other_contracts_use_counts_for_the_limits_of_the_tenant(tmp_path: Path) -> None:
    shop = limited_tenant(tmp_path, "writes_per_hour = 3")
    propose(shop, ("put.keyed", {"value": 1}), contract="others")
    for value in (1, 2, 3):
        propose(shop, ("put.none", {"value": value}))
    same = judged(shop, Alternative(contract_name="refunds"))
    assert (same["decisions"], same["reproduced"], same["same"]) == (3, 3, 3)
    # The third write was refused because of the tenant's limit; without the second there is room for it.
    found = by_policy(shop, RULES + NO_SECOND)
    assert (found["same"], found["tightened"], found["loosened"]) == (1, 1, 1)


def test_a_write_of_another_contract_that_failed_leaves_its_room_to_others(tmp_path: Path) -> None:
    shop = limited_tenant(tmp_path, "writes_per_hour = 2")
    shop.contract("others", [write_action("odd.write")])
    propose(shop, ("odd.write", {"how": "not-done"}), contract="others")
    for value in (1, 2, 3):
        propose(shop, ("put.none", {"value": value}))
    same = judged(shop, Alternative(contract_name="refunds"))
    assert (same["reproduced"], same["same"]) == (3, 3)


@pytest.fixture
def hourly(tmp_path: Path) -> Shop:
    """Two writes an hour: the first one was erased since, the third one was refused."""
    shop = shop_with(tmp_path, [write_action("put.none", limits={"per_hour": 2})], policy="", facts={})
    runs = [propose(shop, ("put.none", {"value": value})) for value in (1, 2, 3)]

    async def erase(remit: Remit) -> None:
        with remit.database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE run_keys SET body_key = NULL, sealed_key = NULL WHERE run = ?", (runs[0],))

    with_remit(shop, erase)
    return shop


def test_a_limit_that_an_erased_run_has_used_up_is_undetermined_and_no_failure(hourly: Shop) -> None:
    found = judged(hourly, Alternative())
    assert (found["decisions"], found["same"], found["undetermined"]) == (3, 1, 2)
    reasons = {row["reason"] for row in found["undetermined_because"]}
    assert reasons == {"the run was erased", "what erased runs have used of its limits isn't known"}


def test_an_allow_under_other_limits_is_not_claimed_where_charges_are_lost(hourly: Shop) -> None:
    present = json.loads((hourly.folder / "contracts" / "refunds" / "contract.yaml").read_text())
    actions = [write_action("put.none", limits={"per_hour": 1})]
    (hourly.folder / "other.yaml").write_text(json.dumps({**present, "actions": actions}))
    found = judged(hourly, Alternative(contract=hourly.folder / "other.yaml"))
    assert (found["same"], found["undetermined"]) == (0, 3)


def test_facts_about_a_call_that_was_never_carried_out_are_not_guessed(tmp_path: Path) -> None:
    no_checks = '@id("no-checks") @reason("no") forbid (principal, action == Action::"risk.check", resource);'
    shop = shop_with(tmp_path, policy=RULES + no_checks)
    propose(shop, ("risk.check", {"order": 1}), refund(1, "45.00"))
    found = by_policy(shop, RULES)
    assert (found["loosened"], found["hypothetical"]["undetermined"]) == (1, 1)
    assert "a call that was not carried out on record" in found["hypothetical"]["undetermined_because"][0]["reason"]


def test_an_attribute_that_nobody_looked_up_then_is_not_guessed(tmp_path: Path) -> None:
    shop = shop_with(tmp_path, ACTIONS, policy=RULES, facts=FACTS)
    propose(shop, ("items.move", {"item": 1}))
    tools = shop.folder / "tools" / "shop.py"
    text = tools.read_text().replace('{"vip": "Bool"}', '{"vip": "Bool", "fragile": "Bool"}')
    tools.write_text(text.replace('"vip": args["item"] > 100}', '"vip": args["item"] > 100, "fragile": True}'))
    fragile = '@id("fragile") forbid (principal, action == Action::"items.move", resource) when { resource.fragile };'
    found = by_policy(shop, RULES + fragile)
    assert (found["reproduced"], found["undetermined"]) == (1, 1)
    assert found["undetermined_because"][0]["reason"] == "rule `fragile` reads `resource.fragile`, which was not recorded"
    firm = '@id("never") forbid (principal, action == Action::"items.move", resource);'
    assert by_policy(shop, RULES + fragile + firm)["tightened"] == 1

"""Contracts that are learnt from the record: nothing that was done is denied by them, and what was never done is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backtest.recorded_shop import Clock, record_runs, refund, shop_with, with_remit
from project import Shop, write_action
from remit import Remit
from remit.backtest.evidence import Busiest
from remit.backtest.learning import Learnt, Tightening, learn, tighten, write
from remit.backtest.proposals import Alternative, proposed_terms
from remit.checking.check import check_project, project_tools
from remit.errors import ConfigError, RunError


def learnt_from(shop: Shop, folder: Path | None = None) -> Learnt:
    async def use(remit: Remit) -> Learnt:
        found = learn(remit, "refunds")
        if folder is not None:
            write(remit, found, folder)
        return found

    return with_remit(shop, use)


def propose(shop: Shop, *calls: tuple[str, Any], clock: Clock | None = None) -> None:
    async def use(remit: Remit) -> None:
        async with remit.gate("refunds").run({}) as run:
            for tool, args in calls:
                await run.propose(tool, args)

    with_remit(shop, use, **({"clock": clock} if clock else {}))


def test_what_is_learnt_denies_nothing_that_was_done(tmp_path: Path) -> None:
    shop = shop_with(tmp_path)
    record_runs(shop, 40)
    found = learnt_from(shop)
    assert found.on_itself.decisions > 200
    assert (found.on_itself.stopped, found.on_itself.beyond) == (0, 0)
    assert found.on_later is not None


def test_it_is_written_as_a_contract_that_has_no_problems_and_says_what_each_line_rests_on(tmp_path: Path) -> None:
    shop = shop_with(tmp_path / "shop")
    record_runs(shop, 40)
    folder = tmp_path / "shop" / "inferred" / "refunds"
    found = learnt_from(shop, folder)
    contract, policy = (folder / "contract.yaml").read_text(), (folder / "policy.cedar").read_text()
    use = found.evidence.tools["orders.read"]
    run, _, step = use.example.partition(" ")
    assert f"  # {use.calls} calls in {use.runs} runs, such as {run} step {step}\n  - tool: \"orders.read\"" in contract
    assert '@id("no-xx")' in policy
    assert found.narrowed.inferred
    assert all(f"// {rule.evidence}" in policy for rule in found.narrowed.inferred)
    (shop.folder / "contracts" / "refunds" / "contract.yaml").write_text(contract)
    (shop.folder / "contracts" / "refunds" / "policy.cedar").write_text(policy)
    assert check_project(shop.folder, project_tools) == []


def test_it_is_never_written_over_something(tmp_path: Path) -> None:
    shop = shop_with(tmp_path)
    propose(shop, ("orders.read", {"order": 1}))
    with pytest.raises(ConfigError, match="exists already"):
        learnt_from(shop, tmp_path / "contracts")


def test_values_and_origins_that_were_never_seen_are_denied(tmp_path: Path) -> None:
    shop = shop_with(tmp_path)
    for _ in range(6):
        propose(shop, ("put.none", {"value": 3}), ("put.none", {"value": 7}), *([refund(1, "5.00")] * 2))
    found = learnt_from(shop)
    rules = {rule.id: rule.evidence for rule in found.narrowed.inferred}
    assert rules == {
        "used:put.none:value": "from 3 to 7, 12 times",
        "used:payments.refund:order": "from 1 to 1, 12 times",
        "used:payments.refund:account": "one of 1: 'DE1' 12",
        "origin:payments.refund:account": "came from: model 12",
    }
    propose(shop, ("put.none", {"value": 8}), refund(1, "5.00", "DE2"))

    async def judged(remit: Remit) -> list[str]:
        from remit.backtest.judging import Judging, judge

        said: list[str] = []
        judge(remit, found.narrowed.terms, Judging(last_runs=1, on_compared=lambda each: said.extend(each.rules)))
        return said

    assert with_remit(shop, judged) == ["used:put.none:value", "used:payments.refund:account"]


def test_grants_that_nobody_used_are_left_out_and_those_that_a_rule_names_may_not_be_used(tmp_path: Path) -> None:
    shop = shop_with(tmp_path)
    propose(shop, ("put.none", {"value": 3}))
    actions = {action.tool: action for action in learnt_from(shop).narrowed.terms.contract.actions}
    assert actions.keys() == {"put.none", "risk.check"}
    assert actions["risk.check"].limits.per_run == 0


def test_limits_are_never_wider_than_they_were(tmp_path: Path) -> None:
    shop = shop_with(tmp_path, [write_action("put.none", limits={"per_run": 9})], policy="", facts={})
    propose(shop, *([("put.none", {"value": 1})] * 4))
    shop.contract("refunds", [write_action("put.none", limits={"per_run": 2})], budget={"calls": 3, "writes": 1, "time": "60s"})
    contract = learnt_from(shop).narrowed.terms.contract
    assert contract.actions[0].limits.per_run == 2
    assert (contract.budget.calls, contract.budget.writes) == (3, 1)


def test_rates_are_learnt_where_the_record_is_long_enough_to_tell(tmp_path: Path) -> None:
    shop = shop_with(tmp_path, [write_action("put.none")], policy="", facts={})
    clock = Clock()
    for _ in range(4):
        propose(shop, *([("put.none", {"value": 1})] * 2), clock=clock)
        clock.now_us += 600_000_000
    limits = learnt_from(shop).narrowed.terms.contract.actions[0].limits
    assert (limits.per_run, limits.per_minute, limits.per_hour, limits.per_day) == (2, 2, None, None)


def test_the_busiest_window_is_counted_as_limits_count() -> None:
    busiest = Busiest(60_000)
    for at_s in (0, 10, 50, 59, 130, 131):
        busiest.add(at_s * 1_000_000, 1)
    assert busiest.most == 4


def test_a_contract_without_anything_carried_out_teaches_nothing(tmp_path: Path) -> None:
    shop = shop_with(tmp_path)
    with pytest.raises(RunError) as refused:
        learnt_from(shop)
    assert refused.value.code == "no_runs"


def test_tightening_names_what_nobody_used_and_since_when(tmp_path: Path) -> None:
    shop = shop_with(tmp_path)
    clock = Clock()
    began = clock.now_us
    propose(shop, ("put.none", {"value": 3}), refund(1, "5.00"), clock=clock)

    async def use(remit: Remit) -> Tightening:
        return tighten(remit, "refunds")

    found = with_remit(shop, use)
    named = {(each.kind, each.name): each.used for each in found.unused}
    assert named["grant", "orders.read"] == "never called"
    assert named["limit", "payments.refund per_run"] == "at most 1"
    assert named["budget", "budget.calls"] == "at most 2 in one run"
    assert ("grant", "put.none") not in named
    assert began < found.since < began + 1_000_000
    assert (found.trial.decisions, found.trial.stopped) == (2, 0)


def test_an_inferred_contract_can_be_judged_by_its_folder(tmp_path: Path) -> None:
    shop = shop_with(tmp_path / "shop")
    propose(shop, ("put.none", {"value": 3}))
    learnt_from(shop, tmp_path / "elsewhere" / "refunds")
    propose(shop, ("orders.read", {"order": 3}))

    async def use(remit: Remit) -> dict[str, int]:
        from remit.backtest.judging import judge

        return judge(remit, proposed_terms(remit, Alternative(contract=tmp_path / "elsewhere" / "refunds"))).counts()

    counts = with_remit(shop, use)
    assert (counts["same"], counts["tightened"]) == (1, 1)

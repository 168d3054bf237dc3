"""Limits as contracts write them: which meters a call is charged on, and what the run counts by itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.contracts.model import Contract, Limits
from remit.limits.meters import Charge, Quantity
from remit.limits.rules import ActionRules, Demand, RunUsage, charges, compile_limits

DAY_MS, HOUR_MS, MINUTE_MS = 86_400_000, 3_600_000, 60_000


def contract(name: str = "refunds", **more: Any) -> Contract:
    plain: dict[str, Any] = {
        "contract": name,
        "owner": {"team": "desk", "contact": "desk@corp.example"},
        "purpose": "p",
        "style": "react",
        "input": "in.json",
        "output": "out.json",
        "actions": [{"tool": "orders.refund"}, {"tool": "orders.read"}],
        "budget": {"calls": 10, "writes": 3, "spend": "0.50 USD"},
        "escalate": {"to": "queue:desk", "sla": "4h"},
        "success": {"metric": "m"},
        "slo": {},
        **more,
    }
    return msgspec.convert(plain, Contract)


def compiled(one: Contract, tenant: str = "northwind", **tenant_limits: Any) -> Any:
    return compile_limits(one, one.actions, tenant, Limits(**tenant_limits))


def refund(own: dict[str, Any], **more: Any) -> ActionRules:
    """The rules of an action with these limits of its own."""
    return compiled(contract(actions=[{"tool": "orders.refund", "limits": own}], **more))["orders.refund"]


def charged(rules: ActionRules, demand: Demand, person: str | None = None) -> dict[str, Charge]:
    found = charges(rules, demand, person)
    assert len({charge.meter for charge in found}) == len(found)
    return {charge.label: charge for charge in found}


WRITE = Demand(calls=1, writes=1, rows=4, money=500_000, currency="EUR", spend=1_200)


def test_every_limit_of_an_action_is_charged_in_its_own_quantity_and_window() -> None:
    rules = refund(
        {"per_minute": 2, "per_hour": 20, "per_day": 200, "rows_per_hour": 50, "rows_per_day": 60}
        | {"money_per_hour": "100.00 EUR", "money_per_day": "900.50 EUR"}
    )
    found = charged(rules, WRITE)
    assert {label: (c.limit, c.window_ms, c.amount) for label, c in found.items()} == {
        "2 calls per minute of `orders.refund`": (2, MINUTE_MS, 1),
        "20 calls per hour of `orders.refund`": (20, HOUR_MS, 1),
        "200 calls per day of `orders.refund`": (200, DAY_MS, 1),
        "50 rows per hour of `orders.refund`": (50, HOUR_MS, 4),
        "60 rows per day of `orders.refund`": (60, DAY_MS, 4),
        "100.0000 EUR per hour of `orders.refund`": (1_000_000, HOUR_MS, 500_000),
        "900.5000 EUR per day of `orders.refund`": (9_005_000, DAY_MS, 500_000),
    }


def test_limits_of_the_contract_the_tenant_and_one_person_are_charged_beside_each_other() -> None:
    one = contract(limits={"writes_per_hour": 5, "spend_per_day": "2.00 USD"}, per_person={"calls_per_day": 3})
    rules = compiled(one, calls_per_minute=100, money_per_day="10 EUR")["orders.refund"]
    found = charged(rules, WRITE, "person/ann")
    assert {label: (c.limit, c.window_ms, c.amount) for label, c in found.items()} == {
        "5 writes per hour of the contract": (5, HOUR_MS, 1),
        "2.0000 USD of spend per day of the contract": (2_000_000, DAY_MS, 1_200),
        "3 calls per day of one person": (3, DAY_MS, 1),
        "100 calls per minute of the tenant": (100, MINUTE_MS, 1),
        "10.0000 EUR per day of the tenant": (100_000, DAY_MS, 500_000),
    }


def test_every_limit_that_can_be_written_is_compiled() -> None:
    """None is forgotten when one is added to the model."""
    every: dict[str, Any] = {
        name: "1.00 USD" if name.startswith(("money", "spend")) else 1 for name in Limits.__struct_fields__
    }
    rules = compiled(contract(), **every)["orders.read"]
    assert len(rules.rates) == len(every)
    demand = Demand(calls=1, writes=1, rows=1, money=1, currency="USD", spend=1)
    assert len(charged(rules, demand)) == len(every)


def meters(rules: ActionRules, person: str | None = None) -> set[str]:
    return {charge.meter for charge in charges(rules, WRITE, person)}


def test_who_shares_a_limit_shares_a_meter_and_nobody_else() -> None:
    limited: dict[str, Any] = {"limits": {"calls_per_hour": 5}, "per_person": {"calls_per_hour": 2}}
    own = {"actions": [{"tool": f"orders.{verb}", "limits": {"per_hour": 9}} for verb in ("refund", "read")]}
    one = compiled(contract("refunds", **limited, **own), calls_per_hour=7)
    other = compiled(contract("returns", **limited, **own), calls_per_hour=7)
    south = compiled(contract("refunds", **limited, **own), "southwind", calls_per_hour=7)
    ann, ben = "person/ann", "person/ben"
    refund_ann, read_ann = meters(one["orders.refund"], ann), meters(one["orders.read"], ann)
    # Two actions of a contract: all but their own.
    assert len(refund_ann) == 4
    assert len(refund_ann & read_ann) == 3
    # Two people: all but theirs.
    assert len(refund_ann & meters(one["orders.refund"], ben)) == 3
    # Two contracts: the tenant's. Two tenants: none.
    assert len(refund_ann & meters(other["orders.refund"], ann)) == 1
    assert refund_ann & meters(south["orders.refund"], ann) == set()


@given(st.text(max_size=30), st.text(max_size=30))
@settings(deadline=None)
def test_no_name_of_a_person_leads_to_the_meter_of_anything_else(one: str, other: str) -> None:
    rules = compiled(
        contract(
            per_person={"calls_per_hour": 2, "writes_per_hour": 2},
            limits={"calls_per_hour": 5},
            actions=[{"tool": "orders.refund", "limits": {"per_hour": 9}}],
        ),
        calls_per_hour=7,
    )["orders.refund"]
    mine, theirs = meters(rules, f"person/{one}"), meters(rules, f"person/{other}")
    assert len(mine) == 5
    assert len(mine & theirs) == (5 if one == other else 3)


def test_a_run_for_nobody_is_not_charged_to_anybody() -> None:
    rules = compiled(contract(per_person={"calls_per_day": 3}))["orders.read"]
    assert charges(rules, WRITE, None) == ()


def test_what_a_call_does_not_use_is_not_charged() -> None:
    limits = {"writes_per_hour": 1, "rows_per_hour": 1, "money_per_hour": "1 EUR", "spend_per_hour": "1 USD"}
    rules = compiled(contract(limits=limits))["orders.read"]
    assert charges(rules, Demand(), None) == ()
    (only,) = charges(rules, Demand(rows=2), None)
    assert (only.amount, only.label) == (2, "1 rows per hour of the contract")


def test_money_is_charged_in_its_own_currency_only() -> None:
    rules = refund({"money_per_day": "10 EUR"}, limits={"money_per_day": "20 USD"})
    assert rules.currencies == {"EUR", "USD"}
    (euros,) = charges(rules, Demand(money=5, currency="EUR"), None)
    (dollars,) = charges(rules, Demand(money=5, currency="USD"), None)
    assert (euros.limit, dollars.limit) == (100_000, 200_000)
    assert euros.meter != dollars.meter
    assert charges(rules, Demand(money=5, currency="GBP"), None) == ()


def test_where_money_is_not_limited_no_currency_is_named() -> None:
    assert refund({"per_day": 1}).currencies == frozenset()
    assert refund({"money_per_run": "1 EUR"}).currencies == {"EUR"}


def test_amounts_are_exact() -> None:
    rules = refund({"money_per_day": "0.1001 EUR"}, limits={"spend_per_day": "0.0003 USD"})
    found = charged(rules, Demand(money=1, currency="EUR", spend=1))
    assert found["0.1001 EUR per day of `orders.refund`"].limit == 1_001
    assert found["0.0003 USD of spend per day of the contract"].limit == 300


def reserved(usage: RunUsage, rules: ActionRules, demand: Demand) -> str | None:
    full = usage.reserve(rules, demand)
    return full.label if full else None


def test_a_limit_per_run_is_counted_by_the_run_and_not_on_a_meter() -> None:
    rules = refund({"per_run": 2, "rows_per_run": 9, "money_per_run": "100 EUR"})
    assert charges(rules, WRITE, None) == ()
    usage = RunUsage()
    assert reserved(usage, rules, WRITE) is None
    assert reserved(usage, rules, WRITE) is None
    assert reserved(usage, rules, Demand()) == "2 calls per run, of `orders.refund`"


@pytest.mark.parametrize(
    ("limits", "demand", "label"),
    [
        ({"per_run": 0}, Demand(), "0 calls per run, of `orders.refund`"),
        ({"rows_per_run": 3}, Demand(rows=4), "3 rows per run, of `orders.refund`"),
        ({"money_per_run": "4 EUR"}, Demand(money=40_001, currency="EUR"), "4.0000 EUR per run, of `orders.refund`"),
        ({}, Demand(writes=4), "3 writes per run, budget of the run"),
        ({}, Demand(spend=500_001), "0.5000 USD of spend per run, budget of the run"),
    ],
)
def test_each_limit_of_a_run_is_named_when_it_is_full(limits: dict[str, Any], demand: Demand, label: str) -> None:
    assert reserved(RunUsage(), refund(limits), demand) == label


def test_a_limit_per_run_belongs_to_its_action_and_the_budget_to_all() -> None:
    one = contract(
        actions=[{"tool": f"orders.{verb}", "limits": {"per_run": 2}} for verb in ("refund", "cancel")],
    )
    rules = compiled(one)
    usage = RunUsage()
    write = Demand(writes=1)
    assert [reserved(usage, rules["orders.refund"], write) for _ in range(2)] == [None, None]
    assert reserved(usage, rules["orders.cancel"], write) is None
    assert reserved(usage, rules["orders.cancel"], write) == "3 writes per run, budget of the run"
    assert usage.used(Quantity.WRITES) == 3


def test_a_reservation_that_finds_no_room_takes_nothing() -> None:
    rules = refund({"per_run": 5, "money_per_run": "1 EUR"})
    usage = RunUsage()
    for _ in range(9):
        assert usage.reserve(rules, Demand(writes=1, money=10_001, currency="EUR")) is not None
    assert usage.used(Quantity.WRITES) == 0
    assert reserved(usage, rules, Demand(writes=3, money=10_000, currency="EUR")) is None


def test_what_is_released_is_room_again() -> None:
    rules = refund({"per_run": 1})
    usage = RunUsage()
    assert usage.reserve(rules, WRITE) is None
    usage.release(rules, Demand(calls=0, spend=1_000))
    assert usage.used(Quantity.SPEND) == 200
    usage.release(rules, Demand(calls=1, writes=1, rows=4, money=500_000, currency="EUR", spend=200))
    assert (usage.used(Quantity.SPEND), usage.used(Quantity.WRITES)) == (0, 0)
    assert usage.reserve(rules, WRITE) is None


demands = st.builds(
    Demand,
    calls=st.integers(0, 2),
    writes=st.integers(0, 2),
    rows=st.integers(0, 3),
    money=st.integers(0, 5),
    currency=st.sampled_from(["EUR", "USD"]),
    spend=st.integers(0, 200_000),
)


@given(st.lists(demands, max_size=30))
@settings(deadline=None)
def test_a_run_never_uses_more_than_its_limits_and_is_never_refused_with_room_left(asked: list[Demand]) -> None:
    rules = refund({"per_run": 4, "rows_per_run": 6, "money_per_run": "0.0009 EUR"})
    usage = RunUsage()
    taken: list[Demand] = []
    for demand in asked:
        full = usage.reserve(rules, demand)
        if full is None:
            taken.append(demand)
        else:
            assert sum(each.of(full) for each in taken) + demand.of(full) > full.limit
        for rule in rules.per_run:
            assert sum(each.of(rule) for each in taken) <= rule.limit

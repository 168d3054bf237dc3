"""Properties of backtests, over one past and whatever terms Hypothesis thinks of."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtest.recorded_shop import ACTIONS, RULES, Clock, record_runs, shop_with, with_remit
from project import Shop, write_action
from remit import Remit
from remit.backtest.backtest import Result
from remit.backtest.judging import Judging, judge
from remit.backtest.proposals import Alternative, proposed_terms
from remit.backtest.tally import Compared, VerdictChange

FORBIDS = [
    'forbid (principal, action == Action::"put.none", resource) when { context.args.value > 1 };',
    'forbid (principal, action == Action::"payments.refund", resource) when { context.from.account.contains("model") };',
    'forbid (principal, action, resource) when { context.classes.contains("email") };',
    'forbid (principal, action in [Action::"orders.read", Action::"risk.check"], resource) when { context.args.order == 3 };',
    'forbid (principal, action == Action::"items.move", resource) unless { resource.vip };',
    'forbid (principal, action == Action::"payments.refund", resource) when { context.facts.checked };',
]
QUIET = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = shop_with(tmp_path_factory.mktemp("past") / "shop")
    record_runs(made, 40)
    return made


def judged(shop: Shop, *, policy: str | None = None, actions: list[dict[str, Any]] | None = None) -> list[Compared]:
    """Every decision as it comes out under another policy or other actions."""
    found: list[Compared] = []

    async def use(remit: Remit) -> Result:
        file = shop.folder / ("other.cedar" if policy is not None else "other.yaml")
        if policy is not None:
            file.write_text(policy)
            alternative = Alternative(policy=file)
        else:
            present = json.loads((shop.folder / "contracts" / "refunds" / "contract.yaml").read_text())
            file.write_text(json.dumps({**present, "actions": actions}))
            alternative = Alternative(contract=file)
        return judge(remit, proposed_terms(remit, alternative), Judging(on_compared=found.append))

    result = with_remit(shop, use)
    assert result.reproduced == result.decisions == len(found)
    assert result.firm.decisions + result.hypothetical.decisions == result.decisions
    return found


def rule(number: int, text: str, hold: bool) -> str:
    asks = '@hold("role:care-lead") ' if hold else ""
    return f'@id("added-{number}") {asks}{text}\n'


def test_the_very_same_policy_changes_nothing(shop: Shop) -> None:
    assert {each.change for each in judged(shop, policy=RULES)} == {VerdictChange.SAME}


@QUIET
@given(added=st.lists(st.tuples(st.sampled_from(FORBIDS), st.booleans()), min_size=1, max_size=4))
def test_an_added_rule_never_loosens(shop: Shop, added: list[tuple[str, bool]]) -> None:
    policy = RULES + "".join(rule(number, text, hold) for number, (text, hold) in enumerate(added))
    assert [each for each in judged(shop, policy=policy) if each.change is VerdictChange.LOOSENED] == []


@QUIET
@given(kept=st.sets(st.sampled_from([each["tool"] for each in ACTIONS if each["tool"] != "risk.check"]), min_size=1))
def test_a_grant_that_is_taken_out_never_loosens(shop: Shop, kept: set[str]) -> None:
    # A policy that names what is not granted is refused, so refunds and checks stay.
    tools = {*kept, "risk.check", "payments.refund"}
    found = judged(shop, actions=[each for each in ACTIONS if each["tool"] in tools])
    assert [each for each in found if each.change is VerdictChange.LOOSENED] == []
    denied = [each for each in found if each.tool not in tools]
    assert {each.now for each in denied} <= {"deny"}


def admitted(times_us: list[int], limit: int, window_us: int) -> list[bool]:
    """The obvious way to limit a rate: all that was admitted is kept, and counted by sixtieths of the window."""
    width = -(-window_us // 60)
    taken: list[int] = []
    said: list[bool] = []
    for at in times_us:
        bucket = at // width
        said.append(sum(1 for each in taken if each >= bucket - 60) < limit)
        if said[-1]:
            taken.append(bucket)
    return said


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = shop_with(tmp_path_factory.mktemp("timed") / "shop", [write_action("put.none")], policy="", facts={})
    clock, pick = Clock(), random.Random(7)

    async def use(remit: Remit) -> None:
        for value in range(60):
            clock.now_us += pick.choice((1, 2_000_000, 40_000_000, 900_000_000))
            async with remit.gate("refunds").run({}) as run:
                await run.propose("put.none", {"value": value})

    with_remit(made, use, clock=clock)
    return made


@QUIET
@given(limit=st.integers(0, 12), span=st.sampled_from(["minute", "hour", "day"]))
def test_a_rate_admits_what_the_obvious_way_to_count_admits(timed: Shop, limit: int, span: str) -> None:
    found = judged(timed, actions=[write_action("put.none", limits={"per_run": 50, f"per_{span}": limit})])

    async def times(remit: Remit) -> list[int]:
        with remit.database.engine.connect() as connection:
            rows = connection.exec_driver_sql("SELECT at FROM events WHERE type = 'call.decided' ORDER BY seq")
            return [at for (at,) in rows]

    window_us = {"minute": 60, "hour": 3_600, "day": 86_400}[span] * 1_000_000
    assert [each.now == "allow" for each in found] == admitted(with_remit(timed, times), limit, window_us)

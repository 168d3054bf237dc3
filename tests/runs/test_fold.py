"""A run that is taken up again knows what the run itself knew, whatever calls it has made."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from project import REFUND, SECRET, Shop, make_shop, write_action
from remit import Remit
from remit.gate.call import RunState
from remit.limits.meters import Quantity

MONEY = {"amount": "5.00", "currency": "EUR"}
CALLS: list[tuple[str, Any]] = [
    ("orders.read", {"order": 1}),
    ("risk.check", {"order": 1}),
    ("risk.check", {"order": "one"}),
    ("no.such", {}),
    ("payments.refund", {"order": 1, "amount": MONEY, "account": "DE0933"}),
    ("payments.refund", {"order": 2, "amount": {**MONEY, "amount": "60.00"}, "account": "XX4711"}),
    ("payments.refund", {"order": 1, "amount": MONEY, "account": "CLOSED"}),
    ("payments.refund", {"order": 1, "amount": MONEY, "account": SECRET}),
    ("put.none", {"value": 1}),
    ("odd.keyed", {"how": "not-done"}),
    ("odd.write", {"how": "done-unseen"}),
    ("items.move", {"item": 0}),
    ("items.move", {"item": 4}),
]
SAMPLES = ("DE0933", "XX4711", "care", "please pay", "desk", "shop", "ann@shop.example", 4)


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    writes = ("put.none", "odd.keyed", "odd.write", "items.move")
    made.contract("desk", [{"tool": "orders.read"}, {"tool": "risk.check"}, REFUND, *map(write_action, writes)])
    return made


def known(state: RunState) -> dict[str, Any]:
    """All that later decisions of a run rest upon. One that named a credential makes no decisions any more."""
    kept = [(past.tool, past.outcome, past.args, past.result) for past in state.past]
    return {
        "past": len(kept) if state.ended else kept,
        "used": {quantity: state.usage.used(quantity) for quantity in (Quantity.WRITES, Quantity.SPEND)},
        "steps": state.steps,
        "rejections": {tool: times for tool, times in state.rejections.items() if times},
        "approvals": state.approvals,
        "deferred": state.deferred,
        "labels": {sample: state.seen.labels(sample) for sample in SAMPLES},
        "stopped": state.ended,
    }


@given(calls=st.lists(st.sampled_from(CALLS), min_size=1, max_size=7))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_back_is_what_the_run_knew(shop: Shop, calls: list[tuple[str, Any]]) -> None:
    asyncio.run(compare(shop, calls))


async def compare(shop: Shop, calls: list[tuple[str, Any]]) -> None:
    async with Remit(shop.folder) as remit:
        opened = await remit.engine.open("desk", {"order": 4, "who": "ann@shop.example"})
        async with remit.engine.session(opened) as (run, folded):
            for tool, args in calls:
                if folded.state.ended:
                    break
                await run.propose(tool, args)
            live = known(folded.state)
        async with remit.engine.session(opened) as (_, again):
            assert known(again.state) == live

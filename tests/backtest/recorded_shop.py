"""A shop with a past: runs whose calls were allowed, denied, held, rejected and limited, at times that a test chooses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from project import REFUND, Shop, make_shop, write_action
from remit import Held, Remit
from remit.cases.cases import Decision

T = TypeVar("T")

START_US = 1_767_614_400_000_000
"""A Monday, noon, UTC."""

RULES = '''
@id("no-xx") @reason("XX1 is closed")
forbid (principal, action == Action::"payments.refund", resource) when { context.args.account == "XX1" };
@id("checked-first") @reason("a large refund needs a check of its order") @hold("role:care-lead")
forbid (principal, action == Action::"payments.refund", resource)
when { context.args.amount.amount.greaterThan(decimal("40.0")) } unless { context.facts.checked };
'''

ACTIONS: list[dict[str, Any]] = [
    {"tool": "orders.read"},
    {"tool": "risk.check"},
    {**REFUND, "limits": {"per_run": 3}},
    write_action("put.none"),
    write_action("items.move", only={"attributes": {"vip": False}}),
    write_action("odd.write"),
]
FACTS = {"checked": {"seen": "risk.check", "where": {"order": "args.order"}}}


class Clock:
    """Time that passes when a test says so, and a microsecond whenever it is asked for."""

    def __init__(self) -> None:
        self.now_us = START_US

    def __call__(self) -> int:
        self.now_us += 1
        return self.now_us


def shop_with(
    folder: Path, actions: list[dict[str, Any]] | None = None, *, database: str = "sqlite:remit.db", **more: Any
) -> Shop:
    shop = make_shop(folder, database)
    terms: dict[str, Any] = {"policy": RULES, "facts": FACTS, **more}
    shop.contract("refunds", ACTIONS if actions is None else actions, **terms)
    return shop


def with_remit(shop: Shop, use: Callable[[Remit], Coroutine[Any, Any, T]], **options: Any) -> T:
    async def main() -> T:
        async with Remit(shop.folder, **options) as opened:
            return await use(opened)

    return asyncio.run(main())


def refund(order: int, amount: str, account: str = "DE1") -> tuple[str, dict[str, Any]]:
    return "payments.refund", {"order": order, "amount": {"amount": amount, "currency": "EUR"}, "account": account}


def any_call(pick: random.Random) -> tuple[str, Any]:
    """A call as an agent might propose it, well-formed or not."""
    order = pick.randrange(5)
    return pick.choice(
        [
            ("orders.read", {"order": order}),
            ("risk.check", {"order": order}),
            refund(order, pick.choice(("5.00", "45.00", "60.00")), pick.choice(("DE1", "DE2", "XX1"))),
            ("put.none", {"value": order}),
            ("put.none", {"value": "a text"}),
            ("items.move", {"item": pick.choice((0, 1, 101))}),
            ("odd.write", {"how": pick.choice(("fine", "not-done", "broken"))}),
            ("nobody.knows", {"order": order}),
        ]
    )


def record_runs(shop: Shop, count: int, seed: int = 1) -> None:
    """Runs of up to twelve calls; people answer some of what is asked, and the run goes on behind that."""

    async def use(remit: Remit) -> None:
        pick = random.Random(seed)
        for number in range(count):
            plan = [any_call(pick) for _ in range(pick.randrange(3, 13))]
            answer = pick.choice((None, Decision.APPROVED, Decision.DENIED))
            asked = await _propose(remit, number, plan)
            if answer is not None and asked:
                await remit.cases.decide(asked[0], answer, token=remit.person_token("lee"))
                await _propose(remit, number, plan)

    with_remit(shop, use)


async def _propose(remit: Remit, number: int, plan: list[tuple[str, Any]]) -> list[str]:
    cases: list[str] = []
    async with remit.gate("refunds").run({"order": number}, request_key=str(number)) as run:
        for tool, args in plan:
            outcome = await run.propose(tool, args)
            if isinstance(outcome, Held):
                cases.append(outcome.case)
    return cases

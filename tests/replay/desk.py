"""A desk whose workflow does what its request says, and replays of its runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import update

from project import REFUND, Shop, make_shop, write_action
from remit import Remit
from remit.cases.cases import Decision
from remit.replay.recorded import Choice
from remit.replay.replays import WhichCode
from remit.replay.report import Replayed, ReplayReport
from remit.storage import schema

T = TypeVar("T")

WORKFLOW = """
async def desk(run, request):
    order = await run.call("orders.read", order=request["order"])
    at = await run.now()
    do = request.get("do", "pay")
    if do == "escalate":
        await run.escalate(request["mail"] + " asks", draft={"order": order})
    if do == "break":
        raise KeyError("x")
    if do == "write":
        await run.call("put.none", value=request["order"])
    if do == "pay":
        amount = {"amount": request.get("amount", "5.00"), "currency": "EUR"}
        await run.call("payments.refund", order=request["order"], amount=amount, account=order["account"])
    return {"at": at, "mail": request.get("mail")}
"""
ACTIONS = [{"tool": "orders.read"}, {"tool": "risk.check"}, REFUND, write_action("put.none")]


def make_desk(folder: Path, database: str, workflow: str = WORKFLOW, **more: Any) -> Shop:
    shop = make_shop(folder, database)
    shop.contract("desk", ACTIONS, workflow=workflow, **more)
    return shop


def with_remit(shop: Shop, use: Callable[[Remit], Coroutine[Any, Any, T]]) -> T:
    async def main() -> T:
        async with Remit(shop.folder) as remit:
            return await use(remit)

    return asyncio.run(main())


def run(shop: Shop, decide: Decision | None = None, **request: Any) -> str:
    """Run the desk for a request, `order` 4 by default; its id."""

    async def use(remit: Remit) -> str:
        result = await remit.run("desk", {"order": 4, **request})
        if decide is not None:
            assert result.case is not None
            await remit.cases.decide(result.case, decide, token=remit.person_token("lee"), reason="I called them")
            await remit.engine.drive(result.run)
        return result.run

    return with_remit(shop, use)


def change_code(shop: Shop, old: str, new: str) -> None:
    path = shop.folder / "contracts" / "desk" / "workflow.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def replay(shop: Shop, level: int = 1, code: WhichCode = "present", **choice: Any) -> ReplayReport:
    async def use(remit: Remit) -> ReplayReport:
        return await remit.replays.replay(Choice(**(choice or {"last": 50})), level, code)

    return with_remit(shop, use)


def the_one(report: ReplayReport) -> Replayed:
    (found,) = report.runs
    return found


def destroy_keys(shop: Shop, *names: str) -> None:
    """What erasing runs and dropping their originals comes to."""

    async def use(remit: Remit) -> None:
        with remit.database.engine.begin() as connection:
            connection.execute(update(schema.run_keys).values(dict.fromkeys(names)))

    with_remit(shop, use)

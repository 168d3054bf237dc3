"""Makes histories of today's code: `python tests/histories/make.py NAME…`, from the root, with `src:tests:tests/runs` on PYTHONPATH.

What was kept once is never made again: the point of a history is that it is old.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crashing import LATER_US, in_a_process

from project import REFUND, Shop, make_shop, write_action
from recordings import keep
from remit import Remit
from remit.cases.cases import Decision

ACTIONS = [{"tool": "orders.read"}, {"tool": "risk.check"}, REFUND]
ASK = """
    amount = {"amount": "60.00", "currency": "EUR"}
    paid = await run.call("payments.refund", order=request["order"], amount=amount, account=order["account"])
"""
READ = """
async def desk(run, request):
    order = await run.call("orders.read", order=request["order"])
"""


async def _ran(shop: Shop, request: dict[str, Any], decide: Decision | None = None) -> str:
    async with Remit(shop.folder) as remit:
        result = await remit.run("desk", request, on_behalf_of="person/anna")
        if decide is not None:
            assert result.case is not None
            token = remit.person_token("lee")
            await remit.cases.decide(result.case, decide, token=token, reason="I called them, and so can kim@shop.example")
            await remit.engine.drive(result.run)
        return result.run


def run(shop: Shop, request: dict[str, Any], decide: Decision | None = None) -> str:
    return asyncio.run(_ran(shop, request, decide))


def completed(shop: Shop) -> str:
    shop.contract("desk", ACTIONS, workflow=READ + """
    at, name, chance = await run.now(), await run.uuid(), await run.random()
    risk = await run.call("risk.check", order=request["order"])
    amount = {"amount": "5.00", "currency": "EUR"}
    paid = await run.call("payments.refund", order=request["order"], amount=amount, account=order["account"])
    return {"at": at, "name": name, "chance": chance, "risk": risk, "paid": paid, "told": request["mail"]}
""")
    return run(shop, {"order": 4, "mail": "ann@shop.example"})


def rejected_then_retried(shop: Shop) -> str:
    shop.contract("desk", ACTIONS, workflow=READ + """
    given, tries = "one", 0
    outcome = await run.propose("risk.check", {"order": given})
    while not outcome.completed and outcome.attempts_left:
        tries += 1
        given = 1
        outcome = await run.propose("risk.check", {"order": given})
    return {"risk": outcome.result, "tries": tries, "left": run.attempts}
""")
    return run(shop, {"order": 4})


def held_then_approved(shop: Shop) -> str:
    shop.contract("desk", ACTIONS, workflow=READ + ASK + "    return {'paid': paid}\n")
    return run(shop, {"order": 4}, Decision.APPROVED)


def denied(shop: Shop) -> str:
    policy = '@id("closed") @reason("the till is closed")\nforbid (principal, action == Action::"payments.refund", resource);\n'
    shop.contract("desk", ACTIONS, policy=policy, workflow=READ + ASK + "    return {'paid': paid}\n")
    return run(shop, {"order": 4})


def denied_by_a_person(shop: Shop) -> str:
    shop.contract("desk", ACTIONS, workflow=READ + ASK + "    return {'paid': paid}\n")
    return run(shop, {"order": 4}, Decision.DENIED)


def escalated(shop: Shop) -> str:
    shop.contract("desk", ACTIONS, workflow=READ + """
    await run.escalate(f"{request['mail']} wants order {request['order']} back", draft={"account": order["account"]})
""")
    return run(shop, {"order": 4, "mail": "ann@shop.example"})


def crashed_and_resumed(shop: Shop) -> str:
    puts = [write_action(f"put.{put}") for put in ("keyed", "safe_found")]
    shop.contract("desk", [*ACTIONS, *puts], workflow=READ + """
    async def checked(number):
        at = await run.now()
        return at, await run.call("risk.check", order=number)
    both = await run.gather(checked(1), run.call("put.keyed", value=7), checked(2))
    last = await run.call("put.safe_found", value=8)
    return {"both": [list(each) if isinstance(each, tuple) else each for each in both], "last": last}
""")
    request = {"history": {"order": 4}}
    assert in_a_process(shop.folder, "desk", request, crash=("after_effect", 3)) == -signal.SIGKILL
    assert in_a_process(shop.folder, "desk", request, crash=("before_outcome", 2), later_us=LATER_US) == -signal.SIGKILL
    assert in_a_process(shop.folder, "desk", request, later_us=3 * LATER_US) == 0
    remit = Remit(shop.folder)
    found = remit.engine.run_of("desk", "history")
    remit.database.close()
    assert found is not None
    return found


def unknown_reconciled(shop: Shop) -> str:
    odd = [write_action("odd.found"), write_action("odd.write")]
    shop.contract("desk", [*ACTIONS, *odd], workflow=READ + """
    found = await run.call("odd.found", how="done-unseen")
    lost = await run.propose("odd.write", {"how": "done-unseen"})
    return {"found": found, "lost": lost.code, "case": bool(lost.case)}
""")
    return run(shop, {"order": 4})


def diverging(shop: Shop) -> str:
    made = completed(shop)
    workflow = shop.folder / "contracts" / "desk" / "workflow.py"
    workflow.write_text(workflow.read_text().replace('"amount": "5.00"', '"amount": "7.50"'))
    return made


MADE: dict[str, tuple[Callable[[Shop], str], str, str]] = {
    "completed": (completed, "completed", "reads, a time, an id, chance, and a refund; one value is redacted"),
    "rejected-then-retried": (rejected_then_retried, "completed", "a malformed call, corrected"),
    "held-then-approved": (held_then_approved, "completed", "a refund that a person approved"),
    "denied": (denied, "denied", "a rule of the policy says no"),
    "denied-by-a-person": (denied_by_a_person, "denied", "a refund that a person refused"),
    "escalated": (escalated, "escalated", "handed over, with an address in the reason"),
    "crashed-and-resumed": (crashed_and_resumed, "completed", "killed twice in and behind a gather, and gone on with"),
    "unknown-reconciled": (unknown_reconciled, "completed", "one doubt settled by reading back, one left to a person"),
    "diverging": (diverging, "completed", "deliberately: its project pays 7.50 where the run paid 5.00"),
}


def main() -> None:
    for name in sys.argv[1:] or MADE:
        make, outcome, why = MADE[name]
        with tempfile.TemporaryDirectory() as folder:
            shop = make_shop(Path(folder) / "shop", "sqlite:")
            made = make(shop)
            expected = {"made_with": version("remit"), "why": why, "run": made, "outcome": outcome}
            keep(shop.folder, made, name, {**expected, "result": "diverged" if name == "diverging" else "identical"})


if __name__ == "__main__":
    main()

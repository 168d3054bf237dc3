"""A shop whose record people manage: `record.cedar`, contracts of which something is redacted, and its people."""

from __future__ import annotations

from pathlib import Path

import pytest

from project import REFUND, Shop, make_shop, write_action

WORKFLOW = """
async def NAME(run, request):
    await run.call("orders.read", order=request.get("order", 1))
    if request["do"] == "escalate":
        await run.escalate(request["text"], draft={"note": request["text"]})
    if request["do"] == "ask":
        amount = {"amount": "60.00", "currency": "EUR"}
        await run.call("payments.refund", order=4, amount=amount, account=request["text"])
    return {"said": request["text"]}
"""


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    """`act` does what its request says, and so does `short`, which keeps originals for a day and all else for ten."""
    shop = make_shop(tmp_path / "shop", database_url)
    actions = [REFUND, {"tool": "orders.read"}, write_action("put.none")]
    shop.contract("act", actions, workflow=WORKFLOW.replace("NAME", "act"))
    short = WORKFLOW.replace("NAME", "short")
    shop.contract("short", actions, workflow=short, retention="1d", erase_after="10d")
    return shop

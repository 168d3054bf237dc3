"""A shop whose agents write what they like, and the command line on it, in process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from typer.testing import CliRunner

from project import REFUND, Shop, make_shop, write_action
from remit import Remit
from remit.cli.main import app

T = TypeVar("T")

# A rich tag that hides what follows, one that crashes, an end of nothing, a command to the terminal that writes to the
# clipboard, the same with one C1 character, a line of its own, an override of direction, and what takes no room.
MARKUP = "DE09[b]33 [conceal]hidden[/] [/nope] [/] :warning:"
CONTROLS = "a\x1b]52;c;aGk=\x07b\x1b[8mc\x9b8md\ralone\ttab\x00nul\x7fdel"
LINES = "first\n    9  payments.refund  amount=1\n         allow  grant:payments.refund\u2028next"
BIDI = "account \u202exfed\u202c \u2066isolate\u2069 zero\u200bwidth \ufeffmark \U000e0041tag \ue000own \xadsoft v\ufe00"
HOSTILE = "\n".join((MARKUP, CONTROLS, LINES, BIDI))

WORKFLOW = """
async def act(run, request):
    text = request["text"]
    if request["do"] == "escalate":
        await run.escalate(text, draft={"note": text, text: text})
    if request["do"] == "propose":
        for tool in (text, "orders.read"):
            await run.propose(tool, {"order": 1, text: text})
        await run.propose("put.none", [text])
    if request["do"] == "break":
        raise RuntimeError(text)
    if request["do"] == "ask":
        amount = {"amount": "60.00", "currency": "EUR"}
        await run.call("payments.refund", order=request.get("order", 4), amount=amount, account=text)
    return {"said": text}
"""


def make_hostile_shop(folder: Path, database: str) -> Shop:
    """A shop with the contract `acts`, whose workflow does what its request says with the text that it brings."""
    shop = make_shop(folder, database)
    actions = [REFUND, {"tool": "orders.read"}, write_action("put.none")]
    shop.contract("acts", actions, workflow=WORKFLOW)
    shop.contract("away", actions)
    return shop


def remit(shop: Shop, *arguments: str, columns: int | None = None, code: int = 0) -> str:
    """What a command prints, to a terminal of so many columns or to a pipe; `code`: how it has to exit."""
    terminal = {"FORCE_COLOR": None, "COLUMNS": None}
    shown = {"FORCE_COLOR": "1", "COLUMNS": str(columns), "TERM": "xterm-256color"}
    environment: dict[str, str | None] = {**terminal, **(shown if columns else {}), "REMIT_PROJECT": str(shop.folder)}
    ended = CliRunner().invoke(app, [*arguments], env=environment)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == code, ended.output
    return ended.output


def remit_json(shop: Shop, *arguments: str) -> Any:
    return json.loads(remit(shop, *arguments, "--json"))


def start(shop: Shop, do: str, text: str, **more: Any) -> dict[str, Any]:
    """Run `acts` and return how it stands."""

    async def use(opened: Remit) -> dict[str, Any]:
        result = await opened.run("acts", {"do": do, "text": text, **more})
        return {"run": result.run, "case": result.case, "outcome": result.outcome}

    return with_remit(shop, use)


def with_remit(shop: Shop, use: Callable[[Remit], Coroutine[Any, Any, T]], **options: Any) -> T:
    async def main() -> T:
        async with Remit(shop.folder, **options) as opened:
            return await use(opened)

    return asyncio.run(main())

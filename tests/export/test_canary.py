"""Secrets that are planted in everything a run takes in are in nothing that leaves the building, in no spelling."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from stories import attributes, make_story_shop, receiving

from cli.commands import remit as command
from project import REFUND, SECRET
from remit import Remit
from remit.cases.cases import Decision
from remit.journal.leaves import LeafReader

pytestmark = pytest.mark.anyio

CANARIES = {
    "mail": "canary.bird@planted.example",
    "key": "sk-live-4eC39HqLyjWDarjtT1zdp7dcCANARY42",
    "card": "4242424242424242",
    "iban": "DE89370400440532013000",
    "token": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
}

WORKFLOW = """
async def act(run, request):
    planted = request["planted"]
    await run.propose("orders.read", {"order": 1, "more": planted})
    await run.propose(planted, {})
    await run.propose("payments.refund", {"order": 4, "amount": {"amount": "1.00", "currency": "EUR"}, "account": planted})
    await run.propose("odd.read", {"how": "tell-secret"})
    await run.propose("odd.read", {"how": "use-secret"})
    await run.propose("echo.back", {"text": planted})
    if request["end"] == "break":
        raise RuntimeError(planted)
    if request["end"] == "escalate":
        await run.escalate(planted, draft={planted: planted})
    return {"said": planted, planted: [planted]}
"""
ECHO = '''

@tool("echo.back", effects={Effect.READ})
async def echo(text: str) -> list[str]:
    """Say it back."""
    return [text, "seen: " + text]
'''


def spellings(secret: str) -> set[bytes]:
    """A secret as it could stand in some output."""
    plain = secret.encode()
    based = {base64.b64encode(b"\0" * shift + plain)[4 if shift else 0 : -4] for shift in range(3)}
    escaped = {json.dumps(secret)[1:-1].encode(), quote(secret, safe="").encode(), plain.hex().encode(), plain.hex().upper().encode()}
    return {plain} | escaped | {one for one in based if len(one) > 8}


async def test_no_planted_secret_is_in_any_export(tmp_path: Path, database_url: str) -> None:
    shop = make_story_shop(tmp_path / "shop", database_url)
    with (shop.folder / "tools" / "shop.py").open("a") as file:
        file.write(ECHO)
    granted = [{"tool": name, "limits": {"per_run": 9}} for name in ("orders.read", "odd.read", "echo.back")]
    shop.contract("canary", [*granted, REFUND], workflow=WORKFLOW, untrusted_input=["planted"])
    planted = " / ".join(CANARIES.values())
    with receiving() as receiver:
        async with Remit(shop.folder) as remit:
            for end in ("return", "escalate", "break"):
                await remit.run("canary", {"planted": planted, "end": end}, on_behalf_of="person/anna")
            for case in remit.cases.list("shop"):
                await remit.cases.decide(case.case, Decision.RESOLVED, token=remit.person_token("lee"), reason=planted)
        out: dict[str, bytes] = {}
        for form in ("jsonl", "ocsf", "record"):
            file = tmp_path / f"{form}.out"
            await asyncio.to_thread(command, shop, "export", "--format", form, "--out", str(file))
            out[form] = file.read_bytes()
        await asyncio.to_thread(command, shop, "export", "--format", "otlp", "--to", receiver.url)
    out["metrics"] = (await asyncio.to_thread(command, shop, "metrics")).encode()
    out["otlp"] = b"".join(request.SerializeToString() for request in receiver.requests)
    told = [attributes(event.attributes) for span in receiver.spans() for event in span.events]
    out["otlp bodies"] = json.dumps(told, ensure_ascii=False).encode()
    assert all(len(text) > 1_000 for text in out.values())
    for name, secret in {**CANARIES, "credential": SECRET}.items():
        for form, text in out.items():
            assert [spelled for spelled in spellings(secret) if spelled in text] == [], (name, form)
    assert b"<email:" in out["jsonl"]
    assert b"<email:" in out["otlp"]


def test_the_reader_of_leaves_never_asks_for_originals() -> None:
    import inspect

    from remit.journal import leaves

    source = inspect.getsource(leaves)
    assert "_EVENT.sealed" not in source
    assert "sealed_key" not in source
    assert LeafReader.__doc__ is not None

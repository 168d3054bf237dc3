"""A release covers all that shapes behaviour: what runs is the text that its digest names."""

from __future__ import annotations

import asyncio
import importlib._bootstrap_external as compiled  # type: ignore[import-not-found]
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, cast

import pytest

from project import Shop, make_shop, write_action
from remit import Remit

WORKFLOW = "async def desk(run, request):\n    return {'code': 'approved'}\n"


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    made.contract("desk", [write_action("put.none")], workflow=WORKFLOW)
    return made


def release(shop: Shop) -> str:
    async def read() -> str:
        async with Remit(shop.folder) as remit:
            return remit.program("desk").authority.release

    return asyncio.run(read())


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("tools/shop.py", "effect(name, ctx.idempotency_key, value)", "effect(name, ctx.idempotency_key, -value)"),
        ("remit.toml", "[queues.care]", "[limits]\nwrites_per_hour = 9\n[queues.care]"),
        ("remit.toml", "[queues.care]", '[queues.night]\nroles = ["care-lead"]\n[queues.care]'),
        ("contracts/desk/workflow.py", "approved", "changed"),
        ("contracts/desk/policy.cedar", "", "// changed\n"),
    ],
)
def test_whatever_shapes_behaviour_makes_another_release(shop: Shop, file: str, old: str, new: str) -> None:
    before = release(shop)
    if old:
        change(shop.folder / file, old, new)
    else:
        (shop.folder / file).write_text(new)
    assert release(shop) != before


def test_a_tool_that_can_be_read_back_is_another_tool(shop: Shop) -> None:
    before = release(shop)
    change(shop.folder / "tools" / "shop.py", '"none", Idempotency.NONE)', '"none", Idempotency.NONE, find)')
    assert release(shop) != before


def test_who_holds_a_role_is_no_part_of_a_release(shop: Shop) -> None:
    before = release(shop)
    change(shop.folder / "remit.toml", 'name = "Anna"', 'name = "Anna"\nroles = ["care-lead"]')
    assert release(shop) == before


def test_a_compiled_file_beside_the_workflow_is_not_run(shop: Shop) -> None:
    path = shop.folder / "contracts" / "desk" / "workflow.py"
    other = compile(WORKFLOW.replace("approved", "OTHER"), str(path), "exec")
    beside = Path(cache_from_source(str(path)))
    beside.parent.mkdir(exist_ok=True)
    # One that Python trusts without looking at the text: PEP 552, an unchecked hash.
    data = cast("Any", compiled)._code_to_hash_pyc(other, b"\0" * 8, checked=False)
    beside.write_bytes(data)

    async def run() -> Any:
        async with Remit(shop.folder) as remit:
            return (await remit.run("desk", {})).output

    assert asyncio.run(run()) == {"code": "approved"}
    assert beside.read_bytes() == data

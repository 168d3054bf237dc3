"""The text behind a tool is bound as it was compiled."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from remit.tools.registry import load_tools
from remit.tools.source import code_of, source_digest

FILE = """
from remit.tools.decorator import tool
from remit.tools.spec import Compensation, Effect, Resource, Tool

async def where(ctx, args):
    return Resource(kind="Order", id="1", tenant="shop")

@tool(
    "orders.pay",
    effects={Effect.WRITE},
    resource_kind="Order",
    locate=where,
    compensation=Compensation(tool="orders.pay", arguments=lambda args, result, before: args),
)
async def pay(order: int) -> int:
    \"\"\"Pay.\"\"\"
    return order

async def by_hand(ctx, args):
    return None

hand_made = Tool(spec=pay.spec.__class__(**{
    "name": "orders.drop",
    "description": "Drop.",
    "input_schema": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
    "output_schema": {"type": "null"},
    "effects": frozenset({Effect.WRITE}),
}), function=by_hand)
"""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_tool_of_a_project_is_bound_to_the_text_that_was_compiled(tmp_path: Path) -> None:
    path = tmp_path / "tools.py"
    path.write_text(FILE)
    before = load_tools(["tools.py"], tmp_path)
    path.write_text(FILE.replace("return order", "return -order"))
    after = load_tools(["tools.py"], tmp_path)
    for name in ("orders.pay", "orders.drop"):
        assert source_digest(before[name]) == digest(FILE)
        assert source_digest(after[name]) == digest(path.read_text())


def test_an_installed_tool_is_bound_to_the_text_of_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_tools_bound.py").write_text(FILE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    tools = load_tools(["shop_tools_bound"], tmp_path)
    assert source_digest(tools["orders.pay"]) == digest(FILE)
    assert source_digest(sys.modules["shop_tools_bound"]) == digest(FILE)


def test_which_functions_a_tool_has_is_told_without_reaching_them(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(FILE)
    tools = load_tools(["tools.py"], tmp_path)
    source = digest(FILE)
    found = {"source": source, "locate": True, "reconcile": False, "compensation": "orders.pay"}
    assert code_of(tools["orders.pay"]) == found
    none = {"source": source, "locate": False, "reconcile": False, "compensation": None}
    assert code_of(tools["orders.drop"]) == none


def test_what_has_no_text_has_no_digest() -> None:
    assert source_digest(sys) == ""

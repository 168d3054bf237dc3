"""`remit memory …`, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from library import AGENT, desk, make_library
from typer.testing import CliRunner

from project import Shop
from remit.cli.main import app

WORKFLOW = """
async def desk(run, request):
    return {"found": await run.retrieve(request["query"])}
"""


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_library(tmp_path / "shop", database_url)
    desk(made, WORKFLOW)
    return made


def typed(shop: Shop, *words: str, exits: int = 0) -> str:
    ended = CliRunner().invoke(app, [*words, "--project", str(shop.folder)])
    assert ended.exit_code == exits, (words, ended.output)
    return ended.output


def test_a_document_is_added_found_read_by_a_run_recalled_and_forgotten(shop: Shop, tmp_path: Path) -> None:
    text = tmp_path / "policy.md"
    text.write_text("Refunds are paid within ten days.")
    readers = ["--reader", AGENT, "--reader", "person/anna"]
    added = json.loads(typed(shop, "memory", "add", "policy", str(text), "--as", "lee", "--trusted", *readers, "--json"))
    assert (added["version"], added["label"], added["chunks"]) == (1, "trusted", 1)
    assert "Refunds are paid" in typed(shop, "memory", "search", "refunds", "--as", "anna", "--contract", "desk")
    assert json.loads(typed(shop, "memory", "search", "refunds", "--as", "kim", "--contract", "desk", "--json")) == []
    ran = json.loads(typed(shop, "run", "desk", '{"query": "refunds"}', "--on-behalf-of", "anna", "--json"))
    assert "1 passage: policy@1 #1" in typed(shop, "show", ran["run"])
    assert "Refunds are paid" in typed(shop, "memory", "show", "policy", "--as", "anna")
    assert "Refunds are paid" not in typed(shop, "memory", "show", "policy", "--as", "kim")
    recalled = typed(shop, "memory", "recall", "policy", "--as", "lee", "--reason", "wrong")
    assert f"remit show {ran['run']}" in recalled
    [listed] = json.loads(typed(shop, "memory", "list", "--json"))
    assert (listed["document"], listed["current"]) == ("policy", None)
    assert "policy is forgotten" in typed(shop, "memory", "forget", "policy", "--as", "lee", "--reason", "asked")
    assert "0 versions embedded anew" in typed(shop, "memory", "reindex")


def test_errors_name_what_they_are_about(shop: Shop, tmp_path: Path) -> None:
    text = tmp_path / "policy.md"
    text.write_text("Refunds are paid within ten days.")
    assert "`role:care-lead`" in typed(shop, "memory", "add", "policy", str(text), "--as", "anna", exits=1)
    assert "no document `nothing`" in typed(shop, "memory", "recall", "nothing", "--as", "lee", exits=1)
    assert "`ROLE` is nobody" in typed(shop, "memory", "add", "policy", str(text), "--as", "lee", "--reader", "ROLE", exits=1)
    toml = shop.folder / "remit.toml"
    toml.write_text(toml.read_text().replace('[memory]\nkeepers = ["care-lead"]\n', ""))
    assert "has no memory" in typed(shop, "memory", "list", exits=1)

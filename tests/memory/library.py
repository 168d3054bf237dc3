"""A shop with a memory: documents with readers, and an agent that retrieves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from project import Shop, make_shop, write_action
from remit import Remit
from remit.memory.keeping import Addition

AGENT = "agent/shop/desk"
SEARCH: dict[str, Any] = {"tool": "memory.search"}
MEMORY = '[memory]\nkeepers = ["care-lead"]\n'


def make_library(folder: Path, database: str, *, memory: str = MEMORY) -> Shop:
    """The shop with a memory, without a contract."""
    shop = make_shop(folder, database)
    toml = shop.folder / "remit.toml"
    toml.write_text(f"{toml.read_text()}\n{memory}")
    return shop


def desk(shop: Shop, workflow: str, *actions: dict[str, Any], **more: Any) -> None:
    """The contract `desk`, which may search, remember and take back."""
    granted = [SEARCH, write_action("memory.write"), write_action("memory.recall"), *actions]
    shop.contract("desk", granted, workflow=workflow, **more)


async def put(remit: Remit, document: str, text: str, *readers: str, by: str = "lee", **more: Any) -> int:
    """A version of a document, as a keeper adds it; its number."""
    addition = Addition(document=document, text=text, readers=readers or (AGENT, "person/anna"), **more)
    return (await remit.keeping.add(addition, token=remit.person_token(by))).version

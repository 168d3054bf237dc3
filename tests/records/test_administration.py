"""Who may act, and what may run, changes only together with the register."""

from __future__ import annotations

import re
from typing import Any

import pytest
from commands import remit, with_remit

from project import Shop
from remit import Remit
from remit.errors import IdentityError
from remit.journal.events import Event, EventType

pytestmark = pytest.mark.anyio

AGENT = "agent/shop/act"


def register(shop: Shop) -> list[Event]:
    async def use(opened: Remit) -> list[Event]:
        return opened.register.events()

    return with_remit(shop, use)


def said(events: list[Event]) -> list[Any]:
    return [event.body for event in events if event.type is EventType.PRINCIPAL_CHANGED]


def test_disabling_and_enabling_a_principal_is_on_the_register(shop: Shop) -> None:
    remit(shop, "principal", "disable", AGENT)
    remit(shop, "principal", "enable", AGENT, "--as", "lee", "--reason", "ann@shop.example mended it")
    events = register(shop)
    first, second = said(events)
    assert first == {"principal": AGENT, "enabled": False, "by": "system", "reason": ""}
    assert (second["principal"], second["enabled"], second["by"]) == (AGENT, True, "person/lee")
    assert second["reason"].endswith("mended it")
    assert "ann@" not in second["reason"]
    assert events[0].header.actor == "system"
    assert re.fullmatch(r"<person:[a-p]{12}>", events[1].header.actor)


def test_nobody_unknown_is_changed_or_changes_anybody(shop: Shop) -> None:
    assert "principal_unknown" in remit(shop, "principal", "disable", "agent/shop/nothing", code=1)
    assert "principal_unknown" in remit(shop, "principal", "disable", AGENT, "--as", "sam", code=1)
    remit(shop, "principal", "disable", "person/lee")
    assert "principal_disabled" in remit(shop, "principal", "disable", AGENT, "--as", "lee", code=1)
    assert [body["principal"] for body in said(register(shop))] == ["person/lee"]


async def test_a_row_that_is_gone_meanwhile_is_no_event(shop: Shop) -> None:
    async with Remit(shop.folder) as opened:
        statement = opened.principals.disabling("person/lee", opened.clock())
        with opened.database.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM principals")
        assert statement.changes == 1
        with pytest.raises(IdentityError):
            await opened.administration.disable("person/nobody")
        assert opened.register.events() == []


def test_the_approval_of_a_release_is_on_the_register_once(shop: Shop) -> None:
    toml = shop.folder / "remit.toml"
    toml.write_text(toml.read_text() + '\n[releases]\napproval = "role:care-lead"\n')
    shop.contract("signed", [{"tool": "orders.read"}], author="person/anna")
    remit(shop, "release", "approve", "signed", "--as", "lee")
    remit(shop, "release", "approve", "signed", "--as", "kim")
    [event] = [event for event in register(shop) if event.type is EventType.RELEASE_APPROVED]
    assert {name: event.body[name] for name in ("contract", "author", "by")} == {
        "contract": "signed",
        "author": "person/anna",
        "by": "person/lee",
    }
    assert event.header.refs == {"release": event.body["release"]}
    assert "approved by person/lee" in remit(shop, "release", "show", "signed")

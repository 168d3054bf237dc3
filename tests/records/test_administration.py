"""Who may act, and what may run, changes only together with the register."""

from __future__ import annotations

import re
from typing import Any

import pytest
from commands import remit, with_remit

from project import Shop
from remit import Remit
from remit.errors import IdentityError, StorageError
from remit.journal.events import Event, EventType
from remit.journal.journal import system_clock
from remit_verify import verify

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


def kids(shop: Shop) -> list[str]:
    async def use(opened: Remit) -> list[str]:
        return [str(key["kid"]) for key in opened.keys.public_jwks(opened.clock())["keys"]]

    return with_remit(shop, use)


def test_a_key_is_revoked_on_record_and_lets_nobody_in_any_more(shop: Shop) -> None:
    [first] = kids(shop)

    async def token(opened: Remit) -> str:
        return opened.person_token("lee")

    stolen = with_remit(shop, token)
    shown = remit(shop, "keys", "revoke", first[:10], "--as", "lee", "--reason", "ann@shop.example lost a laptop")
    [second] = kids(shop)
    assert first != second
    assert f"key {first} is revoked; signing with key {second}" in shown
    event = register(shop)[-1]
    assert (event.type, event.header.refs) == (EventType.KEY_REVOKED, {"key": first})
    assert (event.body["key"], event.body["by"]) == (first, "person/lee")
    assert event.body["reason"].endswith("lost a laptop")
    assert "ann@" not in str(event)

    async def use(opened: Remit) -> None:
        with pytest.raises(IdentityError) as refused:
            await opened.administration.disable(AGENT, token=stolen)
        assert refused.value.code == "token_unknown_key"

    with_remit(shop, use)


def test_a_key_that_is_not_there_or_not_meant_alone_is_not_revoked(shop: Shop) -> None:
    remit(shop, "keys", "rotate")
    before = kids(shop)
    assert len(before) == 2
    for named in ("nothing", ""):
        said = remit(shop, "keys", "revoke", named, "--reason", "x", code=1)
        assert "token_unknown_key" in said
        assert before[0] in said.replace("\n", "")
    remit(shop, "keys", "revoke", before[0], code=2)
    assert (kids(shop), register(shop)) == (before, [])


async def test_a_revocation_that_can_not_be_recorded_is_none(shop: Shop) -> None:
    async with Remit(shop.folder) as opened:
        with opened.database.engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN NEW.type = 'key.revoked'"
                " BEGIN SELECT RAISE(ABORT, 'no'); END"
                if opened.database.is_sqlite
                else "ALTER TABLE events ADD CONSTRAINT refuse CHECK (type <> 'key.revoked')"
            )
        key = opened.keys.active_kid
        with pytest.raises(StorageError):
            await opened.administration.revoke(key, reason="lost")
        assert opened.keys.active_kid == key


async def test_each_call_names_the_key_that_let_it_in_and_one_that_was_let_in_by_a_revoked_key_is_found(shop: Shop) -> None:
    later = [0]
    async with Remit(shop.folder, clock=lambda: system_clock() + later[0]) as opened:
        first = opened.keys.active_kid
        ring = (shop.folder / ".remit" / "keys" / "signing.json").read_bytes()
        run = (await opened.run("act", {"do": "say", "text": "hello"})).run
        decided = [event for event in opened.journal.reader.events(run) if event.type is EventType.CALL_DECIDED]
        assert {event.header.refs["key"] for event in decided} == {first}
        await opened.administration.revoke(first, reason="lost")
        await opened.run("act", {"do": "say", "text": "hello"})
    assert verify(shop.folder).findings == ()
    # As if somebody had put the old ring back.
    (shop.folder / ".remit" / "keys" / "signing.json").write_bytes(ring)
    later[0] = 120_000_000
    async with Remit(shop.folder, clock=lambda: system_clock() + later[0]) as opened:
        run = (await opened.run("act", {"do": "say", "text": "hello"})).run
    assert [(each.code, each.run) for each in verify(shop.folder).findings] == [("key_revoked", run)]

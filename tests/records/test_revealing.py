"""Originals are shown under policy, with a reason, and only once that is on record."""

from __future__ import annotations

import pytest
from commands import remit, remit_json, with_remit

from project import Shop
from remit import Remit
from remit.errors import CaseError, RecordError, StorageError
from remit.identity.tokens import TokenRequest
from remit.journal.events import EventType

pytestmark = pytest.mark.anyio

IBAN = "DE89370400440532013000"
MAIL = "ann.lee@shop.example"
WHY = "the customer asks"


def start(shop: Shop, do: str = "say", text: str = MAIL, behalf: str | None = None) -> str:
    async def use(opened: Remit) -> str:
        return (await opened.run("act", {"do": do, "text": text}, on_behalf_of=behalf)).run

    return with_remit(shop, use)


def revealed(shop: Shop) -> list[dict[str, object]]:
    """What the register holds of reveals, header and all, as text."""

    async def use(opened: Remit) -> list[dict[str, object]]:
        events = opened.register.events()
        return [
            {"body": event.body, "header": str(event.header), "sealed": event.sealed}
            for event in events
            if event.type is EventType.VALUE_REVEALED
        ]

    return with_remit(shop, use)


def test_originals_are_shown_to_whom_policy_lets_and_that_is_on_the_register_without_them(shop: Shop) -> None:
    run = start(shop, "ask", IBAN)
    assert IBAN not in remit(shop, "show", run)
    text = remit(shop, "reveal", run, "--as", "lee", "--reason", f"{WHY}: {MAIL}")
    # The request, and the arguments of the call.
    assert text.count(IBAN) == 2
    assert "these are the originals; that person/lee was shown them is on record" in text
    [event] = revealed(shop)
    assert event["body"] == {
        "by": "person/lee",
        "reason": with_remit(shop, lambda opened: _redacted(opened, f"{WHY}: {MAIL}")),
        "run": run,
        "steps": ["0", "2"],
        "events": [1, 4],
        "classes": ["iban"],
    }
    assert event["sealed"] is None
    assert not any(secret in str(event) for secret in (IBAN, MAIL))
    assert "person/lee" not in str(event["header"])
    assert "person/lee saw" not in remit(shop, "show", run)


async def _redacted(opened: Remit, text: str) -> str:
    return opened.redactor.text(text)


def test_one_step_is_shown_alone(shop: Shop) -> None:
    run = start(shop, "ask", IBAN)
    only = remit_json(shop, "reveal", run, "--step", "2", "--as", "lee", "--reason", WHY)
    assert [found["step"] for found in only["found"]] == ["2"]
    assert only["found"][0]["content"]["args"]["account"] == IBAN
    request = remit_json(shop, "reveal", run, "--step", "0", "--as", "lee", "--reason", WHY)
    assert [found["content"]["request"]["text"] for found in request["found"]] == [IBAN]
    assert "there are 0 (the request), 1, 2" in remit(
        shop, "reveal", run, "--step", "9", "--as", "lee", "--reason", WHY, code=1
    )


@pytest.mark.parametrize(
    ("who", "reason", "why"),
    [
        ("lee", "", "say why, with `--reason` (`say-why`)"),
        ("sam", WHY, "is not declared under `[people]`"),
        ("anna", WHY, "no rule of `record.cedar` permits it"),
    ],
)
def test_who_may_not_sees_nothing_and_nothing_is_recorded(shop: Shop, who: str, reason: str, why: str) -> None:
    run = start(shop)
    said = remit(shop, "reveal", run, "--as", who, "--reason", reason, code=1)
    assert why in said
    assert MAIL not in said
    assert revealed(shop) == []


def test_nobody_sees_what_was_done_for_themselves(shop: Shop) -> None:
    run = start(shop, behalf="person/lee")
    said = remit(shop, "reveal", run, "--as", "lee", "--reason", WHY, code=1)
    assert "the run acts for this person, so somebody else must do it" in said
    assert MAIL in remit(shop, "reveal", run, "--as", "kim", "--reason", WHY)


def test_for_whom_a_run_acts_is_known_although_their_id_is_an_address(shop: Shop) -> None:
    toml = shop.folder / "remit.toml"
    toml.write_text(toml.read_text() + f'\n[people."{MAIL}"]\nname = "Ann"\nroles = ["care-lead"]\n')
    run = start(shop, behalf=f"person/{MAIL}")
    for _ in range(2):
        assert "not-for-oneself" in remit(shop, "reveal", run, "--as", MAIL, "--reason", WHY, code=1)
        # Nor once the original of the address is gone.
        with_remit(shop, lambda opened: _drop(opened, run))


async def _drop(opened: Remit, run: str) -> None:
    from remit.storage import rows

    await opened.journal.write([*([rows.drop_originals(run)] if opened.archive.run(run).has_originals else [])])


def test_classes_decide(shop: Shop) -> None:
    rules = shop.folder / "record.cedar"
    rules.write_text(
        rules.read_text() + '@id("no-ibans") @reason("not ibans") forbid (principal, action, resource)'
        ' when { context.classes.contains("iban") };'
    )
    assert "not ibans (`no-ibans`)" in remit(shop, "reveal", start(shop, "say", IBAN), "--as", "lee", "--reason", WHY, code=1)
    assert MAIL in remit(shop, "reveal", start(shop, "say", MAIL), "--as", "lee", "--reason", WHY)


def test_where_nothing_is_redacted_nothing_is_recorded(shop: Shop) -> None:
    run = start(shop, text="the printer")
    assert "nothing was redacted here" in remit(shop, "reveal", run, "--as", "lee", "--reason", WHY)
    assert revealed(shop) == []


def test_that_originals_were_dropped_is_said(shop: Shop) -> None:
    run = start(shop)
    with_remit(shop, lambda opened: _drop(opened, run))
    said = remit(shop, "reveal", run, "--as", "lee", "--reason", WHY)
    assert "the originals of 2 of its events are gone: dropped after their retention" in said
    assert remit_json(shop, "reveal", run, "--as", "lee", "--reason", WHY)["dropped"] == 2
    assert revealed(shop) == []


async def test_a_token_without_the_scope_and_a_disabled_person_see_nothing(shop: Shop) -> None:
    run = await _started(shop)
    async with Remit(shop.folder) as opened:
        request = TokenRequest(principal="person/lee", tenant="shop", region="eu", scopes=("cases:decide",))
        with pytest.raises(CaseError, match="does not hold `record:manage`"):
            await opened.reveals.reveal(run, token=opened.issuer.issue(request, opened.clock()), reason=WHY)
        await opened.administration.disable("person/lee")
        with pytest.raises(RecordError, match="is disabled"):
            await opened.reveals.reveal(run, token=opened.person_token("lee"), reason=WHY)


async def test_what_can_not_be_recorded_is_not_shown(shop: Shop) -> None:
    run = await _started(shop)
    async with Remit(shop.folder) as opened:
        with opened.database.engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN NEW.type = 'value.revealed'"
                " BEGIN SELECT RAISE(ABORT, 'no'); END"
                if opened.database.is_sqlite
                else "ALTER TABLE events ADD CONSTRAINT refuse CHECK (type <> 'value.revealed')"
            )
        with pytest.raises(StorageError):
            await opened.reveals.reveal(run, token=opened.person_token("lee"), reason=WHY)


async def _started(shop: Shop) -> str:
    async with Remit(shop.folder) as opened:
        return (await opened.run("act", {"do": "say", "text": MAIL})).run

"""What somebody may not do to the record is on the register as well: who, what, and why not."""

from __future__ import annotations

from typing import Any

import pytest
from commands import remit, with_remit

from project import Shop
from remit import Remit
from remit.errors import RecordError
from remit.journal.events import EventType

pytestmark = pytest.mark.anyio

MAIL = "ann.lee@shop.example"
WHY = "the customer asks"


def start(shop: Shop, text: str = MAIL) -> str:
    async def use(opened: Remit) -> str:
        return (await opened.run("act", {"do": "say", "text": text})).run

    return with_remit(shop, use)


def denied(shop: Shop) -> list[tuple[Any, ...]]:
    """Who was denied what, of which run, and why."""

    async def use(opened: Remit) -> list[tuple[Any, ...]]:
        events = [event for event in opened.register.events() if event.type is EventType.DEED_DENIED]
        assert all(event.sealed is None and "person/" not in event.header.actor for event in events)
        told = ("by", "deed", "run", "why")
        return [(*(event.body[name] for name in told), event.header.refs.get("run")) for event in events]

    return with_remit(shop, use)


NO_RULE = "no rule of `record.cedar` permits it"


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("reveal", ("reveal", "RUN")),
        ("erase", ("erase", "--run", "RUN", "--yes")),
        ("hold", ("hold", "place", "--run", "RUN")),
        ("export", ("export", "--run", "RUN")),
        ("undo", ("undo", "RUN")),
        ("undo", ("undo", "RUN", "--plan")),
    ],
)
def test_whatever_is_denied_is_on_the_register_each_time(shop: Shop, deed: str, words: tuple[str, ...]) -> None:
    run = start(shop)
    typed = [run if word == "RUN" else word for word in words]
    reason = [] if deed == "export" else ["--reason", WHY]
    for _ in range(2):
        remit(shop, *typed, "--as", "anna", *reason, code=3 if deed == "erase" else 1)
    why = f"`person/anna` may not {deed} `{run}`: {NO_RULE}"
    assert denied(shop) == [("person/anna", deed, run, why, run)] * 2


def test_what_a_rule_forbids_is_told_with_the_rule_and_the_classes(shop: Shop) -> None:
    run = start(shop)
    assert MAIL not in remit(shop, "reveal", run, "--as", "lee", code=1)

    async def use(opened: Remit) -> Any:
        return opened.register.events()[-1].body

    assert with_remit(shop, use) == {
        "by": "person/lee",
        "reason": "",
        "deed": "reveal",
        "run": run,
        "why": f"`person/lee` may not reveal `{run}`: say why, with `--reason` (`say-why`)",
        "classes": ["email"],
    }


def test_a_reason_says_nothing_on_the_register_that_the_run_conceals(shop: Shop) -> None:
    run = start(shop)
    remit(shop, "reveal", run, "--as", "anna", "--reason", f"it is {MAIL}", code=1)

    async def use(opened: Remit) -> str:
        return str(opened.register.events())

    assert MAIL not in with_remit(shop, use)


def test_what_concerns_all_runs_of_a_contract_is_about_no_single_one(shop: Shop) -> None:
    start(shop)
    remit(shop, "hold", "place", "--contract", "act", "--as", "anna", "--reason", WHY, code=1)
    remit(shop, "export", "--as", "anna", code=1)
    assert [(deed, run, ref) for _, deed, run, _, ref in denied(shop)] == [
        ("hold", "any run of act", None),
        ("export", "any run of act", None),
    ]


def test_lifting_a_hold_is_denied_on_record_and_the_hold_stands(shop: Shop) -> None:
    run = start(shop)
    remit(shop, "hold", "place", "--run", run, "--as", "lee", "--reason", WHY)

    async def holds(opened: Remit) -> list[str]:
        return [each.hold for each in opened.holds.list()]

    [hold] = with_remit(shop, holds)
    remit(shop, "hold", "lift", hold, "--as", "anna", "--reason", WHY, code=1)
    assert [(by, deed, ref) for by, deed, _, _, ref in denied(shop)] == [("person/anna", "hold", run)]
    assert with_remit(shop, holds) == [hold]


def test_of_many_runs_to_be_erased_only_what_policy_keeps_is_a_denial(shop: Shop) -> None:
    mine, other = start(shop), start(shop)
    rules = shop.folder / "record.cedar"
    keep = f'@id("keep") @reason("kept") forbid (principal, action, resource == Run::"{other}");'
    rules.write_text(rules.read_text() + keep)
    both = ("--run", mine, "--run", other, "--as", "lee", "--reason", WHY)
    # What would be erased is asked under the same rules.
    remit(shop, "erase", *both)
    remit(shop, "erase", *both, "--yes", code=3)
    assert [(deed, run) for _, deed, run, _, _ in denied(shop)] == [("erase", other)] * 2
    # Erased already: no policy was asked.
    remit(shop, "erase", "--run", mine, "--as", "anna", "--reason", WHY, "--yes", code=3)
    assert len(denied(shop)) == 2


def test_without_the_file_a_denial_is_recorded_too(shop: Shop) -> None:
    run = start(shop)
    (shop.folder / "record.cedar").unlink()
    remit(shop, "reveal", run, "--as", "lee", "--reason", WHY, code=1)
    remit(shop, "erase", "--run", run, "--as", "lee", "--reason", WHY, "--yes", code=1)
    assert [(deed, "there is no `record.cedar`" in why) for _, deed, _, why, _ in denied(shop)] == [
        ("reveal", True),
        ("erase", True),
    ]


async def test_a_person_who_is_disabled_is_denied_on_record(shop: Shop) -> None:
    async with Remit(shop.folder) as opened:
        run = (await opened.run("act", {"do": "say", "text": MAIL})).run
        await opened.administration.disable("person/lee")
        with pytest.raises(RecordError, match="is disabled"):
            await opened.reveals.reveal(run, token=opened.person_token("lee"), reason=WHY)
        last = opened.register.events()[-1]
    assert (last.type, last.body["by"], last.body["deed"]) == (EventType.DEED_DENIED, "person/lee", "reveal")


async def test_a_denial_that_can_not_be_recorded_is_a_denial(shop: Shop) -> None:
    async with Remit(shop.folder) as opened:
        run = (await opened.run("act", {"do": "say", "text": MAIL})).run
        with opened.database.engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN NEW.type = 'deed.denied'"
                " BEGIN SELECT RAISE(ABORT, 'no'); END"
                if opened.database.is_sqlite
                else "ALTER TABLE events ADD CONSTRAINT refuse CHECK (type <> 'deed.denied')"
            )
        anna = opened.person_token("anna")
        with pytest.raises(RecordError, match="can't be put on record") as refused:
            await opened.reveals.reveal(run, token=anna, reason=WHY)
        assert refused.value.code == "record_denied"
        with pytest.raises(RecordError, match="can't be put on record"):
            await opened.erasure.erase([opened.archive.run(run)], token=anna, reason=WHY)
        assert opened.archive.run(run).has_body

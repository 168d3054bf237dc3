"""What is erased is gone for good, from the files as well; that it is, by whom and why stays, and the record verifies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import remit, remit_json, with_remit
from sqlalchemy import text

from project import Shop
from remit import Remit
from remit.errors import RunError, StorageError
from remit.journal.events import EventType
from remit.records.holds import HoldScope
from remit.storage import rows
from remit_verify import verify

pytestmark = pytest.mark.anyio

IBAN = "DE89370400440532013000"
MAIL = "ann.lee@shop.example"
WHY = "request of 3 May"
AS = ("--as", "lee", "--reason", WHY)


async def run_of(opened: Remit, do: str = "say", said: str = MAIL, **more: Any) -> str:
    return (await opened.run("act", {"do": do, "text": said}, **more)).run


def start(shop: Shop, do: str = "say", said: str = MAIL, **more: Any) -> str:
    return with_remit(shop, lambda opened: run_of(opened, do, said, **more))


def erased(shop: Shop) -> list[Any]:
    async def use(opened: Remit) -> list[Any]:
        return [event.body for event in opened.register.events() if event.type is EventType.RUN_ERASED]

    return with_remit(shop, use)


def test_first_it_is_said_and_then_it_is_done(shop: Shop) -> None:
    one, other = start(shop), start(shop)
    said = remit(shop, "erase", one, "--run", other[:12], *AS)
    assert "2 runs would be erased; nothing is done yet; `--yes` does it, and it can't be undone" in said
    assert erased(shop) == []
    assert "1 run erased" in remit(shop, "erase", one, *AS, "--yes")
    [body] = erased(shop)
    assert {name: body[name] for name in ("run", "by", "reason", "contract")} == {
        "run": one,
        "by": "person/lee",
        "reason": WHY,
        "contract": "act",
    }
    assert verify(shop.folder).findings == ()


def test_an_erased_run_is_shown_with_when_by_whom_and_why_and_with_nothing_that_it_said(shop: Shop) -> None:
    run = start(shop, "escalate", "the printer of Ann burns")
    [case] = [each["case"] for each in remit_json(shop, "cases")]
    assert ", and 1 open case withdrawn" in remit(shop, "erase", "--run", run, *AS, "--yes")
    for page in (remit(shop, "show", run), remit(shop, "case", case), remit(shop, "runs")):
        assert f"by person/lee: {WHY}" in page
        assert "erased" in page
        assert "printer" not in page
    lost = {"type": "run.erased", "by": "person/lee", "reason": WHY}
    shown = remit_json(shop, "show", run)
    assert all(event["content"] is None for event in shown)
    assert lost.items() <= shown[0]["lost"].items()
    [row] = remit_json(shop, "runs")
    assert (row["request"], row["state"]) == (None, "escalated")
    assert lost.items() <= row["erased"].items()
    found = remit_json(shop, "case", case)
    assert (found["status"], found["reason"]) == ("withdrawn", "erased")
    assert lost.items() <= found["lost"].items()
    assert remit_json(shop, "cases") == []
    assert "nothing of what it said is left" in remit(shop, "reveal", run, *AS)


def test_nothing_can_be_done_with_an_erased_run(shop: Shop) -> None:
    run = start(shop, "escalate", MAIL)
    [case] = [each["case"] for each in remit_json(shop, "cases")]
    remit(shop, "erase", "--run", run, *AS, "--yes")
    assert "case_closed" in remit(shop, "resolve", case, "--as", "lee", code=1)
    assert "erased" in remit(shop, "case", case, "--as", "lee", code=1)
    assert "run_closed" in remit(shop, "close", run, "--as", "lee", code=1)
    assert "no run waits for a worker" in remit(shop, "worker", "--once")
    again = remit(shop, "erase", "--run", run, *AS, "--yes", code=3)
    assert "it is erased already" in again
    assert len(erased(shop)) == 1
    assert verify(shop.folder).findings == ()


async def test_the_key_of_its_request_opens_no_second_run(shop: Shop) -> None:
    async with Remit(shop.folder) as opened:
        run = await run_of(opened, request_key="mail-7")
        await opened.erasure.erase([opened.archive.run(run)], token=opened.person_token("lee"), reason=WHY)
        with pytest.raises(RunError, match="which was erased"):
            await run_of(opened, request_key="mail-7")


def test_open_runs_and_runs_under_a_hold_are_left_and_named(shop: Shop) -> None:
    held, kept, free = start(shop, "ask", IBAN), start(shop), start(shop)
    remit(shop, "hold", "place", "--run", kept, *AS)
    said = remit(shop, "erase", "--run", held, "--run", kept, "--run", free, *AS, "--yes", code=3)
    assert f"it is open (held); let it end, or `remit close {held} --as PERSON`" in said
    assert "holds it" in said.split(kept)[1].splitlines()[0]
    assert [body["run"] for body in erased(shop)] == [free]
    assert MAIL in remit(shop, "reveal", kept, *AS)


@pytest.mark.parametrize(("who", "why"), [("anna", "no rule of `record.cedar` permits it"), ("kim", "not-for-oneself")])
def test_who_may_not_erases_nothing(shop: Shop, who: str, why: str) -> None:
    run = start(shop, on_behalf_of="person/kim")
    said = remit(shop, "erase", "--run", run, "--as", who, "--reason", WHY, "--yes", code=3)
    assert why in said
    assert "say why" in remit(shop, "erase", "--run", run, "--as", "lee")
    assert erased(shop) == []


async def test_a_hold_that_is_placed_meanwhile_counts(shop: Shop) -> None:
    async with Remit(shop.folder) as opened:
        runs = [opened.archive.run(await run_of(opened)) for _ in range(3)]
        token = opened.person_token("lee")
        assert [each.refused for each in await opened.erasure.plan(runs, token=token, reason=WHY)] == ["", "", ""]
        async with Remit(shop.folder) as other:
            await other.holds.place(HoldScope.RUN, runs[1].run, token=token, reason=WHY)
        done = await opened.erasure.erase(runs, token=token, reason=WHY)
        assert [bool(each.refused) for each in done.runs] == [False, True, False]
        assert [opened.archive.run(run.run).has_body for run in runs] == [False, True, False]


async def test_a_disabled_person_erases_nothing(shop: Shop) -> None:
    async with Remit(shop.folder) as opened:
        run = opened.archive.run(await run_of(opened))
        await opened.administration.disable("person/lee")
        [left] = (await opened.erasure.erase([run], token=opened.person_token("lee"), reason=WHY)).runs
        assert "is disabled" in left.refused
        assert opened.archive.run(run.run).has_body


async def test_an_open_run_keeps_its_keys_whatever_was_decided(shop: Shop) -> None:
    """The last line of defence: the statements themselves destroy nothing of a run that is not closed."""
    async with Remit(shop.folder) as opened:
        held = await run_of(opened, "ask", IBAN)
        for statements in ([rows.drop_originals(held)], rows.erase_run(held, opened.clock())):
            with pytest.raises(StorageError):
                await opened.journal.write(statements)
        kept = opened.archive.run(held)
        assert (kept.has_body, kept.has_originals, kept.open_cases) == (True, True, 1)


async def test_many_are_erased_in_several_transactions(shop: Shop) -> None:
    async with Remit(shop.folder) as opened:
        names = [await run_of(opened) for _ in range(203)]
        done = await opened.erasure.erase(opened.archive.runs(), token=opened.person_token("lee"), reason=WHY)
        assert {each.run.run for each in done.runs if not each.refused} == set(names)
        assert done.left == ""
        assert not any(run.has_body or run.has_originals for run in opened.archive.runs())
    assert verify(shop.folder).findings == ()


# Whose data it is


def test_the_runs_of_a_person_are_those_that_act_for_them(shop: Shop) -> None:
    theirs = start(shop, on_behalf_of="person/anna")
    decided = start(shop, "escalate")
    [case] = [each["case"] for each in remit_json(shop, "cases")]
    remit(shop, "resolve", case, "--as", "kim", "--reason", "done")
    for given in ("anna", "person/anna"):
        assert [each["run"] for each in remit_json(shop, "erase", "--subject", given, *AS)] == [theirs]
    # Whoever decides a case is not whom its run is about.
    assert remit_json(shop, "erase", "--subject", "kim", *AS) == []
    assert decided != theirs


@pytest.mark.parametrize(
    ("said", "subject"),
    [
        (f"pay to {IBAN} please", "DE89 3704 0044 0532 0130 00"),
        (f"write to {MAIL}", "Ann.Lee@shop.example"),
        ("call 0049 151 2345 6789", "+49 151 23456789"),
        ("SSN 078-05-1120", "078-05-1120"),
        ("it is for Ann Lee, she says", "ann lee"),
        # Numbers: one that a detector knows, and one that stands as it is.
        (4111111111111111, "4111 1111 1111 1111"),
        (778899001, "778899001"),
    ],
)
def test_the_runs_about_a_value_are_found_by_its_pseudonyms_and_in_plain_text(
    shop: Shop, said: Any, subject: str
) -> None:
    found, _ = start(shop, said=said), start(shop, said="ann leeway, SSN 078-05-1121")
    assert [each["run"] for each in remit_json(shop, "erase", "--subject", subject, *AS)] == [found]
    remit(shop, "erase", "--subject", subject, *AS, "--yes")
    assert remit_json(shop, "erase", "--subject", subject, *AS) == []


def test_a_value_of_a_declared_field_is_found_by_its_pseudonym(shop: Shop) -> None:
    tools = shop.folder / "tools" / "shop.py"
    tools.write_text(
        tools.read_text().replace(
            '@tool("orders.read", effects={Effect.READ}, untrusted=("note",))',
            '@tool("orders.read", effects={Effect.READ}, untrusted=("note",), field_classes={"result.account": "personal"})',
        )
    )
    run = start(shop, said="nothing")
    assert "DE0933" not in remit(shop, "show", run)
    assert [each["run"] for each in remit_json(shop, "erase", "--subject", "DE0933", *AS)] == [run]


def test_a_value_that_stands_everywhere_is_refused(shop: Shop) -> None:
    assert "subject_too_short" in remit(shop, "erase", "--subject", "an", *AS, code=1)
    assert "give either a RUN or `--subject`" in remit(shop, "erase", *AS, code=2)


async def test_a_damaged_run_is_named_and_keeps_no_other_from_being_found(shop: Shop) -> None:
    async with Remit(shop.folder) as opened:
        damaged, sound = await run_of(opened), await run_of(opened)
        with opened.database.engine.begin() as connection:
            connection.execute(text("DELETE FROM events WHERE run = :run AND n = 2"), {"run": damaged})
        found, unknown = await opened.erasure.about(MAIL, lambda _at, _total: None)
        assert ([run.run for run in found], [run.run for run in unknown]) == ([sound], [damaged])
        plan = await opened.erasure.plan(opened.archive.runs(), token=opened.person_token("lee"), reason=WHY)
        assert [(each.run.run, "is broken at event" in each.refused) for each in plan] == [(damaged, True), (sound, False)]


async def test_the_search_says_how_far_it_is(shop: Shop) -> None:
    async with Remit(shop.folder) as opened:
        for _ in range(3):
            await run_of(opened)
        told: list[tuple[int, int]] = []
        await opened.erasure.about(MAIL, lambda at, total: told.append((at, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


# The bytes


def wrapped(opened: Remit, run: str) -> list[bytes]:
    query = text("SELECT body_key, sealed_key FROM run_keys WHERE run = :run")
    with opened.database.engine.connect() as connection:
        return [bytes(key) for key in connection.execute(query, {"run": run}).one() if key is not None]


def key_files(opened: Remit) -> bytes:
    """The bytes in which keys are stored: the database's file and its log, or the table of a server."""
    if opened.database.is_sqlite:
        path = opened.database.path
        return b"".join(Path(f"{path}{end}").read_bytes() for end in ("", "-wal"))
    with opened.database.engine.connect() as connection:
        connection.execute(text("CHECKPOINT"))
        return bytes(connection.execute(text("SELECT pg_read_binary_file(pg_relation_filepath('run_keys'))")).scalar_one())


async def test_no_destroyed_key_is_left_in_the_files_of_the_database(shop: Shop) -> None:
    async with Remit(shop.folder) as opened:
        names = [await run_of(opened) for _ in range(40)]
        keys = {name: wrapped(opened, name) for name in names}
        before = key_files(opened)
        assert all(key in before for found in keys.values() for key in found)
        chosen = [opened.archive.run(name) for name in names[::3]]
        assert (await opened.erasure.erase(chosen, token=opened.person_token("lee"), reason=WHY)).left == ""
        after = key_files(opened)
        for name, found in keys.items():
            assert [key in after for key in found] == [name not in names[::3]] * 2


async def test_bytes_that_can_not_be_removed_now_are_said_and_the_run_is_erased_all_the_same(shop: Shop) -> None:
    async with Remit(shop.folder) as opened:
        run = opened.archive.run(await run_of(opened))
        token = opened.person_token("lee")
        with opened.database.engine.connect() as reader:
            if opened.database.is_sqlite:
                reader.execute(text("BEGIN"))
            reader.execute(text("SELECT count(*) FROM run_keys"))
            done = await opened.erasure.erase([run], token=token, reason=WHY)
        assert [each.refused for each in done.runs] == [""]
        assert done.left
        assert not opened.archive.run(run.run).has_body
        # The next time it works out.
        report = await opened.retention.enforce()
        assert report.left == ""

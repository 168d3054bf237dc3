"""What a contract keeps no longer goes by itself, and what is held stays: also what comes later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from commands import remit, remit_json, with_remit
from sqlalchemy import text

from project import Shop
from remit import Remit
from remit.cases.cases import Decision
from remit.errors import RecordError, StorageError
from remit.journal.events import EventType
from remit.journal.journal import system_clock
from remit.records.holds import HoldScope
from remit_verify import verify

pytestmark = pytest.mark.anyio

DAY_US = 86_400_000_000
IBAN = "DE89370400440532013000"
MAIL = "ann.lee@shop.example"
WHY = "case 7 O 12/26"
AS = ("--as", "lee", "--reason", WHY)


def start(shop: Shop, contract: str = "short", do: str = "say", said: str = MAIL, **more: Any) -> str:
    async def use(opened: Remit) -> str:
        return (await opened.run(contract, {"do": do, "text": said}, **more)).run

    return with_remit(shop, use)


def later(days: float) -> Any:
    return lambda: system_clock() + int(days * DAY_US)


def after(shop: Shop, days: float, *, dry_run: bool = False) -> tuple[set[str], set[str], dict[str, str]]:
    """What retention does so many days from now: runs erased, runs whose originals are dropped, and those kept."""

    async def use(opened: Remit) -> Any:
        return opened.retention.plan() if dry_run else await opened.retention.enforce()

    report = with_remit(shop, use, clock=later(days))
    kept = {each.run.run: each.refused for each in report.kept}
    return {run.run for run in report.erased}, {run.run for run in report.dropped}, kept


def register(shop: Shop, type_: EventType) -> list[Any]:
    async def use(opened: Remit) -> list[Any]:
        return [event for event in opened.register.events() if event.type is type_]

    return with_remit(shop, use)


# Retention


def test_originals_go_after_the_retention_and_all_of_it_after_erase_after(shop: Shop) -> None:
    run, other = start(shop), start(shop, "act")
    assert after(shop, 0.9) == (set(), set(), {})
    assert after(shop, 1.1, dry_run=True) == (set(), {run}, {})
    assert register(shop, EventType.ORIGINALS_DROPPED) == []
    assert after(shop, 1.1) == (set(), {run}, {})
    assert after(shop, 1.2) == (set(), set(), {})
    assert MAIL not in remit(shop, "show", run)
    assert "originals dropped" in remit(shop, "show", run)
    assert remit_json(shop, "show", run)[0]["content"]["request"]["do"] == "say"
    assert "are gone: dropped after their retention" in remit(shop, "reveal", run, *AS)
    assert after(shop, 10.1) == ({run}, set(), {})
    assert "its contract keeps it no longer" in remit(shop, "show", run)
    # The contract that says nothing keeps originals for six months, and the rest for ever.
    assert after(shop, 182) == (set(), set(), {})
    assert after(shop, 184) == (set(), {other}, {})
    assert after(shop, 36_500) == (set(), set(), {})
    [dropped, _] = register(shop, EventType.ORIGINALS_DROPPED)
    [erased] = register(shop, EventType.RUN_ERASED)
    assert [event.header.actor for event in (dropped, erased)] == ["system", "system"]
    assert [event.body["run"] for event in (dropped, erased)] == [run, run]
    assert verify(shop.folder).findings == ()


def test_what_is_erased_at_once_needs_no_dropping_first(shop: Shop) -> None:
    run = start(shop)
    assert after(shop, 11) == ({run}, set(), {})
    assert register(shop, EventType.ORIGINALS_DROPPED) == []


def test_an_open_run_keeps_its_originals_and_goes_on_with_them(shop: Shop) -> None:
    shop.contract("slow", [_slow_refund()], workflow=SLOW, retention="0d", erase_after="1m")
    run = start(shop, "slow", said=IBAN)
    assert after(shop, 30) == (set(), set(), {})

    async def approve(opened: Remit) -> None:
        [case] = opened.cases.list("shop")
        await opened.cases.decide(case.case, Decision.APPROVED, token=opened.person_token("lee"))
        assert (await opened.engine.drive(run)).outcome == "completed"

    with_remit(shop, approve, clock=later(30))
    assert after(shop, 30) == (set(), {run}, {})


SLOW = """
async def slow(run, request):
    amount = {"amount": "60.00", "currency": "EUR"}
    await run.call("payments.refund", order=4, amount=amount, account=request["text"])
    return {}
"""


def _slow_refund() -> dict[str, Any]:
    return {
        "tool": "payments.refund",
        "autonomy": "approve",
        "approval": {"by": "role:care-lead", "within": "60d"},
        "limits": {"per_run": 3},
    }


def test_the_terms_are_those_that_a_run_began_under(shop: Shop) -> None:
    run = start(shop)
    contract = shop.folder / "contracts" / "short" / "contract.yaml"
    contract.write_text(contract.read_text().replace('"1d"', '"90d"').replace('"10d"', '"900d"'))
    assert after(shop, 2) == (set(), {run}, {})


def test_runs_from_before_terms_were_noted_have_those_of_their_contract_now(shop: Shop) -> None:
    run, orphan = start(shop), start(shop, "act")

    async def forget(opened: Remit) -> None:
        with opened.database.engine.begin() as connection:
            connection.execute(text("UPDATE runs SET retention_us = NULL, erase_after_us = NULL"))

    with_remit(shop, forget)
    (shop.folder / "contracts" / "act").rename(shop.folder / "gone")
    assert after(shop, 0.9) == (set(), set(), {orphan: "its contract `act` is not at hand, so nobody knows how long it is to be kept"})
    assert after(shop, 1.1)[1] == {run}


def test_the_command_says_what_it_does_and_a_worker_does_it_too(shop: Shop) -> None:
    shop.contract("none", [{"tool": "orders.read"}], workflow=SLOW.replace("slow", "none").replace("    amount", "    return {}\n    amount"), retention="0d")
    first = start(shop, "none")
    assert f"{first}  none  originals dropped" in remit(shop, "retention", "--dry-run")
    assert [run["run"] for run in remit_json(shop, "retention", "--dry-run")["dropped"]] == [first]
    said = remit(shop, "retention")
    assert "0 runs erased, originals of 1 run dropped, 0 kept" in said
    assert "nothing is due" in remit(shop, "retention")
    second = start(shop, "none")
    assert f"{second} originals dropped" in remit(shop, "worker", "--once")


class Heard(logging.Handler):
    """Says when something was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.put_nowait(record.getMessage())


@pytest.fixture
def heard() -> Iterator[Heard]:
    logger, handler = logging.getLogger("remit"), Heard()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


async def test_a_worker_does_it_at_once_and_again_and_outlives_trouble(
    shop: Shop, heard: Heard
) -> None:
    async with Remit(shop.folder) as opened:
        await opened.run("short", {"do": "say", "text": MAIL})
    async with Remit(shop.folder, clock=later(2)) as opened:
        stop = asyncio.Event()
        working = asyncio.ensure_future(opened.retention.daily(stop, every_s=0.001, again_s=0.001))
        assert await heard.lines.get() == "retention: 0 erased, originals of 1 dropped"
        with opened.database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE runs RENAME TO elsewhere")
        assert "retention: can't list the runs" in await heard.lines.get()
        assert "retention: can't list the runs" in await heard.lines.get()
        stop.set()
        await working


# Holds


def test_a_hold_is_placed_listed_and_lifted_on_the_register(shop: Shop) -> None:
    run = start(shop)
    said = remit(shop, "hold", "place", run[:12], *AS)
    hold = said.split()[0]
    assert f"{hold} holds run {run} from now on" in said
    [listed] = remit_json(shop, "hold", "list")
    assert (listed["hold"], listed["scope"], listed["what"], listed["by"], listed["reason"]) == (
        hold,
        "run",
        run,
        "person/lee",
        WHY,
    )
    assert hold in remit(shop, "hold", "list")
    assert after(shop, 11) == (set(), set(), {run: f"`{hold}` holds it"})
    assert f"kept: `{hold}` holds it" in _retention_text(shop, 11)
    assert f"{hold} is lifted" in remit(shop, "hold", "lift", hold.removeprefix("hold-")[:5], *AS)
    assert "nothing is held" in remit(shop, "hold", "list")
    assert after(shop, 11) == ({run}, set(), {})
    assert "hold_not_found" in remit(shop, "hold", "lift", hold, *AS, code=1)
    assert [event.body["by"] for event in register(shop, EventType.HOLD_PLACED)] == ["person/lee"]
    assert [event.header.refs for event in register(shop, EventType.HOLD_LIFTED)] == [{"hold": hold, "run": run}]


def _retention_text(shop: Shop, days: float) -> str:
    from remit.cli.records import retention_lines

    async def use(opened: Remit) -> str:
        return "\n".join(line.plain for line in retention_lines(opened.retention.plan(), dry_run=True))

    return with_remit(shop, use, clock=later(days))


def test_a_hold_keeps_originals_as_well(shop: Shop) -> None:
    run = start(shop)
    remit(shop, "hold", "place", "--run", run, *AS)
    assert list(after(shop, 2)[2]) == [run]
    assert MAIL in remit(shop, "reveal", run, *AS)


def test_a_hold_by_contract_keeps_later_runs_too(shop: Shop) -> None:
    first = start(shop)
    remit(shop, "hold", "place", "--contract", "short", *AS)
    second, other = start(shop), start(shop, "act")
    assert set(after(shop, 200)[2]) == {first, second}
    assert other not in after(shop, 200)[2]
    assert "contract_unknown" in remit(shop, "hold", "place", "--contract", "shrot", *AS, code=1)


@pytest.mark.parametrize(
    ("subject", "meant"),
    [("anna", {"on_behalf_of": "person/anna"}), (MAIL.upper(), {"said": f"from {MAIL}"}), ("Ann Lee", {"said": "ann lee"})],
)
def test_a_hold_by_subject_keeps_later_runs_too_and_is_listed_without_the_value(
    shop: Shop, subject: str, meant: dict[str, str]
) -> None:
    first = start(shop, **meant)
    remit(shop, "hold", "place", "--subject", subject, *AS)
    second, other = start(shop, **meant), start(shop, said="the printer")
    erased, _, kept = after(shop, 11)
    assert (erased, set(kept)) == ({other}, {first, second})
    if subject != "anna":
        assert subject not in remit(shop, "hold", "list") + str(remit_json(shop, "hold", "list"))
        assert "<subject:" in remit(shop, "hold", "list")
        assert subject not in str([event.header for event in register(shop, EventType.HOLD_PLACED)])
        assert subject not in str([event.body for event in register(shop, EventType.HOLD_PLACED)])


def test_a_subject_that_is_held_stays_so_when_its_originals_are_gone_already(shop: Shop) -> None:
    run = start(shop)
    assert after(shop, 2) == (set(), {run}, {})
    remit(shop, "hold", "place", "--subject", MAIL, *AS)
    assert set(after(shop, 11)[2]) == {run}


def test_who_may_not_hold_or_lift_does_neither(shop: Shop) -> None:
    run = start(shop)
    assert "no rule of `record.cedar`" in remit(shop, "hold", "place", "--run", run, "--as", "anna", "--reason", WHY, code=1)
    assert "say why" in remit(shop, "hold", "place", "--contract", "short", "--as", "lee", code=1)
    remit(shop, "hold", "place", "--subject", MAIL, *AS)
    [listed] = remit_json(shop, "hold", "list")
    assert "record_denied" in remit(shop, "hold", "lift", listed["hold"], "--as", "anna", "--reason", WHY, code=1)
    assert len(remit_json(shop, "hold", "list")) == 1
    assert "give one of" in remit(shop, "hold", "place", *AS, code=2)
    assert "give one of" in remit(shop, "hold", "place", "a", "--run", "b", *AS, code=2)


def test_whoever_holds_by_subject_must_be_let_hold_the_runs_of_every_contract(shop: Shop) -> None:
    (shop.folder / "record.cedar").write_text(
        '@id("only-act") permit (principal in Role::"care-lead", action == Action::"hold", resource)'
        ' when { resource.contract == "act" };'
    )
    remit(shop, "hold", "place", "--contract", "act", *AS)
    assert "any run of short" in remit(shop, "hold", "place", "--subject", MAIL, *AS, code=1)


async def test_two_who_lift_the_same_hold_lift_it_once(shop: Shop) -> None:
    async with Remit(shop.folder) as one, Remit(shop.folder) as two:
        hold = await one.holds.place(HoldScope.CONTRACT, "act", token=one.person_token("lee"), reason=WHY)
        tried = await asyncio.gather(
            *(each.holds.lift(hold.hold, token=each.person_token("lee"), reason=WHY) for each in (one, two)),
            return_exceptions=True,
        )
        assert sorted(isinstance(each, RecordError) for each in tried) == [False, True]
        assert len([event for event in one.register.events() if event.type is EventType.HOLD_LIFTED]) == 1


async def test_a_register_that_was_cut_lets_nothing_be_erased(shop: Shop) -> None:
    """Whoever takes a hold out of the table gets a broken chain, not an erasure."""
    async with Remit(shop.folder) as opened:
        run = (await opened.run("act", {"do": "say", "text": MAIL})).run
        token = opened.person_token("lee")
        await opened.holds.place(HoldScope.RUN, run, token=token, reason=WHY)
        await opened.holds.place(HoldScope.CONTRACT, "short", token=token, reason=WHY)
        with opened.database.engine.begin() as connection:
            connection.execute(text("DELETE FROM events WHERE type = 'hold.placed' AND n = 1"))
        with pytest.raises(StorageError) as broken:
            await opened.erasure.erase([opened.archive.run(run)], token=token, reason=WHY)
        assert broken.value.code == "record_corrupt"
        assert opened.archive.run(run).has_body

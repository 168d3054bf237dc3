"""A worker outlives what goes wrong: the database, a workflow that breaks in any way, and runs that can't go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update

from project import REFUND, Shop, make_shop, write_action
from remit import Remit
from remit.cases.cases import Decision
from remit.errors import StorageError
from remit.journal.events import Draft, EventType
from remit.storage import schema

pytestmark = pytest.mark.anyio

ASKS = """
async def refunds(run, request):
    if request.get("order"):
        return {"paid": await run.call("payments.refund", order=request["order"], amount=AMOUNT, account="DE1")}
    return {"checked": await run.call("risk.check", order=1)}

AMOUNT = {"amount": "60.00", "currency": "EUR"}
"""
ACTIONS: list[dict[str, Any]] = [REFUND, {"tool": "risk.check"}]


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    made.contract("refunds", ACTIONS, workflow=ASKS)
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


class Said(logging.Handler):
    """What is logged, to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._more = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._more.set()

    async def until(self, words: str) -> None:
        while not any(words in line for line in self.lines):
            self._more.clear()
            await self._more.wait()


@pytest.fixture
def said() -> Any:
    handler = Said()
    logging.getLogger("remit").addHandler(handler)
    yield handler
    logging.getLogger("remit").removeHandler(handler)


def rename(remit: Remit, old: str, new: str) -> None:
    with remit.database.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))


def breaking(how: str) -> str:
    return f"import asyncio, sys\n\nasync def breaks(run, request):\n    await run.now()\n    {how}\n"


@pytest.mark.parametrize(
    "how", ["raise asyncio.CancelledError", "sys.exit(3)", "raise GeneratorExit", "raise BaseException('odd')"]
)
async def test_whatever_a_workflow_raises_its_run_is_closed_and_the_worker_goes_on(shop: Shop, how: str) -> None:
    shop.contract("breaks", [write_action("put.none")], workflow=breaking(how))
    async with Remit(shop.folder) as remit:
        result = await remit.run("breaks", {})
        assert (result.outcome, result.reason.startswith("the workflow broke: ")) == ("failed", True)
        assert remit.journal.reader.events(result.run)[-1].header.verdict == "failed"
        assert (await remit.run("refunds", {})).outcome == "completed"


async def test_a_run_that_is_taken_up_again_and_again_for_nothing_becomes_a_case(remit: Remit) -> None:
    run = await remit.engine.open("refunds", {})
    for _ in range(20):
        log, events = remit.journal.reopen(run)
        draft = Draft(type=EventType.RUN_RESUMED, actor=events[0].header.actor, body={"idle_us": 0})
        await remit.journal.append(log, draft)
    with remit.database.engine.begin() as connection:
        connection.execute(update(schema.runs).values(claims=20))
    result = await remit.engine.drive(run)
    assert result.outcome == "failed"
    assert result.case is not None
    assert remit.cases.get(result.case).kind == "no_progress"
    assert remit.engine.waiting() == []


async def test_a_worker_waits_for_a_database_that_is_away_and_says_so_once(remit: Remit, said: Said) -> None:
    held = await remit.run("refunds", {"order": 4})
    assert held.case is not None
    stop = asyncio.Event()
    async with asyncio.timeout(20):
        rename(remit, "runs", "gone")
        worker = asyncio.ensure_future(remit.engine.work(stop, poll_ms=1))
        await said.until("can't reach the database")
        rename(remit, "gone", "runs")
        await said.until("the database is back")
        await remit.cases.decide(held.case, Decision.DENIED, token=remit.person_token("lee"))
        stop.set()
        await worker
    assert (await remit.engine.drive(held.run)).outcome == "denied"
    assert [line.split(":")[0] for line in said.lines] == ["can't reach the database", "the database is back"]


async def test_an_error_of_the_record_names_the_run_and_is_hidden_by_no_other(shop: Shop) -> None:
    def take_away(point: str) -> None:
        if point == "after_intent":
            rename(remit, "runs", "gone")

    remit = Remit(shop.folder, crash_point=take_away)
    try:
        run = await remit.engine.open("refunds", {})
        with pytest.raises(StorageError) as broken:
            await remit.engine.drive(run)
        assert run in broken.value.message
        rename(remit, "gone", "runs")
        # The row is still held, since it could not be given back.
        with remit.database.engine.connect() as connection:
            assert connection.execute(select(schema.runs.c.worker)).scalar_one() is not None
    finally:
        await remit.close()


@pytest.fixture
def file(shop: Shop) -> Path:
    if "sqlite" not in (shop.folder / "remit.toml").read_text():
        pytest.skip("only a file can be taken away by a test")
    return shop.folder / "remit.db"


def take_away(file: Path) -> Path:
    return file.rename(file.with_name("away.db"))


async def test_where_a_run_can_not_be_recorded_it_is_said_that_it_goes_on_by_itself(shop: Shop, file: Path) -> None:
    taken: list[Path] = []

    def after_effect(point: str) -> None:
        if point == "after_effect" and not taken:
            taken.append(take_away(file))

    async with Remit(shop.folder, crash_point=after_effect) as remit:
        run = await remit.engine.open("refunds", {})
        with pytest.raises(StorageError) as broken:
            await remit.engine.drive(run)
        assert f"`{run}` is on record and goes on by itself" in broken.value.message
        assert "don't start it again" in broken.value.message
        taken[0].rename(file)
        with remit.database.engine.begin() as connection:
            connection.execute(update(schema.runs).values(lease_until=0))
        assert (await remit.engine.drive(run)).outcome == "completed"


@pytest.mark.parametrize(("key", "words"), [(None, "`--key`"), ("one", "try again with the same key")])
async def test_an_opening_that_may_have_failed_says_how_to_try_again(
    remit: Remit, file: Path, key: str | None, words: str
) -> None:
    await remit.run("refunds", {})
    take_away(file)
    with pytest.raises(StorageError) as broken:
        await remit.run("refunds", {}, request_key=key)
    assert words in broken.value.message


async def test_a_run_that_can_not_go_on_keeps_no_other_from_it_and_is_said_once(shop: Shop, said: Said) -> None:
    async with Remit(shop.folder) as remit:
        token = remit.person_token("lee")
        held = [await remit.run("refunds", {"order": 4}) for _ in range(3)]
        for result in held:
            await remit.cases.decide(result.case or "", Decision.APPROVED, token=token)
    shop.contract("refunds", ACTIONS, workflow=ASKS, policy="// another text\n")
    checked = asyncio.Event()

    def note(point: str) -> None:
        if point == "after_outcome":
            checked.set()

    async with Remit(shop.folder, crash_point=note) as later, asyncio.timeout(20):
        fresh = await later.engine.open("refunds", {})
        with later.database.engine.begin() as connection:
            connection.execute(update(schema.runs).where(schema.runs.c.run == fresh).values(lease_until=0))
        stop = asyncio.Event()
        worker = asyncio.ensure_future(later.engine.work(stop, poll_ms=1, at_once=1))
        await said.until(held[-1].run)
        await checked.wait()
        stop.set()
        await worker
        assert (await later.engine.drive(fresh)).outcome == "completed"
        assert len([line for line in said.lines if "put the earlier files back" in line]) == 3
        again = [result async for result in later.engine.drive_waiting()]
        assert {result.run for result in again} == {result.run for result in held}
        assert {result.outcome for result in again} == {"stuck"}
        assert all("put the earlier files back" in result.reason for result in again)
        with later.database.engine.connect() as connection:
            troubles = connection.execute(select(schema.runs.c.trouble).where(schema.runs.c.run == held[0].run))
            assert "put the earlier files back" in troubles.scalar_one()
        # Whoever has not been tried in vain comes first.
        newest = await later.engine.open("refunds", {})
        with later.database.engine.begin() as connection:
            connection.execute(update(schema.runs).where(schema.runs.c.run == newest).values(lease_until=0))
        assert later.engine.waiting()[0] == newest


async def test_a_decision_is_found_even_where_the_worker_died_while_it_parked_the_run(remit: Remit) -> None:
    held = await remit.run("refunds", {"order": 4})
    await remit.cases.decide(held.case or "", Decision.APPROVED, token=remit.person_token("lee"))
    # As a worker leaves it that parked the run after the decision had looked for it.
    with remit.database.engine.begin() as connection:
        connection.execute(update(schema.runs).values(status="held"))
    assert remit.engine.waiting() == [held.run]
    assert (await remit.engine.drive(held.run)).outcome == "completed"


def test_looking_for_runs_loads_no_contract(shop: Shop) -> None:
    async def hold() -> None:
        async with Remit(shop.folder) as remit:
            await remit.run("refunds", {"order": 4})

    async def look() -> list[str]:
        async with Remit(shop.folder) as later:
            return later.engine.waiting()

    asyncio.run(hold())
    (shop.folder / "contracts" / "refunds" / "contract.yaml").write_text("not: [a contract")
    assert asyncio.run(look()) == []

"""Many runs are open when the database goes away: each is told which run it is about, once, and each goes on later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from project import Shop, make_shop, write_action
from remit import Completed, Remit
from remit.errors import StorageError

pytestmark = pytest.mark.anyio

MANY = 5
PUTS = """
async def puts(run, request):
    await run.call("put.keyed", value=1)
    await run.call("put.keyed", value=2)
    return {}
"""


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    made.contract("away", [write_action("put.keyed")])
    made.contract("here", [write_action("put.keyed")], workflow=PUTS)
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


@asynccontextmanager
async def unwritable(remit: Remit) -> AsyncGenerator[None]:
    """The database while nothing can be recorded in it."""
    engine = remit.database.engine
    name = remit.database.url.database
    if remit.database.is_sqlite:
        away, back = "ALTER TABLE events RENAME TO events_away", "ALTER TABLE events_away RENAME TO events"
    else:
        away = f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'
        back = f'ALTER DATABASE "{name}" RESET default_transaction_read_only'
    with engine.begin() as connection:
        connection.execute(text(away))
    # What connects from now on finds it so.
    await remit.journal.close()
    try:
        yield
    finally:
        with engine.begin() as connection:
            if not remit.database.is_sqlite:
                connection.execute(text("SET TRANSACTION READ WRITE"))
            connection.execute(text(back))
        await remit.journal.close()


def told(error: BaseException | None) -> str:
    """What an error says, and everything that stands behind it."""
    return "" if error is None else f"{error} {told(error.__cause__)} {told(error.__context__)}"


async def error_of(doing: Awaitable[object]) -> StorageError:
    with pytest.raises(StorageError) as raised:
        await doing
    return raised.value


async def test_each_of_many_open_runs_is_named_once_by_its_own_error(remit: Remit, shop: Shop) -> None:
    ready, gone = asyncio.Barrier(MANY + 1), asyncio.Event()
    runs: dict[int, str] = {}

    async def agent(number: int) -> None:
        async with remit.gate("away").run({}, request_key=f"agent-{number}") as run:
            runs[number] = run.id
            await run.propose("put.keyed", {"value": 1})
            await ready.wait()
            await gone.wait()
            await run.propose("put.keyed", {"value": 2})

    agents = [asyncio.ensure_future(agent(number)) for number in range(MANY)]
    await ready.wait()
    async with unwritable(remit):
        gone.set()
        errors = [await error_of(each) for each in agents]
    for number, error in enumerate(errors):
        assert [error.message.count(runs[other]) for other in range(MANY)] == [int(other == number) for other in range(MANY)]
        # Nor does what lies under it, which a log prints as well, speak of other runs.
        assert [runs[other] in told(error) for other in range(MANY)] == [other == number for other in range(MANY)]
    assert len({id(error.__cause__) for error in errors}) == MANY

    for number, run in runs.items():
        async with remit.gate("away").run({}, request_key=f"agent-{number}") as again:
            assert again.id == run
            for value in (1, 2):
                assert isinstance(await again.propose("put.keyed", {"value": value}), Completed)
    assert sorted(shop.effects().values()) == [1] * (2 * MANY)


async def test_runs_that_one_agent_holds_open_at_once_do_not_add_their_names_to_each_others_error(remit: Remit) -> None:
    runs: list[str] = []

    async def agent() -> None:
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(remit.gate("away").run({})) for _ in range(MANY)]
            runs.extend(run.id for run in opened)
            await stack.enter_async_context(unwritable(remit))
            await opened[1].propose("put.keyed", {"value": 1})

    error = await error_of(agent())
    assert error.message.count("is on record") == 1
    # It is about the run whose call could not be recorded, not about the block that it happened to leave first.
    assert [error.message.count(run) for run in runs] == [0, 1, 0, 0, 0]
    assert {remit.engine.is_closed(run) for run in runs} == {False}


async def test_a_workflow_that_is_driven_within_another_agents_block_is_the_one_that_is_named(remit: Remit) -> None:
    opened = await remit.engine.open("here", {})
    outer: list[str] = []

    async def agent() -> None:
        async with remit.gate("away").run({}) as run, unwritable(remit):
            outer.append(run.id)
            await remit.engine.drive(opened)

    error = await error_of(agent())
    assert (error.message.count(opened), error.message.count(outer[0])) == (1, 0)
    assert "goes on by itself once the database can be written" in error.message
    assert (await remit.engine.drive(opened)).outcome == "completed"


async def test_a_run_that_could_not_be_opened_is_not_taken_for_the_one_that_is_open(remit: Remit) -> None:
    outer: list[str] = []

    async def agent() -> None:
        async with remit.gate("away").run({}) as run, unwritable(remit):
            outer.append(run.id)
            await remit.run("here", {})

    error = await error_of(agent())
    assert "whether the run was opened isn't known" in error.message
    assert outer[0] not in error.message

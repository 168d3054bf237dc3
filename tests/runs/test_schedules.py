"""Runs that contracts schedule: opened once at each time, by whichever worker is there, and made up for if that was late."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from project import Shop, make_shop, write_action
from remit import Remit
from remit.contracts.model import Schedule
from remit.errors import ConfigError
from remit.runs.schedules import latest

pytestmark = pytest.mark.anyio

WORKFLOW = """
async def daily(run, request):
    return {"done": await run.call("put.safe", value=request["order"])}
"""
WEEKDAYS = {"cron": "0 6 * * 1-5", "zone": "Europe/Berlin", "request": {"order": 3}, "late": "2h"}


def shop_with(folder: Path, database_url: str, *schedules: dict[str, Any]) -> Shop:
    made = make_shop(folder, database_url)
    made.contract("daily", [write_action("put.safe")], workflow=WORKFLOW, schedule=[*schedules])
    return made


def at(text: str) -> Callable[[], int]:
    moment = int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)
    return lambda: moment


async def look(shop: Shop, text: str) -> list[str]:
    async with Remit(shop.folder, clock=at(text)) as remit:
        return await remit.schedules.look()


async def test_a_run_is_opened_once_at_its_time_however_many_look(tmp_path: Path, database_url: str) -> None:
    shop = shop_with(tmp_path, database_url, WEEKDAYS)
    # Six o'clock in Berlin is five in winter.
    assert await look(shop, "2026-11-25T04:59:59") == []
    [run] = await look(shop, "2026-11-25T05:00:00")
    assert await look(shop, "2026-11-25T05:00:01") == []
    async with Remit(shop.folder, clock=at("2026-11-25T05:00:02")) as remit:
        assert remit.engine.waiting() == [run]
        assert (await remit.engine.drive(run)).outcome == "completed"
        # In summer it is four.
    [other] = await look(shop, "2027-07-01T04:00:00")
    assert other != run


async def test_what_was_missed_is_made_up_for_once_and_not_for_ever(tmp_path: Path, database_url: str) -> None:
    shop = shop_with(tmp_path, database_url, WEEKDAYS)
    # Nobody was there for three days; the last time is less than two hours ago.
    assert len(await look(shop, "2026-11-25T06:30:00")) == 1
    # And here it is longer ago.
    assert await look(shop, "2026-11-26T08:00:00") == []


async def test_a_time_that_clocks_skip_or_repeat_comes_once() -> None:
    schedule = Schedule(cron="30 2 * * *", zone="Europe/Berlin", late="3h")
    found: set[int] = set()
    for day in ("2026-03-29", "2026-10-25"):
        for minute in range(0, 360, 5):
            due = latest("daily", 1, schedule, at(f"{day}T{minute // 60:02}:{minute % 60:02}:00")())
            if due is not None and datetime.fromtimestamp(due.at_us / 1e6, UTC).strftime("%Y-%m-%d") == day:
                found.add(due.at_us)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cron": "61 * * * *"}, "is no schedule"),
        ({"cron": "0 0 30 2 *"}, "30 2"),
        ({"cron": "* * * * *", "zone": "Mars/Phobos"}, "time zone"),
        ({"cron": "* * * * *", "request": {"order": "many"}}, "input schema"),
        ({"cron": "* * * * *", "late": "0s"}, "no time at all"),
    ],
)
async def test_a_schedule_that_can_not_come_is_an_error_of_its_contract(
    tmp_path: Path, database_url: str, wrong: dict[str, Any], said: str
) -> None:
    shop = shop_with(tmp_path, database_url, {"request": {"order": 1}, **wrong})
    async with Remit(shop.folder) as remit:
        with pytest.raises(ConfigError) as caught:
            remit.program("daily")
        assert said in str(caught.value)

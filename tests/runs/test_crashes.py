"""A worker is killed at every point of a call; another process goes on. Nothing is lost, and nothing is done twice."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from crashing import LATER_US, POINTS, in_a_process

from project import Shop, make_shop, write_action
from remit import Remit
from remit.journal.events import Event, EventType

PUTS = ("safe", "keyed", "none", "safe_found", "keyed_found", "none_found")

REQUEST = {"put": "keyed", "value": 1}

WORKFLOW = """
async def puts(run, request):
    read = await run.call("orders.read", order=1)
    stamp = await run.now()
    outcome = await run.propose("put." + request["put"], {"value": request["value"]})
    checked = await run.call("risk.check", order=2)
    return {"how": type(outcome).__name__, "stamp": stamp, "checked": checked}
"""


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    actions = [{"tool": "orders.read"}, {"tool": "risk.check"}, *(write_action(f"put.{put}") for put in PUTS)]
    made.contract("puts", actions, workflow=WORKFLOW)
    return made


def events_of(shop: Shop, *keys: str) -> dict[str, list[Event]]:
    """The events of the runs that were opened for `keys`, their chains checked whole."""

    async def read() -> dict[str, list[Event]]:
        async with Remit(shop.folder) as remit:
            runs = {key: remit.engine.run_of("puts", key) for key in keys}
            return {key: remit.journal.reader.events(run) for key, run in runs.items() if run is not None}

    return asyncio.run(read())


def is_in_doubt(put: str, point: str) -> bool:
    """Whether nobody can know: it may have been dispatched, can't be read back, and must not be done again."""
    return put == "none" and point not in ("before_intent", "after_outcome")


@pytest.mark.parametrize("point", POINTS)
def test_no_write_is_lost_or_doubled_wherever_a_worker_is_killed(shop: Shop, point: str) -> None:
    requests = {put: {"put": put, "value": 1} for put in PUTS}
    for put, request in requests.items():
        # The write is the second call of the run.
        killed = in_a_process(shop.folder, "puts", {put: request}, crash=(point, 2))
        assert killed == -signal.SIGKILL
    assert in_a_process(shop.folder, "puts", requests, later_us=LATER_US) == 0
    for put, events in events_of(shop, *PUTS).items():
        effects = [line for line in shop.ledger() if line.split()[0] == put]
        closed = events[-1]
        assert closed.type is EventType.RUN_CLOSED
        assert closed.header.verdict == "completed"
        how = closed.body["output"]["how"]
        if is_in_doubt(put, point):
            assert how == "Unknown"
            assert len(effects) == (1 if point in ("after_effect", "before_outcome") else 0)
            assert [e.body["kind"] for e in events if e.type is EventType.CASE_OPENED] == ["unknown"]
        else:
            assert (how, len(effects)) == ("Completed", 1)
        assert _settled_once(events)


def _settled_once(events: list[Event]) -> bool:
    """Every allowed call has exactly one outcome, and its decision stands before it."""
    allowed = [e.header.span for e in events if e.type is EventType.CALL_DECIDED and e.header.verdict == "allow"]
    ends = {EventType.CALL_COMPLETED, EventType.CALL_FAILED, EventType.CALL_UNKNOWN}
    ended = [e.header.span for e in events if e.type in ends]
    return allowed == ended and len(set(ended)) == len(ended)


def test_a_run_whose_workers_are_killed_again_and_again_still_ends_as_if_nothing_had_happened(shop: Shop) -> None:
    for life, point in enumerate(POINTS):
        crash = (point, 1 if life else 2)
        killed = in_a_process(shop.folder, "puts", {"one": REQUEST}, crash=crash, later_us=life * LATER_US)
        assert killed == -signal.SIGKILL
    assert in_a_process(shop.folder, "puts", {"one": REQUEST}, later_us=10 * LATER_US) == 0
    assert len(shop.ledger()) == 1
    events = events_of(shop, "one")["one"]
    assert events[-1].header.verdict == "completed"
    assert _settled_once(events)
    stamps = [e.body["value"] for e in events if e.type is EventType.VALUE_RECORDED]
    assert stamps == [events[-1].body["output"]["stamp"]]


def test_a_run_is_not_driven_by_a_second_worker_while_the_lease_of_the_first_one_lasts(shop: Shop) -> None:
    assert in_a_process(shop.folder, "puts", {"one": REQUEST}, crash=("before_intent", 1)) == -signal.SIGKILL
    assert in_a_process(shop.folder, "puts", {"one": REQUEST}) == 0
    assert shop.tries() == []
    assert in_a_process(shop.folder, "puts", {"one": REQUEST}, later_us=LATER_US) == 0
    assert len(shop.ledger()) == 1

"""What is malformed or breaks is refused in so many words, is on record, and reaches no tool."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from project import REFUND, SECRET, Shop, make_shop, write_action
from remit import Completed, Denied, Failed, Held, Outcome, Rejected, Remit, Unknown
from remit.errors import RunError, StorageError
from remit.journal.events import Event, EventType

pytestmark = pytest.mark.anyio

ODD = ("read", "write", "keyed", "found", "lost")


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    made.contract("desk", [{"tool": "orders.read"}, REFUND, write_action("put.none"), write_action("items.move")])
    made.contract("odd", [{"tool": "odd.read"}, *(write_action(f"odd.{name}") for name in ODD[1:])])
    made.contract(
        "faulty",
        [write_action("put.none", verify=["rule:broken"])],
        workflow="def broken(call):\n    raise LookupError('x')\n\nasync def faulty(run, request):\n"
        "    outcome = await run.propose('put.none', {'value': 1})\n    return {'code': outcome.code}\n",
    )
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


async def propose(remit: Remit, contract: str, tool: Any, args: Any) -> tuple[Outcome, list[Event]]:
    """What became of one call, and the events of its run."""
    async with remit.gate(contract).run({}) as run:
        outcome = await run.propose(tool, args)
    return outcome, remit.journal.reader.events(run.id)


def endless() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


def shared() -> Any:
    value: Any = 1
    for _ in range(30):
        value = [value, value]
    return value


def deep() -> Any:
    value: Any = 1
    for _ in range(5000):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "args",
    [
        None,
        [],
        "value",
        7,
        {1: 2},
        {"value": float("nan")},
        {"value": float("inf")},
        {"value": 2**63},
        {"value": b"1"},
        {"value": {1, 2}},
        {"value": object()},
        {"value": "\ud800"},
        {"\ud800": 1},
        {"value": "x" * 10_000_000},
        {"value": deep()},
        {"value": endless()},
        {"value": shared()},
        {"value": 1.0},
        {"value": True},
        {"value": "1"},
        {"value": 1, "more": 1},
        {},
    ],
    ids=lambda args: type(args).__name__,
)
async def test_arguments_that_are_not_acceptable_are_rejected_and_on_record(
    remit: Remit, shop: Shop, args: Any
) -> None:
    outcome, events = await propose(remit, "desk", "put.none", args)
    assert isinstance(outcome, Rejected)
    assert outcome.code in ("arguments_invalid", "too_large")
    assert len(outcome.message) < 1500
    assert [e.header.verdict for e in events if e.type is EventType.CALL_DECIDED] == ["reject"]
    assert shop.tries() == []


@pytest.mark.parametrize(
    "tool",
    ["no.such", "", "PUT.NONE", "put.none ", "put.nоne", "\ud800", "x" * 5000, 7, None, ["put.none"], b"put.none"],
)
async def test_a_tool_that_is_not_granted_is_denied_however_it_is_written(remit: Remit, shop: Shop, tool: Any) -> None:
    async with remit.gate("desk").run({}, request_key="one") as run:
        outcome = await run.propose(tool, {"value": 1})
        assert isinstance(outcome, Denied)
        assert outcome.code == "not_granted"
        held = await run.propose("payments.refund", refund("60.00"))
        assert isinstance(held, Held)
    async with remit.gate("desk").run({}, request_key="one") as again:
        # The record knows it under a name of its own; the same proposal is recognised all the same.
        assert await again.propose(tool, {"value": 1}) == outcome
    assert shop.tries() == []


def refund(amount: str) -> dict[str, Any]:
    return {"order": 4, "amount": {"amount": amount, "currency": "EUR"}, "account": "DE1"}


async def test_a_check_that_breaks_denies(remit: Remit, shop: Shop) -> None:
    outcome, events = await propose(remit, "desk", "items.move", {"item": 13})
    assert isinstance(outcome, Denied)
    assert outcome.code == "gate_failed"
    decided = [e for e in events if e.type is EventType.CALL_DECIDED]
    assert [e.body["verdict"]["code"] for e in decided] == ["gate_failed"]
    assert (await remit.run("faulty", {})).output == {"code": "gate_failed"}
    assert shop.tries() == []


async def test_an_object_that_is_not_there_is_a_matter_to_correct(remit: Remit) -> None:
    outcome, _ = await propose(remit, "desk", "items.move", {"item": 0})
    assert isinstance(outcome, Rejected)
    assert outcome.code == "object_not_found"


async def test_a_request_that_does_not_meet_the_schema_opens_no_run(remit: Remit) -> None:
    refused_ones: list[Any] = [{"order": "one"}, [], {"order": float("nan")}, {"order": b"1"}]
    for request in refused_ones:
        with pytest.raises(RunError) as refused:
            await remit.engine.open("desk", request)
        assert refused.value.code == "input_invalid"


async def test_malformed_proposals_are_answered_a_bounded_number_of_times(remit: Remit, shop: Shop) -> None:
    async with remit.gate("desk").run({}) as run:
        told = [await run.propose("put.none", {}) for _ in range(3)]
        assert [t.attempts_left for t in told if isinstance(t, Rejected)] == [2, 1, 0]
        last = await run.propose("put.none", {"value": 1})
    assert isinstance(last, Denied)
    assert last.code == "retries_exhausted"
    assert shop.tries() == []


# How tools behave


@pytest.mark.parametrize(
    ("tool", "how", "expected", "tries"),
    [
        ("read", "slow", Failed, 2),
        ("read", "slow-once", Completed, 2),
        ("read", "broken", Failed, 1),
        ("read", "not-a-number", Failed, 1),
        ("read", "wrong-shape", Failed, 1),
        ("read", "not-done", Failed, 1),
        ("read", "busy-once", Completed, 2),
        ("write", "slow", Unknown, 1),
        ("write", "broken", Unknown, 1),
        ("write", "not-a-number", Unknown, 1),
        ("write", "wrong-shape", Unknown, 1),
        ("write", "done-unseen", Unknown, 1),
        ("write", "not-done", Failed, 1),
        ("write", "busy-once", Completed, 2),
        ("keyed", "slow", Unknown, 2),
        ("keyed", "slow-once", Completed, 2),
        ("keyed", "unseen-then-refused", Unknown, 2),
        ("found", "done-unseen", Completed, 1),
        ("found", "slow-once", Unknown, 1),
        ("found", "slow", Unknown, 1),
        ("lost", "slow", Unknown, 1),
        ("lost", "done-unseen", Unknown, 1),
        ("lost", "not-done", Failed, 1),
    ],
)
async def test_what_a_tool_does_is_told_as_what_can_be_known(
    remit: Remit, shop: Shop, tool: str, how: str, expected: type, tries: int
) -> None:
    outcome, events = await propose(remit, "odd", f"odd.{tool}", {"how": how})
    assert type(outcome) is expected
    assert len(shop.tries()) == tries
    cases = [e for e in events if e.type is EventType.CASE_OPENED]
    assert len(cases) == (1 if expected is Unknown else 0)


async def test_credentials_stand_nowhere_in_the_record(remit: Remit, shop: Shop) -> None:
    texts: list[str] = []
    for how in ("use-secret", "tell-secret"):
        outcome, events = await propose(remit, "odd", "odd.write", {"how": how})
        assert isinstance(outcome, Unknown | Failed)
        texts += [str([(e.body, e.sealed, e.header) for e in events]), outcome.message]
    with pytest.raises(RunError, match="holds a credential"):
        async with remit.gate("desk").run({"secret": SECRET}):
            pass
    async with remit.gate("odd").run({}) as run:
        await run.propose(f"tool.{SECRET}", {"value": SECRET})
        denied = await run.propose("odd.write", {"how": SECRET})
        assert isinstance(denied, Denied)
        assert denied.code == "credential_in_arguments"
        run.finish({"said": SECRET})
    events = remit.journal.reader.events(run.id)
    texts.append(str([(e.body, e.sealed, e.header) for e in events]))
    assert not any(SECRET in text for text in texts)
    if remit.database.is_sqlite:
        for path in shop.folder.glob("remit.db*"):
            assert SECRET.encode() not in path.read_bytes()


# The record


async def test_without_a_record_nothing_is_carried_out(remit: Remit, shop: Shop) -> None:
    """The database fails in the middle of a run, on the very transaction that would record the decision."""

    async def lose_the_table() -> None:
        async with remit.gate("desk").run({}, request_key="one") as run:
            assert isinstance(await run.propose("put.none", {"value": 1}), Completed)
            with remit.database.engine.begin() as connection:
                connection.exec_driver_sql("ALTER TABLE events RENAME TO events_away")
            await run.propose("put.none", {"value": 2})

    with pytest.raises(StorageError) as failed:
        await lose_the_table()
    assert "record" in failed.value.message
    with remit.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE events_away RENAME TO events")
    assert len(shop.tries()) == 1
    async with remit.gate("desk").run({}, request_key="one") as run:
        assert isinstance(await run.propose("put.none", {"value": 1}), Completed)
        assert isinstance(await run.propose("put.none", {"value": 2}), Completed)
    assert len(shop.ledger()) == 2


async def test_a_locked_database_is_a_clear_error_and_nothing_is_carried_out(remit: Remit, shop: Shop) -> None:
    if not remit.database.is_sqlite:
        pytest.skip("a lock of the whole database is SQLite's own")

    async def be_locked_out() -> None:
        async with remit.gate("desk").run({}) as run:
            blocker = sqlite3.connect(remit.database.path, isolation_level=None)
            blocker.execute("BEGIN IMMEDIATE")
            try:
                await run.propose("put.none", {"value": 1})
            finally:
                blocker.execute("ROLLBACK")
                blocker.close()

    with pytest.raises(StorageError, match="another process holds the write lock"):
        await be_locked_out()
    assert shop.tries() == []

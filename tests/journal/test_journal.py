"""The journal: one chain for each run, many commits in one transaction, and a fence that only one worker passes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import delete, insert, select, text, update

from remit.errors import FenceLost, RunError, StorageError
from remit.journal.events import START, Draft, Event, EventType, leaf_hash
from remit.journal.journal import Disabled, Entry, Journal, Recording, Reservation, RunLog, Settlement
from remit.journal.vault import Vault
from remit.limits.meters import Charge, Exhausted, Quantity, Reserved
from remit.storage import schema
from remit.storage.database import Database, open_database
from remit.storage.writer import Decide, Locks, Statement, Writer, open_writer

pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000


class CountingWriter:
    """The real writer, counted; `broken` stands for a fault of its own."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.transactions = 0
        self.broken: Exception | None = None

    async def write(self, locks: Locks, decide: Decide) -> None:
        self.transactions += 1
        if self.broken is not None:
            raise self.broken
        await self._writer.write(locks, decide)

    def write_at_once(self, locks: Locks, decide: Decide) -> bool:
        """Somebody else always writes just now, so that what waits together is committed together."""
        del locks, decide
        return False

    async def close(self) -> None:
        await self._writer.close()


class Desk:
    """A journal on the database under test, and what a test wants to ask it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.writer = CountingWriter(open_writer(database))
        self.journal = Journal(database, vault=Vault(b"m" * 32), writer=self.writer)

    async def begin(self, run: str) -> RunLog:
        log, keys = self.journal.start("northwind", run)
        await self.journal.append(log, draft(type_=EventType.RUN_OPENED), statements=[keys])
        return log

    async def begin_all(self, count: int) -> list[RunLog]:
        return await asyncio.gather(*(self.begin(f"run-{i}") for i in range(count)))

    def events(self, run: str) -> list[Event]:
        return self.journal.reader.events(run)

    def bodies(self, run: str) -> list[Any]:
        return [event.body for event in self.events(run)[1:]]

    def rows(self, sql: str) -> list[Any]:
        with self.database.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql))]

    def execute(self, statement: Any) -> None:
        with self.database.engine.begin() as connection:
            connection.execute(statement)

    def principal(self, name: str, *, enabled: bool) -> None:
        self.execute(delete(schema.principals).where(schema.principals.c.principal == name))
        row = {"principal": name, "tenant": "northwind", "kind": "agent", "enabled": enabled, "updated_at": 1}
        self.execute(insert(schema.principals).values(row))

    async def reserve(self, log: RunLog, *charges: Charge, record: Any = None, **more: Any) -> Reservation:
        def keep(reservation: Reservation) -> Recording[Reservation]:
            return Recording(value=reservation, drafts=[draft(record)] if record is not None else [])

        return await self.journal.commit(Entry(log=log, record=keep, charges=charges, **more))


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[Desk]:
    desk = Desk(open_database(url))
    try:
        yield desk
    finally:
        await desk.journal.close()
        desk.database.close()


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with opened(database_url) as desk:
        yield desk


@pytest.fixture
async def rival(database_url: str, desk: Desk) -> AsyncIterator[Desk]:
    """Another worker on the same database."""
    async with opened(database_url) as rival:
        yield rival


def draft(body: Any = None, *, type_: EventType = EventType.VALUE_RECORDED, **more: Any) -> Draft:
    return Draft(type=type_, actor="agent/northwind/desk", body=body, **more)


def charge(meter: str = "m", amount: int = 1, limit: int = 10) -> Charge:
    return Charge(meter=meter, quantity=Quantity.CALLS, label=f"{limit} of {meter}", limit=limit, window_ms=HOUR_MS, amount=amount)


def entry(log: RunLog, body: Any, **more: Any) -> Entry[Any]:
    """An entry that records one event and gives its body back."""
    return Entry(log=log, record=lambda _: Recording(value=body, drafts=[draft(body)]), **more)


async def settled(desk: Desk, *entries: Entry[Any]) -> list[Any]:
    """What becomes of entries that are committed at the same time."""
    return await asyncio.gather(*(desk.journal.commit(each) for each in entries), return_exceptions=True)


async def test_events_of_a_run_are_chained_from_the_first_to_the_last(desk: Desk) -> None:
    log = await desk.begin("run-1")
    await desk.journal.append(log, draft(1), draft(2))
    await desk.journal.append(log, draft(3, sealed="original"))
    events = desk.events("run-1")
    assert [event.body for event in events] == [None, 1, 2, 3]
    assert events[-1].sealed == "original"
    assert [event.header.n for event in events] == [1, 2, 3, 4]
    assert [event.header.prev for event in events] == ["", *(event.hash.hex() for event in events[:-1])]


async def test_a_run_that_is_reopened_goes_on_where_its_chain_ends(desk: Desk, rival: Desk) -> None:
    await desk.journal.append(await desk.begin("run-1"), draft(1))
    log, recorded = rival.journal.reopen("run-1")
    assert (log.tenant, log.run, [event.body for event in recorded]) == ("northwind", "run-1", [None, 1])
    await rival.journal.append(log, draft(2))
    assert desk.bodies("run-1") == [1, 2]


async def test_runs_do_not_share_a_chain_or_a_key(desk: Desk) -> None:
    logs = await desk.begin_all(3)
    await settled(desk, *(entry(log, f"{log.run} {i}") for i in range(3) for log in logs))
    for log in logs:
        assert desk.bodies(log.run) == [f"{log.run} {i}" for i in range(3)]
    other = desk.journal.reader.keys("run-1")
    with pytest.raises(StorageError, match="can't be decrypted"):
        desk.journal.reader.events("run-0", other)


async def test_a_run_that_does_not_exist_is_named(desk: Desk) -> None:
    for ask in (desk.journal.reopen, desk.events):
        with pytest.raises(RunError, match="`run-9`") as raised:
            ask("run-9")
        assert raised.value.code == "run_not_found"


async def test_commits_that_wait_together_share_a_few_transactions(desk: Desk) -> None:
    logs = await desk.begin_all(64)
    desk.writer.transactions = 0
    assert await settled(desk, *(entry(log, log.run) for log in logs)) == [log.run for log in logs]
    assert desk.writer.transactions <= 6
    assert all(desk.bodies(log.run) == [log.run] for log in logs)


async def test_workers_that_go_on_at_their_own_pace_share_transactions(desk: Desk) -> None:
    logs = await desk.begin_all(64)
    desk.writer.transactions = 0

    async def work(log: RunLog) -> None:
        for i in range(10):
            await desk.journal.commit(entry(log, i))

    await asyncio.gather(*(work(log) for log in logs))
    assert desk.writer.transactions <= 64
    assert all(desk.bodies(log.run) == list(range(10)) for log in logs)


class AtOnce(CountingWriter):
    """The real writer, counted, which commits at once where that can be done."""

    def write_at_once(self, locks: Locks, decide: Decide) -> bool:
        done = self._writer.write_at_once(locks, decide)
        self.transactions += done
        return done


async def test_those_who_wait_for_nothing_share_transactions_and_let_others_have_their_turn(desk: Desk) -> None:
    desk.writer = AtOnce(open_writer(desk.database))
    desk.journal = Journal(desk.database, vault=Vault(b"m" * 32), writer=desk.writer)
    before_the_bystander: list[int] = []

    async def work(number: int) -> None:
        log = await desk.begin(f"run-{number}")
        for i in range(4):
            await desk.journal.append(log, draft(i))

    async def bystander() -> None:
        before_the_bystander.append(desk.writer.transactions)

    await asyncio.gather(*(work(number) for number in range(64)), bystander())
    await desk.journal.close()
    assert before_the_bystander[0] <= 1
    assert desk.writer.transactions <= 20
    assert all(desk.bodies(f"run-{number}") == list(range(4)) for number in range(64))


async def test_a_thousand_that_wait_are_a_few_transactions_and_not_one_without_bounds(desk: Desk) -> None:
    logs = await desk.begin_all(20)
    desk.writer.transactions = 0
    many = [entry(logs[i % 20], i, charges=(charge(f"m{i}"),)) for i in range(1_100)]
    assert await settled(desk, *many) == list(range(1_100))
    assert 3 <= desk.writer.transactions <= 12


async def test_entries_of_one_run_keep_their_order(desk: Desk) -> None:
    log = await desk.begin("run-1")
    await settled(desk, *(entry(log, i) for i in range(50)))
    assert desk.bodies("run-1") == list(range(50))


async def test_closing_lets_what_is_waiting_become_durable(desk: Desk, rival: Desk) -> None:
    log = await rival.begin("run-1")
    commits = [asyncio.ensure_future(rival.journal.commit(entry(log, i))) for i in range(5)]
    await asyncio.sleep(0)
    await rival.journal.close()
    assert await asyncio.gather(*commits) == list(range(5))
    assert desk.bodies("run-1") == list(range(5))


async def test_of_two_workers_on_one_run_the_later_one_loses_and_leaves_nothing(desk: Desk, rival: Desk) -> None:
    log = await desk.begin("run-1")
    stale, _ = rival.journal.reopen("run-1")
    await desk.journal.append(log, draft("mine"))
    ready = Statement(sql="INSERT INTO meters (meter, state) VALUES ('beside', :state)", params={"state": b"\x80"})
    recording = Recording(value=None, drafts=[draft("theirs")], statements=[ready])
    lost = Entry(log=stale, record=lambda _: recording, charges=(charge("shared"),))
    for _ in range(2):
        with pytest.raises(FenceLost, match="`run-1`") as raised:
            await rival.journal.commit(lost)
        assert raised.value.code == "fence_lost"
    assert desk.bodies("run-1") == ["mine"]
    assert desk.rows("SELECT meter FROM meters WHERE meter = 'beside'") == []
    assert await used(desk, "shared") == 0
    # The winner goes on undisturbed.
    await desk.journal.append(log, draft("still mine"))
    assert desk.bodies("run-1") == ["mine", "still mine"]


async def used(desk: Desk, meter: str) -> int:
    """How much of a meter is used, asked with a charge that finds no room."""
    log = await desk.begin(f"asks-{len(desk.rows('SELECT run FROM run_keys'))}")
    found = await desk.reserve(log, charge(meter, amount=1, limit=0))
    assert isinstance(found, Exhausted)
    return found.used


async def test_two_workers_that_race_never_both_write_the_same_position(desk: Desk, rival: Desk) -> None:
    log = await desk.begin("run-1")
    stale, _ = rival.journal.reopen("run-1")
    ended = await asyncio.gather(
        desk.journal.commit(entry(log, "one")), rival.journal.commit(entry(stale, "other")), return_exceptions=True
    )
    won = [end for end in ended if isinstance(end, str)]
    assert len(won) == 1
    assert sum(isinstance(end, FenceLost) for end in ended) == 1
    assert desk.bodies("run-1") == won


async def test_a_loser_in_a_batch_does_not_take_the_others_with_it(desk: Desk, rival: Desk) -> None:
    mine = await desk.begin_all(5)
    taken, _ = rival.journal.reopen("run-2")
    await rival.journal.append(taken, draft("rival"))
    ended = await settled(desk, *(entry(log, log.run, charges=(charge("m"),)) for log in mine))
    assert [end if isinstance(end, str) else type(end) for end in ended] == [
        "run-0",
        "run-1",
        FenceLost,
        "run-3",
        "run-4",
    ]
    assert desk.bodies("run-2") == ["rival"]
    assert desk.bodies("run-4") == ["run-4"]
    assert await used(desk, "m") == 4


async def test_a_persons_decision_that_came_in_beside_is_taken_up(desk: Desk, rival: Desk) -> None:
    log = await desk.begin("run-1")
    beside, _ = rival.journal.reopen("run-1")
    await rival.journal.append(beside, draft({"case": "c"}, type_=EventType.APPROVAL_DECIDED))
    await rival.journal.append(beside, draft({"case": "d"}, type_=EventType.CASE_DECIDED))
    assert await settled(desk, entry(log, "next"), entry(await desk.begin("run-2"), "other")) == ["next", "other"]
    assert [event.body for event in log.arrived] == [{"case": "c"}, {"case": "d"}]
    assert desk.bodies("run-1") == [{"case": "c"}, {"case": "d"}, "next"]


async def test_a_decision_does_not_hide_another_worker(desk: Desk, rival: Desk) -> None:
    log = await desk.begin("run-1")
    other, _ = rival.journal.reopen("run-1")
    await rival.journal.append(other, draft("c", type_=EventType.APPROVAL_DECIDED), draft("theirs"))
    with pytest.raises(FenceLost):
        await desk.journal.commit(entry(log, "mine"))
    assert log.arrived == []
    assert desk.bodies("run-1") == ["c", "theirs"]


async def test_a_decision_from_beside_that_is_not_chained_is_not_taken_up(desk: Desk, rival: Desk) -> None:
    """Whoever writes to the database without the chain in hand: the event must name the one before it."""
    log = await desk.begin("run-1")
    beside, _ = rival.journal.reopen("run-1")
    beside.end = replace(beside.end, prev=b"\0" * 32)
    await rival.journal.append(beside, draft("forged", type_=EventType.APPROVAL_DECIDED))
    with pytest.raises(StorageError, match="chain of run `run-1` is broken at event 2") as raised:
        await desk.journal.commit(entry(log, "mine"))
    assert raised.value.code == "record_corrupt"
    assert log.arrived == []


async def test_a_new_run_whose_rows_are_taken_is_told_so(desk: Desk) -> None:
    await desk.begin("run-1")
    log, keys = desk.journal.start("northwind", "run-1")
    with pytest.raises(FenceLost):
        await desk.journal.append(log, draft(), statements=[keys])
    assert len(desk.events("run-1")) == 1


def broken_record(_: Reservation) -> Recording[Any]:
    raise ZeroDivisionError("not this one")


def refused_statement(params: dict[str, Any], sql: str = "") -> Statement:
    return Statement(sql=sql or "UPDATE runs SET outcome = :outcome, opened_at = :at", params=params)


BAD_ENTRIES: dict[str, tuple[Callable[[Reservation], Recording[Any]], type[Exception], str]] = {
    "an error of its own": (broken_record, ZeroDivisionError, "not this one"),
    "a body that can't be encoded": (
        lambda _: Recording(value=0, drafts=[draft({"x": object()})]),
        TypeError,
        "object",
    ),
    "a body that isn't Unicode": (lambda _: Recording(value=0, drafts=[draft("\ud800")]), UnicodeError, "surrogate"),
    "a text that isn't Unicode": (
        lambda _: Recording(value=0, statements=[refused_statement({"outcome": "\ud800", "at": 1})]),
        StorageError,
        "surrogate",
    ),
    "a number out of range": (
        lambda _: Recording(value=0, statements=[refused_statement({"outcome": "", "at": 2**70})]),
        StorageError,
        "does not accept",
    ),
    "a null where none may be": (
        lambda _: Recording(
            value=0,
            statements=[refused_statement({}, "INSERT INTO releases (release, tenant) VALUES ('r', NULL)")],
        ),
        StorageError,
        "does not accept",
    ),
    "a row that has changed": (
        lambda _: Recording(
            value=0, drafts=[draft()], statements=[Statement(sql="DELETE FROM cases", params={}, changes=1)]
        ),
        StorageError,
        "somebody else was faster",
    ),
}


@pytest.mark.parametrize("bad", BAD_ENTRIES.values(), ids=BAD_ENTRIES.keys())
async def test_an_entry_that_can_not_be_recorded_fails_alone(desk: Desk, bad: tuple[Any, type[Exception], str]) -> None:
    record, error, message = bad
    logs = await desk.begin_all(4)
    bad_entry = Entry(log=logs[1], record=record, charges=(charge("m"),))
    good = [entry(log, log.run, charges=(charge("m"),)) for log in logs]
    # One before it, one behind it on the same run, and the rest.
    with_it = await settled(desk, good[0], bad_entry, good[1], good[2], good[3])
    assert [end for end in with_it if isinstance(end, str)] == ["run-0", "run-1", "run-2", "run-3"]
    assert isinstance(with_it[1], error)
    assert message in str(with_it[1])
    with pytest.raises(error):
        await desk.journal.commit(bad_entry)
    assert [desk.bodies(log.run) for log in logs] == [["run-0"], ["run-1"], ["run-2"], ["run-3"]]
    assert await used(desk, "m") == 4


async def test_a_run_whose_key_was_destroyed_fails_alone(desk: Desk, rival: Desk) -> None:
    good = await desk.begin("run-1")
    await desk.begin("run-2")
    desk.execute(update(schema.run_keys).where(schema.run_keys.c.run == "run-2").values(body_key=None, sealed_key=None))
    erased, recorded = rival.journal.reopen("run-2")
    assert [event.body for event in recorded] == [None]
    ended = await settled(rival, entry(erased, 1), entry(rival.journal.reopen("run-1")[0], 2))
    assert (ended[0].code, ended[1]) == ("erased", 2)
    assert good.run == "run-1"


async def test_a_fault_of_the_writer_reaches_everybody_and_nobody_waits_for_ever(desk: Desk) -> None:
    logs = await desk.begin_all(3)
    desk.writer.broken = RuntimeError("a bug")
    unseen: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context["exception"]))
    ended = await asyncio.wait_for(settled(desk, *(entry(log, 1) for log in logs)), 10)
    assert [type(end) for end in ended] == [RuntimeError] * 3
    desk.writer.broken = None
    assert await settled(desk, *(entry(log, 2) for log in logs)) == [2, 2, 2]
    assert [desk.bodies(log.run) for log in logs] == [[2]] * 3


async def test_when_the_database_can_not_be_written_nobody_waits_for_the_others(desk: Desk) -> None:
    """Each of sixty-four that waits for a locked database by itself would have the last one wait for minutes."""
    logs = await desk.begin_all(20)
    desk.writer.transactions = 0
    desk.writer.broken = StorageError("can't write the record: database is locked")
    # More than one transaction takes: those behind have waited as long as those in it.
    many = settled(desk, *(entry(logs[i % 20], i) for i in range(1_100)))
    ended = await asyncio.wait_for(many, 30)
    assert {getattr(end, "code", "") for end in ended} == {"storage_unavailable"}
    assert desk.writer.transactions == 1
    desk.writer.broken = None
    assert await settled(desk, entry(logs[0], "again")) == ["again"]


async def test_what_was_given_up_by_its_caller_does_not_disturb_the_others(desk: Desk) -> None:
    log, other = await desk.begin("run-1"), await desk.begin("run-2")
    given_up = asyncio.ensure_future(desk.journal.commit(entry(log, "given up")))
    kept = asyncio.ensure_future(desk.journal.commit(entry(other, "kept")))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await kept == "kept"
    await desk.journal.append(log, draft("next"))
    assert desk.bodies("run-1")[-1] == "next"


async def test_the_transaction_sees_who_is_disabled_at_its_moment(desk: Desk) -> None:
    log = await desk.begin("run-1")
    desk.principal("agent/a", enabled=True)
    desk.principal("person/b", enabled=True)
    both = {"principals": ("agent/a", "person/b")}
    assert await desk.reserve(log, charge(), **both) == (await reserved_now(desk, log),)
    waiting = asyncio.ensure_future(desk.reserve(log, charge(), record="seen", **both))
    await asyncio.sleep(0)
    # It waits already; what is decided is what holds when it is recorded.
    desk.principal("person/b", enabled=False)
    assert await waiting == Disabled(principal="person/b")
    assert await desk.reserve(log, principals=("agent/unknown",)) == Disabled(principal="agent/unknown")
    desk.principal("person/b", enabled=True)
    assert not isinstance(await desk.reserve(log, charge(), **both), Disabled)
    assert await used(desk, "m") == 3


async def reserved_now(desk: Desk, log: RunLog) -> Reserved:
    """The same charge once more: in the same bucket as the one before, unless a minute has just ended."""
    found = await desk.reserve(log, charge())
    assert isinstance(found, tuple)
    return found[0]


async def test_who_is_disabled_reserves_nothing(desk: Desk) -> None:
    log = await desk.begin("run-1")
    desk.principal("agent/a", enabled=False)
    ended = await settled(
        desk,
        Entry(log=log, record=lambda r: Recording(value=r), charges=(charge(),), principals=("agent/a",)),
        Entry(log=log, record=lambda r: Recording(value=r), charges=(charge(limit=1),)),
    )
    assert ended[0] == Disabled(principal="agent/a")
    assert isinstance(ended[1], tuple)


async def test_entries_of_one_batch_share_what_room_there_is(desk: Desk) -> None:
    log = await desk.begin("run-1")
    ended = await settled(
        desk, *(Entry(log=log, record=lambda r: Recording(value=r), charges=(charge(limit=3),)) for _ in range(5))
    )
    assert [isinstance(end, Exhausted) for end in ended] == [False, False, False, True, True]
    assert ended[-1] == Exhausted(charge=charge(limit=3), used=3)


async def test_a_settlement_gives_back_in_the_transaction_that_records_the_outcome(desk: Desk) -> None:
    log = await desk.begin("run-1")
    taken = await desk.reserve(log, charge(amount=8))
    assert isinstance(taken, tuple)
    assert isinstance(await desk.reserve(log, charge(amount=5)), Exhausted)
    back = (Settlement(reserved=taken[0], amount=6),)
    with pytest.raises(ZeroDivisionError):
        await desk.journal.commit(Entry(log=log, record=broken_record, settlements=back))
    assert await used(desk, "m") == 8
    await desk.journal.commit(entry(log, "outcome", settlements=back))
    assert await used(desk, "m") == 2
    more = (Settlement(reserved=taken[0], amount=-5),)
    await desk.journal.commit(entry(log, "it cost more", settlements=more))
    assert await used(desk, "m") == 7


async def test_a_reservation_outlives_the_worker_that_made_it(desk: Desk, rival: Desk) -> None:
    log = await desk.begin("run-1")
    await desk.reserve(log, charge(amount=10))
    assert isinstance(await rival.reserve(await rival.begin("run-2"), charge()), Exhausted)


async def three_events(desk: Desk) -> list[Event]:
    log = await desk.begin("run-1")
    await desk.journal.append(log, draft(1), draft(2))
    return desk.events("run-1")


def broken(desk: Desk, match: str) -> None:
    for ask in (desk.events, desk.journal.reopen):
        with pytest.raises(StorageError, match=match) as raised:
            ask("run-1")
        assert raised.value.code == "record_corrupt"


def rewritten(event: Event, **changes: Any) -> dict[str, bytes]:
    header = json.dumps({**json.loads(json.dumps(to_builtins(event))), **changes}).encode()
    return {"header": header, "hash": leaf_hash(header)}


def to_builtins(event: Event) -> dict[str, Any]:
    fields = {name: getattr(event.header, name) for name in event.header.__struct_fields__}
    return {name: value for name, value in fields.items() if value not in ("", 0, {}) or name == "prev"}


async def test_an_event_that_was_rewritten_with_its_hash_breaks_the_chain_behind_it(desk: Desk) -> None:
    events = await three_events(desk)
    c = schema.events.c
    desk.execute(update(schema.events).where(c.n == 2).values(**rewritten(events[1], verdict="allow")))
    broken(desk, "broken at event 3")


async def test_an_event_that_was_taken_out_is_missed(desk: Desk) -> None:
    await three_events(desk)
    desk.execute(delete(schema.events).where(schema.events.c.n == 2))
    broken(desk, "broken at event 2")


async def test_a_first_event_that_was_taken_out_is_missed(desk: Desk) -> None:
    await three_events(desk)
    desk.execute(delete(schema.events).where(schema.events.c.n == 1))
    broken(desk, "broken at event 1")


async def test_a_run_without_any_event_is_no_empty_run(desk: Desk) -> None:
    await three_events(desk)
    desk.execute(delete(schema.events))
    broken(desk, "broken at event 1")


async def test_events_that_changed_places_are_found(desk: Desk) -> None:
    await three_events(desk)
    table = schema.events
    for old, new in ((2, 9), (3, 2), (9, 3)):
        desk.execute(update(table).where(table.c.n == old).values(n=new))
    broken(desk, "columns disagree")


async def test_a_body_of_another_event_is_found(desk: Desk) -> None:
    await three_events(desk)
    table = schema.events
    with desk.database.engine.begin() as connection:
        body = connection.execute(select(table.c.body).where(table.c.n == 3)).scalar_one()
        connection.execute(update(table).where(table.c.n == 2).values(body=body))
    broken(desk, "can't be decrypted")


async def test_keys_of_another_run_are_found(desk: Desk) -> None:
    await three_events(desk)
    await desk.begin("run-2")
    table = schema.run_keys
    with desk.database.engine.begin() as connection:
        key = connection.execute(select(table.c.body_key).where(table.c.run == "run-2")).scalar_one()
        connection.execute(update(table).where(table.c.run == "run-1").values(body_key=key))
    with pytest.raises(StorageError, match="another master key") as raised:
        desk.events("run-1")
    assert raised.value.code == "master_key_wrong"


async def test_another_master_key_opens_no_run(desk: Desk) -> None:
    await three_events(desk)
    other = Journal(desk.database, vault=Vault(b"n" * 32))
    with pytest.raises(StorageError) as raised:
        other.reopen("run-1")
    assert raised.value.code == "master_key_wrong"
    await other.close()


async def test_nothing_personal_or_secret_is_in_the_database_in_the_clear(desk: Desk) -> None:
    log = await desk.begin("run-1")
    await desk.journal.append(log, draft({"to": "Ann Example"}, sealed={"to": "ann@corp.example"}))
    for table in ("events", "run_keys"):
        stored = repr(desk.rows(f"SELECT * FROM {table}"))
        assert "Ann" not in stored
        assert "ann@" not in stored
    if desk.database.is_sqlite:
        on_disk = b"".join(path.read_bytes() for path in desk.database.path.parent.glob("remit.db*"))
        assert b"run-1" in on_disk
        assert b"Ann Example" not in on_disk
        assert b"ann@corp" not in on_disk


def test_the_first_place_is_one_behind_nothing() -> None:
    assert (START.n, START.prev) == (1, b"")

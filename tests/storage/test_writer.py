"""The one way to write: read under lock, decide, write all or nothing. The same on both databases."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from sqlalchemy import insert, text

from remit.errors import StorageError
from remit.storage import schema
from remit.storage.database import Database, open_database
from remit.storage.writer import Collision, LockedState, Locks, Rows, Statement, Write, Writer, open_writer

pytestmark = pytest.mark.anyio

NOTHING = Locks(meters=(), principals=())
UPSERT = (
    "INSERT INTO meters (meter, state) VALUES (:meter, :state) ON CONFLICT (meter) DO UPDATE SET state = excluded.state"
)
INSERT = "INSERT INTO meters (meter, state) VALUES (:meter, :state)"


class Store:
    """The database under test with writers on it, each on a connection of its own as in two processes."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.writers: list[Writer] = []
        self.writer = self.another()

    def another(self) -> Writer:
        self.writers.append(open_writer(self.database))
        return self.writers[-1]

    async def write(self, *statements: Write) -> None:
        await self.writer.write(NOTHING, lambda _: statements)

    def meters(self) -> dict[str, bytes]:
        with self.database.engine.connect() as connection:
            rows = connection.execute(text("SELECT meter, state FROM meters"))
            return {row[0]: bytes(row[1]) for row in rows}

    def principals(self, **enabled: bool) -> None:
        rows = [
            {"principal": name, "tenant": "t", "kind": "agent", "enabled": on, "updated_at": 0}
            for name, on in enabled.items()
        ]
        with self.database.engine.begin() as connection:
            connection.execute(insert(schema.principals), rows)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    store = Store(open_database(database_url))
    yield store
    for writer in store.writers:
        await writer.close()
    store.database.close()


def meter(name: str, state: bytes = b"s", sql: str = INSERT, **more: Any) -> Statement:
    return Statement(sql=sql, params={"meter": name, "state": state}, **more)


async def test_what_was_decided_is_written(store: Store) -> None:
    many = Rows(table="meters", columns=("meter", "state"), rows=[(f"many-{i}", bytes([i])) for i in range(3)])
    await store.write(meter("one"), many)
    assert store.meters() == {"one": b"s", "many-0": b"\0", "many-1": b"\1", "many-2": b"\2"}


async def test_an_empty_decision_is_no_error(store: Store) -> None:
    await store.write()
    assert store.meters() == {}


async def test_the_decision_knows_the_meters_and_who_is_enabled(store: Store) -> None:
    store.principals(on=True, off=False)
    await store.write(meter("m", b"state"))
    asked: list[LockedState] = []

    def decide(found: LockedState) -> Sequence[Statement]:
        asked.append(found)
        return ()

    await store.writer.write(Locks(meters=("m", "new"), principals=("on", "off", "unknown")), decide)
    (found,) = asked
    assert found.enabled == {"on"}
    assert found.meters["m"] == b"state"
    # One that nobody has used: absent, or msgpack's empty map where its row had to be made to be locked.
    assert found.meters.get("new", b"\x80") == b"\x80"


async def test_a_decision_that_raises_leaves_nothing_and_the_writer_goes_on(store: Store) -> None:
    def decide(_: LockedState) -> Sequence[Statement]:
        raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError):
        await store.writer.write(Locks(meters=("m",), principals=()), decide)
    await store.write(meter("after"))
    assert {"m", "after"} >= store.meters().keys() >= {"after"}


async def test_a_row_that_is_there_already_is_a_collision_and_nothing_is_written(store: Store) -> None:
    await store.write(meter("taken"))
    with pytest.raises(Collision):
        await store.write(meter("before"), meter("taken"), meter("behind"))
    with pytest.raises(Collision):
        await store.write(Rows(table="meters", columns=("meter", "state"), rows=[(m, b"") for m in ("a", "taken", "b")]))
    assert store.meters().keys() == {"taken"}
    await store.write(meter("after"))
    assert store.meters().keys() == {"taken", "after"}


async def test_the_writer_goes_on_after_each_kind_of_failure(store: Store) -> None:
    def refuse(_found: LockedState) -> Sequence[Write]:
        raise ValueError("no")

    locks = Locks(meters=("m",), principals=("p",))
    gone = Statement(sql="DELETE FROM meters WHERE meter = :meter", params={"meter": "not there"}, changes=1)
    for number in range(6):
        await store.writer.write(locks, lambda _, number=number: [meter(f"m{number}"), meter("x", sql=UPSERT)])
        with pytest.raises(Collision):
            await store.write(meter("m0"), meter("behind"))
        await store.writer.write(locks, lambda _: [meter("y", sql=UPSERT), meter("z", sql=UPSERT)])
        with pytest.raises(StorageError):
            await store.write(meter("before"), gone)
        await store.writer.write(locks, lambda _: [meter("y", sql=UPSERT)])
        with pytest.raises(ValueError, match="no"):
            await store.writer.write(locks, refuse)
    assert store.meters().keys() >= {"m5", "x", "y", "z"}


async def test_a_change_that_finds_another_number_of_rows_fails_as_a_whole(store: Store) -> None:
    await store.write(meter("m"))
    gone = Statement(sql="DELETE FROM meters WHERE meter = :meter", params={"meter": "not there"}, changes=1)
    with pytest.raises(StorageError) as raised:
        await store.write(meter("before"), gone, meter("behind"))
    assert raised.value.code == "row_changed"
    assert store.meters().keys() == {"m"}


async def test_statements_are_carried_out_in_their_order_whether_they_are_counted_or_not(store: Store) -> None:
    update = "UPDATE meters SET state = :state WHERE meter = :meter"
    await store.write(
        meter("m", b"1"),
        meter("m", b"2", update, changes=1),
        meter("m", b"3", update),
        meter("m", b"4", "UPDATE meters SET state = :state WHERE meter = :meter AND meter = 'other'", changes=0),
        Statement(sql="DELETE FROM meters WHERE meter = :meter", params={"meter": "m"}, changes=1),
        meter("m", b"5"),
        meter("m", b"6", update, changes=1),
    )
    assert store.meters() == {"m": b"6"}


REFUSED = {
    "a null": meter("null", sql="INSERT INTO meters (meter) VALUES (:meter)"),
    "no Unicode": meter("\ud800"),
    "too large a number": Statement(sql="UPDATE runs SET opened_at = :n", params={"n": 2**63}),
}


@pytest.mark.parametrize("statement", REFUSED.values(), ids=REFUSED.keys())
async def test_what_a_database_does_not_accept_is_told_apart_from_one_that_can_not_be_written(
    store: Store, statement: Statement
) -> None:
    with pytest.raises(StorageError) as raised:
        await store.write(meter("before"), statement)
    assert raised.value.code == "record_refused"
    await store.write(meter("after"))
    assert store.meters().keys() == {"after"}


async def add_marks(writer: Writer, name: str, times: int) -> None:
    """Read, add a mark, write back: a mark is lost wherever somebody else overwrites it."""
    for _ in range(times):
        locks = Locks(meters=(name,), principals=())
        await writer.write(locks, lambda found: [meter(name, found.meters.get(name, b"\x80") + b"x", UPSERT)])


@pytest.mark.parametrize("exists", [True, False])
async def test_what_is_read_under_lock_stays_true_until_the_commit(store: Store, *, exists: bool) -> None:
    if exists:
        await store.write(meter("m", b"\x80"))
    await asyncio.gather(*(add_marks(store.another(), "m", 25) for _ in range(4)))
    assert store.meters()["m"] == b"\x80" + b"x" * 100


async def test_meters_are_locked_whatever_order_they_are_named_in(store: Store) -> None:
    names = [f"m{i}" for i in range(6)]

    async def work(writer: Writer, order: list[str]) -> None:
        for _ in range(15):
            locks = Locks(meters=tuple(order), principals=())
            await writer.write(locks, lambda found: [meter(m, found.meters.get(m, b"") + b"x", UPSERT) for m in order])

    orders = [names, names[::-1], names[3:] + names[:3]]
    await asyncio.gather(*(work(store.another(), order) for order in orders))
    assert {state.lstrip(b"\x80") for state in store.meters().values()} == {b"x" * 45}


async def test_transactions_that_wait_for_each_other_are_both_carried_out(store: Store) -> None:
    """A deadlock is nobody's fault: the one that the server gives up is decided anew and goes through."""
    if store.database.is_sqlite:
        pytest.skip("there is one lock, so nobody can wait for another's")
    store.principals(a=False, b=False)
    asked = 0

    def crossing(first: str, second: str) -> Any:
        def decide(_: LockedState) -> Sequence[Statement]:
            nonlocal asked
            asked += 1
            add = "UPDATE principals SET updated_at = updated_at + 1 WHERE principal = :principal"
            return [
                Statement(sql=add, params={"principal": first}),
                Statement(sql="SELECT pg_sleep(0.2)", params={}),
                Statement(sql=add, params={"principal": second}, changes=1),
            ]

        return decide

    await asyncio.gather(
        store.another().write(NOTHING, crossing("a", "b")), store.another().write(NOTHING, crossing("b", "a"))
    )
    assert asked == 3
    with store.database.engine.connect() as connection:
        assert connection.execute(text("SELECT DISTINCT updated_at FROM principals")).scalars().all() == [2]


def waits(database: Database, backend: int) -> bool:
    """Whether the connection of that process waits for a lock that somebody else holds."""
    query = text("SELECT count(*) FROM pg_locks WHERE pid = :pid AND NOT granted")
    with database.engine.connect() as connection:
        return connection.execute(query, {"pid": backend}).scalar_one() > 0


class Disabling(threading.Thread):
    """Somebody who disables a principal on a connection of their own, in a thread because they may have to wait."""

    def __init__(self, database: Database, principal: str) -> None:
        super().__init__()
        self._database = database
        self._principal = principal
        self.backends: queue.Queue[int] = queue.Queue()

    def run(self) -> None:
        disable = text("UPDATE principals SET enabled = false WHERE principal = :principal")
        with self._database.engine.begin() as connection:
            self.backends.put(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
            connection.execute(disable, {"principal": self._principal})

    def has_to_wait(self) -> bool:
        """Whether they wait for a lock; false once they are done without."""
        backend = self.backends.get(timeout=20)
        while self.is_alive():
            if waits(self._database, backend):
                return True
        return False


async def test_nobody_is_disabled_between_the_reading_of_their_state_and_the_commit(store: Store) -> None:
    if store.database.is_sqlite:
        pytest.skip("there is one lock, so nobody else can write meanwhile")
    store.principals(a=True)
    disabling = Disabling(store.database, "a")
    waited: list[bool] = []

    def decide(found: LockedState) -> Sequence[Statement]:
        assert found.enabled == {"a"}
        disabling.start()
        waited.append(disabling.has_to_wait())
        return [meter("done")]

    await store.writer.write(Locks(meters=(), principals=("a",)), decide)
    await asyncio.to_thread(disabling.join, 20)
    assert waited == [True]
    assert store.meters() == {"done": b"s"}
    # What they wanted holds from the next transaction on.
    asked: list[LockedState] = []
    await store.writer.write(Locks(meters=(), principals=("a",)), lambda found: asked.append(found) or ())
    assert asked[0].enabled == frozenset()


async def test_a_closed_writer_opens_again_when_it_is_needed(store: Store) -> None:
    await store.write(meter("one"))
    await store.writer.close()
    await store.writer.close()
    await store.write(meter("two"))
    assert store.meters().keys() == {"one", "two"}


async def test_a_text_with_a_colon_is_not_taken_for_a_parameter(store: Store) -> None:
    await store.write(meter("a:state %s %(x)s ::text"))
    assert store.meters().keys() == {"a:state %s %(x)s ::text"}


async def test_more_than_a_socket_takes_at_once_is_written_and_read(store: Store) -> None:
    large = {f"m{i}": bytes([i]) * 3_000_000 for i in range(4)}
    await store.write(Rows(table="meters", columns=("meter", "state"), rows=list(large.items())))
    asked: list[LockedState] = []

    def decide(found: LockedState) -> Sequence[Statement]:
        asked.append(found)
        return ()

    await store.writer.write(Locks(meters=tuple(large), principals=()), decide)
    assert asked[0].meters == large


async def test_a_text_with_the_character_nul_is_refused_where_the_database_has_none(store: Store) -> None:
    if store.database.is_sqlite:
        pytest.skip("SQLite has such texts")
    row = Rows(table="meters", columns=("meter", "state"), rows=[("a\0b", b"s")])
    for write in (meter("a\0b"), row):
        with pytest.raises(StorageError) as raised:
            await store.write(meter("before"), write)
        assert raised.value.code == "record_refused"
    await store.write(meter("after"))
    assert store.meters().keys() == {"after"}


async def test_a_writer_that_is_cancelled_while_it_waits_writes_nothing_and_goes_on(store: Store) -> None:
    if store.database.is_sqlite:
        pytest.skip("there a write is never waited for in the middle")
    await store.write(meter("m", b"\x80"))
    begun = asyncio.Event()

    def held(_found: LockedState) -> Sequence[Write]:
        begun.set()
        return [Statement(sql="SELECT pg_sleep(0.3)", params={}), meter("m", b"held", UPSERT)]

    locks = Locks(meters=("m",), principals=())
    holding = asyncio.ensure_future(store.another().write(locks, held))
    await begun.wait()
    waiting = asyncio.ensure_future(store.writer.write(locks, lambda _: [meter("never")]))
    await asyncio.wait({waiting}, timeout=0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await holding
    await store.write(meter("after"))
    assert store.meters() == {"m": b"held", "after": b"s"}

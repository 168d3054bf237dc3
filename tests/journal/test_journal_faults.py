"""The journal when something breaks: killed writers, locked, full, read-only and damaged databases, servers that stop.

Whatever was acknowledged is there, nothing else has happened, the error says so, and the journal goes on afterwards.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import text

from remit.errors import RemitError, RunError, StorageError
from remit.journal.events import Draft, EventType
from remit.journal.journal import Entry, Journal, Recording, Reservation, RunLog
from remit.journal.vault import Vault
from remit.limits.meters import Charge, Exhausted, Quantity
from remit.storage.database import BUSY_MS, Database, open_database
from remit.storage.writer import Statement

pytestmark = pytest.mark.anyio

DAY_MS = 86_400_000
_spawning = multiprocessing.get_context("spawn")


@asynccontextmanager
async def opened(database: Database) -> AsyncGenerator[Journal]:
    journal = Journal(database, vault=Vault(b"m" * 32))
    try:
        yield journal
    finally:
        await journal.close()
        database.close()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_database(database_url)
    yield database
    database.close()


@pytest.fixture
async def journal(database: Database) -> AsyncIterator[Journal]:
    async with opened(database) as journal:
        yield journal


def draft(body: Any = None) -> Draft:
    return Draft(type=EventType.VALUE_RECORDED, actor="agent/northwind/desk", body=body)


async def begin(journal: Journal, run: str) -> RunLog:
    log, keys = journal.start("northwind", run)
    await journal.append(log, draft(), statements=[keys])
    return log


def bodies(journal: Journal, run: str = "run-1") -> list[Any]:
    """What is on record, read as a reader of another process would: the chain is checked from its start."""
    return [event.body for event in journal.reader.events(run)[1:]]


async def failing(journal: Journal, log: RunLog, body: Any = "never") -> str:
    """Recording fails with an error that says so; nothing of it is recorded."""
    with pytest.raises(StorageError) as raised:
        await journal.append(log, draft(body))
    assert raised.value.code == "storage_unavailable"
    return raised.value.message


class Child:
    """A process of our own that reports what it has done, line by line."""

    def __init__(self, work: Callable[..., None], *args: Any) -> None:
        self._reports, theirs = _spawning.Pipe(duplex=False)
        self._process = _spawning.Process(target=work, args=(*args, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def next(self) -> Any:
        """The next report; fails after a time that is only reached when it hangs."""
        assert self._reports.poll(60), "the process says nothing"
        return self._reports.recv()

    def rest(self) -> list[Any]:
        """All further reports until the process has ended."""
        reports: list[Any] = []
        try:
            while True:
                reports.append(self.next())
        except EOFError:
            return reports

    def kill(self) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)

    def end(self) -> int | None:
        self._process.join(60)
        code = self._process.exitcode
        self._process.close()
        self._reports.close()
        return code


# A killed writer.


def append_without_end(url: str, runs: list[str], reports: Connection) -> None:
    """Append to several runs at once and report each event once it is acknowledged."""

    async def work(journal: Journal, run: str) -> None:
        log, recorded = journal.reopen(run)
        n = len(recorded)
        while True:
            await journal.append(log, draft(n), draft("x" * (n % 7) * 1000))
            reports.send((run, n))
            n += 2

    async def main() -> None:
        async with opened(open_database(url)) as journal:
            await asyncio.gather(*(work(journal, run) for run in runs))

    asyncio.run(main())


@pytest.mark.parametrize("kill_after", [1, 40, 150])
async def test_a_writer_that_is_killed_leaves_whole_chains_with_all_that_was_acknowledged(
    journal: Journal, database_url: str, kill_after: int
) -> None:
    runs = [f"run-{i}" for i in range(4)]
    for run in runs:
        await begin(journal, run)
    child = Child(append_without_end, database_url, runs)
    acknowledged = dict([child.next() for _ in range(kill_after)])
    child.kill()
    acknowledged.update(child.rest())
    assert child.end() == -signal.SIGKILL
    for run in runs:
        log, recorded = journal.reopen(run)
        # Two events were recorded at once: never one without the other.
        assert len(recorded) % 2 == 1
        assert len(recorded) >= acknowledged.get(run, -1) + 2
        assert [event.body for event in recorded[1::2]] == list(range(1, len(recorded), 2))
        await journal.append(log, draft("goes on"))
        assert bodies(journal, run)[-1] == "goes on"


# Limits that processes share.

SHARED = 60
EACH = 40


def spend(url: str, name: str, start: Barrier, reports: Connection) -> None:
    """Take from meters that all share, several at a time and in an order of one's own, and report what was taken."""

    def keep(reservation: Reservation) -> Recording[Reservation]:
        return Recording(value=reservation, drafts=[draft(type(reservation).__name__)])

    async def main() -> None:
        async with opened(open_database(url)) as journal:
            logs = [await begin(journal, f"{name}-{i}") for i in range(4)]
            start.wait(60)
            ended = await asyncio.gather(
                *(journal.commit(Entry(log=logs[i % 4], record=keep, charges=charges(name, i))) for i in range(EACH))
            )
            reports.send(sum(not isinstance(end, Exhausted) for end in ended))

    asyncio.run(main())


def charges(name: str, i: int) -> tuple[Charge, ...]:
    """One scarce meter, one wide one, and some that nobody has used before: rows that must be made first."""
    taken = [
        Charge(meter="scarce", quantity=Quantity.CALLS, label="scarce", limit=SHARED, window_ms=DAY_MS, amount=1),
        Charge(meter="wide", quantity=Quantity.CALLS, label="wide", limit=10_000, window_ms=DAY_MS, amount=3),
        Charge(meter=f"new-{i % 9}", quantity=Quantity.CALLS, label="new", limit=10_000, window_ms=DAY_MS, amount=1),
        Charge(meter=f"a-{i % 5}", quantity=Quantity.CALLS, label="new", limit=10_000, window_ms=DAY_MS, amount=1),
    ]
    return tuple(taken if name < "c" else reversed(taken))


async def test_processes_that_share_a_limit_never_take_more_than_there_is(
    journal: Journal, database: Database, database_url: str
) -> None:
    start = _spawning.Barrier(4)
    children = [Child(spend, database_url, name, start) for name in "abcd"]
    reports = [child.rest() for child in children]
    assert [child.end() for child in children] == [0] * 4
    # Exactly what there is: more would be an overrun, less a refusal without a reason.
    assert sum(taken for (taken,) in reports) == SHARED
    with database.engine.connect() as connection:
        runs = connection.execute(text("SELECT run FROM run_keys")).scalars().all()
    recorded = [body for run in runs for body in bodies(journal, run)]
    assert (len(recorded), recorded.count("tuple")) == (4 * EACH, SHARED)


# Somebody else holds the lock.


@asynccontextmanager
async def locked(database: Database) -> AsyncGenerator[None]:
    """Another process (to the database that is what another connection is) writes and does not end."""
    with database.engine.connect() as connection:
        if database.is_sqlite:
            connection.execute(text("BEGIN IMMEDIATE"))
        else:
            connection.execute(text("LOCK TABLE events IN EXCLUSIVE MODE"))
        yield
        connection.rollback()


async def test_a_database_that_stays_locked_is_said_so_to_all_at_once_and_serves_again(
    journal: Journal, database: Database
) -> None:
    logs = [await begin(journal, f"run-{i}") for i in range(40)]
    loop = asyncio.get_running_loop()
    async with locked(database):
        began = loop.time()
        ticks = asyncio.ensure_future(ticking())
        ended = await asyncio.gather(*(failing(journal, log) for log in logs))
        waited_ms = (loop.time() - began) * 1000
        ticks.cancel()
    assert all("another process holds the" in message for message in ended)
    # Not one after the other: forty times the wait would be minutes.
    assert BUSY_MS * 0.9 <= waited_ms < 4 * BUSY_MS
    # And meanwhile the loop went on.
    assert await asyncio.gather(ticks, return_exceptions=True) != [0]
    await asyncio.gather(*(journal.append(log, draft("again")) for log in logs))
    assert [bodies(journal, log.run) for log in logs] == [["again"]] * 40


async def ticking() -> int:
    """How often the loop came round."""
    count = 0
    try:
        while True:
            await asyncio.sleep(0.01)
            count += 1
    except asyncio.CancelledError:
        return count


async def test_a_lock_that_is_given_back_in_time_costs_only_the_wait(journal: Journal, database: Database) -> None:
    log = await begin(journal, "run-1")
    async with locked(database):
        waiting = asyncio.ensure_future(journal.append(log, draft("patient")))
        assert await asyncio.wait([waiting], timeout=0.2) == (set(), {waiting})
    await waiting
    assert bodies(journal) == ["patient"]


# What a file can suffer.


def sqlite_only(database_url: str) -> Path:
    if not database_url.startswith("sqlite:"):
        pytest.skip("about a file; servers have their own tests")
    return Path(database_url.removeprefix("sqlite:"))


async def test_a_database_whose_folder_is_gone_records_nothing_and_says_so(journal: Journal, database_url: str) -> None:
    """The file that is still open would take everything, durable nowhere."""
    path = sqlite_only(database_url)
    log = await begin(journal, "run-1")
    folder, aside = path.parent, path.parent.parent / "aside"
    shutil.move(folder, aside)
    assert "put the database's file back" in await failing(journal, log)
    shutil.move(aside, folder)
    await journal.append(log, draft("back"))
    assert bodies(journal) == ["back"]
    shutil.rmtree(folder)
    assert "put the database's file back" in await failing(journal, log)


async def test_a_database_whose_file_was_replaced_records_nothing_in_either(
    journal: Journal, database_url: str, tmp_path: Path
) -> None:
    path = sqlite_only(database_url)
    log = await begin(journal, "run-1")
    other = open_database(f"sqlite:{tmp_path / 'other.db'}")
    other.close()
    before = path.stat().st_size
    path.rename(tmp_path / "moved.db")
    (tmp_path / "other.db").rename(path)
    assert "is another file now" in await failing(journal, log)
    assert (tmp_path / "moved.db").stat().st_size == before


async def test_a_deleted_file_is_not_made_anew_without_its_tables(database: Database, database_url: str) -> None:
    path = sqlite_only(database_url)
    database.engine.dispose()
    path.unlink()
    async with opened(database) as journal:
        log, keys = journal.start("northwind", "run-1")
        with pytest.raises(StorageError, match="unable to open"):
            await journal.append(log, draft(), statements=[keys])
    assert not path.exists()


def as_nobody(url: str, reports: Connection) -> None:
    """Try to record as somebody who may read and not write; root may do everything, so it becomes somebody else."""

    async def main() -> None:
        async with opened(open_database(url)) as journal:
            log, recorded = journal.reopen("run-1")
            reports.send([event.body for event in recorded])
            try:
                await journal.append(log, draft("never"))
            except RemitError as error:
                reports.send((error.code, error.message))

    if os.geteuid() == 0:
        os.seteuid(65534)
    asyncio.run(main())


def nobody_may_write(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that everybody may look into, for a database that nobody but its owner may write."""
    folder = Path(f"/tmp/remit-{os.urandom(6).hex()}")  # the folders of pytest are private
    folder.mkdir(mode=0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


async def test_a_file_that_may_only_be_read_is_read_and_not_written(shared_folder: Path, database_url: str) -> None:
    sqlite_only(database_url)
    url = f"sqlite:{shared_folder / 'remit.db'}"
    # Left open: a reader needs the files beside it, and may not make them.
    async with opened(open_database(url)) as journal:
        await begin(journal, "run-1")
        nobody_may_write(shared_folder)
        child = Child(as_nobody, url)
        reports = child.rest()
        child.end()
        assert reports[0] == [None]
        code, message = reports[1]
        assert code == "storage_unavailable"
        assert "make the file and its folder writable for this user" in message
        assert bodies(journal) == []


def until_full(url: str, limit_bytes: int, reports: Connection) -> None:
    """Append until no byte more may be written, then with room again. Reports what was acknowledged and the error."""

    async def main() -> None:
        async with opened(open_database(url)) as journal:
            log, _ = journal.reopen("run-1")
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
            n = 0
            try:
                while n < 10_000:
                    await journal.append(log, draft([n, os.urandom(2_000).hex()]))
                    n += 1
            except RemitError as error:
                reports.send((n, error.code, error.message))
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            await journal.append(log, draft([n, "again"]))
            reports.send("again")

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    asyncio.run(main())


async def test_a_disk_that_is_full_loses_nothing_and_serves_again(journal: Journal, database_url: str) -> None:
    path = sqlite_only(database_url)
    await begin(journal, "run-1")
    child = Child(until_full, database_url, path.stat().st_size + 500_000)
    (acknowledged, code, message), again = child.rest()
    assert child.end() == 0
    assert code == "storage_unavailable"
    assert "free some space" in message or "look at the disk" in message
    assert again == "again"
    assert acknowledged > 10
    assert [n for n, _ in bodies(journal)] == list(range(acknowledged + 1))


@pytest.fixture
async def recorded(database: Database, database_url: str) -> Path:
    """A database with something in it, closed."""
    path = sqlite_only(database_url)
    async with opened(database) as journal:
        log = await begin(journal, "run-1")
        for i in range(50):
            await journal.append(log, draft([i, os.urandom(500).hex()]))
    assert [each.name for each in path.parent.glob("remit.db*")] == ["remit.db"]
    return path


async def use(path: Path) -> None:
    """Open, read and write: whatever is damaged, one of them meets it."""
    async with opened(open_database(f"sqlite:{path}")) as journal:
        log, events = journal.reopen("run-1")
        assert [event.body[0] for event in events[1:]] == list(range(50))
        await journal.append(log, draft("more"))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "head": lambda data: b"\xff" * 100 + data[100:],
    "tables": lambda data: data[:4096] + os.urandom(len(data) - 4096),
    "whole": lambda data: os.urandom(len(data)),
    "half": lambda data: data[: len(data) // 2],
    "text": lambda data: b"# remit\n" * 1000,
}


def change(path: Path, changed: Callable[[bytes], bytes]) -> None:
    path.write_bytes(changed(path.read_bytes()))


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_file_is_named_and_never_taken_for_a_sound_one(recorded: Path, damage: str) -> None:
    change(recorded, DAMAGE[damage])
    with pytest.raises(StorageError, match="restore it from a backup") as raised:
        await use(recorded)
    assert raised.value.code == "storage_unavailable"


async def test_an_empty_file_is_an_empty_database(recorded: Path) -> None:
    change(recorded, lambda _: b"")
    with pytest.raises(RunError) as raised:
        await use(recorded)
    assert raised.value.code == "run_not_found"


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


async def test_a_byte_that_flips_on_the_disk_is_found_or_is_none_of_the_record(recorded: Path) -> None:
    """Wherever it falls, reading gives exactly what was recorded or an error."""
    codes: list[str] = []
    size = os.stat(recorded).st_size  # noqa: PTH116 - the other way is for threads only
    for at in range(size // 3, size, 4_999):
        change(recorded, flipped(at))
        try:
            await read_only(recorded)
        except RemitError as error:
            codes.append(error.code)
        change(recorded, flipped(at))
    await use(recorded)
    # Some fall into free space, or into indexes that this reader does not need.
    assert len(codes) > 5
    assert set(codes) <= {"storage_unavailable", "record_corrupt", "master_key_wrong"}


async def read_only(path: Path) -> None:
    async with opened(open_database(f"sqlite:{path}")) as journal:
        _, events = journal.reopen("run-1")
        assert [event.body[0] for event in events[1:]] == list(range(50))


# What a server can suffer.


def postgres_only(database_url: str) -> None:
    if database_url.startswith("sqlite:"):
        pytest.skip("about a server; files have their own tests")


async def test_a_server_that_only_reads_is_told_apart_from_one_that_writes(
    database: Database, database_url: str
) -> None:
    postgres_only(database_url)
    name = database.url.database
    async with opened(database) as journal:
        log = await begin(journal, "run-1")
        await journal.close()
        with database.engine.begin() as connection:
            connection.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
        assert "the server only reads now" in await failing(journal, log)
        await journal.close()
        with database.engine.begin() as connection:
            connection.execute(text("SET TRANSACTION READ WRITE"))
            connection.execute(text(f'ALTER DATABASE "{name}" RESET default_transaction_read_only'))
        await journal.close()
        await journal.append(log, draft("again"))
        assert bodies(journal) == ["again"]


async def test_what_is_acknowledged_is_durable_whatever_the_server_is_set_to(
    database: Database, database_url: str
) -> None:
    postgres_only(database_url)
    with database.engine.begin() as connection:
        connection.execute(text(f'ALTER DATABASE "{database.url.database}" SET synchronous_commit = off'))
        connection.execute(text("CREATE TABLE asked (setting text)"))
    async with opened(database) as journal:
        log = await begin(journal, "run-1")
        ask = Statement(sql="INSERT INTO asked SELECT current_setting('synchronous_commit')", params={})
        await journal.append(log, statements=[ask])
        with database.engine.connect() as connection:
            assert connection.execute(text("SELECT setting FROM asked")).scalars().all() == ["on"]


class Server:
    """A Postgres server of our own, to stop and start at will."""

    def __init__(self, home: Path) -> None:
        on_path = shutil.which("pg_ctl")
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        if on_path is None and not folders:
            pytest.skip("no PostgreSQL programs here; the server comes from elsewhere")
        self._binaries = Path(on_path).parent if on_path else folders[0]
        self._home = home
        self._home.mkdir(mode=0o777)
        self._home.chmod(0o777)
        self.running = False
        self.url = f"postgresql://remit@/postgres?host={quote(str(home))}"
        self._run("initdb", "-D", str(home / "data"), "-A", "trust", "-U", "remit", "--no-sync")

    def start(self) -> None:
        options = f"-k '{self._home}' -c listen_addresses=''"
        self._run("pg_ctl", "-D", str(self._home / "data"), "-o", options, "-l", str(self._home / "log"), "-w", "start")
        self.running = True

    def stop(self) -> None:
        """Without a word to anybody, as when it crashes."""
        if self.running:
            self._run("pg_ctl", "-D", str(self._home / "data"), "-m", "immediate", "-w", "stop")
            self.running = False

    def _run(self, program: str, *arguments: str) -> None:
        user: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
        subprocess.run(
            [self._binaries / program, *arguments], check=True, cwd=self._home, stdout=subprocess.DEVNULL, **user
        )


@pytest.fixture
def server(database_url: str) -> Iterator[Server]:
    postgres_only(database_url)
    # A socket's path is short, and open to the server's user; and this one has to be quoted everywhere.
    home = Path(f"/tmp/remit +%{os.urandom(4).hex()}")
    server = Server(home)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(home)


async def test_a_server_that_stops_in_the_middle_loses_nothing_that_was_acknowledged(server: Server) -> None:
    async with opened(open_database(server.url)) as journal:
        logs = [await begin(journal, f"run-{i}") for i in range(4)]
        acknowledged: dict[str, int] = {}
        enough = asyncio.Event()

        async def work(log: RunLog) -> None:
            for n in itertools.count():
                await journal.append(log, draft(n))
                acknowledged[log.run] = n
                if n == 50:
                    enough.set()

        working = asyncio.gather(*(work(log) for log in logs), return_exceptions=True)
        await enough.wait()
        await asyncio.to_thread(server.stop)
        ended = await working
        assert [getattr(end, "code", end) for end in ended] == ["storage_unavailable"] * 4
        assert "start the server" in await failing(journal, logs[0])
        server.start()
        for run, last in acknowledged.items():
            # A commit that was under way when the server stopped may have come through: at most that one.
            log, recorded = journal.reopen(run)
            assert [event.body for event in recorded[1:]] in (list(range(last + 1)), list(range(last + 2)))
            await journal.append(log, draft("goes on"))
            assert bodies(journal, run)[-1] == "goes on"


async def test_a_connection_that_is_cut_costs_one_commit(
    journal: Journal, database: Database, database_url: str
) -> None:
    postgres_only(database_url)
    log = await begin(journal, "run-1")
    with database.engine.connect() as connection:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        connection.execute(text(f"{cut} AND datname = current_database()"))
    await failing(journal, log)
    await journal.append(log, draft("again"))
    assert bodies(journal) == ["again"]

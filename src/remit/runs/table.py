"""The table `runs`: how runs stand, and which drive holds which run.

A lease belongs to one drive or session, by a token of its own, and lasts by the database's clock, which all workers
share. It only keeps workers from getting in each other's way: what stops one that was overtaken is the journal.
"""

from __future__ import annotations

import hmac
import uuid
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    and_,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.sql.dml import Update

from remit.errors import RunError
from remit.journal.journal import Clock
from remit.storage import rows, schema
from remit.storage.database import Database, storage_errors

LEASE_US = 20_000_000
"""How long a worker that says nothing keeps a run. It says something three times as often."""

_REST_US, _LONGEST_REST_US, _MOST_TRIES = 20_000_000, 600_000_000, 5

_RUNS, _CASES = schema.runs.c, schema.cases.c


@dataclass(kw_only=True, slots=True)
class Lease:
    """One drive's hold on a run. `idle_us`: how long nobody had held it, `None` where that isn't known.

    `first`: nobody has driven the run before. `trouble`: why the run can't go on; shown once the lease is given back,
    and the run then rests. `wake_at`: it sleeps until then, in microseconds since the epoch.
    """

    run: str
    token: str
    idle_us: int | None
    first: bool
    trouble: str = ""
    wake_at: int | None = None
    settled: bool = False
    """The row says already how the run stands, and has no worker any more."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A run as its row has it. `status`: running, held (a person must decide), ready (to go on), asleep, closed.

    `elsewhere`: its agent drives it, and no worker does. `claims`, `held_at`: how often the lease was taken, and when
    somebody last held it.
    """

    run: str
    status: str
    elsewhere: bool
    claims: int
    held_at: int | None


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The run that a request key has opened, and the digest of the request it was opened for."""

    run: str
    digest: str


class RunTable:
    """The runs of one tenant. `key` is the tenant's own, for the hashes of request keys."""

    def __init__(self, database: Database, *, tenant: str, clock: Clock, key: bytes) -> None:
        self._database = database
        self._tenant = tenant
        self._clock = clock
        self._key = key
        self._now: ColumnElement[Any] = literal_column(database.now_us)
        self.opener = f"opened-{uuid.uuid4().hex}"
        """Holds a run from its opening to its first drive, which takes it from here: only ever one drive can."""

    @property
    def now_us(self) -> str:
        """The database's own time, as SQL."""
        return self._database.now_us

    def keyed(self, kind: str, data: bytes) -> str:
        """What stands for a request or its key in the table: nobody learns either from it, or can try guesses."""
        return hmac.digest(self._key, f"\0{kind}\0".encode() + data, "sha256").hex()

    def opened(self, contract: str, request_key: str) -> Opened | None:
        """What a request key (as its hash) has opened, if it was used before."""
        query = self._of_tenant(_RUNS.run, _RUNS.request_digest)
        row = self._first(query.where(_RUNS.contract == contract, _RUNS.request_key == request_key))
        return None if row is None else Opened(run=row.run, digest=row.request_digest)

    def run_of(self, contract: str, request_key: str) -> str | None:
        """The run that a request key has opened, if it was used before."""
        found = self.opened(contract, self.keyed("key", request_key.encode()))
        return None if found is None else found.run

    def standing(self, run: str) -> Standing:
        """How a run stands. Raises `RunError` (code `run_not_found`)."""
        query = self._of_tenant(_RUNS.status, _RUNS.elsewhere, _RUNS.claims, _RUNS.held_at)
        row = self._first(query.where(_RUNS.run == run))
        if row is None:
            raise RunError(f"there is no run `{run}`; `remit runs` lists them", code="run_not_found")
        return Standing(
            run=run, status=row.status, elsewhere=bool(row.elsewhere), claims=row.claims, held_at=row.held_at
        )

    def asking(self, run: str) -> str | None:
        """The case that a run waits for, while somebody can still decide it."""
        query = select(_CASES.case).where(_CASES.run == run, _CASES.expires_at >= self._clock(), *_ASKED)
        row = self._first(query.order_by(_CASES.opened_at).limit(1))
        return None if row is None else row.case

    def waiting(self, limit: int | None = None) -> list[str]:
        """Runs that a worker should drive now: opened, decided by a person, expired while held, or left by their worker.

        Those that could not go on when they were tried last come last, whether or not they still rest.
        """
        due = _RUNS.wake_at < self._clock()
        query = self._of_tenant(_RUNS.run).where(
            ~_RUNS.elsewhere,
            or_(
                _RUNS.status == "ready",
                and_(_RUNS.status == "running", free(self._now)),
                and_(_RUNS.status == "held", or_(due, _RUNS.wake_at.is_(None))),
                and_(_RUNS.status == "asleep", or_(due, _RUNS.trouble.is_not(None))),
            ),
        )
        query = query.order_by(_RUNS.trouble.is_not(None), _RUNS.opened_at).limit(limit)
        with storage_errors("look for runs"), self._database.engine.connect() as connection:
            return list(connection.execute(query).scalars())

    def claim(self, found: Standing) -> Lease | None:
        """Take the lease of a run that is not closed; `None` where somebody holds it, or has taken it since."""
        lease, taking = claiming(found, self._clock(), self._now)
        taking = taking.where(_RUNS.tenant == self._tenant, _RUNS.status != "closed", free(self._now, self.opener))
        return lease if self._change(taking.values(elsewhere=found.elsewhere)) else None

    def renew(self, lease: Lease) -> bool:
        """Hold it for longer; false where it is somebody else's by now."""
        return self._change(_mine(lease).values(lease_until=self._now + LEASE_US, held_at=self._clock()))

    def release(self, lease: Lease) -> None:
        """Give the lease back; one that is somebody else's by now stays theirs."""
        if lease.settled:
            return
        now, trouble = self._clock(), rows.storable(lease.trouble) or None
        left: dict[str, Any] = {"worker": None, "lease_until": None, "held_at": now, "trouble": trouble}
        wake_at: Any = lease.wake_at
        if trouble is not None:
            # One that can't go on is left alone for twice as long each time.
            rest_us = case(*((_RUNS.tries == tries, _rest_us(tries)) for tries in range(_MOST_TRIES)), else_=_LONGEST_REST_US)
            # As wide as a time is: Postgres takes what it is not told for an INTEGER.
            wake_at, left["tries"] = literal(now, BigInteger) + type_coerce(rest_us, BigInteger), _RUNS.tries + 1
        else:
            left["tries"] = 0
        if wake_at is not None:
            left |= {"status": _from_running("asleep"), "wake_at": wake_at}
        self._change(_mine(lease).values(left))

    def park(self, lease: Lease) -> None:
        """The run waits for a person, and for no worker until they have decided, or may not any more.

        If they were faster than this, it is ready, and stays so.
        """
        now = self._clock()
        until = select(func.min(_CASES.expires_at)).where(_CASES.run == lease.run, *_ASKED).scalar_subquery()
        left = {"worker": None, "lease_until": None, "held_at": now, "updated_at": now, "trouble": None, "tries": 0}
        self._change(_mine(lease).values(status=_from_running("held"), wake_at=func.coalesce(until, 0), **left))
        lease.settled = True

    def _change(self, statement: Update) -> bool:
        with storage_errors("change the lease"), self._database.engine.begin() as connection:
            return connection.execute(statement).rowcount == 1

    def _of_tenant(self, *columns: Any) -> Any:
        return select(*columns).where(_RUNS.tenant == self._tenant)

    def _first(self, query: Select[Any]) -> Any:
        with storage_errors("look for the run"), self._database.engine.connect() as connection:
            return connection.execute(query).first()


_ASKED = (_CASES.kind.in_(("approval", "question")), _CASES.status == "open")
"""What a run waits for, as opposed to what it hands over."""


class Claimable(Protocol):
    """A row of a run, as somebody has seen it who would drive it."""

    @property
    def run(self) -> str: ...
    @property
    def claims(self) -> int: ...
    @property
    def held_at(self) -> int | None: ...


def claiming(found: Claimable, now: int, database_now: ColumnElement[Any]) -> tuple[Lease, Update]:
    """A lease on a run, and what takes it; the caller adds of whom, and in which states it may be taken."""
    lease = Lease(
        run=found.run,
        token=uuid.uuid4().hex,
        idle_us=None if found.held_at is None else max(0, now - found.held_at),
        first=found.claims == 0,
    )
    # Counted, so that of two who saw the same row one takes it.
    same = and_(_RUNS.run == found.run, _RUNS.claims == found.claims)
    taken = {"worker": lease.token, "lease_until": database_now + LEASE_US, "claims": found.claims + 1}
    taking = update(schema.runs).where(same)
    return lease, taking.values(status="running", wake_at=None, held_at=now, updated_at=now, **taken)


def free(database_now: ColumnElement[Any], opener: str | None = None) -> ColumnElement[bool]:
    """Whether nobody holds a run, or only `opener`, who has it from its opening on."""
    nobody = or_(_RUNS.worker.is_(None), _RUNS.lease_until < database_now)
    return nobody if opener is None else or_(nobody, _RUNS.worker == opener)


def _from_running(status: str) -> ColumnElement[str]:
    """The status of a run that was driven; whom a person has made ready meanwhile stays ready."""
    return case((_RUNS.status == "running", status), else_=_RUNS.status)


def _rest_us(tries: int) -> int:
    return min(_LONGEST_REST_US, _REST_US << tries)


def _mine(lease: Lease) -> Update:
    return update(schema.runs).where(_RUNS.run == lease.run, _RUNS.worker == lease.token)

"""The record as a backtest reads it: page by page in the order of `seq`, redacted, with the few fields that it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Select, and_, func, select

from remit.journal import events
from remit.journal.events import UNDOES, EventType, Header, Row
from remit.journal.vault import RunKeys, Vault, WrappedKeys
from remit.limits.meters import Quantity
from remit.storage import schema
from remit.storage.database import Database, storage_errors

T = TypeVar("T")

PAGE = 2_000
"""How many events one query brings."""
_OPEN_RUNS = 20_000
"""Keys of so many runs are held open at most: runs that never end must not fill the memory."""
LONGEST_WINDOW_US = 25 * 3_600 * 1_000_000
"""No limit looks further back than a day and a sixtieth of it."""

_READ = (
    EventType.RUN_OPENED,
    EventType.RUN_RESUMED,
    EventType.CALL_DECIDED,
    EventType.CALL_COMPLETED,
    EventType.CALL_FAILED,
    EventType.CALL_UNKNOWN,
    EventType.APPROVAL_REQUESTED,
    EventType.APPROVAL_DECIDED,
    EventType.RUN_CLOSED,
)
_E, _K, _R = schema.events.c, schema.run_keys.c, schema.runs.c


class OpenedBody(msgspec.Struct, frozen=True, kw_only=True):
    """Of `run.opened`."""

    contract: str
    on_behalf_of: str | None = None
    imported: dict[str, Any] | None = None


class VerdictBody(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict as it stands on record."""

    kind: str
    code: str = ""
    message: str = ""
    rules: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


class TimeRead(msgspec.Struct, frozen=True, kw_only=True):
    """The time, as far as policy has read it."""

    epoch_ms: int | None = None


class FactsRead(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the recorded facts that tells when a call was judged."""

    time: TimeRead = TimeRead()


class DecidedBody(msgspec.Struct, frozen=True, kw_only=True):
    """Of `call.decided`."""

    tool: str
    args: Any
    facts: FactsRead = FactsRead()
    resource: dict[str, Any] | None = None
    args_digest: str = ""
    labels: dict[str, tuple[str, ...]] = {}
    classes: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    demand: tuple[int, int, int, int, str, int]
    reserved: tuple[tuple[str, Quantity, int, int], ...] = ()
    verdict: VerdictBody
    judged_at: int | None = None
    proposed: int | None = None


class CompletedBody(msgspec.Struct, frozen=True, kw_only=True):
    """Of `call.completed`."""

    result: Any = None


class ResumedBody(msgspec.Struct, frozen=True, kw_only=True):
    """Of `run.resumed`."""

    idle_us: int | None = None


class ShownBody(msgspec.Struct, frozen=True, kw_only=True):
    """The part of what a person was shown that is compared."""

    rules: tuple[str, ...] = ()


class AskedBody(msgspec.Struct, frozen=True, kw_only=True):
    """Of `approval.requested`."""

    case: str
    args_digest: str
    policy: str
    roles: tuple[str, ...]
    expires_at: int
    shown: ShownBody
    question_digest: str


class AnsweredBody(msgspec.Struct, frozen=True, kw_only=True):
    """Of `approval.decided`."""

    case: str
    decision: str


class PastEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event: its header, checked, and its row and keys for whoever needs the body."""

    seq: int
    contract: str
    header: Header
    row: Row
    keys: RunKeys

    @property
    def opens_undo(self) -> bool:
        """Whether a run begins here that undoes another one: what it calls is no doing of the contract's agent."""
        return UNDOES in self.header.refs

    def body(self, kind: type[T]) -> T | None:
        """The redacted body; `None` where it was erased. Raises `StorageError` (code `record_corrupt`)."""
        plain = events.plain_body(self.row, self.header, self.keys)
        if plain is None:
            return None
        try:
            return msgspec.json.decode(plain, type=kind)
        except msgspec.ValidationError as error:
            raise events.corrupt(self.row, f"its body is not of the form of its type: {error}") from error


class RecordReader:
    """The runs of one tenant, read in the order in which things happened."""

    def __init__(self, database: Database, vault: Vault, tenant: str) -> None:
        self._database = database
        self._vault = vault
        self._tenant = tenant

    def entries(self, first_seq: int, last_seq: int, contract: str | None = None) -> Iterator[PastEvent]:
        """Every event that matters here, from `first_seq` to `last_seq`, of one contract or of all.

        One query a page; keys are opened once a run.
        """
        keys: dict[str, RunKeys] = {}
        at = first_seq - 1
        while True:
            with storage_errors("read the journal"), self._database.engine.connect() as connection:
                page = connection.execute(self._page(at, last_seq, contract)).all()
            for found in page:
                entry = self._entry(found, keys)
                yield entry
                if entry.header.type == EventType.RUN_CLOSED:
                    keys.pop(entry.header.run, None)
            if len(page) < PAGE:
                return
            at = page[-1].seq

    def _page(self, after: int, last_seq: int, contract: str | None) -> Any:
        columns = (_E.seq, _E.run, _E.n, _E.type, _E.at, _E.hash, _E.header, _E.body)
        joined = schema.events.join(schema.runs, _R.run == _E.run).join(schema.run_keys, _K.run == _E.run)
        query = select(*columns, _R.contract, _K.body_key).select_from(joined)
        within = and_(_E.tenant == self._tenant, _E.seq > after, _E.seq <= last_seq, _E.type.in_(_READ))
        if contract is not None:
            query = query.where(_R.contract == contract)
        return query.where(within).order_by(_E.seq).limit(PAGE)

    def _entry(self, found: Any, keys: dict[str, RunKeys]) -> PastEvent:
        row = Row(
            tenant=self._tenant,
            run=found.run,
            n=found.n,
            type=found.type,
            at=found.at,
            hash=bytes(found.hash),
            header=bytes(found.header),
            body=bytes(found.body),
            sealed=None,
        )
        known = keys.get(row.run)
        if known is None:
            if len(keys) >= _OPEN_RUNS:
                keys.clear()
            body_key = None if found.body_key is None else bytes(found.body_key)
            # The key of the originals is not even unwrapped.
            known = keys[row.run] = self._vault.open(row.run, WrappedKeys(body=body_key, sealed=None))
        return PastEvent(seq=found.seq, contract=found.contract, header=events.checked_header(row), row=row, keys=known)

    def end(self) -> int:
        """The `seq` of the last event."""
        return self._number(select(func.max(_E.seq)).where(_E.tenant == self._tenant)) or 0

    def start_of(self, since_us: int) -> int:
        """From which event on to read, to decide what was decided since `since_us` as it was then.

        The whole of every run with such a decision, and whatever limits may still count.
        """
        mine = _E.tenant == self._tenant
        lately = select(_E.run).where(mine, _E.type == EventType.CALL_DECIDED, _E.at >= since_us)
        begun = self._number(select(func.min(_E.seq)).where(mine, _E.run.in_(lately), _E.n == 1))
        counted = self._number(select(func.min(_E.seq)).where(mine, _E.at >= since_us - LONGEST_WINDOW_US))
        return min(found for found in (begun, counted, self.end() + 1) if found is not None)

    def last_runs(self, contract: str, count: int) -> Mapping[str, int]:
        """The newest runs of a contract, undos left out, and when they were opened."""
        first = schema.runs.join(schema.events, (_E.run == _R.run) & (_E.n == 1))
        query = select(_R.run, _R.opened_at, _E.header).select_from(first)
        query = query.where(_R.tenant == self._tenant, _R.contract == contract)
        with storage_errors("look for runs"), self._database.engine.connect() as connection:
            rows = connection.execute(query.order_by(_R.opened_at.desc(), _R.run))
            own = (row for row in rows if UNDOES not in msgspec.json.decode(bytes(row.header)).get("refs", {}))
            return {row.run: row.opened_at for row in islice(own, count)}

    def contracts(self) -> list[str]:
        """The contracts that have runs on record."""
        query = select(_R.contract).where(_R.tenant == self._tenant).distinct().order_by(_R.contract)
        with storage_errors("look for runs"), self._database.engine.connect() as connection:
            return [row.contract for row in connection.execute(query)]

    def _number(self, query: Select[Any]) -> int | None:
        with storage_errors("read the journal"), self._database.engine.connect() as connection:
            return connection.execute(query).scalar()

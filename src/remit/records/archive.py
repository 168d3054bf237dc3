"""The record of one tenant as records management works on it: which runs there are, what of them is left, and for whom.

Everything that is done here is done by a person under `record.cedar`, or by the system under the contract's terms, and
is on the register before anybody is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, func, or_, select

from remit.contracts.project import Project
from remit.errors import ConfigError, RecordError, RunError, StorageError
from remit.identity.people import People
from remit.journal.classed import redactor_of
from remit.journal.events import Draft, Event, EventType
from remit.journal.journal import Journal
from remit.journal.redaction import Redactor
from remit.journal.register import SYSTEM, Register
from remit.records.policy import Purpose, RecordPolicy, RunFacts
from remit.records.record_cedar import Deed
from remit.storage import schema
from remit.storage.database import Database, storage_errors
from remit.values import Json

SCOPE = "record:manage"
"""What a person's token must hold."""

EVERY = "any"
"""The status that policy is told of where all runs of a contract are meant."""

_RUNS, _KEYS, _CASES = schema.runs.c, schema.run_keys.c, schema.cases.c


class StoredRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run as its rows have it. `closed_at`: microseconds since the epoch, `None` while it is open.

    `has_body`, `has_originals`: whether the keys are there. `retention_us`, `erase_after_us`: the terms of the contract
    that it began under; `retention_us` is `None` where that was not noted yet. `open_cases`: how many wait for people.
    """

    run: str
    contract: str
    release: str
    status: str
    opened_at: int
    closed_at: int | None
    has_body: bool
    has_originals: bool
    retention_us: int | None
    erase_after_us: int | None
    open_cases: int


class Archive:
    """The runs of one tenant, and who may do what to them."""

    def __init__(
        self,
        project: Project,
        *,
        database: Database,
        journal: Journal,
        register: Register,
        redactor: Redactor,
        people: People,
    ) -> None:
        self.database = database
        self.journal = journal
        self.register = register
        self.redactor = redactor
        self.tenant = people.tenant
        self._people = people
        self._project = project

    # Which runs there are

    def run(self, run: str) -> StoredRun:
        """One run. Raises `RunError` (code `run_not_found`)."""
        found = self.runs(_RUNS.run == run)
        if not found:
            raise RunError(f"there is no run `{run}`; `remit runs` lists them", code="run_not_found")
        return found[0]

    def runs(self, *which: ColumnElement[bool]) -> list[StoredRun]:
        """The runs of the tenant that meet every condition, the oldest first."""
        waiting = select(func.count()).where(_CASES.run == _RUNS.run, _CASES.status == "open").scalar_subquery()
        columns = (
            _RUNS.run,
            _RUNS.contract,
            _RUNS.release,
            _RUNS.status,
            _RUNS.opened_at,
            _RUNS.updated_at,
            _KEYS.body_key.is_not(None),
            _KEYS.sealed_key.is_not(None),
            _RUNS.retention_us,
            _RUNS.erase_after_us,
            waiting,
        )
        query = select(*columns).join(schema.run_keys, _KEYS.run == _RUNS.run).where(_RUNS.tenant == self.tenant, *which)
        with storage_errors("list the runs"), self.database.engine.connect() as connection:
            found = connection.execute(query.order_by(_RUNS.opened_at, _RUNS.run)).all()
        return [_stored(row) for row in found]

    def named(self, runs: Iterable[str]) -> list[StoredRun]:
        """The runs of these ids, as far as there are any."""
        return self.runs(_RUNS.run.in_(list(runs)))

    def closed_for(self, now: int) -> list[StoredRun]:
        """Closed runs of which something is left that may be due by now, by what the rows say."""
        since = now - _RUNS.updated_at
        originals = and_(_KEYS.sealed_key.is_not(None), or_(_RUNS.retention_us.is_(None), since >= _RUNS.retention_us))
        whole = and_(_KEYS.body_key.is_not(None), since >= _RUNS.erase_after_us)
        return self.runs(_RUNS.status == "closed", or_(originals, whole))

    def erased(self) -> list[StoredRun]:
        """Runs whose keys are gone."""
        return self.runs(_KEYS.body_key.is_(None))

    # What is known of one

    def events(self, run: str) -> list[Event]:
        """A run's events, with as much of them as its keys still open."""
        return self.journal.reader.events(run)

    def facts(self, run: StoredRun, events: Sequence[Event]) -> RunFacts:
        """What policy may know of a run."""
        return RunFacts(
            run=run.run,
            contract=run.contract,
            tenant=self.tenant,
            region=self._project.project.region,
            status=run.status,
            on_behalf_of=self._acts_for(events),
        )

    def every_run_of(self, contract: str) -> RunFacts:
        """What policy may know of all runs of a contract, those to come among them."""
        return RunFacts(
            run=f"any run of {contract}",
            contract=contract,
            tenant=self.tenant,
            region=self._project.project.region,
            status=EVERY,
        )

    @property
    def contracts(self) -> tuple[str, ...]:
        """The contracts that the project has, and those that it has had runs of."""
        query = select(_RUNS.contract).where(_RUNS.tenant == self.tenant).distinct()
        with storage_errors("list the contracts"), self.database.engine.connect() as connection:
            known = set(connection.execute(query).scalars())
        return tuple(sorted(known | {folder.name for folder in self._project.contracts}))

    @property
    def people(self) -> Iterable[str]:
        """The ids of the people who are declared."""
        return self._project.people

    def _acts_for(self, events: Sequence[Event]) -> str | None:
        opened: Mapping[str, Any] = events[0].sealed or events[0].body or {}
        behalf = opened.get("on_behalf_of")
        if behalf is None:
            return None
        # An id may look like an address, and then only its pseudonym is left once the originals are gone.
        shown = {self.redactor.text(f"person/{person}"): person for person in self._project.people}
        name = str(behalf)
        return shown.get(name, name.removeprefix("person/"))

    # Who may do what

    def purpose(self, deed: Deed, *, token: str, reason: str, classes: Iterable[str] = ()) -> Purpose:
        """What the person that `token` belongs to wants to do. Raises `IdentityError` and `CaseError` for the token."""
        person = self._people.holder(token, SCOPE, self.journal.clock())
        return Purpose(deed=deed, person=person, reason=reason, classes=frozenset(classes))

    async def permit(self, purpose: Purpose, runs: Sequence[RunFacts], events: Sequence[Event] = ()) -> None:
        """See that this may be done to each of the runs; a denial is on the register before it is said.

        `events`: those of the run, where there is one; the reason is redacted by them. Raises `RecordError` (code
        `record_denied`, also where the denial can't be recorded) and, `ConfigError` where there is no sound `record.cedar`.
        """
        said = self.about(purpose, events)
        for run in runs:
            policy = await self.policy_for(said, run)
            refused = policy.refusal(purpose, run)
            if refused is not None:
                await self.denied(said, [(run, refused)])
                raise RecordError(refused, code="record_denied")

    async def policy_for(self, purpose: Purpose, run: RunFacts) -> RecordPolicy:
        """The project's `record.cedar`. Where there is none, or a wrong one, nobody may do anything: a denial as well."""
        try:
            return RecordPolicy.load(self._project)
        except ConfigError as error:
            await self.denied(purpose, [(run, error.message.split("\n")[0])])
            raise

    async def denied(self, purpose: Purpose, refused: Sequence[tuple[RunFacts, str]]) -> None:
        """Put on record to which runs something may not be done, and why. Raises `RecordError` where that can't be."""
        drafts: list[Draft] = []
        for run, why in refused:
            body = {"deed": purpose.deed, "run": run.run, "why": self.redactor.text(why), "classes": sorted(purpose.classes)}
            # What goes for all runs of a contract is about none of them.
            refs = {} if run.status == EVERY else {"run": run.run}
            drafts.append(self.draft(EventType.DEED_DENIED, purpose, body, **refs))
        try:
            await self.register.append(*drafts)
        except StorageError as error:
            said = f"{refused[0][1]}; and that can't be put on record: {error.message}"
            raise RecordError(said, code="record_denied") from error

    def about(self, purpose: Purpose, events: Iterable[Event]) -> Purpose:
        """The same, with a reason in which nothing stands that is concealed in a run, these being its events."""
        reason = redactor_of(self.redactor, events).text(purpose.reason)
        return msgspec.structs.replace(purpose, reason=reason)

    def draft(self, type_: EventType, purpose: Purpose | None, body: Mapping[str, Json], **refs: str) -> Draft:
        """An event of the register: who, why, and what. Without a purpose the system did it by itself."""
        by = SYSTEM if purpose is None else purpose.person.principal
        # A header holds nothing personal.
        actor = by if purpose is None else self.redactor.pseudonym("person", by)
        said = {} if purpose is None else {"reason": self.redactor.text(purpose.reason)}
        return Draft(type=type_, actor=actor, refs=refs, body={"by": by, **said, **body})


def _stored(row: Sequence[Any]) -> StoredRun:
    run, contract, release, status, opened_at, updated_at, has_body, has_originals, retention, erase_after, waiting = row
    return StoredRun(
        run=run,
        contract=contract,
        release=release,
        status=status,
        opened_at=opened_at,
        closed_at=updated_at if status == "closed" else None,
        has_body=bool(has_body),
        has_originals=bool(has_originals),
        retention_us=retention,
        erase_after_us=erase_after,
        open_cases=waiting,
    )

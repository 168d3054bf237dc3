"""Cases, listed and decided. A decision is an event of the run it is about, made by a person who may make it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, select

from remit.errors import CaseError, FenceLost, StorageError
from remit.gate.verdicts import Deny
from remit.identity.principals import Person, may_decide
from remit.identity.tokens import TokenVerifier
from remit.journal.events import Draft, Event, EventType
from remit.journal.journal import Disabled, Entry, Journal, Recording, Reservation
from remit.journal.redaction import Redactor
from remit.storage import rows, schema
from remit.storage.database import Database, storage_errors
from remit.values import digest

SCOPE = "cases:decide"
"""What a person's token must hold."""
_MOST_TRIES = 5


class Decision(StrEnum):
    """What a person says about a case."""

    APPROVED = "approved"
    DENIED = "denied"
    RESOLVED = "resolved"
    """An escalation or an unknown outcome was dealt with outside of the run."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A case as its row has it; times in microseconds since the epoch."""

    case: str
    tenant: str
    run: str
    step: str
    kind: str
    queue: str
    roles: tuple[str, ...]
    status: str
    reason: str
    opened_at: int
    due_at: int | None
    expires_at: int | None
    decided_at: int | None
    decided_by: str | None


People = Callable[[str], Person | None]
"""The declared person of a principal (`person/lee`), with their roles and state; `None` for nobody."""


class Cases:
    """Reads and decides the cases of one tenant."""

    def __init__(
        self,
        *,
        database: Database,
        journal: Journal,
        verifier: TokenVerifier,
        redactor: Redactor,
        people: People,
        queues: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._database = database
        self._journal = journal
        self._verifier = verifier
        self._redactor = redactor
        self._people = people
        self._queues = queues

    def list(self, tenant: str, *, status: str | None = "open", limit: int = 1000) -> list[Case]:
        """Cases, the most urgent first: by when they are due."""
        table = schema.cases
        query = select(table).where(table.c.tenant == tenant).order_by(table.c.due_at, table.c.opened_at)
        if status is not None:
            query = query.where(table.c.status == status)
        return self._read(query.limit(limit))

    def get(self, case: str) -> Case:
        """One case, with what the person is shown. Raises `CaseError` (code `case_not_found`)."""
        found = self._read(select(schema.cases).where(schema.cases.c.case == case))
        if not found:
            raise CaseError(f"there is no case `{case}`; `remit cases` lists them", code="case_not_found")
        return found[0]

    async def decide(self, case_id: str, decision: Decision, *, token: str, reason: str = "") -> Case:
        """Decide a case as the person that `token` belongs to.

        Raises `CaseError`: `case_closed`, `case_expired`, or the code of what keeps this person from deciding it;
        `IdentityError` for the token.
        """
        now = self._journal.clock()
        claims = self._verifier.verify(token, now)
        case = self.get(case_id)
        person = self._people(claims.principal)
        if person is None:
            raise CaseError(f"`{claims.principal}` is not a person of this project", code="approver_unknown")
        if SCOPE not in claims.scopes:
            raise CaseError(f"the token does not hold `{SCOPE}`; get one that does", code="scope_missing")
        _check_open(case, now)
        for _ in range(_MOST_TRIES - 1):
            try:
                return await self._decide(case, decision, person, reason, now)
            except FenceLost:
                # The run's worker wrote meanwhile; the decision goes behind that.
                continue
        return await self._decide(case, decision, person, reason, now)

    async def _decide(self, case: Case, decision: Decision, person: Person, reason: str, now: int) -> Case:
        log, events = self._journal.reopen(case.run)
        question = _question(case, events)
        refused = self._refuse(case, person, events)
        if refused is not None:
            raise CaseError(refused.message, code=refused.code)
        draft = self._draft(case, question, decision, person, reason)

        def write(reservation: Reservation) -> Recording[None]:
            if isinstance(reservation, Disabled):
                raise CaseError(f"`{person.principal}` is disabled", code="approver_disabled")
            closing = rows.decide_case(case.case, decision, person.principal, now)
            return Recording(value=None, drafts=[draft], statements=[closing, rows.make_ready(case.run, now)])

        try:
            await self._journal.commit(Entry(log=log, record=write, principals=(person.principal,)))
        except StorageError as error:
            if error.code == "row_changed":
                message = f"case `{case.case}` was decided by somebody else just now"
                raise CaseError(message, code="case_closed") from error
            raise
        return self.get(case.case)

    def _draft(
        self, case: Case, question: Mapping[str, Any], decision: Decision, person: Person, reason: str
    ) -> Draft:
        approval = case.kind == "approval"
        if approval == (decision is Decision.RESOLVED):
            ways = "approve or deny it" if approval else "resolve it"
            raise CaseError(f"case `{case.case}` is of kind `{case.kind}`; {ways}", code="case_wrong_decision")
        body = {
            "case": case.case,
            "decision": decision,
            "by": person.principal,
            "reason": self._redactor.text(reason),
            "shown_digest": question.get("shown_digest", ""),
        }
        return Draft(
            type=EventType.APPROVAL_DECIDED if approval else EventType.CASE_DECIDED,
            # A header holds nothing personal.
            actor=self._redactor.pseudonym("person", person.principal),
            span=case.step,
            body=body,
            verdict=decision,
        )

    def _refuse(self, case: Case, person: Person, events: list[Event]) -> Deny | None:
        """Why this person may not decide. Rules that ask different roles ask for somebody who holds all of them."""
        opened: Mapping[str, Any] = events[0].sealed or events[0].body
        queue = self._queues.get(case.queue.removeprefix("queue:"), ())
        asked = [(role,) for role in dict.fromkeys(case.roles)] or [queue]
        for roles in asked:
            refused = may_decide(person, roles, events[0].header.actor, opened.get("on_behalf_of"), None)
            if refused is not None:
                return refused
        return None

    def _read(self, query: Select[Any]) -> list[Case]:
        with storage_errors("read the cases"), self._database.engine.connect() as connection:
            found = connection.execute(query).mappings().all()
        return [self._case(dict(row)) for row in found]

    def _case(self, row: dict[str, Any]) -> Case:
        roles = tuple(row.pop("roles").split())
        return Case(**row, roles=roles)

    def question(self, case: Case) -> Mapping[str, Any]:
        """What the person is shown: the call, where its arguments came from, the rules that ask, and why."""
        events = self._journal.reader.events(case.run)
        return _question(case, events)


def _check_open(case: Case, now: int) -> None:
    if case.status != "open":
        raise CaseError(f"case `{case.case}` is already {case.status}", code="case_closed")
    if case.expires_at is not None and now > case.expires_at:
        raise CaseError(f"case `{case.case}` has expired; the run must ask again", code="case_expired")


def _question(case: Case, events: list[Event]) -> Mapping[str, Any]:
    """The event that opened the case, checked against its own digest."""
    for event in reversed(events):
        body: Mapping[str, Any] = event.body or {}
        if body.get("case") != case.case:
            continue
        if event.type is EventType.APPROVAL_REQUESTED:
            if digest(body["shown"]) != body["shown_digest"]:
                raise CaseError(f"what case `{case.case}` shows is not what was recorded", code="case_altered")
            return body
        if event.type is EventType.CASE_OPENED:
            return body
    raise CaseError(f"case `{case.case}` is not on record in run `{case.run}`", code="case_altered")



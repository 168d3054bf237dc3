"""Cases, listed and decided. A decision is an event of the run it is about, made by a person who may make it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypedDict, TypeVar, Unpack

from sqlalchemy import ColumnElement, Select, func, literal, or_, select

from remit.errors import CaseError, ConfigError, FenceLost, RemitError, RunError, StorageError
from remit.identity.people import People
from remit.identity.principals import Person, may_decide
from remit.journal.classed import redactor_of
from remit.journal.events import Draft, Event, EventType
from remit.journal.journal import Journal, RunLog
from remit.journal.redaction import Redactor
from remit.runs import questions
from remit.runs.by_person import commit_by
from remit.runs.program import Programs
from remit.storage import rows, schema
from remit.storage.database import Database, storage_errors
from remit.values import Json, digest

T = TypeVar("T")

SCOPE = "cases:decide"
"""What a person's token must hold."""
_MOST_TRIES = 5
_AT_ONCE = 32
"""So many decisions wait for their record together."""


class Decision(StrEnum):
    """What a person says about a case."""

    APPROVED = "approved"
    DENIED = "denied"
    RESOLVED = "resolved"
    """An escalation or an unknown outcome was handled outside of Remit."""
    ANSWERED = "answered"
    """A question of a run was answered; `Cases.answer` says how."""


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


class CaseFilter(TypedDict, total=False):
    """Which cases are meant; what is left out does not matter. `status` is `open` unless it says otherwise."""

    status: str | None
    """`open`, `approved`, `denied`, `resolved`, `answered`, `expired`, `withdrawn`; `None` for all."""
    kind: str | None
    """`approval`, `question`, `escalation`, `unknown`, or the code of what kept a run from going on."""
    queue: str | None
    run: str | None
    contract: str | None
    rule: str | None
    """The `@id` of a policy that asks."""


class CaseQuery(CaseFilter, total=False):
    """A part of those: the first `limit` (1000) after `offset` (0)."""

    limit: int
    offset: int


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """What became of one of many: the case as it is now, or why it was not decided."""

    case: str
    decided: Case | None = None
    error: RemitError | None = None


@dataclass(frozen=True, kw_only=True)
class Revealed:
    """The originals of a case: of the run's request, and of the call or the draft that it asks about."""

    request: Json
    draft: Json = None
    args: Json = None
    resource: Json = None


class Cases:
    """Reads and decides the cases of one tenant."""

    def __init__(
        self, *, database: Database, journal: Journal, redactor: Redactor, people: People, programs: Programs
    ) -> None:
        self._database = database
        self._journal = journal
        self._redactor = redactor
        self._people = people
        self._programs = programs

    def list(self, tenant: str, **page: Unpack[CaseQuery]) -> list[Case]:
        """Cases, the most urgent first: by when they are due. `count` says how many there are."""
        limit, offset = page.pop("limit", 1000), page.pop("offset", 0)
        table = schema.cases.c
        query = self._asked(select(schema.cases), tenant, page)
        return self._read(query.order_by(table.due_at, table.opened_at, table.case).limit(limit).offset(offset))

    def count(self, tenant: str, **asked: Unpack[CaseFilter]) -> int:
        """How many cases there are, as `list` would give them without a limit."""
        query = self._asked(select(func.count()).select_from(schema.cases), tenant, asked)
        with storage_errors("count the cases"), self._database.engine.connect() as connection:
            return connection.execute(query).scalar_one()

    def _asked(self, query: Select[Any], tenant: str, asked: CaseFilter) -> Select[Any]:
        table = schema.cases.c
        queue, contract, rule = asked.get("queue"), asked.get("contract"), asked.get("rule")
        wanted = {
            table.status: asked.get("status", "open"),
            table.kind: asked.get("kind"),
            table.run: asked.get("run"),
            table.queue: None if queue is None else f"queue:{queue.removeprefix('queue:')}",
        }
        query = query.where(table.tenant == tenant, table.tenant == self._people.tenant)
        query = query.where(*[column == value for column, value in wanted.items() if value is not None])
        if contract is not None:
            runs = select(schema.runs.c.run).where(schema.runs.c.contract == contract)
            query = query.where(table.run.in_(runs))
        return query if rule is None else query.where(_names_rule(rule))

    def get(self, case: str) -> Case:
        """One case, with what the person is shown. Raises `CaseError` (code `case_not_found`)."""
        table = schema.cases.c
        found = self._read(select(schema.cases).where(table.case == case, table.tenant == self._people.tenant))
        if not found:
            raise CaseError(f"there is no case `{case}`; `remit cases` lists them", code="case_not_found")
        return found[0]

    async def decide_all(
        self, cases: Iterable[str], decision: Decision, *, token: str, reason: str = ""
    ) -> list[CaseResult]:
        """Decide many cases alike. One that can't be decided keeps no other from it; what became of each, in order."""
        free = asyncio.Semaphore(_AT_ONCE)

        async def one(case: str) -> CaseResult:
            async with free:
                try:
                    return CaseResult(case=case, decided=await self.decide(case, decision, token=token, reason=reason))
                except RemitError as error:
                    return CaseResult(case=case, error=error)

        return list(await asyncio.gather(*(one(case) for case in dict.fromkeys(cases))))

    async def decide(self, case_id: str, decision: Decision, *, token: str, reason: str = "") -> Case:
        """Decide a case as the person that `token` belongs to.

        Raises `CaseError`: `case_closed`, `case_expired`, `release_not_at_hand` where the run could not go on with an
        approval, or the code of what keeps this person from deciding it; `IdentityError` for the token.
        """
        now = self._journal.clock()
        person = self._people.holder(token, SCOPE, now)
        case = self.get(case_id)
        _check_open(case, now)
        return await _behind_the_worker(lambda: self._decide(case, decision, person, reason, now))

    async def answer(self, case_id: str, answer: Json, *, token: str, reason: str = "") -> Case:
        """Answer what a run asks, as the person that `token` belongs to; the run goes on with the answer.

        Raises what `decide` raises, and `CaseError` (code `answer_invalid`) for what does not meet what was asked for.
        """
        now = self._journal.clock()
        person = self._people.holder(token, SCOPE, now)
        case = self.get(case_id)
        _check_open(case, now)
        if self._redactor.holds_credential(answer):
            raise CaseError("the answer holds a credential of the gateway", code="answer_invalid")
        return await _behind_the_worker(lambda: self._answer(case, answer, person, reason, now))

    async def _answer(self, case: Case, answer: Json, person: Person, reason: str, now: int) -> Case:
        log, events = self._journal.reopen(case.run)
        asked = _original(case, _opening(case, events))
        self._check_may_decide(case, person, events)
        problem = questions.problem_of(asked["answer"], answer)
        if problem:
            raise CaseError(f"case `{case.case}`: {problem}", code="answer_invalid")
        self._check_at_hand(case, events)
        own = redactor_of(self._redactor, events)
        given = questions.answer_body(asked.get("draft"), answer)
        shown: dict[str, Json] = own.redact(given).value
        said = {"case": case.case, "decision": Decision.ANSWERED.value, "by": person.principal, "reason": own.text(reason)}
        draft = Draft(
            type=EventType.CASE_DECIDED,
            actor=self._redactor.pseudonym("person", person.principal),
            span=case.step,
            body={**said, **shown},
            sealed=own.sealed(shown, given),
            verdict=Decision.ANSWERED,
        )
        return await self._commit(case, draft, person, log, now)

    async def reveal(self, case_id: str, *, token: str) -> Revealed:
        """What is redacted for everybody else, to a person who may decide the case. That they were shown it is on record.

        Raises what `decide` raises of the person and the token; `CaseError` (code `case_not_found`).
        """
        person = self._people.holder(token, SCOPE, self._journal.clock())
        case = self.get(case_id)
        return await _behind_the_worker(lambda: self._reveal(case, person))

    async def _reveal(self, case: Case, person: Person) -> Revealed:
        log, events = self._journal.reopen(case.run)
        question = _question(case, events)
        self._check_may_decide(case, person, events)
        draft = Draft(
            type=EventType.CASE_REVEALED,
            actor=self._redactor.pseudonym("person", person.principal),
            span=case.step,
            body={"case": case.case, "by": person.principal, "shown_digest": question.get("shown_digest", "")},
        )
        revealed = _revealed(case, events)
        await commit_by(person.principal, self._journal, log, [draft], [rows.still_there(case.run)])
        return revealed

    async def _decide(self, case: Case, decision: Decision, person: Person, reason: str, now: int) -> Case:
        log, events = self._journal.reopen(case.run)
        question = _question(case, events)
        self._check_may_decide(case, person, events)
        if decision is Decision.APPROVED:
            self._check_at_hand(case, events)
        said = redactor_of(self._redactor, events).text(reason)
        draft = self._draft(case, question, decision, person, said)
        return await self._commit(case, draft, person, log, now)

    async def _commit(self, case: Case, draft: Draft, person: Person, log: RunLog, now: int) -> Case:
        closing = rows.decide_case(case.case, draft.verdict, person.principal, now)
        try:
            await commit_by(
                person.principal, self._journal, log, [draft], [closing, rows.make_ready(case.run, now)]
            )
        except StorageError as error:
            if error.code == "row_changed":
                message = f"case `{case.case}` was decided by somebody else just now"
                raise CaseError(message, code="case_closed") from error
            raise
        return self.get(case.case)

    def _check_at_hand(self, case: Case, events: list[Event]) -> None:
        """An approval that its run can't use would only seem to help."""
        opened: Mapping[str, Any] = events[0].sealed or events[0].body
        try:
            self._programs.at_hand(opened["contract"], events[0].header.refs["release"])
        except (RunError, ConfigError) as error:
            raise CaseError(
                f"run `{case.run}` can't go on with an approval: {error.message}; or deny the case, which ends the run",
                code="release_not_at_hand",
            ) from error

    def _draft(
        self, case: Case, question: Mapping[str, Any], decision: Decision, person: Person, reason: str
    ) -> Draft:
        approval = case.kind == "approval"
        if case.kind == questions.QUESTION or approval == (decision is Decision.RESOLVED):
            ways = "answer it" if case.kind == questions.QUESTION else "approve or deny it" if approval else "resolve it"
            raise CaseError(f"case `{case.case}` is of kind `{case.kind}`; {ways}", code="case_wrong_decision")
        body = {
            "case": case.case,
            "decision": decision,
            "by": person.principal,
            "reason": reason,
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

    def _check_may_decide(self, case: Case, person: Person, events: list[Event]) -> None:
        """Rules that ask different roles ask for somebody who holds all of them.

        An answer is no permission, so that who asked for the run may give it too.
        """
        opened: Mapping[str, Any] = events[0].sealed or events[0].body
        if case.roles == (person.principal,):
            return
        requester = (events[0].header.actor, opened.get("on_behalf_of"))
        asker, behalf = (None, None) if case.kind == questions.QUESTION else requester
        asked = [(role,) for role in dict.fromkeys(case.roles)] or [self._people.roles_of(case.queue)]
        for roles in asked:
            refused = may_decide(person, roles, asker, behalf, None)
            if refused is not None:
                raise CaseError(refused.message, code=refused.code)

    def _read(self, query: Select[Any]) -> list[Case]:
        with storage_errors("read the cases"), self._database.engine.connect() as connection:
            found = connection.execute(query).mappings().all()
        return [self._case(dict(row)) for row in found]

    def _case(self, row: dict[str, Any]) -> Case:
        roles = tuple(row.pop("roles").split())
        return Case(**row, roles=roles)

    def question(self, case: Case) -> Mapping[str, Any]:
        """What the person is shown: the call, where its arguments came from, the rules that ask, and why.

        Nothing where its run was erased.
        """
        events = self._journal.reader.events(case.run)
        return {} if events[0].body is None else _question(case, events)


async def _behind_the_worker(write: Callable[[], Awaitable[T]]) -> T:
    """Write to a run's record, behind whatever its worker has written meanwhile."""
    for _ in range(_MOST_TRIES - 1):
        try:
            return await write()
        except FenceLost:
            continue
    return await write()


def _revealed(case: Case, events: list[Event]) -> Revealed:
    request = _original(case, events[0])["request"]
    if case.kind == questions.QUESTION:
        asked = _original(case, _opening(case, events))
        return Revealed(request=request, draft=asked["draft"])
    for event in reversed(events):
        if event.type is EventType.CALL_DECIDED and event.header.span == case.step:
            original = _original(case, event)
            return Revealed(request=request, args=original["args"], resource=original["resource"])
    return Revealed(request=request)


def _opening(case: Case, events: list[Event]) -> Event:
    """The event that asked the question."""
    for event in reversed(events):
        body: Mapping[str, Any] = event.body or {}
        if event.type is EventType.CASE_OPENED and body.get("case") == case.case and body.get("kind") == questions.QUESTION:
            return event
    raise CaseError(f"case `{case.case}` asks no question; it is of kind `{case.kind}`", code="case_wrong_decision")


def _original(case: Case, event: Event) -> Mapping[str, Any]:
    """What an event said before it was redacted."""
    if event.header.sealed and event.sealed is None:
        message = f"the originals of case `{case.case}` are gone: they were dropped after the contract's retention"
        raise CaseError(message, code="originals_dropped")
    return event.sealed or event.body


def _names_rule(rule: str) -> ColumnElement[bool]:
    """Whether an approval is asked by a rule: its reason is the rules' names, with commas between them."""
    reason, within = schema.cases.c.reason, f", {rule}, "
    padded = literal(", ") + reason + ", "
    return or_(reason == rule, padded.contains(within, autoescape=True))


def _check_open(case: Case, now: int) -> None:
    if case.status != "open":
        raise CaseError(f"case `{case.case}` is already {case.status}", code="case_closed")
    if case.expires_at is not None and now > case.expires_at:
        raise CaseError(
            f"case `{case.case}` has expired: nobody decided in time, so its call is denied and nothing is carried out; "
            f"run `{case.run}` ends or goes on without it (`remit worker`), and a new run would ask anew",
            code="case_expired",
        )


def _question(case: Case, events: list[Event]) -> Mapping[str, Any]:
    """The event that opened the case, checked against its own digest."""
    if events[0].body is None:
        raise CaseError(f"run `{case.run}` was erased, and with it what case `{case.case}` asked", code="erased")
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



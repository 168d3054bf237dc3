"""Closing runs: the last event and the row, in one transaction; also where the program of a run is not at hand.

Without its program a run can't go on, but it can end: that only takes its record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from remit.errors import CaseError, RunError
from remit.identity.people import People
from remit.identity.principals import may_decide
from remit.journal.classed import redactor_of
from remit.journal.events import OUTCOMES, Draft, Event, EventType
from remit.journal.journal import Journal
from remit.journal.redaction import Redactor
from remit.runs.bounds import closing
from remit.runs.by_person import commit_by
from remit.runs.fold import Folded
from remit.runs.leases import held
from remit.runs.program import RunResult
from remit.runs.table import Lease, RunTable
from remit.storage import rows
from remit.storage.writer import Statement
from remit.values import Json

SCOPE = "runs:close"
"""What a person's token must hold to end a run."""


class Closing:
    """Closes the runs of one tenant."""

    def __init__(
        self, *, table: RunTable, journal: Journal, redactor: Redactor, people: People, closed: Callable[[str], None]
    ) -> None:
        """`closed` is told of each run that was closed here."""
        self._table = table
        self._tell_closed = closed
        self.journal = journal
        self.redactor = redactor
        self._people = people

    async def finish(self, folded: Folded, outcome: str, *, output: Json = None, reason: str = "") -> RunResult:
        """Close a run whose state is at hand, once the calls that are under way have come to their outcomes."""
        state = folded.state
        state.ended = state.ended or "is closed"
        await state.turns.idle()
        now = self.journal.clock()
        body = {"outcome": outcome, "output": output, "reason": reason}
        closed = closing(state.redactor, state.authority.principal, body, now - state.opened_at - state.parked_us)
        statements = [rows.close_run(state.run, outcome, now), rows.withdraw_approvals(state.run, now)]
        await self.journal.append(state.log, closed, statements=statements)
        if folded.lease is not None:
            folded.lease.settled = True
        self._tell_closed(state.run)
        return RunResult(run=state.run, outcome=outcome, output=output, reason=reason)

    async def refused(self, run: str) -> RunResult | None:
        """Close a run without its program where the answer to what it asked was no, or came too late; else `None`."""
        log, events = self.journal.reopen(run)
        now = self.journal.clock()
        reason = _refusal(events, now)
        if reason is None:
            return None
        body = {"outcome": "denied", "output": None, "reason": reason}
        redactor = redactor_of(self.redactor, events)
        closed = closing(redactor, events[0].header.actor, body, now - events[0].header.at)
        await self.journal.append(log, closed, statements=_closing_statements(run, "denied", now))
        self._tell_closed(run)
        return RunResult(run=run, outcome="denied", reason=reason)

    async def by_person(self, run: str, *, token: str, reason: str) -> RunResult:
        """End a run as the person that `token` belongs to, who works on some queue: what it asks is withdrawn.

        A call that was sent and has no outcome becomes unknown, and so does the run. Raises `CaseError` with what keeps
        this person from it, `RunError`: `run_closed`, or `run_busy` while a worker drives it.
        """
        person = self._people.holder(token, SCOPE, self.journal.clock())
        refused = may_decide(person, self._people.operators(), None, None, None)
        if refused is not None:
            raise CaseError(refused.message, code=refused.code)
        standing = self._table.standing(run)
        if standing.status == "closed":
            raise RunError(f"run `{run}` is closed already; `remit show {run}` says how", code="run_closed")
        lease = self._table.claim(standing)
        if lease is None:
            raise RunError(f"a worker drives run `{run}` now; stop that worker, then close it", code="run_busy")
        async with held(self._table, lease):
            return await self._stop(lease, person.principal, reason)

    async def _stop(self, lease: Lease, person: str, reason: str) -> RunResult:
        log, events = self.journal.reopen(lease.run)
        if any(event.type is EventType.RUN_CLOSED for event in events):
            raise RunError(f"run `{lease.run}` is closed already", code="run_closed")
        now = self.journal.clock()
        lost = list(_unsettled(events))
        outcome = "unknown" if lost else "stopped"
        why = redactor_of(self.redactor, events).text(reason)
        said = f"ended by {person}{f': {why}' if why else ''}"
        if lost:
            tools = ", ".join(f"`{event.body['tool']}`" for event in lost)
            said = f"{said}; nobody knows whether {tools} happened, so look in the system of record"
        drafts = [_unknown(event) for event in lost]
        body = {"outcome": outcome, "output": None, "reason": said, "by": person}
        # A header holds nothing personal.
        actor = self.redactor.pseudonym("person", person)
        closed = closing(self.redactor, actor, body, now - events[0].header.at)
        statements = _closing_statements(lease.run, outcome, now)
        await commit_by(person, self.journal, log, [*drafts, closed], statements)
        self._tell_closed(lease.run)
        return RunResult(run=lease.run, outcome=outcome, reason=said)


def _closing_statements(run: str, outcome: str, now: int) -> list[Statement]:
    return [rows.close_run(run, outcome, now), rows.expire_approvals(run, now), rows.withdraw_approvals(run, now)]


def _unsettled(events: Sequence[Event]) -> Iterator[Event]:
    """The decisions after which a call may have been sent, and whose outcome is not on record."""
    allowed: dict[str, Event] = {}
    for event in events:
        if event.type is EventType.CALL_DECIDED and event.header.verdict == "allow":
            allowed[event.header.span] = event
        elif event.type in OUTCOMES:
            allowed.pop(event.header.span, None)
    yield from allowed.values()


def _unknown(decided: Event) -> Draft:
    body = {
        "tool": decided.body["tool"],
        "code": "outcome_unknown",
        "message": "a person ended the run before it was known whether this happened",
    }
    header = decided.header
    return Draft(type=EventType.CALL_UNKNOWN, actor=header.actor, span=header.span, refs=header.refs, body=body)


def _refusal(events: Sequence[Event], now: int) -> str | None:
    """Why a held run can only end: the first of its open questions that was answered with no, or not in time."""
    open_questions: dict[str, dict[str, Any]] = {}
    for event in events:
        body: dict[str, Any] = event.body or {}
        span = event.header.span
        match event.type:
            case EventType.APPROVAL_REQUESTED:
                open_questions[span] = body
            case EventType.CALL_DECIDED:
                # What was decided anew is what counts; a hold is followed by its question.
                open_questions.pop(span, None)
            case EventType.APPROVAL_DECIDED if span in open_questions:
                asked = open_questions[span]
                if (asked["case"], asked["shown_digest"]) == (body["case"], body["shown_digest"]):
                    open_questions[span] = {**asked, "decision": body["decision"], "why": body.get("reason", "")}
            case _:
                pass
    for asked in open_questions.values():
        tool = asked["shown"]["tool"]
        if asked.get("decision") == "denied":
            why = f": {asked['why']}" if asked["why"] else ""
            return f"`{tool}` was denied by a person{why}"
        if asked["expires_at"] < now:
            return f"nobody approved `{tool}` in time, or it was not carried out in time"
    return None

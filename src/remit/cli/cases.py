"""`remit cases`, `case`, `approve`, `deny`, `answer`, `resolve`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from remit.cli.options import Listed, Many, spread
from remit.terminal import (
    JsonTimesOption,
    ProjectOption,
    line,
    print_json,
    print_lines,
    reporting,
    say,
    span_text,
    style_of,
    width,
    with_remit,
)

if TYPE_CHECKING:
    from rich.text import Text

    from remit.app import Remit
    from remit.cases.cases import Case, Decision
    from remit.cli.case_page import CasePage

CaseArgument = Annotated[
    str, typer.Argument(metavar="CASE", help="Id of a case, or the start of one.", show_default=False)
]
OneArgument = Annotated[
    str | None, typer.Argument(metavar="CASE", help="Id of a case, or the start of one; or `--all`.", show_default=False)
]
AsOption = Annotated[
    str,
    typer.Option(
        "--as", metavar="PERSON", help="Who decides: a person declared in remit.toml, such as `lee`.", show_default=False
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept on record.", show_default=False)]


class Status(StrEnum):
    """How a case can stand."""

    OPEN = "open"
    APPROVED = "approved"
    DENIED = "denied"
    RESOLVED = "resolved"
    ANSWERED = "answered"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    ALL = "all"


_STATUSES = f"Which: {', '.join(Status)}."
_MANY = 20
"""From so many on, a list of cases ends with what holds how many of them."""


@spread
def list_cases(
    filters: Listed,
    status: Annotated[Status, typer.Option(metavar="STATUS", help=_STATUSES)] = Status.OPEN,
    json: JsonTimesOption = False,
    project: ProjectOption = None,
) -> None:
    """List what people must do, the most urgent first."""

    async def use(remit: Remit) -> tuple[list[Case], list[Case], int]:
        asked = filters.asked(remit)
        asked["status"] = None if status is Status.ALL else status
        found = remit.cases.list(remit.tenant, limit=filters.limit, offset=filters.offset, **asked)
        there = remit.cases.count(remit.tenant, **asked)
        every = found if there == len(found) else remit.cases.list(remit.tenant, limit=max(1, there), **asked)
        return found, every, remit.clock()

    found, every, now = with_remit(project, use)
    cut = f"{len(found):,} of {len(every):,} shown; --limit and --offset show others"
    if json:
        print_json([asdict(case) for case in found])
        if len(found) < len(every):
            print_lines([line((cut, "dim"))], stderr=True)
        return
    if not every:
        nothing = status is Status.OPEN and not filters.are_set()
        say(("nothing waits for a person" if nothing else "there is no such case", "dim"))
        return
    print_lines(_table(found, now, with_status=status is Status.ALL))
    if len(found) < len(every):
        say((cut, "dim"))
    if len(every) > _MANY:
        from remit.cli.bulk import counted

        print_lines([line(("by the rule that holds them, or their kind:", "dim")), *counted(every)])


def _table(found: list[Case], now: int, *, with_status: bool) -> list[Text]:
    from remit.cli.case_page import asked, ends_at, status_of
    from remit.cli.layout import table

    names = ["case", "kind", "status", "for", "time left", "run", "why"]
    rows: list[list[Text]] = []
    for case in sorted(found, key=lambda case: (case.status != "open", ends_at(case) or case.opened_at)):
        state = status_of(case, now)
        rows.append(
            [
                line((case.case, "bold")),
                line(case.kind),
                line((state, style_of(state))),
                line(asked(case)),
                line(*_time_left(case, now)),
                line(case.run[:12]),
                line(case.reason),
            ]
        )
    drop = ["run", "for", "kind"]
    if not with_status:
        names.remove("status")
        rows = [[*row[:2], *row[3:]] for row in rows]
    return table(names, rows, width(), drop=drop)


def _time_left(case: Case, now: int) -> list[tuple[str, str]]:
    """Until an approval expires, or anything else is due; whoever is late reads so."""
    from remit.cli.case_page import ends_at

    end = ends_at(case)
    if case.status != "open" or end is None:
        return []
    if end < now:
        return [("expired", style_of("expired"))] if case.expires_at else [(f"{span_text(now - end)} late", "bold")]
    late = case.due_at is not None and case.due_at < now
    return [(span_text(end - now), ""), (", late" if late else "", "bold")]


def show_case(
    case: CaseArgument,
    by: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="PERSON",
            help="Show the originals of what is redacted to this person, who must be one who may decide; it is recorded.",
        ),
    ] = None,
    json: JsonTimesOption = False,
    project: ProjectOption = None,
) -> None:
    """Show what a case asks.

    The call with each of its arguments, where they came from, the rule that asks, by when, and how to answer.
    """

    async def use(remit: Remit) -> CasePage:
        from remit.cli.case_page import CasePage
        from remit.cli.lookup import find, find_person
        from remit.cli.run_list import loss_of

        found = remit.cases.get(find(remit, "case", case))
        token = None if by is None else remit.person_token(find_person(remit, by))
        revealed = None if token is None else await remit.cases.reveal(found.case, token=token)
        events = remit.journal.reader.events(found.run)
        return CasePage(
            case=found,
            question=remit.cases.question(found),
            events=events,
            now=remit.clock(),
            width=width(),
            revealed=revealed,
            loss=loss_of(remit, events),
        )

    page = with_remit(project, use)
    if json:
        from msgspec import to_builtins

        originals = {} if page.revealed is None else {"originals": asdict(page.revealed)}
        lost = {} if page.loss is None else {"lost": to_builtins(page.loss)}
        print_json({**asdict(page.case), "question": page.question, **originals, **lost})
        return
    print_lines(page.lines())


@spread
def approve(
    by: AsOption, many: Many, case: OneArgument = None, reason: ReasonOption = "", project: ProjectOption = None
) -> None:
    """Approve exactly what a case asks.

    The run goes on at once with the call that was shown, and with no other. Where something of it is redacted,
    `remit case CASE --as PERSON` shows the originals.
    """
    _decide("approved", _Deciding(case=case, many=many, by=by, reason=reason), project)


@spread
def deny(
    by: AsOption, many: Many, case: OneArgument = None, reason: ReasonOption = "", project: ProjectOption = None
) -> None:
    """Say no to what a case asks.

    The run goes on at once, without that call. Where something of it is redacted, `remit case CASE --as PERSON` shows
    the originals.
    """
    _decide("denied", _Deciding(case=case, many=many, by=by, reason=reason), project)


@spread
def resolve(
    by: AsOption, many: Many, case: OneArgument = None, reason: ReasonOption = "", project: ProjectOption = None
) -> None:
    """Record that a case was handled outside of Remit.

    For escalations, for runs that ended in trouble, and for calls of which nobody knew whether they happened.
    """
    _decide("resolved", _Deciding(case=case, many=many, by=by, reason=reason), project)


@dataclass(frozen=True, kw_only=True)
class Answering:
    """What is answered, and how it is given."""

    answer: Annotated[
        str | None,
        typer.Argument(metavar="ANSWER", help="The answer: a text, or JSON where it is no text; `-` reads it from standard input."),
    ] = None
    draft: Annotated[bool, typer.Option("--draft", help="Take the run's draft as it is.")] = False
    edit: Annotated[bool, typer.Option("--edit", help="Edit the run's draft, as JSON, in $EDITOR.")] = False

    def check(self) -> None:
        """Raises `typer.BadParameter` unless it says one answer."""
        if (self.answer is not None) + self.draft + self.edit != 1:
            raise typer.BadParameter("give an ANSWER, or `--draft` to take the run's draft, or `--edit` to edit it")


@spread
def answer(
    *,
    case: CaseArgument,
    answering: Answering,
    by: AsOption,
    reason: ReasonOption = "",
    json: JsonTimesOption = False,
    project: ProjectOption = None,
) -> None:
    """Answer what a run asks; the run goes on with the answer.

    The run may bring a draft to start from. What is changed of it is kept on record as the difference.
    """
    answering.check()

    async def use(remit: Remit) -> Case:
        from remit.cli.answers import read_answer
        from remit.cli.lookup import find, find_person

        person, found = find_person(remit, by), find(remit, "case", case)
        given = await read_answer(remit, found, person, answering)
        return await remit.cases.answer(found, given, token=remit.person_token(person), reason=reason)

    answered = with_remit(project, use)
    with reporting(f"{answered.case} is answered"):
        if json:
            print_json(asdict(answered))
        else:
            said = f" by {answered.decided_by}; `remit worker` goes on with {answered.run}"
            print_lines([line((answered.case, "bold"), " ", ("answered", style_of("answered")), said)])


@dataclass(frozen=True, kw_only=True)
class _Deciding:
    """What was typed: which cases, as whom, and why."""

    case: str | None
    many: Many
    by: str
    reason: str

    def check(self) -> None:
        """Raises `typer.BadParameter` unless it says one case, or all of some."""
        if self.case is not None and (self.many.every or self.many.are_set()):
            raise typer.BadParameter("give one CASE, or `--all` with filters, but not both")
        if self.case is None and not self.many.every:
            raise typer.BadParameter("give a CASE; or `--all` for all that the filters leave")


def _decide(word: str, deciding: _Deciding, project: ProjectOption) -> None:
    deciding.check()

    async def use(remit: Remit) -> bool:
        from remit.cases.cases import Decision
        from remit.cli.lookup import find_person

        person, decision = find_person(remit, deciding.by), Decision(word)
        if deciding.case is not None:
            await _decide_one(remit, deciding.case, decision, person, deciding.reason)
            return True
        from remit.cli import bulk

        cases = bulk.chosen(remit, decision, deciding.many)
        if deciding.many.yes and cases:
            return await bulk.decide_all(remit, cases, decision, person, deciding.reason)
        bulk.announce(cases, decision, person)
        return True

    if not with_remit(project, use):
        raise typer.Exit(1)


async def _decide_one(remit: Remit, start: str, decision: Decision, person: str, reason: str) -> None:
    from remit.cli.lookup import find

    case = find(remit, "case", start)
    decided = await remit.cases.decide(case, decision, token=remit.person_token(person), reason=reason)
    lines = [line((decided.case, "bold"), " ", (decision, style_of(decision)), f" by {decided.decided_by}")]
    try:
        if decided.kind == "approval":
            lines += await _go_on(remit, decided.run)
    finally:
        # Whatever becomes of the run, the decision is made.
        with reporting(f"{decided.case} is {decision}"):
            print_lines(lines)


async def _go_on(remit: Remit, run: str) -> list[Text]:
    """Let the run go on now, where its agent is here."""
    from remit.cli.run_list import result_lines
    from remit.errors import RunError

    try:
        return result_lines(await remit.engine.drive(run))
    except RunError as error:
        if error.code != "no_workflow":
            raise
        return [line(f"{run} goes on when its agent, which lives elsewhere, proposes the call again")]

"""`remit cases`, `case`, `approve`, `deny`, `resolve`."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli.terminal import (
    JsonTimesOption,
    ProjectOption,
    line,
    print_json,
    print_lines,
    say,
    span_text,
    style_of,
    width,
    with_remit,
)

if TYPE_CHECKING:
    from rich.text import Text

    from remit.app import Remit
    from remit.cases.cases import Case

CaseArgument = Annotated[
    str, typer.Argument(metavar="CASE", help="Id of a case, or the start of one.", show_default=False)
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
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    ALL = "all"


_STATUSES = f"Which: {', '.join(Status)}."


def list_cases(
    status: Annotated[Status, typer.Option(metavar="STATUS", help=_STATUSES)] = Status.OPEN,
    json: JsonTimesOption = False,
    project: ProjectOption = None,
) -> None:
    """List what people must do, the most urgent first."""

    async def use(remit: Remit) -> tuple[list[Case], int]:
        return remit.cases.list(remit.tenant, status=None if status is Status.ALL else status), remit.clock()

    found, now = with_remit(project, use)
    if json:
        print_json([asdict(case) for case in found])
        return
    if found:
        print_lines(_table(found, now, with_status=status is Status.ALL))
    else:
        say(("nothing waits for a person" if status is Status.OPEN else "there is no such case", "dim"))


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


def show_case(case: CaseArgument, json: JsonTimesOption = False, project: ProjectOption = None) -> None:
    """Show what a case asks.

    The call with each of its arguments, where they came from, the rule that asks, by when, and how to answer.
    """

    async def use(remit: Remit) -> tuple[Case, Any, Any, int]:
        from remit.cli.lookup import find_case

        found = remit.cases.get(find_case(remit, case))
        return found, remit.cases.question(found), remit.journal.reader.events(found.run), remit.clock()

    found, question, events, now = with_remit(project, use)
    if json:
        print_json({**asdict(found), "question": question})
        return
    from remit.cli.case_page import CasePage

    print_lines(CasePage(case=found, question=question, events=events, now=now, width=width()).lines())


def approve(case: CaseArgument, by: AsOption, reason: ReasonOption = "", project: ProjectOption = None) -> None:
    """Approve exactly what a case asks.

    The run goes on at once with the call that was shown, and with no other.
    """
    _decide(case, "approved", by, reason, project)


def deny(case: CaseArgument, by: AsOption, reason: ReasonOption = "", project: ProjectOption = None) -> None:
    """Say no to what a case asks.

    The run goes on at once, without that call.
    """
    _decide(case, "denied", by, reason, project)


def resolve(case: CaseArgument, by: AsOption, reason: ReasonOption = "", project: ProjectOption = None) -> None:
    """Note that a handed-over case was dealt with.

    For escalations, and for calls of which nobody knew whether they happened.
    """
    _decide(case, "resolved", by, reason, project)


def _decide(case: str, decision: str, by: str, reason: str, project: ProjectOption) -> None:
    async def use(remit: Remit) -> None:
        from remit.cases.cases import Decision
        from remit.cli.lookup import find_case, find_person

        token = remit.person_token(find_person(remit, by))
        chosen = find_case(remit, case)
        decided = await remit.cases.decide(chosen, Decision(decision), token=token, reason=reason)
        say((decided.case, "bold"), " ", (decision, style_of(decision)), f" by {decided.decided_by}")
        if decided.kind == "approval":
            await _go_on(remit, decided.run)

    with_remit(project, use)


async def _go_on(remit: Remit, run: str) -> None:
    """Let the run go on now, where its agent is here."""
    from remit.errors import RunError

    try:
        result = await remit.engine.drive(run)
    except RunError as error:
        if error.code != "no_workflow":
            raise
        say(f"{run} goes on when its agent, which lives elsewhere, proposes the call again")
        return
    said = f" {result.reason}" if result.reason else ""
    say(f"{result.run} ", (result.outcome, style_of(result.outcome)), said)

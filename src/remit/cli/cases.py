"""`remit cases`, `case`, `approve`, `deny`, `resolve`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli.terminal import JsonOption, ProjectOption, clock_time, console, print_json, style_of, with_remit

if TYPE_CHECKING:
    from remit.app import Remit
    from remit.cases.cases import Case

CaseArgument = Annotated[str, typer.Argument(help="Id of the case.", show_default=False)]
AsOption = Annotated[str, typer.Option("--as", help="Who decides: a person declared in remit.toml.", show_default=False)]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept on record.")]


def list_cases(
    status: Annotated[str, typer.Option(help="open, approved, denied, resolved, or all.")] = "open",
    json: JsonOption = False,
    project: ProjectOption = None,
) -> None:
    """List what people must do, the most urgent first."""

    async def use(remit: Remit) -> list[Case]:
        return remit.cases.list(remit.tenant, status=None if status == "all" else status)

    found = with_remit(project, use)
    if json:
        print_json([asdict(case) for case in found])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("case", "kind", "run", "asks", "due (UTC)", "why"):
        table.add_column(name)
    for case in found:
        asks = ", ".join(case.roles) or case.queue
        due = clock_time(case.due_at) if case.due_at else ""
        table.add_row(case.case, case.kind, case.run[:12], asks, due, case.reason)
    console().print(table)
    if not found:
        console().print("nothing waits for a person", style="dim")


def show_case(case: CaseArgument, json: JsonOption = False, project: ProjectOption = None) -> None:
    """Show what a case asks: the call, where its arguments came from, and the rule that asks."""

    async def use(remit: Remit) -> tuple[Case, Any]:
        found = remit.cases.get(case)
        return found, remit.cases.question(found)

    found, question = with_remit(project, use)
    if json:
        print_json({**asdict(found), "question": question})
        return
    out = console()
    out.print(f"[bold]{found.case}[/] · {found.kind} · [{style_of(found.status)}]{found.status}[/] · run {found.run}")
    shown = question.get("shown") or question
    for name in ("tool", "args", "resource", "labels", "rules", "reason", "draft"):
        if shown.get(name):
            out.print(f"  [dim]{name:>9}[/]  {shown[name]}", markup=True)
    if found.status == "open" and found.kind == "approval":
        out.print(f"  decide with `remit approve {found.case} --as PERSON` or `remit deny {found.case} --as PERSON`")


def approve(case: CaseArgument, by: AsOption, reason: ReasonOption = "", project: ProjectOption = None) -> None:
    """Approve exactly what a case asks; its run goes on."""
    _decide(case, "approved", by, reason, project)


def deny(case: CaseArgument, by: AsOption, reason: ReasonOption = "", project: ProjectOption = None) -> None:
    """Say no to what a case asks; its run goes on without."""
    _decide(case, "denied", by, reason, project)


def resolve(case: CaseArgument, by: AsOption, reason: ReasonOption = "", project: ProjectOption = None) -> None:
    """Note that an escalation, or an outcome that nobody knew, was dealt with."""
    _decide(case, "resolved", by, reason, project)


def _decide(case: str, decision: str, by: str, reason: str, project: ProjectOption) -> None:
    async def use(remit: Remit) -> None:
        from remit.cases.cases import Decision

        token = remit.person_token(by.removeprefix("person/"))
        decided = await remit.cases.decide(case, Decision(decision), token=token, reason=reason)
        out = console()
        out.print(f"{decided.case} [{style_of(decision)}]{decision}[/] by {decided.decided_by}")
        if decided.kind == "approval":
            result = await remit.engine.drive(decided.run)
            out.print(f"{result.run} [{style_of(result.outcome)}]{result.outcome}[/] {result.reason}".rstrip())

    with_remit(project, use)

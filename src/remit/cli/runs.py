"""`remit run`, `work`, `runs`, `show`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli.terminal import (
    JsonOption,
    ProjectOption,
    clock_time,
    console,
    print_json,
    style_of,
    with_remit,
)

if TYPE_CHECKING:
    from remit.app import Remit
    from remit.runs.engine import RunResult

RunArgument = Annotated[str, typer.Argument(help="Id of a run, or the start of one.", show_default=False)]


def run(
    contract: Annotated[str, typer.Argument(help="Name of the contract.", show_default=False)],
    request: Annotated[str, typer.Argument(help="The request as JSON, or `-` to read it from standard input.")],
    on_behalf_of: Annotated[str | None, typer.Option(help="Person that the run acts for, `person/<id>`.")] = None,
    key: Annotated[str | None, typer.Option(help="Key of the request; the same key again gives the same run.")] = None,
    json: JsonOption = False,
    project: ProjectOption = None,
) -> None:
    """Run a contract for one request.

    Example: remit run it-tickets '{"issue": 12}'
    """

    async def use(remit: Remit) -> RunResult:
        from remit.values import parse

        given = parse(sys.stdin.read() if request == "-" else request)
        return await remit.run(contract, given, on_behalf_of=on_behalf_of, request_key=key)

    result = with_remit(project, use)
    if json:
        print_json({"run": result.run, "outcome": result.outcome, "output": result.output, "reason": result.reason,
                    "case": result.case})
    else:
        out = console()
        out.print(f"[bold]{result.run}[/] [{style_of(result.outcome)}]{result.outcome}[/] {result.reason}".rstrip())
        if result.case:
            out.print(f"  waits in {result.case}; see `remit case {result.case}`")
        if result.output is not None:
            print_json(result.output)
    raise typer.Exit(0 if result.outcome in ("completed", "held", "escalated") else 3)


def work(
    once: Annotated[bool, typer.Option("--once", help="Drive what is waiting now, then stop.")] = False,
    project: ProjectOption = None,
) -> None:
    """Drive runs that wait for a worker: approved ones, expired ones, and those that a dead worker left."""

    async def use(remit: Remit) -> None:
        import asyncio
        import signal

        if once:
            for waiting in remit.engine.waiting():
                result = await remit.engine.drive(waiting)
                console().print(f"{waiting} [{style_of(result.outcome)}]{result.outcome}[/] {result.reason}".rstrip())
            return
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        console().print("working; stop with Ctrl-C", style="dim")
        await remit.engine.work(stop)

    with_remit(project, use)


def list_runs(
    last: Annotated[int, typer.Option("--last", help="How many, the newest first.")] = 20,
    outcome: Annotated[str | None, typer.Option(help="Only those that ended so, such as `escalated`.")] = None,
    json: JsonOption = False,
    project: ProjectOption = None,
) -> None:
    """List runs, the newest first."""

    async def use(remit: Remit) -> list[dict[str, Any]]:
        return read_runs(remit, last, outcome)

    found = with_remit(project, use)
    if json:
        print_json(found)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("run", "contract", "opened (UTC)", "status", "outcome"):
        table.add_column(name)
    for row in found:
        word = row["outcome"] or row["status"]
        table.add_row(
            row["run"], row["contract"], clock_time(row["opened_at"]), row["status"], f"[{style_of(word)}]{word}[/]"
        )
    console().print(table)
    if not found:
        console().print("no runs yet; start one with `remit run CONTRACT REQUEST`", style="dim")


def read_runs(remit: Remit, last: int, outcome: str | None) -> list[dict[str, Any]]:
    """Rows of the table `runs`, the newest first."""
    from sqlalchemy import select

    from remit.storage.schema import runs as table

    columns = (table.c.run, table.c.contract, table.c.release, table.c.status, table.c.outcome, table.c.opened_at)
    query = select(*columns).order_by(table.c.opened_at.desc()).limit(last)
    if outcome is not None:
        query = query.where((table.c.outcome == outcome) | (table.c.status == outcome))
    with remit.database.engine.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def show(run: RunArgument, json: JsonOption = False, project: ProjectOption = None) -> None:
    """Show a run as a story: each call with arguments, labels, decision, rule, outcome and time."""

    async def use(remit: Remit) -> Any:
        return remit.journal.reader.events(find_run(remit, run))

    events = with_remit(project, use)
    if json:
        import msgspec

        print_json(
            [
                {**msgspec.to_builtins(event.header), "hash": event.hash.hex(), "content": event.body}
                for event in events
            ]
        )
        return
    from remit.cli.story import story

    console().print(story(events))


def find_run(remit: Remit, start: str) -> str:
    """The run whose id is or begins with `start`. Raises `RunError` where none or several do."""
    from sqlalchemy import select

    from remit.errors import RunError
    from remit.storage.schema import runs as table

    wanted = start if start.startswith("run-") else f"run-{start}"
    query = select(table.c.run).where(table.c.run.startswith(wanted, autoescape=True)).limit(3)
    with remit.database.engine.connect() as connection:
        found = [row[0] for row in connection.execute(query)]
    if len(found) == 1:
        return found[0]
    if found:
        raise RunError(f"several runs begin with `{start}`: {', '.join(found)}; give more of it", code="run_ambiguous")
    raise RunError(f"there is no run `{start}`; `remit runs` lists them", code="run_not_found")



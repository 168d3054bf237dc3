"""`remit run`, `work`, `runs`, `show`."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli.terminal import (
    JsonOption,
    JsonTimesOption,
    ProjectOption,
    line,
    print_json,
    print_lines,
    say,
    short_time,
    style_of,
    width,
    with_remit,
)

if TYPE_CHECKING:
    from rich.text import Text

    from remit.app import Remit
    from remit.runs.engine import RunResult

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Id of a run, or the start of one.", show_default=False)
]


class Outcome(StrEnum):
    """How a run can have ended, or stand while it has not."""

    COMPLETED = "completed"
    ESCALATED = "escalated"
    DENIED = "denied"
    REJECTED = "rejected"
    FAILED = "failed"
    UNKNOWN = "unknown"
    DIVERGED = "diverged"
    STOPPED = "stopped"
    """Ended by a person; in the demo, an attack that came to nothing."""
    HELD = "held"
    READY = "ready"
    RUNNING = "running"


def run(
    contract: Annotated[str, typer.Argument(metavar="CONTRACT", help="Name of the contract.", show_default=False)],
    request: Annotated[
        str, typer.Argument(metavar="REQUEST", help="The request as JSON, or `-` to read it from standard input.")
    ],
    on_behalf_of: Annotated[
        str | None, typer.Option(metavar="PERSON", help="Person of remit.toml that the run acts for, such as `ann`.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Key of the request; the same key again gives the same run.")
    ] = None,
    json: JsonOption = False,
    project: ProjectOption = None,
) -> None:
    """Run a contract for one request."""

    async def use(remit: Remit) -> RunResult:
        from remit.cli.lookup import find_person
        from remit.values import parse

        behalf = None if on_behalf_of is None else f"person/{find_person(remit, on_behalf_of)}"
        given = parse(sys.stdin.read() if request == "-" else request)
        return await remit.run(contract, given, on_behalf_of=behalf, request_key=key)

    result = with_remit(project, use)
    if json:
        print_json({"run": result.run, "outcome": result.outcome, "output": result.output, "reason": result.reason,
                    "case": result.case})
    else:
        _say_result(result)
        if result.case:
            say(f"  waits in {result.case}; see `remit case {result.case}`")
        if result.output is not None:
            print_json(result.output)
    raise typer.Exit(0 if result.outcome in ("completed", "held", "escalated", "waiting") else 3)


def _say_result(result: RunResult) -> None:
    said = f" {result.reason}" if result.reason else ""
    say((result.run, "bold"), " ", (result.outcome, style_of(result.outcome)), said)


def work(
    once: Annotated[bool, typer.Option("--once", help="Drive what is waiting now, then stop.")] = False,
    project: ProjectOption = None,
) -> None:
    """Drive runs that wait for a worker.

    Approved ones, expired ones, and those that a dead worker left.
    """

    async def use(remit: Remit) -> None:
        import asyncio
        import signal

        if once:
            async for result in remit.engine.drive_waiting():
                _say_result(result)
            return
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        say(("working; stop with Ctrl-C", "dim"))
        await remit.engine.work(stop)

    with_remit(project, use)


def list_runs(
    last: Annotated[int, typer.Option("--last", metavar="N", min=1, help="How many, the newest first.")] = 20,
    outcome: Annotated[
        Outcome | None,
        typer.Option(metavar="OUTCOME", help="Only those that ended or stand so, such as `held`, `escalated` or `failed`."),
    ] = None,
    json: JsonTimesOption = False,
    project: ProjectOption = None,
) -> None:
    """List runs, the newest first."""

    async def use(remit: Remit) -> tuple[list[dict[str, Any]], int]:
        return read_runs(remit, last, outcome), remit.clock()

    found, now = with_remit(project, use)
    if json:
        print_json(found)
    elif found:
        print_lines(_table(found, now))
    elif outcome is not None:
        say((f"no run is {outcome}; `remit runs` lists all", "dim"))
    else:
        say(("no runs yet; start one with `remit run CONTRACT REQUEST`", "dim"))


def _table(found: list[dict[str, Any]], now: int) -> list[Text]:
    from remit.cli.layout import table
    from remit.cli.readable import value_text

    columns = width()
    limit = None if columns is None else 40
    rows: list[list[Text]] = []
    for row in found:
        word = row["outcome"] or row["status"]
        about = line(value_text(row["request"], limit)) if row["request"] is not None else line(("erased", "dim"))
        if row["reason"]:
            about += line((f" · {row['reason']}", "dim"))
        rows.append(
            [
                line((row["run"], "bold")),
                line(row["contract"]),
                line(short_time(row["opened_at"], now)),
                line((word, style_of(word))),
                about,
            ]
        )
    names = ["run", "contract", "at (UTC)", "outcome", "request and reason"]
    return table(names, rows, columns, drop=["contract", "at (UTC)"])


def read_runs(remit: Remit, last: int, outcome: str | None) -> list[dict[str, Any]]:
    """Rows of the table `runs`, the newest first, each with its request and why it ended, as the record has them."""
    from sqlalchemy import select

    from remit.storage.database import storage_errors
    from remit.storage.schema import runs as table

    columns = (table.c.run, table.c.contract, table.c.release, table.c.status, table.c.outcome, table.c.opened_at)
    query = select(*columns).where(table.c.tenant == remit.tenant).order_by(table.c.opened_at.desc()).limit(last)
    if outcome is not None:
        query = query.where((table.c.outcome == outcome) | (table.c.status == outcome))
    with storage_errors("list the runs"), remit.database.engine.connect() as connection:
        found = [dict(row) for row in connection.execute(query).mappings()]
    return [{**row, **_request_and_reason(remit, row["run"])} for row in found]


def _request_and_reason(remit: Remit, run: str) -> dict[str, Any]:
    """`None` for a run that was erased. A record that is damaged is said to be so, and hides no other run."""
    from remit.errors import RemitError

    try:
        events = remit.journal.reader.events(run)
    except RemitError as error:
        return {"request": None, "reason": error.message}
    opened: dict[str, Any] = events[0].body or {}
    closed: dict[str, Any] = events[-1].body or {} if events[-1].type == "run.closed" else {}
    return {"request": opened.get("request"), "reason": closed.get("reason") or None}


def show(run: RunArgument, json: JsonTimesOption = False, project: ProjectOption = None) -> None:
    """Show a run as a story.

    Each call with its arguments, where they came from, the decision, the rule, the outcome and the time.
    """

    async def use(remit: Remit) -> tuple[Any, int]:
        from remit.cli.lookup import find_run

        return remit.journal.reader.events(find_run(remit, run)), remit.clock()

    events, now = with_remit(project, use)
    if json:
        import msgspec

        print_json(
            [
                {**msgspec.to_builtins(event.header), "hash": event.hash.hex(), "content": event.body}
                for event in events
            ]
        )
        return
    from remit.cli.story import Story

    print_lines(Story(events=events, now=now, width=width()).lines())

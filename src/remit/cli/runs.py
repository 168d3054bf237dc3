"""`remit run`, `submit`, `runs`, `show`, `close`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli.options import MOST, spread
from remit.contracts.urgency import Urgency
from remit.terminal import (
    JsonOption,
    JsonTimesOption,
    ProjectOption,
    line,
    print_json,
    print_lines,
    reporting,
    say,
    width,
    with_remit,
)

if TYPE_CHECKING:
    from remit.app import Remit
    from remit.journal.events import Event
    from remit.records.remains import Loss
    from remit.runs.engine import RunOptions, RunResult
    from remit.values import Json

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Id of a run, or the start of one.", show_default=False)
]

ContractArgument = Annotated[
    str, typer.Argument(metavar="CONTRACT", help="Name of the contract.", show_default=False)
]
RequestArgument = Annotated[
    str, typer.Argument(metavar="REQUEST", help="The request as JSON, or `-` to read it from standard input.")
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
    IMPORTED = "imported"
    """It took place elsewhere, and was brought in."""
    STOPPED = "stopped"
    """Ended by a person; in the demo, an attack that came to nothing."""
    HELD = "held"
    READY = "ready"
    RUNNING = "running"
    WAITING = "waiting"
    """A system of record is out of reach; it goes on by itself."""
    STUCK = "stuck"
    """It can't go on, and says why."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What is said of a run beside its request."""

    on_behalf_of: Annotated[
        str | None, typer.Option(metavar="PERSON", help="Person of remit.toml that the run acts for, such as `ann`.")
    ] = None
    key: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Key of the request; the same key again gives the same run.")
    ] = None
    traceparent: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="The caller's span (W3C Trace Context), below which the run stands.", envvar="TRACEPARENT"
        ),
    ] = None
    priority: Annotated[
        Urgency | None, typer.Option(metavar="PRIORITY", help=f"How urgent it is to workers: {', '.join(Urgency)}.")
    ] = None

    def options(self, remit: Remit) -> RunOptions:
        """What the engine is told of it."""
        from remit.cli.lookup import find_person

        behalf = None if self.on_behalf_of is None else f"person/{find_person(remit, self.on_behalf_of)}"
        return {
            "on_behalf_of": behalf,
            "request_key": self.key,
            "traceparent": self.traceparent,
            "priority": self.priority,
        }


@spread
def run(
    *,
    contract: ContractArgument,
    request: RequestArgument,
    opening: Opening,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Don't show what models say while they say it.")] = False,
    json: JsonOption = False,
    project: ProjectOption = None,
) -> None:
    """Run a contract for one request.

    On a terminal it shows what models say while they say it.
    """

    async def use(remit: Remit) -> RunResult:
        from remit.cli.listening import showing_texts

        with nullcontext() if json or no_stream or not sys.stderr.isatty() else showing_texts():
            return await remit.run(contract, _given(request), **opening.options(remit))

    result = with_remit(project, use)
    with reporting(f"{result.run} is {result.outcome}, see `remit show {result.run}`"):
        if json:
            print_json(asdict(result))
        else:
            _print_result(result)
    raise typer.Exit(0 if result.outcome in ("completed", "held", "escalated", "waiting") else 3)


@spread
def submit(
    *,
    contract: ContractArgument,
    request: RequestArgument,
    opening: Opening,
    json: JsonOption = False,
    project: ProjectOption = None,
) -> None:
    """Put a run into the queue, for a worker to drive."""

    async def use(remit: Remit) -> str:
        return await remit.engine.enqueue(contract, _given(request), **opening.options(remit))

    found = with_remit(project, use)
    with reporting(f"{found} is in the queue"):
        if json:
            print_json({"run": found})
        else:
            print_lines([line((found, "bold"), " is in the queue; `remit worker` drives it")])


def _given(request: str) -> Json:
    from remit.values import parse

    return parse(sys.stdin.read() if request == "-" else request)


def _print_result(result: RunResult) -> None:
    from remit.cli.run_list import result_lines

    lines = result_lines(result)
    if result.case:
        lines.append(line(f"  waits in {result.case}; see `remit case {result.case}`"))
    print_lines(lines)
    if result.output is not None:
        print_json(result.output)


def close(
    run: RunArgument,
    by: Annotated[
        str,
        typer.Option(
            "--as", metavar="PERSON", help="Who ends it: a person of remit.toml who works on a queue.", show_default=False
        ),
    ],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept on record.", show_default=False)] = "",
    project: ProjectOption = None,
) -> None:
    """End a run that can't go on.

    For one that is stuck, or that nobody wants any more; not while a worker drives it. What it asks of people is
    withdrawn. A call that was sent and has no outcome becomes unknown, and so does the run.
    """

    async def use(remit: Remit) -> RunResult:
        from remit.cli.lookup import find, find_person

        token = remit.person_token(find_person(remit, by))
        return await remit.close_run(find(remit, "run", run), token=token, reason=reason)

    result = with_remit(project, use)
    with reporting(f"{result.run} is {result.outcome}"):
        _print_result(result)


def list_runs(
    last: Annotated[int, typer.Option("--last", metavar="N", min=1, max=MOST, help="How many, the newest first.")] = 20,
    outcome: Annotated[
        Outcome | None,
        typer.Option(metavar="OUTCOME", help="Only those that ended or stand so, such as `held`, `escalated` or `failed`."),
    ] = None,
    json: JsonTimesOption = False,
    project: ProjectOption = None,
) -> None:
    """List runs, the newest first."""
    from remit.cli.run_list import read_runs, run_table

    async def use(remit: Remit) -> tuple[list[dict[str, Any]], int]:
        return read_runs(remit, last, outcome), remit.clock()

    found, now = with_remit(project, use)
    if json:
        print_json(found)
    elif found:
        print_lines(run_table(found, now))
    elif outcome is not None:
        say((f"no run is {outcome}; `remit runs` lists all", "dim"))
    else:
        say(("no runs yet; start one with `remit run CONTRACT REQUEST`", "dim"))


def show(
    run: RunArgument,
    timeline: Annotated[bool, typer.Option("--timeline", help="Draw where its time went.")] = False,
    json: JsonTimesOption = False,
    project: ProjectOption = None,
) -> None:
    """Show a run as a story.

    Each call with its arguments, where they came from, the decision, the rule, the outcome and the time. With --timeline
    a bar for each step, and which of them the run waited for.
    """

    async def use(remit: Remit) -> tuple[list[Event], Loss | None, str | None, int]:
        from remit.cli.lookup import find
        from remit.cli.run_list import loss_of, trouble_of

        found = find(remit, "run", run)
        events = remit.journal.reader.events(found)
        return events, loss_of(remit, events), trouble_of(remit, found), remit.clock()

    events, loss, trouble, now = with_remit(project, use)
    if timeline:
        _print_timeline(events, json=json)
        return
    if json:
        import msgspec

        gone = {} if loss is None else {"lost": msgspec.to_builtins(loss)}
        print_json(
            [
                {**msgspec.to_builtins(event.header), "hash": event.hash.hex(), "content": event.body, **gone}
                for event in events
            ]
        )
        return
    from remit.cli.story import Story

    print_lines(Story(events=events, now=now, width=width(), trouble=trouble, loss=loss).lines())


def _print_timeline(events: list[Event], *, json: bool) -> None:
    from remit.cli.timeline import timeline_lines, timeline_of

    if json:
        found = timeline_of(events)
        bars = [asdict(bar) for bar in found.bars]
        print_json({"active_us": found.active_us, "waited_us": found.waited_us, "steps": bars})
    else:
        print_lines(timeline_lines(events, width()))

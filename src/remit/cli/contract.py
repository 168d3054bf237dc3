"""`remit contract infer`, `tighten`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.terminal import JsonOption, ProjectOption, clock_time, line, print_json, print_lines, say, width, with_remit

if TYPE_CHECKING:
    from remit.app import Remit
    from remit.backtest.learning import Consequence, Learnt, Tightening

app = typer.Typer(help="Learn a contract from what was done.", no_args_is_help=True, rich_markup_mode=None)
ContractArgument = Annotated[str, typer.Argument(metavar="CONTRACT", help="Name of the contract.", show_default=False)]
SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="WHEN", help="Only from runs since, such as `30d` or `2026-11-01`.")
]


@app.command("infer")
def infer(
    contract: ContractArgument,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FOLDER", help="Where it is written; by default `inferred/CONTRACT`. Must not exist."),
    ] = None,
    since: SinceOption = None,
    json: JsonOption = False,
    project: ProjectOption = None,
) -> None:
    """Propose the contract that recorded runs needed, and no more.

    Tools, fields, values, origins and rates that were used, with the evidence for each line; and what it would have denied.
    """

    async def use(remit: Remit) -> tuple[Learnt, Path]:
        from remit.backtest.learning import learn, write
        from remit.cli.times import since_us

        learnt = learn(remit, contract, since_us(since, remit.clock()))
        folder = to or remit.project.folder / "inferred" / contract
        write(remit, learnt, folder)
        return learnt, folder

    learnt, folder = with_remit(project, use)
    itself, later = learnt.on_itself, learnt.on_later
    if json:
        import msgspec

        counts = msgspec.to_builtins({"itself": itself, "later": later})
        print_json({"folder": str(folder), "runs": learnt.evidence.runs, "rules": len(learnt.narrowed.inferred), **counts})
        return
    actions = len(learnt.narrowed.terms.contract.actions)
    say(
        "wrote ", (str(folder), "bold"), f": {actions} actions and {len(learnt.narrowed.inferred)} rules",
        f" from {learnt.evidence.runs:,} runs",
    )
    say(f"on the runs it was learnt from: {_said(itself)}")
    if later is not None:
        say(f"learnt from the first 70 % of them, on the rest: {_said(later)}")
    say(f"try: remit backtest --contract {folder}")


def _said(trial: Consequence) -> str:
    anyway = trial.stopped - trial.beyond
    such = f", such as {trial.examples[0].replace(' ', ' step ')}" if trial.examples else ""
    also = f"; {anyway:,} more are already denied or asked by the contract as it is" if anyway else ""
    return f"{trial.beyond:,} of {trial.decisions:,} decisions would have been denied or asked{such}{also}"


@app.command("tighten")
def tighten(
    contract: ContractArgument, since: SinceOption = None, json: JsonOption = False, project: ProjectOption = None
) -> None:
    """Name the grants, fields, limits and budgets that nobody has used.

    With since when, and what taking them out would have changed.
    """

    async def use(remit: Remit) -> Tightening:
        from remit.backtest.learning import tighten as name_unused
        from remit.cli.times import since_us

        return name_unused(remit, contract, since_us(since, remit.clock()))

    found = with_remit(project, use)
    if json:
        import msgspec

        rows: list[dict[str, Any]] = [msgspec.to_builtins(each) for each in found.unused]
        print_json({"since": found.since, "runs": found.runs, "unused": rows, "backtest": msgspec.to_builtins(found.trial)})
        return
    _print(contract, found)


def _print(contract: str, found: Tightening) -> None:
    from remit.cli.layout import table

    runs = f"{found.runs:,} run{'' if found.runs == 1 else 's'}"
    say(f"left unused in {runs} of {contract} since {clock_time(found.since)} UTC:")
    rows = [
        [line((each.kind, "dim")), line((each.name, "bold")), line(each.present), line(each.used)] for each in found.unused
    ]
    if rows:
        print_lines(table(["what", "name", "now", "used"], rows, width(), drop=[]))
    else:
        say("  nothing")
    say(f"without it: {_said(found.trial)}; `remit contract infer {contract}` writes it down")

"""`remit demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from remit.cli.terminal import JsonOption, fail
from remit.errors import RemitError


def demo(
    folder: Annotated[Path, typer.Option("--dir", "-d", help="Where the demo's project goes.")] = Path("demo"),
    json: JsonOption = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the tracker running at the end.")] = False,
    model: Annotated[
        str | None, typer.Option(help="Ask an LLM instead: `openai:<model>`, `anthropic:<model>`, or the address of a server.")
    ] = None,
    tickets: Annotated[
        Path | None, typer.Option(help="Triage your own tickets: a CSV file (or .csv.gz).", exists=True, dir_okay=False)
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", help="Maps a column: `title=Summary`, `body=Description`, `category=Team`; repeatable."),
    ] = None,
) -> None:
    """The gate on a live tracker: triage, approvals, a red team, and the proof that the record is true.

    Examples: remit demo --dir demo · remit demo --tickets export.csv --column title=Summary --column body=Text
    """
    from remit.demo.main import Options, run_demo

    options = Options(folder=folder, json=json, keep=keep, model=model, tickets=tickets, columns=tuple(columns or ()))
    try:
        code = run_demo(options)
    except RemitError as error:
        fail(error)
    raise typer.Exit(code)

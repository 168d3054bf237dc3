"""`remit demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from remit.errors import RemitError
from remit.terminal import JsonOption, fail


def demo(
    folder: Annotated[Path, typer.Option("--dir", "-d", metavar="FOLDER", help="Where the demo's project goes.")] = Path("demo"),
    json: JsonOption = False,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Keep the tracker and the directory service running at the end, so that approvals can be carried out."
        ),
    ] = False,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Ask an LLM instead: `openai:<model>`, `anthropic:<model>`, or the address of a server.")
    ] = None,
    tickets: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Triage your own tickets: a CSV file (or .csv.gz).", exists=True, dir_okay=False)
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column", metavar="NAME=HEADER", help="Maps a column: `title=Summary`, `body=Text`, `category=Team`; repeatable."
        ),
    ] = None,
) -> None:
    """Watch the gate on a live tracker.

    Triage, approvals, a red team, and a comparison of the tracker with the journal; about a minute, no key, no server.
    """
    from remit.demo.main import Options, run_demo

    options = Options(folder=folder, json=json, keep=keep, model=model, tickets=tickets, columns=tuple(columns or ()))
    try:
        code = run_demo(options)
    except RemitError as error:
        fail(error)
    raise typer.Exit(code)

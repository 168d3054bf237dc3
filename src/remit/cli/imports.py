"""`remit import agentdojo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remit.terminal import JsonOption, ProjectOption, print_json, say, with_remit

if TYPE_CHECKING:
    from remit.app import Remit

app = typer.Typer(help="Bring in runs that took place elsewhere.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Bring in runs that took place elsewhere."""


@app.command("agentdojo")
def agentdojo(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files of recorded runs, one a line, gzipped or not.", show_default=False)
    ],
    json: JsonOption = False,
    project: ProjectOption = None,
) -> None:
    """Bring in recorded runs of AgentDojo.

    As closed runs of the contract `agentdojo-<suite>`, marked as imported. Each comes in once, however often one asks.
    """

    async def use(remit: Remit) -> dict[str, int]:
        from remit.backtest.bringing_in import bring_in
        from remit.cli.counting import counting

        with counting("bringing in recorded runs") as shown:
            return await bring_in(remit, files, shown)

    counts = with_remit(project, use)
    if json:
        print_json(counts)
        return
    known = f", {counts['known']:,} were on record already" if counts["known"] else ""
    say((f"{counts['imported']:,}", "bold"), f" runs with {counts['calls']:,} calls brought in{known}")
    if counts["imported"]:
        say("try: remit backtest --for CONTRACT, and remit runs --outcome imported")

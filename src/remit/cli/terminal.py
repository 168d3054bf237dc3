"""What all commands share: the project option, output for people or machines, and errors in words."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from remit.errors import RemitError

if TYPE_CHECKING:
    from rich.console import Console

    from remit.app import Remit

T = TypeVar("T")

ProjectOption = Annotated[
    Path | None,
    typer.Option(
        "--project", "-p", help="Folder of the project; by default the nearest one with a remit.toml.", envvar="REMIT_PROJECT"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def console() -> Console:
    """Where results are printed; colours only where somebody looks."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def fail(error: RemitError) -> NoReturn:
    """Say what is wrong on standard error and exit with 1."""
    from rich.console import Console
    from rich.text import Text

    line = Text("error: ", style="bold red")
    line.append(error.message, style="not bold default")
    line.append(f" ({error.code})", style="dim")
    Console(stderr=True, highlight=False, soft_wrap=True).print(line)
    raise typer.Exit(1)


def with_remit(project: Path | None, use: Callable[[Remit], Coroutine[Any, Any, T]]) -> T:
    """Open the project, use it, close it; errors are said in words."""
    import asyncio

    async def main() -> T:
        from remit.app import Remit

        async with Remit(project) as remit:
            return await use(remit)

    try:
        return asyncio.run(main())
    except RemitError as error:
        fail(error)


def clock_time(at_us: int) -> str:
    """Microseconds since the epoch as local-independent text, to the second."""
    return datetime.fromtimestamp(at_us / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def span_text(us: int) -> str:
    """A duration as people say it: `0.04 s`, `3.2 s`, `6 min`, `2.5 h`."""
    seconds = us / 1e6
    if seconds < 1:
        return f"{seconds:.3f} s" if seconds < 0.1 else f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


STYLES = {
    "completed": "green",
    "allow": "green",
    "approved": "green",
    "escalated": "yellow",
    "held": "yellow",
    "hold": "yellow",
    "open": "yellow",
    "reject": "magenta",
    "rejected": "magenta",
    "denied": "red",
    "deny": "red",
    "failed": "red",
    "unknown": "bold red",
    "diverged": "bold red",
    "running": "cyan",
    "ready": "cyan",
}


def style_of(word: str) -> str:
    """The colour of an outcome or verdict, the same everywhere."""
    return STYLES.get(word, "default")

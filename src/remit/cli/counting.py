"""A line on standard error that says how far a long command has come, where somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from remit.terminal import console


@contextmanager
def counting(text: str) -> Generator[Callable[[], None]]:
    """`text`, how many there were so far and how long it took; the function given is called once for each."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    out = console(stderr=True)
    if not out.is_terminal:
        yield lambda: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:,.0f}"), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True) as progress:
        task = progress.add_task(text, total=None)
        yield lambda: progress.advance(task)

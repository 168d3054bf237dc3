"""What the demo shows while it works, on standard error; standard output is for the result."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from remit.app import Remit
from remit.cli.terminal import style_of
from remit.demo.redteam import Tried
from remit.demo.summary import Summary
from remit.demo.triage import CONTRACT, Triaged
from remit.models.calibration import reliability_plot
from remit.models.tools import trained

if TYPE_CHECKING:
    from remit.demo.export import Measured

_LATEST = 6


class Display:
    """One terminal, from the first line to the last."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        self._console.print(text)

    @contextmanager
    def step(self, text: str) -> Generator[None, None, None]:
        """Something that takes a moment."""
        with self._console.status(text):
            yield
        self._console.print(f"[green]✓[/] {text}")

    @contextmanager
    def progress(self, text: str, total: int) -> Generator[Callable[[], None], None, None]:
        """Something that can be counted."""
        with self._bar() as bar:
            task = bar.add_task(text, total=total)
            yield lambda: bar.advance(task)

    def _bar(self) -> Progress:
        return Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )

    def model(self, remit: Remit) -> None:
        """Say honestly what decides."""
        section = remit.project.models["classifier"]
        if section.kind != "classifier":
            self.say(f"  model: {section.model or section.base_url}, asked with contract `{CONTRACT}`'s prompt")
            return
        heads = trained(remit.project.path(section.training or "")).heads.values()
        quality = ", ".join(f"{head.name} {head.accuracy:.0%} (calibration error {head.ece:.3f})" for head in heads)
        self.say(
            f"  model: a small local text classifier; out of fold on {section.training}: {quality}; no key, no LLM"
        )

    @contextmanager
    def triage(self, total: int) -> Generator[Callable[[Triaged], None], None, None]:
        """The first act: a bar, the count of outcomes, and the latest tickets."""
        bar, counts, latest = self._bar(), Counter[str](), list[Text]()
        task = bar.add_task("one governed run for each ticket", total=total)

        def picture() -> Group:
            line = Text("  ")
            for outcome, count in counts.most_common():
                line.append(f"{outcome} {count}   ", style=style_of(outcome))
            return Group(bar, line, *latest)

        with Live(picture(), console=self._console, refresh_per_second=12) as live:

            def show(item: Triaged) -> None:
                bar.advance(task)
                counts[item.result.outcome] += 1
                latest.append(_ticket_line(item))
                del latest[:-_LATEST]
                live.update(picture())

            yield show
            latest.clear()
            live.update(picture())

    def summary(self, summary: Summary) -> None:
        """The first act in figures."""
        self._console.rule("[bold]what happened", align="left")
        facts = Table.grid(padding=(0, 2))
        outcomes = "  ".join(f"[{style_of(k)}]{k} {v}[/]" for k, v in summary.outcomes.items())
        facts.add_row("[dim]runs[/]", f"{summary.runs} in {summary.seconds} s · {outcomes}")
        facts.add_row("[dim]right[/]", _right(summary))
        facts.add_row("[dim]by itself[/]", f"{summary.autonomous} of {summary.runs} runs completed without a person")
        verdicts = "  ".join(f"[{style_of(k)}]{k} {v}[/]" for k, v in summary.verdicts.items())
        facts.add_row("[dim]decisions[/]", f"{summary.calls} · {verdicts}")
        facts.add_row("[dim]rejected[/]", f"{summary.corrected} runs corrected a malformed call and went on")
        facts.add_row("[dim]denied by[/]", _counted(summary.denied_by))
        facts.add_row("[dim]held by[/]", _counted(summary.held_by))
        facts.add_row("[dim]run time[/]", f"p50 {summary.p50_ms:,.0f} ms · p95 {summary.p95_ms:,.0f} ms")
        done = summary.outcomes.get("completed", 0)
        cost = summary.cost_microusd / done / 1e6 if done else 0
        facts.add_row("[dim]model cost[/]", f"{cost:.4f} USD per completed run")
        self._console.print(facts)
        steps = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("step", "calls", "p50 ms", "p95 ms"):
            steps.add_column(name, justify="left" if name == "step" else "right")
        for tool, (count, p50, p95) in summary.steps_ms.items():
            steps.add_row(tool, str(count), f"{p50:,.1f}", f"{p95:,.1f}")
        self._console.print(steps)

    def export(self, measured: Measured, heads: Sequence[str]) -> None:
        """What came of somebody's own tickets."""
        runs = sum(measured.outcomes.values())
        self._console.rule("[bold]what happened", align="left")
        outcomes = "  ".join(f"[{style_of(k)}]{k} {v}[/]" for k, v in measured.outcomes.items())
        rate = runs / measured.seconds if measured.seconds else 0
        self.say(f"{runs:,} runs in {measured.seconds} s ({rate:,.0f} a second) · {outcomes}")
        done = measured.outcomes.get("completed", 0)
        if done:
            self.say(f"`{heads[0]}` right in {measured.right:,} of {done:,} completed runs ({measured.right / done:.1%})")
        self.say(f"trained on {measured.trained_on:,} in {measured.training_s} s; {measured.skipped} rows left out")
        for head in heads:
            found = measured.reports[head]
            self._console.rule(f"{head}: accuracy {found.accuracy:.1%}, calibration error {found.ece:.3f}", align="left")
            self._console.print(Text(reliability_plot(found.bins)))
        self.say(f"mismatches between the export and the runs: {measured.mismatches}")

    def attacks(self, tried: Sequence[Tried], unchanged: bool) -> None:
        """The second act as a table."""
        self._console.rule("[bold]what the red team tried", align="left")
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("attack", "", "stopped by"):
            table.add_column(name)
        for one in tried:
            table.add_row(one.attack, "[green]stopped[/]" if one.stopped else "[bold red]SUCCEEDED[/]", one.by)
        self._console.print(table)
        word = "[green]unchanged[/]" if unchanged else "[bold red]CHANGED[/]"
        self._console.print(f"tracker and directory, compared before and after: {word}")

    def closing(
        self,
        summary: Summary,
        tried: Sequence[Tried],
        differences: Sequence[str],
        folder: Path,
        unchanged: bool,
    ) -> bool:
        """The verdict on the whole, and what to try next."""
        stopped = sum(one.stopped for one in tried)
        self._console.rule("[bold]is the record true?", align="left")
        colour = "green" if not differences else "bold red"
        self._console.print(f"[{colour}]mismatches: {len(differences)}[/] between the tracker and the journal")
        for difference in differences[:10]:
            self._console.print(f"  {difference}")
        self._console.print(f"attacks stopped: {stopped} of {len(tried)} · runs right: {summary.correct} of {summary.runs}")
        self._console.rule("[bold]what to try next", align="left")
        for command in ("remit runs", "remit show RUN", "remit cases", "remit policy show it-tickets", "remit check"):
            self._console.print(f"  {_called()} {command.removeprefix('remit ')} -p {folder}", style="cyan", soft_wrap=True)
        return stopped == len(tried) and not differences and unchanged


def _called() -> str:
    """How this command line was called, so that what is suggested can be typed."""
    return "remit" if shutil.which("remit") else os.path.relpath(sys.argv[0])


def _ticket_line(item: Triaged) -> Text:
    line = Text("    ")
    line.append(f"{item.result.outcome:<10}", style=style_of(item.result.outcome))
    title = item.filed.ticket.title
    line.append(f" {title if len(title) <= 60 else title[:59] + '…'}", style="dim")
    return line


def _right(summary: Summary) -> str:
    share = summary.correct / summary.runs if summary.runs else 0
    priority = f"priority {summary.priority_right} of {summary.priority_asked} triaged"
    return f"{summary.correct} of {summary.runs} against ground truth ({share:.0%}); {priority}"


def _counted(counts: dict[str, int]) -> str:
    return "  ".join(f"{name} {count}" for name, count in counts.items()) or "nothing"

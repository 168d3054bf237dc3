"""What the demo shows while it works, on standard error; standard output holds the JSON summary alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from remit.app import Remit
from remit.demo.next_steps import Suggestion
from remit.demo.redteam import Tried
from remit.demo.summary import Acts, Summary
from remit.demo.triage import CONTRACT, Triaged
from remit.models.calibration import reliability_plot
from remit.models.tools import trained
from remit.terminal import Part, line, printable, style_of

if TYPE_CHECKING:
    from remit.demo.export import Measured

_LATEST, _TITLE = 6, 60
_COMMENT = 30
"""Columns that are left for what a suggested command shows; a longer command pushes it to the right."""
_QUIET = Theme(
    {
        # Rich's own colours for progress are those that stand for denials and holds here.
        "bar.complete": "default",
        "bar.finished": "default",
        "bar.pulse": "default",
        "progress.download": "default",
        "progress.elapsed": "dim",
        "rule.line": "dim",
    }
)


class Display:
    """One terminal, from the first line to the last."""

    def __init__(self) -> None:
        # Titles, rules and reasons are somebody else's words: nothing is read as markup, here or in what follows.
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False, theme=_QUIET)

    def say(self, *parts: Part, indent: int = 0) -> None:
        self._console.print(Padding(line(*parts), (0, 0, 0, indent), expand=False))

    def command(self, typed: str, shows: str = "") -> None:
        """A command line to paste; never broken in two."""
        shown = line((f"  {typed}", "cyan"), (f"  # {shows}" if shows else "", "dim"))
        self._console.print(shown, soft_wrap=True)

    def _section(self, title: str) -> None:
        self._console.print()
        self._console.rule(line((title, "bold")), align="left")

    @contextmanager
    def step(self, text: str) -> Generator[None, None, None]:
        """Something that takes a moment."""
        with self._console.status(line(text)):
            yield
        self.say(("✓", "green"), f" {text}")

    @contextmanager
    def progress(self, text: str, total: int) -> Generator[Callable[[], None], None, None]:
        """Something that can be counted."""
        with self._bar() as bar:
            task = bar.add_task(text, total=total)
            yield lambda: bar.advance(task)

    def _bar(self) -> Progress:
        return Progress(
            SpinnerColumn(finished_text=line(("✓", "green"))),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )

    def model(self, remit: Remit) -> None:
        """Say honestly what decides."""
        section = remit.project.models["classifier"]
        if section.kind != "classifier":
            self.say(f"model: {section.model or section.base_url}, asked with contract `{CONTRACT}`'s prompt", indent=2)
            return
        heads = trained(remit.project.path(section.training or "")).heads.values()
        right = ", ".join(f"{head.name} {head.accuracy:.0%}" for head in heads)
        worst = max(head.ece for head in heads)
        self.say("model: a small local text classifier; no key, no LLM", indent=2)
        self.say(f"right on held-out parts of {section.training}: {right}; calibration error {worst:.3f} at most", indent=2)

    @contextmanager
    def triage(self, total: int) -> Generator[Callable[[Triaged], None], None, None]:
        """The first act: a bar, the count of outcomes, and the latest tickets."""
        bar, counts, latest = self._bar(), Counter[str](), list[Text]()
        task = bar.add_task("one governed run for each ticket", total=total)

        def picture() -> Group:
            return Group(bar, line("  ", *_coloured(dict(counts.most_common()))), *latest)

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
        if not self._console.is_terminal:
            # Where nobody watches, Rich leaves the last line open.
            self._console.print()

    def answered(self, before: Sequence[Triaged], after: Sequence[Triaged]) -> None:
        """What became of the runs that were held, so that the counts before and after add up."""
        pairs = zip(before, after, strict=True)
        ended = Counter(now.result.outcome for then, now in pairs if then.result.outcome == "held")
        left = ended.pop("held", 0)
        parts = [*(f"{count} now {name}" for name, count in ended.most_common()), f"{left} left for you"]
        self.say(f"of {ended.total() + left} held runs: {', '.join(parts)}", indent=2)

    def summary(self, summary: Summary) -> None:
        """The first act in figures."""
        self._section("what happened")
        facts = Table.grid(padding=(0, 2))
        done = summary.outcomes.get("completed", 0)

        def fact(name: str, *parts: Part) -> None:
            facts.add_row(line((name, "dim")), line(*parts))

        fact("runs", f"{summary.runs} in {summary.seconds} s · ", *_coloured(summary.outcomes))
        fact("", f"of {done} completed, {summary.autonomous} asked nobody and {done - summary.autonomous} were approved")
        fact("right", _right(summary))
        fact("decisions", f"{summary.calls} · ", *_coloured(summary.verdicts))
        fact("corrected", f"{summary.corrected} runs mended a rejected call and went on")
        fact("denied by", _counted(summary.denied_by))
        fact("held by", _counted(summary.held_by))
        fact("run time", f"p50 {summary.p50_ms:,.0f} ms · p95 {summary.p95_ms:,.0f} ms")
        cost = summary.cost_microusd / done / 1e6 if done else 0
        fact("model cost", f"{cost:.4f} USD per completed run")
        self._console.print(facts)
        steps = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("step", "calls", "p50 ms", "p95 ms"):
            steps.add_column(name, justify="left" if name == "step" else "right")
        for tool, (count, p50, p95) in summary.steps_ms.items():
            steps.add_row(line(tool), str(count), f"{p50:,.1f}", f"{p95:,.1f}")
        self._console.print(steps)

    def export(self, measured: Measured, heads: Sequence[str]) -> None:
        """What came of somebody's own tickets."""
        runs = sum(measured.outcomes.values())
        self._section("what happened")
        rate = runs / measured.seconds if measured.seconds else 0
        self.say(f"{runs:,} runs in {measured.seconds} s ({rate:,.0f} a second) · ", *_coloured(measured.outcomes))
        done = measured.outcomes.get("completed", 0)
        if done:
            self.say(f"`{heads[0]}` right in {measured.right:,} of {done:,} completed runs ({measured.right / done:.1%})")
        share = measured.trained_on / (measured.trained_on + runs) if runs else 1
        self.say(
            f"trained on {measured.trained_on:,} tickets ({share:.0%}) in {measured.training_s} s; "
            f"{measured.skipped} rows left out"
        )
        for head in heads:
            found = measured.reports[head]
            self._section(f"{head}: accuracy {found.accuracy:.1%}, calibration error {found.ece:.3f}")
            self._console.print(Text(reliability_plot(found.bins)))
        self.say(f"mismatches between the export and the runs: {measured.mismatches}")

    def attacks(self, tried: Sequence[Tried], unchanged: bool) -> None:
        """The second act as a table."""
        self._section("what the red team tried")
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("attack", "", "stopped by"):
            table.add_column(name)
        for one in tried:
            word = ("stopped", "green") if one.stopped else ("SUCCEEDED", "bold red")
            table.add_row(line(one.attack), line(word), line(one.by))
        self._console.print(table)
        word = ("unchanged", "green") if unchanged else ("CHANGED", "bold red")
        self.say("tracker and directory, compared before and after: ", word)

    def closing(self, acts: Acts) -> None:
        """The verdict on the whole."""
        self._section("does the tracker agree with the journal?")
        colour = "green" if not acts.differences else "bold red"
        self.say((f"mismatches: {len(acts.differences)}", colour), " between the tracker and the journal")
        for difference in acts.differences[:10]:
            self.say(difference, indent=2)
        summary = acts.summary
        self.say(f"attacks stopped: {acts.stopped} of {len(acts.tried)} · runs right: {summary.correct} of {summary.runs}")

    def next_steps(self, steps: Sequence[Suggestion]) -> None:
        """What to type next."""
        self._section("what to try next")
        width = min(max(len(step.command) for step in steps), self._console.width - _COMMENT)
        for step in steps:
            self.command(step.command.ljust(width), step.shows)


def _coloured(counts: Mapping[str, int]) -> Iterator[Part]:
    for number, (name, count) in enumerate(counts.items()):
        yield "   " if number else ""
        yield f"{name} {count}", style_of(name)


def _ticket_line(item: Triaged) -> Text:
    title = printable(item.filed.ticket.title)
    shown = title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}…"
    outcome = item.result.outcome
    return line("    ", (f"{outcome:<10}", style_of(outcome)), (f" {shown}", "dim"))


def _right(summary: Summary) -> str:
    share = summary.correct / summary.runs if summary.runs else 0
    priority = f"priority {summary.priority_right} of {summary.priority_asked}"
    return f"{summary.correct} of {summary.runs} ({share:.0%}) by the known answers; {priority}"


def _counted(counts: dict[str, int]) -> str:
    return "  ".join(f"{name} {count}" for name, count in counts.items()) or "nothing"

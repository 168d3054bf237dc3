"""`remit replay`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli.options import MOST, spread
from remit.errors import ConfigError, RunError
from remit.terminal import JsonTimesOption, ProjectOption, fail, print_json, print_lines, reporting, with_remit

if TYPE_CHECKING:
    from remit.app import Remit
    from remit.replay.counterfactual import Cohort
    from remit.replay.recorded import Choice
    from remit.replay.report import ReplayReport

_ASKED = "name a RUN, or say which with `--last N` or `--since TIME`"


@dataclass(frozen=True, kw_only=True)
class WhichRuns:
    """Which runs."""

    last: Annotated[
        int | None, typer.Option("--last", metavar="N", min=1, max=MOST, help="The last N runs, the oldest of them first.")
    ] = None
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="All runs since `2026-11-25`, `2026-11-25T10:30` (UTC), or the last `2h`, `7d`."),
    ] = None
    contract: Annotated[str | None, typer.Option(metavar="CONTRACT", help="Only runs of this contract.")] = None

    def choice(self, remit: Remit, run: str | None) -> Choice:
        """Raises `RunError` (code `usage`) where it isn't clear which runs are meant."""
        from remit.cli.lookup import find, storable
        from remit.replay.recorded import Choice

        if sum(each is not None for each in (run, self.last, self.since)) != 1:
            raise RunError(f"which runs to replay isn't clear; {_ASKED}", code="usage")
        return Choice(
            run=None if run is None else find(remit, "run", run),
            last=self.last,
            since=None if self.since is None else since_us(self.since, remit.clock()),
            contract=None if self.contract is None else storable(self.contract),
        )


@dataclass(frozen=True, kw_only=True)
class How:
    """At which level, and what level 3 changes."""

    level: Annotated[
        int,
        typer.Option(
            "--level",
            metavar="L",
            min=0,
            max=3,
            help="0: check and show. 1: run the code again over the recorded answers. 2: make each policy decision again. "
            "3: try what would have come of one change.",
        ),
    ] = 1
    code: Annotated[
        str,
        typer.Option(metavar="WHICH", help="Level 1: `present` code of the project, or the `recorded` code of each release."),
    ] = "present"
    change: Annotated[
        str | None,
        typer.Option(
            metavar="CHANGE", help="Level 3: `prompt=FILE`, `model=NAME`, `policy=FILE` or `tool=NAME:FIXTURE.json`."
        ),
    ] = None
    tool: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE", help="Level 3: where a tool's answers come from: `NAME=record` (default), `=fixture:FILE`, `=live`."
        ),
    ] = None
    samples: Annotated[
        int, typer.Option(metavar="K", min=1, max=100, help="Level 3: how often each run is tried, with the change and without.")
    ] = 1

    def check(self) -> None:
        """Raises `RunError` (code `usage`) for options that do not go together."""
        if self.code not in ("present", "recorded"):
            raise RunError(f"code `{self.code}` is neither `present` nor `recorded`", code="usage")
        if self.level == 3 and self.change is None:
            raise RunError("level 3 tries one change; name it with `--change`, such as `policy=stricter.cedar`", code="usage")
        if self.level != 3 and (self.change or self.tool or self.samples != 1):
            raise RunError("`--change`, `--tool` and `--samples` are for `--level 3`", code="usage")


def since_us(text: str, now_us: int) -> int:
    """A date, a time or how long ago, as microseconds since the epoch. Raises `RunError` (code `usage`)."""
    from remit.cli.times import moment_us

    try:
        return moment_us(text, now_us)
    except ValueError as error:
        message = f"time `{text}` is none; write `2026-11-25`, `2026-11-25T10:30`, or how long ago, such as `2h`"
        raise RunError(message, code="usage") from error


@spread
def replay(
    chosen: WhichRuns,
    how: How,
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Id of a run, or the start of one.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one self-contained page to send to somebody.")] = None,
    json: JsonTimesOption = False,
    project: ProjectOption = None,
) -> None:
    """Replay recorded runs: would they come out the same?

    Shows every call and decision of them. Nothing is dispatched, and nothing of a run is changed; that there was a
    replay is put on record. Exits with 3 where a run diverged or its record is damaged.
    """
    with_change = how.level == 3

    async def use(remit: Remit) -> ReplayReport | Cohort:
        how.check()
        choice = chosen.choice(remit, run)
        if with_change:
            return await _compare(remit, choice, how)
        return await remit.replays.replay(choice, how.level, "present" if how.code == "present" else "recorded")

    found = with_remit(project, use)
    with reporting("the replay is on record, as `run.replayed`"):
        _show(found, json)
    if html is not None:
        _write(html, found)
    counts = found.counts
    if not with_change and (counts["diverged"] or any(each.recorded.damage for each in found.runs)):
        raise typer.Exit(3)


async def _compare(remit: Remit, choice: Choice, how: How) -> Cohort:
    from remit.replay.changes import parse_change, parse_tool

    change = parse_change(how.change or "", remit.project)
    tools = dict(map(parse_tool, how.tool or ()))
    return await remit.counterfactuals.compare(choice, change, tools, samples=how.samples)


def _show(found: Any, json: bool) -> None:
    if json:
        print_json(found.plain())
        return
    from remit.cli.replay_table import cohort_lines, report_lines
    from remit.replay.report import ReplayReport

    print_lines(report_lines(found) if isinstance(found, ReplayReport) else cohort_lines(found))


def _write(path: Path, found: Any) -> None:
    from remit.cli.replay_page import page

    try:
        path.write_text(page(found), encoding="utf-8")
    except OSError as error:
        fail(ConfigError(f"`{path}` can't be written: {(error.strerror or 'unknown error').lower()}"))

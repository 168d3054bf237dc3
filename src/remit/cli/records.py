"""`remit reveal`, `erase`, `retention`, `hold place`, `hold list`, `hold lift`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from remit.cli.options import spread
from remit.terminal import (
    JsonTimesOption,
    ProjectOption,
    clock_time,
    console,
    line,
    print_json,
    print_lines,
    reporting,
    say,
    width,
    with_remit,
)

if TYPE_CHECKING:
    from rich.text import Text

    from remit.app import Remit
    from remit.records.archive import StoredRun
    from remit.records.destroying import Candidate
    from remit.records.holds import LegalHold
    from remit.records.retention import RetentionReport
    from remit.records.reveal import Originals

hold = typer.Typer(help="Keep runs from being erased.", no_args_is_help=True, rich_markup_mode=None)

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, or the start of one.", show_default=False)]
AsOption = Annotated[
    str,
    typer.Option(
        "--as", metavar="PERSON", help="Who does it: a person of remit.toml whom record.cedar lets.", show_default=False
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept on record.", show_default=False)]


def reveal(
    run: RunArgument,
    by: AsOption,
    reason: ReasonOption = "",
    step: Annotated[
        str | None, typer.Option(metavar="STEP", help="Only this step, as `remit show` names it; 0 is the request.")
    ] = None,
    json: JsonTimesOption = False,
    project: ProjectOption = None,
) -> None:
    """Show the originals of what is redacted in a run.

    To a person whom record.cedar lets see them; who, why and what of is on the register before anything is shown.
    """

    async def use(remit: Remit) -> Originals:
        from remit.cli.lookup import find, find_person

        token = remit.person_token(find_person(remit, by))
        return await remit.reveals.reveal(find(remit, "run", run), step=step, token=token, reason=reason)

    shown = with_remit(project, use)
    if json:
        print_json(msgspec.to_builtins(shown))
        return
    with reporting(f"it is on record that {by} was shown originals of {shown.run}"):
        print_lines(_original_lines(shown, by))


def _original_lines(shown: Originals, by: str) -> list[Text]:
    from remit.cli.layout import hanging
    from remit.cli.readable import leaves, name_text, value_text

    lines: list[Text] = []
    for original in shown.found:
        at = f"step {original.step}" if original.step else "request" if original.n == 1 else "end"
        lines.append(line((at, "bold"), f"  {original.type}  ", (f"{clock_time(original.at)} UTC", "dim")))
        for path, value in leaves(original.content):
            head = line(f"    {name_text(path)}  " if path else "    ")
            lines.extend(hanging(head, line(value_text(value)), 6, width()))
    lines.append(line((_left(shown, by), "dim")))
    return lines


def _left(shown: Originals, by: str) -> str:
    if shown.erased:
        return f"{shown.run} was erased; nothing of what it said is left (`remit show {shown.run}` says when, by whom and why)"
    gone = f"the originals of {shown.dropped} of its events are gone: dropped after their retention" if shown.dropped else ""
    if shown.found:
        said = f"these are the originals; that person/{by.removeprefix('person/')} was shown them is on record"
        return f"{said}; {gone}" if gone else said
    return gone or f"nothing was redacted here; `remit show {shown.run}` shows all of it"


@dataclass(frozen=True, kw_only=True)
class Erasing:
    """Which runs are to be erased, and whether that is meant."""

    named: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Id of a run, or the start of one.", show_default=False)
    ] = None
    run: Annotated[
        list[str] | None, typer.Option("--run", metavar="RUN", help="Another run; may be given again.")
    ] = None
    subject: Annotated[
        str | None,
        typer.Option(metavar="PERSON|VALUE", help="All runs that act for this person, or in which this value stands."),
    ] = None
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, it is only said what would be done.")] = False

    @property
    def runs(self) -> list[str]:
        """The runs that are named, in whichever way."""
        return [*([] if self.named is None else [self.named]), *(self.run or ())]


@spread
def erase(
    by: AsOption, meant: Erasing, reason: ReasonOption = "", json: JsonTimesOption = False, project: ProjectOption = None
) -> None:
    """Erase what runs said, for good.

    Their keys are destroyed. That they were, by whom and why stays on record, and the record still verifies. Open runs, and
    those under a legal hold, are left as they are and named.
    """
    if (not meant.runs) == (meant.subject is None):
        raise typer.BadParameter("give either a RUN or `--subject`")

    async def use(remit: Remit) -> tuple[list[Candidate], str, list[StoredRun]]:
        from remit.cli.lookup import find_person

        token = remit.person_token(find_person(remit, by))
        chosen, damaged = await _chosen(remit, meant)
        if not meant.yes:
            return await remit.erasure.plan(chosen, token=token, reason=reason), "", damaged
        done = await remit.erasure.erase(chosen, token=token, reason=reason)
        return done.runs, done.left, damaged

    found, left, damaged = with_remit(project, use)
    with reporting("what was erased is on the register"):
        if json:
            print_json([{**msgspec.to_builtins(each.run), "refused": each.refused or None} for each in found])
        else:
            print_lines(_erased_lines(found, done=meant.yes))
    stderr = [line(f"{each.run}: its record is damaged, so nobody can tell whether it is meant") for each in damaged]
    print_lines([*stderr, *([line(left)] if left else [])], stderr=True)
    if left or damaged or (meant.yes and any(each.refused for each in found)):
        raise typer.Exit(3)


async def _chosen(remit: Remit, meant: Erasing) -> tuple[list[StoredRun], list[StoredRun]]:
    """The runs that are meant, and those of which nobody can tell."""
    from remit.cli.lookup import find

    if meant.subject is None:
        named = dict.fromkeys(find(remit, "run", run) for run in meant.runs)
        return [remit.archive.run(run) for run in named], []
    with _searching() as progress:
        return await remit.erasure.about(meant.subject, progress)


@contextmanager
def _searching() -> Generator[Callable[[int, int], None]]:
    """Shows how far a search has come, to a terminal."""
    from rich.progress import Progress

    with Progress(console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("searching the record")
        yield lambda at, total: progress.update(task, completed=at, total=total)


def _erased_lines(found: list[Candidate], *, done: bool) -> list[Text]:
    if not found:
        return [line(("there is no such run", "dim"))]
    lines = [_candidate_line(each, done=done) for each in found]
    count = sum(not each.refused for each in found)
    waiting = sum(each.run.open_cases for each in found if not each.refused)
    cases = f", and {_plural(waiting, 'open case')} withdrawn" if waiting else ""
    if done:
        return [*lines, line(f"{_plural(count, 'run')} erased{cases}")]
    said = f"{_plural(count, 'run')} would be erased{cases}; nothing is done yet"
    return [*lines, line((f"{said}; `--yes` does it, and it can't be undone" if count else said, "dim"))]


def _candidate_line(each: Candidate, *, done: bool) -> Text:
    run = each.run
    about = f"  {run.contract}  {clock_time(run.opened_at)} UTC  "
    word = ("left: ", "bold red") if each.refused else ("erased" if done else "to be erased", "")
    return line((run.run, "bold"), about, word, each.refused)


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is due.")] = False,
    json: JsonTimesOption = False,
    project: ProjectOption = None,
) -> None:
    """Destroy what contracts keep no longer.

    Originals after `retention`, whole runs after `erase_after`, never what a legal hold keeps.
    `remit worker` does the same once a day.
    """

    async def use(remit: Remit) -> RetentionReport:
        return remit.retention.plan() if dry_run else await remit.retention.enforce()

    report = with_remit(project, use)
    with reporting("what was destroyed is on the register"):
        if json:
            print_json(msgspec.to_builtins(report))
        else:
            print_lines(retention_lines(report, dry_run=dry_run))
    if report.left:
        print_lines([line(report.left)], stderr=True)
        raise typer.Exit(3)


def retention_lines(report: RetentionReport, *, dry_run: bool) -> list[Text]:
    lines = [line((run.run, "bold"), f"  {run.contract}  ", "erased") for run in report.erased]
    lines += [line((run.run, "bold"), f"  {run.contract}  ", "originals dropped") for run in report.dropped]
    lines += [
        line((each.run.run, "bold"), f"  {each.run.contract}  ", ("kept: ", "bold"), each.refused) for each in report.kept
    ]
    if not lines:
        return [line(("nothing is due", "dim"))]
    end = "; nothing is done yet" if dry_run else ""
    counts = f"{_plural(len(report.erased), 'run')} erased, originals of {_plural(len(report.dropped), 'run')} dropped"
    return [*lines, line((f"{counts}, {len(report.kept):,} kept{end}", "dim"))]


@dataclass(frozen=True, kw_only=True)
class HoldTarget:
    """What is to be held."""

    named: Annotated[
        str | None, typer.Argument(metavar="RUN", help="This run, by its id or the start of it.", show_default=False)
    ] = None
    run: Annotated[str | None, typer.Option(metavar="RUN", help="The same, as an option.")] = None
    contract: Annotated[
        str | None, typer.Option(metavar="CONTRACT", help="Every run of this contract, later ones as well.")
    ] = None
    subject: Annotated[
        str | None,
        typer.Option(metavar="PERSON|VALUE", help="Every run about this person or value, later ones as well."),
    ] = None


@hold.command("place")
@spread
def place_hold(by: AsOption, held: HoldTarget, reason: ReasonOption = "", project: ProjectOption = None) -> None:
    """Keep runs from being erased.

    Nor do they lose their originals, until the hold is lifted.
    """
    if sum(given is not None for given in (held.named, held.run, held.contract, held.subject)) != 1:
        raise typer.BadParameter("give one of a RUN, `--contract` and `--subject`")
    run = held.named or held.run

    async def use(remit: Remit) -> LegalHold:
        from remit.cli.lookup import find, find_person
        from remit.records.holds import HoldScope

        scope, what = HoldScope.SUBJECT, held.subject or ""
        if run is not None:
            scope, what = HoldScope.RUN, find(remit, "run", run)
        elif held.contract is not None:
            scope, what = HoldScope.CONTRACT, held.contract
        token = remit.person_token(find_person(remit, by))
        return await remit.holds.place(scope, what, token=token, reason=reason)

    placed = with_remit(project, use)
    with reporting(f"{placed.hold} is placed"):
        say((placed.hold, "bold"), f" holds {placed.scope} {placed.shown} from now on")


@hold.command("list")
def list_holds(json: JsonTimesOption = False, project: ProjectOption = None) -> None:
    """List the holds that stand."""

    async def use(remit: Remit) -> list[LegalHold]:
        return remit.holds.list()

    found = with_remit(project, use)
    if json:
        # Whose data is meant is for nobody to read here; `shown` follows it.
        print_json([{**msgspec.to_builtins(each), "what": each.shown} for each in found])
        return
    if not found:
        say(("nothing is held", "dim"))
        return
    from remit.cli.layout import table

    rows = [
        [
            line((each.hold, "bold")),
            line(f"{each.scope} {each.shown}"),
            line(each.by),
            line(clock_time(each.placed_at)),
            line(each.reason),
        ]
        for each in found
    ]
    print_lines(table(["hold", "holds", "by", "since (UTC)", "why"], rows, width(), drop=["since (UTC)", "by"]))


@hold.command("lift")
def lift_hold(
    start: Annotated[str, typer.Argument(metavar="HOLD", help="Id of a hold, or the start of one.", show_default=False)],
    by: AsOption,
    reason: ReasonOption = "",
    project: ProjectOption = None,
) -> None:
    """Lift a hold: what it kept may be erased again."""

    async def use(remit: Remit) -> LegalHold:
        from remit.cli.lookup import find_person

        token = remit.person_token(find_person(remit, by))
        return await remit.holds.lift(start, token=token, reason=reason)

    lifted = with_remit(project, use)
    with reporting(f"{lifted.hold} is lifted"):
        say((lifted.hold, "bold"), f" is lifted; it held {lifted.scope} {lifted.shown}")

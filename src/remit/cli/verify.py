"""`remit verify`."""

from __future__ import annotations

import contextlib
import io
import json as json_lines
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remit.errors import RemitError
from remit.terminal import (
    JsonTimesOption,
    ProjectOption,
    clock_time,
    line,
    print_json,
    print_lines,
    say_error,
    with_remit,
)

if TYPE_CHECKING:
    from rich.text import Text

    from remit.app import Remit
    from remit.records.completeness import CompletenessReport
    from remit.tools.changes import SystemChange

VERIFIED, FOUND, UNREAD = 0, 1, 2


def verify(
    held: Annotated[
        list[str] | None,
        typer.Option(
            "--from", metavar="FILE", help="Checkpoints that you hold, from elsewhere; repeatable.", show_default=False
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONNECTION",
            help="Is each change that this system lists on record, and the other way round? Repeatable.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="With `--against`: only from then on, `2026-11-25` or `7d` ago.")
    ] = None,
    json: JsonTimesOption = False,
    project: ProjectOption = None,
) -> None:
    """Verify the whole record: events, chains, tree, checkpoints.

    With a reader that shares no code with what wrote it (`remit-verify`, which also takes an exported file). Exits with
    0 where the record is verified, 1 with findings, 2 where it can't be read.
    """
    from remit_verify.command import main

    if since is not None and not against:
        raise typer.BadParameter("`--since` belongs to `--against`")
    arguments = [str(_project_folder(project))]
    for name in held or ():
        arguments += ["--from", name]
    if not against:
        raise typer.Exit(main([*arguments, "--json"] if json else arguments))
    text = io.StringIO()
    with contextlib.redirect_stdout(text) if json else contextlib.nullcontext():
        verified = main([*arguments, "--json"] if json else arguments)
    if verified == UNREAD:
        raise typer.Exit(UNREAD)
    found = _compare(project, against, since)
    if json:
        print_json({"record": json_lines.loads(text.getvalue()), "against": [_plain(each) for each in found]})
    else:
        print_lines([text for each in found for text in _lines(each)])
    raise typer.Exit(verified if all(each.complete for each in found) else FOUND)


def _compare(project: Path | None, against: list[str], since: str | None) -> list[CompletenessReport]:
    async def use(remit: Remit) -> list[CompletenessReport]:
        from remit.cli.times import since_us
        from remit.records.completeness import Completeness

        completeness = Completeness(remit.archive, remit.project, remit.clients)
        start = since_us(since, remit.clock())
        return [await completeness.compare(connection, since=start) for connection in dict.fromkeys(against)]

    try:
        return with_remit(project, use)
    except typer.Exit as error:
        # What was wrong is said; that it was nothing on record is what the code tells.
        raise typer.Exit(UNREAD) from error


def _plain(found: CompletenessReport) -> dict[str, object]:
    import msgspec

    return {**msgspec.to_builtins(found), "complete": found.complete}


def _lines(found: CompletenessReport) -> Iterator[Text]:
    for each in found.unrecorded:
        yield line(("unrecorded: ", "bold red"), _change(each))
    for each in found.unseen:
        place = f"run {each.run}, step {each.step}" + (f", {each.object}" if each.object else "")
        what = ", ".join(each.fields)
        yield line(("unseen: ", "bold red"), f"{clock_time(each.at)} UTC  {each.tool} ({what}) of {place} completed")
    for each in found.undetermined:
        yield line(("undetermined: ", "bold"), _change(each), "; a run that was erased may have done it")
    verdict = "complete" if found.complete else "NOT complete"
    counts = f"{found.changes:,} changes by {found.account}, {found.writes:,} writes on record"
    missing = f"{len(found.unrecorded):,} unrecorded, {len(found.unseen):,} unseen"
    yield line(f"{found.against}: {verdict}: {counts}; {missing}, {len(found.undetermined):,} undetermined")


def _change(change: SystemChange) -> str:
    from remit.cli.readable import pairs

    what = " ".join([change.action, *pairs(dict(sorted(change.fields.items())))])
    return f"{clock_time(change.at)} UTC  {change.kind} {change.object}  {what}  by {change.by}"


def _project_folder(project: Path | None) -> Path:
    """The project's folder, its database within reach. It is not opened: it may be what is wrong."""
    import os

    from remit.contracts.paths import find_project
    from remit.contracts.project import load_project
    from remit.identity.secrets import SecretStore

    try:
        found = load_project(find_project(project))
        if found.project.secret is not None:
            password = SecretStore(found.folder).resolve("database", found.project.secret)
            # libpq takes it from there; on a command line others would read it.
            os.environ["PGPASSWORD"] = password.reveal()
    except RemitError as error:
        say_error(error)
        raise typer.Exit(UNREAD) from error
    return found.folder

"""`remit memory add`, `list`, `show`, `search`, `recall`, `forget`, `reindex`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from remit.cli.options import spread
from remit.cli.records import AsOption, ReasonOption
from remit.errors import ConfigError
from remit.terminal import (
    JsonOption,
    JsonTimesOption,
    ProjectOption,
    clock_time,
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
    from remit.memory.documents import DocumentInfo, Passage, Reading, Viewer, Written
    from remit.memory.keeping import Forgotten, Recalled

app = typer.Typer(help="Keep the documents that agents may retrieve.", no_args_is_help=True, rich_markup_mode=None)

DocumentArgument = Annotated[str, typer.Argument(metavar="DOC", help="Name of a document.", show_default=False)]
ViewOption = Annotated[
    str | None, typer.Option("--as", metavar="PERSON", help="With the text, as far as this person may read it.")
]


@dataclass(frozen=True, kw_only=True)
class About:
    """What is said of a document beside its text."""

    reader: Annotated[
        list[str] | None,
        typer.Option(metavar="READER", help="Who may read it: `agent/…`, `person/…` or `role:…`; repeatable. Else as before."),
    ] = None
    title: Annotated[str, typer.Option(metavar="TEXT", help="What it is about.")] = ""
    trusted: Annotated[
        bool, typer.Option("--trusted", help="Agents may go by what it says; otherwise it is untrusted.")
    ] = False
    source: Annotated[str | None, typer.Option(metavar="NAME", help="Where it comes from; names its label.")] = None
    class_: Annotated[
        list[str] | None, typer.Option("--class", metavar="CLASS", help="A kind of data in it, as `personal`; repeatable.")
    ] = None
    valid_until: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it is out of date, such as `2027-01-01T00:00:00Z`.")
    ] = None


@app.command("add")
@spread
def add(
    document: DocumentArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Its text (UTF-8); `-` reads standard input.", show_default=False)],
    by: AsOption,
    about: About,
    json: JsonOption = False,
    project: ProjectOption = None,
) -> None:
    """Add a document, or a new version of one.

    Without a reader nobody can retrieve it. Keys and passwords are refused.
    """
    text = _text_of(file)

    async def use(remit: Remit) -> Written:
        from remit.cli.lookup import find_person
        from remit.memory.documents import TRUSTED
        from remit.memory.keeping import Addition

        addition = Addition(
            document=document,
            text=text,
            title=about.title,
            readers=None if about.reader is None else tuple(about.reader),
            label=TRUSTED if about.trusted else None,
            source=about.source,
            classes=tuple(about.class_ or ()),
            valid_until=_time_of(about.valid_until),
        )
        return await remit.keeping.add(addition, token=remit.person_token(find_person(remit, by)))

    written = with_remit(project, use)
    with reporting(f"version {written.version} of {written.document} is written"):
        if json:
            print_json(msgspec.to_builtins(written))
        else:
            said = f" is written, in {_plural(written.chunks, 'chunk')}, {written.label}"
            say((f"{written.document}@{written.version}", "bold"), said)


@app.command("list")
def list_documents(json: JsonTimesOption = False, project: ProjectOption = None) -> None:
    """List the documents, without their texts."""

    async def use(remit: Remit) -> tuple[list[DocumentInfo], int]:
        return remit.keeping.memory.shelf.infos(), remit.clock()

    found, now = with_remit(project, use)
    if json:
        print_json(msgspec.to_builtins(found))
        return
    if not found:
        say(("there is no document", "dim"))
        return
    from remit.cli.layout import table

    rows = [[line((each.document, "bold")), line(_standing(each, now)), line(each.owner), line(" ".join(each.readers))] for each in found]
    print_lines(table(["document", "stands", "owner", "readers"], rows, width(), drop=["owner"]))


@app.command("show")
def show(document: DocumentArgument, by: ViewOption = None, json: JsonTimesOption = False, project: ProjectOption = None) -> None:
    """Show a document: versions, readers, who was given it."""

    async def use(remit: Remit) -> tuple[DocumentInfo, list[Reading], str | None, int]:
        memory = remit.keeping.memory
        info = memory.info(document)
        content = None if by is None else await memory.text(document, _viewer(remit, by))
        return info, memory.reads(document), None if content is None else content.text, remit.clock()

    info, reads, text, now = with_remit(project, use)
    if json:
        print_json({**msgspec.to_builtins(info), "reads": msgspec.to_builtins(reads), "text": text})
        return
    lines = [line((info.document, "bold"), f"  {_standing(info, now)}, owner {info.owner}, region {info.region}")]
    lines.append(line(f"readers: {' '.join(info.readers) or 'nobody'}"))
    for each in info.versions:
        state = "" if each.recalled_at is None else f", recalled {clock_time(each.recalled_at)} UTC"
        at = f"{clock_time(each.written_at)} UTC by {each.written_by}"
        lines.append(line(f"  version {each.version}  {each.label}  {_plural(each.chunks, 'chunk')}  {at}{state}"))
    lines += _read_lines(reads)
    if by is not None:
        lines.append(line((text, "") if text is not None else (f"{by} may not read it, or there is nothing to read", "dim")))
    print_lines(lines)


@app.command("search")
def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What is looked for.", show_default=False)],
    by: Annotated[str, typer.Option("--as", metavar="PERSON", help="Who looks; finds what they may read.", show_default=False)],
    contract: Annotated[
        str | None, typer.Option(metavar="CONTRACT", help="Find what this contract's agent finds for that person.")
    ] = None,
    most: Annotated[int, typer.Option("--k", metavar="N", min=1, max=50, help="How many passages.")] = 5,
    json: JsonOption = False,
    project: ProjectOption = None,
) -> None:
    """Search the documents as a person, or as an agent for one."""

    async def use(remit: Remit) -> list[Passage]:
        return await remit.keeping.memory.search(query, _viewer(remit, by, contract), most=most)

    found = with_remit(project, use)
    if json:
        print_json(msgspec.to_builtins(found))
        return
    if not found:
        say(("nothing was found among what may be read", "dim"))
    lines: list[Text] = []
    for each in found:
        lines += [line((each.chunk, "bold"), f"  {each.label}  ", (each.title, "dim")), line(f"    {' '.join(each.text.split())[:400]}")]
    print_lines(lines)


@app.command("recall")
def recall(
    document: DocumentArgument,
    by: AsOption,
    reason: ReasonOption = "",
    version: Annotated[int | None, typer.Option(metavar="N", min=1, max=2**31 - 1, help="Only this version.")] = None,
    json: JsonOption = False,
    project: ProjectOption = None,
) -> None:
    """Recall a document: no run is given it any more.

    Lists every run that was given it before. Who recalled it and why is on the register.
    """

    async def use(remit: Remit) -> Recalled:
        from remit.cli.lookup import find_person

        token = remit.person_token(find_person(remit, by))
        return await remit.keeping.recall(document, version, token=token, reason=reason)

    done = with_remit(project, use)
    with reporting(f"{document} is recalled"):
        if json:
            print_json(msgspec.to_builtins(done))
            return
        after = "nothing of it is given out any more" if done.current is None else f"version {done.current} is given out now"
        versions = ", ".join(str(each) for each in done.versions)
        print_lines([line((document, "bold"), f" is recalled (version {versions}); {after}"), *_read_lines(done.reads)])


@app.command("forget")
def forget(
    document: DocumentArgument, by: AsOption, reason: ReasonOption = "", json: JsonOption = False, project: ProjectOption = None
) -> None:
    """Destroy what a document says, in all of its versions.

    That it was there, and who was given it, stays. Runs keep what they have read until they are erased.
    """

    async def use(remit: Remit) -> Forgotten:
        from remit.cli.lookup import find_person

        return await remit.keeping.forget(document, token=remit.person_token(find_person(remit, by)), reason=reason)

    done = with_remit(project, use)
    with reporting(f"{document} is forgotten"):
        if json:
            print_json(msgspec.to_builtins(done))
        else:
            print_lines([line((document, "bold"), " is forgotten"), *_read_lines(done.reads)])
    if done.left:
        print_lines([line(done.left)], stderr=True)
        raise typer.Exit(3)


@app.command("reindex")
def reindex(project: ProjectOption = None) -> None:
    """Embed anew what another embedding has embedded.

    Interrupted, the same command goes on.
    """

    async def use(remit: Remit) -> int:
        from rich.progress import Progress

        from remit.terminal import console

        with Progress(console=console(stderr=True), transient=True) as progress:
            task = progress.add_task("embedding")
            return await remit.keeping.memory.reindex(lambda at, total: progress.update(task, completed=at, total=total))

    count = with_remit(project, use)
    say(f"{_plural(count, 'version')} embedded anew")


def _viewer(remit: Remit, by: str, contract: str | None = None) -> Viewer:
    from remit.cli.lookup import find_person
    from remit.memory.documents import Viewer

    person, region = f"person/{find_person(remit, by)}", remit.project.project.region
    if contract is None:
        return Viewer(principal=person, region=region)
    return Viewer(principal=f"agent/{remit.tenant}/{contract}", on_behalf_of=person, region=region)


def _text_of(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"`{file}` can't be read as UTF-8 text: {error}") from error


def _time_of(text: str | None) -> int | None:
    from datetime import datetime

    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"`{text}` is no time; write it like `2027-01-01T00:00:00Z`") from error
    if found.tzinfo is None:
        raise ConfigError(f"`{text}` has no time zone; write it like `2027-01-01T00:00:00Z`")
    return int(found.timestamp() * 1_000_000)


def _standing(info: DocumentInfo, now: int) -> str:
    if info.forgotten_at is not None:
        return "forgotten"
    if info.current is None:
        return "recalled"
    current = next(each for each in info.versions if each.version == info.current)
    stale = current.valid_until is not None and current.valid_until <= now
    return f"version {info.current}, {current.label}{', out of date' if stale else ''}"


def _read_lines(reads: list[Reading]) -> list[Text]:
    if not reads:
        return [line(("no run was given it", "dim"))]
    runs: dict[str, list[str]] = {}
    for each in reads:
        runs.setdefault(each.run, []).append(f"step {each.step} (version {each.version})")
    head = line(f"{_plural(len(runs), 'run')} {'was' if len(runs) == 1 else 'were'} given it:")
    return [head, *(line("  ", (run, "bold"), f"  {', '.join(steps)}  ", (f"remit show {run}", "dim")) for run, steps in runs.items())]


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


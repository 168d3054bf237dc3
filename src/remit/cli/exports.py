"""`remit export`, `metrics`."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from remit.cli.options import MOST, spread
from remit.errors import ConfigError
from remit.export.formats import Format
from remit.terminal import ProjectOption, print_text, reporting, say, visible_json, with_remit, writing

if TYPE_CHECKING:
    from remit.app import Remit
    from remit.journal.leaves import Selection


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Which part of the record is exported; what is left out does not matter."""

    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only from then on: `2026-11-25`, `2026-11-25T08:00`, or `24h` ago. UTC."),
    ] = None
    run: Annotated[str | None, typer.Option(metavar="RUN", help="Only this run; the start of its id is enough.")] = None
    last: Annotated[int | None, typer.Option(metavar="N", min=1, max=MOST, help="Only the newest so many runs.")] = None
    contract: Annotated[str | None, typer.Option(metavar="CONTRACT", help="Only this contract's runs.")] = None

    def selection(self, remit: Remit) -> Selection:
        """What that means in a project. Raises `RunError` for a run that isn't there, `ConfigError` for no time."""
        from remit.cli.lookup import find, storable
        from remit.cli.times import since_us
        from remit.journal.leaves import Selection

        return Selection(
            since=None if self.since is None else since_us(self.since, remit.clock()),
            run=None if self.run is None else find(remit, "run", self.run),
            last=self.last,
            contract=None if self.contract is None else storable(self.contract),
        )


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where an export goes, and who takes it there."""

    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write to a file; by default to standard output.")
    ] = None
    to: Annotated[
        str | None, typer.Option("--to", metavar="URL", help="For `otlp`: the receiver; by default `[record] otlp`.")
    ] = None
    by: Annotated[
        str | None, typer.Option("--as", metavar="PERSON", help="Who exports: a person whom record.cedar lets; by default the system.")
    ] = None


@spread
def export(
    *,
    form: Annotated[
        Format, typer.Option("--format", help="Events a line (`jsonl`, `ocsf`), the whole `record`, or traces (`otlp`).")
    ] = Format.JSONL,
    chosen: ExportOptions,
    target: Target,
    project: ProjectOption = None,
) -> None:
    """Copy the record, or part of it, out of here.

    Redacted, as it is stored; never the originals. Each export is put on record first.
    """

    async def use(remit: Remit) -> None:
        selection = chosen.selection(remit)
        by = await exporter_of(remit, selection, target.by)
        if form is Format.OTLP:
            await _send(remit, selection, target, by)
        elif target.to is not None:
            raise ConfigError(f"`--to` is where traces are sent; write {form} to a file with `--out FILE`")
        else:
            await _write(remit, form, selection, target.out, by)

    with_remit(project, use)


async def exporter_of(remit: Remit, selection: Selection, person: str | None) -> str | None:
    """The principal of a person who exports, where record.cedar lets them; `None` for the system."""
    if person is None:
        return None
    from remit.cli.lookup import find_person

    return await remit.exporter(selection, remit.person_token(find_person(remit, person)))


async def _send(remit: Remit, selection: Selection, target: Target, by: str | None) -> None:
    from remit.export.otlp import Sender

    address = target.to or remit.project.record.otlp
    if target.out is not None or address is None:
        raise ConfigError("traces are sent to a receiver; name it with `--to URL` or as `[record] otlp` in remit.toml")
    sender = Sender(address, remit.exporting.encoder())
    runs = remit.exporting.runs(selection)
    spans = await remit.exporting.send(runs, selection, sender=sender, by=by)
    with reporting(f"{len(runs)} runs were sent"):
        say(f"sent {len(runs)} run{'' if len(runs) == 1 else 's'} as {spans} spans to {sender.url}")


async def _write(remit: Remit, form: Format, selection: Selection, out: Path | None, by: str | None) -> None:
    keys = (remit.project.private / "keys" / "record.pub").read_text().split()
    to = "standard output" if out is None else str(out)
    lines = await remit.exporting.lines(form, selection, to=to, by=by, keys=keys)
    if out is None:
        _print(lines)
        return
    events = 0
    with replacing(out) as file:
        for line in lines:
            file.write(line + b"\n")
            events += 1
    say(f"wrote {events:,} lines to {out}")


def _print(lines: Iterator[bytes]) -> None:
    """Lines as they are, or where somebody looks at them, with every character visible."""
    seen = sys.stdout.isatty()
    with writing():
        for line in lines:
            sys.stdout.write(f"{visible_json(line.decode()) if seen else line.decode()}\n")


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """A file that is there when it is whole, and that only its owner may read. Raises `ConfigError`."""
    part = path.with_name(f".{path.name}.part")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
        part.replace(path)
    except OSError as error:
        why = (error.strerror or "unknown error").lower()
        raise ConfigError(f"can't write `{path}`: {why}; name another file with `--out`", code="output_lost") from error
    finally:
        part.unlink(missing_ok=True)


def metrics(
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", help="Serve them there; by default print them once.")
    ] = None,
    project: ProjectOption = None,
) -> None:
    """Print or serve metrics for Prometheus.

    They are counted from the record, and go on from where the last look ended.
    """

    async def use(remit: Remit) -> None:
        import asyncio

        from remit.cli.workers import stopped_by_signal
        from remit.export.fold_file import FoldFile
        from remit.export.prometheus import Exposition, serve

        loop = asyncio.get_running_loop()

        def look() -> int:
            # The server asks from threads of its own.
            return asyncio.run_coroutine_threadsafe(remit.sequencer.integrate(), loop).result().seq

        kept = FoldFile(remit.project.private / "metrics.fold")
        exposition = Exposition(remit.leaves, look=look, now=remit.clock, kept=kept)
        if listen is None:
            print_text((await asyncio.to_thread(exposition.text)).rstrip("\n"))
            return
        with serve(exposition, listen) as address:
            stop = stopped_by_signal()
            say(f"serving metrics at http://{address}/metrics", (" · stop with Ctrl-C", "dim"))
            await stop.wait()

    with_remit(project, use)

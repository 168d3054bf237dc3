"""`remit models report`, `record`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli.exports import ExportOptions, exporter_of, replacing
from remit.cli.options import spread
from remit.errors import ConfigError
from remit.terminal import JsonOption, ProjectOption, fail, line, print_json, print_lines, say, with_remit

if TYPE_CHECKING:
    from rich.text import Text

    from remit.app import Remit
    from remit.models.report import HeadReport, ModelReport

app = typer.Typer(help="Look into models, and record their answers.", no_args_is_help=True, rich_markup_mode=None)
_MISTAKES = 5


@app.command("report")
def report(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A classifier of remit.toml; by default all.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one self-contained page to send to somebody.")] = None,
    json: JsonOption = False,
    project: ProjectOption = None,
) -> None:
    """Check whether classifiers are as sure as they are right.

    Calibration error, a reliability plot, coverage and what was taken for what, for each head; measured on examples that
    the model had not seen.
    """

    async def use(remit: Remit) -> list[ModelReport]:
        from remit.models.report import model_reports

        return model_reports(remit.project, name)

    found = with_remit(project, use)
    if json:
        print_json([each.plain() for each in found])
    else:
        print_lines([text for each in found for text in _lines(each)])
    if html is not None:
        from remit.cli.models_page import page

        try:
            html.write_text(page(found), encoding="utf-8")
        except OSError as error:
            fail(ConfigError(f"`{html}` can't be written: {(error.strerror or 'unknown error').lower()}"))


def _lines(found: ModelReport) -> Iterator[Text]:
    yield line((found.name, "bold"), f" · classifier {found.digest[:12]} · trained on {found.training}, measured out of fold")
    for head in found.heads:
        yield line("")
        yield from _head(head)


def _head(head: HeadReport) -> Iterator[Text]:
    from remit.models.calibration import reliability_plot

    measured = head.measured
    yield line(
        (head.name, "bold"),
        f" · {len(head.labels)} labels · {measured.count:,} texts · right {measured.accuracy:.3f}"
        f" · confidence {measured.confidence:.3f} · calibration error {measured.ece:.3f} · log loss {measured.log_loss:.3f}",
    )
    for text in reliability_plot(measured.bins).split("\n"):
        yield line(f"  {text}")
    for each in measured.coverage:
        right = "none" if each.accuracy is None else f"{each.accuracy:.3f} right"
        yield line(f"  from {each.threshold:.2f} on: {each.share:.3f} of the texts, {right}")
    for count, truth, chosen in head.mistakes()[:_MISTAKES]:
        yield line((f"  `{truth}` taken for `{chosen}` {count:,} times", "dim"))


@app.command("record")
@spread
def record(
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The recording, a JSONL file.", show_default=False)],
    chosen: ExportOptions,
    by: Annotated[
        str | None, typer.Option("--as", metavar="PERSON", help="Who records: a person whom record.cedar lets; by default the system.")
    ] = None,
    project: ProjectOption = None,
) -> None:
    """Write the answers of models on record as a recording.

    A model of kind `recorded` answers from it. Answers are redacted, as they are stored; that they were copied out is put
    on record first, as an export.
    """

    async def use(remit: Remit) -> int:
        from remit.export.formats import Format

        selection = chosen.selection(remit)
        person = await exporter_of(remit, selection, by)
        lines = await remit.exporting.lines(Format.JSONL, selection, to=str(out), by=person, keys=[])
        written = 0
        with replacing(out) as file:
            for text in _recording(lines):
                file.write(text.encode() + b"\n")
                written += 1
        return written

    written = with_remit(project, use)
    say(f"wrote {written:,} answers to {out}")


def _recording(lines: Iterable[bytes]) -> Iterator[str]:
    """The model calls among exported events."""
    from remit.models.recorded import recorded_calls
    from remit.values import decode

    def events() -> Iterator[tuple[str, str, str, Any]]:
        for text in lines:
            event: dict[str, Any] = decode(text)
            header = event["header"]
            yield header["run"], header["type"], header.get("span", ""), event["body"] or {}

    return recorded_calls(events())

"""`remit demo --tickets FILE.csv`: anybody's tickets. One part trains the model, the rest is triaged, each in a run."""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from remit.app import Remit
from remit.demo.display import Display
from remit.demo.next_steps import after_export
from remit.demo.stage import example_folder, make_project
from remit.demo.tickets_csv import ColumnMapping, ExportRow, read_tickets, split_tickets
from remit.errors import ConfigError
from remit.identity.files import write_private
from remit.models.calibration import Report, Scored, report, score
from remit.models.tools import trained
from remit.runs.engine import RunResult
from remit.terminal import print_json

if TYPE_CHECKING:
    from remit.demo.main import Options

_CONTRACT = "ticket-export"
_AT_ONCE = 32
TRAIN_SHARE = 0.6
"""About this share of the texts trains: a hash of each text decides, so that no text is ever on both sides."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of the runs. `reports`: calibration and accuracy of each head over all triaged tickets."""

    trained_on: int
    skipped: int
    training_s: float
    seconds: float
    outcomes: Mapping[str, int]
    right: int
    reports: Mapping[str, Report]
    mismatches: int


def run_export(options: Options) -> int:
    """Train on one part, run the contract on the rest, report. Raises `ConfigError`."""
    return asyncio.run(_export(options))


def _mapping(columns: Iterable[str]) -> ColumnMapping:
    """`title=Summary body=Text category=Team …`; what is neither title nor body is a head to predict."""
    given: dict[str, str] = {}
    for pair in columns:
        name, equals, column = pair.partition("=")
        if not equals or not name or not column:
            raise ConfigError(f"`--column {pair}` maps nothing; write `title=Summary` or `category=Team`")
        given[name] = column
    labels = {name: column for name, column in given.items() if name not in ("title", "body")}
    if not given:
        return ColumnMapping(title="title", body="body", labels={"category": "category"})
    if not labels:
        raise ConfigError("name at least one column to predict, such as `--column category=Team`")
    return ColumnMapping(title=given.get("title"), body=given.get("body"), labels=labels)


async def _export(options: Options) -> int:
    assert options.tickets is not None
    display = Display()
    mapping = _mapping(options.columns)
    file = read_tickets(options.tickets, mapping)
    tickets = list(file)
    train, rest = split_tickets(tickets, train_share=TRAIN_SHARE)
    heads = list(mapping.labels)
    make_project(options.folder, example_folder(_CONTRACT))
    _fill(options.folder, train, rest)
    async with Remit(options.folder) as remit:
        started = time.monotonic()
        with display.step(f"training on {len(train):,} of {len(tickets):,} tickets"):
            await asyncio.to_thread(remit.program, _CONTRACT)
        training_s = time.monotonic() - started
        started = time.monotonic()
        with display.progress("one governed run for each of the others", len(rest)) as advance:
            results = await _run_all(remit, rest, heads[:1], advance)
        seconds = time.monotonic() - started
        classifier = trained(remit.project.path("data/history.jsonl"))
        predicted = [classifier.predict(ticket.text) for ticket in rest]
    measured = Measured(
        trained_on=len(train),
        skipped=file.tally.skipped,
        training_s=round(training_s, 1),
        seconds=round(seconds, 1),
        outcomes=dict(Counter(result.outcome for result in results).most_common()),
        right=_right(rest, results, heads[0]),
        reports={head: report(list(_scored(rest, predicted, head))) for head in heads},
        mismatches=_mismatches(options.folder, results),
    )
    display.export(measured, heads)
    display.next_steps(after_export(results, options.folder))
    if options.json:
        print_json(as_json(measured, heads))
    return 0 if measured.mismatches == 0 else 1


def _fill(folder: Path, train: Sequence[ExportRow], rest: Sequence[ExportRow]) -> None:
    """Put the training part where the classifier finds it, and the rest into the export's database."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    lines = (json.dumps({"text": ticket.text, **ticket.labels}, ensure_ascii=False) for ticket in train)
    (data / "history.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = (folder / "export.db").resolve()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE tickets (row INTEGER PRIMARY KEY, text TEXT NOT NULL)")
        database.execute("CREATE TABLE sorted (row INTEGER PRIMARY KEY, labels TEXT NOT NULL)")
        database.executemany("INSERT INTO tickets VALUES (?, ?)", [(ticket.line, ticket.text) for ticket in rest])
    database.close()
    write_private(folder / ".remit" / "secrets" / "export", secrets.token_urlsafe(32).encode())
    config = folder / "remit.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(
        text.replace("file://localhost/var/lib/export.db", f"file://localhost{quote(str(path))}"), encoding="utf-8"
    )


async def _run_all(remit: Remit, rest: Sequence[ExportRow], decide: list[str], advance: Any) -> list[RunResult]:
    free = asyncio.Semaphore(_AT_ONCE)

    async def one(ticket: ExportRow) -> RunResult:
        async with free:
            request = {"row": ticket.line, "decide": decide}
            result = await remit.run(_CONTRACT, request, request_key=f"row-{ticket.line}")
        advance()
        return result

    return list(await asyncio.gather(*(one(ticket) for ticket in rest)))


def _right(rest: Sequence[ExportRow], results: Sequence[RunResult], head: str) -> int:
    """Completed runs whose label is the true one."""
    return sum(
        result.outcome == "completed" and result.output["labels"][head] == ticket.labels.get(head)
        for ticket, result in zip(rest, results, strict=True)
    )


def _scored(rest: Sequence[ExportRow], predicted: Sequence[Mapping[str, Any]], head: str) -> Iterable[Scored]:
    for ticket, answers in zip(rest, predicted, strict=True):
        if head in ticket.labels:
            yield score(answers[head].ranking, ticket.labels[head])


def _mismatches(folder: Path, results: Sequence[RunResult]) -> int:
    """Rows whose labels in the export's database are not what the runs say they wrote."""
    with sqlite3.connect(folder / "export.db") as database:
        held = {row: json.loads(labels) for row, labels in database.execute("SELECT row, labels FROM sorted")}
        number_of = dict(enumerate(row for (row,) in database.execute("SELECT row FROM tickets ORDER BY row")))
    database.close()
    said = {
        number_of[at]: result.output["labels"] for at, result in enumerate(results) if result.outcome == "completed"
    }
    return sum(held.get(row) != said.get(row) for row in held.keys() | said.keys())


def as_json(measured: Measured, heads: Sequence[str]) -> dict[str, Any]:
    """The report as one JSON object."""
    runs = sum(measured.outcomes.values())
    completed = measured.outcomes.get("completed", 0)
    return {
        "runs": runs,
        "completed": completed,
        "escalated": measured.outcomes.get("escalated", 0),
        "escalated_share": round(measured.outcomes.get("escalated", 0) / runs, 4) if runs else 0,
        "correct": measured.right,
        "accuracy_of_completed": round(measured.right / completed, 4) if completed else 0,
        "mismatches": measured.mismatches,
        "trained_on": measured.trained_on,
        "rows_left_out": measured.skipped,
        "training_s": measured.training_s,
        "seconds": measured.seconds,
        "runs_per_second": round(runs / measured.seconds, 1) if measured.seconds else 0,
        "heads": {
            head: {
                "accuracy": round(measured.reports[head].accuracy, 4),
                "calibration_error": round(measured.reports[head].ece, 4),
                "log_loss": round(measured.reports[head].log_loss, 4),
            }
            for head in heads
        },
    }

"""How runs stand: the rows of `remit runs`, and what is said of a run that somebody has just driven."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from msgspec import to_builtins
from sqlalchemy import Select, select

from remit.cli.layout import table
from remit.cli.readable import value_text
from remit.errors import RemitError
from remit.journal.events import Event, EventType
from remit.journal.register import SYSTEM
from remit.records.remains import Loss, losses
from remit.storage.database import storage_errors
from remit.storage.schema import runs
from remit.terminal import clock_time, line, short_time, style_of, width

if TYPE_CHECKING:
    from rich.text import Text

    from remit.app import Remit
    from remit.runs.engine import RunResult

_COLUMNS = (
    runs.c.run,
    runs.c.contract,
    runs.c.release,
    runs.c.status,
    runs.c.outcome,
    runs.c.opened_at,
    runs.c.trouble,
)


def result_lines(result: RunResult) -> list[Text]:
    """How a run stands when nobody drives it any more, and what happens next where that is not over."""
    said = f" {result.reason}" if result.reason else ""
    lines = [line((result.run, "bold"), " ", (result.outcome, style_of(result.outcome)), said)]
    if result.outcome == "waiting":
        lines.append(line("  `remit worker` goes on with it by itself; don't start it again"))
    return lines


def run_table(found: list[dict[str, Any]], now: int) -> list[Text]:
    """A line for each run, with what it was about, why it ended, or why it can't go on."""
    columns = width()
    limit = None if columns is None else 40
    rows: list[list[Text]] = []
    for row in found:
        about = line(value_text(row["request"], limit)) if row["request"] is not None else line((_erased(row), "dim"))
        why = row["reason"] or row["trouble"]
        if why:
            about += line((f" · {why}", "dim"))
        rows.append(
            [
                line((row["run"], "bold")),
                line(row["contract"]),
                line(short_time(row["opened_at"], now)),
                line((row["state"], style_of(row["state"]))),
                about,
            ]
        )
    names = ["run", "contract", "at (UTC)", "outcome", "request and reason"]
    return table(names, rows, columns, drop=["contract", "at (UTC)"])


def _erased(row: dict[str, Any]) -> str:
    loss = row["erased"]
    if loss is None:
        return "erased"
    why = f": {loss['reason']}" if loss["reason"] else ""
    return f"erased {clock_time(loss['at'])} UTC by {loss['by']}{why}"


def read_runs(remit: Remit, last: int, state: str | None) -> list[dict[str, Any]]:
    """Rows of the table `runs`, the newest first, each with its request and why it ended, as the record has them.

    `state` is the outcome, or the status of a run that is not closed; `stuck` or `waiting` where it could not go on.
    """
    query = select(*_COLUMNS).where(runs.c.tenant == remit.tenant).order_by(runs.c.opened_at.desc())
    with storage_errors("list the runs"), remit.database.engine.connect() as connection:
        rows = connection.execute(_in_state(query, last, state)).mappings()
        described = (_described(remit, dict(row)) for row in rows)
        found = list(islice((row for row in described if state in (None, row["state"])), last))
    # The register is read only where something is erased.
    gone = any(row["request"] is None for row in found)
    erased = {
        run: to_builtins(loss)
        for run, loss in (losses(remit.register.events()).items() if gone else ())
        if loss.type == EventType.RUN_ERASED
    }
    return [{**row, "erased": erased.get(row["run"])} for row in found]


def _in_state(query: Select[*tuple[Any, ...]], last: int, state: str | None) -> Select[*tuple[Any, ...]]:
    """Narrowed to a state, as far as the table knows it: what a run waits for is in its record alone."""
    if state in ("stuck", "waiting"):
        return query.where(runs.c.trouble.is_not(None))
    if state is not None:
        query = query.where((runs.c.outcome == state) | (runs.c.status == state), runs.c.trouble.is_(None))
    return query.limit(last)


def _described(remit: Remit, row: dict[str, Any]) -> dict[str, Any]:
    """`request` is `None` for a run that was erased. A record that is damaged is said to be so, and hides no other run."""
    try:
        events = remit.journal.reader.events(row["run"])
    except RemitError as error:
        events, found = [], {"request": None, "reason": error.message}
    else:
        closed = closing_of(events)
        ending: dict[str, Any] = (closed.body or {}) if closed else {}
        opened: dict[str, Any] = events[0].body or {}
        found = {"request": opened.get("request"), "reason": ending.get("reason") or None}
    standing = troubled(events, row["trouble"]) if row["trouble"] else row["outcome"] or row["status"]
    return {**row, "state": standing, **found}


def loss_of(remit: Remit, events: Sequence[Event]) -> Loss | None:
    """What was destroyed of a run, as the register has it; that is read only where something is missing."""
    missing = (event.body is None or (event.header.sealed and event.sealed is None) for event in events)
    return losses(remit.register.events()).get(events[0].header.run) if any(missing) else None


def loss_line(loss: Loss) -> Text:
    """What was destroyed of a run, when, by whom and why."""
    what = "erased" if loss.type == EventType.RUN_ERASED else "originals dropped"
    why = loss.reason or ("its contract keeps it no longer" if loss.by == SYSTEM else "no reason given")
    return line((what, "bold red"), f" {clock_time(loss.at)} UTC by {loss.by}: {why}")


def trouble_of(remit: Remit, run: str) -> str | None:
    """Why a run could not go on when somebody last tried; `None` where nothing is wrong."""
    with storage_errors("look for the run"), remit.database.engine.connect() as connection:
        return connection.execute(select(runs.c.trouble).where(runs.c.run == run)).scalar()


def troubled(events: Sequence[Event], trouble: str) -> str:
    """`waiting` where a decision was put off for just this reason, and is made by itself later; else `stuck`."""
    for event in events:
        if event.type is EventType.CALL_DECIDED and event.header.verdict == "defer":
            body = cast("dict[str, Any]", event.body or {})
            if body.get("verdict", {}).get("message") == trouble:
                return "waiting"
    return "stuck"


def closing_of(events: Sequence[Event]) -> Event | None:
    """The event that closed a run; what people do about its cases may stand behind it."""
    return next((event for event in reversed(events) if event.type is EventType.RUN_CLOSED), None)

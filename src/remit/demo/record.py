"""The proof at the end: what the journal says was written is what the tracker holds, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from remit.app import Remit
from remit.connectors.roundup.client import RoundupClient
from remit.connectors.roundup.model import Issue
from remit.demo.tickets import Filed
from remit.journal.events import Event, EventType
from remit.storage.schema import runs

_FIELDS = {"category": "category", "priority": "priority", "assignee": "assignedto"}


@dataclass(kw_only=True)
class Expected:
    """An issue as it must look: as it was filed, and what the journal says was written since."""

    values: dict[str, Any]
    notes: list[str] = field(default_factory=list[str])


def all_events(remit: Remit) -> list[list[Event]]:
    """The events of every run, in the order of opening."""
    with remit.database.engine.connect() as connection:
        names = [row[0] for row in connection.execute(select(runs.c.run).order_by(runs.c.opened_at))]
    return [remit.journal.reader.events(name) for name in names]


def written(histories: Iterable[Sequence[Event]]) -> list[tuple[str, dict[str, Any]]]:
    """Every write that completed, as tool and arguments, in the order in which they completed."""
    found: list[tuple[int, str, dict[str, Any]]] = []
    for events in histories:
        asked: dict[str, tuple[str, dict[str, Any]]] = {}
        for event in events:
            body: dict[str, Any] = event.body or {}
            if event.type is EventType.CALL_DECIDED and event.header.verdict == "allow":
                asked[event.header.span] = body["tool"], (event.sealed or body)["args"]
            elif event.type is EventType.CALL_COMPLETED:
                tool, args = asked[event.header.span]
                found.append((event.header.at, tool, args))
    return [(tool, args) for _, tool, args in sorted(found, key=lambda item: item[0])]


async def mismatches(remit: Remit, tracker: RoundupClient, filed: Sequence[Filed]) -> list[str]:
    """Every difference between the tracker and the record, in words; none means that they agree."""
    expected = {item.issue: Expected(values=_as_filed(item)) for item in filed}
    for tool, args in written(all_events(remit)):
        _apply(expected, tool, args)
    found: list[str] = []
    snapshot = {issue.id: issue for issue in await tracker.snapshot()}
    for number in sorted(expected.keys() | snapshot.keys()):
        if number not in expected or number not in snapshot:
            found.append(f"issue {number} is in {'the tracker' if number in snapshot else 'the record'} alone")
            continue
        found.extend(_compare(number, expected[number], snapshot[number]))
    return found


def _as_filed(item: Filed) -> dict[str, Any]:
    ticket = item.ticket
    return {
        "title": ticket.title,
        "tenant": ticket.tenant,
        "region": ticket.region,
        "requester": ticket.requester,
        "status": "open",
        "category": None,
        "priority": None,
        "assignedto": None,
        "superseder": (),
    }


def _apply(expected: dict[int, Expected], tool: str, args: dict[str, Any]) -> None:
    match tool:
        case "tracker.update":
            for name, value in args["changes"].items():
                expected[args["issue"]].values[_FIELDS[name]] = value
        case "tracker.note":
            expected[args["issue"]].notes.append(args["text"])
        case "tracker.close":
            original = args.get("duplicate_of")
            expected[args["issue"]].values["status"] = "duplicate" if original else "closed"
            expected[args["issue"]].values["superseder"] = (original,) if original else ()
        case _:
            return


def _compare(number: int, expected: Expected, issue: Issue) -> Iterable[str]:
    for name, value in expected.values.items():
        held = getattr(issue, name)
        if held != value:
            yield f"issue {number}: `{name}` is {held!r} in the tracker and {value!r} in the record"
    notes = sorted(note.text for note in issue.notes)
    if notes != sorted(expected.notes):
        yield f"issue {number}: {len(notes)} notes in the tracker, {len(expected.notes)} in the record, or other texts"

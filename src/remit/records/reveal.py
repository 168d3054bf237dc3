"""Revealing originals: what is sealed beside the redacted record, to a person whom `record.cedar` lets see it.

That somebody is shown them is on the register before they are, with who, why, and which; never what they say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from remit.contracts.problems import quoted
from remit.errors import RecordError
from remit.journal.events import Event, EventType
from remit.journal.pseudonyms import classes_in
from remit.journal.redaction import texts
from remit.records.archive import Archive
from remit.records.record_cedar import Deed
from remit.values import Json

REQUEST_STEP = "0"
"""Names what a run was opened and closed with, which belongs to none of its steps."""


class Original(msgspec.Struct, frozen=True, kw_only=True):
    """What an event says where the record is redacted. `n`: its position in the run; `at`: microseconds, UTC."""

    n: int
    step: str
    type: str
    at: int
    content: Json


class Originals(msgspec.Struct, frozen=True, kw_only=True):
    """The originals of a run that are left. `dropped`: of how many events they are gone; `erased`: the run as a whole.

    `classes`: what kinds of data were replaced.
    """

    run: str
    found: list[Original]
    classes: list[str]
    dropped: int
    erased: bool


class Reveals:
    """Shows originals of one tenant's runs."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    async def reveal(self, run: str, *, step: str | None = None, token: str, reason: str) -> Originals:
        """The originals of a run, or of one step of it, once it is on record that this person sees them.

        Where none are left nothing is recorded. Raises `RecordError` (`record_denied`, `step_not_found`), `RunError`,
        and what the token and `record.cedar` raise.
        """
        archive = self._archive
        stored, events = archive.run(run), archive.events(run)
        chosen = [event for event in events if step is None or _is_at(event, step)]
        if not chosen:
            steps = ", ".join(dict.fromkeys(event.header.span for event in events if event.header.span))
            raise RecordError(
                f"run `{run}` has no step {quoted(step)}; there are {REQUEST_STEP} (the request)"
                f"{f', {steps}' if steps else ''}",
                code="step_not_found",
            )
        originals = _originals(run, chosen, erased=not stored.has_body)
        purpose = archive.purpose(Deed.REVEAL, token=token, reason=reason, classes=originals.classes)
        await archive.permit(purpose, [archive.facts(stored, events)], events)
        if originals.found:
            body = {
                "run": run,
                "steps": sorted({original.step or REQUEST_STEP for original in originals.found}),
                "events": [original.n for original in originals.found],
                "classes": originals.classes,
            }
            draft = archive.draft(EventType.VALUE_REVEALED, archive.about(purpose, events), body, run=run)
            await archive.register.append(draft, by=purpose.person.principal)
        return originals


def _is_at(event: Event, step: str) -> bool:
    span = event.header.span
    return not span if step == REQUEST_STEP else span == step


def _originals(run: str, events: Sequence[Event], *, erased: bool) -> Originals:
    sealed = [event for event in events if event.header.sealed]
    found = [
        Original(
            n=event.header.n,
            step=event.header.span,
            type=event.header.type,
            at=event.header.at,
            content=event.sealed,
        )
        for event in sealed
        if event.sealed is not None
    ]
    return Originals(
        run=run,
        found=found,
        classes=sorted({kind for event in sealed for kind in _classes(event)}),
        dropped=len(sealed) - len(found),
        erased=erased,
    )


def _classes(event: Event) -> Iterator[str]:
    """The kinds of data that an event's pseudonyms stand for."""
    body: dict[str, Any] = event.body or {}
    yield from body.get("classes", ())
    for text in texts(body):
        yield from classes_in(text)

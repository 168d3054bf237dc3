"""What a run has held that is concealed, known again from its record: for whoever takes it up or writes to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from remit.journal.events import Event
from remit.journal.pseudonyms import class_of
from remit.journal.redaction import Redactor
from remit.tools.spec import FieldClass
from remit.values import Json

_DECLARED = frozenset(str(kind) for kind in FieldClass)


def redactor_of(redactor: Redactor, events: Iterable[Event]) -> Redactor:
    """A redactor that conceals what declared fields have held and detectors have found in a run, as the run's own does.

    It goes by the originals, so that it knows of none once they are dropped.
    """
    own = redactor.for_run()
    for event in events:
        for kind, value in classed_values([event]):
            own.note(kind, value)
        if event.sealed is not None:
            # What detectors find in the originals is known from then on.
            own.redact(event.sealed)
    return own


def classed_values(events: Iterable[Event]) -> Iterator[tuple[str, str]]:
    """What declared fields have held in a run, with their classes; nothing where the originals were dropped."""
    for event in events:
        yield from _classed(event.body, event.sealed)


def _classed(shown: Json, original: Json) -> Iterator[tuple[str, str]]:
    """Where the record has the pseudonym of a declared class, the class and what it stands for."""
    if isinstance(shown, str) and isinstance(original, str):
        kind = class_of(shown)
        if kind in _DECLARED:
            yield kind, original
    elif isinstance(shown, dict) and isinstance(original, dict):
        beside = cast("dict[str, Json]", shown)
        for key, item in cast("dict[str, Json]", original).items():
            yield from _classed(beside.get(key), item)
    elif isinstance(shown, list) and isinstance(original, list):
        for one, other in zip(cast("list[Json]", shown), cast("list[Json]", original), strict=False):
            yield from _classed(one, other)

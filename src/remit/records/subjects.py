"""Whose data it is: a person that runs act for, or a value that stands in them.

A value is looked for where the record is redacted, by each pseudonym that it can have, and as it is where no detector
knew it: a name in a sentence. That is a walk over every event of every run, linear in the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import re2  # pyright: ignore[reportMissingTypeStubs]

from remit.errors import RecordError
from remit.journal.events import Event
from remit.journal.redaction import Redactor, texts
from remit.records.policy import RunFacts

_SHORTEST = 4
"""A shorter text stands everywhere by chance."""


@dataclass(frozen=True, kw_only=True)
class DataSubject:
    """Whose runs are meant. `name`: the principal, or the value; `shown`: the same as anybody may read it.

    `person`: the id, where it is a declared person.
    """

    name: str
    shown: str
    person: str | None
    pseudonyms: frozenset[str]
    expression: Any

    def is_meant_by(self, facts: RunFacts, events: Sequence[Event]) -> bool:
        """Whether a run is about them: it acts for the person, or the value stands in what is left of it."""
        if self.person is not None and facts.on_behalf_of == self.person:
            return True
        return any(self._stands_in(text) for event in events for text in texts(event.body))

    def _stands_in(self, text: str) -> bool:
        if any(pseudonym in text for pseudonym in self.pseudonyms):
            return True
        return self.expression is not None and self.expression.search(text.encode(errors="replace")) is not None


def data_subject(given: str, redactor: Redactor, people: Sequence[str]) -> DataSubject:
    """Whom a person of `people` (`ann`, `person/ann`) or a value names. Raises `RecordError` (code `subject_too_short`)."""
    text = given.strip()
    name = text.removeprefix("person/")
    person = name if name in people else None
    if person is None and len(text) < _SHORTEST:
        raise RecordError(
            f"a value of {len(text)} characters stands everywhere by chance; give at least {_SHORTEST}, or a person of "
            "remit.toml",
            code="subject_too_short",
        )
    return DataSubject(
        name=f"person/{person}" if person else text,
        shown=f"person/{person}" if person else redactor.pseudonym("subject", text),
        person=person,
        # The id of a person also names who decided a case, which makes nobody the subject of it.
        pseudonyms=redactor.pseudonyms(name if person else text),
        expression=None if person else _whole(text),
    )


def _whole(text: str) -> Any:
    """Finds a text where it is no part of a longer word, in upper or lower case."""
    escaped = cast("str", re2.escape(text))  # pyright: ignore[reportUnknownMemberType]
    return re2.compile(rf"(?i)(?:^|[^\pL\pN]){escaped}(?:[^\pL\pN]|$)")  # pyright: ignore[reportUnknownMemberType]

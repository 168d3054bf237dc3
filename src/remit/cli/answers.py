"""An answer as a person gives it: typed, read, edited, or the run's draft as it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from remit.errors import CaseError
from remit.terminal import json_text
from remit.values import Json, ValueRefused, parse

if TYPE_CHECKING:
    from remit.app import Remit
    from remit.cases.cases import Revealed
    from remit.cli.cases import Answering


async def read_answer(remit: Remit, case: str, person: str, answering: Answering) -> Json:
    """What the person answers. Raises `CaseError` where there is no draft, or nothing came of editing it."""
    if answering.answer is not None:
        text = sys.stdin.read() if answering.answer == "-" else answering.answer
        return _understood(text, remit.cases.question(remit.cases.get(case)).get("answer"))
    # Who edits a draft reads it as it is; that they were shown it is on record.
    shown = await remit.cases.reveal(case, token=remit.person_token(person))
    if shown.draft is None:
        raise CaseError(f"case `{case}` brings no draft; give an ANSWER", code="answer_invalid")
    return shown.draft if answering.draft else _edited(case, shown)


def _understood(text: str, schema: Any) -> Json:
    """JSON where the question asks for more than a text; else the text itself."""
    if isinstance(schema, dict) and schema.get("type") == "string":  # pyright: ignore[reportUnknownMemberType]
        return text
    try:
        return parse(text)
    except ValueRefused as error:
        if not schema:
            return text
        raise CaseError(f"the answer is not JSON: {error.message}", code="answer_invalid") from error


def _edited(case: str, shown: Revealed) -> Json:
    import click

    saved = click.edit(json_text(shown.draft, indent=2) + "\n", extension=".json")
    if saved is None:
        raise CaseError(f"nothing was saved, so case `{case}` is not answered", code="answer_invalid")
    try:
        return parse(saved)
    except ValueRefused as error:
        raise CaseError(f"what was saved is not JSON, so case `{case}` is not answered: {error.message}", code="answer_invalid") from error

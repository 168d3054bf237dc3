"""What a run asks a person: a question with a draft, parked until somebody answers, and the answer as the run gets it.

The answer is one more recorded step, so that a run that is taken up again gets it at the same place. What the person
changed of a draft is kept as the difference, and only what they wrote themselves is labelled `person`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import jsonschema_rs

from remit.contracts.quantities import duration_ms
from remit.errors import RunError
from remit.gate.call import RunState
from remit.gate.record import case_row
from remit.journal.events import Draft, Event, EventType
from remit.provenance.labels import PERSON
from remit.storage.rows import open_case
from remit.storage.writer import Statement
from remit.values import Json, digest, show_path

QUESTION = "question"
"""The kind of case that a question opens."""

REQUESTER = "requester"
"""Asked is the person on whose behalf the run acts."""

_TEXT: Mapping[str, Json] = {"type": "string", "minLength": 1}


@dataclass(frozen=True, kw_only=True)
class QuestionTerms:
    """What a workflow asks. `of`: a role (`role:care-lead`) or `requester`; empty, whoever works on the contract's queue.

    `within`: how long an answer is waited for (`4h`). `draft`: what the person starts from. `answer`: the JSON Schema of
    the answer; a text where nothing is said, and anything where there is a draft.
    """

    question: str
    of: str
    within: str
    draft: Json
    answer: Mapping[str, Any] | None

    @property
    def schema(self) -> Mapping[str, Any]:
        """What an answer must meet."""
        if self.answer is not None:
            return self.answer
        return _TEXT if self.draft is None else {}

    def digest(self) -> str:
        """Of all that is asked, so that a run that asks something else at this step is seen."""
        asked: Json = [self.question, self.of, self.within, self.draft, cast("Json", dict(self.schema))]
        return digest(asked)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedQuestion:
    """A question on record. `asked`: its digest. `answered`: whether somebody has, with `answer`."""

    case: str
    asked: str
    draft: Json
    expires_at: int
    answered: bool = False
    answer: Json = None


def opened(state: RunState, step: str, asking: QuestionTerms) -> tuple[RecordedQuestion, Draft, Statement]:
    """The question, its event and the row of its case. Raises `RunError` for what can't be asked."""
    roles = _asked_of(state, asking.of)
    _check_schema(asking.schema)
    said: dict[str, Json] = {"reason": asking.question, "draft": asking.draft, "answer": dict(asking.schema)}
    shown: dict[str, Any] = state.redactor.redact(said).value
    row = case_row(state, step, QUESTION, shown["reason"][:200])
    expires_at = row.opened_at + duration_ms(asking.within) * 1000
    beside: dict[str, Json] = {
        "case": row.case,
        "kind": QUESTION,
        "queue": row.queue,
        "roles": list(roles),
        "expires_at": expires_at,
    }
    draft = Draft(
        type=EventType.CASE_OPENED,
        actor=state.authority.principal,
        span=step,
        body={**beside, **shown},
        # The digest is of originals, and one could try guesses against it: it is sealed with them.
        sealed=state.redactor.without_credentials({**said, "asked": asking.digest()}),
    )
    question = RecordedQuestion(case=row.case, asked=asking.digest(), draft=asking.draft, expires_at=expires_at)
    return question, draft, open_case(replace(row, roles=" ".join(roles), expires_at=expires_at))


def recorded(event: Event) -> RecordedQuestion:
    """The question that an event opened."""
    body, original = _both(event)
    return RecordedQuestion(
        case=body["case"],
        asked=str(original.get("asked", "")),
        draft=original.get("draft"),
        expires_at=body["expires_at"],
    )


def answered(question: RecordedQuestion, event: Event) -> RecordedQuestion:
    """The question with the answer that an event gives it; unchanged where the event answers another."""
    body, original = _both(event)
    if body.get("case") != question.case or body.get("decision") != "answered":
        return question
    return replace(question, answered=True, answer=original.get("answer"))


def note_answer(state: RunState, question: RecordedQuestion) -> None:
    """What the person wrote themselves is theirs; what they left as it was keeps the source it had."""
    for _, _, to in differences(question.draft, question.answer):
        if to is not None:
            state.seen.add(PERSON, to)


def answer_body(draft: Json, answer: Json) -> dict[str, Json]:
    """An answer as its event holds it before it is redacted, with what it changes of the draft."""
    changes: list[Json] = []
    if draft is not None:
        changes = [{"path": path, "from": one, "to": other} for path, one, other in differences(draft, answer)]
    return {"answer": answer, "changes": changes}


def differences(one: Json, other: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str, Json, Json]]:
    """Where two values differ: the path, and what stands there in each; `None` where nothing does."""
    if isinstance(one, dict) and isinstance(other, dict):
        left, right = cast("dict[str, Json]", one), cast("dict[str, Json]", other)
        for key in dict.fromkeys([*left, *right]):
            yield from differences(left.get(key), right.get(key), (*path, key))
        return
    lists = cast("list[Json]", one), cast("list[Json]", other)
    if isinstance(one, list) and isinstance(other, list) and len(lists[0]) == len(lists[1]):
        for at, (left_item, right_item) in enumerate(zip(*lists, strict=True)):
            yield from differences(left_item, right_item, (*path, at))
    elif one != other or isinstance(one, bool) != isinstance(other, bool):
        yield show_path(path), one, other


def _check_schema(schema: Mapping[str, Any]) -> None:
    """Raises `RunError` (code `question_invalid`) where what an answer must meet is no JSON Schema."""
    try:
        jsonschema_rs.Draft202012Validator(dict(schema))
    except (ValueError, jsonschema_rs.ValidationError) as error:
        raise RunError(f"what the answer must meet is no JSON Schema: {error}", code="question_invalid") from error


def problem_of(schema: Mapping[str, Any], answer: Json) -> str:
    """What keeps an answer from meeting what was asked for; empty where it does."""
    error = next(iter(jsonschema_rs.Draft202012Validator(dict(schema)).iter_errors(answer)), None)
    return "" if error is None else f"the answer does not meet what was asked for: {error.message}"


def _asked_of(state: RunState, of: str) -> tuple[str, ...]:
    if of == REQUESTER:
        if state.on_behalf_of is None:
            message = "nobody can be asked as the requester: the run acts on behalf of no person; name a role"
            raise RunError(message, code="question_invalid")
        return (state.on_behalf_of,)
    if of and not of.startswith("role:"):
        raise RunError(f"a question is asked of `role:<name>` or of `{REQUESTER}`, not of `{of}`", code="question_invalid")
    return (of,) if of else ()


def _both(event: Event) -> tuple[dict[str, Any], Mapping[str, Any]]:
    body: dict[str, Any] = event.body or {}
    return body, cast("Mapping[str, Any]", event.sealed or body)

"""Recorded models: answers out of a file, by what was asked.

One JSON object a line: `{"model": <name in the contract>, "request": <digest>, "answer": {…}}`. The digest is the SHA-256
of the canonical bytes of the call's arguments, or, where something in them is concealed, the keyed one of the record
(`args_digest`), which only the project that recorded it can find; the answer is the call's result without `usage`. The same request asked again in a run gets the next answer to it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from remit.contracts.model import AnswerKind
from remit.errors import ConfigError
from remit.models.interface import Fault, ModelAnswer, ModelFailed, ModelRequest, OnText, WantedCall
from remit.values import MAX_BYTES, Json, ValueRefused, digest, encode, parse

_RUNS = 1024
"""Of so many runs it is remembered how often they have asked what; a run that is older begins at the first answer."""


class RecordedModel:
    """Answers from a recording. A request that it does not hold fails, and the error names it."""

    corrects = False

    def __init__(self, path: Path) -> None:
        """Raises `ConfigError` with the line that is wrong."""
        self.name = f"recorded:{path.name}"
        self._file = path.name
        self._answers: dict[tuple[str, str], list[dict[str, Json]]] = {}
        for model, request, answer in read_recording(path):
            self._answers.setdefault((model, request), []).append(answer)
        self._asked: OrderedDict[str, dict[tuple[str, str], int]] = OrderedDict()

    async def ask(self, request: ModelRequest, on_text: OnText | None) -> ModelAnswer:  # noqa: ARG002 - it comes at once
        key = (request.binding, request.args_digest)
        if key not in self._answers:
            key = (request.binding, request.recorded_as)
        times = self._asked.setdefault(request.run, {})
        self._asked.move_to_end(request.run)
        while len(self._asked) > _RUNS:
            self._asked.popitem(last=False)
        known = self._answers.get(key, [])
        place = times.get(key, 0)
        if place >= len(known):
            message = (
                f"recording `{self._file}` holds {len(known) or 'no'} answer{'' if len(known) == 1 else 's'} of "
                f"`{request.binding}` to request `{request.recorded_as.rpartition(':')[2][:16]}`, and it was asked {place + 1} "
                f"time{'' if place == 0 else 's'}; record it with `remit models record`"
            )
            raise ModelFailed(message, code="recording_missed", fault=Fault.MISSING, why="not recorded")
        times[key] = place + 1
        return _answer(request.answer, known[place])


def _answer(kind: AnswerKind, plain: Mapping[str, Any]) -> ModelAnswer:
    finish = str(plain.get("finish") or "stop")
    match kind:
        case AnswerKind.LABELS:
            return ModelAnswer(value=dict(plain))
        case AnswerKind.VALUE:
            return ModelAnswer(value=plain.get("value"), finish=finish)
        case AnswerKind.TEXT:
            return ModelAnswer(text=plain.get("text"), finish=finish)
        case AnswerKind.TOOLS:
            calls = tuple(WantedCall(id=each["id"], tool=each["tool"], args=each["args"]) for each in plain.get("calls", ()))
            return ModelAnswer(text=plain.get("text"), calls=calls, finish=finish)


def read_recording(path: Path) -> Iterator[tuple[str, str, dict[str, Json]]]:
    """Model, request digest and answer of each line. Raises `ConfigError` with the line that is wrong."""
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _line(line, f"{path.name}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recording `{path.name}` can't be read: {error}") from error


def _line(line: str, place: str) -> tuple[str, str, dict[str, Json]]:
    try:
        found: Json = parse(line, limit_bytes=4 * MAX_BYTES)
    except ValueRefused as error:
        raise ConfigError(f"{place}: {error.message}") from error
    row = cast("dict[str, Json]", found) if isinstance(found, dict) else {}
    model, request, answer = row.get("model"), row.get("request"), row.get("answer")
    if not (isinstance(model, str) and isinstance(request, str) and isinstance(answer, dict)):
        raise ConfigError(f"{place}: a line is an object with `model`, `request` and `answer`")
    return model, request, cast("dict[str, Json]", answer)


def recording_line(model: str, request: str, result: Mapping[str, Json]) -> str:
    """One line of a recording, of a completed call of `model:<name>`."""
    answer = {name: value for name, value in result.items() if name != "usage"}
    return encode({"model": model, "request": request, "answer": answer}).decode()


def recorded_calls(events: Iterable[tuple[str, str, str, Mapping[str, Any]]]) -> Iterator[str]:
    """The lines of completed model calls. `events`: run, type, step and body of each event, in order."""
    decided: dict[tuple[str, str], tuple[str, str]] = {}
    for run, kind, step, body in events:
        tool = str(body.get("tool", ""))
        if not tool.startswith("model:"):
            continue
        if kind == "call.decided":
            # Of arguments that stand there as they are, the digest without a key tells nothing more, and is found anywhere.
            found = str(body.get("args_digest", "")) if body.get("classes") else digest(body.get("args"))
            decided[run, step] = (tool.removeprefix("model:"), found)
        elif kind == "call.completed" and (run, step) in decided and isinstance(body.get("result"), dict):
            yield recording_line(*decided[run, step], cast("dict[str, Json]", body["result"]))

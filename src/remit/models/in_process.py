"""Models in this process: a function of the project, and the local classifier."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from remit.contracts.model import AnswerKind
from remit.errors import ConfigError, ToolFailed
from remit.models.classifier import TextClassifier
from remit.models.interface import Fault, ModelAnswer, ModelFailed, ModelRequest, OnText, WantedCall
from remit.tools.registry import load_module
from remit.tools.source import source_digest
from remit.values import Json

Plan = Callable[[ModelRequest], Awaitable[Any]]


class PythonModel:
    """`async def plan(request) -> answer`, a function of the project.

    It is given a `ModelRequest` and returns labels by head, the value, a text, or for `tools` a text or
    `{"text": …, "calls": [{"tool": …, "args": {…}}]}`; or a `ModelAnswer`, which says what it used as well. A `ToolFailed`
    that it raises with `retryable` counts as away.
    """

    corrects = True

    def __init__(self, reference: str, folder: Path) -> None:
        """`reference`: file and function, `models/planner.py:plan`. Raises `ConfigError`."""
        file, _, name = reference.rpartition(":")
        self.module: ModuleType = load_module(file, folder)
        self.source = source_digest(self.module)
        self.name = f"python:{name}@{self.source[:12]}"
        function = getattr(self.module, name, None)
        if not inspect.iscoroutinefunction(function):
            raise ConfigError(f"`{reference}` is no function to ask; write `async def {name}(request)` in `{file}`")
        self._plan = cast("Plan", function)

    async def ask(self, request: ModelRequest, on_text: OnText | None) -> ModelAnswer:  # noqa: ARG002 - it has no pieces
        try:
            said = await self._plan(request)
        except ModelFailed:
            raise
        except ToolFailed as error:
            fault = Fault.BUSY if error.retryable else Fault.WRONG
            raise ModelFailed(error.message, code=error.code, fault=fault, why=error.code) from error
        return said if isinstance(said, ModelAnswer) else _answer(request.answer, said)


def _answer(kind: AnswerKind, said: Any) -> ModelAnswer:
    match kind:
        case AnswerKind.LABELS | AnswerKind.VALUE:
            return ModelAnswer(value=said) if said is not None else ModelAnswer(problem="it is nothing")
        case AnswerKind.TEXT:
            return ModelAnswer(text=said) if isinstance(said, str) else ModelAnswer(problem="it is no text")
        case AnswerKind.TOOLS:
            if isinstance(said, str):
                return ModelAnswer(text=said)
            return _turn(cast("Mapping[str, Any]", said)) if isinstance(said, dict) else ModelAnswer(problem="it is no turn")


def _turn(said: Mapping[str, Any]) -> ModelAnswer:
    """A turn as plain JSON. Calls without an id are numbered."""
    text = said.get("text")
    calls = cast("list[Any]", said.get("calls") or [])
    wanted: list[WantedCall] = []
    for number, each in enumerate(calls, start=1):
        call = cast("dict[str, Json]", each) if isinstance(each, dict) else {}
        if not isinstance(call.get("tool"), str):
            return ModelAnswer(problem="each of `calls` is an object with `tool` and `args`")
        wanted.append(WantedCall(id=str(call.get("id") or f"call-{number}"), tool=call["tool"], args=call.get("args") or {}))
    if text is not None and not isinstance(text, str):
        return ModelAnswer(problem="`text` is no text")
    return ModelAnswer(text=text, calls=tuple(wanted), finish=str(said.get("finish") or "stop"))


class LocalClassifier:
    """A trained `TextClassifier`: labels with calibrated confidence, out of the call's `title` and `text`."""

    corrects = False

    def __init__(self, classifier: TextClassifier) -> None:
        self._classifier = classifier
        self.name = f"classifier:{classifier.digest[:12]}"
        self.heads = list(classifier.heads)

    async def ask(self, request: ModelRequest, on_text: OnText | None) -> ModelAnswer:  # noqa: ARG002 - it has no pieces
        args = request.args
        text = "\n".join([args["title"], args["text"]]) if args.get("title") else args["text"]
        return ModelAnswer(
            value={
                head: {"label": found.label, "confidence_per_mille": int(found.confidence * 1000)}
                for head, found in self._classifier.predict(text).items()
            }
        )

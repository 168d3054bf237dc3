"""What every kind of model has in common: it is asked a `ModelRequest` and gives a `ModelAnswer`, or says why not.

A provider, a recording, a classifier, a function of the project: each is one class with a `name` and an `ask`. What is
the same for all of them (attempts, stand-ins, circuits, corrections, tokens) is in `chain`, the forms of an answer are in
`forms`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Protocol

import msgspec

from remit.contracts.model import AnswerKind
from remit.errors import ToolFailed
from remit.values import Json

OnText = Callable[[str], None]
"""Takes the pieces of a text while it comes."""


class WantedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that a model wants made. `tool` is a name as the project has it, or whatever the model said instead."""

    id: str
    tool: str
    args: Json


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a conversation. `calls`: what an assistant wanted; `call_id`: which of them a tool's text answers."""

    role: str
    text: str = ""
    calls: tuple[WantedCall, ...] = ()
    call_id: str = ""


class OfferedTool(msgspec.Struct, frozen=True, kw_only=True):
    """A granted action, as a model is shown it."""

    name: str
    description: str
    input_schema: Mapping[str, Any]


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One question to a model.

    `binding`: the model's name in the contract. `run`: the run that asks. `answer`: which kind of answer is wanted.
    `args`: the call's arguments as the gate let them through; `args_digest`: SHA-256 of their canonical bytes;
    `recorded_as`: the keyed one that the call has on record.
    `system`: for a conversation, its prompt, filled; otherwise the prompt is the first of `messages`. `tools`: what may be
    called. `form`: the labels by head, or the JSON Schema of the value.
    """

    binding: str
    run: str
    answer: AnswerKind
    args: Mapping[str, Json]
    args_digest: str
    recorded_as: str = ""
    messages: tuple[ChatMessage, ...]
    system: str = ""
    tools: tuple[OfferedTool, ...] = ()
    form: Json = None


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a model said.

    `value`: labels or value, where the model gives them as such and not as text. `finish`: why it ended: `stop`,
    `tool_calls`, `length`, `refusal`. `tokens_cached`: those of `tokens_in` that the provider had cached.
    `cost_microusd`: `None` where no price is known. `problem`: what is wrong with it, in words for the model.
    """

    text: str | None = None
    calls: tuple[WantedCall, ...] = ()
    value: Json = None
    finish: str = "stop"
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    cost_microusd: int | None = 0
    problem: str = ""


class AnyModel(Protocol):
    """A model of any kind. `name` says who answers (`openai:gpt-5-mini`); `corrects`: whether it heeds a correction."""

    @property
    def name(self) -> str: ...
    @property
    def corrects(self) -> bool: ...

    async def ask(self, request: ModelRequest, on_text: OnText | None) -> ModelAnswer:
        """The answer; pieces of its text go to `on_text` while they come, where the model can. Raises `ModelFailed`."""
        ...


class Fault(Enum):
    """What a failure means for what is tried next."""

    BUSY = "busy"
    """Away, overloaded, cut off or too slow: the same model may be asked again, then another one."""
    BROKEN = "broken"
    """It answers, but not as its interface has it: another model may do."""
    BARRED = "barred"
    """It does not know us, or not the model: another model may do."""
    AWAY = "away"
    """It was not asked, for it has failed often: another model may do."""
    MISSING = "missing"
    """A recording holds no answer: another model may do."""
    REFUSED = "refused"
    """It won't answer this, and nobody else is asked to get around that."""
    WRONG = "wrong"
    """The request can't be answered as it is, or what came is not what was asked for."""


_LAST_WORDS = frozenset({Fault.REFUSED, Fault.WRONG})


class ModelFailed(ToolFailed):
    """A model did not answer. The message names no text of the request, the answer or the server.

    `why` is that in two or three words, for the list of attempts; `spent`: what the attempt used all the same.
    """

    code = "model_unavailable"

    def __init__(
        self,
        message: str,
        *,
        code: str,
        fault: Fault,
        why: str = "",
        retry_after_ms: int | None = None,
        spent: ModelAnswer | None = None,
    ) -> None:
        super().__init__(message, code=code, retry_after_ms=retry_after_ms)
        self.fault = fault
        self.why = why or message
        self.spent = spent

    @property
    def is_final(self) -> bool:
        """Whether no other model is to be asked either."""
        return self.fault in _LAST_WORDS


class WrongAnswer(Exception):
    """An answer is not what was asked for; the text says so to the model."""

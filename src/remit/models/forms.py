"""The forms of an answer: what a model is given and asked, how its answer is read, and what the call's result is.

One class a kind of `AnswerKind`. None of them knows who is asked. An answer is read strictly: duplicate keys, NaN,
unknown keys and whatever else the schema does not have are wrong, and said to the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, cast

import jsonschema_rs

from remit.contracts.answers import names_in
from remit.contracts.model import AnswerKind
from remit.models.interface import (
    ChatMessage,
    Fault,
    ModelAnswer,
    ModelFailed,
    ModelRequest,
    OfferedTool,
    WantedCall,
    WrongAnswer,
)
from remit.models.templates import fill
from remit.values import Json, ValueRefused, digest, leaves, parse, show_path

Schema = dict[str, Any]

_SHOWN = 200
_TEXT = {"type": "string", "maxLength": 100_000}
_NAME = {"type": "string", "maxLength": 200}
_CONFIDENCE = {"type": "integer", "minimum": 0, "maximum": 1000}
_CHOICE = {
    "type": "object",
    "properties": {"label": {"type": "string"}, "confidence_per_mille": _CONFIDENCE},
    "required": ["label", "confidence_per_mille"],
    "additionalProperties": False,
}
_COUNT = {"type": "integer", "minimum": 0}
_ATTEMPT = {
    "type": "object",
    "properties": {"model": _NAME, "outcome": {"type": "string"}, "latency_ms": _COUNT},
    "required": ["model", "outcome", "latency_ms"],
    "additionalProperties": False,
}
_PARAMETERS = {
    "type": "object",
    "properties": {"temperature": {"type": "string"}, "max_tokens": _COUNT},
    "additionalProperties": False,
}
USAGE: Schema = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("cost_microusd", "tokens_in", "tokens_out", "tokens_cached", "latency_ms"), _COUNT),
        "priced": {"type": "boolean", "description": "false: no price is known, and what was reserved counts as spent"},
        "model": {"type": "string", "description": "who answered: `provider:model`"},
        "finish": {"type": "string", "description": "why the answer ended"},
        "prompt": {"type": "string", "description": "the prompt's file"},
        "template": {"type": "string", "description": "SHA-256 of the prompt's text and of the form of its answer"},
        "parameters": _PARAMETERS,
        "attempts": {"type": "array", "items": _ATTEMPT, "description": "who was asked, in order, and what came of it"},
    },
    "required": ["cost_microusd"],
    "additionalProperties": False,
}
LABELS_INPUT: Schema = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 500},
        "text": _TEXT,
        "decide": {
            "type": "array",
            "items": {"type": "string"},
            "uniqueItems": True,
            "maxItems": 16,
            "description": "what will be acted upon without a person; the overall confidence is the lowest of these",
        },
    },
    "required": ["text"],
    "additionalProperties": False,
}


def _closed(properties: Mapping[str, Any], optional: Sequence[str] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def input_schema(kind: AnswerKind, template: str, tools: Sequence[str]) -> Schema:
    """What a model of this kind of answer is given. `tools`: the contract's actions, which it may be offered."""
    match kind:
        case AnswerKind.LABELS:
            return LABELS_INPUT
        case AnswerKind.VALUE | AnswerKind.TEXT:
            return _closed(dict.fromkeys(names_in(template), _ANYTHING))
        case AnswerKind.TOOLS:
            names = {name: _ANYTHING for name in names_in(template) if name not in ("messages", "tools")}
            wanted = {"type": "string", "enum": sorted(tools)} if tools else {"type": "string", "maxLength": 0}
            offered = {"type": "array", "items": wanted, "uniqueItems": True}
            messages = {"type": "array", "items": _message(), "minItems": 1, "maxItems": 1000}
            return _closed({"messages": messages, "tools": offered, **names}, optional=("tools", *names))


_ANYTHING: Schema = {"type": ["string", "number", "boolean", "object", "array", "null"]}
_WANTED = _closed({"id": _NAME, "tool": _NAME, "args": {"type": "object"}})


def _message() -> Schema:
    role = {"enum": ["user", "assistant", "tool"], "type": "string"}
    text = {"type": "string", "maxLength": 200_000}
    calls = {"type": "array", "items": _WANTED, "maxItems": 100}
    return _closed({"role": role, "text": text, "calls": calls, "call_id": _NAME}, optional=("calls", "call_id"))


class AnswerForm(Protocol):
    """One form. `output_schema`: of the call's result; `asked`: what is put to the model for a call's arguments."""

    @property
    def output_schema(self) -> Schema: ...
    @property
    def described(self) -> Json:
        """What of the form shapes the prompt: labels, schema, nothing."""
        ...

    def asked(self, template: str, args: Mapping[str, Json]) -> tuple[str, tuple[ChatMessage, ...]]:
        """The system prompt, and the messages."""
        ...

    def read(self, answer: ModelAnswer, args: Mapping[str, Json]) -> dict[str, Json]:
        """The call's result but for `usage`. Raises `WrongAnswer`, and `ModelFailed` for a refusal that leaves nothing."""
        ...


class LabelsForm:
    """A label and a confidence for each head. `labels` is `None` where the model knows its own, as a classifier does."""

    _WANTED = (
        "\n\nAnswer with one JSON object and nothing else: for each of these keys an object with `label`, one of the "
        "listed ones, and `confidence_per_mille`, an integer from 0 to 1000.\n"
    )

    def __init__(self, heads: Sequence[str], labels: Mapping[str, list[str]] | None) -> None:
        self._heads = list(heads)
        self._labels = labels

    @property
    def output_schema(self) -> Schema:
        return _closed({**dict.fromkeys(self._heads, _CHOICE), "confidence_per_mille": _CONFIDENCE, "usage": USAGE})

    @property
    def described(self) -> Json:
        return self._labels

    def asked(self, template: str, args: Mapping[str, Json]) -> tuple[str, tuple[ChatMessage, ...]]:
        text = fill(template, args) + self._WANTED + json.dumps(self._labels)
        return "", (ChatMessage(role="user", text=text),)

    def read(self, answer: ModelAnswer, args: Mapping[str, Json]) -> dict[str, Json]:
        found = _object(answer)
        # A recording keeps the overall confidence, which depends on what this call decides.
        heads = {name: value for name, value in found.items() if name != "confidence_per_mille"}
        if set(heads) != set(self._heads):
            raise WrongAnswer(f"the keys must be exactly {', '.join(self._heads)}")
        for head in self._heads:
            _check_choice(head, heads[head], (self._labels or {}).get(head))
        return with_overall(heads, args.get("decide"))


def _check_choice(head: str, value: Json, allowed: list[str] | None) -> None:
    if not isinstance(value, dict):
        raise WrongAnswer(f"`{head}` must be an object")
    given = cast("dict[str, Any]", value)
    if set(given) != {"label", "confidence_per_mille"}:
        raise WrongAnswer(f"`{head}` must hold exactly `label` and `confidence_per_mille`")
    confidence = given["confidence_per_mille"]
    if type(given["label"]) is not str or (allowed is not None and given["label"] not in allowed):
        raise WrongAnswer(f"`{head}.label` must be one of {', '.join(allowed or [])}")
    if type(confidence) is not int or not 0 <= confidence <= 1000:
        raise WrongAnswer(f"`{head}.confidence_per_mille` must be an integer from 0 to 1000")


def with_overall(answer: dict[str, Json], decide: list[str] | None) -> dict[str, Json]:
    """The answer with its overall confidence: the lowest of what is to be decided; an unknown head counts as none."""
    heads = decide or list(answer)
    lowest = min((answer[head]["confidence_per_mille"] if head in answer else 0 for head in heads), default=0)
    return {**answer, "confidence_per_mille": lowest}


class ValueForm:
    """A value that meets a JSON Schema, which is sent along with the prompt and held against what comes."""

    _WANTED = "\n\nAnswer with one JSON object and nothing else. It must meet this JSON Schema:\n"
    _ID = "urn:remit:value"

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = dict(schema)
        declared = schema.get("properties", {}).get("confidence_per_mille")
        self._tells_confidence = isinstance(declared, dict) and cast("Schema", declared).get("type") == "integer"

    @cached_property
    def _validator(self) -> jsonschema_rs.Draft202012Validator:
        return jsonschema_rs.Draft202012Validator(self._schema, validate_formats=True)

    @property
    def output_schema(self) -> Schema:
        # A document of its own, so that its references lead to its own definitions.
        value = {**{key: item for key, item in self._schema.items() if key != "$schema"}, "$id": self._ID}
        named = {"value": value, "finish": _NAME, "usage": USAGE}
        return _closed({**named, **({"confidence_per_mille": _CONFIDENCE} if self._tells_confidence else {})}, ["confidence_per_mille"])

    @property
    def described(self) -> Json:
        return self._schema

    def asked(self, template: str, args: Mapping[str, Json]) -> tuple[str, tuple[ChatMessage, ...]]:
        return "", (ChatMessage(role="user", text=fill(template, args) + self._WANTED + json.dumps(self._schema)),)

    def read(self, answer: ModelAnswer, args: Mapping[str, Json]) -> dict[str, Json]:  # noqa: ARG002 - as all forms
        value = _object(answer)
        wrong = next(iter(self._validator.iter_errors(value)), None)
        if wrong is not None:
            place = show_path(tuple(wrong.instance_path)) if wrong.instance_path else "the object"
            raise WrongAnswer(f"`{place}`: {wrong.message[:_SHOWN]}")
        result: dict[str, Json] = {"value": value, "finish": answer.finish}
        confidence = value.get("confidence_per_mille")
        if self._tells_confidence and type(confidence) is int and 0 <= confidence <= 1000:
            result["confidence_per_mille"] = confidence
        return result


class TextForm:
    """A text, and why it ended."""

    @property
    def output_schema(self) -> Schema:
        return _closed({"text": {"type": "string"}, "finish": _NAME, "usage": USAGE})

    @property
    def described(self) -> Json:
        return None

    def asked(self, template: str, args: Mapping[str, Json]) -> tuple[str, tuple[ChatMessage, ...]]:
        return "", (ChatMessage(role="user", text=fill(template, args)),)

    def read(self, answer: ModelAnswer, args: Mapping[str, Json]) -> dict[str, Json]:  # noqa: ARG002 - as all forms
        text = answer.text or ""
        if not text.strip() and answer.finish != "refusal":
            raise WrongAnswer("it is empty")
        return {"text": text, "finish": answer.finish}


class ToolsForm:
    """A turn of a conversation: a text, calls of offered tools, or both."""

    def __init__(self, offered: Mapping[str, OfferedTool]) -> None:
        self._offered = offered

    @property
    def output_schema(self) -> Schema:
        text = {"type": ["string", "null"]}
        return _closed({"text": text, "calls": {"type": "array", "items": _WANTED}, "finish": _NAME, "usage": USAGE})

    @property
    def described(self) -> Json:
        return None

    def offered(self, args: Mapping[str, Json]) -> tuple[OfferedTool, ...]:
        """The tools that a call lets the model have: those that it names, else all actions of the contract."""
        names = args.get("tools")
        return tuple(each for name, each in self._offered.items() if names is None or name in names)

    def asked(self, template: str, args: Mapping[str, Json]) -> tuple[str, tuple[ChatMessage, ...]]:
        return fill(template, args), tuple(_turn(each) for each in args["messages"])

    def read(self, answer: ModelAnswer, args: Mapping[str, Json]) -> dict[str, Json]:  # noqa: ARG002 - as all forms
        calls: list[Json] = []
        for call in answer.calls:
            given: Any = call.args
            if not isinstance(given, dict):
                raise WrongAnswer(f"the arguments of the call of `{call.tool[:_SHOWN]}` are no object")
            calls.append({"id": call.id[:_SHOWN], "tool": call.tool[:_SHOWN], "args": cast("dict[str, Json]", given)})
        text = answer.text if answer.text and answer.text.strip() else None
        if text is None and not calls and answer.finish != "refusal":
            raise WrongAnswer("it is empty; say something, or call a tool")
        try:
            for _ in leaves([text, calls]):
                pass
        except ValueRefused as error:
            raise WrongAnswer(error.message) from error
        finish = "tool_calls" if calls and answer.finish == "stop" else answer.finish
        return {"text": text, "calls": calls, "finish": finish}


def _turn(plain: Mapping[str, Any]) -> ChatMessage:
    calls = tuple(WantedCall(id=each["id"], tool=each["tool"], args=each["args"]) for each in plain.get("calls", ()))
    return ChatMessage(role=plain["role"], text=plain["text"], calls=calls, call_id=plain.get("call_id", ""))


def _object(answer: ModelAnswer) -> dict[str, Json]:
    """The one JSON object of an answer. Raises `WrongAnswer`, and `ModelFailed` where the model refuses to give one."""
    if answer.finish == "refusal":
        raise ModelFailed("it refuses to answer this", code="model_refused", fault=Fault.REFUSED, why="refusal")
    if answer.value is not None:
        found: Json = answer.value
        try:
            for _ in leaves(found):
                pass
        except ValueRefused as error:
            raise WrongAnswer(error.message) from error
    else:
        text = answer.text or ""
        try:
            found = parse(text[text.find("{") : text.rfind("}") + 1])
        except ValueRefused as error:
            raise WrongAnswer(error.message) from error
    if not isinstance(found, dict):
        raise WrongAnswer("it is no JSON object")
    return cast("dict[str, Json]", found)


def request_of(
    form: AnswerForm, kind: AnswerKind, *, binding: str, run: str, template: str, args: Mapping[str, Json]
) -> ModelRequest:
    """What a model is asked for the arguments of a call."""
    system, messages = form.asked(template, args)
    return ModelRequest(
        binding=binding,
        run=run,
        answer=kind,
        args=args,
        args_digest=digest(args),
        system=system,
        messages=messages,
        tools=form.offered(args) if isinstance(form, ToolsForm) else (),
        form=form.described,
    )

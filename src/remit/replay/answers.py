"""Where a tried run's tools get their answers from: the record, a fixture, or the tool itself where it only reads.

A write is never dispatched. It is answered as it was on record, or with a completion that is said to be simulated. A read
that the record does not answer stops the trial: what would have been read then, nobody knows any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from remit.errors import ConfigError, OutcomeUnknown, ToolFailed
from remit.gate.arguments import is_digest_of
from remit.journal.events import OUTCOMES, EventType
from remit.journal.redaction import Redactor
from remit.replay.recorded import RecordedRun, body_of, originals_of
from remit.tools.spec import Resource, Tool, ToolContext
from remit.values import Json, ValueRefused, parse


class Missed(BaseException):
    """The record does not say what a tool would have answered. Not an `Exception`: the trial ends here."""


class FixtureAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer of a fixture: to calls that have these arguments, or to every call."""

    args: dict[str, Any] = {}
    result: Any = None
    error: dict[str, str] | None = None
    """`{"code": …, "message": …}`: the call fails with it."""
    resource: dict[str, Any] | None = None
    """What `locate` finds: `kind`, `id`, `tenant`, `region`, `attributes`."""


class ToolSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where one tool's answers come from."""

    kind: Literal["record", "fixture", "live"]
    fixture: tuple[FixtureAnswer, ...] = ()


RECORD = ToolSource(kind="record")
LIVE = ToolSource(kind="live")


def read_fixture(path: Path) -> ToolSource:
    """The answers in a JSON file: a list of objects with `args`, `result`, `error`, `resource`. Raises `ConfigError`."""
    try:
        found = msgspec.convert(parse(path.read_bytes()), tuple[FixtureAnswer, ...])
    except OSError as error:
        raise ConfigError(f"fixture `{path}` can't be read: {(error.strerror or 'unknown error').lower()}") from error
    except (ValueRefused, msgspec.ValidationError) as error:
        raise ConfigError(
            f"fixture `{path}`: {error}; it is a list of objects with `args`, `result`, `error`, `resource`"
        ) from error
    return ToolSource(kind="fixture", fixture=found)


class RecordedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the record says of one call: what it was about, and what became of it."""

    step: str
    tool: str
    args_digest: str
    resource: Resource | None
    outcome: str = ""
    result: Json = None
    code: str = ""
    message: str = ""


def recorded_answers(recorded: RecordedRun) -> list[RecordedAnswer]:
    """Every call of a run of which the record says anything, in order."""
    found: dict[str, RecordedAnswer] = {}
    for event in recorded.events:
        span, body = event.header.span, body_of(event)
        if event.type is EventType.CALL_DECIDED:
            about: Any = originals_of(event).get("resource")
            found[span] = RecordedAnswer(
                step=span,
                tool=str(body["tool"]),
                args_digest=str(body["args_digest"]),
                resource=Resource(**about) if about else None,
            )
        elif event.type in OUTCOMES:
            found[span] = msgspec.structs.replace(
                found[span],
                outcome=OUTCOMES[event.type],
                result=originals_of(event).get("result"),
                code=str(body.get("code", "")),
                message=str(body.get("message", "")),
            )
    return list(found.values())


class Answers:
    """The answers for one trial. `used`: which source answered a step."""

    def __init__(
        self, recorded: Sequence[RecordedAnswer], sources: Mapping[str, ToolSource], redactor: Redactor
    ) -> None:
        self._recorded = recorded
        self._redactor = redactor
        self._sources = sources
        self._taken: set[str] = set()
        self.used: dict[str, str] = {}
        self.missed = ""
        """What no source had an answer to."""

    def tool(self, tool: Tool) -> Tool:
        """The tool as the trial has it."""
        source = self._sources.get(tool.spec.name, RECORD)
        if source.kind == "live":
            return tool

        async def function(context: ToolContext, args: Mapping[str, Json]) -> Json:
            return self._answer(tool, source, context.step, args)

        async def locate(context: ToolContext, args: Mapping[str, Json]) -> Resource:
            return self._resource(tool, source, context.step, args)

        return replace(tool, function=function, locate=None if tool.locate is None else locate, reconcile=None)

    def _answer(self, tool: Tool, source: ToolSource, step: str, args: Mapping[str, Json]) -> Json:
        name = tool.spec.name
        if source.kind == "fixture":
            answer = _matching(source.fixture, args)
            if answer is None:
                raise self._miss(f"the fixture of `{name}` has no answer to these arguments")
            self.used[step] = "fixture"
            if answer.error is not None:
                raise ToolFailed(answer.error.get("message", "it failed"), code=answer.error.get("code", "failed"))
            return answer.result
        found = self._find(name, step, args)
        if found is not None and found.outcome:
            self.used[step] = "record"
            self._taken.add(found.step)
            if found.outcome == "failed":
                raise ToolFailed(found.message, code=found.code)
            if found.outcome == "unknown":
                raise OutcomeUnknown(found.message)
            return found.result
        if tool.spec.is_write:
            self.used[step] = "simulated"
            return self._simulated(tool)
        raise self._miss(f"`{name}` was never asked this on record, and its answer is not known")

    def _resource(self, tool: Tool, source: ToolSource, step: str, args: Mapping[str, Json]) -> Resource:
        if source.kind == "fixture":
            answer = _matching(source.fixture, args)
            if answer is not None and answer.resource is not None:
                return msgspec.convert(answer.resource, Resource)
        found = self._find(tool.spec.name, step, args)
        if found is None or found.resource is None:
            raise self._miss(f"what `{tool.spec.name}` would be about is not on record for these arguments")
        return found.resource

    def _find(self, tool: str, step: str, args: Mapping[str, Json]) -> RecordedAnswer | None:
        """The recorded call with the same arguments: of the same step, else the first that was not taken, else any."""
        of_tool = [one for one in self._recorded if one.tool == tool]
        same = [one for one in of_tool if is_digest_of(one.args_digest, cast("Json", args), self._redactor)]
        at_step = [one for one in same if one.step == step]
        untaken = [one for one in same if one.step not in self._taken]
        return next(iter([*at_step, *untaken, *same]), None)

    def _simulated(self, tool: Tool) -> Json:
        """A result of the form that the tool declares: one that it gave in this run, else the plainest there is."""
        given = [one.result for one in self._recorded if one.tool == tool.spec.name and one.outcome == "completed"]
        for result in [*given, plainest(tool.spec.output_schema)]:
            if tool.spec.output_validator.is_valid(result):
                return result
        raise self._miss(f"no result of `{tool.spec.name}` can be simulated; give it a fixture")

    def _miss(self, why: str) -> Missed:
        self.missed = self.missed or why
        return Missed(why)


def _matching(fixture: Sequence[FixtureAnswer], args: Mapping[str, Json]) -> FixtureAnswer | None:
    return next((one for one in fixture if all(args.get(name) == value for name, value in one.args.items())), None)


_PLAINEST: Mapping[str, Json] = {
    "string": "",
    "integer": 0,
    "number": 0,
    "boolean": False,
    "array": [],
    "null": None,
}


def plainest(schema: Mapping[str, Any]) -> Json:
    """The plainest value that a schema may admit; whether it does is for its validator to say."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return plainest(schema[key][-1])
    kinds: Any = schema.get("type", "null")
    kind = str(cast("list[Any]", kinds)[0] if isinstance(kinds, list) else kinds)
    if kind == "object":
        properties = cast("Mapping[str, Mapping[str, Any]]", schema.get("properties", {}))
        return {name: plainest(properties.get(name, {})) for name in schema.get("required", ())}
    return _PLAINEST.get(kind)

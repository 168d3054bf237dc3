"""What can be undone of a run, how, and what can't: read off its record, before anything is asked of any system."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec

from remit.errors import RunError, ToolError
from remit.journal.classed import classed_values
from remit.journal.events import Event, EventType
from remit.tools.spec import Effect, Resource, Tool
from remit.values import Json


class Compensating(msgspec.Struct, frozen=True, kw_only=True):
    """A call that undoes one step of a run.

    `step`, `undoes`: the step and the tool that it undoes. `left`: the attributes of the object as that step left them;
    `None` where its tool doesn't say. `before`: the object as it was before that step.
    """

    step: str
    undoes: str
    tool: str
    args: Mapping[str, Json]
    left: Mapping[str, str | int | bool] | None
    before: Resource | None


class Remaining(msgspec.Struct, frozen=True, kw_only=True):
    """A step that stays as it is, and why."""

    step: str
    tool: str
    why: str


class UndoPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a run has changed, newest first: what would be called, and what remains."""

    run: str
    contract: str
    calls: tuple[Compensating, ...]
    remaining: tuple[Remaining, ...]
    known: Mapping[str, tuple[str, ...]] = {}
    """By class, what declared fields have held in the run: the undo of it must not tell that either."""

    @property
    def request(self) -> Json:
        """The plan as the request of the run that carries it out."""
        calls = [{"step": each.step, "tool": each.tool, "args": dict(each.args)} for each in self.calls]
        return {"undo": self.run, "calls": calls}


class _Write(msgspec.Struct, frozen=True, kw_only=True):
    """A write that the run was allowed: its decision, and what became of it."""

    decided: Event
    ended: Event

    @property
    def step(self) -> str:
        return self.decided.header.span


def plan_of(run: str, events: Sequence[Event], tools: Mapping[str, Tool]) -> UndoPlan:
    """The plan for a run that is closed. `tools`: every tool of the project as it is now.

    Raises `RunError`: `run_open` for a run that still goes on, `erased` where its record does not say any more what it
    did.
    """
    if not any(event.type is EventType.RUN_CLOSED for event in events):
        raise RunError(f"run `{run}` is not closed; undo it when it has ended (`remit close` ends it)", code="run_open")
    opened = _original(events[0])
    if opened is None:
        raise RunError(f"what run `{run}` did was erased; undo it by hand", code="erased")
    calls: list[Compensating] = []
    remaining: list[Remaining] = []
    for write in _writes(events, tools):
        judged = _compensation(write, tools)
        if isinstance(judged, Compensating):
            calls.append(judged)
        else:
            remaining.append(judged)
    return UndoPlan(run=run, contract=opened["contract"], calls=tuple(calls), remaining=tuple(remaining), known=_known(events))


def _known(events: Sequence[Event]) -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for kind, value in classed_values(events):
        found.setdefault(kind, {})[value] = None
    return {kind: tuple(values) for kind, values in found.items()}


def without(plan: UndoPlan, undo: str, events: Sequence[Event]) -> UndoPlan:
    """What of a plan an earlier undo has left. `events`: that undo's, which is closed.

    What it called is not called again, whatever stands in the object now: that was taken back, and what came later is
    somebody else's. A call of which nobody knows whether it happened is not repeated blindly either.
    """
    request: dict[str, Any] = (_original(events[0]) or {}).get("request") or {}
    asked: list[dict[str, Any]] = request.get("calls") or []
    step_of = {str(number): str(call["step"]) for number, call in enumerate(asked, start=1)}
    ended: dict[str, str] = {}
    for event in events:
        step = step_of.get(event.header.span)
        if step is not None and event.type is EventType.CALL_COMPLETED:
            ended[step] = f"it was undone already, by {undo}"
        elif step is not None and event.type is EventType.CALL_UNKNOWN:
            ended[step] = f"nobody knows whether {undo} has undone it; look at its case"
    left = tuple(call for call in plan.calls if call.step not in ended)
    done = [Remaining(step=call.step, tool=call.undoes, why=ended[call.step]) for call in plan.calls if call.step in ended]
    return msgspec.structs.replace(plan, calls=left, remaining=(*plan.remaining, *done))


def _original(event: Event) -> dict[str, Any] | None:
    """What an event says, with the originals of what is redacted in it."""
    body = cast("dict[str, Any] | None", event.body)
    return None if body is None else {**body, **cast("dict[str, Any]", event.sealed or {})}


def _writes(events: Sequence[Event], tools: Mapping[str, Tool]) -> Iterator[_Write]:
    """What may have been changed, newest first."""
    ended = {e.header.span: e for e in events if e.type in (EventType.CALL_COMPLETED, EventType.CALL_UNKNOWN)}
    for event in reversed(events):
        if event.type is not EventType.CALL_DECIDED or event.header.verdict != "allow":
            continue
        name = str((_original(event) or {})["tool"])
        tool = tools.get(name)
        is_write = tool.spec.is_write if tool is not None else not name.startswith("model:")
        if event.header.span in ended and is_write:
            yield _Write(decided=event, ended=ended[event.header.span])


def _compensation(write: _Write, tools: Mapping[str, Tool]) -> Compensating | Remaining:
    decided = _original(write.decided) or {}
    name = str(decided["tool"])
    tool = tools.get(name)

    def remains(why: str) -> Remaining:
        return Remaining(step=write.step, tool=name, why=why)

    if tool is None:
        return remains("the project has no such tool any more")
    if write.ended.type is EventType.CALL_UNKNOWN:
        return remains("nobody knows whether it happened; look at its case")
    if Effect.IRREVERSIBLE in tool.spec.effects:
        return remains("its effect is irreversible")
    if tool.compensation is None:
        return remains("the tool declares no compensation")
    if write.decided.sealed is None and write.decided.header.sealed:
        return remains("its originals were dropped after their retention")
    if tool.compensation.tool not in tools:
        return remains(f"its compensation `{tool.compensation.tool}` is no tool of the project")
    result = (_original(write.ended) or {})["result"]
    found = decided["resource"]
    before = Resource(**found) if found else None
    try:
        args = tool.compensation.arguments(decided["args"], result, before)
        left = tool.compensation.left(decided["args"], result, before) if tool.compensation.left else None
    except (ToolError, LookupError, TypeError) as error:
        return remains(f"what would undo it can't be told: {error}")
    return Compensating(
        step=write.step, undoes=name, tool=tool.compensation.tool, args=args, left=left, before=before
    )

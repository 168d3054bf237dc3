"""The context of a run: messages within a budget of tokens. What has to go goes in one order, and it is said what went.

The oldest results of tools go first, because they are longest and can be asked for again; then the oldest of everything
else. What the agent was told first (its task) and the last few messages stay. A line stands in place of each result, and
one for all messages that are gone, so that the model knows that there was something.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

import msgspec

from remit.errors import RunError
from remit.values import Json, encode

Role = Literal["system", "user", "assistant", "tool"]


class MessageCall(TypedDict):
    """A call that an assistant's message asks for. `id` is the step, or the model's own id of it."""

    id: str
    tool: str
    args: Json


class ContextMessage(TypedDict):
    """A message to a model. An assistant's may have `calls`; a tool's answers the one with `call_id`."""

    role: Role
    text: str
    calls: NotRequired[list[MessageCall]]
    call_id: NotRequired[str]


def estimate(text: str) -> int:
    """How many tokens a text has at most, about: one for four ASCII characters, one for each other character."""
    ascii_count = len(text.encode("ascii", "ignore"))
    return math.ceil(ascii_count / 4) + len(text) - ascii_count


@dataclass(frozen=True, kw_only=True)
class ContextBudget:
    """How much a context may hold. `first`, `last`: how many messages stay whatever happens, at either end.

    `count`: tokens of a text; what is recorded does not depend on it being the same later on.
    """

    tokens: int
    first: int = 2
    last: int = 4
    count: Callable[[str], int] = estimate


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was left out, or whose text was: its place, and the call that it answered or asked for."""

    index: int
    tool: str = ""
    call_id: str = ""


class Compaction(msgspec.Struct, frozen=True, kw_only=True):
    """What was left out of a context, and how large it was before and after (in tokens, as they were counted then)."""

    before: int
    after: int
    emptied: list[LeftOut]
    """Results of tools whose text is gone."""
    dropped: list[LeftOut]
    """Messages that are gone."""


_PER_MESSAGE = 4
"""What a message costs beside its text."""


def fits(messages: Sequence[ContextMessage], budget: ContextBudget) -> bool:
    """Whether nothing needs to be left out."""
    return _tokens(messages, budget) <= budget.tokens


def compact(messages: Sequence[ContextMessage], budget: ContextBudget) -> tuple[list[ContextMessage], Compaction]:
    """The messages within the budget, and what was left out. The same messages and budget always give the same.

    Raises `RunError` (code `context_too_large`) where what must stay is more than the budget.
    """
    before = _tokens(messages, budget)
    note = Compaction(before=before, after=before, emptied=[], dropped=[])
    kept = list(messages)
    groups = _groups(messages, budget)
    for which, named in (("emptied", _results(messages, groups)), ("dropped", groups)):
        for indices in named:
            if _tokens(kept, budget) <= budget.tokens:
                break
            left = [*getattr(note, which), *(_left_out(messages, index) for index in indices)]
            note = msgspec.structs.replace(note, **{which: left})
            kept = apply(messages, note)
    after = _tokens(kept, budget)
    if after > budget.tokens:
        raise RunError(
            f"the context has {after:,} tokens without all that may be left out, and its budget is {budget.tokens:,}; "
            "shorten the task or the last results, or raise the budget",
            code="context_too_large",
        )
    return kept, msgspec.structs.replace(note, after=after)


def apply(messages: Sequence[ContextMessage], note: Compaction) -> list[ContextMessage]:
    """The messages without what was left out, as `compact` returned them."""
    dropped = {each.index for each in note.dropped}
    emptied = {each.index: each for each in note.emptied}
    made: list[ContextMessage] = []
    for index, message in enumerate(messages):
        if note.dropped and index == note.dropped[0].index:
            made.append({"role": "user", "text": _said_of(note.dropped)})
        if index in dropped:
            continue
        if index in emptied:
            message = message.copy()
            message["text"] = f"[left out to save room: the result of {_named(emptied[index])}]"
        made.append(message)
    return made


def _groups(messages: Sequence[ContextMessage], budget: ContextBudget) -> list[list[int]]:
    """What may go, the oldest first: a message alone, or one that asks for calls together with all of their answers.

    A model's interface takes no answer without its call, and no call without its answer.
    """
    asked: dict[str, int] = {}
    groups: dict[int, list[int]] = {}
    for index, message in enumerate(messages):
        asked.update((call["id"], index) for call in message.get("calls", ()))
        start = asked.get(message.get("call_id", ""), index)
        groups.setdefault(start, []).append(index)
    may_go = range(budget.first, max(budget.first, len(messages) - budget.last))
    return [
        group
        for group in groups.values()
        if all(index in may_go and messages[index]["role"] != "system" for index in group)
    ]


def _results(messages: Sequence[ContextMessage], groups: Iterable[Sequence[int]]) -> list[list[int]]:
    """The results of tools among what may go whose text is longer than the line that would stand there."""
    found = [index for group in groups for index in group if messages[index]["role"] == "tool"]
    return [[index] for index in sorted(found) if len(messages[index]["text"]) > 120]


def _left_out(messages: Sequence[ContextMessage], index: int) -> LeftOut:
    message = messages[index]
    asking = message.get("call_id", "")
    for other in messages:
        for call in other.get("calls", ()):
            if call["id"] == asking and asking:
                return LeftOut(index=index, tool=call["tool"], call_id=asking)
    return LeftOut(index=index, call_id=asking)


def _said_of(dropped: Sequence[LeftOut]) -> str:
    calls = [_named(each) for each in dropped if each.call_id]
    about = f", with the results of {', '.join(calls)}" if calls else ""
    return f"[{len(dropped)} earlier messages were left out to save room{about}]"


def _named(each: LeftOut) -> str:
    return f"{each.tool or 'a call'} ({each.call_id})"


def _tokens(messages: Sequence[ContextMessage], budget: ContextBudget) -> int:
    return sum(
        _PER_MESSAGE + budget.count(message["text"]) + sum(budget.count(_spelled(call)) for call in message.get("calls", ()))
        for message in messages
    )


def _spelled(call: MessageCall) -> str:
    return call["tool"] + encode(call["args"]).decode()

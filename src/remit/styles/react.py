"""The style `react`: a model plans the next calls, the gate decides them, the model observes what came of them.

The loop is the code's, not the model's. It ends where the model answers without asking for calls and the answer meets the
contract's output schema; a loop that gets nowhere is seen and escalated, each kind under a code of its own. What it sees by
is on record, so that it comes to the same every time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NoReturn

from remit.gate.verdicts import Unknown
from remit.memory.context import ContextBudget, ContextMessage
from remit.models.interface import WrongAnswer
from remit.runs.run import NotCompleted, Run
from remit.values import Json, ValueRefused, decode, digest, encode, parse


class Stop(StrEnum):
    """Why a loop was stopped; the reason of the escalation begins with it."""

    REPEATED_CALL = "repeated_call"
    """The same call, and each time the same came of it."""
    OSCILLATION = "oscillation"
    """The same two turns one after the other, and again: A, B, A, B."""
    NO_PROGRESS = "no_progress"
    """Several turns in a row in which nothing came that had not come before."""
    STEPS_SPENT = "steps_spent"
    """The model was asked as often as it may be."""
    ANSWER_INVALID = "answer_invalid"
    """Its answer is none, in spite of being told what is wrong."""


@dataclass(frozen=True, kw_only=True)
class LoopBounds:
    """What a loop may take.

    `repeats`: how often the same call may come to the same before it is stopped. `stale`: turns in a row without anything
    new. `corrections`: how often an answer is given back. `tokens`: what a conversation may hold, about; the oldest
    results go first. `result_chars`: how much of one result the model is shown. `tools`: which of the contract's actions
    the model is offered and may have; left out, all of them.
    """

    repeats: int = 3
    stale: int = 3
    corrections: int = 1
    tokens: int = 24_000
    result_chars: int = 16_000
    tools: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What came of one call. `what`: digest of the result, or of how it failed; `key`: of the call and that together."""

    tool: str
    text: str
    key: str
    what: str
    completed: bool


@dataclass(kw_only=True)
class Watch:
    """What has come so far, and whether it leads anywhere. Pure: the same turns always come to the same."""

    bounds: LoopBounds
    seen: set[str] = field(default_factory=set[str])
    calls: Counter[str] = field(default_factory=Counter[str])
    turns: list[str] = field(default_factory=list[str])
    stale: int = 0

    def stop(self, turn: Sequence[Observed]) -> tuple[Stop, str] | None:
        """Why the loop is to be stopped after this turn, with what to say; `None` where it may go on."""
        learned = {each.what for each in turn if each.completed} - self.seen
        self.seen |= learned
        self.stale = 0 if learned else self.stale + 1
        self.turns.append(digest(sorted(each.key for each in turn)))
        self.calls.update(each.key for each in turn)
        for each in turn:
            count = self.calls[each.key]
            if count >= self.bounds.repeats:
                said = f"{named(each.tool)} was asked for {count} times with the same arguments, and the same came of it"
                return Stop.REPEATED_CALL, said
        last = self.turns[-4:]
        if len(last) == 4 and last[:2] == last[2:] and last[0] != last[1]:
            return Stop.OSCILLATION, "the same two turns were taken in turn, twice, and the same came of them"
        if self.stale >= self.bounds.stale:
            return Stop.NO_PROGRESS, f"{self.stale} turns in a row brought nothing new"
        return None


def as_json(text: str) -> Json:
    """The one JSON object of an answer, whatever is said around it. Raises `WrongAnswer`."""
    try:
        return parse(text[text.find("{") : text.rfind("}") + 1])
    except ValueRefused as error:
        raise WrongAnswer(f"it holds no JSON object: {error.message}") from error


async def react(
    run: Run,
    *,
    model: str,
    goal: str,
    steps: int = 12,
    finish: Callable[[str], Json] = as_json,
    bounds: LoopBounds | None = None,
) -> Any:
    """Let a model work towards a goal with the contract's actions; its answer, as `finish` reads it.

    `model`: a binding with `answer: tools`. `steps`: how often it is asked at most. `finish` makes the run's output of the
    last text, or raises `WrongAnswer` with what is wrong, which the model is told. Escalates where the loop gets nowhere
    (`Stop`). A call that is held parks the run. Raises `NotCompleted` where nobody knows whether a call was done.
    """
    bounds = bounds or LoopBounds()
    budget = ContextBudget(tokens=bounds.tokens, first=1)
    messages: list[ContextMessage] = [{"role": "user", "text": goal}]
    watch, corrections = Watch(bounds=bounds), 0
    offered: dict[str, Json] = {} if bounds.tools is None else {"tools": list(bounds.tools)}
    for _ in range(steps):
        turn = await run.model(model, messages=[dict(each) for each in await run.fit(messages, budget)], **offered)
        text = turn["text"] or ""
        if turn["calls"]:
            calls = _numbered(turn["calls"], len(watch.turns) + 1)
            messages.append({"role": "assistant", "text": text, "calls": calls})
            came = await run.gather(*(_observe(run, call, bounds) for call in calls))
            messages += [_told(call, each) for call, each in zip(calls, came, strict=True)]
            stopped = watch.stop(came)
            if stopped is not None:
                await _escalate(run, *stopped, messages)
            continue
        output, problem = _answer(run, text, finish)
        if not problem:
            return output
        if corrections == bounds.corrections:
            await _escalate(run, Stop.ANSWER_INVALID, problem, messages)
        corrections += 1
        messages.append({"role": "assistant", "text": text})
        messages.append({"role": "user", "text": f"This is not the answer that was asked for: {problem}. Answer again."})
    return await _escalate(run, Stop.STEPS_SPENT, f"the model was asked {steps} times and gave no answer", messages)


def _numbered(calls: Sequence[Any], turn: int) -> list[Any]:
    """The calls with ids that are told apart in the whole conversation, whatever the model named them."""
    return [{**call, "id": f"{turn}.{number}"} for number, call in enumerate(calls, start=1)]


async def _observe(run: Run, call: Any, bounds: LoopBounds) -> Observed:
    """Propose a call, and what the model is told of it."""
    tool, args = call["tool"], call["args"]
    if tool.startswith("model:") or (bounds.tools is not None and tool not in bounds.tools):
        return _observed(tool, args, {"code": "not_offered", "message": f"{named(tool)} is not offered"}, bounds)
    try:
        result = await run.call(tool, **args)
    except NotCompleted as ended:
        if isinstance(ended.outcome, Unknown):
            raise
        said = {"code": getattr(ended.outcome, "code", "failed"), "message": getattr(ended.outcome, "message", "")}
        return _observed(tool, args, said, bounds)
    return _observed(tool, args, result, bounds, completed=True)


def _observed(tool: str, args: Json, came: Any, bounds: LoopBounds, *, completed: bool = False) -> Observed:
    text = encode(came).decode()
    if len(text) > bounds.result_chars:
        text = f"{text[: bounds.result_chars]}… [cut: {len(text):,} characters in all]"
    # A refusal is the same whatever its words: they may count what is left of something.
    what = digest(came if completed else came["code"])
    return Observed(tool=tool, text=text, key=digest([tool, args, what]), what=what, completed=completed)


def _told(call: Any, came: Observed) -> ContextMessage:
    text = came.text if came.completed else f"not completed: {came.text}"
    return {"role": "tool", "text": text, "call_id": call["id"]}


def _answer(run: Run, text: str, finish: Callable[[str], Json]) -> tuple[Json, str]:
    """The output that an answer makes, and what keeps it from being one."""
    try:
        output = finish(text)
    except WrongAnswer as wrong:
        return None, str(wrong)
    return output, run.output_problem(output)


async def _escalate(run: Run, why: Stop, said: str, messages: Sequence[ContextMessage]) -> NoReturn:
    await run.escalate(f"{why}: {said}", draft={"conversation": decode(encode(messages))})
    raise AssertionError


def named(tool: str) -> str:
    """A tool's name to be shown. A model may say anything for one, and people read it."""
    return f"`{tool}`" if re.fullmatch(r"[a-z0-9_.:-]{1,80}", tool) else "a tool that is not there"

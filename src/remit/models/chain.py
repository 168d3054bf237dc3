"""Asking a model, and those that stand in for it: attempts, corrections, circuits, all within one time-out.

Tried again on the same model is only what may pass by itself (`Fault.BUSY`), with exponential backoff and full jitter,
or after what the server asked for. Then the next model is asked. A refusal, and a request that nobody can answer as it
is, end it at once. Every token counts, those of attempts that came to nothing included.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from msgspec.structs import replace

from remit.models.circuit import Circuit
from remit.models.interface import (
    AnyModel,
    ChatMessage,
    Fault,
    ModelAnswer,
    ModelFailed,
    ModelRequest,
    OnText,
    WrongAnswer,
)
from remit.values import Json

CORRECTIONS = 2
"""How often an answer is given back with what is wrong with it."""
BACKOFF_S = 0.5
"""The longest wait before the second attempt; doubled for each further one, of which a circuit allows few."""

T = TypeVar("T")
Read = Callable[[ModelAnswer], T]
"""What an answer comes to; raises `WrongAnswer`."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The time, as a chain sees it: a clock in seconds, a wait, and a share from 0 to 1 for jitter."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    share: Callable[[], float] = random.random


@dataclass(frozen=True, kw_only=True)
class Link:
    """One model of a chain, under its name in `remit.toml`. `attempt_s`: the longest that one attempt may take."""

    name: str
    model: AnyModel
    circuit: Circuit
    attempts: int
    attempt_s: float | None = None


@dataclass(kw_only=True)
class Spent:
    """What a call used so far, over all attempts. `unpriced`: a part of it has no known price."""

    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    cost_microusd: int = 0
    unpriced: bool = False
    model: str = ""
    finish: str = ""
    attempts: list[dict[str, Json]] = field(default_factory=list[dict[str, Json]])

    def add(self, answer: ModelAnswer) -> None:
        self.tokens_in += answer.tokens_in
        self.tokens_out += answer.tokens_out
        self.tokens_cached += answer.tokens_cached
        self.cost_microusd += answer.cost_microusd or 0
        self.unpriced = self.unpriced or answer.cost_microusd is None


@dataclass(kw_only=True)
class _Asked(Generic[T]):
    """One call on its way along the chain."""

    request: ModelRequest
    read: Read[T]
    on_text: OnText | None
    spent: Spent
    shown: bool = False
    """Whether any text was handed on."""

    def begin_anew(self) -> None:
        """What was shown so far is not the answer."""
        if self.shown:
            self.tell("\n\n")
            self.shown = False

    def tell(self, text: str) -> None:
        if self.on_text is not None and text:
            self.shown = True
            self.on_text(text)


class FallbackChain:
    """The models of one binding, in the order in which they are asked, within `timeout_s` in all."""

    def __init__(self, links: Sequence[Link], *, timeout_s: float, pace: Timing) -> None:
        self._links = tuple(links)
        self._timeout_s = timeout_s
        self._pace = pace

    async def ask(self, request: ModelRequest, read: Read[T], on_text: OnText | None, spent: Spent) -> T:
        """What the first model that answers says, as `read` has it. Raises `ModelFailed`; `spent` counts either way."""
        asked = _Asked(request=request, read=read, on_text=on_text, spent=spent)
        until = self._pace.now() + self._timeout_s
        said: list[str] = []
        for place, link in enumerate(self._links):
            now = self._pace.now()
            share = (until - now) / (len(self._links) - place)
            try:
                return await self._with(link, asked, now + share)
            except ModelFailed as failed:
                said.append(f"model `{link.name}`: {failed.message}")
                if failed.is_final or place == len(self._links) - 1 or self._pace.now() >= until:
                    raise self._in_sum(failed, said) from None
        raise AssertionError("a chain has at least one model")

    def _in_sum(self, last: ModelFailed, said: list[str]) -> ModelFailed:
        return ModelFailed("; ".join(said), code=last.code, fault=last.fault, retry_after_ms=last.retry_after_ms)

    async def _with(self, link: Link, asked: _Asked[T], until: float) -> T:
        """The answer of one model, tried as often as it may be and corrected as often as that helps."""
        attempt, corrections = 0, 0
        while True:
            attempt += 1
            try:
                answer = await self._once(link, asked, until)
            except ModelFailed as failed:
                wait_s = self._wait_s(failed, attempt)
                if failed.fault is not Fault.BUSY or attempt >= link.attempts:
                    raise
                if self._pace.now() + wait_s >= until:
                    raise _too_late(failed, until - self._pace.now()) from None
                await self._pace.sleep(wait_s)
                continue
            try:
                if answer.problem:
                    raise WrongAnswer(answer.problem)
                return asked.read(answer)
            except WrongAnswer as wrong:
                corrections += 1
                if corrections > CORRECTIONS or not link.model.corrects or self._pace.now() >= until:
                    raise ModelFailed(
                        "it did not give an answer of the form asked for",
                        code="model_answer_invalid",
                        fault=Fault.WRONG,
                    ) from None
                attempt = 0
                asked.request = corrected(asked.request, answer, str(wrong))

    async def _once(self, link: Link, asked: _Asked[T], until: float) -> ModelAnswer:
        """One attempt, and what it means for the circuit."""
        asked.begin_anew()
        begun = self._pace.now()
        left_s = until - begun
        limit_s = left_s if link.attempt_s is None else min(left_s, link.attempt_s)
        entry: dict[str, Json] = {"model": link.name, "outcome": "cancelled", "latency_ms": 0}
        admitted = False
        try:
            link.circuit.admit()
            admitted = True
            try:
                async with asyncio.timeout(limit_s):
                    answer = await link.model.ask(asked.request, asked.tell if asked.on_text is not None else None)
            except TimeoutError as error:
                raise too_slow() from error
        except ModelFailed as failed:
            entry["outcome"] = failed.why
            if failed.spent is not None:
                asked.spent.add(failed.spent)
            if admitted:
                _note(link.circuit, failed.fault)
            raise
        except BaseException:
            link.circuit.dropped()
            raise
        finally:
            entry["latency_ms"] = max(0, round((self._pace.now() - begun) * 1000))
            asked.spent.attempts.append(entry)
        link.circuit.succeeded()
        entry["outcome"] = answer.finish
        asked.spent.add(answer)
        asked.spent.model, asked.spent.finish = link.model.name, answer.finish
        return answer

    def _wait_s(self, failed: ModelFailed, attempt: int) -> float:
        if failed.retry_after_ms is not None:
            return failed.retry_after_ms / 1000
        return self._pace.share() * BACKOFF_S * 2 ** (attempt - 1)


def too_slow() -> ModelFailed:
    """No answer came in the time that there was."""
    return ModelFailed("no answer in time", code="model_timeout", fault=Fault.BUSY, why="time-out")


def _too_late(failed: ModelFailed, left_s: float) -> ModelFailed:
    if failed.retry_after_ms is None:
        return failed
    message = f"{failed.message}, and asks to be left alone for {failed.retry_after_ms / 1000:.0f} s; {max(left_s, 0):.0f} s are left"
    return ModelFailed(message, code=failed.code, fault=failed.fault, why=failed.why, retry_after_ms=failed.retry_after_ms)


def _note(circuit: Circuit, fault: Fault) -> None:
    """Whether the model is up: a server that refuses a request is."""
    if fault in (Fault.BUSY, Fault.BROKEN):
        circuit.failed()
    else:
        circuit.succeeded()


def corrected(request: ModelRequest, answer: ModelAnswer, problem: str) -> ModelRequest:
    """The request with the answer that was given, and what is wrong with it."""
    # An answer whose calls can't be read, or that says nothing, can't be part of a conversation.
    said = (ChatMessage(role="assistant", text=answer.text),) if answer.text and answer.text.strip() else ()
    asked = ChatMessage(role="user", text=f"That is not what was asked for: {problem}")
    return replace(request, messages=(*request.messages, *said, asked))

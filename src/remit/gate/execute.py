"""9 and 10. Execute and verify after: the one place that calls a tool, and what can be said of it afterwards.

A failure that certainly did not happen may be tried again, as the tool's retry rule says. Whatever may have happened
is never tried blindly: with the same key where that is safe, else by reading back, else it stays unknown. To read back
that it has not happened settles the matter only once nobody is at work on it any more: a server that did not answer in
time, and a thread, go on.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from math import inf
from traceback import format_exception
from typing import TypeVar, assert_never

import msgspec
from msgspec.structs import replace

from remit.contracts.quantities import duration_ms
from remit.errors import OutcomeUnknown, ToolError, ToolFailed
from remit.gate.call import Call, RunState
from remit.gate.context import ToolContexts
from remit.gate.reads import Answer, Reads
from remit.gate.verdicts import Carried, Completed, Failed, Unknown
from remit.tools.source import place_of
from remit.tools.spec import ANSWERED, Happened, Idempotency, Tool, ToolContext, Usage
from remit.values import Json, ValueRefused, decode, encode, leaves

CrashPoint = Callable[[str], None]
"""Called with the name of each point at which a crash is worth trying; does nothing but in tests."""

_MESSAGE = 300
"""How many characters are shown of a message that nobody wrote for this place."""

_log = logging.getLogger("remit")
_T = TypeVar("_T")


class _Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """The call may have happened; `message` says why nobody knows.

    `ended`: nobody is at work on it any more, so that what reading back does not find will not come.
    `running`: its own thread is, here, so that it must not be tried again meanwhile.
    """

    message: str
    ended: bool = False
    running: bool = False


class _Budget(msgspec.Struct, frozen=True, kw_only=True):
    """The time that the contract gives a step: until when, by the event loop's clock, and how much that was in words."""

    until_s: float
    said: str

    @classmethod
    def of(cls, call: Call) -> _Budget:
        within = call.action.within if call.action else None
        if within is None:
            return cls(until_s=inf, said="")
        return cls(until_s=asyncio.get_running_loop().time() + duration_ms(within) / 1000, said=within)

    @property
    def left_s(self) -> float:
        return self.until_s if self.until_s == inf else self.until_s - asyncio.get_running_loop().time()


class _StillRunning(Exception):
    """The tool did not end when it was told to, nor in the time that it was given for that."""


class Executor:
    """Carries out allowed calls. `crash_point` is called with `before_effect` and `after_effect`."""

    def __init__(self, contexts: ToolContexts, crash_point: CrashPoint) -> None:
        self._contexts = contexts
        self._crash_point = crash_point
        self._reads = Reads()

    async def carry_out(self, call: Call, run: RunState, *, doubt: str = "") -> Carried:
        """Call the tool as often as its retry rule allows, and settle what is in doubt.

        `doubt` says why an earlier attempt may have happened after all; then a failure proves nothing.
        """
        tool = call.tool
        assert tool is not None
        if not tool.spec.is_write:
            return await self._carry_out(call, run, doubt)
        self._reads.forget(tool, run.authority.tenant)
        try:
            return await self._carry_out(call, run, doubt)
        finally:
            self._reads.forget(tool, run.authority.tenant)

    async def _carry_out(self, call: Call, run: RunState, doubt: str) -> Carried:
        tool = call.tool
        assert tool is not None
        context = self._contexts.make(call, run)
        budget = _Budget.of(call)
        attempt = 0
        while True:
            attempt += 1
            self._crash_point("before_effect")
            tried = await self._try(call, run, context, budget)
            self._crash_point("after_effect")
            if isinstance(tried, _Doubt):
                tried = await self._settle(call, run, context, tried)
            match tried:
                case Completed() | Unknown():
                    return tried
                case _Doubt():
                    doubt, again, asked_ms = tried.message, True, None
                case ToolFailed():
                    again, asked_ms = tried.retryable, tried.retry_after_ms
                case never:
                    assert_never(never)
            wait_s = _wait_s(tool, attempt, asked_ms)
            if not again or attempt == tool.spec.retry.attempts or budget.left_s <= wait_s:
                return await self._give_up(call, run, context, tried, doubt)
            await asyncio.sleep(wait_s)

    async def recover(self, call: Call, run: RunState) -> Carried:
        """What became of a dispatched call whose outcome was never recorded; where that is safe, it is done (again).

        Its worker is gone, but what it has sent may still be worked on. Where another attempt is safe, that does not
        matter, and the doubt is kept. Elsewhere a read-back that says no is believed once the call is over: after as
        long as its worker could have gone on with it and, once more, its time-out, which says how long a call takes.
        No sign speaks against that here, unlike after a time-out. It does not hold for a worker that stood still
        between its record and its call for longer than that, nor for a server that outlasts the time-out by itself;
        against these only a key helps (`Idempotency.KEYED`), or a `reconcile` that answers `UNCLEAR` instead of `NO`.
        """
        tool = call.tool
        assert tool is not None
        if not tool.spec.is_write:
            return await self.carry_out(call, run)
        doubt = _Doubt(message="the worker stopped before the outcome was recorded")
        if tool.spec.idempotency is Idempotency.NONE and tool.reconcile is not None:
            await asyncio.sleep(_left_s(tool, run.clock() - call.at_us))
            doubt = replace(doubt, ended=True)
        settled = await self._settle(call, run, self._contexts.make(call, run), doubt)
        match settled:
            case Completed() | Unknown():
                return settled
            case _Doubt():
                return await self.carry_out(call, run, doubt=settled.message)
            case ToolFailed():
                return await self.carry_out(call, run)
            case never:
                assert_never(never)

    async def abandon(self, call: Call, run: RunState) -> Carried:
        """What became of a call whose run ended while it was under way: it is read back, and never tried again."""
        tool = call.tool
        assert tool is not None
        doubt = _Doubt(message="the run ended while this was under way")
        if not tool.spec.is_write:
            return Failed(code="cancelled", message=doubt.message)
        settled = await self._settle(call, run, self._contexts.make(call, run), doubt)
        match settled:
            case Completed() | Unknown():
                return settled
            case _Doubt(message=message):
                return Unknown(code="outcome_unknown", message=message)
            case ToolFailed():
                return Failed(code=settled.code, message=settled.message)
            case never:
                assert_never(never)

    async def _give_up(
        self, call: Call, run: RunState, context: ToolContext, last: ToolFailed | _Doubt, doubt: str
    ) -> Carried:
        """The last word on a call that is not tried any more. `doubt`: of any earlier attempt."""
        if isinstance(last, _Doubt):
            return Unknown(code="outcome_unknown", message=last.message)
        if not doubt:
            return Failed(code=_plain(last.code), message=_plain(last.message), usage=last.usage)
        # The last attempt was refused, perhaps because an earlier one had its effect in the meantime.
        late = _Doubt(message=f"{doubt}; then: {_plain(last.message)}")
        settled = await self._settle(call, run, context, late)
        if isinstance(settled, Completed | Unknown):
            return settled
        return Unknown(code="outcome_unknown", message=settled.message)

    async def _settle(
        self, call: Call, run: RunState, context: ToolContext, doubt: _Doubt
    ) -> Completed | Unknown | ToolFailed | _Doubt:
        """Read back where the tool can. What then is still a doubt may be tried again; `ToolFailed`: it did not happen."""
        tool = call.tool
        assert tool is not None
        may_repeat = tool.spec.idempotency is not Idempotency.NONE and not doubt.running
        unknown = Unknown(code="outcome_unknown", message=doubt.message)
        if tool.reconcile is None:
            return doubt if may_repeat else unknown
        reconcile, args = tool.reconcile, encode(call.args)
        try:
            found = await patiently(
                tool, lambda: self._contexts.within_timeout(tool, reconcile(context, decode(args)))
            )
            happened = Happened(found.happened)
        except (ToolError, TimeoutError) as error:
            return replace(unknown, message=f"{doubt.message}; reading back failed: {say(error)}")
        except Exception as error:  # noqa: BLE001 - the boundary: a read that breaks has told nothing
            return replace(unknown, message=f"{doubt.message}; reading back broke: {broke(error, reconcile, run)}")
        match happened:
            case Happened.YES:
                return _checked(tool, run, found.result)
            case Happened.NO if doubt.ended:
                return ToolFailed(
                    f"{doubt.message}; read back: it did not happen", code="not_done", retryable=True
                )
            case Happened.NO:
                message = f"{doubt.message}; read back: it had not happened by then"
                return replace(doubt, message=message) if may_repeat else replace(unknown, message=message)
            case Happened.UNCLEAR:
                return replace(unknown, message=f"{doubt.message}; reading back did not tell")
            case never:
                assert_never(never)

    async def _answer(self, call: Call, run: RunState, context: ToolContext, patience_s: float) -> Answer:
        tool = call.tool
        assert tool is not None
        if tool.spec.is_pure_read and (tool.spec.fresh_ms or tool.spec.hedge_ms):
            return await self._reads.answer(call, run, lambda: _result_of(tool, context, call.args, patience_s))
        return Answer(result=await _result_of(tool, context, call.args, patience_s))

    async def _try(
        self, call: Call, run: RunState, context: ToolContext, budget: _Budget
    ) -> Completed | ToolFailed | _Doubt:
        tool = call.tool
        assert tool is not None
        pure = not tool.spec.is_write
        patience_s = min(tool.spec.timeout_ms / 1000, budget.left_s)
        try:
            answer = await self._answer(call, run, context, patience_s)
        except ToolFailed as error:
            return error
        except (OutcomeUnknown, TimeoutError) as error:
            if pure and budget.left_s <= 0:
                return ToolFailed(f"the step's {budget.said} are spent", code="latency_spent")
            if pure:
                return ToolFailed(say(error), code="no_answer", retryable=True)
            return _Doubt(message=say(error), ended=getattr(error, "code", "") == ANSWERED)
        except _StillRunning:
            message = "no answer in time, and the tool can't be stopped; it is still running"
            return ToolFailed(message, code="no_answer") if pure else _Doubt(message=message, running=True)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever a tool raises, the record goes on
            message = f"the tool broke: {broke(error, tool.function, run)}"
            return ToolFailed(message, code="tool_broke") if pure else _Doubt(message=message)
        checked = _checked(tool, run, answer.result)
        if isinstance(checked, Unknown):
            # It has returned, so that it has done whatever it did.
            return ToolFailed(checked.message, code=checked.code) if pure else _Doubt(message=checked.message, ended=True)
        return replace(checked, source=answer.source)


async def _result_of(tool: Tool, context: ToolContext, args: Json, patience_s: float) -> Json:
    """The tool's result, which may still come in the time that it is given to end after its time-out.

    Raises what the tool raises, `TimeoutError`, and `_StillRunning`. Cancelled, it waits in the same way, so that nobody
    takes the call up while it is still worked on here.
    """
    # Arguments of its own: what a tool does to them shows neither in what is recorded nor in the next attempt.
    task = asyncio.ensure_future(tool.function(context, decode(encode(args))))
    late = False
    try:
        # A tool that waits for nothing has ended after one turn, which is cheaper than a timer.
        await asyncio.sleep(0)
        if not task.done():
            await asyncio.wait({task}, timeout=patience_s)
    finally:
        if not task.done():
            late = True
            task.cancel()
            task.add_done_callback(_noticed)
            await asyncio.wait({task}, timeout=patience_s)
    if not task.done():
        raise _StillRunning
    if task.cancelled():
        raise TimeoutError if late else OutcomeUnknown("the tool was cancelled from within")
    return task.result()


def _noticed(task: asyncio.Future[Json]) -> None:
    """Nobody waits for this any more; its error is not to be reported as one that was overlooked."""
    if not task.cancelled():
        task.exception()


async def patiently(tool: Tool, read: Callable[[], Awaitable[_T]]) -> _T:
    """What `read`, a read of the system of record, says; tried again as the tool's retry rule says, if that may help.

    All attempts and waits together take no longer than a time-out for each attempt. Raises what the last one raised.
    """
    attempts = tool.spec.retry.attempts
    loop = asyncio.get_running_loop()
    until = loop.time() + attempts * tool.spec.timeout_ms / 1000
    attempt = 0
    while True:
        attempt += 1
        try:
            return await read()
        except (ToolError, TimeoutError) as error:
            asked_ms = error.retry_after_ms if isinstance(error, ToolFailed) else None
            wait_s = _backoff_s(tool, attempt) if asked_ms is None else asked_ms / 1000
            if attempt == attempts or not is_out_of_reach(error) or loop.time() + wait_s >= until:
                raise
        await asyncio.sleep(wait_s)


def is_out_of_reach(error: ToolError | TimeoutError) -> bool:
    """Whether a read failed because its answer did not come, so that it may come later."""
    return error.retryable if isinstance(error, ToolFailed) else isinstance(error, OutcomeUnknown | TimeoutError)


def say(error: ToolError | TimeoutError) -> str:
    """What a tool's error says."""
    return _plain(error.message) if isinstance(error, ToolError) else "no answer in time"


def broke(error: Exception, function: Callable[..., object], run: RunState) -> str:
    """`KeyError: 'x' at tools/desk.py:14`: what broke in a tool, and the innermost line of the tool's module.

    The whole traceback goes to the log, without anything secret.
    """
    _log.error("run %s: %s", run.run, run.redactor.text(_plain("".join(format_exception(error)))))
    try:
        said = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an error that can't even be shown has a type all the same
        said = type(error).__name__
    # Cut only after redaction, which does not know a half of a credential.
    shown = run.redactor.text(_plain(said)).removesuffix(": ")[:_MESSAGE]
    place = place_of(error, getattr(function, "__module__", ""))
    return f"{shown} at {place}" if place else shown


def _plain(text: object) -> str:
    """What a tool says, as a text that can be recorded."""
    return str(text).encode(errors="backslashreplace").decode()


def _checked(tool: Tool, run: RunState, result: Json) -> Completed | Unknown:
    """The result, if it is acceptable JSON and meets the output schema."""
    try:
        for _ in leaves(result):
            pass
    except ValueRefused as error:
        return Unknown(code="output_invalid", message=f"the answer is not acceptable: {error.message}")
    validator = tool.spec.output_validator
    if validator.is_valid(result):
        return Completed(result=result)
    # It may quote the answer, and the answer a credential: cut only after redaction, which does not know a half of one.
    said = run.redactor.text(next(iter(validator.iter_errors(result))).message)[:_MESSAGE]
    return Unknown(code="output_invalid", message=f"the answer does not meet the output schema: {said}")


def usage_of(tool: Tool, carried: Carried) -> Usage | None:
    """What the call cost, where the tool reports it."""
    if tool.spec.usage is None:
        return None
    match carried:
        case Completed(result=result) if isinstance(result, dict):
            return msgspec.convert(result[tool.spec.usage], Usage)
        case Failed(usage=usage) if usage is not None:
            return msgspec.convert(usage, Usage)
        case _:
            return None


def _wait_s(tool: Tool, attempt: int, asked_ms: int | None) -> float:
    """Exponential backoff with full jitter, or what the other side asked for."""
    return _backoff_s(tool, attempt) if asked_ms is None else min(asked_ms, tool.spec.timeout_ms) / 1000


def _backoff_s(tool: Tool, attempt: int) -> float:
    return random.uniform(0.5, 1) * tool.spec.retry.backoff_ms * 2 ** (attempt - 1) / 1000


def _left_s(tool: Tool, since_us: int) -> float:
    """How long a call that was decided `since_us` ago may still be worked on.

    Of each attempt: its time-out, as long again for a thread, and a wait of at most as long or the backoff; in place of
    the last wait the time that the other side may take.
    """
    retry = tool.spec.retry
    span_s = (3 * retry.attempts * tool.spec.timeout_ms + retry.backoff_ms * 2 ** (retry.attempts - 1)) / 1000
    return min(max(span_s - since_us / 1_000_000, 0), span_s)

"""9 and 10. Execute and verify after: the one place that calls a tool, and what can be said of it afterwards.

A failure that certainly did not happen may be tried again, as the tool's retry rule says. Whatever may have happened
is never tried blindly: with the same key where that is safe, else by reading back, else it stays unknown.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import assert_never

import msgspec

from remit.errors import OutcomeUnknown, ToolError, ToolFailed
from remit.gate.call import Call, RunState
from remit.gate.context import ToolContexts
from remit.gate.verdicts import Completed, Failed, Unknown
from remit.tools.spec import Happened, Idempotency, Tool, ToolContext, Usage
from remit.values import Json, ValueRefused, leaves

Carried = Completed | Failed | Unknown
CrashPoint = Callable[[str], None]
"""Called with the name of each point at which a crash is worth trying; does nothing but in tests."""


class _Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """The call may have happened; `message` says why nobody knows."""

    message: str


class Executor:
    """Carries out allowed calls. `crash_point` is called with `before_effect` and `after_effect`."""

    def __init__(self, contexts: ToolContexts, crash_point: CrashPoint) -> None:
        self._contexts = contexts
        self._crash_point = crash_point

    async def carry_out(self, call: Call, run: RunState, *, doubt: str = "") -> Carried:
        """Call the tool as often as its retry rule allows, and settle what is in doubt.

        `doubt` says why an earlier attempt may have happened after all; then a failure proves nothing.
        """
        tool = call.tool
        assert tool is not None
        context = self._contexts.make(call, run)
        for attempt in range(1, tool.spec.retry.attempts + 1):
            again = attempt < tool.spec.retry.attempts
            self._crash_point("before_effect")
            tried = await self._try(tool, context, call)
            self._crash_point("after_effect")
            if isinstance(tried, _Doubt):
                tried = await self.settle(call, context, tried.message)
                if isinstance(tried, ToolFailed) and tried.code == "outcome_in_doubt":
                    doubt = doubt or tried.message
            match tried:
                case Completed() | Unknown():
                    return tried
                case ToolFailed() if again and tried.retryable:
                    await asyncio.sleep(_wait_s(tool, attempt, tried.retry_after_ms))
                case ToolFailed() if doubt:
                    # The last attempt was refused; that an earlier one had its effect is not ruled out by that.
                    return Unknown(code="outcome_unknown", message=f"{doubt}; then: {tried.message}")
                case ToolFailed():
                    return Failed(code=tried.code, message=tried.message)
                case never:
                    assert_never(never)
        raise AssertionError("the last attempt always returns")

    async def recover(self, call: Call, run: RunState) -> Carried:
        """What became of a dispatched call whose outcome was never recorded; where that is safe, it is done (again)."""
        context = self._contexts.make(call, run)
        assert call.tool is not None
        if call.tool.spec.is_pure_read:
            return await self.carry_out(call, run)
        settled = await self.settle(call, context, "the worker stopped before the outcome was recorded")
        if not isinstance(settled, ToolFailed):
            return settled
        return await self.carry_out(call, run, doubt=settled.message if settled.code == "outcome_in_doubt" else "")

    async def settle(self, call: Call, context: ToolContext, doubt: str) -> Completed | Unknown | ToolFailed:
        """Read back where the tool can, or say that the same key makes another attempt safe, or leave it unknown."""
        tool = call.tool
        assert tool is not None
        if tool.reconcile is None:
            if tool.spec.idempotency in (Idempotency.SAFE, Idempotency.KEYED):
                return ToolFailed(doubt, code="outcome_in_doubt", retryable=True)
            return Unknown(code="outcome_unknown", message=doubt)
        try:
            found = await self._contexts.within_timeout(tool, tool.reconcile(context, call.args))
        except (ToolError, TimeoutError) as error:
            return Unknown(code="outcome_unknown", message=f"{doubt}; reading back failed: {_say(error)}")
        except Exception as error:  # noqa: BLE001 - the boundary: a read that breaks has told nothing
            return Unknown(code="outcome_unknown", message=f"{doubt}; reading back broke: {type(error).__name__}")
        match found.happened:
            case Happened.YES:
                return _checked(tool, found.result)
            case Happened.NO:
                return ToolFailed(doubt, code="not_done", retryable=True)
            case Happened.UNCLEAR:
                return Unknown(code="outcome_unknown", message=f"{doubt}; reading back did not tell")
            case never:
                assert_never(never)

    async def _try(self, tool: Tool, context: ToolContext, call: Call) -> Completed | ToolFailed | _Doubt | Unknown:
        pure = tool.spec.is_pure_read
        try:
            result = await self._contexts.within_timeout(tool, tool.function(context, call.args))
        except ToolFailed as error:
            return error
        except (OutcomeUnknown, TimeoutError) as error:
            return ToolFailed(_say(error), code="no_answer", retryable=True) if pure else _Doubt(message=_say(error))
        except Exception as error:  # noqa: BLE001 - the boundary: whatever a tool raises, the record goes on
            message = f"the tool broke: {type(error).__name__}"
            return ToolFailed(message, code="tool_broke") if pure else _Doubt(message=message)
        checked = _checked(tool, result)
        if isinstance(checked, Unknown):
            return ToolFailed(checked.message, code=checked.code) if pure else _Doubt(message=checked.message)
        return checked


def _checked(tool: Tool, result: Json) -> Completed | Unknown:
    """The result, if it is acceptable JSON and meets the output schema."""
    try:
        for _ in leaves(result):
            pass
    except ValueRefused as error:
        return Unknown(code="output_invalid", message=f"the answer is not acceptable: {error.message}")
    validator = tool.spec.output_validator
    if validator.is_valid(result):
        return Completed(result=result)
    first = next(iter(validator.iter_errors(result)))
    return Unknown(code="output_invalid", message=f"the answer does not meet the output schema: {first.message[:200]}")


def usage_of(tool: Tool, result: Json) -> Usage | None:
    """What the call cost, where the tool reports it."""
    if tool.spec.usage is None or not isinstance(result, dict):
        return None
    return msgspec.convert(result[tool.spec.usage], Usage)


def _wait_s(tool: Tool, attempt: int, asked_ms: int | None) -> float:
    """Exponential backoff with full jitter, or what the other side asked for."""
    if asked_ms is not None:
        return min(asked_ms, tool.spec.timeout_ms) / 1000
    return random.uniform(0.5, 1) * tool.spec.retry.backoff_ms * 2 ** (attempt - 1) / 1000


def _say(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return error.message if isinstance(error, ToolError) else type(error).__name__

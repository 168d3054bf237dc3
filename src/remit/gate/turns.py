"""Turns: the calls of one run that are under way, so that a call is decided on what those before it have come to."""

from __future__ import annotations

import asyncio
from collections.abc import Container


class Turn:
    """One call under way. `ended` is made only if somebody waits for it."""

    __slots__ = ("_ended", "step", "tool")

    def __init__(self, tool: str, step: str) -> None:
        self.tool = tool
        self.step = step
        self._ended: asyncio.Future[None] | None = None

    async def end(self) -> None:
        """Return when the call has come to its outcome."""
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._ended)

    def has_ended(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


class Turns:
    """The calls under way, in the order in which they were proposed."""

    __slots__ = ("_under_way",)

    def __init__(self) -> None:
        self._under_way: list[Turn] = []

    def begin(self, tool: str, step: str) -> Turn:
        turn = Turn(tool, step)
        self._under_way.append(turn)
        return turn

    def finish(self, turn: Turn) -> None:
        self._under_way.remove(turn)
        turn.has_ended()

    def is_alone(self) -> bool:
        return len(self._under_way) == 1

    async def after(self, mine: Turn, tools: Container[str]) -> None:
        """Wait for the earlier calls of `tools`, because their outcomes are what this one is decided on.

        Only ever for earlier ones, so two never wait for each other; and not for the call that this one is a part of.
        """
        for turn in self._under_way[: self._under_way.index(mine)]:
            if turn.tool in tools and not mine.step.startswith(f"{turn.step}."):
                await turn.end()

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            await self._under_way[-1].end()

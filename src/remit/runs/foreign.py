"""An agent from elsewhere: it proposes, Remit decides, records and carries out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from remit.gate.verdicts import Outcome
from remit.runs.engine import Engine
from remit.runs.fold import Folded
from remit.runs.run import Escalated, Run
from remit.values import Json


class ForeignAgent:
    """The gate as an agent from elsewhere meets it. Make one with `Remit.gate(contract)`."""

    def __init__(self, engine: Engine, contract: str, on_behalf_of: str | None) -> None:
        self._engine = engine
        self._contract = contract
        self._on_behalf_of = on_behalf_of

    @asynccontextmanager
    async def run(self, request: Json, *, request_key: str | None = None) -> AsyncIterator[ForeignRun]:
        """Open a run for a request and hold it open while the block lasts.

        At the end the run is closed as completed with what `finish` was given, or as escalated; when the block raises,
        as failed. With a `request_key` that has been used before, the same run goes on.
        """
        opened = await self._engine.open(
            self._contract, request, on_behalf_of=self._on_behalf_of, request_key=request_key
        )
        async with self._engine.session(opened) as (run, folded):
            session = ForeignRun(run, folded)
            try:
                yield session
            except Escalated as escalated:
                await self._engine.finish(folded, "escalated", reason=escalated.reason)
            except BaseException as error:
                await self._engine.finish(folded, "failed", reason=f"the agent broke: {type(error).__name__}")
                raise
            else:
                await self._engine.finish(folded, session.outcome, output=session.output)


class ForeignRun:
    """One open run of an agent from elsewhere."""

    def __init__(self, run: Run, folded: Folded) -> None:
        self._run = run
        self._folded = folded
        self.outcome = "completed"
        self.output: Json = None

    @property
    def id(self) -> str:
        """The run's id, as `remit show` takes it."""
        return self._run.id

    async def propose(self, tool: str, args: Json) -> Outcome:
        """Propose a call; what became of it is returned, whatever that is."""
        return await self._run.propose(tool, args)

    async def escalate(self, reason: str, *, draft: Json = None) -> None:
        """End the run here: a case asks a person to take over. Leaves the block."""
        await self._run.escalate(reason, draft=draft)

    def finish(self, output: Json) -> None:
        """What the run is for: checked against nothing but kept on record."""
        self.output = output

"""An agent from elsewhere: it proposes, Remit decides, records and carries out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from remit.errors import Diverged, StorageError
from remit.gate.verdicts import Outcome
from remit.runs.engine import Engine
from remit.runs.fold import Folded, waiting_case
from remit.runs.run import Escalated, Run
from remit.values import Json, decode, encode


class ForeignAgent:
    """The gate as an agent from elsewhere meets it. Make one with `Remit.gate(contract)`."""

    def __init__(self, engine: Engine, contract: str, on_behalf_of: str | None) -> None:
        self._engine = engine
        self._contract = contract
        self._on_behalf_of = on_behalf_of

    @asynccontextmanager
    async def run(
        self, request: Json, *, request_key: str | None = None, traceparent: str | None = None
    ) -> AsyncGenerator[ForeignRun, None]:
        """Open a run for a request and hold it open while the block lasts.

        At the end the run is closed as completed with what `finish` was given, or as escalated; when the block raises,
        as failed, or as diverged with a case where the agent proposed something else than is on record. It stays open while a person is still to approve a call, while a call waits for a system that is out
        of reach, and where the block is cancelled or the record can't be written. With a `request_key` that has been used before, the same run goes on: the agent
        proposes from the top again, and gets the recorded outcomes as far as the record goes. `traceparent` names the
        caller's span (W3C Trace Context), below which the run's trace then stands.
        """
        opened = await self._engine.open(
            self._contract, request, on_behalf_of=self._on_behalf_of, request_key=request_key, traceparent=traceparent
        )
        async with self._engine.session(opened) as (run, folded):
            session = ForeignRun(run, folded, self._engine)
            try:
                yield session
            except Escalated as escalated:
                await self._engine.finish(folded, "escalated", reason=escalated.reason)
            except StorageError:
                raise
            except Exception as error:
                if isinstance(error, Diverged) and error.run == opened:
                    await self._engine.give_up(folded, "diverged", error.code, error.message)
                else:
                    await self._engine.fail(folded, f"the agent broke: {type(error).__name__}")
                raise
            else:
                waits_for = waiting_case(folded.state)
                if waits_for is not None:
                    await self._engine.park(folded, waits_for)
                elif folded.state.deferred:
                    await self._engine.postpone(folded, "a call waits for a system that is out of reach")
                else:
                    await self._engine.finish(folded, "completed", output=session.output)


class ForeignRun:
    """One open run of an agent from elsewhere."""

    def __init__(self, run: Run, folded: Folded, engine: Engine) -> None:
        self._run = run
        self._folded = folded
        self._engine = engine
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
        """What has come of the run; kept on record when the block ends.

        Raises `RunError` (code `output_invalid`) for what does not meet the contract's output schema.
        """
        self._engine.check_output(self._folded, output)
        self.output = decode(encode(output))

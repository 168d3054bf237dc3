"""The run as a workflow's author sees it: every step that isn't deterministic goes through here, and is on record.

When a run is taken up again its code starts from the top: each step gets its recorded answer by its path until the
record ends, and from there on things happen for the first time.
"""

from __future__ import annotations

import asyncio
import random
import uuid as uuids
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from msgspec import convert, to_builtins

from remit.contracts.model import Late
from remit.contracts.quantities import duration_ms
from remit.errors import Diverged, RunError
from remit.gate.arguments import is_digest_of
from remit.gate.call import Call, Proposal, RunState
from remit.gate.record import RecordedVerdict, open_case_for, recorded_name
from remit.gate.verdicts import Completed, Deferred, Held, Outcome
from remit.journal.events import Draft, EventType
from remit.journal.journal import Clock, RunLog
from remit.memory.context import Compaction, ContextBudget, ContextMessage, apply, compact, fits
from remit.runs import questions
from remit.runs.fold import Folded, RecordedValue, held, take_up_decision
from remit.runs.listening import OnText, Telling
from remit.runs.questions import QuestionTerms, RecordedQuestion
from remit.storage.writer import Statement
from remit.values import Json, decode, digest, encode

T = TypeVar("T")

_SHORT_SLEEP_US = 2_000_000
"""A sleep that is over so soon isn't worth handing the run over for."""


class NotCompleted(RunError):
    """A call that the workflow relied upon did not complete; `outcome` says what became of it."""

    code = "not_completed"

    def __init__(self, tool: str, outcome: Outcome) -> None:
        message = "" if isinstance(outcome, Completed) else outcome.message
        super().__init__(f"`{tool}` did not complete: {message}")
        self.tool = tool
        self.outcome = outcome


class Parked(BaseException):
    """The run waits for a person. Not an `Exception`: a workflow that catches those must not swallow it."""

    def __init__(self, case: str) -> None:
        super().__init__(case)
        self.case = case


class Postponed(BaseException):
    """The run waits for a system that is out of reach, and is taken up again by itself."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Asleep(BaseException):
    """The run sleeps until a time, in microseconds since the epoch, and is taken up again by itself."""

    def __init__(self, until: int) -> None:
        super().__init__(until)
        self.until = until


class Escalated(BaseException):
    """The run ends here and a person takes over."""

    def __init__(self, case: str, reason: str) -> None:
        super().__init__(reason)
        self.case = case
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class _Scope:
    """Where steps are counted: the run itself, or one branch of a `gather`."""

    run: str
    prefix: str
    counter: list[int]

    def next(self) -> str:
        self.counter[0] += 1
        return f"{self.prefix}{self.counter[0]}"


_scope: ContextVar[_Scope | None] = ContextVar("remit_scope", default=None)


class Gateway(Protocol):
    """Where a run's calls go; the gate is one."""

    async def propose(self, run: RunState, proposal: Proposal) -> Outcome: ...
    async def recover(self, run: RunState, call: Call, decided: RecordedVerdict) -> Outcome: ...


class Recorder(Protocol):
    """Where a run records what is no call; the journal is one."""

    clock: Clock

    async def append(self, log: RunLog, *drafts: Draft, statements: Sequence[Statement] = ()) -> None: ...


class Run:
    """One open run. `token` mints the short-lived token that every call carries; `output_problem` holds outputs to the schema."""

    def __init__(
        self,
        folded: Folded,
        *,
        gate: Gateway,
        journal: Recorder,
        token: Callable[[], str],
        output_problem: Callable[[Json], str],
    ) -> None:
        self._folded = folded
        self._output_problem = output_problem
        self._gate = gate
        self._journal = journal
        self._token = token
        self._root = _Scope(run=folded.state.run, prefix="", counter=[0])
        self.attempts = folded.state.authority.contract.attempts

    @property
    def id(self) -> str:
        """The run's id, as `remit show` takes it."""
        return self._folded.state.run

    @property
    def request(self) -> Json:
        """What the run was opened for."""
        return self._folded.request

    @property
    def confidence_floor(self) -> int | None:
        """Below what confidence, in thousandths, the contract wants a person to look; `None` where it doesn't say."""
        return self._folded.state.authority.confidence_floor

    def output_problem(self, output: Json) -> str:
        """What keeps an output from meeting the contract's output schema; empty where it does."""
        return self._output_problem(output)

    def propose(self, tool: str, args: Json) -> Coroutine[Any, Any, Outcome]:
        """Propose a call and get what became of it, whatever that is. A hold is returned, not waited for."""
        # The step's path is fixed when the call is made, not when it is awaited, so that it is the same every time.
        return self._propose(tool, args, self._next_step())

    def call(self, tool: str, /, **args: Json) -> Coroutine[Any, Any, Any]:
        """Carry out a call that the workflow relies upon and return its result.

        A hold parks the run until a person has decided, and a system that is out of reach postpones it. Raises `NotCompleted` where it is rejected, denied, failed
        or unknown.
        """
        return self._call(tool, args, self._next_step())

    def retrieve(self, query: str, *, k: int = 5, where: Json = None) -> Coroutine[Any, Any, list[Any]]:
        """Look for passages in memory, among what both the agent and whoever it acts for may read, the best first.

        `where`: only documents of this `document`, `owner`, `source` or `label`. A call of `memory.search`; raises as `call`.
        """
        args = {"query": query, "k": k, **({} if where is None else {"where": where})}
        return self._retrieve(args, self._next_step())

    def remember(self, name: str, text: str, **about: Json) -> Coroutine[Any, Any, Any]:
        """Write a document for later runs, or a new version of it. A call of `memory.write`; raises as `call`.

        `about`: `title`, `readers`, `valid_until`.
        """
        return self._call("memory.write", {"name": name, "text": text, **about}, self._next_step())

    async def fit(self, messages: Sequence[ContextMessage], budget: ContextBudget) -> list[ContextMessage]:
        """The messages, left out of or cut as much as it takes to stay within a budget; what was is on record.

        On a replay the note on record says what is left out again; nothing is recorded where all of it fits.
        """
        if fits(messages, budget):
            return list(messages)
        found = await self._value("compaction", lambda: to_builtins(compact(messages, budget)[1]))
        return apply(messages, convert(found, Compaction))

    def model(self, name: str, /, *, on_text: OnText | None = None, **given: Json) -> Coroutine[Any, Any, Any]:
        """Ask a model that the contract binds. An answer below the contract's confidence escalates the run.

        `on_text` takes the pieces of its text while they come, redacted. Where an answer breaks off and is begun anew, a
        blank line stands between; a step that is on record gives its text at once.
        """
        return self._model(name, given, self._next_step(), on_text)

    async def gather(self, *branches: Awaitable[T]) -> list[T]:
        """Await several at once and return their results in order. All of them end before the first failure is raised."""
        base = self._current().next()
        tasks = [
            asyncio.ensure_future(_within(_Scope(run=self.id, prefix=f"{base}.{i}.", counter=[0]), branch))
            for i, branch in enumerate(branches, start=1)
        ]
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        failures = [item for item in ended if isinstance(item, BaseException)]
        # An escalation or a park decides over errors: it is what happens to the run as a whole.
        for failure in sorted(failures, key=lambda f: isinstance(f, Exception)):
            raise failure
        return [item for item in ended if not isinstance(item, BaseException)]

    def prefetch(self) -> list[asyncio.Task[Outcome]]:
        """Begin the reads that the contract declares; their steps have names of their own, whatever the code does."""
        begun: list[asyncio.Task[Outcome]] = []
        for number, wanted in enumerate(self._folded.state.authority.contract.prefetch, start=1):
            args = _from_request(wanted.args, self._folded.request)
            if args is not None:
                begun.append(asyncio.ensure_future(self._propose(wanted.tool, args, f"prefetch.{number}")))
        return begun

    async def escalate(self, reason: str, *, draft: Json = None) -> Any:
        """End the run here: a case in the contract's queue asks a person to take over. Does not return."""
        state = self._folded.state
        step = self._next_step()
        self._expect(step, "`run.escalate`")
        recorded = self._folded.cases.get(step)
        if recorded is not None:
            raise Escalated(recorded, reason)
        case_id, opened, statement = open_case_for(state, step, kind="escalation", reason=reason, body=draft)
        await self._journal.append(state.log, opened, statements=[statement])
        raise Escalated(case_id, reason)

    def ask(
        self, question: str, *, of: str = "", within: str = "1d", draft: Json = None, answer: Mapping[str, Any] | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Ask a person, and park the run until somebody has answered. Returns the answer.

        `of`: a role (`role:care-lead`), or `requester` for the person that the run acts for; left out, whoever works on
        the contract's queue. `draft`: what they start from, edit and hand back. `answer`: the JSON Schema of the answer.
        Where nobody has answered `within` that time (`4h`, `2d`), the run escalates. Raises `RunError` (code
        `question_invalid`).
        """
        asking = QuestionTerms(question=question, of=of, within=within, draft=draft, answer=answer)
        return self._ask(asking, self._next_step())

    async def sleep(self, duration: str) -> None:
        """Wait for `30s`, `15m`, `4h`, `2d`, through restarts. The run holds no worker while it waits for long."""
        length_us = duration_ms(duration) * 1000
        await self._wait_until(await self._value("sleep", lambda: self._journal.clock() + length_us))

    async def _wait_until(self, until: int) -> None:
        left_us = until - self._journal.clock()
        if left_us > _SHORT_SLEEP_US:
            raise Asleep(until)
        if left_us > 0:
            await asyncio.sleep(left_us / 1e6)

    async def now(self) -> int:
        """The time, in microseconds since the epoch; the same when the run is replayed."""
        return await self._value("now", self._journal.clock)

    async def uuid(self) -> str:
        """A fresh identifier; the same when the run is replayed."""
        return await self._value("uuid", lambda: str(uuids.uuid4()))

    async def random(self) -> int:
        """A random 53-bit integer; the same when the run is replayed."""
        return await self._value("random", lambda: random.getrandbits(53))

    def record(self, kind: str, value: Json) -> Coroutine[Any, Any, None]:
        """Put on record what the code has concluded, such as how an ensemble has voted; redacted as all else is."""
        return self._record(kind, decode(encode(value)), self._next_step())

    def _current(self) -> _Scope:
        scope = _scope.get()
        # A branch of one run may drive another run: that one counts for itself.
        return scope if scope is not None and scope.run == self.id else self._root

    def _next_step(self) -> str:
        ended = self._folded.state.ended
        if ended:
            raise RunError(f"run `{self.id}` {ended}; nothing more happens in it", code="run_ended")
        return self._current().next()

    async def _value(self, kind: str, make: Callable[[], Any]) -> Any:
        step = self._next_step()
        self._expect(step, f"`run.{kind}`")
        if step in self._folded.values:
            return self._folded.values[step].value
        value = make()
        draft = Draft(
            type=EventType.VALUE_RECORDED,
            actor=self._folded.state.authority.principal,
            span=step,
            body={"kind": kind, "value": value},
        )
        await self._journal.append(self._folded.state.log, draft)
        self._folded.values[step] = RecordedValue(kind=kind, value=value)
        return value

    async def _record(self, kind: str, value: Json, step: str) -> None:
        self._expect(step, f"`run.{kind}`")
        known = self._folded.values.get(step)
        if known is None:
            state, said = self._folded.state, {"value": value}
            shown: dict[str, Json] = state.redactor.redact(said).value
            draft = Draft(
                type=EventType.VALUE_RECORDED,
                actor=state.authority.principal,
                span=step,
                body={"kind": kind, **shown},
                sealed=state.redactor.sealed(shown, said),
            )
            await self._journal.append(state.log, draft)
            self._folded.values[step] = RecordedValue(kind=kind, value=value)
        elif digest(known.value) != digest(value):
            raise Diverged(
                f"step {step} of run `{self.id}` concludes something else on record; the code has changed since",
                run=self.id,
            )

    def _expect(self, step: str, asked: str) -> None:
        """Raises `Diverged` where the record holds something else at this step than what is asked for now."""
        recorded = self._recorded(step)
        if recorded not in ("", asked):
            raise Diverged(
                f"step {step} of run `{self.id}` is {recorded} on record, and {asked} now; the code has changed since",
                run=self.id,
            )

    def _recorded(self, step: str) -> str:
        """What the record holds at a step, in words; empty where the record has not come so far."""
        folded = self._folded
        if step in folded.steps:
            return f"a call of `{folded.steps[step].tool}`"
        if step in folded.values:
            return f"`run.{folded.values[step].kind}`"
        if step in folded.questions:
            return "`run.ask`"
        return "`run.escalate`" if step in folded.cases else ""

    async def _propose(self, tool: str, args: Json, step: str, on_text: OnText | None = None) -> Outcome:
        self.take_up_arrivals()
        if self._recorded(step):
            self._expect(step, f"a call of `{recorded_name(self._folded.state, tool)}`")
            known = await self._replay(step, args)
            if known is not None:
                return known
        proposal = Proposal(tool=tool, args=args, step=step, token=self._token(), on_text=on_text)
        return await self._gate.propose(self._folded.state, proposal)

    async def _replay(self, step: str, args: Json) -> Outcome | None:
        """The recorded outcome of a call; `None` where it must be decided (again) now."""
        recorded = self._folded.steps[step]
        if recorded.args_digest and not is_digest_of(recorded.args_digest, args, self._folded.state.redactor):
            raise Diverged(
                f"step {step} of run `{self.id}` is a call of `{recorded.tool}` on record, and one with other arguments "
                "now; the code has changed since",
                run=self.id,
            )
        if recorded.outcome is not None:
            return recorded.outcome
        if recorded.verdict == "hold":
            return held(self._folded.state, step)
        if recorded.verdict == "defer":
            return None
        del self._folded.steps[step]
        return await self._gate.recover(self._folded.state, recorded.call, recorded.decided)

    def take_up_arrivals(self) -> None:
        """Take up what people decided beside the run."""
        arrived = self._folded.state.log.arrived
        while arrived:
            take_up_decision(self._folded, arrived.pop(0))

    async def _ask(self, asking: QuestionTerms, step: str) -> Any:
        state, asked = self._folded.state, await self._asked(asking, step)
        if asked.answered:
            questions.note_answer(state, asked)
            return asked.answer
        if state.clock() <= asked.expires_at:
            raise Parked(asked.case)
        return await self.escalate(f"nobody answered in time: {asking.question}", draft=asking.draft)

    async def _asked(self, asking: QuestionTerms, step: str) -> RecordedQuestion:
        """The question as the record has it, which it has from here on."""
        self._expect(step, "`run.ask`")
        self.take_up_arrivals()
        state = self._folded.state
        asked = self._folded.questions.get(step)
        if asked is None:
            asked, opened, statement = questions.opened(state, step, asking)
            await self._journal.append(state.log, opened, statements=[statement])
            self._folded.questions[step] = asked
        elif asked.asked not in ("", asking.digest()):
            raise Diverged(f"step {step} of run `{self.id}` asks something else on record; the code has changed since")
        return asked

    async def _call(self, tool: str, args: dict[str, Json], step: str, on_text: OnText | None = None) -> Any:
        outcome = await self._propose(tool, args, step, on_text)
        if isinstance(outcome, Completed):
            return outcome.result
        if isinstance(outcome, Held):
            raise Parked(outcome.case)
        if isinstance(outcome, Deferred):
            raise Postponed(outcome.message)
        when = self._folded.state.authority.contract.escalate.when
        if outcome.code == "policy_ambiguous" and when.policy_ambiguous:
            await self.escalate(f"policy ambiguous: {outcome.message}")
        action = self._folded.state.authority.actions.get(tool)
        if outcome.code == "latency_spent" and action is not None and action.late is Late.ESCALATE:
            await self.escalate(f"too slow: {outcome.message}")
        if outcome.code == "retries_exhausted" and when.retries_exhausted:
            await self.escalate(f"retries exhausted: {outcome.message}")
        raise NotCompleted(tool, outcome)

    async def _retrieve(self, args: dict[str, Json], step: str) -> list[Any]:
        found: Any = await self._call("memory.search", args, step)
        return found["chunks"]

    async def _model(self, name: str, given: dict[str, Json], step: str, on_text: OnText | None) -> Any:
        telling = Telling(on_text, self._folded.state.redactor)
        answer: Any = await self._call(f"model:{name}", given, step, telling.takes)
        telling.end(answer)
        floor = self._folded.state.authority.confidence_floor
        confidence: Any = answer.get("confidence_per_mille")
        if floor is not None and confidence is not None and confidence < floor:
            await self.escalate(f"confidence {confidence / 1000:.3f} is below {floor / 1000:.3f}", draft=answer)
        return answer


def _from_request(args: Mapping[str, Json], request: Json) -> dict[str, Json] | None:
    """Arguments with the parts of the request that they name; `None` where it has no such part."""
    found: dict[str, Json] = {}
    for name, value in args.items():
        part: Any = value
        if isinstance(value, str) and value.startswith("request."):
            part = request
            for key in value.split(".")[1:]:
                if not isinstance(part, dict) or key not in part:
                    return None
                part = cast("dict[str, Json]", part)[key]
        found[name] = part
    return found


async def _within(scope: _Scope, branch: Awaitable[T]) -> T:
    _scope.set(scope)
    return await branch

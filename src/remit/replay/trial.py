"""One run, tried again: its code, its model and the whole gate for real, its tools answered, its record thrown away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from remit.gate.arguments import is_digest_of
from remit.gate.context import Clients
from remit.gate.gate import Gate
from remit.gate.verdicts import Held, Outcome
from remit.identity.tokens import TokenIssuer, TokenVerifier
from remit.journal.events import EventType
from remit.journal.redaction import Redactor
from remit.journal.vault import Vault
from remit.replay.answers import Answers, Missed, RecordedAnswer, ToolSource, recorded_answers
from remit.replay.calls import CallLine, lines_of
from remit.replay.differences import Course
from remit.replay.in_memory import TrialJournal
from remit.replay.no_record import NoRecord, quietly
from remit.replay.reaching_out import ReachedOut, kept_in, let_out
from remit.replay.recorded import RecordedRun, body_of, originals_of
from remit.runs import ending, questions
from remit.runs.fold import Folded, RecordedValue, new_state, note_request
from remit.runs.program import Program
from remit.runs.questions import QuestionTerms, RecordedQuestion
from remit.runs.run import Parked, Run
from remit.storage.database import Database
from remit.values import Json


@dataclass(frozen=True, kw_only=True)
class TrialParts:
    """What a trial takes from its project. `database` is neither read nor written."""

    database: Database
    vault: Vault
    issuer: TokenIssuer
    verifier: TokenVerifier
    clients: Clients
    redactor: Redactor


class TrialResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `outcome` is `missed` where a tool's answer is not known; `reason` says which then."""

    outcome: str
    reason: str
    output: Json
    lines: Sequence[CallLine]

    @property
    def course(self) -> Course:
        return Course(lines=self.lines, outcome=self.outcome)

    @property
    def calls(self) -> int:
        return len({line.step for line in self.lines if line.verdict})

    @property
    def cost_microusd(self) -> int:
        return sum(line.cost_microusd for line in self.lines)

    @property
    def simulated(self) -> int:
        """How many writes were answered with a simulated completion."""
        return sum(line.answered == "simulated" for line in self.lines)


class RecordedAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """What a recorded run has to say in trials of it: tools' answers, people's decisions, times and random numbers."""

    tools: Sequence[RecordedAnswer]
    people: Sequence[tuple[str, str, frozenset[str], dict[str, Any]]]
    """Tool, digest of the arguments, the rules that asked, and the decision's body."""
    questions: Sequence[RecordedQuestion]
    values: Mapping[str, RecordedValue]


def answers_of(recorded: RecordedRun) -> RecordedAnswers:
    """Everything that a recorded run can answer."""
    asked: dict[str, tuple[str, str, frozenset[str]]] = {}
    people: list[tuple[str, str, frozenset[str], dict[str, Any]]] = []
    values: dict[str, RecordedValue] = {}
    asked_people: dict[str, RecordedQuestion] = {}
    for event in recorded.events:
        body = body_of(event)
        if event.type is EventType.APPROVAL_REQUESTED:
            shown: dict[str, Any] = body["shown"]
            asked[str(body["case"])] = (str(shown["tool"]), str(body["args_digest"]), frozenset(shown["rules"]))
        elif event.type is EventType.APPROVAL_DECIDED and body.get("case") in asked:
            people.append((*asked[body["case"]], body))
        elif event.type is EventType.VALUE_RECORDED:
            values[event.header.span] = RecordedValue(kind=body["kind"], value=originals_of(event)["value"])
        elif event.type is EventType.CASE_OPENED and body.get("kind") == questions.QUESTION:
            asked_people[event.header.span] = questions.recorded(event)
        elif event.type is EventType.CASE_DECIDED and event.header.span in asked_people:
            asked_people[event.header.span] = questions.answered(asked_people[event.header.span], event)
    return RecordedAnswers(tools=recorded_answers(recorded), people=people, questions=[*asked_people.values()], values=values)


async def attempt(
    recorded: RecordedRun, program: Program, sources: Mapping[str, ToolSource], parts: TrialParts
) -> TrialResult:
    """Try a recorded run again under a program that has a workflow."""
    assert program.workflow is not None
    known = answers_of(recorded)
    answers = Answers(known.tools, sources, parts.redactor)
    authority = program.authority
    authority = replace(authority, tools={name: answers.tool(tool) for name, tool in authority.tools.items()})
    opened = recorded.events[0]
    body = originals_of(opened)
    memory = TrialJournal(
        parts.database, parts.vault, tenant=authority.tenant, run=recorded.run, opened_at=opened.header.at
    )
    state = new_state(
        authority,
        memory.log,
        redactor=parts.redactor.for_run(),
        clock=memory.clock,
        on_behalf_of=body.get("on_behalf_of"),
        opened_at=opened.header.at,
    )
    note_request(state, body["request"])
    folded = Folded(state=state, request=body["request"], active_at=opened.header.at)
    run = _TriedRun(folded, memory, parts, known, program.output_problem)
    workflow = program.workflow

    async def tried(_run: Run, request: Any) -> Json:
        try:
            return await quietly(workflow, run, request)
        except (Missed, ReachedOut):
            raise Parked("") from None

    with kept_in() as reached:
        result = await ending.execute(NoRecord(), replace(program, authority=authority, workflow=tried), folded, run)
    await memory.journal.close()
    lines = [msgspec.structs.replace(line, answered=_source(line, answers, sources)) for line in lines_of(memory.events())]
    outcome, reason = result.outcome, state.redactor.text(result.reason)
    if answers.missed or reached:
        outcome, reason = "missed", answers.missed or f"its code reaches out by itself ({reached[0]})"
    output = state.redactor.redact(result.output).value
    return TrialResult(outcome=outcome, reason=reason, output=output, lines=lines)


def _source(line: CallLine, answers: Answers, sources: Mapping[str, ToolSource]) -> str:
    """What answered a call that was carried out."""
    if line.verdict != "allow":
        return ""
    source = sources.get(line.tool)
    return "live" if source is not None and source.kind == "live" else answers.used.get(line.step, "")


class _TriedRun(Run):
    """A run whose gate is the real one, and whose journal is in memory. A recorded person answers what they were asked."""

    def __init__(
        self, folded: Folded, memory: TrialJournal, parts: TrialParts, known: RecordedAnswers, output_problem: Callable[[Json], str]
    ) -> None:
        state = folded.state
        asked = state.authority.token_request(state.run, state.on_behalf_of)
        gate = Gate(memory.journal, parts.verifier, parts.clients)
        super().__init__(
            folded,
            gate=gate,
            journal=memory.journal,
            token=lambda: parts.issuer.issue(asked, state.clock()),
            output_problem=output_problem,
        )
        self._known = known

    async def _value(self, kind: str, make: Callable[[], Any]) -> Any:
        # The same as on record, where the step asks for the same; the code may well have come elsewhere.
        scope = self._current()
        recorded = self._known.values.get(f"{scope.prefix}{scope.counter[0] + 1}")
        same = recorded if recorded is not None and recorded.kind == kind else None
        return await super()._value(kind, make if same is None else lambda: same.value)

    async def _asked(self, asking: QuestionTerms, step: str) -> RecordedQuestion:
        for known in self._known.questions:
            if known.answered and known.asked == asking.digest():
                self._folded.questions[step] = known
                return known
        raise Missed(f"nobody has answered on record what it asks at step {step}")

    async def _wait_until(self, until: int) -> None:
        """What is tried does not take its time."""

    async def _propose(self, tool: str, args: Json, step: str, on_text: Any = None) -> Outcome:  # noqa: ARG002 - nobody listens
        with let_out():
            return await self._answered(tool, args, step)

    async def _answered(self, tool: str, args: Json, step: str) -> Outcome:
        outcome = await super()._propose(tool, args, step)
        if not isinstance(outcome, Held):
            return outcome
        answered = self._answer(tool, args, frozenset(outcome.rules))
        if answered is None:
            return outcome
        state = self._folded.state
        state.approvals[step] = msgspec.structs.replace(
            state.approvals[step],
            granted=answered["decision"] == "approved",
            decided_by=answered["by"],
            decided_at=state.clock(),
            reason=answered.get("reason", ""),
        )
        return await super()._propose(tool, args, step)

    def _answer(self, tool: str, args: Json, rules: frozenset[str]) -> dict[str, Any] | None:
        """What a person said on record to just this: the same call, asked by the same rules."""
        redactor = self._folded.state.redactor
        for asked, digest, by, body in self._known.people:
            if (asked, by) == (tool, rules) and is_digest_of(digest, args, redactor):
                return body
        return None

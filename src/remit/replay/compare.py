"""Holding what code asks for now against what the record says it asked for then, step by step."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import msgspec

from remit.gate.arguments import is_digest_of
from remit.gate.record import recorded_name
from remit.gate.verdicts import Deferred, Held, Outcome
from remit.journal.events import Event, EventType
from remit.replay.recorded import RecordedRun, body_of, originals_of
from remit.runs.fold import Folded
from remit.runs.program import RunResult
from remit.runs.questions import QUESTION, QuestionTerms, RecordedQuestion
from remit.values import Json, ValueRefused, decode, digest, encode, leaves, show_path

_ASKED_BY_GATE = re.compile(r"\.verify-[0-9]+$")
"""Steps that the gate asks for while it verifies, not the run's code."""
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
"""Where an object lies in memory is another place each time."""


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """What a run does at a step: `what` in words, and its values, redacted."""

    what: str
    values: Json = None


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """Where the code and the record come apart. `differing`: the paths of the values that are not the same."""

    step: str
    expected: Act
    came: Act
    differing: tuple[str, ...] = ()


class CameApart(BaseException):
    """The code does something else than on record. Not an `Exception`: a workflow that catches those must not go on."""

    def __init__(self, divergence: Divergence) -> None:
        super().__init__(divergence.step)
        self.divergence = divergence


class RecordEnds(BaseException):
    """The code goes on where the record of a run ends that did not come to its own end."""


class Comparison:
    """The answers of one recorded run, by step, and what the code that asks for them has asked so far."""

    def __init__(self, recorded: RecordedRun, folded: Folded) -> None:
        """`folded`: all events of the run, as its state."""
        self._recorded = recorded
        self._folded = folded
        self._redactor = folded.state.redactor
        self._asked: set[str] = set()
        self._acts = dict(self._recorded_acts())
        self.divergence: Divergence | None = None
        """The first one."""

    @property
    def request(self) -> Json:
        """What the run was opened for."""
        return self._folded.request

    @property
    def steps(self) -> int:
        """How many steps were asked for."""
        return len(self._asked)

    def call(self, step: str, tool: str, args: Json) -> Outcome:
        """The recorded outcome of a call. Raises `CameApart`, `RecordEnds`."""
        name = recorded_name(self._folded.state, tool)
        self._expect(step, "call", f"a call of `{name}`", args)
        found = self._folded.steps[step]
        same = not found.args_digest or is_digest_of(found.args_digest, args, self._redactor)
        expected = self._acts[step][1]
        differing = () if same or found.tool != name else tuple(self._differing(args, expected.values, tool))
        if found.tool != name or not (same or (self._recorded.is_concealed and not differing)):
            self._fail(step, expected, Act(what=f"a call of `{name}`", values=self._redact(args, tool)), differing)
        if found.outcome is not None:
            return found.outcome
        if found.verdict == "hold":
            return self._held(step)
        if found.verdict == "defer":
            verdict = self._verdict(step)
            return Deferred(code=str(verdict.get("code", "")), message=str(verdict.get("message", "")))
        raise RecordEnds

    def value(self, step: str, kind: str) -> Json:
        """The recorded time, id or random number. Raises `CameApart`, `RecordEnds`."""
        self._expect(step, f"value:{kind}", f"`{kind}`", None)
        return self._folded.values[step].value

    def conclusion(self, step: str, kind: str, value: Json) -> None:
        """What the code concludes, held against what it concluded on record. Raises as `call` does."""
        self._expect(step, f"value:{kind}", f"`{kind}`", value)
        recorded = self._folded.values[step].value
        if _digest_of(value) == _digest_of(recorded):
            return
        what = self._acts[step][1].what
        differing = tuple(self._differing(value, self._redact(recorded, "")))
        if differing or not self._recorded.is_concealed:
            expected = Act(what=what, values=self._redact(recorded, ""))
            self._fail(step, expected, Act(what=what, values=self._redact(value, "")), differing)

    def question(self, step: str, asking: QuestionTerms) -> RecordedQuestion:
        """The recorded question with its answer; one that nobody answered in time has expired. Raises as `call` does."""
        said: Json = {"reason": asking.question, "draft": asking.draft, "answer": dict(asking.schema)}
        self._expect(step, "question", "a question", said)
        found, expected = self._folded.questions[step], self._acts[step][1]
        if found.asked not in ("", asking.digest()):
            came = Act(what="a question", values=self._redact(said, ""))
            self._fail(step, expected, came, tuple(self._differing(said, expected.values)))
        if not found.answered and self._recorded.closed is not None and not self._recorded.was_stopped:
            return replace(found, expires_at=0)
        return found

    def escalation(self, step: str, body: Mapping[str, Any]) -> None:
        """The run hands over to a person. Raises `CameApart`, `RecordEnds`."""
        came = Act(what="an escalation", values={"reason": body.get("reason"), "draft": body.get("draft")})
        self._expect(step, "escalation", came.what, came.values)
        expected = self._acts[step][1]
        differing = tuple(self._differing(came.values, expected.values))
        if differing:
            self._fail(step, expected, came, differing)

    def end(self, result: RunResult) -> Divergence | None:
        """What the code came to at last, held against how the run ended on record."""
        if self.divergence is not None:
            return self.divergence
        closed = self._recorded.closed
        if closed is None or self._recorded.was_stopped or (self._recorded.was_refused and result.outcome == "held"):
            return None
        came = Act(what=f"the end: {result.outcome}", values=self._ending(result))
        expected = self._recorded_end(closed)
        left = next((step for step in self._acts if step not in self._asked), None)
        if left is not None:
            return Divergence(step=left, expected=self._acts[left][1], came=came)
        if came.what == expected.what and self._is_same_end(result, closed, came, expected):
            return None
        return Divergence(
            step="end", expected=expected, came=came, differing=tuple(self._differing(came.values, expected.values))
        )

    def _is_same_end(self, result: RunResult, closed: Event, came: Act, expected: Act) -> bool:
        if _plain(came.values) == _plain(expected.values):
            return True
        same_output = _digest_of(result.output) == _digest_of(originals_of(closed).get("output"))
        return same_output and _reason(came) == _reason(expected)

    def _ending(self, result: RunResult) -> Json:
        output = self._redactor.redact(decode(encode(result.output))).value
        return {"output": output, "reason": self._redactor.text(result.reason)}

    def _recorded_end(self, closed: Event) -> Act:
        body = body_of(closed)
        values: Json = {"output": body.get("output"), "reason": body.get("reason") or ""}
        return Act(what=f"the end: {closed.header.verdict}", values=values)

    # What is on record.

    def _recorded_acts(self) -> Iterator[tuple[str, tuple[str, Act]]]:
        """By step: of which kind it was, and what."""
        for event in self._recorded.events:
            span, body = event.header.span, body_of(event)
            if event.type is EventType.CALL_DECIDED and not _ASKED_BY_GATE.search(span):
                yield span, ("call", Act(what=f"a call of `{body['tool']}`", values=body["args"]))
            elif event.type is EventType.VALUE_RECORDED:
                yield span, (f"value:{body['kind']}", Act(what=f"`{body['kind']}`"))
            elif event.type is EventType.CASE_OPENED and body["kind"] == "escalation" and span:
                values: Json = {"reason": body.get("reason"), "draft": body.get("draft")}
                yield span, ("escalation", Act(what="an escalation", values=values))
            elif event.type is EventType.CASE_OPENED and body["kind"] == QUESTION:
                values = {name: body.get(name) for name in ("reason", "draft", "answer")}
                yield span, ("question", Act(what="a question", values=values))

    def _expect(self, step: str, kind: str, what: str, values: Json) -> None:
        self._asked.add(step)
        found = self._acts.get(step)
        if found is not None and found[0] == kind:
            return
        closed = self._recorded.closed
        if found is None and (closed is None or self._recorded.was_stopped):
            raise RecordEnds
        expected = found[1] if found is not None else self._recorded_end(cast("Event", closed))
        tool = what.removeprefix("a call of `").removesuffix("`") if kind == "call" else ""
        self._fail(step, expected, Act(what=what, values=self._redact(values, tool)))

    def _fail(self, step: str, expected: Act, came: Act, differing: tuple[str, ...] = ()) -> None:
        divergence = Divergence(step=step, expected=expected, came=came, differing=differing)
        self.divergence = self.divergence or divergence
        raise CameApart(divergence)

    def _verdict(self, step: str) -> dict[str, Any]:
        decided = [e for e in self._recorded.events if e.type is EventType.CALL_DECIDED and e.header.span == step]
        return body_of(decided[-1])["verdict"]

    def _held(self, step: str) -> Held:
        asked = self._folded.state.approvals[step]
        return Held(code="held", message=f"case `{asked.case}` waits for a person", case=asked.case, rules=asked.rules)

    # What is the same.

    def _differing(self, came: Json, shown: Json, tool: str = "") -> Iterator[str]:
        """Paths of what is not what the record shows: neither as it came, nor redacted as it would be recorded."""
        redacted = dict(_flat(self._redact(came, tool)))
        if not _acceptable(came):
            yield "value"
            return
        plain, known = dict(_flat(decode(encode(came)))), dict(_flat(shown))
        for path in sorted({*plain, *known}):
            if path not in plain or path not in known or known[path] not in (plain[path], redacted.get(path)):
                yield path

    def _redact(self, values: Json, tool: str) -> Json:
        """What came, as it may be shown."""
        if not _acceptable(values):
            return f"a value of type {type(values).__name__}, which is not acceptable"
        known = self._folded.state.authority.tools.get(tool)
        classes = known.spec.classes if known is not None else None
        return self._redactor.redact(decode(encode(values)), classes).value


def _reason(act: Act) -> str:
    return _ADDRESS.sub("0x", str(cast("dict[str, Any]", act.values)["reason"]))


def _plain(values: Json) -> bytes:
    return _ADDRESS.sub("0x", encode(values).decode()).encode()


def _acceptable(values: Json) -> bool:
    try:
        for _ in leaves(values):
            pass
        encode(values)
    except (ValueRefused, TypeError, UnicodeEncodeError):
        return False
    return True


def _digest_of(values: Json) -> str:
    return digest(values) if _acceptable(values) else ""


def _flat(value: Json) -> Iterator[tuple[str, Any]]:
    """Every scalar by its path; an empty list or object counts as one."""
    found = {show_path(path): leaf for path, leaf in leaves(value)}
    yield from found.items() if found else [("", value)]

"""A run as a readable story: who, under what, each step with its arguments, decision, rule and outcome."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never, cast

from rich.text import Text

from remit.cli.layout import hanging
from remit.cli.readable import name_text, pairs, value_text
from remit.cli.run_list import closing_of, loss_line, troubled
from remit.journal.events import OUTCOMES, Event, EventType
from remit.journal.journal import FROM_BESIDE
from remit.records.remains import Loss
from remit.terminal import UNTRUSTED, Part, clock_time, line, short_time, span_text, style_of

_ASKS = (EventType.APPROVAL_REQUESTED, EventType.CASE_OPENED)
_TEXT = 60
"""The most characters that a terminal shows of one text, be it an argument, a result or a tool's name."""
_RESULT = 160
"""And of a whole result. Arguments are never left out."""
_STEP = 7
"""The column of what a step did; what came of it is indented."""
_CAME_OF_IT = 9


@dataclass(kw_only=True)
class Step:
    """All that happened at one step, in order."""

    span: str
    events: list[Event] = field(default_factory=list[Event])


@dataclass(frozen=True, kw_only=True)
class Story:
    """A run's events, to be told at `now` in `width` columns, or uncut where there is no width.

    `trouble`: why it could not go on when somebody last tried.
    """

    events: Sequence[Event]
    now: int
    width: int | None
    trouble: str | None = None
    loss: Loss | None = None
    """What was destroyed of it since."""

    def lines(self) -> list[Text]:
        """The whole run."""
        made = [self._title(), self._where(), Text(""), *self._opening()]
        for step in _steps(self.events):
            made.extend(self._step(step))
        made.extend(self._closing())
        if self.loss is not None:
            made.extend(hanging(Text(""), loss_line(self.loss), 2, self.width))
        return made

    def _title(self) -> Text:
        opened, outcome = self.events[0], self._outcome()
        body: dict[str, Any] = opened.body or {}
        parts: list[Part] = [(f"run {opened.header.run.removeprefix('run-')[:8]}", "bold"), " · "]
        parts += [str(body.get("contract", "erased")), " · ", (outcome, f"bold {style_of(outcome)}")]
        active, waited = times(self.events)
        parts.append(f" · {span_text(active)}")
        if waited:
            asked = any(event.type in _ASKS for event in self.events)
            parts.append(f" · {'held' if asked else 'waited'} {span_text(waited)}")
        cost = sum(event.header.cost_microusd for event in self.events)
        if cost:
            parts.append(f" · {cost / 1e6:.4f} USD")
        return line(*parts)

    def _where(self) -> Text:
        opened = self.events[0]
        body: dict[str, Any] = opened.body or {}
        actor = opened.header.actor
        if body.get("on_behalf_of"):
            actor += f" for {body['on_behalf_of']}"
        return line((f"{clock_time(opened.header.at)} UTC · {actor} · release {opened.header.refs['release'][:8]}", "dim"))

    def _opening(self) -> Iterator[Text]:
        body: dict[str, Any] = self.events[0].body or {}
        said = self._values(body["request"]) if body else "erased"
        return hanging(line(" " * _STEP), line(("request", "bold"), f"  {said}"), _STEP, self.width)

    def _step(self, step: Step) -> Iterator[Text]:
        first = step.events[0]
        body: dict[str, Any] = first.body or {}
        if first.type is EventType.VALUE_RECORDED:
            said = line((f"{body.get('kind')}  {self._values(body.get('value'))}", "dim"))
            yield from hanging(line((f"{step.span:>5}  ", "dim")), said, _STEP, self.width)
            return
        shown: str | None = None
        holding, approver = set[str](), ""
        for event, times in _without_repeats(step.events):
            body = event.body or {}
            if event.type is EventType.CALL_DECIDED:
                if str(body.get("args_digest")) != shown:
                    yield from self._call(step.span, body)
                    shown = str(body.get("args_digest"))
                verdict: dict[str, Any] = body.get("verdict") or {}
                if event.header.verdict == "defer":
                    yield from self._put_off(verdict, times)
                    continue
                yield from self._verdict(event, verdict, holding, approver)
                holding |= set(verdict.get("rules", ())) if event.header.verdict == "hold" else set()
            elif event.type is EventType.APPROVAL_DECIDED:
                approver = str(body.get("by")) if body.get("decision") == "approved" else ""
            yield from self._came_of_it(event, body)

    def _call(self, span: str, body: dict[str, Any]) -> Iterator[Text]:
        # Arguments without a digest were not acceptable, and are described instead.
        kept = body.get("args_digest") or not body
        args = self._values(body.get("args")) if kept else "(its arguments were not acceptable, and are not kept)"
        tool = name_text(str(body.get("tool", "erased")), self._limit)
        yield from hanging(line(f"{span:>5}  "), line((tool, "bold"), f"  {args}"), _STEP, self.width)
        labelled: dict[str, list[str]] = body.get("labels") or {}
        for path, labels in labelled.items():
            if any(label.startswith("untrusted") for label in labels):
                said = f"{name_text(path, self._limit)} from {', '.join(labels)}"
                yield from self._indented((said, UNTRUSTED))

    def _verdict(self, event: Event, verdict: dict[str, Any], holding: set[str], approver: str) -> Iterator[Text]:
        kind = event.header.verdict
        # A rule that held the call did not allow it: the person did.
        rules = [str(rule) for rule in verdict.get("rules", ()) if rule not in holding]
        parts: list[Part] = [(kind, style_of(kind))]
        if kind == "allow" and approver:
            parts.append(f"  as {approver} approved")
        if rules:
            parts.append(f"  {' '.join(rules)}")
        if verdict.get("message"):
            parts.append(f"  {verdict['message']}")
        yield from self._indented(*parts)

    def _put_off(self, verdict: dict[str, Any], times: int) -> Iterator[Text]:
        """Nothing was decided about the call, and nothing speaks against it."""
        tried = "once" if times == 1 else f"{times} times"
        if closing_of(self.events) is None:
            tried = "again later" if times == 1 else f"{tried}, and again later"
        parts: list[Part] = [("not decided", style_of("defer")), f": {verdict.get('message')}; tried {tried}"]
        yield from self._indented(*parts)

    def _came_of_it(self, event: Event, body: dict[str, Any]) -> Iterator[Text]:
        match event.type:
            case EventType.APPROVAL_REQUESTED:
                roles = ", ".join(str(role).removeprefix("role:") for role in body.get("roles", ()))
                until = short_time(body.get("expires_at", 0), event.header.at)
                yield from self._indented(f"asked {roles} in {body.get('case')}, until {until} UTC")
            case EventType.CASE_OPENED if body.get("kind") == "question":
                asked = ", ".join(str(role).removeprefix("role:") for role in body.get("roles") or [body.get("queue")])
                until = short_time(body.get("expires_at", 0), event.header.at)
                yield from hanging(line(f"{event.header.span:>5}  "), line(("ask", "bold"), f"  {body.get('reason')}"), _STEP, self.width)
                yield from self._indented(f"asked {asked} in {body.get('case')}, until {until} UTC")
            case EventType.APPROVAL_DECIDED | EventType.CASE_DECIDED:
                decision = str(body.get("decision"))
                after = span_text(event.header.at - self._asked_at(event))
                parts: list[Part] = [f"{body.get('by')} ", (decision, style_of(decision)), f" after {after}"]
                yield from self._indented(*parts, f": {body['reason']}" if body.get("reason") else "")
                if decision == "answered":
                    yield from self._indented(self._values(body.get("answer")))
                    yield from self._indented((f"changed {self._changed(body)} of the draft", "dim"))
            case EventType.CALL_COMPLETED | EventType.CALL_FAILED | EventType.CALL_UNKNOWN:
                yield from self._end(event, body)
            case EventType.CASE_OPENED:
                yield from self._indented((f"{body.get('case')}: {body.get('reason')}", UNTRUSTED))
            case EventType.CASE_REVEALED:
                yield from self._indented(f"{body.get('by')} saw the originals")
            case EventType.CONTEXT_RETRIEVED:
                yield from self._indented(_passages(body))
            case EventType.RUN_RESUMED:
                yield from self._indented((f"the run went on {clock_time(event.header.at)} UTC", "dim"))
            case EventType.RUN_OPENED | EventType.RUN_CLOSED | EventType.CALL_DECIDED | EventType.VALUE_RECORDED:
                pass  # told apart from what came of a step
            case (
                EventType.PRINCIPAL_CHANGED
                | EventType.KEY_REVOKED
                | EventType.RELEASE_APPROVED
                | EventType.RUN_ERASED
                | EventType.ORIGINALS_DROPPED
                | EventType.HOLD_PLACED
                | EventType.HOLD_LIFTED
                | EventType.VALUE_REVEALED
                | EventType.DEED_DENIED
                | EventType.RUN_REPLAYED
                | EventType.RECORD_EXPORTED
                | EventType.DOCUMENT_ADDED
                | EventType.DOCUMENT_RECALLED
                | EventType.DOCUMENT_FORGOTTEN
                | EventType.RECORD_RESTORED
                | EventType.RECORD_COMPARED
            ):
                yield from self._indented((f"an event of type {event.type}, which no run has", style_of("failed")))
            case never:
                assert_never(never)

    def _changed(self, body: dict[str, Any]) -> str:
        changes: list[dict[str, Any]] = body.get("changes") or []
        paths = [name_text(str(change["path"])) for change in changes]
        return ", ".join(paths) or "nothing"

    def _asked_at(self, decided: Event) -> int:
        """When the case was opened that an event decides."""
        case = (cast("dict[str, Any]", decided.body) or {}).get("case")
        openings = (EventType.APPROVAL_REQUESTED, EventType.CASE_OPENED)
        found = [e for e in self.events if e.type in openings and (cast("dict[str, Any]", e.body) or {}).get("case") == case]
        return found[-1].header.at if found else decided.header.at

    def _end(self, event: Event, body: dict[str, Any]) -> Iterator[Text]:
        name = OUTCOMES[event.type]
        parts: list[Part] = [(name, style_of(name)), (f"  {span_text(event.header.latency_us)}", "dim")]
        if event.header.cost_microusd:
            parts.append((f"  {event.header.cost_microusd / 1e6:.4f} USD", "dim"))
        said = self._values(body["result"]) if "result" in body else str(body.get("message", ""))
        if self.width is not None and len(said) > _RESULT:
            said = f"{said[: _RESULT - 1]}…"
        yield from self._indented(*parts, f"  {said}")

    def _closing(self) -> Iterator[Text]:
        said, closed = self._outcome(), closing_of(self.events)
        if closed is None:
            why = self._why_open(said)
        else:
            body: dict[str, Any] = closed.body or {}
            output = self._values(body["output"]) if body.get("output") is not None else ""
            why = str(body.get("reason") or output)
        return hanging(Text(""), line((said, f"bold {style_of(said)}"), f"  {why}"), _STEP, self.width)

    def _outcome(self) -> str:
        """How the run ended, or stands."""
        closed = closing_of(self.events)
        if closed is not None:
            return closed.header.verdict
        return troubled(self.events, self.trouble) if self.trouble else _standing(self.events)

    def _why_open(self, standing: str) -> str:
        run = self.events[0].header.run
        match standing:
            case "held":
                asked = [event for event in self.events if event.type in _ASKS]
                case = (cast("dict[str, Any]", asked[-1].body) or {}).get("case")
                return f"a person must decide; see `remit case {case}`"
            case "waiting":
                return "`remit worker` goes on with it by itself"
            case "stuck":
                return f"{self.trouble}; `remit worker` tries again, and `remit close {run[:12]} --as PERSON` ends it"
            case _:
                return "not ended"

    def _indented(self, *parts: Part) -> Iterator[Text]:
        return hanging(line(" " * _CAME_OF_IT), line(*parts), _CAME_OF_IT + 2, self.width)

    @property
    def _limit(self) -> int | None:
        return None if self.width is None else _TEXT

    def _values(self, value: Any) -> str:
        """A value in one line: `issue=12 changes.category=network`."""
        if isinstance(value, dict) and value:
            return " ".join(pairs(cast("dict[str, Any]", value), self._limit))
        return value_text(value, self._limit)


def _passages(body: dict[str, Any]) -> str:
    """`3 passages: policy@7 #2 #5, faq@12 #1`."""
    chunks: list[dict[str, Any]] = body.get("chunks") or []
    found: dict[str, list[str]] = {}
    for chunk in chunks:
        version, _, number = str(chunk.get("chunk")).rpartition("#")
        label = str(chunk.get("label"))
        found.setdefault(version if label == "trusted" else f"{version} ({label})", []).append(f"#{number}")
    said = ", ".join(f"{version} {' '.join(numbers)}" for version, numbers in found.items())
    return f"{len(chunks)} passage{'' if len(chunks) == 1 else 's'}{f': {said}' if said else ''}"


def _steps(events: Sequence[Event]) -> list[Step]:
    """The steps in the order in which they began. That the run went on belongs to the step that it had waited for."""
    steps: dict[str, Step] = {}
    latest = Step(span="")
    for event in events:
        if event.type in (EventType.RUN_OPENED, EventType.RUN_CLOSED):
            continue
        if event.type is EventType.RUN_RESUMED and latest.events:
            latest.events.append(event)
            continue
        key = event.header.span or f"@{event.header.n}"
        latest = steps.setdefault(key, Step(span=event.header.span))
        latest.events.append(event)
    return list(steps.values())


def _without_repeats(events: Sequence[Event]) -> Iterator[tuple[Event, int]]:
    """The events of a step, each with how often it came in a row: a call that is put off is tried again for hours."""
    kept: list[tuple[Event, int]] = []
    taken_up: list[Event] = []
    for event in events:
        before = kept[-1][0] if kept else None
        if event.type is EventType.RUN_RESUMED and before is not None and before.header.verdict == "defer":
            taken_up.append(event)
        elif before is not None and _is_put_off_alike(before, event):
            kept[-1] = (event, kept[-1][1] + 1)
            taken_up.clear()
        else:
            kept += [(one, 1) for one in (*taken_up, event)]
            taken_up.clear()
    yield from [*kept, *((one, 1) for one in taken_up)]


def _is_put_off_alike(before: Event, event: Event) -> bool:
    bodies: list[dict[str, Any]] = [one.body or {} for one in (before, event)]
    same = [(body.get("args_digest"), body.get("verdict")) for body in bodies]
    return before.header.verdict == event.header.verdict == "defer" and same[0] == same[1]


def _standing(events: Sequence[Event]) -> str:
    """How a run that is not closed stands, as far as its record says: held while the last thing it did was to ask."""
    own = [event for event in events if event.type not in FROM_BESIDE]
    last: dict[str, Any] = own[-1].body or {}
    asked = own[-1].type is EventType.APPROVAL_REQUESTED or last.get("kind") == "question"
    answered = events[-1].type in (EventType.APPROVAL_DECIDED, EventType.CASE_DECIDED)
    return "held" if asked and not answered else "ready" if asked else "open"


def times(events: Sequence[Event]) -> tuple[int, int]:
    """How long a run was active, and how long it waited for a person or a worker, in microseconds."""
    opened = active_at = events[0].header.at
    waited = 0
    for event in events[1:]:
        if event.type is EventType.RUN_RESUMED:
            waited += event.header.at - active_at
        if event.type not in FROM_BESIDE:
            active_at = event.header.at
    return active_at - opened - waited, waited

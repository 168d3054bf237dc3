"""A run as one trace, by OpenTelemetry's semantic conventions for generative AI.

The run is an `invoke_agent` span, each of its calls an `execute_tool` or `chat` span below it. Every event of the run is
a span event with its whole redacted body, in parts that no usual limit cuts. Ids are derived from the run and its steps,
so a run that is exported twice gives the same spans. What is done after a run has ended, by people or to its record,
gives spans of their own, which add to those that were sent before. An undo is a run, linked to the one that it undoes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from remit.export.traceparent import caller_of
from remit.journal.events import OUTCOMES, REFUSED, TRACEPARENT, UNDOES, EventType
from remit.journal.leaves import Leaf
from remit.values import Json

Attribute = str | int | bool | Sequence[str]
Attributes = dict[str, Attribute]

SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.0"
"""The last release of the conventions that says how agents are told; later ones are kept apart and have no address yet."""

MOST_BYTES = 2_000
"""How long a value is at most: receivers cut longer ones, some from 2,048 bytes on."""
MOST_ATTRIBUTES = 100
MOST_EVENTS = 100
"""Of one event, and of one span: the limits of the SDKs and of some receivers are 128."""

_CALLS = (EventType.CALL_DECIDED, *OUTCOMES)
_FAILED_RUNS = {"failed", "unknown", "diverged"}
_PROVIDERS = {
    "google": "gcp.gemini",
    "google-gla": "gcp.gemini",
    "google-vertex": "gcp.vertex_ai",
    "bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "mistral": "mistral_ai",
    "grok": "x_ai",
    "classifier": "remit",
}
"""Names of providers in the conventions, where they are not our own."""


class SpanEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something at one moment of a span; `at`: microseconds since the epoch."""

    name: str
    at: int
    attributes: Attributes


@dataclass(kw_only=True, slots=True)
class Span:
    """A span before it is encoded; times in microseconds since the epoch. `is_client`: a request to somebody else."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    name: str
    start: int
    end: int
    attributes: Attributes
    is_client: bool = False
    error: str | None = None
    """Why it failed; `None` where it did not."""
    events: list[SpanEvent] = field(default_factory=list[SpanEvent])
    links: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    """Trace and span id of spans of other traces."""


def trace_of(leaves: Sequence[Leaf], *, register: Sequence[Leaf] = (), undone: Leaf | None = None) -> list[Span]:
    """The spans of one run, given all of its leaves in order.

    `register`: what the register says about it. `undone`: the first leaf of the run that it undoes.
    """
    trace = _Trace(leaves)
    return [*trace.spans(undone), *trace.afterwards([*trace.late, *register])]


def trace_at_closing(leaves: Sequence[Leaf], undone: Leaf | None = None) -> list[Span]:
    """The spans of one run without what was done afterwards."""
    return _Trace(leaves).spans(undone)


def trace_of_afterwards(leaves: Sequence[Leaf], happened: Leaf) -> list[Span]:
    """The spans that an event adds to those of its run at its closing; none where it stands among these."""
    trace = _Trace(leaves)
    is_own = happened.header.run == leaves[0].header.run
    return [] if is_own and happened.header.n not in {leaf.header.n for leaf in trace.late} else trace.afterwards([happened])


class _Trace:
    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self._leaves = leaves
        self._bodies = [leaf.told for leaf in leaves]
        header = leaves[0].header
        self._name = f"{header.tenant}/{header.run}"
        caller = caller_of(header.refs.get(TRACEPARENT))
        self._trace_id, self._caller = caller or (self._id("trace", 16), b"")
        # What happens behind its closing is no part of the run.
        closed = next((i for i, leaf in enumerate(leaves) if leaf.type is EventType.RUN_CLOSED), len(leaves) - 1)
        self._own = closed + 1
        self.late = leaves[self._own :]
        self._root = self._span("root", self._caller, "")
        self._steps: dict[str, Span] = {}

    @property
    def root(self) -> tuple[bytes, bytes]:
        """Its trace, and the span that is above all others of it."""
        return self._trace_id, self._root.span_id

    def afterwards(self, happened: Sequence[Leaf]) -> list[Span]:
        """A span for each of these events, in its own chain or on the register, and those that it has no room for."""
        late = [self._late(leaf) for leaf in happened]
        return [*late, *(more for span in late for more in self._overflow(span))]

    def spans(self, undone: Leaf | None) -> list[Span]:
        """Root first, calls in the order in which they were proposed."""
        if undone is not None:
            self._root.links.append(_Trace([undone]).root)
        for leaf in self._leaves[: self._own]:
            if leaf.type in _CALLS and leaf.header.span not in self._steps:
                self._steps[leaf.header.span] = self._span(f"step/{leaf.header.span}", b"", "")
        for step, span in self._steps.items():
            span.parent_id = self._above(step).span_id
        for leaf, body in zip(self._leaves[: self._own], self._bodies, strict=False):
            span = self._steps.get(leaf.header.span, self._root)
            span.events += _events_of(leaf, body)
        self._tell_run()
        for step, span in self._steps.items():
            told = [(e, b) for e, b in zip(self._leaves[: self._own], self._bodies, strict=False) if e.header.span == step]
            _tell_call(span, told, self._root.start)
        own = [self._root, *self._steps.values()]
        return [*own, *(more for span in own for more in self._overflow(span))]

    def _id(self, what: str, size: int) -> bytes:
        return hashlib.sha256(f"remit/{self._name}/{what}".encode()).digest()[:size]

    def _span(self, what: str, parent: bytes, name: str) -> Span:
        span_id = self._id(f"span/{what}", 8)
        return Span(
            trace_id=self._trace_id, span_id=span_id, parent_id=parent, name=name, start=0, end=0, attributes={}
        )

    def _above(self, step: str) -> Span:
        """The span of the nearest step above that is a call; branches of a `gather` have none of their own."""
        while step:
            step = step.rpartition(".")[0]
            if step in self._steps:
                return self._steps[step]
        return self._root

    def _late(self, leaf: Leaf) -> Span:
        header, run = leaf.header, self._leaves[0].header.run
        place = f"event/{header.n}" if header.run == run else f"register/{header.n}"
        span = self._span(place, self._root.span_id, f"remit.{header.type}")
        span.start = span.end = header.at
        span.attributes = {"remit.run.id": run, **_header_attributes(leaf)}
        span.events += _events_of(leaf, leaf.told)
        return span

    def _tell_run(self) -> None:
        opened, body = self._leaves[0].header, self._bodies[0]
        last, ending = self._leaves[self._own - 1], self._bodies[self._own - 1]
        contract = opened.actor.rpartition("/")[2]
        root = self._root
        root.name = f"invoke_agent {contract}"
        root.start, root.end = opened.at, last.header.at
        headers = [leaf.header for leaf in self._leaves[: self._own]]
        root.attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": "remit",
            "gen_ai.agent.name": contract,
            "gen_ai.agent.id": opened.actor,
            "gen_ai.agent.version": opened.refs.get("release", ""),
            "gen_ai.usage.input_tokens": sum(header.tokens_in for header in headers),
            "gen_ai.usage.output_tokens": sum(header.tokens_out for header in headers),
            "remit.run.id": opened.run,
            "remit.run.tenant": opened.tenant,
            "remit.run.contract": str(body.get("contract", contract)),
            "remit.run.undoes": opened.refs.get(UNDOES, ""),
            "remit.run.policy": opened.refs.get("policy", ""),
            "remit.run.events": len(headers),
            "remit.run.cost_microusd": sum(header.cost_microusd for header in headers),
            "remit.run.outcome": last.header.verdict if last.type is EventType.RUN_CLOSED else "open",
        }
        if body.get("on_behalf_of"):
            root.attributes["remit.run.on_behalf_of"] = body["on_behalf_of"]
        if last.header.verdict in _FAILED_RUNS:
            root.error = _short(str(ending.get("reason") or last.header.verdict))
            root.attributes["error.type"] = last.header.verdict
        root.attributes = {name: value for name, value in root.attributes.items() if value != ""}

    def _overflow(self, span: Span) -> Iterator[Span]:
        """More events than a span may have stand in spans below it."""
        events, span.events = span.events, span.events[:MOST_EVENTS]
        for start in range(MOST_EVENTS, len(events), MOST_EVENTS):
            more = self._span(f"more/{span.span_id.hex()}/{start}", span.span_id, "remit.events")
            more.events = events[start : start + MOST_EVENTS]
            more.start, more.end = more.events[0].at, more.events[-1].at
            more.attributes = {"remit.run.id": self._leaves[0].header.run}
            yield more


def _tell_call(span: Span, told: Sequence[tuple[Leaf, dict[str, Any]]], earliest: int) -> None:
    """What a call's span says of itself: what it was, how it was decided, and what became of it."""
    decided = next((one for one in reversed(told) if one[0].type is EventType.CALL_DECIDED), told[0])
    ended = next((one for one in reversed(told) if one[0].type in OUTCOMES), None)
    (leaf, body), first = decided, told[0][0].header
    retrieved = next((said for one, said in told if one.type is EventType.CONTEXT_RETRIEVED), None)
    verdict: dict[str, Any] = body.get("verdict", {})
    tool = str(body.get("tool", "erased"))
    span.start = max(earliest, first.at - first.latency_us)
    span.end = told[-1][0].header.at
    outcome = OUTCOMES[ended[0].type] if ended else REFUSED.get(leaf.header.verdict, "open")
    span.attributes = {
        **_operation(span, tool, ended[1] if ended else {}),
        "remit.run.id": first.run,
        "remit.call.step": first.span,
        "remit.call.verdict": leaf.header.verdict,
        "remit.call.outcome": outcome,
        "remit.call.decision_us": leaf.header.latency_us,
        **{f"remit.call.{name}": str(verdict[name]) for name in ("code",) if verdict.get(name)},
        **({"remit.call.rules": [str(rule) for rule in verdict["rules"]]} if verdict.get("rules") else {}),
        **_whole("gen_ai.tool.call.arguments" if not span.is_client else "remit.call.arguments", body.get("args")),
    }
    for asked, question in told:
        if asked.type in (EventType.APPROVAL_REQUESTED, EventType.APPROVAL_DECIDED):
            span.attributes["remit.approval.case"] = str(question.get("case", ""))
        if asked.type is EventType.APPROVAL_DECIDED:
            span.attributes |= {"remit.approval.decision": asked.header.verdict, "remit.approval.by": asked.header.actor}
    if retrieved is not None:
        span.attributes |= _retrieval(span, tool, body, retrieved)
    if ended is not None:
        header = ended[0].header
        span.attributes |= {"remit.call.duration_us": header.latency_us, "remit.call.cost_microusd": header.cost_microusd}
        if not span.is_client and retrieved is None:
            span.attributes |= _whole("gen_ai.tool.call.result", ended[1].get("result"))
        else:
            span.attributes["gen_ai.usage.input_tokens"] = header.tokens_in
            span.attributes["gen_ai.usage.output_tokens"] = header.tokens_out
    if outcome in ("denied", "rejected", "failed", "unknown"):
        said = ended[1] if ended else verdict
        span.attributes["error.type"] = str(said.get("code") or outcome)
        span.error = _short(str(said.get("message") or outcome))


def _operation(span: Span, tool: str, ended: Mapping[str, Any]) -> Attributes:
    """Names the span after what was called: a model, or a tool."""
    if not tool.startswith("model:"):
        span.name = f"execute_tool {_short(tool)}"
        return {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": _short(tool),
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": span.span_id.hex(),
        }
    span.is_client = True
    result: Any = ended.get("result")
    usage: dict[str, Any] = cast("dict[str, Any]", result).get("usage", {}) if isinstance(result, dict) else {}
    provider, _, model = str(usage.get("model", "")).partition(":")
    model = model or tool.removeprefix("model:")
    span.name = f"chat {_short(model)}"
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _PROVIDERS.get(provider, provider or "remit"),
        "gen_ai.request.model": _short(model),
        "remit.call.tool": _short(tool),
    }


def _retrieval(span: Span, tool: str, decided: Mapping[str, Any], retrieved: Mapping[str, Any]) -> Attributes:
    """What makes a call a `retrieval` span: what was asked for, and the chunks that came. Their texts are not told."""
    span.name = f"retrieval {_short(tool)}"
    chunks: list[dict[str, Any]] = retrieved.get("chunks") or []
    args: dict[str, Any] = decided.get("args") or {}
    return {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.data_source.id": _short(tool.partition(".")[0]),
        "remit.retrieval.chunks": [str(chunk.get("chunk")) for chunk in chunks],
        **_whole("gen_ai.retrieval.documents", [{"id": chunk.get("chunk")} for chunk in chunks]),
        **({"gen_ai.retrieval.query.text": str(args["query"])[:MOST_BYTES // 4]} if "query" in args else {}),
    }


def _whole(name: str, value: Json) -> Attributes:
    """A value as an attribute, where there is one and it fits; its event has it in any case."""
    if value is None:
        return {}
    text = msgspec.json.encode(value)
    return {name: text.decode()} if len(text) <= MOST_BYTES else {}


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:199]}…"


def _header_attributes(leaf: Leaf) -> Attributes:
    header = leaf.header
    found: Attributes = {
        "remit.event.n": header.n,
        "remit.event.type": header.type,
        "remit.event.hash": leaf.hash.hex(),
        "remit.event.actor": header.actor,
    }
    if header.verdict:
        found["remit.event.verdict"] = header.verdict
    if header.span:
        found["remit.event.step"] = header.span
    return found


def _events_of(leaf: Leaf, body: Mapping[str, Any]) -> Iterator[SpanEvent]:
    """One event of the record with its body: `remit.event.body`, or `remit.event.body_part.0` and so on, end to end.

    Parts that find no room in one span event stand in further ones, which name the same `remit.event.n`.
    """
    attributes: Attributes = _header_attributes(leaf)
    verdict: Mapping[str, Any] = body.get("verdict") or {}
    if leaf.type is EventType.CALL_DECIDED and verdict.get("rules"):
        attributes["remit.event.rules"] = [str(rule) for rule in verdict["rules"]]
    name, at = f"remit.{leaf.header.type}", leaf.header.at
    parts = list(split_text(leaf.text)) if leaf.text is not None else []
    attributes["remit.event.parts"] = len(parts)
    for index, part in enumerate(parts):
        if len(attributes) >= MOST_ATTRIBUTES:
            yield SpanEvent(name=name, at=at, attributes=attributes)
            name = "remit.event.parts"
            attributes = {"remit.event.n": leaf.header.n}
        attributes["remit.event.body" if len(parts) == 1 else f"remit.event.body_part.{index}"] = part
    yield SpanEvent(name=name, at=at, attributes=attributes)


def split_text(text: bytes) -> Iterator[str]:
    """UTF-8 in pieces of at most `MOST_BYTES`, none of which cuts a character."""
    start = 0
    while start < len(text):
        end = min(start + MOST_BYTES, len(text))
        # A byte 0b10xxxxxx goes on with the character before it.
        while end < len(text) and text[end] & 0xC0 == 0x80:
            end -= 1
        yield text[start:end].decode()
        start = end

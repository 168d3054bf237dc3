"""A run as a trace: what a receiver gets, by the conventions, and nothing lost on the way."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from stories import (
    TRACEPARENT,
    Receiver,
    Story,
    all_bodies,
    attributes,
    erase,
    reassembled,
    receiving,
    tell,
)

from remit import Remit
from remit.errors import ConfigError, ExportError, RunError
from remit.export.otlp import Sender, endpoint, headers_of
from remit.export.traceparent import caller_of
from remit.export.traces import MOST_ATTRIBUTES, MOST_BYTES, MOST_EVENTS, split_text, trace_of
from remit.journal.events import EventType
from remit.journal.leaves import Selection

pytestmark = pytest.mark.anyio


@pytest.fixture
async def story(tmp_path: Path, database_url: str) -> Story:
    return await tell(tmp_path / "shop", database_url)


async def sent(story: Story, receiver: Receiver, selection: Selection) -> int:
    async with Remit(story.shop.folder) as remit:
        encoder = remit.exporting.encoder()
        runs = remit.exporting.runs(selection)
        return await remit.exporting.send(runs, selection, sender=Sender(receiver.url, encoder), by=None)


async def test_a_run_is_one_trace_below_the_span_of_its_caller(story: Story) -> None:
    with receiving() as receiver:
        count = await sent(story, receiver, Selection(run=story.told))
    spans = receiver.spans()
    assert len(spans) == count
    assert {span.trace_id.hex() for span in spans} == {TRACEPARENT.split("-")[1]}
    root = spans[0]
    assert (root.name, root.parent_span_id.hex()) == ("invoke_agent tells", TRACEPARENT.split("-")[2])
    known = {span.span_id for span in spans}
    assert len(known) == len(spans)
    assert all(span.parent_span_id in known for span in spans[1:])
    assert all(root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano for span in spans)
    assert {request["path"] for request in receiver.headers} == {"/v1/traces"}
    (resource,) = {request.resource_spans[0].resource.SerializeToString() for request in receiver.requests}
    assert resource


async def test_calls_are_told_by_the_conventions(story: Story) -> None:
    with receiving() as receiver:
        await sent(story, receiver, Selection(run=story.told))
    spans = {span.name: (span, attributes(span.attributes)) for span in receiver.spans()}
    _, root = spans["invoke_agent tells"]
    assert root["gen_ai.operation.name"] == "invoke_agent"
    assert (root["gen_ai.agent.name"], root["gen_ai.agent.id"]) == ("tells", "agent/shop/tells")
    assert (root["remit.run.outcome"], root["remit.run.id"]) == ("completed", story.told)
    chat = next(found for span, found in spans.values() if span.name.startswith("chat "))
    assert (chat["gen_ai.operation.name"], chat["gen_ai.provider.name"]) == ("chat", "remit")
    assert (chat["remit.call.tool"], chat["gen_ai.usage.input_tokens"]) == ("model:sorter", 0)
    read, told = spans["execute_tool orders.read"]
    assert (told["gen_ai.operation.name"], told["gen_ai.tool.name"]) == ("execute_tool", "orders.read")
    assert json.loads(told["gen_ai.tool.call.arguments"]) == {"order": 4}
    assert "note" in json.loads(told["gen_ai.tool.call.result"])
    assert (read.kind, read.status.code) == (read.SPAN_KIND_INTERNAL, 0)


async def test_decisions_approvals_and_failures_are_told(story: Story) -> None:
    with receiving() as receiver:
        await sent(story, receiver, Selection(run=story.told))
    told = [(span, attributes(span.attributes)) for span in receiver.spans()]
    outcomes = Counter(found["remit.call.outcome"] for _, found in told if "remit.call.outcome" in found)
    assert outcomes == {"completed": 4, "denied": 2, "rejected": 1, "failed": 1, "unknown": 1}
    denied = next(pair for pair in told if pair[1].get("remit.call.rules") == ["never-13"])
    assert (denied[1]["error.type"], denied[0].status.code) == ("forbidden", denied[0].status.STATUS_CODE_ERROR)
    refund = next(span for span, found in told if found.get("gen_ai.tool.name") == "payments.refund")
    found = attributes(refund.attributes)
    assert (found["remit.approval.decision"], found["remit.call.verdict"]) == ("approved", "allow")
    assert found["remit.approval.by"].startswith("<person:")
    assert found["remit.approval.case"].startswith("case-")
    names = [event.name for event in refund.events]
    assert names == [
        "remit.call.decided",
        "remit.approval.requested",
        "remit.approval.decided",
        "remit.call.decided",
        "remit.call.completed",
    ]


async def test_every_body_can_be_put_together_again_within_the_usual_limits(story: Story) -> None:
    with receiving() as receiver:
        await sent(story, receiver, Selection())
    for run in (story.told, story.escalated):
        events: list[dict[str, Any]] = []
        for span in receiver.spans():
            own = attributes(span.attributes)
            assert len(span.events) <= MOST_EVENTS
            for found in (own, *(attributes(event.attributes) for event in span.events)):
                assert len(found) <= MOST_ATTRIBUTES
                assert all(len(str(value).encode()) <= MOST_BYTES for value in found.values())
            if own["remit.run.id"] == run:
                events += [attributes(event.attributes) for event in span.events]
        async with Remit(story.shop.folder) as remit:
            assert reassembled(iter(events)) == all_bodies(remit, run)


async def test_a_run_that_is_sent_twice_gives_the_same(story: Story) -> None:
    with receiving() as receiver:
        await sent(story, receiver, Selection(contract="tells"))
        first = list(receiver.requests)
        receiver.requests.clear()
        await sent(story, receiver, Selection(last=2))
    assert first[0] in receiver.requests


async def test_what_people_do_afterwards_adds_spans_and_changes_none(story: Story) -> None:
    async with Remit(story.shop.folder) as remit:
        leaves = remit.leaves.run(story.escalated)
        assert [leaf.type for leaf in leaves][-2:] == [EventType.RUN_CLOSED, EventType.CASE_DECIDED]
        before, after = trace_of(leaves[:-1]), trace_of(leaves)
    assert after[:-1] == before
    assert (after[-1].name, after[-1].parent_id) == ("remit.case.decided", after[0].span_id)


async def test_an_erased_run_keeps_its_shape_and_says_nothing(story: Story) -> None:
    async with Remit(story.shop.folder) as remit:
        await erase(remit, story.told)
        spans = trace_of(remit.leaves.run(story.told))
    assert spans[0].name == "invoke_agent tells"
    assert not any("remit.event.body" in name for span in spans for event in span.events for name in event.attributes)
    assert "execute_tool erased" in [span.name for span in spans]


TICKS = """
async def tick(run, request):
    for _ in range(250):
        await run.now()
    return {}
"""


async def test_more_events_than_a_span_may_have_stand_in_spans_below(story: Story) -> None:
    story.shop.contract("ticks", [{"tool": "orders.read"}], workflow=TICKS)
    async with Remit(story.shop.folder) as remit:
        ticked = await remit.run("ticks", {})
        spans = trace_of(remit.leaves.run(ticked.run))
    assert [len(span.events) for span in spans] == [100, 100, 52]
    assert [span.name for span in spans[1:]] == ["remit.events"] * 2
    numbers = [event.attributes["remit.event.n"] for span in spans for event in span.events]
    assert numbers == list(range(1, 253))


async def test_only_runs_that_have_ended_are_sent(story: Story) -> None:
    async with Remit(story.shop.folder) as remit:
        held = await remit.run("tells", {"text": "once more"})
        assert held.outcome == "held"
        assert held.run not in remit.exporting.runs(Selection())
        with pytest.raises(RunError, match="goes on"):
            remit.exporting.runs(Selection(run=held.run))


class Pauses:
    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_receiver_that_is_busy_is_asked_again(story: Story, status: int) -> None:
    pauses = Pauses()
    with receiving() as receiver:
        receiver.answers = [(status, {"Retry-After": "3"}, b""), (status, {}, b"")]
        async with Remit(story.shop.folder) as remit:
            sender = Sender(receiver.url, remit.exporting.encoder(), pause=pauses)
            await remit.exporting.send([story.escalated], Selection(), sender=sender, by=None)
    assert pauses.seconds == [3.0, 1.0]
    assert len(receiver.requests) == 1


async def test_a_receiver_that_refuses_is_not_asked_again(story: Story) -> None:
    partial = ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 2
    partial.partial_success.error_message = "too old"
    none: dict[str, str] = {}
    refusals = [(400, none, b""), (401, none, b""), (200, none, partial.SerializeToString())]
    said = ["answers 400", "answers 401", "2 spans refused: too old"]
    for refusal, expected in zip(refusals, said, strict=True):
        pauses = Pauses()
        with receiving() as receiver:
            receiver.answers = [refusal]
            async with Remit(story.shop.folder) as remit:
                sender = Sender(receiver.url, remit.exporting.encoder(), pause=pauses)
                with pytest.raises(ExportError, match=expected):
                    await remit.exporting.send([story.escalated], Selection(), sender=sender, by=None)
        assert pauses.seconds == []


async def test_a_receiver_that_is_away_is_tried_a_bounded_number_of_times(story: Story) -> None:
    with receiving() as receiver:
        pass
    pauses = Pauses()
    async with Remit(story.shop.folder) as remit:
        sender = Sender(receiver.url, remit.exporting.encoder(), pause=pauses)
        with pytest.raises(ExportError, match="can't be reached"):
            await remit.exporting.send([story.escalated], Selection(), sender=sender, by=None)
    assert pauses.seconds == [0.5, 1.0, 2.0, 4.0]


async def test_headers_of_the_environment_go_along(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc,x-tenant = shop")
    with receiving() as receiver:
        await sent(story, receiver, Selection(run=story.escalated))
    (headers,) = receiver.headers
    found = {name.lower(): value for name, value in headers.items()}
    assert (found["authorization"], found["x-tenant"]) == ("Bearer abc", "shop")
    assert headers_of("") == {}


def test_an_address_names_the_signal_once_and_nothing_secret() -> None:
    assert endpoint("http://127.0.0.1:4318") == endpoint("http://127.0.0.1:4318/") == "http://127.0.0.1:4318/v1/traces"
    assert endpoint("https://otel.example/otlp/v1/traces") == "https://otel.example/otlp/v1/traces"
    for wrong in ("127.0.0.1:4318", "ftp://a", "http://", "http://a:b", "http://a?b=c", "http://me:secret@a", "http://[a"):
        with pytest.raises(ConfigError) as raised:
            endpoint(wrong)
        assert "secret" not in raised.value.message


def test_a_text_is_split_between_characters() -> None:
    text = "aü€😀" * 999
    parts = list(split_text(text.encode()))
    assert "".join(parts) == text
    assert max(len(part.encode()) for part in parts) <= MOST_BYTES
    assert list(split_text(b"")) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        TRACEPARENT.upper(),
        TRACEPARENT.replace("00-4", "ff-4"),
        TRACEPARENT + "-more",
        TRACEPARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        TRACEPARENT.replace("00f067aa0ba902b7", "0" * 16),
        f" {TRACEPARENT}",
        f"{TRACEPARENT}\n",
    ],
)
async def test_what_is_no_traceparent_opens_no_run(story: Story, text: str) -> None:
    assert caller_of(text) is None
    async with Remit(story.shop.folder) as remit:
        with pytest.raises(RunError) as raised:
            await remit.run("tells", {"text": "x"}, traceparent=text)
    assert raised.value.code == "traceparent_invalid"


def test_a_later_version_of_a_traceparent_is_read_as_far_as_it_is_known() -> None:
    assert caller_of(TRACEPARENT) == caller_of(TRACEPARENT.replace("00-4", "01-4") + "-more")
    assert caller_of(TRACEPARENT) is not None


async def test_the_same_request_key_opens_one_run_whoever_traces_it(story: Story) -> None:
    async with Remit(story.shop.folder) as remit:
        first = await remit.engine.open("tells", {"text": "x"}, request_key="k", traceparent=TRACEPARENT)
        assert await remit.engine.open("tells", {"text": "x"}, request_key="k") == first
        async with remit.gate("away").run({}, traceparent=TRACEPARENT) as run:
            pass
        assert trace_of(remit.leaves.run(run.id))[0].trace_id.hex() == TRACEPARENT.split("-")[1]

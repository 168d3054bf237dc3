"""A shop in which everything happens that a record can tell, and a receiver that keeps what it was sent."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from project import REFUND, Shop, make_shop, write_action
from remit import Held, Remit
from remit.cases.cases import Decision
from remit.journal.events import Draft, EventType
from remit.storage.writer import Statement

LARGE = {"order": 4, "amount": {"amount": "60.00", "currency": "EUR"}, "account": "DE0933"}
MAIL = "ann.miller@shop.example"
TEXT = "ü" * 100_000
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ADVANCE = '@id("never-13") @reason("13 is never moved") forbid (principal, action == Action::"put.safe", resource) when { context.args.value == 13 };'
MODELS = '\n[memory]\n[models.sorter]\nkind = "classifier"\ntraining = "sorter.jsonl"\n'

WORKFLOW = """
async def act(run, request):
    await run.model("sorter", text=request["text"][:200])
    await run.now()
    await run.gather(run.call("orders.read", order=4), run.call("risk.check", order=4))
    await run.propose("put.safe", {"value": 13})
    await run.propose("put.safe", {"value": "much"})
    await run.propose(request["text"][:50], {})
    await run.propose("odd.write", {"how": "not-done"})
    await run.propose("odd.write", {"how": "broken"})
    await run.call("payments.refund", order=4, amount={"amount": "60.00", "currency": "EUR"}, account="DE0933")
    return {"said": request["text"]}
"""


@dataclass(frozen=True, kw_only=True)
class Story:
    """The shop, and what its runs are called."""

    shop: Shop
    told: str
    """Everything of a workflow, a hold that was approved among it."""
    escalated: str
    """Seen to by a person after it had ended."""


def make_story_shop(folder: Path, database: str, settings: str = "") -> Shop:
    """A shop with the contracts `tells` (a workflow) and `away`; `settings` go into its remit.toml."""
    shop = make_shop(folder, database)
    shop.contract(
        "tells",
        [
            {"tool": "orders.read"},
            {"tool": "risk.check"},
            REFUND,
            write_action("put.safe"),
            write_action("odd.write"),
        ],
        policy=ADVANCE,
        workflow=WORKFLOW,
        models={"sorter": {"use": "sorter", "spend_per_call": "0.01 USD"}},
        untrusted_input=["text"],
        budget={"calls": 30, "writes": 20, "time": "60s", "spend": "1.00 USD"},
    )
    shop.contract("away", [{"tool": "orders.read"}, {"tool": "memory.search"}, REFUND])
    lines = [{"text": f"{word} {number}", "kind": word} for number in range(12) for word in ("printer", "refund")]
    (folder / "sorter.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    with (folder / "remit.toml").open("a") as file:
        file.write(MODELS + settings)
    return shop


async def live_through(remit: Remit, text: str = TEXT) -> tuple[str, str]:
    """One run with everything in it, approved and ended, and one that is escalated and seen to afterwards."""
    asked = await remit.run("tells", {"text": text, "mail": MAIL}, traceparent=TRACEPARENT)
    assert asked.case is not None, (asked.outcome, asked.reason)
    await remit.cases.decide(asked.case, Decision.APPROVED, token=remit.person_token("lee"), reason="looks right")
    told = await remit.engine.drive(asked.run)
    assert told.outcome == "completed", told
    async with remit.gate("away").run({"text": "help"}) as run:
        held = await run.propose("orders.read", {"order": 1})
        assert not isinstance(held, Held)
        await run.propose("memory.search", {"query": "who looks"})
        await run.escalate("somebody should look", draft={"mail": MAIL})
    case = remit.cases.list("shop", run=run.id)[0]
    await remit.cases.decide(case.case, Decision.RESOLVED, token=remit.person_token("lee"), reason="done by hand")
    return told.run, run.id


async def tell(folder: Path, database: str) -> Story:
    shop = make_story_shop(folder, database)
    async with Remit(shop.folder) as remit:
        told, escalated = await live_through(remit)
    return Story(shop=shop, told=told, escalated=escalated)


async def erase(remit: Remit, run: str) -> None:
    """Destroy the keys of a run, on record."""
    gone = Statement(sql="UPDATE run_keys SET body_key = NULL, sealed_key = NULL WHERE run = :run", params={"run": run})
    draft = Draft(type=EventType.RUN_ERASED, actor="operator", body={"reason": "asked"}, refs={"run": run})
    await remit.register.append(draft, statements=[gone])


def all_bodies(remit: Remit, run: str) -> dict[int, Any]:
    return {event.header.n: event.body for event in remit.journal.reader.events(run)}


@dataclass(kw_only=True)
class Receiver:
    """What came in, and how the next requests are answered: 200, or what `answers` holds, one after the other."""

    url: str = ""
    requests: list[ExportTraceServiceRequest] = field(default_factory=list[ExportTraceServiceRequest])
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list[tuple[int, dict[str, str], bytes]])
    came: threading.Event = field(default_factory=threading.Event)

    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def receiving() -> Generator[Receiver]:
    """An OTLP receiver on this machine that takes what it is sent, and decodes it."""
    received = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, body = received.answers.pop(0) if received.answers else (200, dict[str, str](), b"")
            if status == 200:
                assert self.headers["Content-Type"] == "application/x-protobuf"
                received.requests.append(ExportTraceServiceRequest.FromString(gzip.decompress(data)))
            received.headers.append({"path": self.path, **dict(self.headers.items())})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            received.came.set()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that it has there
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def plain(value: AnyValue) -> Any:
    """An attribute's value as Python has it."""
    kind = value.WhichOneof("value")
    assert kind is not None
    found = getattr(value, kind)
    return [plain(one) for one in found.values] if kind == "array_value" else found


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: plain(pair.value) for pair in cast("list[KeyValue]", pairs)}


def reassembled(events: Iterator[dict[str, Any]]) -> dict[int, Any]:
    """The body of each event of the record, put together from the attributes of span events."""
    texts: dict[int, dict[int, str]] = {}
    for found in events:
        parts = texts.setdefault(found["remit.event.n"], {})
        for name, value in found.items():
            if name == "remit.event.body":
                parts[0] = value
            elif name.startswith("remit.event.body_part."):
                parts[int(name.rpartition(".")[2])] = value
    return {n: json.loads("".join(parts[i] for i in range(len(parts)))) for n, parts in texts.items()}

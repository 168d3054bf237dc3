"""A language model's server on loopback: it answers, errs, stalls and lies as told, over the real wire formats.

It speaks OpenAI's chat, Anthropic's messages and Google's generateContent, each at once and as a stream of events,
whichever the request asks for. A `Reply` is what goes over the wire as it is; a `Said` is written in the words of the
provider that is asked.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANTHROPIC = "claude-opus-4-6"
GOOGLE = "gemini-2.5-flash"
OPENAI = "gpt-4o-mini"
TOKENS_IN, TOKENS_OUT, TOKENS_CACHED = 100, 20, 40


class Reply:
    """One answer of the server: a status, a body, headers; `stall` keeps it back until the server stops."""

    def __init__(self, status: int, body: str, *, stall: bool = False, **headers: str) -> None:
        self.status = status
        self.body = body
        self.stall = stall
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a model says, in no provider's words.

    `pieces`: the text as a stream has it. `calls`: `(id, name, arguments as JSON)`. `cut`: the connection ends in the
    middle of it. `early`: the stream ends neatly, before the model has come to an end.
    """

    pieces: Sequence[str] = ()
    calls: Sequence[tuple[str, str, str]] = ()
    refusal: str = ""
    finish: str = "stop"
    cached: int = 0
    cut: bool = False
    early: bool = False

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def said(answer: Any, **more: Any) -> Said:
    """A whole text, or JSON."""
    return Said(pieces=(answer if isinstance(answer, str) else json.dumps(answer),), **more)


# OpenAI answers `/v1/chat/completions`.


def openai(answer: Any) -> Reply:
    """What a server that speaks OpenAI's chat interface says."""
    return _openai(said(answer), stream=False)


_OPENAI_FINISH = {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "refusal": "stop"}


def _openai(one: Said, *, stream: bool) -> Reply:
    usage = {
        "prompt_tokens": TOKENS_IN,
        "completion_tokens": TOKENS_OUT,
        "total_tokens": TOKENS_IN + TOKENS_OUT,
        "prompt_tokens_details": {"cached_tokens": one.cached},
    }
    calls: list[dict[str, Any]] = [
        {"index": n, "id": each[0], "type": "function", "function": {"name": each[1], "arguments": each[2]}}
        for n, each in enumerate(one.calls)
    ]
    finish = _OPENAI_FINISH["tool_calls" if calls else one.finish]
    head = {"id": "c1", "created": 1, "model": OPENAI}
    if not stream:
        message: dict[str, Any] = {"role": "assistant", "content": one.text or None}
        message |= {"refusal": one.refusal} if one.refusal else {}
        message |= {"tool_calls": [{k: v for k, v in call.items() if k != "index"} for call in calls]} if calls else {}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return Reply(200, json.dumps({**head, "object": "chat.completion", "choices": [choice], "usage": usage}))
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in one.pieces)]
    deltas += [{"refusal": one.refusal}] if one.refusal else []
    for call in calls:
        function = call["function"]
        begun = {**call, "function": {"name": function["name"], "arguments": ""}}
        half = len(function["arguments"]) // 2
        parts = [function["arguments"][:half], function["arguments"][half:]]
        deltas += [{"tool_calls": [begun]}]
        deltas += [{"tool_calls": [{"index": call["index"], "function": {"arguments": part}}]} for part in parts]
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    chunks.append({"choices": [], "usage": usage})
    lines = [f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', **chunk})}\n\n" for chunk in chunks]
    return Reply(200, "".join([*lines, "data: [DONE]\n\n"]), Content_Type="text/event-stream")


# Anthropic answers `/v1/messages`.


def anthropic(answer: Any) -> Reply:
    """What Anthropic's messages interface says, as a stream of events."""
    return _anthropic(said(answer), stream=True)


_ANTHROPIC_STOP = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "refusal": "refusal"}


def _anthropic(one: Said, *, stream: bool) -> Reply:
    calls = [{"type": "tool_use", "id": each[0], "name": each[1], "input": each[2]} for each in one.calls]
    stop = _ANTHROPIC_STOP["tool_calls" if calls else "refusal" if one.refusal else one.finish]
    begun = {"input_tokens": TOKENS_IN - one.cached, "cache_read_input_tokens": one.cached, "output_tokens": 1}
    message: dict[str, Any] = {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": ANTHROPIC,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": begun,
    }
    if not stream:
        content: list[dict[str, Any]] = [{"type": "text", "text": one.text}] if one.text else []
        content += [{**call, "input": json.loads(call["input"])} for call in calls]
        ended = {"content": content, "stop_reason": stop, "usage": {**begun, "output_tokens": TOKENS_OUT}}
        return Reply(200, json.dumps({**message, **ended}))
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    if one.pieces:
        pieces = [{"type": "text_delta", "text": piece} for piece in one.pieces]
        blocks.append(({"type": "text", "text": ""}, pieces))
    for call in calls:
        halves = [call["input"][: len(call["input"]) // 2], call["input"][len(call["input"]) // 2 :]]
        blocks.append(({**call, "input": {}}, [{"type": "input_json_delta", "partial_json": half} for half in halves]))
    for n, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": n, "content_block": block})
        events += [{"type": "content_block_delta", "index": n, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": n})
    delta = {"stop_reason": stop, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": TOKENS_OUT}})
    events.append({"type": "message_stop"})
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    return Reply(200, body, Content_Type="text/event-stream")


# Google answers `/v1beta/models/<model>:generateContent` and `:streamGenerateContent`.


_GOOGLE_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "refusal": "SAFETY"}


def _google(one: Said, *, stream: bool) -> Reply:
    usage: dict[str, Any] = {
        "promptTokenCount": TOKENS_IN,
        "candidatesTokenCount": TOKENS_OUT,
        "totalTokenCount": TOKENS_IN + TOKENS_OUT,
        "cachedContentTokenCount": one.cached,
    }
    parts: list[dict[str, Any]] = [{"text": piece} for piece in one.pieces]
    parts += [{"functionCall": {"id": each[0], "name": each[1], "args": json.loads(each[2])}} for each in one.calls]
    finish = _GOOGLE_FINISH["refusal" if one.refusal else one.finish]
    head = {"modelVersion": GOOGLE, "responseId": "g1"}

    def body(content: list[dict[str, Any]], last: bool) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": content}, "index": 0}
        candidate |= {"finishReason": finish} if last else {}
        return {**head, "candidates": [candidate], **({"usageMetadata": usage} if last else {})}

    if not stream:
        return Reply(200, json.dumps(body(parts, last=True)))
    bodies = [body([part], last=n == len(parts) - 1) for n, part in enumerate(parts)] or [body([], last=True)]
    lines = "".join(f"data: {json.dumps(each)}\r\n\r\n" for each in bodies)
    return Reply(200, lines, Content_Type="text/event-stream")


class Server:
    """The model's server. `replies` are given in order, the last one for ever; `asked` is what it was sent.

    `answering` answers in their place, by what it is asked.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.answering: Callable[[dict[str, Any]], Reply | Said] | None = None
        self.replies: list[Reply | Said] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.paths: list[str] = []
        self.stopping = threading.Event()

    def next(self, asked: dict[str, Any]) -> Reply | Said:
        if self.answering is not None:
            return self.answering(asked)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def words(self) -> list[str]:
        """All texts of the latest request."""
        return [str(message["content"]) for message in self.asked[-1]["messages"]]


def _worded(one: Said, path: str, asked: dict[str, Any]) -> Reply:
    if path.endswith("/chat/completions"):
        return _openai(one, stream=asked.get("stream") is True)
    if path.endswith("/messages"):
        return _anthropic(one, stream=asked.get("stream") is True)
    return _google(one, stream=":streamGenerateContent" in path)


@contextmanager
def serving() -> Generator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            asked = json.loads(self.rfile.read(length))
            server.asked.append(asked)
            server.paths.append(self.path)
            keys = [self.headers[name] for name in ("x-api-key", "x-goog-api-key", "Authorization")]
            server.keys.append(next((key for key in keys if key), ""))
            found = server.next(asked)
            cut = isinstance(found, Said) and found.cut
            reply = _worded(found, self.path.partition("?")[0], asked) if isinstance(found, Said) else found
            if reply.stall:
                server.stopping.wait(30)
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            data = reply.body.encode()
            if isinstance(found, Said) and found.early:
                gap = b"\r\n\r\n" if b"\r\n\r\n" in data else b"\n\n"
                data = gap.join(data.split(gap)[:5]) + gap
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            # A stream that is cut ends in the middle, though more of it was announced.
            self.wfile.write(data[: len(data) // 2] if cut else data)
            self.close_connection = cut

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        http.shutdown()
        http.server_close()
        thread.join()

"""A language model's server on loopback: it answers, errs, stalls and lies as told, over the real wire formats."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANTHROPIC = "claude-opus-4-6"


class Reply:
    """One answer of the server: a status, a body, headers; `stall` keeps it back until the server stops."""

    def __init__(self, status: int, body: str, *, stall: bool = False, **headers: str) -> None:
        self.status = status
        self.body = body
        self.stall = stall
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def openai(answer: Any) -> Reply:
    """What a server that speaks OpenAI's chat interface says."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    body = {"id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini", "choices": [choice]}
    return Reply(200, json.dumps({**body, "usage": usage}))


def anthropic(answer: Any) -> Reply:
    """What Anthropic's messages interface says, as a stream of events."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    message: dict[str, Any] = {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": ANTHROPIC,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 100, "output_tokens": 1},
    }
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 20},
        },
        {"type": "message_stop"},
    ]
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    return Reply(200, body, Content_Type="text/event-stream")


class Server:
    """The model's server. `replies` are given in order, the last one for ever; `asked` is what it was sent.

    `answering` answers in their place, by what it is asked.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.answering: Callable[[dict[str, Any]], Reply] | None = None
        self.replies: list[Reply] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.stopping = threading.Event()

    def next(self, asked: dict[str, Any]) -> Reply:
        if self.answering is not None:
            return self.answering(asked)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def words(self) -> list[str]:
        """All texts of the latest request."""
        return [str(message["content"]) for message in self.asked[-1]["messages"]]


@contextmanager
def serving() -> Generator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            asked = json.loads(self.rfile.read(length))
            server.asked.append(asked)
            server.keys.append(self.headers["x-api-key"] or self.headers["Authorization"])
            reply = server.next(asked)
            if reply.stall:
                server.stopping.wait(30)
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body.encode())))
            self.end_headers()
            self.wfile.write(reply.body.encode())

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

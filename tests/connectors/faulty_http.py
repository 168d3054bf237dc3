"""A server on loopback that refuses, lies, stalls and breaks off on demand, and clients to try on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from remit.connectors.roundup.client import RoundupClient
from remit.connectors.roundup.installation import Account
from remit.connectors.roundup.transport import Bounds, Credentials
from remit.errors import OutcomeUnknown, ToolFailed

ETAG = '"0123456789abcdef0123456789abcdef"'
PASSWORD = "hunter2-hunter2"

Call = Callable[[RoundupClient], Awaitable[object]]
Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class FaultyServer:
    """Speaks just enough HTTP to be wrong in every way; `replies` are given one after the other, the last one for ever."""

    replies: list[Reply]
    requests: list[str] = field(default_factory=list[str])
    heads: list[str] = field(default_factory=list[str])
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/tracker/"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = next(
                (int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length:")),
                0,
            )
            await reader.readexactly(length)
            method, path, _ = head.split(" ", 2)
            self.requests.append(f"{method} {path.partition('?')[0]}")
            self.heads.append(head)
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            await reply(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def faulty(*replies: Reply) -> AsyncGenerator[FaultyServer]:
    """A faulty server that is running; every connection takes one request."""
    server = FaultyServer(list(replies))
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


def answer(status: int, body: bytes | str = b"", **headers: str) -> Reply:
    """A complete answer; `_` in a header's name stands for `-`."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        await writer.drain()

    return reply


async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The connection ends after the request has been read."""


async def cut_in_the_middle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"data": {')
    await writer.drain()


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """No answer; it ends when the client gives up and closes."""
    await reader.read()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One byte every now and then, so that no single read takes too long."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not writer.transport.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer without end."""
    writer.write(b'HTTP/1.1 200 OK\r\n\r\n{"data": "')
    while not writer.transport.is_closing():
        writer.write(b"x" * 65536)
        await writer.drain()


def connect(url: str, **bounds: int) -> RoundupClient:
    return RoundupClient(url, Credentials(username="remit-agent", password=PASSWORD), Bounds(**bounds))


async def reading(client: RoundupClient) -> object:
    return await client.read(1)


async def writing(client: RoundupClient) -> object:
    return await client.update(1, {"priority": "high"}, ETAG)


async def failing(client: RoundupClient, call: Call) -> ToolFailed | OutcomeUnknown:
    with pytest.raises((ToolFailed, OutcomeUnknown)) as caught:
        await call(client)
    assert isinstance(caught.value, ToolFailed | OutcomeUnknown)
    assert PASSWORD not in caught.value.message
    return caught.value


def client_of(url: str, account: Account) -> RoundupClient:
    """A client of one account of a live tracker."""
    return RoundupClient(url, Credentials(username=account.username, password=account.password))

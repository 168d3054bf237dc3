"""What a tool is given beside its arguments, and how long it may take."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from remit.errors import ConfigError
from remit.gate.call import Call, RunState
from remit.tools.spec import Connection, Tool, ToolContext

T = TypeVar("T")


class Clients:
    """Pooled clients of the connections that the project declares; credentials stay in here."""

    def __init__(self, connections: Mapping[str, Connection | ConfigError]) -> None:
        """A connection whose credential could not be resolved is held as the error, which its first use raises."""
        self._connections = connections
        self._clients: dict[tuple[str, Callable[[Connection], Any]], Any] = {}

    def get(self, name: str, connect: Callable[[Connection], Any]) -> Any:
        """The client of a connection, made by `connect` on first use. Raises `ConfigError` for an undeclared one."""
        client = self._clients.get((name, connect))
        if client is None:
            connection = self._connections.get(name)
            if connection is None:
                raise ConfigError(f"connection `{name}` is not declared; add `[connections.{name}]` to remit.toml")
            if isinstance(connection, ConfigError):
                raise connection
            client = self._clients[name, connect] = connect(connection)
        return client

    async def close(self) -> None:
        """Close every client that can be closed."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            close = getattr(client, "aclose", None) or getattr(client, "close", None)
            if close is not None:
                closing = close()
                if asyncio.iscoroutine(closing):
                    await closing


class ToolContexts:
    """Makes the context of a call."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def make(self, call: Call, run: RunState) -> ToolContext:
        assert call.tool is not None
        return ToolContext(
            tenant=run.authority.tenant,
            run=run.run,
            step=call.proposal.step,
            idempotency_key=call.key,
            timeout_ms=call.tool.spec.timeout_ms,
            resource=call.resource,
            client=self._clients.get,
            principal=run.authority.principal,
            on_behalf_of=run.on_behalf_of,
            region=run.authority.region,
            labels=call.labels,
            args_digest=call.args_digest,
            on_text=call.proposal.on_text,
        )

    async def within_timeout(self, tool: Tool, awaitable: Awaitable[T]) -> T:
        """The result, or `TimeoutError` when the tool's time is over."""
        async with asyncio.timeout(tool.spec.timeout_ms / 1000):
            return await awaitable

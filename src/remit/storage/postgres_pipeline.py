"""One connection to Postgres in libpq's pipeline mode: commands go out together and are answered together.

psycopg's own pipeline waits on the socket several times for each command, which costs more than all else that a write
does. Here the event loop watches the socket once and for all, and one round trip is one wait.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from itertools import count
from typing import Any

import msgspec
import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

_BINARY = 1
_ANSWERED = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One statement with parameters `$1`, `$2`, …; the server finds out their types. Answers are in binary form.

    One that is `kept` is parsed once, so there must be few of them; its parameters are in binary form, others in text.
    """

    sql: bytes
    parameters: Sequence[bytes | None] = ()
    kept: bool = True


class Pipeline:
    """A connection that nobody else uses, on the running event loop. One `trip` at a time."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._libpq = connection.pgconn
        self._libpq.nonblocking = 1
        self._libpq.enter_pipeline_mode()
        self._loop = asyncio.get_running_loop()
        self._socket = connection.fileno()
        self._names: dict[bytes, bytes] = {}
        self._number = count()
        self._results: list[pq.abc.PGresult] = []
        self._answered: asyncio.Future[None] | None = None
        self._is_sending = False
        self.closed = False
        self._loop.add_reader(self._socket, self._receive)

    @property
    def is_in_transaction(self) -> bool:
        return self._libpq.transaction_status != pq.TransactionStatus.IDLE

    async def trip(self, *commands: Command) -> list[pq.abc.PGresult]:
        """Send commands and wait for their results. After one that fails, those behind it are not carried out.

        Raises the `psycopg.Error` of that one, or `psycopg.OperationalError` where the connection is lost, and closes
        it where it is cancelled: what is under way can't be told apart from what comes next.
        """
        self._results.clear()
        self._answered = self._loop.create_future()
        try:
            prepared = [self._send(command) for command in commands]
            self._libpq.pipeline_sync()
            self._flush()
            await self._answered
        except BaseException:
            await self.close()
            raise
        finally:
            self._answered = None
        return self._checked(prepared)

    async def close(self) -> None:
        if not self.closed:
            self._unwatch()
            await self._connection.close()

    def _send(self, command: Command) -> bytes | None:
        """Queue a command; the SQL of one that is kept from now on, for which there are two results."""
        sql, parameters = command.sql, command.parameters
        if not command.kept:
            self._libpq.send_query_params(sql, parameters, result_format=_BINARY)
            return None
        name = self._names.get(sql)
        is_new = name is None
        if name is None:
            name = self._names[sql] = b"remit_%d" % next(self._number)
            self._libpq.send_prepare(name, sql)
        self._libpq.send_query_prepared(name, parameters, [_BINARY] * len(parameters), _BINARY)
        return sql if is_new else None

    def _checked(self, prepared: Sequence[bytes | None]) -> list[pq.abc.PGresult]:
        """The results of commands, without those of preparing them. Raises the first error among them."""
        results = iter(self._results)
        found: list[pq.abc.PGresult] = []
        failed: pq.abc.PGresult | None = None
        for sql in prepared:
            if sql is not None:
                result = next(results)
                if result.status not in _ANSWERED:
                    # What was not prepared must be, next time.
                    del self._names[sql]
                    failed = failed or result
            result = next(results)
            if result.status not in _ANSWERED:
                failed = failed or result
            found.append(result)
        if failed is not None:
            raise error_from_result(failed)
        return found

    def _receive(self) -> None:
        """The socket has something to read."""
        waits = self._answered
        try:
            self._libpq.consume_input()
            while waits is not None and not self._libpq.is_busy():
                result = self._libpq.get_result()
                if result is None:
                    # The end of one command's results.
                    continue
                if result.status == pq.ExecStatus.PIPELINE_SYNC:
                    if not waits.done():
                        waits.set_result(None)
                    return
                self._results.append(result)
        except psycopg.Error as error:
            # The server has closed the connection, perhaps while nobody waits for it.
            self._unwatch()
            if waits is not None and not waits.done():
                waits.set_exception(error)

    def _flush(self) -> None:
        """Send as much as the socket takes, and the rest as it takes more."""
        left = bool(self._libpq.flush())
        if left and not self._is_sending:
            self._loop.add_writer(self._socket, self._flush)
        elif self._is_sending and not left:
            self._loop.remove_writer(self._socket)
        self._is_sending = left

    def _unwatch(self) -> None:
        self.closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)


def array(element: int, items: Sequence[bytes | None]) -> bytes:
    """Items in the binary form of a one-dimensional array; `element` is the OID of their type."""
    parts = [_HEAD.pack(1, None in items, element, len(items), 1)]
    for item in items:
        parts.append(_LENGTH.pack(-1 if item is None else len(item)))
        parts.append(item or b"")
    return b"".join(parts)


_HEAD = struct.Struct("!5i")
"""Number of dimensions, whether there are nulls, the type of the items; how many, and the number of the first."""
_LENGTH = struct.Struct("!i")

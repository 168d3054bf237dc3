"""OTLP/HTTP with Protobuf: spans encoded and sent, again where the receiver asks for that (opentelemetry.io/docs/specs/otlp)."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from remit.errors import ConfigError, ExportError
from remit.export.traces import SCHEMA_URL, Attribute, Attributes, Span

if TYPE_CHECKING:
    import httpx
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.trace.v1 import trace_pb2

Pause = Callable[[float], Awaitable[None]]
"""Waits so many seconds."""

_MOST_BYTES = 2 * 1024 * 1024
"""How large a request is about, at most; receivers take 4 MiB and more."""
_TIMEOUT_S = 10
_ATTEMPTS = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0
_AGAIN = frozenset({429, 502, 503, 504})
"""Answers after which the same request may be sent again, as the protocol has it."""


def endpoint(address: str) -> str:
    """Where spans are posted: `/v1/traces` below an address that does not end in it. Raises `ConfigError`."""
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable or parts.query or parts.fragment:
        raise ConfigError("the address of an OTLP receiver is `http://host:4318` or `https://…`, without a query")
    if parts.username or parts.password:
        raise ConfigError("a password has no place in the address of an OTLP receiver; set OTEL_EXPORTER_OTLP_HEADERS")
    plain = address.rstrip("/")
    return plain if plain.endswith("/v1/traces") else f"{plain}/v1/traces"


def headers_of(text: str) -> dict[str, str]:
    """`key=value,key=value`, the values percent-encoded, as OTEL_EXPORTER_OTLP_HEADERS has them."""
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}


class Encoder:
    """Makes requests of spans. Raises `ConfigError` where the extra is not installed."""

    def __init__(self, *, tenant: str, version: str) -> None:
        try:
            from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
            from opentelemetry.proto.trace.v1 import trace_pb2
        except ImportError as error:
            raise ConfigError("sending traces needs more: `pip install 'remit[otel]'`") from error
        self._request = trace_service_pb2.ExportTraceServiceRequest
        self._response = trace_service_pb2.ExportTraceServiceResponse
        self._trace = trace_pb2
        self._version = version
        self._resource: Attributes = {"service.name": "remit", "service.version": version, "remit.tenant": tenant}

    def requests(self, spans: Iterable[Span]) -> Iterator[bytes]:
        """The spans as requests of a size that receivers take."""
        group: list[trace_pb2.Span] = []
        size = 0
        for span in spans:
            encoded = self._span(span)
            if group and size + encoded.ByteSize() > _MOST_BYTES:
                yield self._encoded(group)
                group, size = [], 0
            group.append(encoded)
            size += encoded.ByteSize()
        if group:
            yield self._encoded(group)

    def refused(self, answer: bytes) -> str:
        """What a receiver says that it did not take, of an answer that sounds like success; empty for nothing."""
        from google.protobuf.message import DecodeError

        try:
            partial = self._response.FromString(answer).partial_success
        except DecodeError:
            return ""
        if not partial.rejected_spans:
            return ""
        return f"{partial.rejected_spans} spans refused: {partial.error_message or 'no reason given'}"

    def _encoded(self, spans: Sequence[trace_pb2.Span]) -> bytes:
        request = self._request()
        of_resource = request.resource_spans.add(schema_url=SCHEMA_URL)
        of_resource.resource.attributes.extend(_attributes(self._resource))
        of_scope = of_resource.scope_spans.add(schema_url=SCHEMA_URL)
        of_scope.scope.name, of_scope.scope.version = "remit", self._version
        of_scope.spans.extend(spans)
        return request.SerializeToString()

    def _span(self, span: Span) -> trace_pb2.Span:
        kinds, codes = self._trace.Span, self._trace.Status
        made = kinds(
            trace_id=span.trace_id,
            span_id=span.span_id,
            parent_span_id=span.parent_id,
            name=span.name,
            kind=kinds.SPAN_KIND_CLIENT if span.is_client else kinds.SPAN_KIND_INTERNAL,
            start_time_unix_nano=span.start * 1000,
            end_time_unix_nano=span.end * 1000,
            attributes=_attributes(span.attributes),
        )
        if span.error is not None:
            made.status.code, made.status.message = codes.STATUS_CODE_ERROR, span.error
        for event in span.events:
            made.events.add(
                name=event.name, time_unix_nano=event.at * 1000, attributes=_attributes(event.attributes)
            )
        for trace_id, span_id in span.links:
            made.links.add(trace_id=trace_id, span_id=span_id)
        return made


def _attributes(attributes: Attributes) -> list[KeyValue]:
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

    return [KeyValue(key=name, value=_value(value)) for name, value in attributes.items()]


def _value(value: Attribute) -> Any:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue

    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=item) for item in value]))


class Sender:
    """Posts requests to one receiver. `pause` waits between attempts; `attempts` is how often one is made at most."""

    def __init__(self, address: str, encoder: Encoder, *, pause: Pause = asyncio.sleep, attempts: int = _ATTEMPTS) -> None:
        self.url = endpoint(address)
        self._encoder = encoder
        self._pause = pause
        self._attempts = attempts

    async def send(self, request: bytes) -> None:
        """Post one request. Raises `ExportError` where it did not arrive, with what the receiver said last."""
        packed = gzip.compress(request, compresslevel=1)
        waited_s = _FIRST_PAUSE_S
        for attempt in range(1, self._attempts + 1):
            said, asked_s = await self._post(packed)
            if not said:
                return
            if asked_s is None or attempt == self._attempts:
                raise ExportError(f"`{self.url}` {said}")
            await self._pause(min(max(asked_s, waited_s), _LONGEST_PAUSE_S))
            waited_s *= 2

    async def close(self) -> None:
        """Close the connections, if any were made."""
        if "_client" in self.__dict__:
            await self._client.aclose()

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        import httpx

        fixed = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        given = headers_of(os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", ""))
        return httpx.AsyncClient(timeout=_TIMEOUT_S, headers={**given, **fixed})

    async def _post(self, packed: bytes) -> tuple[str, float | None]:
        """What went wrong, empty for nothing; and how long to wait before trying again, `None` for never."""
        import httpx

        try:
            answer = await self._client.post(self.url, content=packed)
        except httpx.HTTPError as error:
            return f"can't be reached: {type(error).__name__}", 0.0
        if answer.is_success:
            # What was refused would be refused again.
            return self._encoder.refused(answer.content), None
        if answer.status_code in _AGAIN:
            asked = answer.headers.get("retry-after", "")
            return f"answers {answer.status_code}", float(asked) if asked.isascii() and asked.isdigit() else 0.0
        return f"answers {answer.status_code}", None

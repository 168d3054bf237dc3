"""HTTP as a careful client of a system of record does it: every answer is sorted by whether a change may have happened.

| what happened | a read | a change |
|---|---|---|
| nothing was sent (refused, no such host, no free connection) | failed, retryable | failed, retryable |
| sent, then a time-out or a cut connection | failed, retryable | unknown |
| 2xx, but no JSON of the right shape, or too much of it | failed | unknown |
| 3xx (never followed) | failed | unknown |
| 401, 403, 404, 412, other 4xx | failed | failed |
| 429, or 503 that says when to come back | failed, retryable | failed, retryable |
| 500 or 400 for an exception, in Roundup's own words | failed, retryable | unknown, answered |
| other 5xx, 408, and a 400 that says nothing | failed, retryable | unknown |

*Failed* is ToolFailed, *unknown* is OutcomeUnknown, *answered* its code: the tracker has done with the request, so that
to read back tells what became of it. What is not answered, or by something in between, may be carried out yet.
Nothing is tried again here; that is for who called. Messages name the request and the tracker's own words, never
credentials.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from remit.errors import ConfigError, OutcomeUnknown, ToolFailed
from remit.tools.spec import ANSWERED

Parameters = Sequence[tuple[str, str]]
Body = Mapping[str, str | list[str]]

MAX_RETRY_AFTER_MS = 24 * 3_600_000
MAX_DETAIL_CHARS = 200
# What Roundup says when its own code raised something unforeseen; the change may be stored by then.
SERVER_SIDE_EXCEPTION = "An error occurred. Please check the server log"
# A precondition that failed is the conflict. Roundup's own 409 says that a value is not acceptable: `invalid`, as any
# status that is not listed.
CODES = {
    401: "credentials_rejected",
    403: "forbidden",
    404: "not_found",
    410: "not_found",
    412: "conflict",
    429: "rate_limited",
}

AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """A user of the tracker; the password is not in its text form."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How long to wait and how much to take.

    `total_timeout_ms` bounds a request as a whole, also one whose answer drips in. `keepalive_ms` stays below the 60 s
    after which Roundup closes an idle connection, so that a change is not sent into one that is just being closed.
    """

    connect_timeout_ms: int = 2_000
    read_timeout_ms: int = 10_000
    total_timeout_ms: int = 20_000
    keepalive_ms: int = 15_000
    connections: int = 16
    max_response_bytes: int = 16 * 1024 * 1024
    max_request_bytes: int = 1024 * 1024


@dataclass(kw_only=True)
class Attempt:
    """One request: what it is called in messages, whether it changes anything, and whether any of it has left."""

    name: str
    changes: bool
    left: bool = False

    async def trace(self, event: str, _: Mapping[str, object]) -> None:
        """Told by httpcore what it does; from the first event about the request itself, the tracker may know of it."""
        if event.endswith("send_request_headers.started"):
            self.left = True


class ErrorBody(msgspec.Struct, frozen=True):
    """What Roundup answers for an error: `{"error": {"status": …, "msg": …}}`."""

    class Error(msgspec.Struct, frozen=True):
        status: int
        msg: str

    error: Error


class DataBody(msgspec.Struct, frozen=True):
    """What Roundup answers otherwise: `{"data": …}`."""

    data: msgspec.Raw


class Transport:
    """The pooled connection to one tracker's `rest/data/`. Close it, or use it as an async context manager."""

    def __init__(self, url: str, credentials: Credentials, bounds: Bounds) -> None:
        self._bounds = bounds
        self._secret = credentials.password
        self._http = httpx.AsyncClient(
            base_url=f"{checked_url(url)}rest/data/",
            auth=httpx.BasicAuth(credentials.username, credentials.password),
            headers=headers_for(url),
            timeout=httpx.Timeout(bounds.read_timeout_ms / 1000, connect=bounds.connect_timeout_ms / 1000),
            limits=httpx.Limits(
                max_connections=bounds.connections,
                max_keepalive_connections=bounds.connections,
                keepalive_expiry=bounds.keepalive_ms / 1000,
            ),
            follow_redirects=False,
            # No proxy and no `.netrc` from the environment: either would send the credentials elsewhere.
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def read(self, path: str, answer: type[AnswerT], parameters: Parameters = ()) -> AnswerT:
        """GET; the `data` of the answer, checked to be an `answer`."""
        attempt = Attempt(name=f"GET {path}", changes=False)
        request = self._http.build_request("GET", path, params=list(parameters))
        return await self._send(attempt, request, answer)

    async def prepare(self, path: str, answer: type[AnswerT]) -> AnswerT:
        """POST something that changes no data, such as asking for a token; its errors are those of a read."""
        attempt = Attempt(name=f"POST {path}", changes=False)
        return await self._send(attempt, self._http.build_request("POST", path), answer)

    async def create(self, path: str, body: Body, answer: type[AnswerT]) -> AnswerT:
        """POST a new item."""
        attempt = Attempt(name=f"POST {path.partition('/@poe/')[0]}", changes=True)
        return await self._send(attempt, self._with_body("POST", path, body), answer)

    async def change(self, path: str, body: Body, etag: str, answer: type[AnswerT]) -> AnswerT:
        """PATCH an item that still has the entity tag."""
        attempt = Attempt(name=f"PATCH {path}", changes=True)
        request = self._with_body("PATCH", path, body)
        request.headers["If-Match"] = etag
        return await self._send(attempt, request, answer)

    def _with_body(self, method: str, path: str, body: Body) -> httpx.Request:
        content = msgspec.json.encode(body)
        if len(content) > self._bounds.max_request_bytes:
            raise ToolFailed(
                f"the request has {len(content)} bytes; send at most {self._bounds.max_request_bytes}", code="invalid"
            )
        return self._http.build_request(method, path, content=content, headers={"Content-Type": "application/json"})

    async def _send(self, attempt: Attempt, request: httpx.Request, answer: type[AnswerT]) -> AnswerT:
        request.extensions["trace"] = attempt.trace
        try:
            async with asyncio.timeout(self._bounds.total_timeout_ms / 1000):
                response = await self._http.send(request, stream=True)
                try:
                    body = await self._body(response)
                finally:
                    await response.aclose()
        except (TimeoutError, httpx.TransportError) as error:
            raise interrupted(attempt, error) from error
        if not 200 <= response.status_code < 300:
            raise self._refused(attempt, response, body)
        if body is None:
            raise untrusted(attempt, f"it is compressed or longer than {self._bounds.max_response_bytes} bytes")
        try:
            return msgspec.json.decode(msgspec.json.decode(body, type=DataBody).data, type=answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise untrusted(attempt, "it is not the JSON that Roundup sends") from None

    async def _body(self, response: httpx.Response) -> bytes | None:
        """The body, or None when it is compressed, which was not asked for, or longer than allowed."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            return None
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > self._bounds.max_response_bytes:
                return None
        return bytes(body)

    def _refused(self, attempt: Attempt, response: httpx.Response, body: bytes | None) -> ToolFailed | OutcomeUnknown:
        """The error for a status other than 2xx."""
        status = response.status_code
        detail = self._detail(body)
        message = f"`{attempt.name}` was answered with {status}" + (f": {detail}" if detail else "")
        retry_after_ms = parse_retry_after(response.headers.get("Retry-After"), time.time())
        if status == 429 or (status == 503 and retry_after_ms is not None):
            return ToolFailed(
                message, code=CODES.get(status, "unavailable"), retryable=True, retry_after_ms=retry_after_ms
            )
        unforeseen = status == 400 and (not detail or SERVER_SIDE_EXCEPTION in detail)
        if status >= 500 or status == 408 or unforeseen:
            if attempt.changes and detail and status in {400, 500}:
                return OutcomeUnknown(message, code=ANSWERED)
            if attempt.changes:
                return OutcomeUnknown(f"{message}; it may be carried out all the same")
            return ToolFailed(message, code="unavailable", retryable=True, retry_after_ms=retry_after_ms)
        if status < 400:
            hint = f"`{attempt.name}` was answered with a redirect ({status}), which is not followed; check the address"
            return OutcomeUnknown(hint) if attempt.changes else ToolFailed(hint, code="redirected")
        return ToolFailed(message, code=CODES.get(status, "invalid"))

    def _detail(self, body: bytes | None) -> str:
        """What the tracker says is wrong, in one short printable line; nothing when it isn't Roundup's own error."""
        try:
            text = msgspec.json.decode(body or b"", type=ErrorBody).error.msg
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ""
        line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
        return line.replace(self._secret, "***")[:MAX_DETAIL_CHARS]


def interrupted(attempt: Attempt, error: Exception) -> ToolFailed | OutcomeUnknown:
    """The error for a request that got no answer."""
    what = type(error).__name__
    if not attempt.left:
        return ToolFailed(
            f"`{attempt.name}` could not be sent ({what}); see that the tracker is running",
            code="unreachable",
            retryable=True,
        )
    if attempt.changes:
        return OutcomeUnknown(f"`{attempt.name}` was sent and not answered ({what}); it may have been carried out")
    code = "timeout" if isinstance(error, (TimeoutError, httpx.TimeoutException)) else "unreachable"
    return ToolFailed(f"`{attempt.name}` was not answered ({what})", code=code, retryable=True)


def untrusted(attempt: Attempt, why: str) -> ToolFailed | OutcomeUnknown:
    """The error for an answer that can't be believed."""
    message = f"the answer to `{attempt.name}` can't be used: {why}"
    if attempt.changes:
        return OutcomeUnknown(f"{message}; the change may have been carried out")
    return ToolFailed(message, code="malformed_answer")


def parse_retry_after(value: str | None, now_s: float) -> int | None:
    """How long to wait in milliseconds, from either form of the header (RFC 9110, section 10.2.3); at most a day."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        wait_ms = int(value[:9]) * 1000
    else:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        wait_ms = round((moment.timestamp() - now_s) * 1000)
    return min(max(wait_ms, 0), MAX_RETRY_AFTER_MS)


def checked_url(url: str) -> str:
    """The tracker's address with a slash at the end; ConfigError when credentials must not be sent there."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError("the tracker's address is not valid; give it as `https://host/tracker/`")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("the tracker's address holds a user name; give credentials apart from it")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ConfigError(f"the password would cross the network in the clear to `{parts.hostname}`; use `https`")
    return url if url.endswith("/") else f"{url}/"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def headers_for(url: str) -> dict[str, str]:
    """What Roundup requires against forged requests from a browser, and a plain, uncompressed answer."""
    parts = urlsplit(url)
    return {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Origin": f"{parts.scheme}://{parts.netloc}",
        "Referer": url,
        "User-Agent": "remit",
        "X-Requested-With": "remit",
    }

"""The tools of the example's account directory: look somebody up, reset the access to an account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from msgspec import Meta, Struct

from remit.errors import OutcomeUnknown, ToolError, ToolFailed
from remit.tools.decorator import to_json, tool
from remit.tools.spec import (
    Connection,
    Effect,
    FieldClass,
    Happened,
    Idempotency,
    Reconciled,
    Resource,
    Retry,
    ToolContext,
)
from remit.values import Json

AccountName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9.-]{2,31}$")]
Email = Annotated[str, Meta(pattern=r"^[^@\s]{1,64}@[^@\s]{1,190}$")]
Reason = Annotated[str, Meta(min_length=5, max_length=200)]
_T = TypeVar("_T", bound=Struct)
MAX_ANSWER_BYTES = 256 * 1024


class Account(Struct, frozen=True):
    """An account as the directory describes it.

    Attributes:
        shared: Whether several people use it, as a mailbox of a department.
    """

    account: str
    name: str
    email: str
    tenant: str
    region: str
    vip: bool
    privileged: bool
    status: Literal["active", "locked", "disabled"]
    shared: bool = False


class Found(Struct, frozen=True):
    """What the directory answers to a search."""

    accounts: list[Account]


class Reset(Struct, frozen=True):
    """A reset that was carried out."""

    reset: int
    account: str
    at: str


class DirectoryClient:
    """The directory's HTTP interface. Raises `ToolFailed` or `OutcomeUnknown`, whichever is true."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        """Speak over `http`; it holds the address and the secret."""
        self._http = http

    @classmethod
    def connect(cls, connection: Connection) -> DirectoryClient:
        """A client with its own pool of connections; `aclose` ends it."""
        headers = {"Authorization": f"Bearer {connection.secret.reveal()}", "Accept": "application/json"}
        # Proxies of the environment must not see the secret.
        return cls(httpx.AsyncClient(base_url=connection.url, headers=headers, trust_env=False))

    async def aclose(self) -> None:
        """Close the pool."""
        await self._http.aclose()

    async def find(self, tenant: str, email: str, *, timeout_ms: int) -> list[Account]:
        """The accounts of a tenant with an address."""
        query = httpx.QueryParams(tenant=tenant, email=email)
        answer = await self._read(f"/accounts?{query}", timeout_ms)
        return _decode(answer, Found, ToolFailed).accounts

    async def get(self, account: str, *, timeout_ms: int) -> tuple[Account, str]:
        """One account and its version. Raises `ToolFailed` with code `not_found`."""
        answer = await self._read(f"/accounts/{quote(account, safe='')}", timeout_ms)
        found = _decode(answer, Account, ToolFailed)
        if found.account != account:
            raise ToolFailed("the directory answered with another account", code="answer_malformed")
        return found, answer.headers.get("ETag", "")

    async def get_reset(self, key: str, *, timeout_ms: int) -> Reset:
        """The reset that carries an idempotency key. Raises `ToolFailed` with code `not_found`."""
        return _decode(await self._read(f"/resets/{quote(key, safe='')}", timeout_ms), Reset, ToolFailed)

    async def reset(self, account: str, reason: str, *, key: str, version: str | None, timeout_ms: int) -> Reset:
        """Reset the access to an account, once for `key`, and only if it is still at `version`."""
        headers = {"Idempotency-Key": key} | ({"If-Match": version} if version else {})
        path = f"/accounts/{quote(account, safe='')}/reset"
        request = self._http.build_request(
            "POST", path, json={"reason": reason}, headers=headers, timeout=timeout_ms / 1000
        )
        return _decode(await self._send(request, OutcomeUnknown), Reset, OutcomeUnknown)

    async def _read(self, path: str, timeout_ms: int) -> httpx.Response:
        return await self._send(self._http.build_request("GET", path, timeout=timeout_ms / 1000), ToolFailed)

    async def _send(self, request: httpx.Request, lost: type[ToolError]) -> httpx.Response:
        """Send, and judge the answer. `lost` is what to raise if it left and no clear answer came."""
        try:
            answer = await self._whole(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise ToolFailed(f"the directory can't be reached: {error}", code="unreachable", retryable=True) from error
        except httpx.HTTPError as error:
            raise _lost(lost, f"the directory did not answer: {type(error).__name__}", "no_answer") from error
        if answer.status_code < 300:
            return answer
        if answer.status_code in (429, 503):
            seconds = answer.headers.get("Retry-After", "")
            wait_ms = int(seconds) * 1000 if seconds.isascii() and seconds.isdigit() else None
            raise ToolFailed("the directory is busy", code="busy", retryable=True, retry_after_ms=wait_ms)
        if answer.status_code >= 500 or answer.status_code < 400:
            raise _lost(lost, f"the directory answered {answer.status_code}", "server_error")
        code, message = _explained(answer)
        raise ToolFailed(message, code=code)

    async def _whole(self, request: httpx.Request) -> httpx.Response:
        answer = await self._http.send(request, stream=True)
        try:
            data = b""
            async for piece in answer.aiter_bytes():
                data += piece
                if len(data) > MAX_ANSWER_BYTES:
                    raise httpx.DecodingError("the answer is too large", request=request)
        finally:
            await answer.aclose()
        headers = {name: answer.headers[name] for name in ("ETag", "Retry-After") if name in answer.headers}
        return httpx.Response(answer.status_code, headers=headers, content=data, request=request)


def _lost(kind: type[ToolError], message: str, code: str) -> ToolError:
    return ToolFailed(message, code=code, retryable=True) if kind is ToolFailed else kind(message, code=code)


class _Error(Struct, frozen=True):
    error: str
    message: str


def _explained(answer: httpx.Response) -> tuple[str, str]:
    try:
        said = msgspec.json.decode(answer.content, type=_Error)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "refused", f"the directory answered {answer.status_code}"
    return said.error, said.message


def _decode(answer: httpx.Response, kind: type[_T], unusable: type[ToolError]) -> _T:
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _lost(unusable, f"the directory's answer is malformed: {error}", "answer_malformed") from error


def _client(ctx: ToolContext) -> DirectoryClient:
    return ctx.client("directory", DirectoryClient.connect)


async def locate_account(ctx: ToolContext, args: Mapping[str, Json]) -> Resource:
    """The account that a call is about, as the directory has it now."""
    found, version = await _client(ctx).get(args["account"], timeout_ms=ctx.timeout_ms)
    return Resource(
        kind="Account",
        id=found.account,
        tenant=found.tenant,
        region=found.region,
        attributes={"vip": found.vip, "privileged": found.privileged, "status": found.status},
        version=version,
    )


async def find_reset(ctx: ToolContext, args: Mapping[str, Json]) -> Reconciled:
    """Whether the reset with this call's key was carried out: the directory keeps every one."""
    try:
        done = await _client(ctx).get_reset(ctx.idempotency_key, timeout_ms=ctx.timeout_ms)
    except ToolFailed as error:
        return Reconciled(happened=Happened.NO if error.code == "not_found" else Happened.UNCLEAR)
    if done.account != args["account"]:
        return Reconciled(happened=Happened.UNCLEAR)
    return Reconciled(happened=Happened.YES, result=to_json(done))


@tool(
    "directory.lookup",
    effects={Effect.READ},
    retry=Retry(attempts=3),
    timeout_ms=5_000,
    field_classes={
        "email": FieldClass.PERSONAL,
        "account": FieldClass.PERSONAL,
        "result.account": FieldClass.PERSONAL,
        "result.name": FieldClass.PERSONAL,
        "result.email": FieldClass.PERSONAL,
    },
)
async def lookup(ctx: ToolContext, email: Email | None = None, account: AccountName | None = None) -> Account | None:
    """Look an account up in the company's directory, by e-mail address or by account name.

    Give one of the two arguments. Only accounts of the caller's own tenant are ever found; the answer is null if
    there is none.

    Args:
        email: The whole address; its case does not matter.
        account: The account name, such as `m.keller`.
    """
    if (email is None) == (account is None):
        raise ToolFailed("give either `email` or `account`", code="arguments_invalid")
    client = _client(ctx)
    if email is not None:
        accounts = await client.find(ctx.tenant, email, timeout_ms=ctx.timeout_ms)
    else:
        accounts = await _by_name(client, str(account), ctx.timeout_ms)
    own = [each for each in accounts if each.tenant == ctx.tenant]
    if len(own) > 1:
        raise ToolFailed(f"{len(own)} accounts have this address; ask with `account`", code="ambiguous")
    return own[0] if own else None


async def _by_name(client: DirectoryClient, account: str, timeout_ms: int) -> list[Account]:
    try:
        found, _ = await client.get(account, timeout_ms=timeout_ms)
    except ToolFailed as error:
        if error.code == "not_found":
            return []
        raise
    return [found]


@tool(
    "directory.reset_access",
    effects={Effect.IRREVERSIBLE, Effect.PRIVILEGE},
    idempotency=Idempotency.KEYED,
    retry=Retry(attempts=3),
    timeout_ms=10_000,
    resource_kind="Account",
    resource_attributes={"vip": "Bool", "privileged": "Bool", "status": "String"},
    locate=locate_account,
    reconcile=find_reset,
    authority=["account"],
    field_classes={"account": FieldClass.PERSONAL, "result.account": FieldClass.PERSONAL},
)
async def reset_access(ctx: ToolContext, account: AccountName, reason: Reason) -> Reset:
    """End all sessions of an account, unlock it and mail its owner a new way in. Nothing takes that back.

    Args:
        account: The account name, such as `m.keller`.
        reason: Why, for the directory's log.
    """
    version = ctx.resource.version if ctx.resource is not None else None
    done = await _client(ctx).reset(
        account, reason, key=ctx.idempotency_key, version=version, timeout_ms=ctx.timeout_ms
    )
    if done.account != account:
        raise OutcomeUnknown("the directory answered about another account", code="answer_malformed")
    return done

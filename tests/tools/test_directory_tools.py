"""The example's directory: its service as a process of its own, its tools over HTTP."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from msgspec.structs import replace

from remit.errors import OutcomeUnknown, ToolError, ToolFailed
from remit.tools.registry import load_tools
from remit.tools.spec import Connection, Effect, Happened, Secret, Tool, ToolContext
from remit.values import Json

EXAMPLE = Path(__file__).parents[2] / "examples" / "it-tickets"
SECRET = "not-a-real-secret-only-for-tests"
TOOLS = load_tools(["tools/directory.py"], EXAMPLE)
LOOKUP, RESET = TOOLS["directory.lookup"], TOOLS["directory.reset_access"]
MARA, RALF, OTHER = "m.keller", "r.engel", "x.other"

ACCOUNTS = [
    {"account": MARA, "name": "Mara", "email": "Mara@shop.example", "tenant": "shop", "region": "eu"}
    | {"vip": True, "privileged": False, "status": "locked"},
    {"account": RALF, "name": "Ralf", "email": "ralf@shop.example", "tenant": "shop", "region": "eu"}
    | {"vip": False, "privileged": False, "status": "disabled"},
    {"account": OTHER, "name": "Xan", "email": "mara@shop.example", "tenant": "mill", "region": "eu"}
    | {"vip": False, "privileged": True, "status": "active"},
]


@dataclass(frozen=True, kw_only=True)
class Service:
    folder: Path
    url: str
    process: subprocess.Popen[str]


def start(folder: Path) -> Service:
    (folder / "data.json").write_text(json.dumps({"accounts": ACCOUNTS}))
    (folder / "secret").write_text(SECRET + "\n")
    script = str(EXAMPLE / "services" / "directory.py")
    files = ["--data", "data.json", "--state", "state.json", "--secret-file", "secret"]
    process = subprocess.Popen([sys.executable, script, *files], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return Service(folder=folder, url=json.loads(process.stdout.readline())["url"], process=process)


def stop(service: Service, number: signal.Signals = signal.SIGTERM) -> int:
    service.process.send_signal(number)
    service.process.communicate(timeout=10)
    return service.process.returncode


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    started = start(tmp_path)
    yield started
    if started.process.poll() is None:
        stop(started)


def ask(
    service: Service,
    method: str,
    path: str,
    *,
    data: bytes | None = None,
    secret: str = SECRET,
    **headers: str,
) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(service.url + path, data, {"Authorization": f"Bearer {secret}"} | named, method=method)
    try:
        with urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def reset(service: Service, key: str, account: str = MARA, reason: str = "locked out") -> tuple[int, Any]:
    data = json.dumps({"reason": reason}).encode()
    return ask(service, "POST", f"/accounts/{account}/reset", data=data, Idempotency_Key=key)


def test_without_the_secret_nothing_is_told(service: Service) -> None:
    assert ask(service, "GET", "/health", secret="") == (200, {"status": "ok"})
    for secret in ("", "wrong", SECRET + "x"):
        assert ask(service, "GET", f"/accounts/{MARA}", secret=secret)[0] == 401
    assert ask(service, "POST", f"/accounts/{MARA}/reset", data=b"{}", secret="wrong")[0] == 401


@pytest.mark.parametrize(
    ("path", "data", "headers", "status"),
    [
        (f"/accounts/{MARA}/reset", b'{"reason": "locked out"}', {}, 400),
        (f"/accounts/{MARA}/reset", b'{"reason": "x"}', {"Idempotency_Key": "key-12345"}, 400),
        (
            f"/accounts/{MARA}/reset",
            b'{"reason": "locked out", "x": 1}',
            {"Idempotency_Key": "key-12345"},
            400,
        ),
        (f"/accounts/{MARA}/reset", b"[" * 4000, {"Idempotency_Key": "key-12345"}, 400),
        (f"/accounts/{MARA}/reset", b"x" * 5000, {"Idempotency_Key": "key-12345"}, 413),
        ("/accounts/..%2Fx/reset", b'{"reason": "locked out"}', {"Idempotency_Key": "key-12345"}, 404),
        ("/accounts/nobody/reset", b'{"reason": "locked out"}', {"Idempotency_Key": "key-12345"}, 404),
        (f"/accounts/{RALF}/reset", b'{"reason": "locked out"}', {"Idempotency_Key": "key-12345"}, 409),
        (
            f"/accounts/{MARA}/reset",
            b'{"reason": "locked out"}',
            {"Idempotency_Key": "key-12345", "If_Match": '"old"'},
            412,
        ),
    ],
)
def test_a_bad_request_is_refused_and_changes_nothing(
    service: Service, path: str, data: bytes, headers: dict[str, str], status: int
) -> None:
    before = ask(service, "GET", f"/accounts/{MARA}")
    assert ask(service, "POST", path, data=data, **headers)[0] == status
    assert ask(service, "GET", f"/accounts/{MARA}") == before
    assert not (service.folder / "state.json").exists()


def test_one_key_resets_once_however_often_and_in_parallel_it_is_sent(service: Service) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(reset, [service] * 16, ["key-12345"] * 16))
    assert sorted({status for status, _ in answers}) == [200, 201]
    assert len({body["reset"] for _, body in answers}) == 1
    assert reset(service, "key-67890")[1]["reset"] == 2
    assert reset(service, "key-12345", reason="another reason")[0] == 422


def test_what_was_answered_survives_a_kill(service: Service, tmp_path: Path) -> None:
    _, first = reset(service, "key-12345")
    stop(service, signal.SIGKILL)
    again = start(tmp_path)
    try:
        assert ask(again, "GET", "/resets/key-12345") == (200, first)
        assert reset(again, "key-12345") == (200, first)
        assert ask(again, "GET", f"/accounts/{MARA}")[1]["status"] == "active"
    finally:
        assert stop(again) == 0


# The tools


def context(url: str, cache: dict[str, Any]) -> ToolContext:
    def client(name: str, connect: Callable[[Connection], Any]) -> Any:
        secret = Secret(name="directory", _text=SECRET)
        if name not in cache:
            cache[name] = connect(Connection(name=name, url=url, user="", secret=secret))
        return cache[name]

    return ToolContext(
        tenant="shop",
        run="r1",
        step="1",
        idempotency_key="k" * 64,
        timeout_ms=2_000,
        resource=None,
        client=client,
    )


@asynccontextmanager
async def at(url: str) -> AsyncGenerator[ToolContext]:
    cache: dict[str, Any] = {}
    try:
        yield context(url, cache)
    finally:
        for client in cache.values():
            await client.aclose()


async def reset_as_the_gate_does(ctx: ToolContext, account: str) -> Json:
    assert RESET.locate is not None
    args: Mapping[str, Json] = {"account": account, "reason": "locked out since Monday"}
    RESET.spec.input_validator.validate(args)
    located = await RESET.locate(ctx, args)
    result = await RESET.function(replace(ctx, resource=located), args)
    RESET.spec.output_validator.validate(result)
    return result


@pytest.mark.anyio
async def test_lookup_finds_only_accounts_of_the_own_tenant(service: Service) -> None:
    async with at(service.url) as ctx:
        by_mail = await LOOKUP.function(ctx, {"email": "mara@shop.example"})
        by_name = await LOOKUP.function(ctx, {"account": MARA})
        assert by_mail == by_name == ACCOUNTS[0] | {"shared": False}
        LOOKUP.spec.output_validator.validate(by_mail)
        assert await LOOKUP.function(ctx, {"account": OTHER}) is None
        assert await LOOKUP.function(ctx, {"account": "nobody"}) is None
        assert await LOOKUP.function(ctx, {"email": "a@b?c&tenant=mill#"}) is None


@pytest.mark.anyio
async def test_an_address_that_two_accounts_have_is_not_guessed_at() -> None:
    body = json.dumps({"accounts": [ACCOUNTS[0], ACCOUNTS[0] | {"account": "m.keller2"}]}).encode()
    with answering(200, body) as url:
        async with at(url) as ctx:
            error = await raised(LOOKUP.function(ctx, {"email": "mara@shop.example"}))
    assert error.code == "ambiguous"


@pytest.mark.anyio
@pytest.mark.parametrize("arguments", [{}, {"email": "a@b.example", "account": MARA}])
async def test_lookup_wants_one_of_its_two_arguments(service: Service, arguments: dict[str, Json]) -> None:
    async with at(service.url) as ctx:
        with pytest.raises(ToolFailed, match="give either"):
            await LOOKUP.function(ctx, arguments)


@pytest.mark.parametrize("account", ["M.keller", "m", "m/keller", "m.keller\n", "m.kellér", "a" * 33])
def test_names_that_can_not_be_accounts_are_malformed(account: str) -> None:
    assert not RESET.spec.input_validator.is_valid({"account": account, "reason": "locked out"})


@pytest.mark.anyio
async def test_a_reset_is_located_done_once_and_found_again(service: Service) -> None:
    assert RESET.locate is not None
    assert RESET.reconcile is not None
    async with at(service.url) as ctx:
        located = await RESET.locate(ctx, {"account": MARA})
        assert (located.kind, located.id, located.tenant, located.region) == ("Account", MARA, "shop", "eu")
        assert located.attributes == {"vip": True, "privileged": False, "status": "locked"}
        before = await RESET.reconcile(ctx, {"account": MARA})
        first = await reset_as_the_gate_does(ctx, MARA)
        second = await reset_as_the_gate_does(ctx, MARA)
        after = await RESET.reconcile(ctx, {"account": MARA})
        foreign = await RESET.reconcile(ctx, {"account": RALF})
    assert before.happened is Happened.NO
    assert first == second == after.result
    assert after.happened is Happened.YES
    assert foreign.happened is Happened.UNCLEAR


@pytest.mark.anyio
async def test_an_account_that_changed_since_it_was_judged_is_left_alone(service: Service) -> None:
    assert RESET.locate is not None
    async with at(service.url) as ctx:
        args = {"account": MARA, "reason": "locked out"}
        located = await RESET.locate(ctx, args)
        reset(service, "somebody-else")
        with pytest.raises(ToolFailed) as caught:
            await RESET.function(replace(ctx, resource=located), args)
    assert caught.value.code == "changed"
    assert not caught.value.retryable


@pytest.mark.anyio
async def test_unknown_and_disabled_accounts_fail_without_retry(service: Service) -> None:
    async with at(service.url) as ctx:
        for account, code in (("nobody", "not_found"), (RALF, "disabled")):
            with pytest.raises(ToolFailed) as caught:
                await reset_as_the_gate_does(ctx, account)
            assert (caught.value.code, caught.value.retryable) == (code, False)


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Generator[str]:
    """A directory that gives every request the same answer; status 0 hangs up without one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if status == 0:
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


async def raised(call: Awaitable[Any]) -> ToolError:
    with pytest.raises(ToolError) as caught:
        await call
    return caught.value


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "body", "read_code", "write_code"),
    [
        (0, b"", "no_answer", "no_answer"),
        (500, b"oops", "server_error", "server_error"),
        (302, b"", "server_error", "server_error"),
        (200, b"not json", "answer_malformed", "answer_malformed"),
        (200, b'{"accounts": [{}], "reset": "1"}', "answer_malformed", "answer_malformed"),
        (200, b"x" * 300_000, "no_answer", "no_answer"),
    ],
)
async def test_no_clear_answer_is_a_failed_read_and_an_unknown_write(
    status: int, body: bytes, read_code: str, write_code: str
) -> None:
    with answering(status, body) as url:
        async with at(url) as ctx:
            read = await raised(LOOKUP.function(ctx, {"email": "a@b.example"}))
            write = await raised(RESET.function(ctx, {"account": MARA, "reason": "locked out"}))
    assert (type(read), read.code) == (ToolFailed, read_code)
    assert (type(write), write.code) == (OutcomeUnknown, write_code)


@pytest.mark.anyio
async def test_an_answer_about_another_account_is_not_believed() -> None:
    assert RESET.locate is not None
    body = json.dumps(ACCOUNTS[0] | {"reset": 1, "at": "now"}).encode()
    with answering(200, body) as url:
        async with at(url) as ctx:
            args = {"account": RALF, "reason": "locked out"}
            read = await raised(RESET.locate(ctx, args))
            write = await raised(RESET.function(ctx, args))
    assert (type(read), read.code) == (ToolFailed, "answer_malformed")
    assert (type(write), write.code) == (OutcomeUnknown, "answer_malformed")


@pytest.mark.anyio
async def test_busy_and_unreachable_have_certainly_not_happened() -> None:
    with answering(429, b"{}", Retry_After="3") as url:
        async with at(url) as ctx:
            busy = await raised(RESET.function(ctx, {"account": MARA, "reason": "locked out"}))
    async with at(url) as ctx:
        gone = await raised(RESET.function(ctx, {"account": MARA, "reason": "locked out"}))
    assert isinstance(busy, ToolFailed)
    assert (busy.code, busy.retryable, busy.retry_after_ms) == ("busy", True, 3000)
    assert isinstance(gone, ToolFailed)
    assert (gone.code, gone.retryable) == ("unreachable", True)


def test_both_tools_say_what_they_do() -> None:
    assert RESET.spec.effects == {Effect.IRREVERSIBLE, Effect.PRIVILEGE}
    assert RESET.spec.authority == ("account",)
    assert RESET.compensation is None
    tools: list[Tool] = [LOOKUP, RESET]
    assert [tool.spec.is_pure_read for tool in tools] == [True, False]


def test_the_bundled_accounts_are_all_of_the_shape_that_the_tools_promise() -> None:
    data = json.loads((EXAMPLE / "data" / "directory.json").read_text(encoding="utf-8"))
    for account in data["accounts"]:
        LOOKUP.spec.output_validator.validate(account)
        assert RESET.spec.input_validator.is_valid({"account": account["account"], "reason": "locked out"})

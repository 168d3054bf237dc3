"""The launcher: a real tracker starts, is private, fails with a reason, and never leaves a process behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from faulty_http import client_of

from remit.connectors.roundup.installation import readable_by_all
from remit.connectors.roundup.server import RoundupServer, ServerError

WAIT_S = 20
SECRETS = ("admin.password", "remit-agent.password", "remit-intake.password", "etag.secret")

# Started as a process of its own, so that it can be killed or left behind.
PARENT = """
import asyncio, sys
from pathlib import Path
from remit.connectors.roundup.server import RoundupServer

async def main():
    server = await RoundupServer.start(Path(sys.argv[1]))
    if sys.argv[2] == "detach":
        server.detach()
    print(server.pid, server.url, flush=True)
    if sys.argv[2] == "wait":
        await asyncio.Event().wait()

asyncio.run(main())
"""


def as_root() -> bool:
    return os.geteuid() == 0


def parent(home: Path, then: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PARENT, home, then], stdout=subprocess.PIPE, text=True)


def announced(process: subprocess.Popen[str]) -> tuple[int, str]:
    assert process.stdout is not None
    pid, url = process.stdout.readline().split()
    return int(pid), url


def ends(pid: int) -> bool:
    """Whether a process that need not be our child ends within some seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], WAIT_S)[0])
    finally:
        os.close(descriptor)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def is_open(url: str) -> bool:
    parts = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((parts.hostname or "", parts.port or 0)) == 0


def process_status(pid: int) -> dict[str, str]:
    lines = Path("/proc", str(pid), "status").read_text(encoding="ascii").splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


async def responds(server: RoundupServer, url: str) -> bool:
    async with client_of(url, server.accounts.agent) as client:
        return (await client.search({}, limit=1)).limit == 1


@pytest.mark.anyio
async def test_a_tracker_answers_while_it_is_in_use_and_is_gone_afterwards(home: Path) -> None:
    server = await RoundupServer.start(home)
    with contextlib.suppress(LookupError):
        async with server:
            assert urlsplit(server.url).hostname == "127.0.0.1"
            assert await responds(server, server.url)
            raise LookupError("what the caller does goes wrong")
    assert ends(server.pid)
    assert not is_open(server.url)
    await server.stop()


@pytest.mark.anyio
async def test_secrets_are_only_in_private_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEBODYS_API_KEY", "a-secret-of-somebody")
    async with await RoundupServer.start(home) as server:
        values = [(home / name).read_text(encoding="ascii").strip() for name in SECRETS]
        assert {mode(home / name) for name in SECRETS} == {0o600}
        assert (mode(home), mode(home / "tracker")) == (0o700, 0o700)
        process = Path("/proc", str(server.pid))
        shown = repr(server.accounts) + server.log.read_text(encoding="utf-8")
        shown += (process / "cmdline").read_text(encoding="utf-8") + (process / "environ").read_text(encoding="utf-8")
        assert len({*values}) == len(SECRETS)
        assert all(len(value) >= 43 and value not in shown for value in values)
        assert server.accounts.agent.password == values[1]
        assert "a-secret-of-somebody" not in shown


@pytest.mark.anyio
async def test_a_folder_that_was_used_before_goes_on_with_its_data_and_passwords(home: Path) -> None:
    async with await RoundupServer.start(home) as first, client_of(first.url, first.accounts.intake) as client:
        number = (await client.create({"title": "kept"}, "K-1")).issue
        etag = (await client.read(number)).etag
    async with await RoundupServer.start(home) as second, client_of(second.url, second.accounts.agent) as client:
        assert second.accounts == first.accounts
        issue = await client.read(number)
        assert (issue.title, issue.etag) == ("kept", etag)


@pytest.mark.anyio
async def test_a_tracker_ends_when_the_process_that_started_it_is_killed(home: Path) -> None:
    with parent(home, "wait") as process:
        pid, url = announced(process)
        process.kill()
    assert ends(pid)
    assert not is_open(url)


@pytest.mark.anyio
async def test_a_tracker_ends_when_the_process_that_started_it_just_returns(home: Path) -> None:
    with parent(home, "return") as process:
        pid, _ = announced(process)
    assert ends(pid)


@pytest.mark.anyio
async def test_a_detached_tracker_stays_until_it_is_ended_by_its_process_id(home: Path) -> None:
    with parent(home, "detach") as process:
        pid, url = announced(process)
    assert process.returncode == 0
    try:
        with pytest.raises(ServerError, match=f"(?s){pid}.*end it first") as caught:
            await RoundupServer.start(home)
        assert caught.value.code == "tracker_running"
        assert is_open(url)
    finally:
        os.kill(pid, signal.SIGTERM)
    assert ends(pid)
    async with await RoundupServer.start(home) as server:
        assert await responds(server, server.url)


@pytest.mark.anyio
async def test_a_tracker_can_be_detached_only_once(home: Path) -> None:
    server = await RoundupServer.start(home)
    left = server.detach()
    await server.stop()
    assert is_open(left.url)
    with pytest.raises(ServerError, match="detached already"):
        server.detach()
    os.kill(left.pid, signal.SIGTERM)
    assert ends(left.pid)


@pytest.mark.anyio
async def test_a_port_that_is_in_use_is_named_and_no_process_is_left(home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServerError, match=f":{port}/.*is in use; choose another") as caught:
            await RoundupServer.start(home, port=port)
        assert caught.value.code == "port_taken"
    async with await RoundupServer.start(home, port=port) as server:
        assert server.url == f"http://127.0.0.1:{port}/tracker/"


@pytest.mark.anyio
async def test_a_start_that_fails_shows_the_end_of_the_log(home: Path) -> None:
    async with await RoundupServer.start(home):
        pass
    for name in ("db", "db-wal", "db-shm"):
        (home / "tracker" / "db" / name).unlink(missing_ok=True)
    (home / "tracker" / "db" / "db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(
        ServerError, match=r"(?s)ended with status \d.*last lines of .*file is not a database"
    ) as caught:
        await RoundupServer.start(home)
    assert caught.value.code == "tracker_not_started"


@pytest.mark.anyio
async def test_a_database_that_was_half_made_is_made_anew(home: Path) -> None:
    async with await RoundupServer.start(home):
        pass
    (home / "tracker" / "initialised").unlink()
    (home / "tracker" / "db" / "db").write_bytes(b"")
    if as_root():
        os.chown(home / "tracker" / "db" / "db", 65534, 65534)
    async with await RoundupServer.start(home) as server:
        assert await responds(server, server.url)


@pytest.mark.anyio
async def test_a_start_that_is_cancelled_leaves_nothing_behind(home: Path) -> None:
    log = home / "server.log"
    starting = asyncio.create_task(RoundupServer.start(home))
    while not log.exists():  # noqa: ASYNC110 - a file of another process has no event
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with await RoundupServer.start(home) as server:
        assert await responds(server, server.url)


@pytest.mark.anyio
@pytest.mark.skipif(not as_root(), reason="only root has to become somebody else")
async def test_for_root_the_tracker_runs_as_nobody_from_below_a_private_folder(home: Path) -> None:
    home.parent.chmod(0o700)
    async with await RoundupServer.start(home) as server:
        fields = process_status(server.pid)
        assert set(fields["Uid"].split()) == {"65534"}
        assert fields["Groups"].strip() == ""
        place = (home / "tracker").resolve().parent
        assert (place.stat().st_uid, stat.S_IMODE(place.stat().st_mode)) == (0, 0o711)
        assert {path.stat().st_uid for path in (place / "tracker").rglob("*")} == {65534}
        assert {path.stat().st_uid for path in (place / "site").rglob("*")} == {0}


def test_what_everybody_can_read_is_judged_from_the_root_down(tmp_path: Path) -> None:
    for folder in tmp_path.parents:
        if folder.stat().st_uid == os.geteuid() and folder.name.startswith("pytest"):
            folder.chmod(0o755)
    tmp_path.chmod(0o755)
    inner = tmp_path / "inner"
    inner.mkdir(mode=0o755)
    file = inner / "file"
    file.touch(mode=0o644)
    link = tmp_path / "link"
    link.symlink_to(file)
    assert readable_by_all(file, link, inner)
    file.chmod(0o640)
    assert not readable_by_all(link)
    file.chmod(0o644)
    inner.chmod(0o744)
    assert not readable_by_all(file)
    assert not readable_by_all(tmp_path / "missing")


@contextlib.contextmanager
def logged_in(server: RoundupServer) -> Generator[httpx.Client]:
    headers = {"Referer": server.url}
    with httpx.Client(base_url=server.url, follow_redirects=True, trust_env=False, headers=headers) as http:
        token = re.search(r'name="@csrf" type="hidden"\s+value="([^"]+)"', http.get("").text)
        assert token is not None
        form = {"__login_name": "admin", "__login_password": server.accounts.admin.password, "@csrf": token[1]}
        http.post("", data=form | {"@action": "Login", "__came_from": server.url})
        yield http


def test_the_pages_show_an_issue_with_our_fields_after_logging_in_and_nothing_before(tracker: RoundupServer) -> None:
    fields = {
        "title": "the <printer> burns",
        "body": "smoke & fire",
        "requester": "ana@northwind.example",
        "category": "hardware",
        "status": "open",
        "tenant": "northwind",
    }

    async def file() -> int:
        async with (
            client_of(tracker.url, tracker.accounts.intake) as intake,
            client_of(tracker.url, tracker.accounts.agent) as agent,
        ):
            issue = (await intake.create(fields, "PAGE-1")).issue
            await agent.note(issue, "the fire brigade is on its way", "page.1")
            return issue

    issue = asyncio.run(file())
    anonymous = httpx.get(f"{tracker.url}issue{issue}", trust_env=False).text
    assert "Log in to see this page" in anonymous
    assert not any(word in anonymous for word in ("printer", "smoke", "ana@northwind.example", "brigade"))
    with logged_in(tracker) as http:
        page = http.get(f"issue{issue}").text
        for words in (
            "the &lt;printer&gt; burns",
            "smoke &amp; fire",
            "ana@northwind.example",
            "External key",
            "PAGE-1",
        ):
            assert words in page
        assert "the fire brigade is on its way" in page
        assert page.count("remit-agent") >= 2
        for path in ("", "issue", "issue?@template=search", "user", "issue?@template=item", "home?@template=classlist"):
            response = http.get(path)
            assert response.status_code == 200, path
            assert "Hello, admin" in re.sub(r"<[^>]+>", "", response.text), path
        assert "the &lt;printer&gt; burns" in http.get("").text

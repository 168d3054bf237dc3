"""Starts a real Roundup tracker as a process of its own, on loopback, and always stops it.

    async with await RoundupServer.start(folder) as server:
        ...  # server.url, server.accounts.agent

or `await server.stop()`, or `server.detach()` to let it outlive this process.

Roundup runs `tracker_home/run.py` in its own session and is never imported here. Three things make sure that no
process is left behind: `stop` ends the whole process group; the tracker exits by itself when this process is gone,
even killed (the lifeline, see `run.py`); and a lock that the tracker's process holds keeps a second one away.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from remit.connectors.roundup.installation import OWN_FILES, Accounts, Installation, install, read_accounts, read_secret
from remit.errors import RemitError

HOST = "127.0.0.1"
PORT_ATTEMPTS = 5
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 3.0
POLL_INTERVAL_S = 0.02
TAIL_LINES = 12
BOUND = "Roundup server started on"
TAKEN = "port already in use"
PORT_TAKEN = "port_taken"


class ServerError(RemitError):
    """The tracker's process can't be started, or ended by itself; the message carries its log's last lines.

    Code `port_taken` when another process listens on the port, `tracker_running` when one is served from the folder.
    """

    code = "tracker_not_started"


@dataclass(frozen=True, kw_only=True)
class Detached:
    """A tracker that outlives this process: end it by its process id."""

    pid: int
    url: str


class RoundupServer:
    """A running tracker: `url` (ends in a slash), `accounts`, `pid`, and `log`, the file with its output."""

    def __init__(self, *, url: str, accounts: Accounts, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.accounts = accounts
        self.log = log
        self.pid = process.pid
        self._process: subprocess.Popen[bytes] | None = process

    @classmethod
    async def start(cls, home: Path, *, port: int = 0) -> Self:
        """Start the tracker kept in the folder `home`, which is made if need be, and wait until it answers.

        `port` 0 takes any free one. A folder that was used before goes on with its data. Raises ServerError, and
        ConfigError when Roundup is not installed.
        """
        with held(home) as lock:
            # Not in a thread, though it may take half a second the first time: a thread would go on copying when
            # this task is cancelled.
            installation = install(home)
            accounts = read_accounts(home)
            for _ in range(PORT_ATTEMPTS):
                chosen = port or free_port()
                try:
                    return await cls._start_on(chosen, home, installation, accounts, lock)
                except ServerError as error:
                    if port or error.code != PORT_TAKEN:
                        raise
        raise ServerError(
            f"no free port was found on {HOST} in {PORT_ATTEMPTS} attempts; name one with `port`", code=PORT_TAKEN
        )

    @classmethod
    async def _start_on(cls, port: int, home: Path, installation: Installation, accounts: Accounts, lock: int) -> Self:
        log = home / "server.log"
        url = f"http://{HOST}:{port}/tracker/"
        offset = log.stat().st_size if log.exists() else 0
        process = launch(installation, log, lock)
        server = cls(url=url, accounts=accounts, log=log, process=process)
        try:
            server._give_order(port, read_secret(home / "etag.secret"))
            async with asyncio.timeout(START_TIMEOUT_S):
                await server._wait_until_bound(offset)
                await server._wait_until_answering()
        except TimeoutError:
            await server.stop()
            raise ServerError(
                f"the tracker did not answer within {START_TIMEOUT_S:.0f} s; {last_lines(log, offset)}"
            ) from None
        except BaseException:
            await server.stop()
            raise
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps({"pid": process.pid, "url": url}).encode(), 0)
        return server

    async def stop(self) -> None:
        """End the tracker's process and whatever it started; does nothing when it is stopped or detached already."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            signal_group(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, STOP_TIMEOUT_S)
        finally:
            # Also reached when this task is cancelled while it waits: SIGKILL needs no time of grace.
            signal_group(process, signal.SIGKILL)
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()

    def detach(self) -> Detached:
        """Let the tracker live on when this process ends or `stop` is called; it can be ended by its process id."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            raise ServerError("the tracker is stopped or detached already; start it again")
        try:
            process.stdin.write(b"d")
            process.stdin.close()
        except BrokenPipeError:
            raise ServerError(f"the tracker has ended by itself; {last_lines(self.log)}") from None
        # Should the tracker end before this process does, somebody has to collect it.
        threading.Thread(target=process.wait, daemon=True).start()
        return Detached(pid=process.pid, url=self.url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _give_order(self, port: int, secret_key: str) -> None:
        """Tell the process what to serve; it reads this line, then keeps the other end as its lifeline."""
        assert self._process is not None
        assert self._process.stdin is not None
        template = (OWN_FILES / "config.ini").read_text(encoding="utf-8")
        order = {
            "config": template.format(web=self.url, secret_key=secret_key),
            "port": port,
            "accounts": {account["username"]: account for account in asdict(self.accounts).values()},
        }
        # A process that died at once is noticed, with its log, by who waits for it.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    async def _wait_until_bound(self, offset: int) -> None:
        """Wait for Roundup's own word that the port is its own, so that no other listener is taken for it."""
        assert self._process is not None
        while BOUND not in (output := read_from(self.log, offset)):
            status = self._process.poll()
            if status is not None:
                if TAKEN in output:
                    raise ServerError(
                        f"the port of `{self.url}` is in use; choose another, or 0 for any free one", code=PORT_TAKEN
                    )
                raise ServerError(f"the tracker's process ended with status {status}; {last_lines(self.log, offset)}")
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _wait_until_answering(self) -> None:
        """Ask for something over REST, with the agent's own account."""
        agent = self.accounts.agent
        auth = httpx.BasicAuth(agent.username, agent.password)
        async with httpx.AsyncClient(auth=auth, trust_env=False, timeout=START_TIMEOUT_S) as http:
            answer = await http.get(f"{self.url}rest/data/status")
        if answer.status_code != 200:
            raise ServerError(
                f"the tracker answered its first request with {answer.status_code}; if its passwords were changed, "
                f"remove the folder and start anew; {last_lines(self.log)}"
            )


def launch(installation: Installation, log: Path, lock: int) -> subprocess.Popen[bytes]:
    """Start the process, in a session and group of its own, with nothing inherited but the lock and its own streams."""
    uid, gid = installation.uid_gid or (None, None)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(  # noqa: S603 - a fixed command line
            [installation.executable, installation.tracker / "run.py", installation.tracker],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=installation.environment,
            cwd=installation.tracker,
            start_new_session=True,
            pass_fds=(lock,),
            umask=0o077,
            user=uid,
            group=gid,
            extra_groups=None if uid is None else (),
        )
    finally:
        os.close(output)


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the process's group; once the process is reaped, its id may be somebody else's and nothing is sent."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


@contextlib.contextmanager
def held(home: Path) -> Generator[int]:
    """Hold the folder's lock while a tracker is started; the tracker inherits it and holds it on while it lives."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = home / "server.lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError(
                f"a tracker of `{home}` is running already ({path.read_text(encoding='utf-8')}); end it first",
                code="tracker_running",
            ) from None
        yield lock
    finally:
        os.close(lock)


def free_port() -> int:
    """A port on loopback that nobody listens on at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def read_from(log: Path, offset: int = 0) -> str:
    """What was written to the log after `offset`, in bytes."""
    with log.open("rb") as file:
        file.seek(offset)
        return file.read().decode("utf-8", errors="replace")


def last_lines(log: Path, offset: int = 0) -> str:
    """The end of the log as part of a message."""
    lines = read_from(log, offset).splitlines()[-TAIL_LINES:]
    return f"the last lines of `{log}`:\n" + "\n".join(lines or ["(nothing was written)"])

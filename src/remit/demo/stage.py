"""The stage: a project folder to keep, a live tracker and a directory service, each its own process on loopback."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from remit.connectors.roundup.client import RoundupClient
from remit.connectors.roundup.installation import remove as remove_tracker
from remit.connectors.roundup.server import RoundupServer
from remit.connectors.roundup.transport import Credentials
from remit.contracts.paths import ensure_private
from remit.errors import ConfigError
from remit.identity.files import private_folder, write_private

_MARK = ".remit-demo"
_LOCKS = ("tracker/server.lock", ".remit/directory.lock")
"""Each service holds one of these locks for as long as it lives; the file names its process id."""
_START_TIMEOUT_S = 15


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Everything that runs. `intake` files tickets as the customers do; `watcher` only looks."""

    folder: Path
    tracker: RoundupServer
    directory_pid: int
    intake: RoundupClient
    watcher: RoundupClient

    @property
    def stop_command(self) -> str:
        """What ends both services."""
        return f"kill {self.tracker.pid} {self.directory_pid}"


def example_folder(name: str) -> Path:
    """An example: inside the installed package, or beside it in a checkout."""
    for found in (Path(__file__).parent / "examples" / name, Path(__file__).parents[3] / "examples" / name):
        if (found / "remit.toml").is_file():
            return found
    raise ConfigError(f"the example `{name}` is not part of this installation; install remit anew")


def make_project(folder: Path, example: Path) -> None:
    """Make the demo's project in `folder`; an earlier demo there is replaced, anything else is left alone.

    Raises `ConfigError` where the folder holds something else, or services of an earlier demo still run from it.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"`{folder}` is a file; choose another folder with `--dir`")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).is_file():
            raise ConfigError(f"`{folder}` holds something else; choose another folder with `--dir`")
        alive = list(_still_running(folder))
        if alive:
            raise ConfigError(
                f"services of an earlier demo still run from `{folder}`; stop them with "
                f"`kill {' '.join(map(str, alive))}`, or choose another folder with `--dir`"
            )
        remove_tracker(folder / "tracker")
        shutil.rmtree(folder)
    shutil.copytree(
        example, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".remit")
    )
    (folder / _MARK).write_text("made by `remit demo`, which may replace it\n", encoding="utf-8")
    private_folder(ensure_private(folder) / "secrets")


def _still_running(folder: Path) -> Iterator[int]:
    """The process ids of services that were started from an earlier demo's folder and live."""
    for name in _LOCKS:
        try:
            lock = os.open(folder / name, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield json.loads((folder / name).read_text(encoding="utf-8"))["pid"]
        finally:
            os.close(lock)


def raised(folder: Path, *, keep: bool) -> AbstractAsyncContextManager[Stage]:
    """Start both services and connect the project to them; stop them at the end, unless they are to be kept.

    Raises `RemitError` where one of them does not start; its message ends with what the service's log says.
    """
    # The services run in the folder, so a path relative to the caller means something else to them.
    return _raised(folder.resolve(), keep=keep)


@asynccontextmanager
async def _raised(folder: Path, *, keep: bool) -> AsyncGenerator[Stage, None]:
    tracker = await RoundupServer.start(folder / "tracker")
    try:
        async with _directory(folder, keep=keep) as (directory_url, directory_pid):
            _connect(folder, tracker, directory_url)
            agent, intake = tracker.accounts.agent, tracker.accounts.intake
            async with (
                RoundupClient(tracker.url, Credentials(username=intake.username, password=intake.password)) as filing,
                RoundupClient(tracker.url, Credentials(username=agent.username, password=agent.password)) as looking,
            ):
                yield Stage(
                    folder=folder, tracker=tracker, directory_pid=directory_pid, intake=filing, watcher=looking
                )
        if keep:
            tracker.detach()
    finally:
        await tracker.stop()


@asynccontextmanager
async def _directory(folder: Path, *, keep: bool) -> AsyncGenerator[tuple[str, int], None]:
    """The directory service as its own process, once it answers: its address and process id."""
    log = folder / ".remit" / "directory.log"
    process = _start_directory(folder, log, keep=keep)
    kept = False
    try:
        yield await _address(process, log), process.pid
        kept = keep
    finally:
        if not kept:
            process.terminate()
            await asyncio.to_thread(process.wait)


def _start_directory(folder: Path, log: Path, *, keep: bool) -> subprocess.Popen[bytes]:
    write_private(folder / ".remit" / "secrets" / "directory", secrets.token_urlsafe(32).encode())
    command = [sys.executable, "services/directory.py", "--data", "data/directory.json"]
    command += ["--state", ".remit/directory.json", "--secret-file", ".remit/secrets/directory"]
    lock = os.open(folder / ".remit" / "directory.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - a fixed command line
                command, cwd=folder, stdout=subprocess.PIPE, stderr=output, start_new_session=keep, pass_fds=(lock,)
            )
        os.pwrite(lock, json.dumps({"pid": process.pid}).encode(), 0)
    finally:
        os.close(lock)
    return process


async def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address that the directory prints. Raises `ConfigError` with the end of its log where it prints none."""
    assert process.stdout is not None
    with process.stdout as output:
        reading = asyncio.create_task(asyncio.to_thread(output.readline))
        done, _ = await asyncio.wait([reading], timeout=_START_TIMEOUT_S)
        if not done:
            # Then the thread that reads gets the end of the file.
            process.kill()
        line = await reading
    if not done or not line:
        raise ConfigError(f"the directory service did not start; `{log}` ends with: {_last_line(log)}")
    return str(json.loads(line)["url"])


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "(nothing was written)")


def _connect(folder: Path, tracker: RoundupServer, directory_url: str) -> None:
    """Write the addresses into remit.toml and the tracker's password into a file that only the owner reads."""
    write_private(folder / ".remit" / "secrets" / "tracker", tracker.accounts.agent.password.encode())
    path = folder / "remit.toml"
    text = path.read_text(encoding="utf-8")
    for old, new in (
        ("http://127.0.0.1:8080/", tracker.url),
        ("http://127.0.0.1:8081", directory_url),
        ("file://localhost/var/lib/orders.jsonl", f"file://localhost{quote(str(folder.resolve() / 'orders.jsonl'))}"),
        ('user = "remit-agent"', f'user = "{tracker.accounts.agent.username}"'),
    ):
        text = text.replace(old, new)
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)

"""The stage: a project folder to keep, a live tracker and a directory service, each its own process on loopback."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from remit.connectors.roundup.client import RoundupClient
from remit.connectors.roundup.installation import remove as remove_tracker
from remit.connectors.roundup.server import RoundupServer
from remit.connectors.roundup.transport import Credentials
from remit.errors import ConfigError
from remit.identity.files import private_folder, write_private
from remit.project import ensure_private

_MARK = ".remit-demo"
_START_TIMEOUT_S = 15


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Everything that runs. `intake` files tickets as the customers do; `watcher` only looks."""

    folder: Path
    tracker: RoundupServer
    intake: RoundupClient
    watcher: RoundupClient


def example_folder(name: str) -> Path:
    """An example: inside the installed package, or beside it in a checkout."""
    for found in (Path(__file__).parent / "examples" / name, Path(__file__).parents[3] / "examples" / name):
        if (found / "remit.toml").is_file():
            return found
    raise ConfigError(f"the example `{name}` is not part of this installation; install remit anew")


def make_project(folder: Path, example: Path) -> None:
    """Make the demo's project in `folder`; an earlier demo there is replaced, anything else is left alone.

    Raises `ConfigError` where the folder holds something else.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).is_file():
            raise ConfigError(f"`{folder}` holds something else; choose another folder with `--dir`")
        remove_tracker(folder / "tracker")
        shutil.rmtree(folder)
    shutil.copytree(
        example, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".remit")
    )
    (folder / _MARK).write_text("made by `remit demo`, which may replace it\n", encoding="utf-8")
    private_folder(ensure_private(folder) / "secrets")


@asynccontextmanager
async def raised(folder: Path, *, keep: bool) -> AsyncGenerator[Stage, None]:
    """Start both services and connect the project to them; stop them at the end, unless they are to be kept."""
    tracker = await RoundupServer.start(folder / "tracker")
    try:
        async with _directory(folder, keep=keep) as directory_url:
            _connect(folder, tracker, directory_url)
            agent, intake = tracker.accounts.agent, tracker.accounts.intake
            async with (
                RoundupClient(tracker.url, Credentials(username=intake.username, password=intake.password)) as filing,
                RoundupClient(tracker.url, Credentials(username=agent.username, password=agent.password)) as looking,
            ):
                yield Stage(folder=folder, tracker=tracker, intake=filing, watcher=looking)
    finally:
        if keep:
            tracker.detach()
        else:
            await tracker.stop()


@asynccontextmanager
async def _directory(folder: Path, *, keep: bool) -> AsyncGenerator[str, None]:
    """The directory service as its own process, which prints its address once it answers; kept if that is asked for."""
    secret = folder / ".remit" / "secrets" / "directory"
    write_private(secret, secrets.token_urlsafe(32).encode())
    arguments = ["--data", "data/directory.json", "--state", ".remit/directory.json", "--secret-file", str(secret)]
    with (folder / ".remit" / "directory.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "services/directory.py",
            *arguments,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=keep,
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_START_TIMEOUT_S):
            line = await process.stdout.readline()
        if not line:
            raise ConfigError("the directory service did not start; `.remit/directory.log` says why")
        yield json.loads(line)["url"]
    finally:
        if keep:
            (folder / ".remit" / "directory.pid").write_text(f"{process.pid}\n", encoding="utf-8")
        else:
            if process.returncode is None:
                process.terminate()
            await process.wait()


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

"""Where checkpoints go: a file beside the keys, and anchors that lie outside the reach of whoever runs the database.

A checkpoint proves something only to those who have it from elsewhere. An anchor is a folder (of another machine, or one
that only grows), a Git repository, or the address of an object store that takes PUT.
"""

from __future__ import annotations

import netrc
import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from remit.errors import StorageError
from remit.journal.sequencer import Publish

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 20


def publisher(targets: Iterable[Publish]) -> Publish:
    """Hands a checkpoint to each target; raises `StorageError` at the end for those that could not take it."""
    to = tuple(targets)

    def publish(note: str) -> None:
        failed: list[str] = []
        for target in to:
            try:
                target(note)
            except (OSError, StorageError) as error:
                failed.append(error.message if isinstance(error, StorageError) else str(error))
        if failed:
            raise StorageError("; ".join(failed), code="anchor_unavailable")

    return publish


def file_target(path: Path) -> Publish:
    """Appends each checkpoint to a file, followed by an empty line."""

    def publish(note: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with os.fdopen(handle, "ab") as file:
            file.write(f"{note}\n".encode())
            file.flush()
            os.fsync(handle)

    return publish


def anchor(address: str, name: str, folder: Path) -> Publish:
    """The target behind an address of `[record] anchors`. `name`: what the tenant's checkpoints are called there.

    `git:<folder>` commits to a repository, `https://…` is put to an object store, anything else is a folder. Paths are
    relative to `folder`. Name and password for a store stand in `~/.netrc`, or the file that NETRC names, never in the
    address: that is logged.
    """
    if address.startswith("git:"):
        return _git_target(folder / address.removeprefix("git:"), f"{name}.txt")
    if address.startswith(("https://", "http://")):
        return _store_target(address.rstrip("/"), name)
    return file_target(folder / address / f"{name}.txt")


def _git_target(repository: Path, file: str) -> Publish:
    append = file_target(repository / file)

    def publish(note: str) -> None:
        size = note.split("\n", 2)[1]
        _git(repository, ["rev-parse", "--git-dir"])
        append(note)
        _git(repository, ["add", "--", file])
        identity = ["-c", "user.name=remit", "-c", "user.email=remit@localhost", "-c", "commit.gpgsign=false"]
        _git(repository, [*identity, "commit", "--quiet", "-m", f"Checkpoint of {size} events", "--", file])

    return publish


def _git(repository: Path, arguments: Sequence[str]) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            ["git", "-C", str(repository), *arguments],  # noqa: S607 - the git that the user has
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StorageError(f"can't run git in `{repository}`: {error}", code="anchor_unavailable") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise StorageError(
            f"git can't anchor the checkpoint in `{repository}`: {said[-1] if said else 'it failed'}",
            code="anchor_unavailable",
        )


def _store_target(address: str, name: str) -> Publish:
    """One object a checkpoint, named by its size; an existing one is never replaced (RFC 9110, `If-None-Match`)."""
    split = urlsplit(address)
    # Whatever an address holds beside its place stays out of messages and logs.
    shown = f"{split.scheme}://{split.netloc.rpartition('@')[2]}{split.path}"

    def publish(note: str) -> None:
        import httpx

        size = note.split("\n", 2)[1]
        url = f"{address}/{quote(name)}/{int(size):012}.txt"
        try:
            answer = httpx.put(
                url, content=note.encode(), headers={"If-None-Match": "*"}, timeout=_TIMEOUT_S, auth=_credentials()
            )
        except netrc.NetrcParseError as error:
            raise StorageError(f"`{error.filename}` can't be read: {error.msg}", code="anchor_unavailable") from error
        except httpx.HTTPError as error:
            raise StorageError(f"can't reach anchor `{shown}`: {error}", code="anchor_unavailable") from error
        if not answer.is_success and answer.status_code != httpx.codes.PRECONDITION_FAILED:
            raise StorageError(f"anchor `{shown}` answers {answer.status_code}", code="anchor_unavailable")

    return publish


def _credentials() -> httpx.NetRCAuth | None:
    """What the user's `.netrc` says, where there is one. Raises `OSError`, `NetrcParseError`."""
    import httpx

    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    return httpx.NetRCAuth(str(path)) if path.is_file() else None

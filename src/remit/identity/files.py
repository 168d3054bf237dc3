"""Files that only their owner may read: written atomically with mode 0600, refused when anybody else could
read them.

A key that another user can read is not a key any more, so reading checks what writing promised, each time, on
the open file (never on a name that could be swapped in between).
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from remit.errors import IdentityError

FOLDER_MODE = 0o700
FILE_MODE = 0o600
MAX_BYTES = 64 * 1024
"""More than any key or password needs; a larger file is some other file."""

_LOCK_TIMEOUT_S = 10.0
_LOCK_POLL_S = 0.01
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def private_folder(path: Path) -> None:
    """Make `path` (and missing parents) with mode 0700, or check that an existing one is ours alone.

    Raises `IdentityError` with code `file_exposed`, `file_not_owned` or `file_unwritable`.
    """
    try:
        _make_folder(path)
        found = path.stat()
    except OSError as error:
        raise IdentityError(
            f"folder `{path}` can't be made: {_reason(error)}; make it yourself with mode 0700",
            code="file_unwritable",
        ) from error
    _check_owner(path, found)
    if found.st_mode & _OTHERS:
        raise IdentityError(
            f"folder `{path}` is open to other users (mode {stat.S_IMODE(found.st_mode):04o}); run `chmod 700 {path}`",
            code="file_exposed",
        )


def _make_folder(path: Path) -> None:
    if path.is_dir():
        return
    if path.parent != path:
        _make_folder(path.parent)
    with suppress(FileExistsError):  # another process was faster; the caller's check looks at what it made
        path.mkdir(mode=FOLDER_MODE)


def write_private(path: Path, data: bytes) -> None:
    """Replace `path` with `data`, readable by its owner alone; durable when it returns, whole or not at all.

    Raises `IdentityError` with code `file_unwritable`; the old content is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        try:
            _write_new(temporary, data)
            temporary.rename(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise IdentityError(
            f"`{path}` can't be written: {_reason(error)}; nothing was changed", code="file_unwritable"
        ) from error


def _write_new(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        # A strict umask may have taken the owner's bits too; nothing wider than 0600 ever existed.
        os.fchmod(descriptor, FILE_MODE)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_private(path: Path) -> bytes:
    """The content of a file that nobody else can read or write.

    Raises `IdentityError` with code `file_missing`, `file_unreadable`, `file_not_owned` or `file_exposed`.
    Symbolic links, pipes and devices are refused.
    """
    return _read(path, _OTHERS, "chmod 600")


def read_trusted(path: Path) -> bytes:
    """The content of a public file that nobody else can write (an issuer's public keys).

    Raises `IdentityError` as `read_private` does; who may read it does not matter.
    """
    return _read(path, _OTHERS_WRITE, "chmod go-w")


def _read(path: Path, refused: int, remedy: str) -> bytes:
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its writer before the check below can refuse it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot_open(path, error) from error
    try:
        _check_file(path, os.fstat(descriptor), refused, remedy)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        del data  # a traceback may show what its frames hold
        raise IdentityError(f"`{path}` is larger than {MAX_BYTES:,} bytes; name another file", code="file_unreadable")
    return data


def _check_file(path: Path, found: os.stat_result, refused: int, remedy: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise IdentityError(f"`{path}` is not a regular file; name the file itself", code="file_unreadable")
    _check_owner(path, found)
    if found.st_mode & refused:
        raise IdentityError(
            f"`{path}` is open to other users (mode {stat.S_IMODE(found.st_mode):04o}); run `{remedy} {path}`",
            code="file_exposed",
        )


def _cannot_open(path: Path, error: OSError) -> IdentityError:
    if error.errno == errno.ENOENT:
        return IdentityError(f"`{path}` does not exist; create it, readable by you alone", code="file_missing")
    if error.errno == errno.ELOOP:
        return IdentityError(f"`{path}` is a symbolic link; name the file it points to", code="file_unreadable")
    return IdentityError(f"`{path}` can't be read: {_reason(error)}", code="file_unreadable")


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise IdentityError(
            f"`{path}` belongs to user {found.st_uid}, and this process is user {os.geteuid()}; "
            f"run `chown {os.geteuid()} {path}`",
            code="file_not_owned",
        )


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold the folder's lock against other processes and threads, for a read followed by a write.

    What a killed writer left half done is swept first. Raises `IdentityError` with code `file_locked` when
    the lock isn't free within ten seconds, `file_unwritable` when it can't be made.
    """
    path = folder / ".lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise IdentityError(f"`{path}` can't be opened: {_reason(error)}", code="file_unwritable") from error
    try:
        _acquire(path, descriptor)
        for leftover in folder.glob(".*.tmp"):
            with suppress(OSError):
                leftover.unlink()
        yield
    finally:
        os.close(descriptor)  # closing frees the lock


def _acquire(path: Path, descriptor: int) -> None:
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise IdentityError(
                    f"`{path}` is held by another process; stop it or try again", code="file_locked"
                ) from error
            time.sleep(_LOCK_POLL_S)
        else:
            return

"""Secret files: written whole and private, refused when anybody else could read them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit.errors import IdentityError
from remit.identity.files import locked, private_folder, read_private, read_trusted, write_private

SECRET = b"correct horse battery staple"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277, 0o777])
def test_a_file_has_mode_0600_whatever_the_umask_is(tmp_path: Path, umask: None, mask: int) -> None:
    path = tmp_path / "key"
    os.umask(mask)
    write_private(path, SECRET)
    assert mode(path) == 0o600
    assert read_private(path) == SECRET


def test_a_folder_is_made_with_its_parents_for_its_owner_alone(tmp_path: Path, umask: None) -> None:
    folder = tmp_path / "project" / ".remit" / "keys"
    private_folder(folder)
    assert (mode(folder), mode(folder.parent)) == (0o700, 0o700)
    private_folder(folder)


@pytest.mark.parametrize("opened", [0o750, 0o705, 0o711, 0o777])
def test_a_folder_that_others_can_enter_is_refused_with_the_command_to_run(tmp_path: Path, opened: int) -> None:
    tmp_path.chmod(opened)
    with pytest.raises(IdentityError, match=f"run `chmod 700 {tmp_path}`") as caught:
        private_folder(tmp_path)
    assert caught.value.code == "file_exposed"


def test_a_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("x")
    with pytest.raises(IdentityError, match="can't be made") as caught:
        private_folder(tmp_path / "keys" / "inner")
    assert caught.value.code == "file_unwritable"


@pytest.mark.parametrize("opened", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666])
def test_a_key_that_others_can_reach_is_refused_with_the_command_to_run(tmp_path: Path, opened: int) -> None:
    path = tmp_path / "key"
    write_private(path, SECRET)
    path.chmod(opened)
    with pytest.raises(IdentityError, match=f"mode 0{opened:o}.*run `chmod 600 {path}`") as caught:
        read_private(path)
    assert caught.value.code == "file_exposed"
    assert SECRET.decode() not in str(caught.value)


def test_a_public_file_may_be_read_by_others_but_not_written(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(b"{}")
    path.chmod(0o644)
    assert read_trusted(path) == b"{}"
    path.chmod(0o664)
    with pytest.raises(IdentityError, match="chmod go-w") as caught:
        read_trusted(path)
    assert caught.value.code == "file_exposed"


def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    if os.geteuid() == 0:
        write_private(path, SECRET)
        os.chown(path, 12345, -1)
    else:
        path = Path("/etc/passwd")
    with pytest.raises(IdentityError, match=f"run `chown {os.geteuid()} {path}`") as caught:
        read_private(path)
    assert caught.value.code == "file_not_owned"


def test_links_pipes_folders_and_missing_files_are_refused_without_waiting(tmp_path: Path) -> None:
    write_private(tmp_path / "key", SECRET)
    (tmp_path / "link").symlink_to(tmp_path / "key")
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    codes: dict[str, str] = {}
    for name in ("link", "pipe", "folder", "absent"):
        with pytest.raises(IdentityError) as caught:
            read_private(tmp_path / name)
        codes[name] = caught.value.code
    assert codes == {
        "link": "file_unreadable",
        "pipe": "file_unreadable",
        "folder": "file_unreadable",
        "absent": "file_missing",
    }


def test_a_file_that_is_too_large_for_a_secret_is_refused(tmp_path: Path) -> None:
    write_private(tmp_path / "key", b"x" * (64 * 1024 + 1))
    with pytest.raises(IdentityError, match="larger than"):
        read_private(tmp_path / "key")


def test_writing_replaces_a_link_and_leaves_what_it_pointed_to_alone(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("untouched")
    path = tmp_path / "key"
    path.symlink_to(target)
    write_private(path, SECRET)
    assert target.read_text() == "untouched"
    assert not path.is_symlink()
    assert read_private(path) == SECRET


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    """The disk is full: the kernel refuses to write past ten bytes."""
    path = tmp_path / "key"
    write_private(path, SECRET)
    script = f"""
import resource, signal
from pathlib import Path
from remit.errors import IdentityError
from remit.identity.files import write_private
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    write_private(Path({str(path)!r}), b"n" * 100)
except IdentityError as error:
    print(error.code, error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("file_unwritable ")
    assert "nothing was changed" in done.stdout
    assert read_private(path) == SECRET
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_write_over_a_folder_fails_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(IdentityError, match="can't be written") as caught:
        write_private(tmp_path / "key", SECRET)
    assert caught.value.code == "file_unwritable"
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_the_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with locked(tmp_path):
            inside.append(number)
            most.append(len(inside))
            write_private(tmp_path / "key", str(number).encode())
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_what_a_killed_writer_left_is_swept_by_the_next_one(tmp_path: Path) -> None:
    (tmp_path / ".key.0123456789abcdef.tmp").write_bytes(SECRET)
    with locked(tmp_path):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == [".lock"]


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IdentityError) as caught, locked(tmp_path):
        pass
    assert caught.value.code == "file_unwritable"
    assert not (tmp_path / "elsewhere").exists()

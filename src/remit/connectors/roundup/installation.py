"""Where a tracker of one's own lives on disk, and which interpreter and user run it.

The folder that the caller names holds the passwords, the log and `tracker`, the tracker's home. Roundup refuses to run
as root, so for root everything that it needs is put where the user `nobody` can reach it, whatever the modes of the
caller's folders (a project below a 0700 `/root`, an interpreter in there too): a temporary folder owned by root, in it
`tracker`, owned by `nobody` and linked from the caller's folder, and copies of what can't be read otherwise. The
passwords and the log stay with the caller, and root never writes below a folder that `nobody` owns.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from remit.errors import ConfigError

OWN_FILES = Path(__file__).parent / "tracker_home"
PREFIX = "remit-roundup-"
UNPRIVILEGED = "nobody"
INHERITED = ("HOME", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE")
FIXED = {"LANG": "C.UTF-8", "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
NOT_COPIED = (
    *("test", "tests", "_test*", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data"),
    *("config-*", "site-packages", "dist-packages", "*.opt-[12].pyc"),
)
# What `initial_data.py` calls open comes first there; the stock templates list the ids of eight other statuses.
STOCK_OPEN_STATUSES = "-1,1,2,3,4,5,6,7"
OPEN_STATUSES = "-1,1,2"


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user of the tracker; the password is not in its text form."""

    username: str
    password: str = field(repr=False)
    realname: str
    role: str


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """The accounts that a new tracker has: `admin`, `remit-agent` (triages) and `remit-intake` (files issues)."""

    admin: Account
    agent: Account
    intake: Account


@dataclass(frozen=True, kw_only=True)
class Installation:
    """A tracker's home that is ready to be served, and how: interpreter, environment, and user unless the caller's."""

    tracker: Path
    executable: Path
    environment: dict[str, str]
    uid_gid: tuple[int, int] | None = None


def install(home: Path) -> Installation:
    """Make the folder `home` one that a tracker can be served from, keeping what an earlier call made there.

    Raises ConfigError when Roundup is missing, or root has no place that `nobody` can reach.
    """
    package = find_package()
    link = home.absolute() / "tracker"
    if os.geteuid() != 0:
        if not link.is_dir():
            populate(link)
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return Installation(tracker=link, executable=Path(sys.executable), environment=FIXED | inherited)
    return install_for_nobody(link, package)


def install_for_nobody(link: Path, package: Path) -> Installation:
    """Put tracker, package and, where needed, interpreter where `nobody` reaches them, and link the tracker."""
    try:
        user = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise ConfigError(
            f"Roundup doesn't run as root, and there is no user `{UNPRIVILEGED}`; run as a normal user"
        ) from None
    if not link.is_dir():
        place = new_place()
        try:
            fill_place(place, package, (user.pw_uid, user.pw_gid))
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        link.unlink(missing_ok=True)
        link.symlink_to(place / "tracker")
    tracker = link.resolve()
    place = tracker.parent
    environment = FIXED | {
        "HOME": str(tracker),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": str(place / "site"),
    }
    base = Path(sys.base_prefix)
    if (place / "python").is_dir():
        base = place / "python"
        environment |= {"PYTHONHOME": str(base), "LD_LIBRARY_PATH": str(base / "lib")}
    return Installation(
        tracker=tracker,
        executable=base / "bin" / version_name(),
        environment=environment,
        uid_gid=(user.pw_uid, user.pw_gid),
    )


def fill_place(place: Path, package: Path, uid_gid: tuple[int, int]) -> None:
    """Put into a new folder what `nobody` needs: the tracker, Roundup, and the interpreter if it can't be read."""
    populate(place / "tracker")
    shutil.copytree(package, place / "site" / package.name, ignore=shutil.ignore_patterns("test"))
    if not readable_by_all(*interpreter_files()):
        copy_interpreter(place / "python")
    give(place / "tracker", *uid_gid)


def remove(home: Path) -> None:
    """Delete the tracker of `home` with all its data, also where it is linked to; the tracker must not be running."""
    link = home / "tracker"
    if link.is_symlink():
        place = link.resolve().parent
        if place.name.startswith(PREFIX):
            shutil.rmtree(place, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)


def find_package() -> Path:
    """The folder of the package `roundup`, found without importing it."""
    spec = importlib.util.find_spec("roundup")
    if spec is None or spec.origin is None:
        raise ConfigError("`roundup` is not installed; install Remit with the extra `demo`")
    return Path(spec.origin).parent


def new_place() -> Path:
    """A new temporary folder that every user can pass through but only root can list or change."""
    for parent in (Path("/var/tmp"), Path(tempfile.gettempdir())):  # noqa: S108 - the folder below it is private
        if parent.is_dir() and readable_by_all(parent):
            place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            place.chmod(0o711)
            return place
    raise ConfigError(
        f"the user `{UNPRIVILEGED}` can reach neither `/var/tmp` nor `{tempfile.gettempdir()}`; "
        "set `TMPDIR` to a folder that every user may pass through"
    )


def populate(tracker: Path) -> None:
    """Write a new tracker's home: Roundup's classic pages and two of its detectors, and over them our own files.

    It appears at once or not at all.
    """
    unfinished = tracker.with_name(tracker.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    for name, source in classic_files():
        target = unfinished / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".html":
            page = source.read_text(encoding="utf-8").replace(STOCK_OPEN_STATUSES, OPEN_STATUSES)
            target.write_text(page, encoding="utf-8")
        else:
            shutil.copyfile(source, target)
    shutil.copytree(OWN_FILES, unfinished, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    unfinished.chmod(0o700)
    unfinished.rename(tracker)


def classic_files() -> Iterator[tuple[str, Path]]:
    """The pages and detectors of Roundup's `classic` template that are used, as (name in the home, file).

    Without `nosyreaction` no mail is sent, and without `statusauditor` a note doesn't change the status.
    """
    wanted = ("html/", "detectors/messagesummary.py", "detectors/userauditor.py")
    for file in importlib.metadata.files("roundup") or ():
        _, found, name = file.as_posix().partition("share/roundup/templates/classic/")
        if found and name.startswith(wanted):
            yield name, Path(str(file.locate()))


def read_accounts(home: Path) -> Accounts:
    """The accounts with their passwords, which are made at the first call and kept in files of mode 0600."""

    def account(username: str, realname: str, role: str) -> Account:
        password = read_secret(home / f"{username}.password")
        return Account(username=username, password=password, realname=realname, role=role)

    return Accounts(
        admin=account("admin", "Administrator", "Admin"),
        agent=account("remit-agent", "Remit agent", "Agent"),
        intake=account("remit-intake", "Remit intake", "Intake"),
    )


def read_secret(path: Path) -> str:
    """The secret kept in `path`: 256 random bits, written with mode 0600 by the first call."""
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    return path.read_text(encoding="ascii").strip()


def version_name() -> str:
    """The interpreter's file name, for example `python3.12`."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def interpreter_files() -> tuple[Path, ...]:
    """Files that stand for all that the base interpreter needs: itself, its library and its extension modules."""
    library = Path(sysconfig.get_path("stdlib"))
    return (Path(sys.base_prefix, "bin", version_name()), library / "os.py", library / "lib-dynload")


def copy_interpreter(target: Path) -> None:
    """Copy the base interpreter, without packages, tests and graphical parts, so that other users can run it.

    These are links where the file system allows: 80 MB less, and a second. Their owners and modes stay as they are.
    """
    base = Path(sys.base_prefix)
    (target / "bin").mkdir(parents=True)
    link_or_copy(str(base / "bin" / version_name()), str(target / "bin" / version_name()))
    library, ignore = Path(sysconfig.get_path("stdlib")), shutil.ignore_patterns(*NOT_COPIED)
    shutil.copytree(library, target / "lib" / version_name(), ignore=ignore, copy_function=link_or_copy)
    for shared in base.glob("lib/lib*.so*"):
        link_or_copy(str(shared), str(target / "lib" / shared.name))


def link_or_copy(source: str, target: str) -> None:
    """Give a file, or what a symbolic link points at, a second name; across file systems, copy it."""
    try:
        os.link(Path(source).resolve(), target)
    except OSError:
        shutil.copy2(source, target)


def readable_by_all(*paths: Path) -> bool:
    """Whether every user can read each of the files, or list each of the folders."""
    return all(is_readable_by_all(path) for path in paths)


def is_readable_by_all(path: Path) -> bool:
    """Whether every user can read one file or list one folder, judged by the modes from the root down."""
    try:
        resolved = path.resolve(strict=True)
        if not resolved.stat().st_mode & stat.S_IROTH:
            return False
        return all(parent.stat().st_mode & stat.S_IXOTH for parent in (resolved, *resolved.parents) if parent.is_dir())
    except OSError:
        return False


def give(folder: Path, uid: int, gid: int) -> None:
    """Make a user the owner of a folder and of all that is in it."""
    os.chown(folder, uid, gid)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(parent, name), uid, gid, follow_symlinks=False)

"""What can be verified, and what lies beside it: a project's folder, a database, or an exported file."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from remit_verify.database import Address
from remit_verify.report import Unreadable

STDIN = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the record is. Either `address` or `export` is set."""

    address: Address | None = None
    export: str = ""
    """An exported file, or `-` for standard input."""
    keys: Path | None = None
    """The folder with the keys that lies beside it."""
    published: Path | None = None
    """The folder with the published checkpoints that lies beside it."""

    def __str__(self) -> str:
        return str(self.address) if self.address is not None else self.export


def locate(name: str) -> Source:
    """Find out what `name` is: a folder with `remit.toml`, a SQLite file, a Postgres URL, an exported file or `-`.

    Raises `Unreadable`.
    """
    if name == STDIN:
        return Source(export=STDIN)
    if name.startswith(("postgresql:", "postgresql+psycopg:", "postgres:")):
        return Source(address=Address(url=_plain_url(name)))
    path = Path(name.removeprefix("sqlite:"))
    if path.is_dir():
        return _project(path)
    if not path.is_file():
        raise Unreadable(f"there is no file or folder `{path}`")
    if _is_export(path):
        return Source(export=str(path))
    return _file(path)


def _is_export(path: Path) -> bool:
    """An exported file begins with an object; a database by no means."""
    try:
        with path.open("rb") as file:
            return file.read(1) == b"{"
    except OSError as error:
        raise Unreadable(f"`{path}` can't be read: {error.strerror}") from error


def _file(path: Path) -> Source:
    """A database file; in the folder of a project it has its keys and checkpoints beside it."""
    beside = path.absolute().parent
    if not (beside / "keys").is_dir():
        return Source(address=Address(path=str(path)))
    return Source(address=Address(path=str(path)), keys=beside / "keys", published=beside / "checkpoints")


def _project(folder: Path) -> Source:
    path = folder / "remit.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Unreadable(f"there is no `remit.toml` in `{folder}`; name a project, a database or a file") from error
    except (OSError, ValueError) as error:
        raise Unreadable(f"`{path}` can't be read: {error}") from error
    section = document.get("project")
    project = cast("dict[str, Any]", section) if isinstance(section, dict) else {}
    url = project.get("database", "sqlite:.remit/remit.db")
    if not isinstance(url, str):
        raise Unreadable(f"`database` in `{path}` is no text; correct it, or name the database itself")
    private = folder / ".remit"
    if url.startswith("sqlite:"):
        file = folder / url.removeprefix("sqlite:").removeprefix("//")
        if not file.is_file():
            raise Unreadable(f"there is no database `{file}` yet; run something first")
        address = Address(path=str(file))
    else:
        address = Address(url=_plain_url(url), password=_password(project.get("secret"), folder))
    return Source(address=address, keys=private / "keys", published=private / "checkpoints")


def _password(secret: Any, folder: Path) -> str | None:
    """The password of the database, where `secret` names a file or a variable of the environment."""
    source = cast("dict[str, Any]", secret) if isinstance(secret, dict) else {}
    if isinstance(source.get("env"), str):
        return os.environ.get(source["env"])
    if isinstance(source.get("file"), str):
        try:
            return (folder / source["file"]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            raise Unreadable(f"the password of the database can't be read: {error}") from error
    if source:
        raise Unreadable("the password of the database is in a keyring; name the database by its URL, with PGPASSWORD set")
    return None


def _plain_url(url: str) -> str:
    return url.replace("postgresql+psycopg:", "postgresql:", 1)

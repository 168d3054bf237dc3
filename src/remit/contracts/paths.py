"""The folders of a project: where they lie, and what may be named in them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from remit.contracts.problems import quoted
from remit.errors import ConfigError

FILE: Final = "remit.toml"
PRIVATE: Final = ".remit"
CONTRACTS: Final = "contracts"


def find_project(start: Path | None = None) -> Path:
    """The nearest folder with a `remit.toml`, from `start` (the working directory) upwards. Raises `ConfigError`."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return folder
    raise ConfigError(f"no `{FILE}` in `{here}` or above it; run `remit init`, or name the project with `--project`")


def inside(project: Path, base: Path, reference: str) -> Path:
    """The path that `reference` names from `base`, which must not leave `project`, not by `..` and not by a link.

    The result is absolute and resolved; whether something is there is not asked. Raises `ConfigError`.
    """
    if not reference or "\0" in reference or Path(reference).is_absolute():
        raise ConfigError(f"path {quoted(reference)} is not relative; name a file inside the project")
    try:
        resolved = (base / reference).resolve()
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"path {quoted(reference)} goes round in circles; name a file inside the project") from error
    if not resolved.is_relative_to(project.resolve()):
        raise ConfigError(f"path {quoted(reference)} leads out of the project; move the file into it")
    return resolved


def contract_folders(folder: Path) -> tuple[Path, ...]:
    """The folders in `contracts/` of a project, by name; hidden ones are not meant."""
    try:
        found = sorted((folder / CONTRACTS).iterdir())
    except OSError:
        return ()
    return tuple(entry for entry in found if entry.is_dir() and entry.name[:1] not in "._")


def ensure_private(folder: Path) -> Path:
    """Make `.remit` in the project `folder`, mode 0700 and ignored by git; tighten it if it stands open.

    Returns its path. Raises `ConfigError` if it can't be made private.
    """
    private = folder / PRIVATE
    try:
        private.mkdir(mode=0o700, exist_ok=True)
        state = private.lstat()
        if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid():
            raise ConfigError(
                f"`{private}` must be a folder of its own that belongs to this user; move it out of the way"
            )
        if stat.S_IMODE(state.st_mode) != 0o700:
            private.chmod(0o700)
        ignore = private / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"`{private}` can't be made: {(error.strerror or 'unknown error').lower()}") from error
    return private

"""`remit init`: a small project that works, put in place as a whole or not at all."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Final

from remit.contracts.paths import FILE
from remit.contracts.problems import quoted
from remit.errors import ConfigError

_NAME = re.compile(r"[a-z][a-z0-9-]{0,47}", re.ASCII)
_CONTRACT: Final = {
    "contract.yaml": "contract.yaml.tmpl",
    "policy.cedar": "policy.cedar.tmpl",
    "policy_tests.yaml": "policy_tests.yaml.tmpl",
    "workflow.py": "workflow.py.tmpl",
    "schemas/request.json": "request.json.tmpl",
    "schemas/result.json": "result.json.tmpl",
    "evals/golden.jsonl": "golden.jsonl.tmpl",
}


def init_project(folder: Path, contract_name: str) -> tuple[Path, ...]:
    """Write a project with one contract over one example tool into `folder`, which may exist and hold other things.

    Returns the files that were written, relative to `folder`. Nothing that exists is touched: if one of the files is
    there already, nothing is written. Raises `ConfigError`.
    """
    texts = _texts(folder.resolve(), contract_name)
    try:
        blocking = sorted(path for path in texts if _is_in_the_way(folder, path))
        if blocking:
            shown = ", ".join(quoted(path.as_posix()) for path in blocking)
            raise ConfigError(f"in the way in {quoted(folder)}: {shown}; move them, or choose another folder or name")
        _write(folder, texts)
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        raise ConfigError(f"no project can be written to {quoted(folder)}: {reason}; nothing was changed") from error
    return tuple(sorted(texts))


def _texts(folder: Path, contract_name: str) -> dict[Path, str]:
    if not _NAME.fullmatch(contract_name):
        raise ConfigError(
            f"{quoted(contract_name)} can't be the name of a contract; use lower-case letters, digits and hyphens"
        )
    function = contract_name.replace("-", "_")
    if keyword.iskeyword(function):
        raise ConfigError(
            f"{quoted(contract_name)} is a word of Python, and the workflow is named like it; choose another"
        )
    names = {"contract": contract_name, "function": function, "project": _project_name(folder)}
    places = {FILE: "remit.toml.tmpl", "record.cedar": "record.cedar.tmpl", "tools/notes.py": "notes.py.tmpl"}
    places |= {f"contracts/{contract_name}/{path}": template for path, template in _CONTRACT.items()}
    return {Path(path): _filled(template, names) for path, template in places.items()}


def _filled(template: str, names: dict[str, str]) -> str:
    text = files("remit.contracts").joinpath("templates", template).read_text(encoding="utf-8")
    return re.sub(r"@@([a-z]+)@@", lambda found: names[found[1]], text)


def _project_name(folder: Path) -> str:
    """The folder's name, as far as it can be one of a project."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-").lstrip("0123456789-")[:48].rstrip("-")
    return name if _NAME.fullmatch(name) else "project"


def _is_in_the_way(folder: Path, path: Path) -> bool:
    """Whether `path` is there already, or can't be, because what should be a folder above it is none."""
    if os.path.lexists(folder / path):
        return True
    above = (folder, *(folder / parent for parent in path.parents))
    return any(os.path.lexists(parent) and not parent.is_dir() for parent in above)


def _write(folder: Path, texts: dict[Path, str]) -> None:
    """Write all files apart, then move them into place; what was moved is taken back if that does not end well."""
    home = folder if folder.is_dir() else folder.parent
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".remit-init-", dir=home) as name:
        # A folder in the temporary one, which is only for its owner; this one is as open as any new folder.
        made = Path(name) / "project"
        for path, text in texts.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_text(text, encoding="utf-8")
        if home != folder:
            made.rename(folder)
            return
        with _undone_on_failure() as moved:
            # The file that makes it a project comes last: until then nothing takes it for one.
            for part in sorted(_parts(folder, texts), key=lambda part: part == Path(FILE)):
                _move(made / part, folder / part, moved)


def _parts(folder: Path, texts: dict[Path, str]) -> set[Path]:
    """The largest parts of the project that are not there yet: whole folders where these are new, else files."""
    return {
        next(part for part in (*reversed(path.parents[:-1]), path) if not (folder / part).exists()) for path in texts
    }


def _move(source: Path, target: Path, moved: list[Path]) -> None:
    if source.is_dir():
        # Fails for a folder that has come into being in the meantime, unless it is empty.
        source.rename(target)
        moved.append(target)
        return
    # A rename would replace a file that has come into being in the meantime; this can't.
    with target.open("xb") as file:
        moved.append(target)
        file.write(source.read_bytes())


@contextmanager
def _undone_on_failure() -> Generator[list[Path]]:
    moved: list[Path] = []
    try:
        yield moved
    except BaseException:
        for path in reversed(moved):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise

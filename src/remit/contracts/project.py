"""The project: a folder with a `remit.toml` in it, read and checked."""

from __future__ import annotations

from pathlib import Path

from remit.contracts.document import Document, Unreadable, read_text
from remit.contracts.partial import partial
from remit.contracts.paths import CONTRACTS, FILE, PRIVATE, contract_folders, inside
from remit.contracts.problems import ProjectInvalid, errors
from remit.contracts.project_file import ProjectFile
from remit.contracts.project_rules import project_problems
from remit.contracts.toml_lines import parse_toml
from remit.contracts.wording import check_shape
from remit.errors import ConfigError


class Project(ProjectFile, frozen=True, kw_only=True):
    """A loaded project: the sections of its file, and its folder (absolute, symbolic links resolved)."""

    folder: Path

    @property
    def private(self) -> Path:
        """`.remit`: keys, secrets, the database. `ensure_private` makes it."""
        return self.folder / PRIVATE

    @property
    def contracts(self) -> tuple[Path, ...]:
        """The folders of the contracts, by name."""
        return contract_folders(self.folder)

    @property
    def roles(self) -> frozenset[str]:
        """Every role that some person holds."""
        return frozenset(role for person in self.people.values() for role in person.roles)

    def contract_folder(self, name: str) -> Path:
        """The folder of the contract `name`. Raises `ConfigError` if there is none, or the name is no name."""
        for folder in self.contracts:
            if folder.name == name:
                return folder
        known = ", ".join(folder.name for folder in self.contracts) or "none"
        raise ConfigError(f"there is no contract `{name}` in `{CONTRACTS}/`; contracts here: {known}")

    def path(self, reference: str) -> Path:
        """The file that `reference` names, relative to the project and inside it. Raises `ConfigError`."""
        return inside(self.folder, self.folder, reference)


def load_project(folder: Path) -> Project:
    """Read and check `remit.toml`. Raises `ProjectInvalid` with every problem that it has."""
    document = read_project(folder)
    problems = [*document.problems, *check_shape(document, ProjectFile), *project_problems(document, folder)]
    project = convert_project(document, folder)
    if project is None or errors(problems):
        raise ProjectInvalid(problems)
    return project


def read_project(folder: Path) -> Document:
    """`remit.toml` as it stands, with its lines; a file that can't be read is a broken document."""
    try:
        return parse_toml(read_text(folder / FILE, FILE), FILE)
    except Unreadable as error:
        return Document(file=FILE, value=None, lines={}, problems=(error.problem,), broken=frozenset({()}))


def convert_project(document: Document, folder: Path) -> Project | None:
    """The project that a document describes, parts that are wrong left out; `None` if it describes none."""
    typed = partial(document, ProjectFile)
    return Project(folder=folder.resolve(), **typed.values) if "project" in typed.values else None

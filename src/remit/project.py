"""The project: a folder with a `remit.toml` in it, its sections in types, and the places that lie in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, field

from remit.contracts.document import Document, Unreadable, read_text
from remit.contracts.model import Base, Limits, Name, Role
from remit.contracts.partial import partial
from remit.contracts.problems import ProjectInvalid, errors, quoted
from remit.contracts.schema import Schema, editor_schema, strict_schema
from remit.contracts.toml_lines import parse_toml
from remit.contracts.wording import check_shape
from remit.errors import ConfigError

FILE: Final = "remit.toml"
PRIVATE: Final = ".remit"
CONTRACTS: Final = "contracts"

PersonId = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9._@+-]{0,63}$",
        description="lower-case letters, digits and `._@+-`, a letter or digit first",
    ),
]
Region = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,31}$", description="`eu`")]
AsymmetricAlgorithm = Literal["EdDSA", "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]


class SecretSource(Base, frozen=True, kw_only=True):
    """Where a credential is found when it is needed; exactly one of the three."""

    file: str | None = None
    """Path of a file that only its owner may read; relative to the project, or absolute."""
    env: str | None = None
    """Name of an environment variable."""
    keyring: str | None = None
    """`service/user` in the system's keyring."""


class ProjectSection(Base, frozen=True, kw_only=True):
    """What the project is called and where it keeps its record."""

    name: Name
    """The project's name."""
    tenant: Name
    """The tenant that all of its contracts act for."""
    region: Region
    """The region that all of its contracts run in."""
    database: str = "sqlite:.remit/remit.db"
    """`sqlite:<path>`, relative to the project, or `postgresql://user@host/db`, the password apart in `secret`."""
    secret: SecretSource | None = None
    """Where the password of the database is found."""


class ToolsSection(Base, frozen=True, kw_only=True):
    """Where the tools come from."""

    modules: list[str] = field(default_factory=list[str])
    """Modules that can be imported (`remit.connectors.roundup.tools`), or `.py` files relative to the project."""


class ConnectionSection(Base, frozen=True, kw_only=True):
    """A system of record: where it is reached and as whom. The agent never sees any of it."""

    url: str
    """The address, without a password."""
    user: str
    """The account that the gateway uses there."""
    secret: SecretSource
    """Where the credential of that account is found."""


class ModelSection(Base, frozen=True, kw_only=True):
    """A model that contracts may bind."""

    kind: Literal["classifier", "llm"]
    """`classifier`: a local text classifier with calibrated probabilities. `llm`: a language model of a provider."""
    training: str | None = None
    """For a classifier: a JSONL file of labelled examples, relative to the project."""
    model: str | None = None
    """For an LLM: `provider:name`, such as `openai:gpt-5-mini`."""
    base_url: str | None = None
    """For an LLM behind an OpenAI-compatible server: its address."""
    secret: SecretSource | None = None
    """For an LLM: where its key is found."""


class IssuerSection(Base, frozen=True, kw_only=True):
    """An outside issuer of tokens that is trusted to say who somebody is."""

    issuer: str
    """The `iss` claim, exactly."""
    jwks: str
    """Its keys: an `https://` address, or a file relative to the project."""
    audience: str
    """The `aud` claim that its tokens must carry."""
    algorithms: Annotated[list[AsymmetricAlgorithm], Meta(min_length=1)]
    """The signature algorithms that are accepted; asymmetric ones only."""
    people_claim: str = "sub"
    """The claim that names the person."""


class IdentitySection(Base, frozen=True, kw_only=True):
    """The tokens that principals act with."""

    audience: str = "remit"
    """The `aud` claim of the tokens that are issued here."""
    algorithm: Literal["EdDSA", "ES256"] = "EdDSA"
    """The signature algorithm of the tokens that are issued here."""
    token_minutes: Annotated[int, Meta(ge=1, le=15)] = 10
    """How long a token is valid, in minutes; at most 15."""
    issuers: list[IssuerSection] = field(default_factory=list[IssuerSection])
    """Outside issuers that are trusted as well."""


class RecordSection(Base, frozen=True, kw_only=True):
    """What is done with the record beside keeping it."""

    anchors: list[str] = field(default_factory=list[str])
    """Where signed checkpoints are put as well: a folder, `git:<repository>`, or the `https://` address of an object
    store that takes PUT; outside the reach of whoever runs the database, so that nobody can rewrite the past unseen."""


class QueueSection(Base, frozen=True, kw_only=True):
    """A queue of cases and the roles that work on it."""

    roles: Annotated[list[Name], Meta(min_length=1)]
    """The roles that take cases from the queue, without the prefix `role:`."""


class ReleasesSection(Base, frozen=True, kw_only=True):
    """How a change of a contract goes live."""

    approval: Role | None = None
    """The role that approves a release; left out, a contract runs from its folder as it is."""


class PersonSection(Base, frozen=True, kw_only=True):
    """A person who may approve, or be acted for. Whoever is not declared is nobody."""

    name: str
    """The name that others read."""
    roles: list[Name] = field(default_factory=list[Name])
    """The roles that the person holds, without the prefix `role:`."""


class ProjectFile(Base, frozen=True, kw_only=True):
    """`remit.toml`."""

    project: ProjectSection
    """What the project is called and where it keeps its record."""
    tools: ToolsSection = ToolsSection()
    """Where the tools come from."""
    connections: dict[Name, ConnectionSection] = field(default_factory=dict[str, ConnectionSection])
    """The systems of record, by the name that tools use."""
    models: dict[Name, ModelSection] = field(default_factory=dict[str, ModelSection])
    """The models, by the name that contracts use."""
    limits: Limits = Limits()
    """Limits over everything that the tenant's agents do."""
    identity: IdentitySection = IdentitySection()
    """The tokens that principals act with."""
    record: RecordSection = RecordSection()
    """What is done with the record beside keeping it."""
    queues: dict[Name, QueueSection] = field(default_factory=dict[str, QueueSection])
    """The queues that cases go to."""
    releases: ReleasesSection = ReleasesSection()
    """How a change of a contract goes live."""
    people: dict[PersonId, PersonSection] = field(default_factory=dict[str, PersonSection])
    """The people, by the id in `person/<id>`."""


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

    def secret_path(self, source: SecretSource) -> Path:
        """The file of `source`: relative to the project and inside it, or absolute. Raises `ConfigError`."""
        reference = source.file or ""
        return Path(reference) if Path(reference).is_absolute() else self.path(reference)

    def people_with(self, roles: list[str]) -> tuple[str, ...]:
        """The ids of the people who hold at least one of `roles` (without the prefix `role:`)."""
        return tuple(name for name, person in self.people.items() if set(roles) & set(person.roles))


def find_project(start: Path | None = None) -> Path:
    """The nearest folder with a `remit.toml`, from `start` (the working directory) upwards. Raises `ConfigError`."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return folder
    raise ConfigError(f"no `{FILE}` in `{here}` or above it; run `remit init`, or name the project with `--project`")


def load_project(folder: Path) -> Project:
    """Read and check `remit.toml`. Raises `ProjectInvalid` with every problem that it has."""
    # The rules are about this module's types.
    from remit.contracts.project_rules import project_problems

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


def project_schema() -> Schema:
    """The schema of `remit.toml` for editors (`remit schema project`)."""
    return editor_schema(strict_schema(ProjectFile), title="Remit project")


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

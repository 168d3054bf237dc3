"""The memory of a project, as `[memory]` of its remit.toml has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from remit.contracts.project import Project
from remit.errors import ConfigError
from remit.identity.people import People
from remit.identity.secrets import SecretStore
from remit.journal.journal import Journal
from remit.journal.redaction import Redactor
from remit.journal.register import Register
from remit.journal.vault import Vault
from remit.memory.embedding import embedding_of, is_remote
from remit.memory.keeping import SCOPE as KEEP_MEMORY
from remit.memory.keeping import Keeping
from remit.memory.memory import Memory
from remit.memory.shelf import Shelf
from remit.memory.tools import Opened, memory_tools
from remit.storage.database import Database
from remit.tools.registry import load_tools
from remit.tools.spec import Tool


class MemoryParts(Protocol):
    """What the memory of a project is made of; an open project has all of it."""

    @property
    def project(self) -> Project: ...
    @property
    def secrets(self) -> SecretStore: ...
    @property
    def database(self) -> Database: ...
    @property
    def vault(self) -> Vault: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def register(self) -> Register: ...
    @property
    def redactor(self) -> Redactor: ...
    @property
    def tenant(self) -> str: ...


def open_keeping(parts: MemoryParts, people: People) -> Keeping:
    """The memory of a project, and who keeps it. Nothing is read yet. Raises `ConfigError` where there is none."""
    project = parts.project
    if project.memory is None:
        raise ConfigError(
            "this project has no memory; add a section `[memory]` to remit.toml, with `keepers`, the roles that keep it",
            code="memory_not_declared",
        )
    memory = Memory(
        Shelf(parts.database, parts.vault, parts.tenant),
        journal=parts.journal,
        redactor=parts.redactor,
        embedding=lambda: embedding_of(project, parts.secrets),
        roles=people.roles_held,
    )
    return Keeping(
        memory,
        register=parts.register,
        redactor=parts.redactor,
        people=people,
        keepers=project.memory.keepers,
        region=project.project.region,
    )


def no_memory() -> Memory:
    """Where nobody calls a tool, nothing is opened."""
    raise ConfigError("the memory is not open here")


def project_tools(project: Project, memory: Opened = no_memory) -> Mapping[str, Tool]:
    """Every tool of a project by name, sorted: those of its modules and, where it has a memory, those of that.

    Raises `ConfigError` as `load_tools` does, and for a tool that takes the name of one of memory.
    """
    tools = load_tools(project.tools.modules, project.folder)
    if project.memory is None:
        return tools
    own = memory_tools(memory, remote=is_remote(project))
    for name in own.keys() & tools.keys():
        raise ConfigError(f"tool `{name}` is one of memory; rename yours, or take `[memory]` out of remit.toml")
    return dict(sorted({**tools, **own}.items()))


__all__ = ["KEEP_MEMORY", "Keeping", "MemoryParts", "no_memory", "open_keeping", "project_tools"]

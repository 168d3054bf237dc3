"""A contract under examination: what it says as far as it could be typed, and what it may refer to."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from remit.contracts.document import Document, children
from remit.contracts.files import Code, ContractFiles
from remit.contracts.model import (
    Action,
    Budget,
    Contract,
    Escalation,
    Fact,
    Limits,
    ModelBinding,
    Owner,
    Prefetch,
    Schedule,
    Slo,
    Style,
    Success,
)
from remit.contracts.partial import Partial, partial
from remit.contracts.problems import Problem, Severity
from remit.contracts.project import Project
from remit.contracts.project_file import ProjectFile
from remit.tools.spec import ToolSpec
from remit.values import Json, Path

_MISSING: Any = object()
_IRRELEVANT_TO_POLICY: Final[dict[str, Any]] = {
    "owner": Owner(team="", contact=""),
    "purpose": "",
    "style": Style.WORKFLOW,
    "input": "",
    "output": "",
    "budget": Budget(calls=1),
    "escalate": Escalation(to="queue:none", sla="1h"),
    "success": Success(metric=""),
    "slo": Slo(),
}


@dataclass(frozen=True, kw_only=True)
class Known:
    """The names of `remit.toml` that a contract may refer to; `None` where they could not be read, so not be judged."""

    tenant: str | None = None
    region: str | None = None
    queues: frozenset[str] | None = None
    models: Mapping[str, str] | None = None
    """Name → kind; the kind is empty where it could not be read."""
    people: frozenset[str] | None = None
    roles: frozenset[str] | None = None

    @staticmethod
    def of(project: Project) -> Known:
        """What a project without problems declares."""
        return Known(
            tenant=project.project.tenant,
            region=project.project.region,
            queues=frozenset(project.queues),
            models={name: model.kind for name, model in project.models.items()},
            people=frozenset(project.people),
            roles=project.roles,
        )

    @staticmethod
    def of_document(document: Document) -> Known:
        """What a `remit.toml` with problems declares as far as it can be told: by name, whatever stands under it."""
        typed = partial(document, ProjectFile)
        section = typed.values.get("project")
        models = _names(document, "models")
        kinds = {name: model.kind for name, model in typed.values.get("models", {}).items()}
        roles = {role for person in typed.values.get("people", {}).values() for role in person.roles}
        return Known(
            tenant=getattr(section, "tenant", None),
            region=getattr(section, "region", None),
            queues=_names(document, "queues"),
            models=None if models is None else {name: kinds.get(name, "") for name in models},
            people=_names(document, "people"),
            roles=frozenset(roles) if typed.whole else None,
        )


def _names(document: Document, section: str) -> frozenset[str] | None:
    if document.is_broken(()):
        return None
    table = dict(children(document.value)).get(section, {})
    return frozenset(str(key) for key, _ in children(table)) if isinstance(table, dict) else None


class Subject:
    """A contract under examination. Fields that could not be typed are `None`, or empty where they hold many.

    `tools` is `None` where the tools could not be loaded, so not be judged.
    """

    def __init__(
        self, document: Document, files: ContractFiles, known: Known, tools: Mapping[str, ToolSpec] | None
    ) -> None:
        self.document = document
        self.files = files
        self.known = known
        self.tools = tools
        self.typed: Partial = partial(document, Contract)
        values = self.typed.values
        self.name: str | None = values.get("contract")
        self.style: Style | None = values.get("style")
        self.author: str | None = values.get("author")
        self.tenant: str | None = values.get("tenant")
        self.region: str | None = values.get("region")
        self.untrusted_input: tuple[str, ...] = values.get("untrusted_input", ())
        self.actions: list[Action] = values.get("actions", [])
        self.models: dict[str, ModelBinding] = values.get("models", {})
        self.facts: dict[str, Fact] = values.get("facts", {})
        self.prefetch: list[Prefetch] = values.get("prefetch", [])
        self.schedule: list[Schedule] = values.get("schedule", [])
        self.budget: Budget | None = values.get("budget")
        self.limits: Limits = values.get("limits", Limits())
        self.per_person: Limits = values.get("per_person", Limits())
        self.escalate: Escalation | None = values.get("escalate")
        self.success: Success | None = values.get("success")
        self.slo: Slo | None = values.get("slo")
        self.retention: str | None = values.get("retention")
        self.erase_after: str | None = values.get("erase_after")

    @property
    def contract(self) -> Contract | None:
        """The contract as a whole, where every part of it could be typed."""
        return Contract(**self.typed.values) if self.typed.whole else None

    def for_policy(self) -> Contract | None:
        """The contract as far as policy depends on it; `None` if a part of that could not be typed.

        What policy does not ask about may be missing, so that a forgotten owner hides no mistake in a policy.
        """
        raw = dict(children(self.document.value))
        sections = {"actions": self.actions, "facts": self.facts}
        if any(len(raw.get(key) or ()) != len(typed) for key, typed in sections.items()):
            return None
        fields = {**_IRRELEVANT_TO_POLICY, **self.typed.values}
        fields["tenant"] = self.tenant or self.known.tenant or "unknown"
        fields["region"] = self.region or self.known.region
        return Contract(**fields) if {"contract", "actions"} <= fields.keys() else None

    @property
    def tools_are_known(self) -> bool:
        """Whether every tool that the contract grants or asks about is known."""
        facts = [getattr(fact, kind) for fact in self.facts.values() for kind in ("seen", "count", "sum", "last")]
        named = {action.tool for action in self.actions} | {tool for tool in facts if tool is not None}
        return self.tools is not None and all(name in self.tools or name.startswith("model:") for name in named)

    def tool(self, name: str) -> ToolSpec | None:
        """The spec of a tool; `None` where there is none, or none can be told."""
        return self.tools.get(name) if self.tools is not None else None

    def error(self, path: Path, message: str, suggestion: str = "") -> Problem:
        """An error at `path` of the typed values."""
        return self.document.problem(self.typed.origin(path), message, suggestion)

    def warning(self, path: Path, message: str, suggestion: str = "") -> Problem:
        """A warning at `path` of the typed values."""
        line = self.document.line(self.typed.origin(path))
        return Problem(
            file=self.document.file,
            line=line,
            message=message,
            suggestion=suggestion,
            severity=Severity.WARNING,
        )

    def is_absent(self, path: Path) -> bool:
        """Whether the document says nothing at `path`: no key, or an empty mapping or list.

        Rules about what is missing ask this, because a part that is wrong is left out of the typed values.
        """
        origin = self.typed.origin(path)
        if self.document.is_broken(origin):
            return False
        value = self.raw(origin)
        return value is _MISSING or value in ({}, [])

    def raw(self, origin: Path) -> Json:
        """What the document holds at a path of its own; a value like no other where there is nothing."""
        value: Json = self.document.value
        for part in origin:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return _MISSING
        return value


def rule_names(actions: list[Action]) -> frozenset[str]:
    """The functions of `workflow.py` that verify calls."""
    named = (name for action in actions for name in action.verify)
    return frozenset(name.removeprefix("rule:") for name in named if name.startswith("rule:"))


def entry_point(contract: str, workflow: Code, rules: frozenset[str]) -> str | None:
    """The function that a workflow starts with: named like the contract, with `_` for `-`, and `async`.

    Where there is none of that name it is the only public `async def` that verifies nothing; `None` if that is not one.
    """
    named = contract.replace("-", "_")
    if isinstance(workflow.functions.get(named), ast.AsyncFunctionDef):
        return named
    public = [
        name
        for name, node in workflow.functions.items()
        if isinstance(node, ast.AsyncFunctionDef) and not name.startswith("_") and name not in rules
    ]
    return public[0] if len(public) == 1 else None

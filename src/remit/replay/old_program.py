"""The program of a release as the archive has it: its own workflow, contract and policy, whatever the project holds now.

Its tools have specs and no functions: a replay that goes by it never calls one.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import jsonschema_rs
import msgspec

from remit.contracts.files import WORKFLOW_FILE, Code
from remit.contracts.model import Action, Contract
from remit.contracts.quantities import per_mille
from remit.contracts.subject import entry_point, rule_names
from remit.errors import ConfigError
from remit.gate.authority import Authority
from remit.policy.decision import PolicyDecisionPoint
from remit.releases.archive import ArchivedRelease, ReleaseArchive
from remit.runs.program import Program, Workflow
from remit.tools.source import FileLoader
from remit.tools.spec import Tool, ToolContext, ToolSpec, spec_from
from remit.values import Json, decode


def old_program(archive: ReleaseArchive, release: str) -> Program:
    """The program of a release. Raises `ConfigError` (code `release_not_kept`) where the archive does not suffice."""
    kept = archive.get(release)
    if kept is None:
        raise _not_kept(release, "it was not kept")
    contract = contract_of(kept)
    specs = specs_of(archive, kept)
    return Program(
        authority=_authority(kept, contract, specs),
        bundle=kept.bundle,
        input_validator=jsonschema_rs.Draft202012Validator(kept.bundle["input"], validate_formats=True),
        output_validator=jsonschema_rs.Draft202012Validator(kept.bundle["output"], validate_formats=True),
        workflow=_workflow(archive, kept, contract),
    )


def contract_of(kept: ArchivedRelease) -> Contract:
    """The contract of a release. Raises `ConfigError` (code `release_not_kept`)."""
    try:
        return msgspec.convert(kept.bundle["contract"], Contract)
    except (msgspec.ValidationError, KeyError) as error:
        raise _not_kept(kept.release, f"its contract is of another version of Remit: {error}") from error


def specs_of(archive: ReleaseArchive, kept: ArchivedRelease) -> dict[str, ToolSpec]:
    """The tools of a release as they were declared. Raises `ConfigError` (code `release_not_kept`)."""
    if not kept.specs:
        raise _not_kept(kept.release, "the specs of its tools were not kept")
    texts = archive.texts(kept.specs.values())
    specs: dict[str, ToolSpec] = {}
    for name, digest in kept.specs.items():
        if digest not in texts:
            raise _not_kept(kept.release, f"the spec of `{name}` was not kept")
        specs[name] = spec_from(cast("dict[str, Any]", decode(texts[digest])))
    return specs


def _authority(kept: ArchivedRelease, contract: Contract, specs: Mapping[str, ToolSpec]) -> Authority:
    floor = contract.escalate.when.confidence_below
    actions = [*contract.actions, *(Action(tool=f"model:{name}") for name in contract.models)]
    return Authority(
        contract=contract,
        release=kept.release,
        tenant=contract.tenant or "",
        region=contract.region,
        principal=f"agent/{contract.tenant}/{contract.contract}",
        tools={name: Tool(spec=spec, function=_not_called) for name, spec in specs.items()},
        actions={action.tool: action for action in actions},
        policy=PolicyDecisionPoint.build(contract, specs, kept.bundle["policy"]),
        limits={},
        spends={},
        verifiers={},
        fact_classes={},
        confidence_floor=None if floor is None else per_mille(floor),
    )


async def _not_called(_context: ToolContext, _args: Mapping[str, Json]) -> Json:
    raise AssertionError("a tool of the archive is never called")


def _workflow(archive: ReleaseArchive, kept: ArchivedRelease, contract: Contract) -> Workflow | None:
    digest = kept.bundle["code"].get(WORKFLOW_FILE)
    if contract.style != "workflow" or digest is None:
        return None
    text = archive.texts([digest]).get(digest)
    if text is None:
        raise _not_kept(kept.release, f"the text of its {WORKFLOW_FILE} was not kept")
    path = Path(WORKFLOW_FILE)
    functions = {
        node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    entry = entry_point(contract.contract, Code(path=path, functions=functions), rule_names(contract.actions))
    return getattr(_module(kept.release, text), entry) if entry else None


class _Archived(FileLoader):
    """Loads a module from a text of the archive."""

    def __init__(self, name: str, text: bytes) -> None:
        super().__init__(name, f"<{name}>", WORKFLOW_FILE)
        self._text = text

    def get_data(self, path: str) -> bytes:  # noqa: ARG002 - there is but one text
        return self._text


def _module(release: str, text: bytes) -> ModuleType:
    # Not among the modules of this process: the present workflow of the contract stays the one that others find.
    name = f"remit_archived_{release[:12]}"
    loader = _Archived(name, text)
    module = module_from_spec(ModuleSpec(name, loader))
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        said = f"its {WORKFLOW_FILE} can't be imported any more: {type(error).__name__}: {error}"
        raise _not_kept(release, said) from error
    return module


def _not_kept(release: str, why: str) -> ConfigError:
    message = f"release `{release[:12]}` can't be rebuilt: {why}; try `--code present`"
    return ConfigError(message, code="release_not_kept")

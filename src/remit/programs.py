"""The programs of a project's contracts: each loaded once, from exactly the text that its release names."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from remit.contracts.document import Unreadable, read_text
from remit.contracts.files import WORKFLOW_FILE
from remit.contracts.load import LoadedContract, load_contract
from remit.contracts.model import Action, Budget, Contract, Schedule
from remit.contracts.project import Project
from remit.contracts.quantities import MICROUSD_PER_UNIT, amount, per_mille
from remit.errors import ConfigError, RunError
from remit.gate.authority import Authority, Verifier
from remit.identity.principals import PrincipalKind, Principals
from remit.identity.secrets import SecretStore
from remit.journal.journal import Clock
from remit.limits.rules import compile_limits
from remit.memory.project import no_memory, project_tools
from remit.memory.tools import Opened
from remit.policy.decision import PolicyDecisionPoint
from remit.policy.session import tool_of
from remit.releases.archive import ReleaseArchive
from remit.releases.bundle import bundle_of
from remit.releases.releases import Releases
from remit.runs.program import Program
from remit.tools.source import FileLoader
from remit.tools.spec import FieldClass, Tool, ToolSpec
from remit.values import digest


class ProjectPrograms:
    """The programs of one project, as the engine asks for them."""

    def __init__(
        self,
        *,
        project: Project,
        secrets: SecretStore,
        principals: Principals,
        releases: Releases,
        archive: ReleaseArchive,
        clock: Clock,
    ) -> None:
        self._project = project
        self._memory: Opened = no_memory
        self._secrets = secrets
        self._principals = principals
        self._releases = releases
        self._archive = archive
        self._clock = clock
        self._loaded: dict[str, Program] = {}
        self._registered: set[str] = set()
        self._kept: set[str] = set()

    def remembering(self, memory: Opened) -> ProjectPrograms:
        """The same, whose tools of memory open `memory` when one of them is first called."""
        self._memory = memory
        return self

    @cached_property
    def tools(self) -> Mapping[str, Tool]:
        """Every tool of the project, by name. Raises `ConfigError`."""
        return project_tools(self._project, self._memory)

    def at_once(self) -> Mapping[str, int]:
        """How many runs of a contract may be driven at once, where it says so; one that is wrong says nothing."""
        return self._at_once

    @cached_property
    def _at_once(self) -> dict[str, int]:
        wanted = ((name, contract.at_once) for name, contract in self._contracts.items())
        return {name: most for name, most in wanted if most is not None}

    @property
    def schedules(self) -> Mapping[str, Sequence[Schedule]]:
        """When contracts open runs by themselves; one that is wrong says nothing."""
        return {name: contract.schedule for name, contract in self._contracts.items()}

    @cached_property
    def _contracts(self) -> dict[str, Contract]:
        """What the contracts say to workers, read once; those that are wrong are left out."""
        found: dict[str, Contract] = {}
        for folder in self._project.contracts:
            with suppress(ConfigError):
                found[folder.name] = self._read(folder.name).contract
        return found

    def all_tools(self) -> Mapping[str, Tool]:
        """Every tool of the project, by name. Raises `ConfigError`."""
        return self.tools

    def at_hand(self, contract: str, release: str | None) -> Program:
        """The program of a contract, loaded once; see `Programs`."""
        program = self._loaded.get(contract)
        if program is None:
            program = self._loaded[contract] = self._load(contract)
        if release is not None and release != program.authority.release:
            raise RunError(
                f"the run began under release `{release[:12]}`, and contract `{contract}` is at "
                f"`{program.authority.release[:12]}` now; put the earlier files back to let it go on",
                code="release_not_at_hand",
            )
        return program

    def admitted(self, contract: str, on_behalf_of: str | None) -> Program:
        """The program that a new run begins with; see `Programs`."""
        program = self.at_hand(contract, None)
        self._releases.admit(program.authority)
        authority = program.authority
        if authority.release not in self._kept:
            # Before the first run opens under it: what a run went by can be looked up from then on.
            self._archive.keep(authority, program.bundle, program.texts, self._clock())
            self._kept.add(authority.release)
        if authority.principal not in self._registered:
            self._principals.register(authority.principal, authority.tenant, PrincipalKind.AGENT, self._clock())
            self._registered.add(authority.principal)
        if on_behalf_of is not None and on_behalf_of not in self._registered:
            self._principals.ensure([on_behalf_of], self._clock())
            self._registered.add(on_behalf_of)
        return program

    def authority_for(self, name: str, actions: Sequence[Action], budget: Budget, verifiers: Mapping[str, Verifier]) -> Authority:
        """What a contract leaves a person to do who goes back over its work: its policy, its limits, other `actions`.

        An action replaces that of the same tool, or is added. Raises as `at_hand` does.
        """
        base = self.at_hand(name, None).authority
        loaded = self._read(name)
        merged = {action.tool: action for action in [*loaded.contract.actions, *actions]}
        contract = msgspec.structs.replace(loaded.contract, actions=list(merged.values()), budget=budget)
        changed = replace(loaded, contract=contract)
        return self._authority(changed, {**base.verifiers, **verifiers}, self._granted(changed), base.release)

    def _read(self, name: str) -> LoadedContract:
        specs = {tool.spec.name: tool.spec for tool in self.tools.values()}
        return load_contract(self._project.contract_folder(name), self._project, specs)

    def varied(self, contract: str, vary: Callable[[LoadedContract], LoadedContract]) -> Program:
        """The program of a contract as it would be if its files were otherwise; for asking what then would happen."""
        return self._load(contract, vary)

    def _load(self, name: str, vary: Callable[[LoadedContract], LoadedContract] = lambda loaded: loaded) -> Program:
        loaded = vary(self._read(name))
        module = _workflow_of(loaded)
        granted = self._granted(loaded)
        bundle = bundle_of(loaded, granted, self._project, self.tools)
        return Program(
            authority=self._authority(loaded, _verifiers(loaded.contract, module), granted, digest(bundle)),
            bundle=bundle,
            input_validator=loaded.input_validator,
            output_validator=loaded.output_validator,
            workflow=getattr(module, loaded.entry) if loaded.entry else None,
            texts=dict(_texts(loaded, [*self.tools.values(), *granted.values()])),
        )

    def _granted(self, loaded: LoadedContract) -> dict[str, Tool]:
        models: Mapping[str, Tool] = {}
        if loaded.models:
            from remit.models.tools import model_tools

            models = model_tools(loaded, self._project, self._secrets, self.tools)
        return {action.tool: {**self.tools, **models}[action.tool] for action in _with_models(loaded.contract)}

    def _authority(
        self, loaded: LoadedContract, verifiers: Mapping[str, Verifier], granted: Mapping[str, Tool], release: str
    ) -> Authority:
        contract = loaded.contract
        actions = _with_models(contract)
        specs = {name: tool.spec for name, tool in granted.items()}
        floor = contract.escalate.when.confidence_below
        return Authority(
            contract=contract,
            release=release,
            tenant=loaded.tenant,
            region=loaded.region,
            principal=loaded.principal,
            tools=granted,
            actions={action.tool: action for action in actions},
            policy=PolicyDecisionPoint.build(contract, specs, loaded.policy),
            limits=compile_limits(contract, actions, loaded.tenant, self._project.limits),
            spends={
                f"model:{name}": amount(binding.spend_per_call).units * MICROUSD_PER_UNIT
                for name, binding in contract.models.items()
            },
            verifiers=verifiers,
            fact_classes=_fact_classes(contract, specs),
            confidence_floor=None if floor is None else per_mille(floor),
        )


def _texts(loaded: LoadedContract, tools: Iterable[Tool]) -> Iterator[tuple[str, bytes]]:
    """The texts behind a contract and its tools, by digest; one that can't be read, or has changed since, is left out."""
    files = {digest: loaded.folder / name for name, digest in loaded.code.items()}
    modules = ((tool.source, sys.modules.get(tool.module)) for tool in tools if tool.source)
    files |= {source: Path(module.__file__) for source, module in modules if module is not None and module.__file__}
    for expected, path in files.items():
        with suppress(ConfigError, Unreadable, OSError):
            text = path.read_bytes()
            yield expected, text if hashlib.sha256(text).hexdigest() == expected else _digested_text(path, expected)


def _with_models(contract: Contract) -> list[Action]:
    """The contract's actions, its model bindings among them: a model request is a call like any other."""
    return [*contract.actions, *(Action(tool=f"model:{name}") for name in contract.models)]


class _Given(FileLoader):
    """Loads a module from a text that was read already."""

    def __init__(self, name: str, path: Path, text: bytes) -> None:
        super().__init__(name, str(path), path.name)
        self._text = text

    def get_data(self, path: str) -> bytes:
        return self._text if path == self.path else super().get_data(path)


def _workflow_of(loaded: LoadedContract) -> ModuleType | None:
    """The contract's `workflow.py` as a module of its own. Raises `ConfigError` where it can't be imported."""
    if loaded.workflow is None:
        return None
    try:
        text = _digested_text(loaded.workflow, loaded.code[WORKFLOW_FILE])
    except Unreadable as error:
        raise ConfigError(f"{loaded.workflow}: {error.problem.message}") from error
    name = f"remit_workflow_{loaded.name.replace('-', '_')}"
    loader = _Given(name, loaded.workflow, text)
    module = module_from_spec(ModuleSpec(name, loader, origin=str(loaded.workflow)))
    module.__file__ = str(loaded.workflow)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{loaded.workflow}: can't be imported: {type(error).__name__}: {error}") from error
    return module


def _digested_text(path: Path, expected: str) -> bytes:
    """The text of a file, if it is still the one that the release names."""
    text = read_text(path, str(path)).encode()
    if hashlib.sha256(text).hexdigest() != expected:
        raise ConfigError(f"{path}: was changed while it was loaded; start again")
    return text


def _fact_classes(contract: Contract, specs: Mapping[str, ToolSpec]) -> dict[str, FieldClass]:
    """A fact that tells what a classed field of an earlier call held is of that class as well."""
    found: dict[str, FieldClass] = {}
    for name, fact in contract.facts.items():
        spec = specs.get(tool_of(fact))
        kind = spec.field_classes.get((fact.of or "").removeprefix("args.")) if spec else None
        if kind is not None:
            found[f"facts.facts.{name}"] = kind
    return found


def _verifiers(contract: Contract, module: ModuleType | None) -> dict[str, Verifier]:
    """The functions behind `verify: [rule:…]`."""
    named = {name for action in contract.actions for name in action.verify}
    return {name: _rule(name, getattr(module, name.removeprefix("rule:"))) for name in named if name.startswith("rule:")}


def _rule(name: str, function: Callable[[Any], Any]) -> Verifier:
    """A rule returns `True` or `None` where it agrees, `False` or the reason where it does not."""

    async def verify(shown: Any) -> str | None:
        said = function(shown)
        if inspect.isawaitable(said):
            said = await said
        if said is None or said is True:
            return None
        return said if isinstance(said, str) else f"`{name}` does not agree"

    return verify

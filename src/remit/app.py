"""`Remit`: a project, opened. Everything that the command line, a server or a program does with it starts here."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Self, TypeVar

from sqlalchemy.engine import make_url

from remit.cases.cases import SCOPE, Cases
from remit.contracts.load import LoadedContract, load_contract
from remit.contracts.model import Action, Contract
from remit.contracts.quantities import MICROUSD_PER_UNIT, amount, per_mille
from remit.errors import ConfigError, IdentityError, RunError
from remit.gate.authority import Authority, Verifier
from remit.gate.context import Clients
from remit.gate.execute import CrashPoint
from remit.gate.gate import Gate, no_crash
from remit.identity.keys import KeyRing, master_key, pseudonym_key
from remit.identity.principals import (
    Person,
    PrincipalKind,
    Principals,
    parse_principal,
    person_principal,
)
from remit.identity.secrets import SecretStore
from remit.identity.tokens import TokenIssuer, TokenRequest, TokenVerifier
from remit.journal.journal import Clock, Journal, system_clock
from remit.journal.redaction import Redactor
from remit.journal.vault import Vault
from remit.limits.rules import compile_limits
from remit.policy.decision import PolicyDecisionPoint
from remit.project import Project, ensure_private, find_project, load_project
from remit.releases.releases import SCOPE as APPROVE_RELEASES
from remit.releases.releases import Releases
from remit.runs.engine import Engine, Program, RunResult
from remit.runs.foreign import ForeignAgent
from remit.storage.database import Database, open_database
from remit.tools.registry import load_tools
from remit.tools.spec import Connection, Tool
from remit.values import Json

T = TypeVar("T")


class Remit:
    """An open project. Use it as an asynchronous context manager, or `close` it.

    `Remit(folder)` looks for `remit.toml` in `folder` and above. `clock` gives microseconds since the epoch.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        clock: Clock = system_clock,
        crash_point: CrashPoint = no_crash,
    ) -> None:
        self.project: Project = load_project(find_project(Path(folder) if folder is not None else None))
        self.clock = clock
        keys_folder = ensure_private(self.project.folder) / "keys"
        identity = self.project.identity
        self.keys = KeyRing.open(keys_folder, identity.algorithm, clock())
        issuer = f"remit:{self.project.project.name}"
        self.issuer = TokenIssuer(
            self.keys, issuer=issuer, audience=identity.audience, lifetime_s=identity.token_minutes * 60
        )
        self.verifier = TokenVerifier(
            self.keys, issuer=issuer, audience=identity.audience, tenant=self.project.project.tenant
        )
        self.secrets = SecretStore(self.project.folder)
        connections = self._connections()
        self.database: Database = open_database(self._database_url(), folder=self.project.folder)
        self.redactor = Redactor(key=pseudonym_key(keys_folder).reveal(), secrets=self.secrets.texts())
        self.principals = Principals(self.database.engine)
        self.journal = Journal(self.database, vault=Vault(master_key(keys_folder).reveal()), clock=clock)
        self._clients = Clients(connections)
        self.pipeline = Gate(self.journal, self.verifier, self._clients, crash_point=crash_point)
        self._programs: dict[str, Program] = {}
        self._register_people()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let what is waiting become durable, then close connections and database."""
        await self.journal.close()
        await self._clients.close()
        self.database.close()

    @property
    def tenant(self) -> str:
        return self.project.project.tenant

    @cached_property
    def tools(self) -> Mapping[str, Tool]:
        """Every tool of the project, by name. Raises `ConfigError`."""
        return load_tools(self.project.tools.modules, self.project.folder)

    @cached_property
    def engine(self) -> Engine:
        """Opens and drives runs."""
        return Engine(
            database=self.database,
            journal=self.journal,
            gate=self.pipeline,
            issuer=self.issuer,
            redactor=self.redactor,
            programs=self._admitted,
        )

    @cached_property
    def cases(self) -> Cases:
        """What people must decide."""
        queues = {name: tuple(f"role:{role}" for role in queue.roles) for name, queue in self.project.queues.items()}
        return Cases(
            database=self.database,
            journal=self.journal,
            verifier=self.verifier,
            redactor=self.redactor,
            people=self.person,
            queues=queues,
        )

    @cached_property
    def releases(self) -> Releases:
        """What may run, where the project asks for an approval."""
        return Releases(
            database=self.database,
            verifier=self.verifier,
            people=self.person,
            role=self.project.releases.approval,
        )

    async def run(
        self,
        contract: str,
        request: Json,
        *,
        on_behalf_of: str | None = None,
        request_key: str | None = None,
    ) -> RunResult:
        """Open a run of a contract for a request and drive it as far as it goes now."""
        run = await self.engine.open(contract, request, on_behalf_of=on_behalf_of, request_key=request_key)
        return await self.engine.drive(run)

    def gate(self, contract: str, *, on_behalf_of: str | None = None) -> ForeignAgent:
        """The gate for an agent that lives elsewhere and proposes its calls under a contract."""
        return ForeignAgent(self.engine, contract, on_behalf_of)

    def person(self, principal: str) -> Person | None:
        """A declared person with roles and state; `None` for whoever is not declared in remit.toml."""
        try:
            name = parse_principal(principal)
        except IdentityError:
            return None
        declared = self.project.people.get(name.name) if name.kind is PrincipalKind.PERSON else None
        if declared is None:
            return None
        return self.principals.person(name.name, declared.name, [f"role:{role}" for role in declared.roles])

    def person_token(self, person: str) -> str:
        """A token for a declared person, issued to whoever may read the project's keys.

        Raises `IdentityError` (code `principal_unknown`).
        """
        if person not in self.project.people:
            known = ", ".join(sorted(self.project.people)) or "nobody"
            raise IdentityError(
                f"`{person}` is not declared under `[people]` in remit.toml; declared: {known}",
                code="principal_unknown",
            )
        request = TokenRequest(
            principal=person_principal(person),
            tenant=self.tenant,
            region=self.project.project.region,
            scopes=(SCOPE, APPROVE_RELEASES),
        )
        return self.issuer.issue(request, self.clock())

    def program(self, contract: str, release: str | None = None) -> Program:
        """A contract's program, loaded once; it must be the `release` that is asked for, if one is.

        Raises `ConfigError` for a contract that is wrong, `RunError` (code `release_not_at_hand`).
        """
        program = self._programs.get(contract)
        if program is None:
            program = self._programs[contract] = self._load(contract)
        if release is not None and release != program.authority.release:
            raise RunError(
                f"the run began under release `{release[:12]}`, and contract `{contract}` is at "
                f"`{program.authority.release[:12]}` now; put the earlier files back to let it go on",
                code="release_not_at_hand",
            )
        return program

    def _admitted(self, contract: str, release: str | None) -> Program:
        """The program of a run: a new one may only begin under a release that may run; an old one goes on under its own."""
        program = self.program(contract, release)
        if release is None:
            self.releases.admit(program.authority)
        return program

    def _load(self, name: str) -> Program:
        specs = {tool.spec.name: tool.spec for tool in self.tools.values()}
        loaded = load_contract(self.project.contract_folder(name), self.project, specs)
        self.principals.register(loaded.principal, loaded.tenant, PrincipalKind.AGENT, self.clock())
        module = _load_workflow(loaded)
        authority, bundle = self._authority(loaded, module)
        return Program(
            authority=authority,
            bundle=bundle,
            input_validator=loaded.input_validator,
            output_validator=loaded.output_validator,
            workflow=getattr(module, loaded.entry) if module is not None and loaded.entry else None,
        )

    def _authority(self, loaded: LoadedContract, module: ModuleType | None) -> tuple[Authority, Json]:
        models: Mapping[str, Tool] = {}
        if loaded.models:
            from remit.models.tools import model_tools

            models = model_tools(loaded, self.project, self.secrets)
        contract = loaded.contract
        actions = _with_models(contract)
        granted = {action.tool: {**self.tools, **models}[action.tool] for action in actions}
        specs = {name: tool.spec for name, tool in granted.items()}
        floor = contract.escalate.when.confidence_below
        digests = {name: spec.digest for name, spec in specs.items()}
        authority = Authority(
            contract=contract,
            release=loaded.digest(digests),
            tenant=loaded.tenant,
            region=loaded.region,
            principal=loaded.principal,
            tools=granted,
            actions={action.tool: action for action in actions},
            policy=PolicyDecisionPoint.build(contract, specs, loaded.policy),
            limits=compile_limits(contract, actions, loaded.tenant, self.project.limits),
            spends={
                f"model:{name}": amount(binding.spend_per_call).units * MICROUSD_PER_UNIT
                for name, binding in contract.models.items()
            },
            verifiers=_verifiers(contract, module),
            confidence_floor=None if floor is None else per_mille(floor),
        )
        return authority, loaded.bundle(digests)

    def _register_people(self) -> None:
        for person in self.project.people:
            self.principals.register(person_principal(person), self.tenant, PrincipalKind.PERSON, self.clock())

    def _connections(self) -> dict[str, Connection | ConfigError]:
        """Every connection with its credential. One that can't be resolved is an error only when it is used."""
        found: dict[str, Connection | ConfigError] = {}
        for name, section in self.project.connections.items():
            try:
                secret = self.secrets.resolve(name, section.secret)
                found[name] = Connection(name=name, url=section.url, user=section.user, secret=secret)
            except ConfigError as error:
                found[name] = error
        for model in self.project.models.values():
            # Resolved now so that the redactor knows it; one that is missing is an error when the model is loaded.
            if model.secret is not None:
                with suppress(ConfigError):
                    self.secrets.resolve("model", model.secret)
        return found

    def _database_url(self) -> str:
        section = self.project.project
        if section.secret is None:
            return section.database
        password = self.secrets.resolve("database", section.secret)
        return make_url(section.database).set(password=password.reveal()).render_as_string(hide_password=False)


def _with_models(contract: Contract) -> list[Action]:
    """The contract's actions, its model bindings among them: a model request is a call like any other."""
    return [*contract.actions, *(Action(tool=f"model:{name}") for name in contract.models)]


def _load_workflow(loaded: LoadedContract) -> ModuleType | None:
    """The contract's `workflow.py` as a module of its own. Raises `ConfigError` where it can't be imported."""
    if loaded.workflow is None:
        return None
    name = f"remit_workflow_{loaded.name.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(name, loaded.workflow)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{loaded.workflow}: can't be imported: {type(error).__name__}: {error}") from error
    return module


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


def run_sync(main: Coroutine[Any, Any, T]) -> T:
    """For callers without an event loop."""
    return asyncio.run(main)



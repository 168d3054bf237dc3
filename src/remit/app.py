"""`Remit`: a project, opened. Everything that the command line, a server or a program does with it starts here."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from sqlalchemy.engine import make_url

from remit.belonging import last_published, open_record
from remit.cases.cases import SCOPE, Cases
from remit.contracts.paths import ensure_private, find_project
from remit.contracts.project import Project, load_project
from remit.errors import ConfigError, IdentityError, RunError
from remit.export.exporting import Exporting
from remit.export.live import LiveTraces
from remit.export.otlp import Sender
from remit.gate.context import Clients
from remit.gate.execute import CrashPoint
from remit.gate.gate import Gate, no_crash
from remit.identity.external import ExternalVerifier, trusted_issuers
from remit.identity.keys import KeyRing
from remit.identity.people import People
from remit.identity.principals import (
    Declared,
    Person,
    PrincipalKind,
    Principals,
    agent_principal,
    parse_principal,
    person_principal,
)
from remit.identity.secrets import SecretStore
from remit.identity.tokens import TokenIssuer, TokenRequest, TokenVerifier
from remit.journal.journal import Clock, Journal, system_clock
from remit.journal.leaves import LeafReader, Selection
from remit.journal.notes import CheckpointKey, origin
from remit.journal.publishing import anchor, file_target, publisher
from remit.journal.redaction import Redactor
from remit.journal.register import Register
from remit.journal.sequencer import Sequencer
from remit.journal.vault import Vault
from remit.memory.project import KEEP_MEMORY, Keeping, open_keeping
from remit.programs import ProjectPrograms
from remit.records.administration import SCOPE as CHANGE_PRINCIPALS
from remit.records.administration import Administration
from remit.records.archive import SCOPE as MANAGE_RECORD
from remit.records.archive import Archive
from remit.records.erasure import Erasure
from remit.records.holds import Holds
from remit.records.record_cedar import Deed
from remit.records.retention import Retention
from remit.records.reveal import Reveals
from remit.releases.archive import ReleaseArchive
from remit.releases.releases import SCOPE as APPROVE_RELEASES
from remit.releases.releases import Releases
from remit.runs.closing import SCOPE as CLOSE_RUNS
from remit.runs.closing import Closing
from remit.runs.engine import Engine, RunOptions
from remit.runs.foreign import ForeignAgent
from remit.runs.importing import ImportedRuns
from remit.runs.program import Program, RunResult
from remit.runs.queue import RunQueue
from remit.runs.schedules import Schedules
from remit.runs.table import RunTable
from remit.storage.database import Database
from remit.tools.spec import Connection, Tool
from remit.undo.undoing import Undoing, UndoPrograms
from remit.values import Json

if TYPE_CHECKING:
    from remit.replay.counterfactual import Counterfactuals
    from remit.replay.replays import Replays

T = TypeVar("T")


class Remit:
    """An open project. Use it as an asynchronous context manager, or `close` it.

    `Remit(folder)` looks for `remit.toml` in `folder` and above. `clock` gives microseconds since the epoch. Opening
    reads, except for what a fresh project needs; raises `ConfigError`, `IdentityError` and `StorageError`, the latter
    with code `database_gone` or `master_key_wrong` where database and keys don't belong together.
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
        record = open_record(self._database_url(), self.project.folder, keys_folder, self.tenant)
        self.database: Database = record.database
        pseudonyms = record.pseudonym.reveal()
        self.redactor = Redactor(key=pseudonyms, secrets=self.secrets.texts())
        self.principals = Principals(self.database.engine, self._declared)
        self.vault = Vault(record.master.reveal())
        self.journal = Journal(self.database, vault=self.vault, clock=clock)
        self.leaves = LeafReader(self.database, self.vault, self.tenant)
        self.register = Register(self.journal, self.tenant)
        self.sequencer = self._sequencer(CheckpointKey(record.record.reveal(), origin(record.id, self.tenant)))
        self.journal.on_written = self.sequencer.noted
        self.clients = Clients(connections)
        self.pipeline = Gate(self.journal, self.verifier, self.clients, crash_point=crash_point)
        self._live = self._live_traces()
        if self._live is not None:
            self.journal.on_afterwards = self._live.afterwards
        self._table = RunTable(self.database, tenant=self.tenant, clock=clock, key=pseudonyms)
        self._queue = RunQueue(self.database, tenant=self.tenant, clock=clock, opener=self._table.opener)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let what is waiting become durable, then close connections and database."""
        if self._live is not None:
            await self._live.close()
        try:
            await self.sequencer.close()
        finally:
            await self.journal.close()
        await self.clients.close()
        self.database.close()

    @property
    def tenant(self) -> str:
        return self.project.project.tenant

    @property
    def tools(self) -> Mapping[str, Tool]:
        """Every tool of the project, by name. Raises `ConfigError`."""
        return self._programs.tools

    @cached_property
    def people(self) -> People:
        """Who may decide what."""
        queues = {name: tuple(f"role:{role}" for role in queue.roles) for name, queue in self.project.queues.items()}
        return People(
            tenant=self.tenant,
            verifier=self.verifier,
            principals=self.principals,
            declared=self.person,
            queues=queues,
        )

    @cached_property
    def engine(self) -> Engine:
        """Opens and drives runs."""
        return Engine(
            table=self._table,
            queue=self._queue,
            closing=self._closing,
            gate=self.pipeline,
            issuer=self.issuer,
            programs=self._undo_programs,
        )

    @cached_property
    def schedules(self) -> Schedules:
        """Opens the runs that contracts schedule."""
        return Schedules(self.engine, lambda: self._programs.schedules, self.clock)

    @cached_property
    def undoing(self) -> Undoing:
        """Takes back what runs have done."""
        return Undoing(programs=self._undo_programs, engine=self.engine, permit=self._may_undo)

    async def _may_undo(self, run: str, token: str, reason: str) -> str:
        """The person that a token belongs to, where `record.cedar` lets them undo a run; see `Archive.permit`."""
        purpose = self.archive.purpose(Deed.UNDO, token=token, reason=reason)
        events = self.archive.events(run)
        await self.archive.permit(purpose, [self.archive.facts(self.archive.run(run), events)], events)
        return purpose.person.principal

    @cached_property
    def cases(self) -> Cases:
        """What people must decide."""
        return Cases(
            database=self.database,
            journal=self.journal,
            redactor=self.redactor,
            people=self.people,
            programs=self._undo_programs,
        )

    @cached_property
    def exporting(self) -> Exporting:
        """Copies the record, or part of it, out of here."""
        return Exporting(
            leaves=self.leaves,
            register=self.register,
            sequencer=self.sequencer,
            redactor=self.redactor,
            version=version("remit"),
        )

    async def exporter(self, selection: Selection, token: str) -> str:
        """The person that `token` belongs to, where record.cedar lets them export what is selected.

        Raises `RecordError`, `ConfigError` (code `record_policy_missing`), `IdentityError` and `CaseError` for the token.
        """
        archive = self.archive
        purpose = archive.purpose(Deed.EXPORT, token=token, reason="")
        if selection.run is not None:
            facts = [archive.facts(archive.run(selection.run), archive.events(selection.run))]
        else:
            contracts = archive.contracts if selection.contract is None else (selection.contract,)
            facts = [archive.every_run_of(contract) for contract in contracts]
        await archive.permit(purpose, facts)
        return purpose.person.principal

    @cached_property
    def releases(self) -> Releases:
        """What may run, where the project asks for an approval."""
        return Releases(
            database=self.database,
            register=self.register,
            redactor=self.redactor,
            people=self.people,
            role=self.project.releases.approval,
        )

    @cached_property
    def administration(self) -> Administration:
        """Who may act: disabled and enabled, on the register."""
        return Administration(
            principals=self.principals,
            keys=self.keys,
            register=self.register,
            redactor=self.redactor,
            people=self.people,
            clock=self.clock,
        )

    @cached_property
    def archive(self) -> Archive:
        """The record, as it is managed under `record.cedar`."""
        return Archive(
            self.project,
            database=self.database,
            journal=self.journal,
            register=self.register,
            redactor=self.redactor,
            people=self.people,
        )

    @cached_property
    def reveals(self) -> Reveals:
        """Shows originals to who may see them."""
        return Reveals(self.archive)

    @cached_property
    def erasure(self) -> Erasure:
        """Erases runs."""
        return Erasure(self.archive)

    @cached_property
    def holds(self) -> Holds:
        """What must not be erased."""
        return Holds(self.archive)

    @cached_property
    def retention(self) -> Retention:
        """Drops and erases what has been kept for long enough."""
        return Retention(self.archive, self._programs)

    @cached_property
    def release_archive(self) -> ReleaseArchive:
        """What each release was made of."""
        return ReleaseArchive(database=self.database, vault=self.vault, tenant=self.tenant)

    @cached_property
    def replays(self) -> Replays:
        """Replays of what is on record."""
        from remit.replay.replays import Replays

        return Replays(
            database=self.database,
            journal=self.journal,
            register=self.register,
            redactor=self.redactor,
            programs=self._undo_programs,
            archive=self.release_archive,
        )

    @cached_property
    def counterfactuals(self) -> Counterfactuals:
        """What would have come of recorded runs if one thing had been otherwise."""
        from remit.replay.counterfactual import Counterfactuals
        from remit.replay.trial import TrialParts

        parts = TrialParts(
            database=self.database,
            vault=self.vault,
            issuer=self.issuer,
            verifier=self.verifier,
            clients=self.clients,
            redactor=self.redactor,
        )
        return Counterfactuals(self.replays, self._programs, parts)

    @cached_property
    def imports(self) -> ImportedRuns:
        """Brings in runs that took place elsewhere."""
        return ImportedRuns(
            table=self._table, journal=self.journal, gate=self.pipeline, issuer=self.issuer, redactor=self.redactor
        )

    @cached_property
    def _closing(self) -> Closing:
        return Closing(
            table=self._table,
            journal=self.journal,
            redactor=self.redactor,
            people=self.people,
            closed=_nobody if self._live is None else self._live.closed,
        )

    @cached_property
    def _outside(self) -> ExternalVerifier:
        return ExternalVerifier(trusted_issuers(self.project.identity.issuers, self.project.folder))

    @cached_property
    def _undo_programs(self) -> UndoPrograms:
        return UndoPrograms(self._programs, self.journal.reader, self._table.run_of, self.redactor)

    @cached_property
    def _programs(self) -> ProjectPrograms:
        return ProjectPrograms(
            project=self.project,
            secrets=self.secrets,
            principals=self.principals,
            releases=self.releases,
            archive=self.release_archive,
            clock=self.clock,
        ).remembering(lambda: self.keeping.memory)

    @cached_property
    def keeping(self) -> Keeping:
        """The documents that agents may retrieve."""
        return open_keeping(self, self.people)

    async def run(
        self,
        contract: str,
        request: Json,
        **opening: Unpack[RunOptions],
    ) -> RunResult:
        """Open a run of a contract for a request and drive it as far as it goes now.

        Raises `RunError` (code `no_workflow`) for a contract whose agent Remit does not run itself.
        """
        if self.program(contract).workflow is None:
            raise RunError(
                f"contract `{contract}` has no `workflow.py`, so its agent lives elsewhere; let it propose its calls "
                f"through `Remit.gate(\"{contract}\")`, or write one",
                code="no_workflow",
            )
        run = await self.engine.open(contract, request, **opening)
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
            scopes=(SCOPE, APPROVE_RELEASES, CLOSE_RUNS, MANAGE_RECORD, CHANGE_PRINCIPALS, KEEP_MEMORY),
        )
        return self.issuer.issue(request, self.clock())

    async def sign_in(self, token: str) -> str:
        """Exchange a token of an outside issuer (`[[identity.issuers]]`) for one of our own (RFC 8693).

        The issuer says who somebody is, remit.toml what they may do. Raises `IdentityError` for a token that does not
        verify now, or whose person is not declared.
        """
        vouched_for = await self._outside.verify(token, self.clock())
        return self.person_token(parse_principal(vouched_for.person).name)

    async def close_run(self, run: str, *, token: str, reason: str = "") -> RunResult:
        """End a run that nobody drives, as the person that `token` belongs to; see `Closing.by_person`."""
        return await self._closing.by_person(run, token=token, reason=reason)

    def program(self, contract: str, release: str | None = None) -> Program:
        """A contract's program, loaded once; it must be the `release` that is asked for, if one is.

        Raises `ConfigError` for a contract that is wrong, `RunError` (code `release_not_at_hand`).
        """
        return self._programs.at_hand(contract, release)

    def _declared(self) -> Mapping[str, Declared]:
        """Every principal of the project: its people, and an agent for each contract."""
        person = Declared(tenant=self.tenant, kind=PrincipalKind.PERSON)
        found = {person_principal(name): person for name in self.project.people}
        for folder in self.project.contracts:
            # A folder whose name is no name is for `remit check` to report.
            with suppress(IdentityError):
                agent = agent_principal(self.tenant, folder.name)
                found[agent] = Declared(tenant=self.tenant, kind=PrincipalKind.AGENT)
        return found

    def _connections(self) -> dict[str, Connection | ConfigError]:
        """Every connection with its credential. One that can't be resolved is an error only when it is used."""
        found: dict[str, Connection | ConfigError] = {}
        for name, section in self.project.connections.items():
            try:
                secret = self.secrets.resolve(name, section.secret)
                found[name] = Connection(name=name, url=section.url, user=section.user, secret=secret)
            except (ConfigError, IdentityError) as error:
                found[name] = ConfigError(error.message, code=error.code)
        for model in self.project.models.values():
            # Resolved now so that the redactor knows it; one that is missing is an error when the model is loaded.
            if model.secret is not None:
                with suppress(ConfigError, IdentityError):
                    self.secrets.resolve("model", model.secret)
        return found

    def _live_traces(self) -> LiveTraces | None:
        """What sends runs to the receiver of `[record] otlp` as they end here; `None` where there is none."""
        address = self.project.record.otlp
        if address is None:
            return None
        encoder = self.exporting.encoder()
        return LiveTraces(
            leaves=self.leaves, encoder=encoder, sender=Sender(address, encoder), announce=self.exporting.announce
        )

    def _sequencer(self, key: CheckpointKey) -> Sequencer:
        """What integrates the record into its tree, and publishes where that has come to."""
        folder = self.project.folder
        last = last_published(self.project.private, key)
        targets = [file_target(last.published), last.keep]
        targets += [anchor(address, key.origin.replace("/", "-"), folder) for address in self.project.record.anchors]
        return Sequencer(self.database, self.journal, key, tenant=self.tenant, publish=publisher(targets), last=last)

    def _database_url(self) -> str:
        section = self.project.project
        if section.secret is None:
            return section.database
        password = self.secrets.resolve("database", section.secret)
        return make_url(section.database).set(password=password.reveal()).render_as_string(hide_password=False)


def _nobody(_run: str) -> None:
    """Nobody is told of a run that has ended."""


def run_sync(main: Coroutine[Any, Any, T]) -> T:
    """For callers without an event loop."""
    return asyncio.run(main)



"""`remit.toml`, its sections in types."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from remit.contracts.model import Amount, Base, Duration, Limits, Name, Role
from remit.contracts.schema import Schema, editor_schema, strict_schema

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


class PriceSection(Base, frozen=True, kw_only=True):
    """What a model costs, for a million tokens each."""

    input: Amount
    """Of what it is asked."""
    output: Amount
    """Of what it answers."""
    cached: Amount | None = None
    """Of what it is asked and its provider had cached; left out, as for `input`."""


class ModelSection(Base, frozen=True, kw_only=True):
    """A model that contracts may bind."""

    kind: Literal["classifier", "llm", "recorded", "python"]
    """`classifier`: a local text classifier with calibrated probabilities. `llm`: a language model of a provider.
    `recorded`: answers out of a recording. `python`: a function of the project."""
    training: str | None = None
    """For a classifier: a JSONL file of labelled examples, relative to the project."""
    model: str | None = None
    """For an LLM: `provider:name`, such as `openai:gpt-5-mini`."""
    base_url: str | None = None
    """For an LLM: the address of a server that speaks OpenAI's interface, or that of the provider that `model` names."""
    secret: SecretSource | None = None
    """For an LLM: where its key is found."""
    recording: str | None = None
    """For a recorded model: a JSONL file as `remit models record` writes it, relative to the project."""
    function: str | None = None
    """For a model in Python: a file of the project and an async function in it, such as `models/planner.py:plan`."""
    fallback: list[Name] = field(default_factory=list[str])
    """Models that are asked in its place, in this order, where it can't answer."""
    price: PriceSection | None = None
    """For an LLM: what it costs; left out, as the list of known prices says."""
    attempts: Annotated[int, Meta(ge=1, le=5)] = 3
    """How often it is asked where it is away or busy, the first time included."""
    attempt_timeout: Duration | None = None
    """How long one attempt may take; left out, all of its share of the binding's `timeout`."""
    temperature: str | int | None = None
    """For an LLM: how much chance there is in its answers, from `0` to `2`."""
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    """For an LLM: how long an answer may get."""


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
    otlp: str | None = None
    """Where runs are sent as traces when they end: the address of an OpenTelemetry receiver that takes OTLP over HTTP,
    such as `http://127.0.0.1:4318`. Needs the extra `otel`."""


class MemorySection(Base, frozen=True, kw_only=True):
    """What agents may be told of, and what they may remember; with it the tools `memory.…` are there."""

    embedding: str = "local"
    """What makes vectors of texts: `local`, a function of the project (`embed.py:function`), or a server
    (`model:<name>`, declared under `[models]` with its `base_url`)."""
    keepers: list[Name] = field(default_factory=list[Name])
    """The roles that may add, recall and forget documents, without the prefix `role:`; left out, only owners may."""


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
    memory: MemorySection | None = None
    """The documents that agents may retrieve."""
    queues: dict[Name, QueueSection] = field(default_factory=dict[str, QueueSection])
    """The queues that cases go to."""
    releases: ReleasesSection = ReleasesSection()
    """How a change of a contract goes live."""
    people: dict[PersonId, PersonSection] = field(default_factory=dict[str, PersonSection])
    """The people, by the id in `person/<id>`."""


def project_schema() -> Schema:
    """The schema of `remit.toml` for editors (`remit schema project`)."""
    return editor_schema(strict_schema(ProjectFile), title="Remit project")

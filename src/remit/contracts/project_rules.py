"""What a `remit.toml` must mean, beyond being well written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path as FilePath
from typing import Final
from urllib.parse import SplitResult, urlsplit

from remit.contracts.document import Document
from remit.contracts.model import Limits
from remit.contracts.partial import Partial, partial
from remit.contracts.paths import inside
from remit.contracts.problems import Problem, Severity, did_you_mean, quoted
from remit.contracts.project_file import (
    IdentitySection,
    MemorySection,
    ModelSection,
    PersonSection,
    ProjectFile,
    ProjectSection,
    QueueSection,
    SecretSource,
    ToolsSection,
)
from remit.contracts.quantities import amount
from remit.errors import ConfigError
from remit.values import Path

_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, kw_only=True)
class _Config:
    """A `remit.toml` under examination, as far as it could be typed."""

    document: Document
    folder: FilePath
    typed: Partial

    def error(self, path: Path, message: str, suggestion: str = "") -> Problem:
        return self.document.problem(self.typed.origin(path), message, suggestion)

    def missing_file(self, path: Path, reference: str) -> Iterator[Problem]:
        """A problem if `reference` is not a file inside the project."""
        try:
            found = inside(self.folder, self.folder, reference)
        except ConfigError as error:
            message, _, hint = error.message.partition("; ")
            yield self.error(path, message, hint)
            return
        if not found.is_file():
            yield self.error(path, f"file {quoted(reference)} does not exist", "paths are relative to the project")

    def roles(self) -> set[str] | None:
        """Every role that a person holds; `None` where the people could not all be read."""
        if not self.typed.whole:
            return None
        people: dict[str, PersonSection] = self.typed.values.get("people", {})
        return {role for person in people.values() for role in person.roles}


def project_problems(document: Document, folder: FilePath) -> list[Problem]:
    """Everything that the rules say against `remit.toml`. Parts that are not well written are not judged."""
    config = _Config(document=document, folder=folder.resolve(), typed=partial(document, ProjectFile))
    return [problem for rule in RULES for problem in rule(config)]


def database_is_usable(config: _Config) -> Iterator[Problem]:
    section: ProjectSection | None = config.typed.values.get("project")
    if section is None:
        return
    path = ("project", "database")
    if section.database.startswith("sqlite:"):
        yield from _sqlite(config, path, section.database.removeprefix("sqlite:"))
        if section.secret is not None:
            yield config.error(("project", "secret"), "a SQLite database has no password", "take `secret` out")
        return
    split = _split(section.database)
    # A server on a Unix socket is named by its folder: `postgresql://user@/db?host=/run/postgresql`.
    reached = split is not None and (split.hostname or "host=" in split.query)
    if split is None or split.scheme not in ("postgresql", "postgres") or not reached or split.path in ("", "/"):
        hint = "write it like `sqlite:.remit/remit.db` or `postgresql://user@host/db`"
        yield config.error(path, "`project.database` is no database that can be used", hint)
    elif split.password is not None:
        yield config.error(path, "`project.database` holds a password", 'move it to `secret = { env = "…" }`')
    yield from _secret(config, ("project", "secret"), section.secret)


def _sqlite(config: _Config, path: Path, reference: str) -> Iterator[Problem]:
    if reference.startswith("//") or reference in ("", ":memory:"):
        yield config.error(path, "`project.database` names no file", "write it like `sqlite:.remit/remit.db`")
        return
    try:
        inside(config.folder, config.folder, reference)
    except ConfigError as error:
        message, _, hint = error.message.partition("; ")
        yield config.error(path, message, hint)


def tool_modules_are_there(config: _Config) -> Iterator[Problem]:
    section: ToolsSection | None = config.typed.values.get("tools")
    modules = section.modules if section else []
    for at, entry in enumerate(modules):
        path = ("tools", "modules", at)
        if entry in modules[:at]:
            yield config.error(path, f"tool module {quoted(entry)} is named twice", "keep one")
        elif entry.endswith(".py"):
            yield from config.missing_file(path, entry)
        elif not _MODULE.fullmatch(entry):
            hint = "write a module such as `remit.connectors.roundup.tools`, or a file such as `tools/directory.py`"
            yield config.error(path, f"{quoted(entry)} is neither a module nor a `.py` file", hint)


def connections_are_addresses(config: _Config) -> Iterator[Problem]:
    for name, connection in config.typed.values.get("connections", {}).items():
        path = ("connections", name)
        split = _split(connection.url)
        if split is None or not split.scheme or not split.hostname:
            hint = "write it like `https://tracker.example`"
            yield config.error((*path, "url"), f"{quoted(connection.url)} is no address", hint)
        elif split.password is not None:
            yield config.error((*path, "url"), "the address holds a password", "move it to `secret`")
        yield from _secret(config, (*path, "secret"), connection.secret)


_MODEL_KEYS: Final = {
    "classifier": ("training",),
    "llm": ("model", "base_url", "secret", "price", "attempts", "attempt_timeout", "temperature", "max_tokens"),
    "recorded": ("recording",),
    "python": ("function", "attempts", "attempt_timeout"),
}
"""What each kind of model may say beside `kind` and `fallback`; the first of them is needed."""
_FUNCTION = re.compile(r"([^:]+\.py):([A-Za-z_][A-Za-z0-9_]*)", re.ASCII)


def models_are_complete(config: _Config) -> Iterator[Problem]:
    for name, model in config.typed.values.get("models", {}).items():
        path = ("models", name)
        yield from _model_keys(config, path, model)
        for key in ("training", "recording"):
            if getattr(model, key) is not None:
                yield from config.missing_file((*path, key), getattr(model, key))
        if model.model is not None and model.base_url is None and not all(model.model.partition(":")):
            hint = "write `provider:name`, such as `openai:gpt-5-mini`"
            yield config.error((*path, "model"), f"{quoted(model.model)} names no provider", hint)
        yield from _secret(config, (*path, "secret"), model.secret)
        yield from _function(config, (*path, "function"), model)
        yield from _fallbacks(config, path, model)
        yield from _quantities(config, path, model)
        split = _split(model.base_url) if model.base_url is not None else None
        if model.base_url is not None and (
            split is None or split.scheme not in ("http", "https") or not split.hostname
        ):
            hint = "write it like `http://127.0.0.1:8080/v1`"
            yield config.error((*path, "base_url"), f"{quoted(model.base_url)} is no address", hint)
        elif split is not None and split.password is not None:
            yield config.error((*path, "base_url"), "the address holds a password", "move it to `secret`")


def _model_keys(config: _Config, path: Path, model: ModelSection) -> Iterator[Problem]:
    raw = config.document.value["models"][path[1]]
    meant = _MODEL_KEYS[model.kind]
    if meant[0] not in raw:
        yield config.error(
            path,
            f"model {quoted(path[1])} of kind {quoted(model.kind)} has no {quoted(meant[0])}",
            f"add `{meant[0]}`",
        )
    if model.kind == "llm" and "base_url" not in raw and "secret" not in raw:
        message = f"model {quoted(path[1])} has no `secret`, and its provider wants a key"
        hint = 'add `secret = { env = "…" }`, or the `base_url` of a server that wants none'
        yield config.error(path, message, hint)
    for key in raw:
        if key in ModelSection.__struct_fields__ and key not in ("kind", "fallback", *meant):
            yield config.error(
                (*path, key),
                f"{quoted(key)} means nothing to a model of kind {quoted(model.kind)}",
                "take it out",
            )


def _function(config: _Config, path: Path, section: ModelSection) -> Iterator[Problem]:
    if section.function is None:
        return
    reference = section.function
    found = _FUNCTION.fullmatch(reference)
    if found is None:
        yield config.error(path, f"{quoted(reference)} names no function", "write it like `models/planner.py:plan`")
    else:
        yield from config.missing_file(path, found[1])


def _fallbacks(config: _Config, path: Path, model: ModelSection) -> Iterator[Problem]:
    """A model's stand-ins are declared, are not itself, and give labels where they are asked for them."""
    declared: dict[str, ModelSection] = config.typed.values.get("models", {})
    known = dict(config.document.value).get("models", {})
    for at, name in enumerate(model.fallback):
        place = (*path, "fallback", at)
        other = declared.get(name)
        if name not in known:
            yield config.error(place, f"model {quoted(name)} is not declared", did_you_mean(name, known, "models here"))
        elif name == path[1] or name in model.fallback[:at]:
            yield config.error(place, f"model {quoted(name)} is asked already", "name another one, or take it out")
        elif other is not None and other.fallback:
            hint = f"list all of them here, in order; {quoted(name)}'s own are not followed"
            line = config.document.line(config.typed.origin(place))
            message = f"model {quoted(name)} has stand-ins of its own"
            yield Problem(file=config.document.file, line=line, message=message, suggestion=hint, severity=Severity.WARNING)


def _quantities(config: _Config, path: Path, model: ModelSection) -> Iterator[Problem]:
    if model.temperature is not None:
        try:
            fits = 0 <= Decimal(model.temperature) <= 2
        except InvalidOperation:
            fits = False
        if not fits:
            message = f"{quoted('temperature')} is {quoted(model.temperature)}; it goes from 0 to 2"
            yield config.error((*path, "temperature"), message, "write it like `0.2`")
    price = model.price
    for key in ("input", "output", "cached") if price is not None else ():
        text = getattr(price, key)
        if text is not None and not text.endswith(" USD"):
            message = f"the price {quoted(key)} is {quoted(text)}"
            yield config.error((*path, "price", key), message, "models are priced in USD; write it like `0.25 USD`")


def limits_are_countable(config: _Config) -> Iterator[Problem]:
    limits: Limits = config.typed.values.get("limits", Limits())
    money: dict[str, str] = {}
    for name in limits.__struct_fields__:
        text = getattr(limits, name)
        if not isinstance(text, str):
            continue
        path = ("limits", name)
        try:
            currency = amount(text).currency
        except ValueError:
            yield config.error(path, f"{quoted('limits.' + name)} is {quoted(text)}, more than exact decimals can hold")
            continue
        if name.startswith("spend") and currency != "USD":
            yield config.error(
                path,
                f"{quoted('limits.' + name)} is {quoted(text)}",
                "models are priced in USD; write it like `0.05 USD`",
            )
        if name.startswith("money"):
            money[name] = currency
            first = next(iter(money))
            if currency != money[first]:
                what = f"{quoted(name)} is in {currency}, {quoted(first)} in {money[first]}"
                yield config.error(path, what, "limit one currency in one place")


def issuers_can_be_checked(config: _Config) -> Iterator[Problem]:
    identity: IdentitySection = config.typed.values.get("identity", IdentitySection())
    names = [each.issuer for each in identity.issuers]
    for at, issuer in enumerate(identity.issuers):
        path = ("identity", "issuers", at)
        if issuer.issuer in names[:at]:
            yield config.error(
                (*path, "issuer"), f"issuer {quoted(issuer.issuer)} is declared twice", "keep one of them"
            )
        if "://" not in issuer.jwks:
            yield from config.missing_file((*path, "jwks"), issuer.jwks)
            continue
        split = _split(issuer.jwks)
        plain_and_far = split is not None and split.scheme == "http" and split.hostname not in _LOOPBACK
        if split is None or split.scheme not in ("http", "https") or not split.hostname or plain_and_far:
            hint = "keys that anybody on the way can change prove nothing; use `https://…` or a file"
            yield config.error((*path, "jwks"), f"{quoted(issuer.jwks)} is no address to take keys from", hint)


def receiver_is_an_address(config: _Config) -> Iterator[Problem]:
    """Where runs are sent as traces is an address that somebody can answer at, and holds nothing secret."""
    address: str | None = config.typed.values["record"].otlp if "record" in config.typed.values else None
    if address is None:
        return
    path, split = ("record", "otlp"), _split(address)
    if split is None or split.scheme not in ("http", "https") or not split.hostname or split.query or split.fragment:
        yield config.error(path, "`record.otlp` is no address to send traces to", "write it like `http://127.0.0.1:4318`")
    elif split.username is not None or split.password is not None:
        hint = "put it into the environment variable OTEL_EXPORTER_OTLP_HEADERS"
        yield config.error(path, "`record.otlp` holds a password or a name", hint)


def anchors_hold_no_secret(config: _Config) -> Iterator[Problem]:
    """An anchor's address stands in messages and logs, and a checkpoint is put below it: no name, password or query."""
    anchors: list[str] = config.typed.values["record"].anchors if "record" in config.typed.values else []
    for at, address in enumerate(anchors):
        if not address.startswith(("http://", "https://")):
            continue
        path, split = ("record", "anchors", at), _split(address)
        if split is None or not split.hostname:
            yield config.error(path, "an address of `record.anchors` is none", "write it like `https://store.example/checkpoints`")
        elif split.username is not None or split.password is not None or split.query or split.fragment:
            yield config.error(
                path,
                "an address of `record.anchors` holds a name, a password, a query or a fragment",
                "put name and password into `~/.netrc`, or the file that the variable NETRC names; leave out the rest",
            )


def roles_are_held(config: _Config) -> Iterator[Problem]:
    """A queue that nobody works on, and a release that nobody may approve, are dead ends."""
    held = config.roles()
    if held is None:
        return
    queues: dict[str, QueueSection] = config.typed.values.get("queues", {})
    for name, queue in queues.items():
        for at, role in enumerate(queue.roles):
            if role not in held:
                yield _nobody(config, ("queues", name, "roles", at), role, held)
    approval = config.typed.values["releases"].approval
    if approval is not None and approval.removeprefix("role:") not in held:
        yield _nobody(config, ("releases", "approval"), approval.removeprefix("role:"), held)


def _nobody(config: _Config, path: Path, role: str, held: set[str]) -> Problem:
    hint = f"give it to somebody under `[people]`; {did_you_mean(role, held, 'roles held')}"
    return config.error(path, f"no person holds the role {quoted(role)}", hint)


def _secret(config: _Config, path: Path, source: SecretSource | None) -> Iterator[Problem]:
    if source is None:
        return
    raw = config.document.value
    for part in config.typed.origin(path):
        raw = raw[part]
    given = [key for key in ("file", "env", "keyring") if key in raw]
    if len(given) != 1:
        what = f"{quoted('.'.join(map(str, path)))} names {'no place' if not given else 'more than one place'}"
        yield config.error(path, what, "name exactly one of file, env, keyring")
    if source.env is not None and not _VARIABLE.fullmatch(source.env):
        hint = "name the variable, not its value"
        yield config.error((*path, "env"), "`env` is not the name of an environment variable", hint)
    if source.keyring is not None and not all(source.keyring.partition("/")):
        yield config.error(
            (*path, "keyring"),
            f"{quoted(source.keyring)} is no keyring entry",
            "write it like `service/user`",
        )
    if source.file is not None and not FilePath(source.file).is_absolute():
        yield from _secret_file(config, (*path, "file"), source.file)


def _secret_file(config: _Config, path: Path, reference: str) -> Iterator[Problem]:
    try:
        found = inside(config.folder, config.folder, reference)
        is_open = found.is_file() and found.stat().st_mode & 0o077
    except ConfigError as error:
        message, _, hint = error.message.partition("; ")
        yield config.error(path, message, hint)
        return
    except OSError:
        return
    if is_open:
        what = f"the secret in {quoted(reference)} can be read by others"
        line = config.document.line(config.typed.origin(path))
        yield Problem(
            file=config.document.file,
            line=line,
            message=what,
            suggestion=f"run `chmod 600 {reference}`",
            severity=Severity.WARNING,
        )


def _split(url: str) -> SplitResult | None:
    try:
        split = urlsplit(url)
        _ = split.port
    except ValueError:
        return None
    return None if any(char.isspace() or not char.isprintable() for char in url) else split


def memory_can_be_kept(config: _Config) -> Iterator[Problem]:
    section: MemorySection | None = config.typed.values.get("memory")
    if section is None:
        return
    held = config.roles()
    for at, role in enumerate(section.keepers):
        if held is not None and role not in held:
            hint = f"give it to somebody under `[people]`; {did_you_mean(role, held, 'roles held')}"
            yield config.error(("memory", "keepers", at), f"no person holds the role {quoted(role)}", hint)
    path = ("memory", "embedding")
    kind, _, name = section.embedding.partition(":")
    models: dict[str, ModelSection] = config.typed.values.get("models", {})
    if kind == "model":
        model = models.get(name)
        if model is None:
            yield config.error(path, f"model {quoted(name)} is not declared", did_you_mean(name, models, "models"))
        elif model.base_url is None:
            yield config.error(path, f"model {quoted(name)} has no `base_url`", "name a server that takes `POST /embeddings`")
    elif kind.endswith(".py") and name.isidentifier():
        yield from config.missing_file(path, kind)
    elif section.embedding != "local":
        hint = "write `local`, `embed.py:function` or `model:<name>`"
        yield config.error(path, f"{quoted(section.embedding)} is no embedding", hint)


RULES: Final[tuple[Callable[[_Config], Iterable[Problem]], ...]] = (
    database_is_usable,
    tool_modules_are_there,
    connections_are_addresses,
    models_are_complete,
    limits_are_countable,
    issuers_can_be_checked,
    receiver_is_an_address,
    anchors_hold_no_secret,
    roles_are_held,
    memory_can_be_kept,
)

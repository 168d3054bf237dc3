"""Principals: who may act (`agent/<tenant>/<contract>`, `person/<id>`), and who may decide what.

Names are ASCII and lower case, so that no name has a look-alike. A contract declares an agent and
`remit.toml` a person; the table `principals` says whether they are known and enabled. Absence denies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Engine, insert, select
from sqlalchemy.engine import Row
from sqlalchemy.exc import IntegrityError

from remit.errors import IdentityError
from remit.storage.database import storage_errors
from remit.storage.schema import principals
from remit.storage.writer import Statement

_NAME = re.compile(r"[a-z][a-z0-9-]{0,47}", re.ASCII)
_PERSON_ID = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}", re.ASCII)


class PrincipalKind(StrEnum):
    """What a principal is."""

    AGENT = "agent"
    PERSON = "person"


@dataclass(frozen=True, kw_only=True, slots=True)
class PrincipalName:
    """A principal's name, taken apart. `tenant` is set for agents; `name` is a contract or a person's id."""

    kind: PrincipalKind
    tenant: str | None
    name: str

    def __str__(self) -> str:
        return f"agent/{self.tenant}/{self.name}" if self.kind is PrincipalKind.AGENT else f"person/{self.name}"


def parse_principal(text: str) -> PrincipalName:
    """Take a principal's name apart. Raises `IdentityError` with code `principal_malformed`."""
    match text.split("/"):
        case ["agent", tenant, contract] if _NAME.fullmatch(tenant) and _NAME.fullmatch(contract):
            return PrincipalName(kind=PrincipalKind.AGENT, tenant=tenant, name=contract)
        case ["person", person] if _PERSON_ID.fullmatch(person):
            return PrincipalName(kind=PrincipalKind.PERSON, tenant=None, name=person)
        case _:
            raise IdentityError(_what_is_wrong(text), code="principal_malformed")


def _what_is_wrong(text: str) -> str:
    # Escaped, so that a look-alike shows and no control character gets through.
    shown = ascii(text[:120])[1:-1]
    strange = next((c for c in text if not c.isascii()), None)
    if strange is not None:
        return f"principal `{shown}` holds U+{ord(strange):04X}; names are ASCII and lower case, so retype it"
    return (
        f"principal `{shown}` is not a name; write `agent/<tenant>/<contract>` or `person/<id>`, lower case, "
        "with letters, digits and hyphens (a person's id also `.`, `_`, `@`, `+`)"
    )


def agent_principal(tenant: str, contract: str) -> str:
    """The service principal of a contract. Raises `IdentityError` with code `principal_malformed`."""
    return str(parse_principal(f"agent/{tenant}/{contract}"))


def person_principal(person: str) -> str:
    """The principal of a person's id. Raises `IdentityError` with code `principal_malformed`."""
    return str(parse_principal(f"person/{person}"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Somebody who may decide: `id` without the prefix, as in `[people.<id>]`.

    `enabled` comes from the table `principals`; left out, the person is treated as disabled.
    """

    id: str
    name: str
    roles: frozenset[str]
    enabled: bool = False

    @property
    def principal(self) -> str:
        return person_principal(self.id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """A row of the table: a known principal, and whether it may act. `updated_us`: since the epoch."""

    principal: str
    tenant: str
    kind: PrincipalKind
    enabled: bool
    updated_us: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """A principal that the project declares, whether or not the table has it."""

    tenant: str
    kind: PrincipalKind


def _nobody() -> Mapping[str, Declared]:
    return {}


class Principals:
    """The table `principals`. Each method is one short transaction and raises `StorageError` if it fails.

    `declared` says who is declared now. Who is declared and not in the table yet is enabled: reading never writes,
    and the row is made when it is first needed, to act, to decide or to be disabled.
    """

    def __init__(self, engine: Engine, declared: Callable[[], Mapping[str, Declared]] = _nobody) -> None:
        self._engine = engine
        self._declared = declared

    def ensure(self, wanted: Iterable[str], now_us: int) -> None:
        """Register those that are declared and not in the table. Raises as `register` does."""
        asked = [name for name in wanted if name in self._declared()]
        query = select(principals.c.principal, principals.c.tenant).where(principals.c.principal.in_(asked))
        with storage_errors("look for principals"), self._engine.connect() as connection:
            known = {row.principal: row.tenant for row in connection.execute(query)}
        for name in asked:
            declared = self._declared()[name]
            if known.get(name) != declared.tenant:
                self.register(name, declared.tenant, declared.kind, now_us)

    def register(self, principal: str, tenant: str, kind: PrincipalKind, now_us: int) -> Principal:
        """Make a principal known and enabled. One that is known already stays as it is, disabled if it was.

        Raises `IdentityError`: `principal_malformed` for a name that isn't one or isn't of this tenant and
        kind, `principal_conflict` where the name is registered for another tenant.
        """
        name = parse_principal(principal)
        if name.kind is not kind or (name.tenant or tenant) != tenant or _NAME.fullmatch(tenant) is None:
            raise IdentityError(
                f"principal `{name}` is not {_article(kind)} of tenant `{ascii(tenant)[1:-1]}`; correct one of them",
                code="principal_malformed",
            )
        row = {
            "principal": principal,
            "tenant": tenant,
            "kind": kind.value,
            "enabled": True,
            "updated_at": now_us,
        }
        found = self.get(principal)
        if found is None:
            with storage_errors(f"register `{principal}`"), suppress(IntegrityError), self._engine.begin() as connection:
                # Where another process is faster, what stands there counts.
                connection.execute(insert(principals).values(row))
            found = self.get(principal)
        if found is None or found.tenant != tenant:
            raise IdentityError(
                f"principal `{principal}` is registered for another tenant; choose another name",
                code="principal_conflict",
            )
        return found

    def enabling(self, principal: str, now_us: int) -> Statement:
        """What lets it act again, for a transaction that records it. Raises `IdentityError` (`principal_unknown`)."""
        return self._setting(principal, {"enabled": True, "at": now_us})

    def disabling(self, principal: str, now_us: int) -> Statement:
        """What stops it from its next call on, whatever token it holds. Raises as `enabling` does."""
        return self._setting(principal, {"enabled": False, "at": now_us})

    def _setting(self, principal: str, values: dict[str, Any]) -> Statement:
        self.ensure([principal], values["at"])
        if self.get(principal) is None:
            raise IdentityError(
                f"principal `{ascii(principal)[1:-1]}` is not registered; see `remit principal list`",
                code="principal_unknown",
            )
        return Statement(
            sql="UPDATE principals SET enabled = :enabled, updated_at = :at WHERE principal = :principal",
            params={"principal": principal, **values},
            changes=1,
        )

    def get(self, principal: str) -> Principal | None:
        """The principal of that name, or `None`."""
        with storage_errors(f"read `{principal}`"), self._engine.connect() as connection:
            row = connection.execute(select(principals).where(principals.c.principal == principal)).one_or_none()
        return None if row is None else _principal(row)

    def list(self, tenant: str) -> tuple[Principal, ...]:
        """Every principal of a tenant, by name: those in the table, and those declared that it lacks (`updated_us` 0)."""
        query = select(principals).where(principals.c.tenant == tenant)
        with storage_errors("list the principals"), self._engine.connect() as connection:
            found = {row.principal: _principal(row) for row in connection.execute(query)}
        for name, declared in self._declared().items():
            if declared.tenant == tenant and name not in found:
                found[name] = Principal(
                    principal=name, tenant=tenant, kind=declared.kind, enabled=True, updated_us=0
                )
        return tuple(found[name] for name in sorted(found))

    def person(self, person: str, name: str, roles: Iterable[str]) -> Person:
        """A person with the state that the table holds; one without a row is enabled if declared, else disabled."""
        principal = person_principal(person)
        found, declared = self.get(principal), self._declared().get(principal)
        if found is None:
            enabled = declared is not None
        else:
            enabled = found.enabled and (declared is None or declared.tenant == found.tenant)
        return Person(id=person, name=name, roles=frozenset(roles), enabled=enabled)


def _principal(row: Row[Any]) -> Principal:
    return Principal(
        principal=row.principal,
        tenant=row.tenant,
        kind=PrincipalKind(row.kind),
        enabled=bool(row.enabled),
        updated_us=row.updated_at,
    )


def _article(kind: PrincipalKind) -> str:
    return "an agent" if kind is PrincipalKind.AGENT else "a person"


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why somebody may not decide."""

    code: str
    message: str


def may_decide(
    person: Person,
    roles_required: Iterable[str],
    requester: str | None,
    on_behalf_of: str | None,
    author: str | None,
) -> Refusal | None:
    """Whether `person` may decide, by role and by separation of duties; `None` means yes.

    One of `roles_required` (`role:it-lead` or `it-lead`) is enough; none named, nobody may. `requester` is
    the principal that asks, `on_behalf_of` the person it asks for, and `author` (for a release) who wrote the
    contract: none of these may be the one who decides. A name among them that is no principal denies, because
    it can't be compared.
    """
    return (
        _enabled(person)
        or _in_role(person, roles_required)
        or _not_same(person, requester, "requester_is_approver", "asked for this")
        or _not_same(person, on_behalf_of, "beneficiary_is_approver", "is the person this run acts for")
        or _not_same(person, author, "author_is_approver", "wrote this contract")
    )


def _enabled(person: Person) -> Refusal | None:
    if person.enabled:
        return None
    return Refusal(
        code="approver_disabled",
        message=f"`{person.principal}` is disabled or not registered; ask somebody else, or enable it first",
    )


def _in_role(person: Person, roles_required: Iterable[str]) -> Refusal | None:
    required = sorted({role.removeprefix("role:") for role in roles_required} - {""})
    held = {role.removeprefix("role:") for role in person.roles}
    if held.intersection(required):
        return None
    if not required:
        return Refusal(code="role_missing", message="no role is named that may decide this; name one in the contract")
    return Refusal(
        code="role_missing",
        message=f"`{person.principal}` has none of the roles {', '.join(f'`{role}`' for role in required)}; "
        "ask somebody who has",
    )


def _not_same(person: Person, other: str | None, code: str, what: str) -> Refusal | None:
    if other is None:
        return None
    try:
        name = parse_principal(other)
    except IdentityError as error:
        return Refusal(code=error.code, message=error.message)
    if str(name) != person.principal:
        return None
    return Refusal(code=code, message=f"`{person.principal}` {what}, so somebody else must decide")

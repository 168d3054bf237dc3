"""What people type, found: a run or a case by the start of its id, a person by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Table, select

from remit.contracts.problems import did_you_mean, quoted
from remit.errors import CaseError, IdentityError, RemitError, RunError
from remit.storage import schema
from remit.storage.database import storage_errors

if TYPE_CHECKING:
    from remit.app import Remit

Kind = Literal["run", "case"]

_WHERE: Mapping[Kind, tuple[Table, type[RemitError]]] = {
    "run": (schema.runs, RunError),
    "case": (schema.cases, CaseError),
}
_NAMED = 3
"""How many ids are named where several begin alike."""


def find(remit: Remit, kind: Kind, start: str) -> str:
    """The run or case whose id is or begins with `start`. Raises `RunError` or `CaseError`, `…_not_found`, `…_ambiguous`."""
    table, error = _WHERE[kind]
    found = _begin_with(remit, table, kind, start)
    if not found:
        raise error(f"there is no {kind} {quoted(start)}; `remit {kind}s` lists them", code=f"{kind}_not_found")
    if len(found) > 1:
        more = ", …" if len(found) > _NAMED else ""
        named = f"{', '.join(found[:_NAMED])}{more}"
        raise error(
            f"several {kind}s begin with {quoted(start)}: {named}; give more of the id", code=f"{kind}_ambiguous"
        )
    return found[0]


def find_person(remit: Remit, name: str) -> str:
    """The declared person that `ann` or `person/ann` names, as a bare id. Raises `IdentityError` (`principal_unknown`)."""
    person = name.removeprefix("person/")
    known = remit.project.people
    if person not in known:
        hint = did_you_mean(person, known, "declared")
        message = f"{quoted(name)} is not declared under `[people]` in remit.toml; {hint}"
        raise IdentityError(message, code="principal_unknown")
    return person


def storable(text: str) -> str:
    """What was typed as text that a database can be asked for: a byte that is no UTF-8 is in none of its texts."""
    return text.encode(errors="backslashreplace").decode()


def _begin_with(remit: Remit, table: Table, kind: Kind, start: str) -> list[str]:
    start = storable(start)
    wanted = start if start.startswith(f"{kind}-") else f"{kind}-{start}"
    column: Any = table.c[kind]
    query = select(column).where(table.c.tenant == remit.tenant, column.startswith(wanted, autoescape=True))
    with storage_errors(f"look for the {kind}"), remit.database.engine.connect() as connection:
        found = [row[0] for row in connection.execute(query.order_by(column).limit(_NAMED + 1))]
    return [wanted] if wanted in found else found

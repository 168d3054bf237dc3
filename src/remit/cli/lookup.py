"""What people type, found: a run or a case by the start of its id, a person by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, select

from remit.contracts.problems import did_you_mean, quoted
from remit.errors import CaseError, IdentityError, RunError
from remit.storage import schema
from remit.storage.database import storage_errors

if TYPE_CHECKING:
    from remit.app import Remit

_NAMED = 3
"""How many ids are named where several begin alike."""


def find_run(remit: Remit, start: str) -> str:
    """The run whose id is or begins with `start`. Raises `RunError`: `run_not_found`, `run_ambiguous`."""
    found = _begin_with(remit, schema.runs, "run", start)
    if not found:
        raise RunError(f"there is no run {quoted(start)}; `remit runs` lists them", code="run_not_found")
    if len(found) > 1:
        raise RunError(_several("runs", start, found), code="run_ambiguous")
    return found[0]


def find_case(remit: Remit, start: str) -> str:
    """The case whose id is or begins with `start`. Raises `CaseError`: `case_not_found`, `case_ambiguous`."""
    found = _begin_with(remit, schema.cases, "case", start)
    if not found:
        raise CaseError(f"there is no case {quoted(start)}; `remit cases` lists them", code="case_not_found")
    if len(found) > 1:
        raise CaseError(_several("cases", start, found), code="case_ambiguous")
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


def _begin_with(remit: Remit, table: Table, kind: str, start: str) -> list[str]:
    start = storable(start)
    wanted = start if start.startswith(f"{kind}-") else f"{kind}-{start}"
    column: Any = table.c[kind]
    query = select(column).where(table.c.tenant == remit.tenant, column.startswith(wanted, autoescape=True))
    with storage_errors(f"look for the {kind}"), remit.database.engine.connect() as connection:
        found = [row[0] for row in connection.execute(query.order_by(column).limit(_NAMED + 1))]
    return [wanted] if wanted in found else found


def _several(what: str, start: str, found: list[str]) -> str:
    more = ", …" if len(found) > _NAMED else ""
    return f"several {what} begin with {quoted(start)}: {', '.join(found[:_NAMED])}{more}; give more of the id"

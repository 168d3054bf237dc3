"""Approving releases. Where a project asks for it, no run opens under a release that nobody has approved.

What a release covers is said in `releases.bundle`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert, select, update

from remit.errors import CaseError, RunError
from remit.gate.authority import Authority
from remit.identity.people import People
from remit.identity.principals import may_decide
from remit.storage.database import Database, storage_errors
from remit.storage.schema import releases
from remit.values import Json, encode

SCOPE = "releases:approve"
"""What a person's token must hold to approve a release."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release that somebody approved; times in microseconds since the epoch."""

    release: str
    contract: str
    author: str
    approved_by: str
    approved_at: int


class Releases:
    """The releases of one project. `role` is who approves (`role:release-manager`); `None` asks for nobody."""

    def __init__(self, *, database: Database, people: People, role: str | None) -> None:
        self._database = database
        self._people = people
        self._role = role

    def admit(self, authority: Authority) -> None:
        """Raises `RunError` (code `release_not_approved`) where the project wants an approval and there is none."""
        if self._role is None or self.get(authority.release) is not None:
            return
        raise RunError(
            f"release `{authority.release[:12]}` of contract `{authority.contract.contract}` is not approved; "
            f"somebody with {self._role} runs `remit release approve {authority.contract.contract} --as PERSON`",
            code="release_not_approved",
        )

    def approve(self, authority: Authority, bundle: Json, *, token: str, now_us: int) -> Release:
        """Approve the current release of a contract as the person whom `token` belongs to.

        Raises `CaseError` with what keeps this person from it: the author of a contract never approves its release.
        """
        if self._role is None:
            raise CaseError(
                "this project asks for no approval of releases; set `approval` under `[releases]` in remit.toml",
                code="release_needs_none",
            )
        person = self._people.holder(token, SCOPE, now_us)
        author = authority.contract.author
        if author is None:
            raise CaseError(
                f"contract `{authority.contract.contract}` names no author; add `author: person/<id>`, so that somebody "
                "else can approve it",
                code="author_unknown",
            )
        refused = may_decide(person, [self._role], None, None, author)
        if refused is not None:
            raise CaseError(refused.message, code=refused.code)
        self._store(authority, bundle, author, person.principal, now_us)
        found = self.get(authority.release)
        assert found is not None
        return found

    def get(self, release: str) -> Release | None:
        """An approved release, or `None`."""
        table = releases.c
        columns = (table.release, table.contract, table.author, table.approved_by, table.approved_at)
        approved = (table.release == release, table.tenant == self._people.tenant, table.approved_by.is_not(None))
        query = select(*columns).where(*approved)
        with storage_errors("read the releases"), self._database.engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else Release(**row)

    def _store(self, authority: Authority, bundle: Json, author: str, by: str, at: int) -> None:
        with storage_errors("store the release"), self._database.engine.begin() as connection:
            known = connection.execute(select(releases.c.release).where(releases.c.release == authority.release)).first()
            if known is None:
                row = {"release": authority.release, "tenant": authority.tenant, "contract": authority.contract.contract}
                connection.execute(insert(releases).values(**row, author=author, created_at=at, bundle=encode(bundle)))
            approving = update(releases).where(
                releases.c.release == authority.release, releases.c.approved_by.is_(None)
            )
            connection.execute(approving.values(approved_by=by, approved_at=at))

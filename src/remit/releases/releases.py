"""Approving releases. Where a project asks for it, no run opens under a release that nobody has approved.

What a release covers is said in `releases.bundle`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from remit.errors import CaseError, RunError, StorageError
from remit.gate.authority import Authority
from remit.identity.people import People
from remit.identity.principals import may_decide
from remit.journal.events import Draft, EventType
from remit.journal.redaction import Redactor
from remit.journal.register import Register
from remit.storage.database import Database, storage_errors
from remit.storage.schema import releases
from remit.storage.writer import Statement
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

    def __init__(
        self, *, database: Database, register: Register, redactor: Redactor, people: People, role: str | None
    ) -> None:
        self._database = database
        self._register = register
        self._redactor = redactor
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

    async def approve(self, authority: Authority, bundle: Json, *, token: str, now_us: int) -> Release:
        """Approve the current release of a contract as the person whom `token` belongs to; that is on the register.

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
        if self.get(authority.release) is None:
            await self._store(authority, bundle, author, person.principal, now_us)
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

    async def _store(self, authority: Authority, bundle: Json, author: str, by: str, at: int) -> None:
        contract, release = authority.contract.contract, authority.release
        row = {"release": release, "tenant": authority.tenant, "contract": contract, "author": author}
        statement = Statement(
            sql="INSERT INTO releases (release, tenant, contract, author, created_at, bundle, approved_by, approved_at)"
            " VALUES (:release, :tenant, :contract, :author, :at, :bundle, :by, :at) ON CONFLICT (release) DO UPDATE"
            " SET approved_by = :by, approved_at = :at WHERE releases.approved_by IS NULL",
            params={**row, "at": at, "bundle": encode(bundle), "by": by},
            changes=1,
        )
        draft = Draft(
            type=EventType.RELEASE_APPROVED,
            # A header holds nothing personal.
            actor=self._redactor.pseudonym("person", by),
            refs={"release": release},
            body={"release": release, "contract": contract, "author": author, "by": by},
        )
        try:
            await self._register.append(draft, statements=[statement], by=by)
        except StorageError as error:
            # Somebody else has approved it just now, and is on record with that.
            if error.code != "row_changed":
                raise

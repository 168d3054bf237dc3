"""The people of a project: who it is that shows a token, and which roles work on which queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from remit.errors import CaseError
from remit.identity.principals import Person, Principals
from remit.identity.tokens import TokenVerifier

Declared = Callable[[str], Person | None]
"""The declared person of a principal (`person/lee`), with their roles and state; `None` for nobody."""


class People:
    """The people of one tenant. `queues`: name of a queue → the roles that work on it (`role:it-lead`)."""

    def __init__(
        self,
        *,
        tenant: str,
        verifier: TokenVerifier,
        principals: Principals,
        declared: Declared,
        queues: Mapping[str, tuple[str, ...]],
    ) -> None:
        self.tenant = tenant
        self._verifier = verifier
        self._principals = principals
        self._declared = declared
        self._queues = queues

    def holder(self, token: str, scope: str, now_us: int) -> Person:
        """The person that a token belongs to, who is then known to the database.

        Raises `IdentityError` for the token, `CaseError`: `approver_unknown` for whoever is not a person of this
        project, `scope_missing` where the token does not hold `scope`.
        """
        claims = self._verifier.verify(token, now_us)
        person = self._declared(claims.principal)
        if person is None:
            raise CaseError(f"`{claims.principal}` is not a person of this project", code="approver_unknown")
        if scope not in claims.scopes:
            raise CaseError(f"the token does not hold `{scope}`; get one that does", code="scope_missing")
        self._principals.ensure([person.principal], now_us)
        return person

    def roles_held(self, principal: str) -> frozenset[str] | None:
        """The roles of a person (`role:it-lead`), by principal; `None` for whoever is not declared, or is disabled."""
        person = self._declared(principal)
        return person.roles if person is not None and person.enabled else None

    def roles_of(self, queue: str) -> tuple[str, ...]:
        """The roles that work on a queue (`queue:care` or `care`); none for a queue that isn't declared."""
        return self._queues.get(queue.removeprefix("queue:"), ())

    def operators(self) -> tuple[str, ...]:
        """Every role that works on some queue."""
        return tuple(dict.fromkeys(role for roles in self._queues.values() for role in roles))

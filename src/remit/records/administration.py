"""Enabling and disabling principals, on the register."""

from __future__ import annotations

from remit.identity.people import People
from remit.identity.principals import Principals
from remit.journal.events import Draft, EventType
from remit.journal.journal import Clock
from remit.journal.redaction import Redactor
from remit.journal.register import SYSTEM, Register
from remit.storage.writer import Statement

SCOPE = "principals:change"
"""What a person's token must hold."""


class Administration:
    """Changes who may act for one tenant. Whoever can run it may; who says who they are is on record by name."""

    def __init__(
        self, *, principals: Principals, register: Register, redactor: Redactor, people: People, clock: Clock
    ) -> None:
        self._principals = principals
        self._register = register
        self._redactor = redactor
        self._people = people
        self._clock = clock

    async def disable(self, principal: str, *, token: str | None = None, reason: str = "") -> None:
        """Stop it from its next call on, whatever token it holds.

        `token`: of the person who does it; without one it is the system. Raises `IdentityError` (`principal_unknown`,
        `principal_disabled` where that person is), `StorageError`.
        """
        await self._change(principal, self._principals.disabling(principal, self._clock()), token, reason)

    async def enable(self, principal: str, *, token: str | None = None, reason: str = "") -> None:
        """Let it act again. Raises as `disable` does."""
        await self._change(principal, self._principals.enabling(principal, self._clock()), token, reason)

    async def _change(self, principal: str, statement: Statement, token: str | None, reason: str) -> None:
        by = SYSTEM
        if token is not None:
            by = self._people.holder(token, SCOPE, self._clock()).principal
        # A header holds nothing personal.
        actor = by if token is None else self._redactor.pseudonym("person", by)
        body = {
            "principal": principal,
            "enabled": bool(statement.params["enabled"]),
            "by": by,
            "reason": self._redactor.text(reason),
        }
        draft = Draft(type=EventType.PRINCIPAL_CHANGED, actor=actor, body=body)
        await self._register.append(draft, statements=[statement], by=None if token is None else by)

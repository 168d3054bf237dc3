"""Enabling and disabling principals, revoking keys, and going on from a restored backup, on the register."""

from __future__ import annotations

from pathlib import Path

from remit.errors import IdentityError, RecordError, StorageError
from remit.identity.keys import KeyRing
from remit.identity.people import People
from remit.identity.principals import Principals
from remit.journal.events import Draft, EventType
from remit.journal.journal import Clock
from remit.journal.redaction import Redactor
from remit.journal.register import SYSTEM, Register
from remit.journal.sequencer import NOT_EXTENDED, Sequencer
from remit.storage.writer import Statement

SCOPE = "principals:change"
"""What a person's token must hold."""


class Administration:
    """Changes who may act for one tenant. Whoever can run it may; who says who they are is on record by name."""

    def __init__(
        self, *, principals: Principals, keys: KeyRing, register: Register, redactor: Redactor, people: People, clock: Clock
    ) -> None:
        self._keys = keys
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

    async def revoke(self, start: str, *, token: str | None = None, reason: str = "") -> tuple[str, str]:
        """Revoke a key that signs tokens, named by its id or the start of it; its id, and that of the one that signs now.

        It is on the register before: should the process end in between, `remit verify` finds what the key still lets in.
        Raises `IdentityError` (`token_unknown_key`, and as `disable` does for the token), `StorageError`.
        """
        known = [str(key["kid"]) for key in self._keys.public_jwks(self._clock())["keys"]]
        found = [kid for kid in known if kid.startswith(start)] if start else []
        if len(found) != 1:
            wrong = "no key of the ring" if not found else "more than one key of the ring"
            raise IdentityError(f"{wrong} begins so; there are {', '.join(known)}", code="token_unknown_key")
        by, actor = self._who(token)
        body = {"key": found[0], "by": by, "reason": self._redactor.text(reason)}
        draft = Draft(type=EventType.KEY_REVOKED, actor=actor, refs={"key": found[0]}, body=body)
        await self._register.append(draft, by=None if token is None else by)
        return found[0], self._keys.revoke(found[0])

    async def restored(self, sequencer: Sequencer, *, token: str | None = None, reason: str = "") -> Path | None:
        """Say that the database was restored from a backup that is older than what was published, and sign from there.

        The file of published checkpoints is set aside under the name that is returned: it proves what was before. Raises
        `RecordError` (code `nothing_lost`) where the database goes on from what was published, else as `disable` does.
        """
        try:
            await sequencer.integrate()
        except StorageError as error:
            if error.code != NOT_EXTENDED:
                raise
        else:
            message = "the database goes on from what was published, so nothing is to be done"
            raise RecordError(message, code="nothing_lost")
        last = sequencer.last.read()
        lost = None if last is None else {"size": last.size, "root": last.root.hex(), "at": last.at}
        by, actor = self._who(token)
        body = {"by": by, "reason": self._redactor.text(reason), "lost": lost}
        draft = Draft(type=EventType.RECORD_RESTORED, actor=actor, body=body)
        await self._register.append(draft, by=None if token is None else by)
        aside = sequencer.last.set_aside()
        await sequencer.integrate(publish=True)
        return aside

    def _who(self, token: str | None) -> tuple[str, str]:
        """Who it is by, and how a header names them: it holds nothing personal."""
        if token is None:
            return SYSTEM, SYSTEM
        by = self._people.holder(token, SCOPE, self._clock()).principal
        return by, self._redactor.pseudonym("person", by)

    async def _change(self, principal: str, statement: Statement, token: str | None, reason: str) -> None:
        by, actor = self._who(token)
        body = {
            "principal": principal,
            "enabled": bool(statement.params["enabled"]),
            "by": by,
            "reason": self._redactor.text(reason),
        }
        draft = Draft(type=EventType.PRINCIPAL_CHANGED, actor=actor, body=body)
        await self._register.append(draft, statements=[statement], by=None if token is None else by)

"""What the gate says of a call (`Verdict`), and what became of it (`Outcome`). Both vocabularies are closed."""

from __future__ import annotations

import msgspec

from remit.values import Json


class Allow(msgspec.Struct, frozen=True, kw_only=True):
    """It may be carried out. `rules` are the `@id`s of the permits that said so."""

    rules: tuple[str, ...] = ()


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """It is malformed; the agent may correct it and try again, a bounded number of times."""

    code: str
    message: str


class Deny(msgspec.Struct, frozen=True, kw_only=True):
    """It may not be carried out. `rules` names the policies that fired, if policy it was."""

    code: str
    message: str
    rules: tuple[str, ...] = ()


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """A person must decide: one of `roles`, within `expires_ms` of the asking, because of `reasons`."""

    message: str
    rules: tuple[str, ...]
    reasons: tuple[str, ...]
    roles: tuple[str, ...]
    expires_ms: int


class Defer(msgspec.Struct, frozen=True, kw_only=True):
    """It can't be decided now, because a system that the decision needs is out of reach; nothing speaks against it."""

    code: str
    message: str


Verdict = Allow | Reject | Deny | Hold | Defer


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """It was carried out, and its result met the output schema and the postconditions.

    `source`: `cache` or `second request` where the result of a read came from there.
    """

    result: Json
    source: str = ""

    @property
    def completed(self) -> bool:
        return True


class _NotCompleted(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str

    @property
    def completed(self) -> bool:
        return False


class Rejected(_NotCompleted, frozen=True, kw_only=True):
    """Malformed: correct it and propose again; `attempts_left` says how often."""

    attempts_left: int


class Denied(_NotCompleted, frozen=True, kw_only=True):
    """Not allowed; asking again in other words changes nothing."""

    rules: tuple[str, ...] = ()


class Held(_NotCompleted, frozen=True, kw_only=True):
    """Waiting for a person; `case` names what they were asked."""

    case: str
    rules: tuple[str, ...] = ()


class Deferred(_NotCompleted, frozen=True, kw_only=True):
    """Not decided and not done, because a system is out of reach: propose it again later."""


class Failed(_NotCompleted, frozen=True, kw_only=True):
    """Allowed, tried, and certainly not done. `usage`: what that cost all the same, where the tool counts it."""

    usage: Json = None


class Unknown(_NotCompleted, frozen=True, kw_only=True):
    """Dispatched, and nobody knows: never retried blindly, never counted as success."""

    case: str | None = None


Outcome = Completed | Rejected | Denied | Held | Deferred | Failed | Unknown
Carried = Completed | Failed | Unknown
"""What can become of a call that was carried out."""

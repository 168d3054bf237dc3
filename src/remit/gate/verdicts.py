"""What the gate says of a call (`Verdict`), and what became of it (`Outcome`). Both vocabularies are closed."""

from __future__ import annotations

from dataclasses import dataclass

from remit.values import Json


@dataclass(frozen=True, kw_only=True)
class Allow:
    """It may be carried out. `rules` are the `@id`s of the permits that said so."""

    rules: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reject:
    """It is malformed; the agent may correct it and try again, a bounded number of times."""

    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Deny:
    """It may not be carried out. `rules` names the policies that fired, if policy it was."""

    code: str
    message: str
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A person must decide: one of `roles`, within `expires_ms` of the asking."""

    message: str
    rules: tuple[str, ...]
    roles: tuple[str, ...]
    expires_ms: int


Verdict = Allow | Reject | Deny | Hold


@dataclass(frozen=True, kw_only=True)
class Completed:
    """It was carried out, and its result met the output schema and the postconditions."""

    result: Json

    @property
    def completed(self) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class _NotCompleted:
    code: str
    message: str

    @property
    def completed(self) -> bool:
        return False


@dataclass(frozen=True, kw_only=True)
class Rejected(_NotCompleted):
    """Malformed: correct it and propose again; `attempts_left` says how often."""

    attempts_left: int


@dataclass(frozen=True, kw_only=True)
class Denied(_NotCompleted):
    """Not allowed; asking again in other words changes nothing."""

    rules: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Held(_NotCompleted):
    """Waiting for a person; `case` names what they were asked."""

    case: str
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Failed(_NotCompleted):
    """Allowed, tried, and certainly not done."""


@dataclass(frozen=True, kw_only=True)
class Unknown(_NotCompleted):
    """Dispatched, and nobody knows: never retried blindly, never counted as success."""

    case: str | None = None


Outcome = Completed | Rejected | Denied | Held | Failed | Unknown

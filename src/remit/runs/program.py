"""What a run executes, where it is found, and how a run stands when nobody drives it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jsonschema_rs

from remit.errors import RunError
from remit.gate.authority import Authority
from remit.runs.run import Run
from remit.values import Json, ValueRefused, encode, leaves

Workflow = Callable[[Run, Any], Awaitable[Any]]


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a run executes: the authority it acts under, and the code and schemas of its contract."""

    authority: Authority
    input_validator: jsonschema_rs.Draft202012Validator
    output_validator: jsonschema_rs.Draft202012Validator
    bundle: Json
    """All that shapes behaviour, as the release's digest covers it."""
    workflow: Workflow | None
    """`None` for a contract whose agent lives elsewhere and only proposes."""
    texts: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """The code that the bundle names, by SHA-256, so that it can be kept with the release."""
    refs: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the headers of its runs refer to beside release and policy."""
    known: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """By class, values that are concealed in its runs from the first event on, because another run has held them."""
    request_classes: Mapping[str, str] = field(default_factory=dict[str, str])
    """The classes of fields of the request, by dotted path."""

    def opening_body(self, body: Mapping[str, Json]) -> tuple[dict[str, Json], dict[str, str]]:
        """What the first event of a run says, with what is known; and the classes of it."""
        classes = {f"request.{path}": kind for path, kind in self.request_classes.items()}
        if not self.known:
            return dict(body), classes
        known: Json = {kind: list(values) for kind, values in self.known.items()}
        return {**body, "known": known}, {**classes, **{f"known.{kind}.*": kind for kind in self.known}}

    def check_input(self, request: Json) -> None:
        """Raises `RunError` (code `input_invalid`) for a request that does not meet the input schema."""
        problem = _problem(self.input_validator, request, "the request")
        if problem:
            raise RunError(problem, code="input_invalid")

    def output_problem(self, output: Json) -> str:
        """What keeps an output from meeting the output schema; empty where it does."""
        return _problem(self.output_validator, output, "the output")


def _problem(validator: jsonschema_rs.Draft202012Validator, value: Json, what: str) -> str:
    try:
        for _ in leaves(value):
            pass
        encode(value)
    except ValueRefused as error:
        return f"{what} is not acceptable: {error.message}"
    error = next(iter(validator.iter_errors(value)), None)
    side = "input" if what == "the request" else "output"
    return "" if error is None else f"{what} does not meet the contract's {side} schema: {error.message}"


class Programs(Protocol):
    """Where programs are found. Both raise `ConfigError` for a contract that is wrong or isn't there."""

    def at_once(self) -> Mapping[str, int]:
        """How many runs of a contract may be driven at once, where it says so."""
        ...

    def at_hand(self, contract: str, release: str | None) -> Program:
        """The program of a contract, under `release` if one is named; nothing is written.

        Raises `RunError` (code `release_not_at_hand`) where the contract is at another release now.
        """
        ...

    def admitted(self, contract: str, on_behalf_of: str | None) -> Program:
        """The program that a new run begins with; its principals are registered.

        Raises `RunError` (code `release_not_approved`) where nobody has approved it who had to.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run stands when nobody drives it any more.

    `outcome`: completed, escalated, denied, failed, unknown, diverged, stopped (by a person); held while it waits for
    a person, waiting while a system is out of reach, running while somebody else drives it; stuck where
    `drive_waiting` could not drive it.
    """

    run: str
    outcome: str
    output: Json = None
    reason: str = ""
    case: str | None = None

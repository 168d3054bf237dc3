"""One proposed call on its way through the gate, and what the gate knows of the run that proposes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from remit.contracts.model import Action
from remit.gate.authority import Authority
from remit.gate.turns import Turns
from remit.gate.verdicts import Verdict
from remit.identity.tokens import Claims
from remit.journal.journal import Clock, RunLog
from remit.journal.redaction import Redacted, Redactor
from remit.limits.rules import Demand, RunUsage
from remit.policy.decision import MustHold, Permitted
from remit.policy.session import PastCall
from remit.provenance.labels import Seen
from remit.tools.spec import Resource, Tool
from remit.values import Json, Path


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent asks for. `step` is the deterministic path of the step in the run, such as `3.1`.

    `on_text`: who listens while a model's text is made; no part of what is decided or recorded.
    """

    tool: str
    args: Json
    step: str
    token: str
    on_text: Callable[[str], None] | None = None


class ApprovalRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked of a person about one step, and what they said. It answers that question and no other.

    `expires_at`, `decided_at`: microseconds since the epoch. `policy`: digest of the policy that asked.
    `shown`: digest of what the person was shown; `question`: of as much of it as must still hold.
    `granted` is `None` while nobody has decided.
    """

    case: str
    step: str
    tool: str
    args_digest: str
    policy: str
    rules: tuple[str, ...]
    shown: str
    question: str
    expires_at: int
    granted: bool | None = None
    decided_by: str = ""
    decided_at: int = 0
    reason: str = ""


@dataclass(kw_only=True, slots=True)
class RunState:
    """The gate's view of one open run: a fold over the run's events, kept up to date as it goes on."""

    authority: Authority
    log: RunLog
    on_behalf_of: str | None
    opened_at: int
    parked_us: int = 0
    """How long the run has waited for people; its wall time does not count that."""
    seen: Seen = field(default_factory=Seen)
    past: list[PastCall] = field(default_factory=list[PastCall])
    usage: RunUsage = field(default_factory=RunUsage)
    steps: set[str] = field(default_factory=set[str])
    """The steps proposed so far, whatever came of them: what `budget.calls` bounds."""
    rejections: dict[str, int] = field(default_factory=dict[str, int])
    """Malformed proposals in a row, by tool."""
    approvals: dict[str, ApprovalRequest] = field(default_factory=dict[str, ApprovalRequest])
    """By step; only the latest one asked."""
    deferred: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    plain_digests: set[str] = field(default_factory=set[str])
    """Digests of arguments without a key that stand on record from before 0.2, see `remit.gate.arguments`."""
    """Calls, by tool and digest of the arguments, that could not be decided yet and were not proposed again since."""
    turns: Turns = field(default_factory=Turns)
    ended: str = ""
    """Why nothing more is carried out, once the run is closed, parked or left by its worker, or was stopped."""
    redactor: Redactor
    clock: Clock

    @property
    def run(self) -> str:
        return self.log.run


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal and what the checks have found out about it so far; each check hands on a fuller one."""

    proposal: Proposal
    at_us: int
    proposed: int = 0
    """How many steps the run had proposed when this was judged, this one among them."""
    claims: Claims | None = None
    tool: Tool | None = None
    action: Action | None = None
    args: dict[str, Json] = {}
    leaves: Sequence[tuple[Path, Json]] = ()
    """The scalars of the arguments with their paths, walked once."""
    args_digest: str = ""
    key: str = ""
    """The idempotency key: the same for every attempt of this call and for no other call."""
    demand: Demand = Demand()
    redacted: Redacted | None = None
    labels: Mapping[str, tuple[str, ...]] = {}
    fields: tuple[str, ...] = ()
    resource: Resource | None = None
    decision: Permitted | MustHold | None = None
    read: bytes = b""
    """The exact context that the policy read, as JSON."""


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict that ends the checks, with the call as the check that gave it has found it."""

    call: Call
    verdict: Verdict

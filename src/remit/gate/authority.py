"""What a run may go by: its contract under one release, with the tools, the policy and the limits that follow from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec

from remit.contracts.model import Action, Contract
from remit.identity.tokens import TokenRequest, scopes_of
from remit.limits.rules import ActionRules
from remit.policy.decision import PolicyDecisionPoint
from remit.tools.spec import FieldClass, Resource, Tool
from remit.values import Json


class Verifiable(msgspec.Struct, frozen=True, kw_only=True):
    """What a verifier is shown: the proposed call, and the results of earlier calls of the run by tool.

    `resource`: the object that the call is about, as its system of record has it now. `step`: the call's place in the run.
    """

    step: str
    tool: str
    args: Mapping[str, Json]
    resource: Resource | None
    earlier: Mapping[str, Json]


Verifier = Callable[[Verifiable], Awaitable[str | None]]
"""Returns why it does not agree, or `None` where it does."""


@dataclass(frozen=True, kw_only=True)
class Authority:
    """Loaded once per release and shared by its runs. `tools` holds the granted tools and no others."""

    contract: Contract
    release: str
    """Content hash of all that shapes behaviour."""
    tenant: str
    region: str | None
    principal: str
    tools: Mapping[str, Tool]
    actions: Mapping[str, Action]
    policy: PolicyDecisionPoint
    limits: Mapping[str, ActionRules]
    spends: Mapping[str, int]
    """What one call of a model may cost, in microdollars, by tool name: reserved before it is sent."""
    verifiers: Mapping[str, Verifier]
    fact_classes: Mapping[str, FieldClass]
    """The classes of the contract's session facts, by where they stand in the record of a decision."""
    confidence_floor: int | None = None
    """Per mille; a model's answer below it escalates the run."""

    def token_request(self, run: str, on_behalf_of: str | None = None) -> TokenRequest:
        """What the token of one of its runs is to say. Raises `IdentityError` (code `scope_malformed`)."""
        return TokenRequest(
            principal=self.principal,
            tenant=self.tenant,
            region=self.region,
            scopes=scopes_of(self.contract),
            release=self.release,
            run=run,
            on_behalf_of=on_behalf_of,
        )

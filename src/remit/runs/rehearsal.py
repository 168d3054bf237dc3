"""A rehearsal: what the gate would say of calls, in a run that is never opened. Nothing is recorded or carried out."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from remit.contracts.model import Action
from remit.gate.authority import Authority
from remit.gate.call import Call, Proposal, RunState
from remit.gate.gate import Gate
from remit.gate.verdicts import Verdict
from remit.identity.tokens import TokenIssuer
from remit.values import Json


class Rehearsal:
    """One run that does not happen; `state` is that of a run which was just opened."""

    def __init__(self, gate: Gate, issuer: TokenIssuer, state: RunState) -> None:
        self._gate = gate
        self._issuer = issuer
        self._state = state

    async def propose(self, tool: str, args: Json, step: str) -> tuple[Call, Verdict]:
        """What would be said of a call, and the call as far as it was looked into: located, redacted."""
        state = self._state
        token = self._issuer.issue(state.authority.token_request(state.run, state.on_behalf_of), state.clock())
        return await self._gate.preview(state, Proposal(tool=tool, args=args, step=step, token=token))


    def text(self, text: str) -> str:
        """A text as it may be shown."""
        return self._state.redactor.text(text)


def unverified(authority: Authority) -> Authority:
    """The same authority without verifiers, which may go by what a run has really done before."""
    actions = {tool: _unverified(action) for tool, action in authority.actions.items()}
    return replace(authority, actions=actions)


def _unverified(action: Action) -> Action:
    return msgspec.structs.replace(action, verify=[])

"""1. Authenticate: the token is valid, unexpired, meant for this gate, and bound to this run and release."""

from __future__ import annotations

from msgspec.structs import replace

from remit.errors import IdentityError
from remit.gate.call import Call, RunState
from remit.gate.verdicts import Deny
from remit.identity.tokens import TokenVerifier


class Authenticate:
    """Holds the verifier; that the principal is enabled is read in the transaction that records the decision."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    def __call__(self, call: Call, run: RunState) -> Call | Deny:
        try:
            claims = self._verifier.verify(call.proposal.token, call.at_us)
        except IdentityError as error:
            return Deny(code=error.code, message=error.message)
        authority = run.authority
        if claims.principal != authority.principal or claims.tenant != authority.tenant:
            return Deny(code="token_wrong_principal", message=f"the token is not one of `{authority.principal}`")
        if claims.run != run.run:
            return Deny(code="token_wrong_run", message="the token was issued for another run")
        if claims.release != authority.release:
            return Deny(code="token_wrong_release", message="the token was issued under another release")
        if claims.on_behalf_of != run.on_behalf_of:
            return Deny(code="token_wrong_person", message="the token acts for somebody else than the run does")
        return replace(call, claims=claims)

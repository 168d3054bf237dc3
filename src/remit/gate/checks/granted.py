"""2. Granted: the contract grants this tool at all. If not, nothing more is said about it."""

from __future__ import annotations

from msgspec.structs import replace

from remit.gate.call import Call, RunState
from remit.gate.verdicts import Deny


def granted(call: Call, run: RunState) -> Call | Deny:
    name = call.proposal.tool
    authority = run.authority
    tool = authority.tools.get(name)
    action = authority.actions.get(name)
    assert call.claims is not None
    if tool is None or action is None or call.claims.lacks(name):
        shown = name if name.isascii() and len(name) <= 64 else ascii(name)[:64]
        return Deny(
            code="not_granted",
            message=f"tool `{shown}` is not granted by contract `{authority.contract.contract}`; "
            f"granted are {', '.join(f'`{t}`' for t in sorted(authority.actions))}",
        )
    return replace(call, tool=tool, action=action)

"""Bounded: the run has proposals and time left. What is shared with other runs is reserved later, with the record."""

from __future__ import annotations

from remit.contracts.quantities import duration_ms
from remit.gate.call import Call, RunState
from remit.gate.verdicts import Deny


def bounded(call: Call, run: RunState) -> Call | Deny:
    contract = run.authority.contract
    if call.proposed > contract.budget.calls:
        return Deny(
            code="limit_exhausted",
            message=f"the run has used its {contract.budget.calls} calls; raise `budget.calls` or end earlier",
        )
    spent_us = call.at_us - run.opened_at - run.parked_us
    if spent_us > duration_ms(contract.budget.time) * 1000:
        return Deny(code="limit_exhausted", message=f"the run's time of {contract.budget.time} is over")
    if run.rejections.get(call.proposal.tool, 0) >= contract.attempts:
        return Deny(
            code="retries_exhausted",
            message=f"`{call.proposal.tool}` was malformed {contract.attempts} times in a row; a person takes over",
        )
    return call

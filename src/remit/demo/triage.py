"""The first act: the contract on every ticket, then a person's answers to what is held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from remit.app import Remit
from remit.cases.cases import Decision
from remit.demo.tickets import Filed
from remit.runs.engine import RunResult

CONTRACT = "it-tickets"
_AT_ONCE = 6
_LEAVE_OPEN = 3
"""This many approvals are left undecided, for whoever explores the project afterwards."""


@dataclass(frozen=True, kw_only=True)
class Triaged:
    """A ticket and how its run stands."""

    filed: Filed
    result: RunResult


async def triage(remit: Remit, filed: Sequence[Filed], done: Callable[[Triaged], None]) -> list[Triaged]:
    """Run the contract on each ticket, a few at once and in the order of filing."""
    free = asyncio.Semaphore(_AT_ONCE)

    async def one(item: Filed) -> Triaged:
        async with free:
            result = await remit.run(CONTRACT, {"issue": item.issue}, request_key=item.ticket.key)
        triaged = Triaged(filed=item, result=result)
        done(triaged)
        return triaged

    return list(await asyncio.gather(*(one(item) for item in filed)))


async def answer_cases(remit: Remit, triaged: Sequence[Triaged]) -> list[Triaged]:
    """A person who knows what is right approves or denies what is held, and the runs go on. Returns all, in order."""
    token = remit.person_token("lee")
    answered: list[Triaged] = []
    held = [item for item in triaged if item.result.case is not None and item.result.outcome == "held"]
    leave = {id(item) for item in held[-_LEAVE_OPEN:]}
    for item in triaged:
        if id(item) in leave or item.result.outcome != "held":
            answered.append(item)
            continue
        result = item.result
        while result.outcome == "held" and result.case is not None:
            right = item.filed.ticket.truth["action"] != "escalate" or item.filed.ticket.vip
            decision = Decision.APPROVED if right else Decision.DENIED
            await remit.cases.decide(result.case, decision, token=token, reason="" if right else "not theirs to ask for")
            result = await remit.engine.drive(result.run)
        answered.append(Triaged(filed=item.filed, result=result))
    return answered


def output_of(item: Triaged) -> dict[str, Any]:
    """What the run gave back; empty where it gave nothing."""
    output: Any = item.result.output
    return cast("dict[str, Any]", output) if isinstance(output, dict) else {}


def is_right(item: Triaged, issue_of: dict[str, int]) -> bool:
    """Whether what was done with a ticket is what should have been done."""
    truth, result, ticket = item.filed.ticket.truth, item.result, item.filed.ticket
    if ticket.tenant != "northwind":
        return result.outcome == "denied"
    output = output_of(item)
    match truth["action"]:
        case "escalate":
            refused = truth["reason"] is None and result.outcome == "denied"
            return result.outcome in ("escalated", "held") or refused or (ticket.vip and result.outcome == "completed")
        case "close_duplicate":
            return output.get("duplicate_of") == issue_of[truth["duplicate_of"]]
        case "access_reset":
            return output.get("action") == "access_reset" or result.outcome == "held"
        case _:
            return output.get("action") == "triage" and output.get("category") == truth["category"]

"""Runs that took place elsewhere, brought in as closed runs: decided by the real gate, and never carried out.

What a foreign recording says was done is taken as done; what the gate says of it (is the tool granted, are the arguments
well-formed, where did they come from) is found out as for any call, so that the record can be judged like any other. The
contract stands here without its own rules, limits and approvals, because nothing of the kind stood before the calls.
That a run was imported is said in `run.opened`, and it ends as `imported`: it is no outcome of ours.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from remit.contracts.model import Action, Budget, Limits
from remit.contracts.quantities import duration_ms
from remit.contracts.urgency import Urgency
from remit.errors import ConfigError
from remit.gate import record
from remit.gate.authority import Authority
from remit.gate.call import Call, Proposal, RunState
from remit.gate.gate import Gate, not_used, take_in_result
from remit.gate.verdicts import Allow, Carried, Completed, Failed, Reject, Unknown, Verdict
from remit.identity.tokens import TokenIssuer
from remit.journal.events import IMPORTED, Draft
from remit.journal.journal import Journal
from remit.journal.redaction import Redactor
from remit.limits.rules import compile_limits
from remit.policy.decision import PolicyDecisionPoint
from remit.policy.session import PastCall
from remit.runs.bounds import closing, opening
from remit.runs.fold import new_state, note_request
from remit.runs.program import Program
from remit.runs.table import LEASE_US, RunTable
from remit.storage import rows
from remit.storage.rows import RunRow
from remit.values import Json, digest, encode

_ROOM = Budget(calls=1_000, writes=1_000, spend="1000 USD", time="365d")


class ForeignStep(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a foreign recording. `result` is of the form of the tool's output schema where it `completed`."""

    tool: str
    args: Json
    result: Json = None
    outcome: str
    """`completed`, `failed`, or `unknown` where the recording doesn't say."""
    message: str = ""


class ForeignRecording(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a foreign recording. `key` is its own, so that it comes in once; `about` is kept with the opening.

    `importer`: what made it of a file; a name of ours, because it stays when the run is erased.
    """

    key: str
    importer: str
    request: Json
    steps: Sequence[ForeignStep]
    output: Json
    about: Mapping[str, Json]


@dataclass(frozen=True, kw_only=True)
class Unguarded:
    """A contract as it stands before imported calls: its grants alone. `bundle` is the release that they are under."""

    authority: Authority
    bundle: Mapping[str, Any]


def unguarded(program: Program) -> Unguarded:
    """The grants of a contract, without rules, limits, approvals and verifiers.

    Raises `ConfigError` for a tool that looks up its object, which nobody can for a call that is over.
    """
    theirs = program.authority
    for name, tool in theirs.tools.items():
        if tool.locate is not None:
            raise ConfigError(f"tool `{name}` looks up the object of a call, so calls of it can't be imported")
    granted = [Action(tool=action.tool, only=action.only) for action in theirs.contract.actions]
    contract = msgspec.structs.replace(
        theirs.contract, actions=granted, budget=_ROOM, limits=Limits(), per_person=Limits(), attempts=10
    )
    actions = [*contract.actions, *(Action(tool=f"model:{name}") for name in contract.models)]
    bundle: dict[str, Any] = {
        **program.bundle,
        "contract": msgspec.to_builtins(contract),
        "policy": "",
        "limits": {},
        IMPORTED: True,
    }
    specs = {name: tool.spec for name, tool in theirs.tools.items()}
    authority = replace(
        theirs,
        contract=contract,
        release=digest(bundle),
        actions={action.tool: action for action in actions},
        policy=PolicyDecisionPoint.build(contract, specs, ""),
        limits=compile_limits(contract, actions, theirs.tenant, Limits()),
        verifiers={},
    )
    return Unguarded(authority=authority, bundle=bundle)


class ImportedRuns:
    """Brings foreign recordings in as closed runs of one tenant."""

    def __init__(
        self, *, table: RunTable, journal: Journal, gate: Gate, issuer: TokenIssuer, redactor: Redactor
    ) -> None:
        self._table = table
        self._journal = journal
        self._gate = gate
        self._issuer = issuer
        self._redactor = redactor

    async def bring_in(self, unguarded: Unguarded, recording: ForeignRecording) -> str | None:
        """Record a run as a whole, in one transaction, and return its id; `None` where it is on record already."""
        authority = unguarded.authority
        key = self._table.keyed("key", f"{IMPORTED}/{recording.key}".encode())
        if self._table.opened(authority.contract.contract, key) is not None:
            return None
        run = f"run-{uuid.uuid4().hex[:16]}"
        log, keys = self._journal.start(authority.tenant, run)
        state = new_state(
            authority,
            log,
            redactor=self._redactor.for_run(),
            clock=self._journal.clock,
            on_behalf_of=None,
            opened_at=self._journal.clock(),
        )
        drafts = [self._opening(state, recording)]
        note_request(state, recording.request)
        token = self._issuer.issue(authority.token_request(run, None), self._journal.clock())
        for number, step in enumerate(recording.steps, start=1):
            proposal = Proposal(tool=step.tool, args=step.args, step=str(number), token=token)
            drafts += await self._step(state, proposal, step)
        ended: dict[str, Json] = {"outcome": IMPORTED, "output": recording.output, "reason": ""}
        drafts.append(closing(state.redactor, state.authority.principal, ended, 0))
        opened = rows.open_run(self._row(state, key, recording), self._table.now_us)
        closed = rows.close_run(run, IMPORTED, self._journal.clock())
        await self._journal.append(log, *drafts, statements=[keys, opened, closed])
        return run

    def _row(self, state: RunState, key: str, recording: ForeignRecording) -> RunRow:
        authority, contract = state.authority, state.authority.contract
        return RunRow(
            run=state.run,
            tenant=authority.tenant,
            contract=authority.contract.contract,
            release=authority.release,
            principal=authority.principal,
            request_key=key,
            request_digest=self._table.keyed("request", encode([recording.request, None])),
            elsewhere=True,
            opened_at=state.opened_at,
            worker=self._table.opener,
            lease_us=LEASE_US,
            priority=Urgency.NORMAL.rank,
            retention_us=duration_ms(contract.retention) * 1000,
            erase_after_us=None if contract.erase_after is None else duration_ms(contract.erase_after) * 1000,
        )

    def _opening(self, state: RunState, recording: ForeignRecording) -> Draft:
        authority = state.authority
        body: dict[str, Json] = {
            "contract": authority.contract.contract,
            "request": recording.request,
            "on_behalf_of": None,
            IMPORTED: dict(recording.about),
        }
        return opening(state.redactor, authority, body, {IMPORTED: recording.importer})

    async def _step(self, state: RunState, proposal: Proposal, step: ForeignStep) -> list[Draft]:
        """The decision of a call by the gate as it is, and what became of it as the recording has it."""
        state.steps.add(proposal.step)
        call, verdict = await self._gate.preview(state, proposal)
        drafts = list(record.decision(call, state, record.without_secrets(verdict, state), ()).drafts)
        if not isinstance(verdict, Allow):
            _note(state, call, verdict)
            return drafts
        carried = _carried(step)
        # Nobody is asked about what somebody else's call came to: of an unknown one the event alone is kept.
        drafts.append(record.outcome(call, state, carried, None, 0).drafts[0])
        limits = state.authority.limits[call.proposal.tool]
        state.usage.reserve(limits, call.demand)
        state.usage.release(limits, not_used(call.demand, carried, 0))
        state.rejections.pop(call.proposal.tool, None)
        if isinstance(carried, Completed):
            take_in_result(state, call, carried.result)
        else:
            _remember(state, call, step.outcome)
        return drafts


def _carried(step: ForeignStep) -> Carried:
    match step.outcome:
        case "completed":
            return Completed(result=step.result)
        case "failed":
            return Failed(code="failed_elsewhere", message=step.message)
        case _:
            return Unknown(code="not_recorded", message=step.message)


def _note(state: RunState, call: Call, verdict: Verdict) -> None:
    if isinstance(verdict, Reject):
        tool = call.proposal.tool
        state.rejections[tool] = state.rejections.get(tool, 0) + 1
    _remember(state, call, "rejected" if isinstance(verdict, Reject) else "denied")


def _remember(state: RunState, call: Call, outcome: str) -> None:
    past = PastCall(tool=call.proposal.tool, outcome=outcome, args=call.args, result=None, at_us=call.at_us)
    state.past.append(past)

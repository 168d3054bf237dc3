"""Undo of a run: planned, shown, and carried out as a run of its own on behalf of the person who asks for it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

from remit.contracts.model import Action, Budget
from remit.errors import RunError
from remit.gate.authority import Authority, Verifier
from remit.gate.verdicts import Allow, Hold, Verdict
from remit.journal.reader import Reader
from remit.journal.redaction import Redactor
from remit.runs.engine import Engine
from remit.runs.program import Program, Programs, RunResult
from remit.runs.rehearsal import Rehearsal
from remit.tools.spec import Tool
from remit.undo.plan import Compensating, Remaining, UndoPlan, plan_of, without
from remit.undo.program import (
    AS_BEFORE,
    Attributes,
    actions_for,
    budget_for,
    objection,
    program_for,
)
from remit.values import Json, digest, encode

PREFIX = "undo:"
"""A contract's name for the engine: `undo:<run>` is the undoing of that run, `undo:<run>#2` the second one, and
`undo:<run>!<steps>` one that overwrites."""

_NAME = re.compile(r"undo:(?P<run>[^#!]*)(?:#(?P<attempt>[0-9]+))?(?:!(?P<steps>.*))?")


def undone_by(name: str) -> str:
    """The run that a program of this name undoes; empty for a contract's own."""
    found = _NAME.fullmatch(name)
    return found["run"] if found else ""


def _name(run: str, attempt: int, overwrite: Sequence[str]) -> str:
    nth = "" if attempt == 1 else f"#{attempt}"
    return f"{PREFIX}{run}{nth}" + (f"!{','.join(sorted(overwrite))}" if overwrite else "")


Permit = Callable[[str, str, str], Awaitable[str]]
"""`(run, token, reason)` → the principal of the person whose token it is, if they may undo that run; raises otherwise."""


class ContractPrograms(Programs, Protocol):
    """Where contracts' own programs come from, and what a contract leaves a person to do."""

    def all_tools(self) -> Mapping[str, Tool]: ...

    def authority_for(
        self, name: str, actions: Sequence[Action], budget: Budget, verifiers: Mapping[str, Verifier]
    ) -> Authority: ...


@dataclass(frozen=True, kw_only=True)
class Foreseen:
    """What would be said of one call of a plan, if it were made now. `why` is empty where it would be carried out.

    `held`: a person must approve it first. `is_done`: there is nothing to do.
    """

    call: Compensating
    shown: Mapping[str, Json]
    """The arguments of the call, redacted."""
    why: str
    held: bool = False
    is_done: bool = False


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """A plan, and what would be said of each of its calls now."""

    plan: UndoPlan
    foreseen: tuple[Foreseen, ...]

    @property
    def remaining(self) -> tuple[Remaining, ...]:
        return self.plan.remaining


class UndoPrograms:
    """The programs that the engine asks for: those of contracts, and those of undos, made from the record."""

    def __init__(
        self,
        contracts: ContractPrograms,
        reader: Reader,
        run_of: Callable[[str, str], str | None],
        redactor: Redactor,
    ) -> None:
        """`run_of(contract, key)`: the run that a request key has opened, if it was used before."""
        self._contracts = contracts
        self._reader = reader
        self._run_of = run_of
        self._redactor = redactor

    def at_once(self) -> Mapping[str, int]:
        return self._contracts.at_once()

    def at_hand(self, contract: str, release: str | None) -> Program:
        if not contract.startswith(PREFIX):
            return self._contracts.at_hand(contract, release)
        # The release names what was asked for: a plan with some steps overwritten is another one than without.
        found = _NAME.fullmatch(contract)
        assert found is not None
        plan = self.plan(found["run"], int(found["attempt"] or 1))
        steps = [step for step in (found["steps"] or "").split(",") if step]
        program = self.program(plan, steps)
        if release in (None, program.authority.release):
            return program
        # One from before 0.2 is named by a digest without a key.
        earlier = self._program(plan, steps, digest(plan.request))
        if release == earlier.authority.release:
            return earlier
        raise RunError(
            f"the undo of run `{found['run']}` was planned under other files; put those back, or close it and plan anew",
            code="release_not_at_hand",
        )

    def admitted(self, contract: str, on_behalf_of: str | None) -> Program:
        if not contract.startswith(PREFIX):
            return self._contracts.admitted(contract, on_behalf_of)
        program = self.at_hand(contract, None)
        self._contracts.admitted(program.authority.contract.contract, on_behalf_of)
        return program

    def plan(self, run: str, attempt: int) -> UndoPlan:
        """What is left to undo of a run behind the undos before this one. Raises `RunError` as `plan_of` does, and where
        there is no such run.
        """
        plan = plan_of(run, self._reader.events(run), self._contracts.all_tools())
        for nth in range(1, attempt):
            earlier = self.undo_of(plan, nth)
            if earlier is not None:
                plan = without(plan, earlier, self._reader.events(earlier))
        return plan

    def undo_of(self, plan: UndoPlan, attempt: int) -> str | None:
        """The run that was the nth undo of a run."""
        return self._run_of(plan.contract, undo_key(plan.run, attempt))

    def program(self, plan: UndoPlan, overwrite: Sequence[str]) -> Program:
        """The program that carries out a plan."""
        # With a key, for the plan holds the values that the run has found: its release stands in every header.
        return self._program(plan, overwrite, self._redactor.mac("undo plan", encode(plan.request)))

    def _program(self, plan: UndoPlan, overwrite: Sequence[str], plan_digest: str) -> Program:
        base = self._contracts.at_hand(plan.contract, None).authority
        actions = actions_for(plan, base.actions)
        budget = budget_for(plan, base.contract.attempts)
        # Named here so that the contract with it can be compiled; `program_for` puts the real one in its place.
        verifiers: dict[str, Verifier] = {name: _nobody for action in actions for name in action.verify}
        authority = self._contracts.authority_for(plan.contract, actions, budget, verifiers)
        return program_for(plan, authority, overwrite, plan_digest)


async def _nobody(_shown: Any) -> str | None:
    raise RunError("an undo is carried out by its own program", code="diverged")


class Undoing:
    """Undoes the runs of one tenant."""

    def __init__(self, *, programs: UndoPrograms, engine: Engine, permit: Permit) -> None:
        self._programs = programs
        self._engine = engine
        self._permit = permit

    async def outlook(self, run: str, *, token: str, reason: str = "", overwrite: Sequence[str] = ()) -> Outlook:
        """The plan for a run, and what the gate would say now of each of its calls.

        Objects are located for it, and nothing is changed. `token` is a person's who may undo the run. Raises as `undo`
        does.
        """
        person = await self._permit(run, token, reason)
        plan = self._programs.plan(run, self._next(run)[0])
        _check_steps(plan, overwrite)
        program = self._programs.program(plan, overwrite)
        rehearsal = self._engine.rehearsal(program, f"undo-of-{run}", plan.request, person)
        restored: dict[tuple[str, str], dict[str, str | int | bool]] = {}
        foreseen: list[Foreseen] = []
        for number, call in enumerate(plan.calls, start=1):
            foreseen.append(await _foresee(call, str(number), rehearsal, restored, overwrite=call.step in overwrite))
        return Outlook(plan=plan, foreseen=tuple(foreseen))

    async def undo(self, run: str, *, token: str, reason: str = "", overwrite: Sequence[str] = ()) -> RunResult:
        """Carry out the plan for a run, as far as policy and the objects' present state allow.

        Asked again before it has ended, it goes on with the same undo; afterwards, it plans what is left. Raises `RunError`
        (`run_open`, `erased`, `nothing_to_undo`, `step_unknown`), and what `Permit` raises for whoever may not.
        """
        person = await self._permit(run, token, reason)
        attempt, under_way = self._next(run)
        if under_way is not None:
            return await self._engine.drive(under_way)
        plan = self._programs.plan(run, attempt)
        _check_steps(plan, overwrite)
        if not plan.calls:
            more = "" if attempt == 1 else " any more"
            message = f"nothing of run `{run}` can be undone{more}; `remit undo {run} --plan` says why"
            raise RunError(message, code="nothing_to_undo")
        opened = await self._engine.open(
            _name(run, attempt, overwrite),
            {**plan.request, "reason": reason},
            on_behalf_of=person,
            request_key=undo_key(run, attempt),
        )
        return await self._engine.drive(opened)

    def _next(self, run: str) -> tuple[int, str | None]:
        """Which undo of a run comes next, and the one that is still under way, if there is one."""
        plan = self._programs.plan(run, 1)
        for attempt in count(1):
            known = self._programs.undo_of(plan, attempt)
            if known is None:
                return attempt, None
            if not self._engine.is_closed(known):
                return attempt, known
        raise AssertionError


def undo_key(run: str, attempt: int) -> str:
    """The request key of the nth undo of a run: of any number that are asked for at once, one is opened."""
    return f"{PREFIX}{run}/{attempt}"


def _check_steps(plan: UndoPlan, overwrite: Sequence[str]) -> None:
    unknown = [step for step in overwrite if step not in {call.step for call in plan.calls}]
    if unknown:
        steps = ", ".join(call.step for call in plan.calls) or "none"
        raise RunError(f"step `{unknown[0]}` can't be undone; those that can: {steps}", code="step_unknown")


def _foreseen(call: Compensating, shown: Mapping[str, Json], verdict: Verdict, why: str) -> Foreseen:
    if why or isinstance(verdict, Allow):
        return Foreseen(call=call, shown=shown, why=why, is_done=why == AS_BEFORE)
    return Foreseen(call=call, shown=shown, why=verdict.message, held=isinstance(verdict, Hold))


Restored = dict[tuple[str, str], dict[str, str | int | bool]]
"""What objects, by kind and id, would have back by then."""


async def _foresee(call: Compensating, step: str, rehearsal: Rehearsal, restored: Restored, *, overwrite: bool) -> Foreseen:
    found, verdict = await rehearsal.propose(call.tool, dict(call.args), step)
    resource = found.resource
    shown: dict[str, Json] = found.redacted.value if found.redacted else {}
    if resource is None:
        return _foreseen(call, shown, verdict, "")
    # What was done later is undone earlier, and so stands as it was before that.
    back = restored.setdefault((resource.kind, resource.id), {})
    why = "" if overwrite else rehearsal.text(objection(call, {**resource.attributes, **back}) or "")
    if not why and call.before is not None:
        before: Attributes = call.before.attributes
        back.update({name: before[name] for name in call.left or () if name in before})
    return _foreseen(call, shown, verdict, why)

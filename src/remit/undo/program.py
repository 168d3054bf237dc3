"""The program of an undo: the plan's calls, one after the other, under the authority that the contract leaves for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jsonschema_rs
import msgspec

from remit.contracts.model import Action, Autonomy, Budget
from remit.errors import RunError
from remit.gate.authority import Authority, Verifiable
from remit.journal.events import UNDOES
from remit.runs.program import Program, Workflow
from remit.runs.run import NotCompleted, Run
from remit.undo.plan import Compensating, UndoPlan
from remit.values import Json, digest

UNCHANGED = "rule:unchanged-since"
"""The verifier that stands before every call of an undo."""
AS_BEFORE = "it is as it was before already"
_ANYTHING = jsonschema_rs.Draft202012Validator({})

Attributes = Mapping[str, str | int | bool]


def actions_for(plan: UndoPlan, granted: Mapping[str, Action]) -> list[Action]:
    """What an undo may call, beside what the contract grants: each compensation as often as it is planned.

    How much an agent may do by itself is no measure of what a person asks for; what the contract says of objects, and
    of money, is.
    """
    made: list[Action] = []
    for tool in dict.fromkeys(each.tool for each in plan.calls):
        times = sum(each.tool == tool for each in plan.calls)
        action = granted.get(tool) or Action(tool=tool)
        limits = msgspec.structs.replace(action.limits, per_run=max(times, action.limits.per_run or 0))
        asks = action.approval if action.approval is not None and action.approval.above is not None else None
        made.append(msgspec.structs.replace(action, autonomy=Autonomy.AUTO, approval=asks, verify=[UNCHANGED], limits=limits))
    return made


def budget_for(plan: UndoPlan, attempts: int) -> Budget:
    """Room for every planned call and for being taken up again."""
    calls = max(1, len(plan.calls))
    return Budget(calls=calls * attempts, writes=calls * attempts, time="1h")


def program_for(plan: UndoPlan, authority: Authority, overwrite: Sequence[str], plan_digest: str) -> Program:
    """The program that carries out a plan; `overwrite`: steps that are undone whoever changed what they left.

    `plan_digest`: of `plan.request`.

    `authority` is the one for it, whose release this replaces by one that names the plan.
    """
    bundle = {"undo": plan.run, "under": authority.release, "plan": plan_digest, "overwrite": list(overwrite)}
    calls = {str(number): call for number, call in enumerate(plan.calls, start=1)}
    verifiers = {**authority.verifiers, UNCHANGED: Unchanged(calls, overwrite)}
    return Program(
        authority=replace(authority, release=digest(bundle), verifiers=verifiers),
        input_validator=_ANYTHING,
        output_validator=_ANYTHING,
        bundle=bundle,
        workflow=_workflow(plan),
        refs={UNDOES: plan.run},
        known=plan.known,
        request_classes=_classes(plan, authority),
    )


def _classes(plan: UndoPlan, authority: Authority) -> dict[str, str]:
    """The classes of the arguments of all calls, which stand in the request side by side: what one tool declares counts."""
    specs = [authority.tools[tool].spec for tool in dict.fromkeys(call.tool for call in plan.calls)]
    declared = {path: kind for spec in specs for path, kind in spec.classes.items()}
    return {f"calls.*.args.{path}": kind for path, kind in declared.items()}


def _workflow(plan: UndoPlan) -> Workflow:
    async def undo(run: Run, request: Json) -> Json:
        del request
        undone: list[Json] = []
        remaining: list[Json] = [{"step": r.step, "tool": r.tool, "why": r.why} for r in plan.remaining]
        for call in plan.calls:
            try:
                await run.call(call.tool, **call.args)
            except NotCompleted as ended:
                remaining.append({"step": call.step, "tool": call.undoes, "why": why_not(ended)})
            else:
                undone.append({"step": call.step, "tool": call.undoes, "by": call.tool})
        return {"run": plan.run, "undone": undone, "remaining": remaining}

    return undo


def why_not(ended: NotCompleted) -> str:
    """Why a compensation was not carried out, in the words of whatever refused it."""
    outcome: Any = ended.outcome
    return str(outcome.message).removeprefix(f"{UNCHANGED}: ")


class Unchanged:
    """Agrees to a compensation while the object stands as the run has left it.

    The gate asks this on the object as it was just located, and the write names the version that was located: nobody
    can slip in between.
    """

    def __init__(self, calls: Mapping[str, Compensating], overwrite: Sequence[str]) -> None:
        self._calls = calls
        self._overwrite = frozenset(overwrite)

    async def __call__(self, shown: Verifiable) -> str | None:
        call = self._calls.get(shown.step)
        if call is None or call.tool != shown.tool:
            raise RunError(f"step {shown.step} is no call of the plan", code="diverged")
        if call.step in self._overwrite:
            return None
        return objection(call, shown.resource.attributes if shown.resource else {})


def objection(call: Compensating, now: Attributes) -> str | None:
    """Why an object that stands as `now` should be left alone; `None` where the run's own values stand there."""
    if call.left is None:
        return f"`{call.undoes}` does not say what it leaves, so nobody can tell whether that was changed since"
    changed = {name: value for name, value in call.left.items() if now.get(name) != value}
    if not changed:
        return None
    before: Attributes = call.before.attributes if call.before else {}
    if all(name in before and now.get(name) == before[name] for name in call.left):
        return AS_BEFORE
    said = ", ".join(f"{name} is {_shown(now.get(name))}, was left as {_shown(value)}" for name, value in changed.items())
    return f"it was changed since: {said}"


def _shown(value: Json) -> str:
    return "empty" if value in ("", 0, None) else f"`{value}`"


__all__ = ["AS_BEFORE", "UNCHANGED", "Unchanged", "actions_for", "budget_for", "objection", "program_for"]

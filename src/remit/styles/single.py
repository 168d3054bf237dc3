"""The style `single`: one model proposes one call, and the gate decides it.

The model gives the call's arguments as a value. What is malformed is given back to it, a bounded number of times; what is
denied is not asked for in other words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from remit.gate.verdicts import Rejected
from remit.runs.run import NotCompleted, Run
from remit.values import Json


async def single(run: Run, *, model: str, tool: str, given: Mapping[str, Json], corrections: int = 1) -> Any:
    """Ask a model for the arguments of one call and make it; its result.

    `model`: a binding with `answer: value`, whose value is the arguments of `tool`. `given`: what its prompt names, beside
    `{wrong}`, which says what was wrong with its last proposal and is empty at first. A call that is held parks the
    run, an answer below the contract's confidence escalates it, and so does a call that is malformed to the end
    (`rejected`). Raises `NotCompleted` where the call is denied, failed or unknown.
    """
    problem, answer = "", cast("Any", None)
    for _ in range(corrections + 1):
        asked: dict[str, Any] = {**given, "wrong": problem}
        answer = await run.model(model, **asked)
        try:
            return await run.call(tool, **arguments(answer["value"]))
        except NotCompleted as ended:
            if not isinstance(ended.outcome, Rejected):
                raise
            problem = ended.outcome.message
    return await run.escalate(f"rejected: {problem}", draft=answer["value"])


def arguments(value: Mapping[str, Json]) -> dict[str, Json]:
    """A model's value as arguments, without what it says about itself."""
    return {name: each for name, each in value.items() if name != "confidence_per_mille"}

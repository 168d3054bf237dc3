"""What to type after the demo: commands about the runs that it has just made, and only such as work."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from remit.demo.triage import CONTRACT, Triaged
from remit.runs.engine import RunResult


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A command line as it can be pasted, and what it shows in a few words."""

    command: str
    shows: str


def after_triage(triaged: Sequence[Triaged], folder: Path, *, live: bool) -> list[Suggestion]:
    """What to try on the triaged runs. `live`: the services still run, so that an approved call can be carried out."""
    steps: list[Suggestion] = []
    held = next((item.result for item in triaged if item.result.outcome == "held"), None)
    if held is not None:
        steps += [
            _step(folder, "runs --outcome held", "what waits for a person"),
            _step(folder, f"show {_short(held.run)}", "one of them, as a story"),
            _step(folder, f"case {held.case}", "what its approver sees"),
        ]
        if live:
            steps.append(_step(folder, f"approve {held.case} --as lee", "and it goes on"))
    denied = [item for item in triaged if item.result.outcome == "denied"]
    for item in sorted(denied, key=lambda item: "injection" not in item.filed.ticket.tags)[:1]:
        steps.append(_step(folder, f"show {_short(item.result.run)}", "a denied one"))
    steps.append(_step(folder, f"policy test {CONTRACT}", "the rules, case by case"))
    return steps


def after_export(results: Sequence[RunResult], folder: Path) -> list[Suggestion]:
    """What to try on the runs over somebody's own tickets."""
    steps = [_step(folder, "runs", "the latest runs")]
    for outcome, what in (("completed", "one that completed"), ("escalated", "one for a person")):
        found = next((result.run for result in results if result.outcome == outcome), None)
        if found is not None:
            steps.append(_step(folder, f"show {_short(found)}", what))
    return [*steps, _step(folder, "cases", "what waits for people")]


def demo_again(folder: Path) -> str:
    """The command that runs the demo anew and leaves its services running."""
    return f"{_called()} demo --dir {shlex.quote(str(folder))} --keep"


def _step(folder: Path, arguments: str, shows: str) -> Suggestion:
    return Suggestion(command=f"{_called()} {arguments} -p {shlex.quote(str(folder))}", shows=shows)


def _short(run: str) -> str:
    """The start of a run's id, as far as lists show it."""
    return run[:12]


def _called() -> str:
    """How this command line was called, so that what is suggested can be typed."""
    this, found = Path(sys.argv[0]), shutil.which("remit")
    if this.name != "remit" or (found is not None and Path(found).resolve() == this.resolve()):
        return "remit"
    return shlex.quote(str(this))

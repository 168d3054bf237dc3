"""Learning a contract from the record, and judging what was learnt by the record at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from remit.backtest.evidence import Evidence, Gathering, ToolUse
from remit.backtest.judging import Judging, judge, record_of
from remit.backtest.narrowing import Narrowed, describe, narrowed
from remit.backtest.proposals import at_hand
from remit.backtest.tally import EXAMPLES, Compared
from remit.backtest.terms import Terms, terms_of
from remit.contracts.files import CONTRACT_FILE, POLICY_FILE
from remit.contracts.model import Action
from remit.errors import ConfigError, RunError

if TYPE_CHECKING:
    from remit.app import Remit

_LEARNT_FROM = 0.7
"""The share of the runs that a rule is learnt from when it is tried on the rest."""


class Consequence(msgspec.Struct, frozen=True, kw_only=True):
    """What narrower terms come to: how many allowed calls they would have denied or asked about.

    `beyond`: those of them that the present terms allow. `examples` are of these, as `RUN STEP`.
    """

    decisions: int
    stopped: int
    beyond: int
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What was learnt from all runs, and what that comes to; and the same from the earlier ones, tried on the later."""

    narrowed: Narrowed
    evidence: Evidence
    on_itself: Consequence
    on_later: Consequence | None
    """`None` where there are too few runs to try it."""


def learn(remit: Remit, contract: str, since_us: int = 0) -> Learnt:
    """The least-privilege contract of the recorded runs. Raises `RunError` (`no_runs`, `not_reproduced`)."""
    terms = at_hand(remit, contract)
    evidence = _gather(remit, terms, frozenset(), since_us)
    if not evidence.tools:
        raise RunError(f"no run of contract `{contract}` has carried anything out, so there is nothing to learn from", code="no_runs")
    made = narrowed(terms, evidence)
    itself = _trial(remit, made.terms, terms, since_us)
    return Learnt(narrowed=made, evidence=evidence, on_itself=itself, on_later=_tried(remit, terms, since_us))


def _trial(remit: Remit, made: Terms, present: Terms, since_us: int, last_runs: int | None = None) -> Consequence:
    decisions, stopped = _stopped(remit, made, since_us, last_runs)
    _, anyway = _stopped(remit, present, since_us, last_runs)
    beyond = [place for place in stopped if place not in anyway]
    return Consequence(decisions=decisions, stopped=len(stopped), beyond=len(beyond), examples=tuple(beyond[:EXAMPLES]))


def _stopped(remit: Remit, terms: Terms, since_us: int, last_runs: int | None) -> tuple[int, dict[str, None]]:
    """How many decisions there are, and where allowed calls would have been denied or asked about."""
    found: dict[str, None] = {}

    def note(compared: Compared) -> None:
        if compared.was == "allow" and compared.now in ("deny", "hold", "reject"):
            found[f"{compared.run} {compared.step}"] = None

    result = judge(remit, terms, Judging(since_us=since_us, last_runs=last_runs, on_compared=note))
    return result.decisions, found


def _gather(remit: Remit, terms: Terms, without: frozenset[str], since_us: int) -> Evidence:
    gathering = Gathering(terms.specs, lambda run, at: at >= since_us and run not in without)
    return gathering.read(record_of(remit), terms.name)


def _tried(remit: Remit, terms: Terms, since_us: int) -> Consequence | None:
    runs = [run for run, at in record_of(remit).last_runs(terms.name, 10**9).items() if at >= since_us]
    later = len(runs) - int(len(runs) * _LEARNT_FROM)
    if not 0 < later < len(runs):
        return None
    evidence = _gather(remit, terms, frozenset(runs[:later]), since_us)
    if not evidence.tools:
        return None
    return _trial(remit, narrowed(terms, evidence).terms, terms, 0, later)


# As files


def write(remit: Remit, learnt: Learnt, folder: Path) -> None:
    """Write the contract as a folder of its own, the present files beside it. Raises `ConfigError` if it exists."""
    made = learnt.narrowed
    if folder.exists():
        raise ConfigError(f"`{folder}` exists already; name another folder with `--to`")
    present = remit.project.contract_folder(made.terms.name)
    shutil.copytree(present, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / CONTRACT_FILE).write_text(contract_text(learnt), encoding="utf-8")
    (folder / POLICY_FILE).write_text(policy_text(made), encoding="utf-8")


def contract_text(learnt: Learnt) -> str:
    """`contract.yaml`, each line that was narrowed with what it rests on."""
    made, runs = learnt.narrowed, learnt.evidence.runs
    plain = describe(made.terms.contract)
    lines = [f"# Inferred from {runs:,} recorded runs: what they needed, and no more. Read every line before it goes live."]
    for name, value in plain.items():
        if name == "actions":
            lines.append("actions:")
            for action in made.terms.contract.actions:
                lines += _action_lines(action, made.why)
        elif name == "budget":
            lines += [f"# {_printable(why)}" for place, why in made.why.items() if place[0] == "budget"]
            lines.append(f"budget: {_flow(_filled(value))}")
        elif _filled(value) or name in ("success", "slo"):
            lines.append(f"{name}: {_flow(_filled(value))}")
    return "\n".join(lines) + "\n"


def _action_lines(action: Action, why: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    place = ("actions", action.tool)
    yield f"  # {_printable(why.get(place, ''))}"
    yield f"  - tool: {_flow(action.tool)}"
    for name, value in msgspec.to_builtins(action).items():
        if name == "tool" or not _filled(value):
            continue
        if (*place, name) in why:
            yield f"    # {_printable(why[*place, name])}"
        yield f"    {name}: {_flow(_filled(value))}"


def _filled(value: Any) -> Any:
    """A value without parts that say nothing."""
    if isinstance(value, dict):
        parts = ((name, _filled(part)) for name, part in cast("dict[str, Any]", value).items())
        return {name: part for name, part in parts if part not in ({}, [], None)}
    return value


def _flow(value: Any) -> str:
    """A value in one line; what is JSON is YAML."""
    return json.dumps(value)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def policy_text(made: Narrowed) -> str:
    """`policy.cedar`: the present rules that still say something, and what no run has ever done."""
    kept = [f"{rule.statement.text}\n" for rule in made.kept]
    head = "// Inferred: what no recorded run has done. The comment above each rule says what it rests on.\n"
    return "\n".join([*kept, head, *(f"{rule.cedar}\n" for rule in made.inferred)])


# What nobody used


class Unused(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a contract leaves open and no run has needed."""

    kind: str
    """`grant`, `field`, `limit`, `budget` or `model`."""
    name: str
    present: str
    used: str


@dataclass(frozen=True, kw_only=True)
class Tightening:
    """What could be taken out of a contract, since when nobody has needed it, and what taking it out comes to."""

    since: int
    runs: int
    unused: Sequence[Unused]
    trial: Consequence


def tighten(remit: Remit, contract: str, since_us: int = 0) -> Tightening:
    """Name what nobody used, and judge the record without it. Raises `RunError` (`no_runs`, `not_reproduced`)."""
    terms = at_hand(remit, contract)
    evidence = _gather(remit, terms, frozenset(), since_us)
    if not evidence.runs:
        raise RunError(f"contract `{contract}` has no runs on record, so nobody can say what is used", code="no_runs")
    made = narrowed(terms, evidence)
    # The rules stay as they are: this is about what is granted.
    kept = "\n".join(rule.statement.text for rule in made.kept)
    judged = terms_of(made.terms.contract, terms.specs, kept, tenant_limits=terms.tenant_limits)
    return Tightening(
        since=evidence.since,
        runs=evidence.runs,
        unused=list(_unused(terms, evidence)),
        trial=_trial(remit, judged, terms, since_us),
    )


def _unused(terms: Terms, evidence: Evidence) -> Iterator[Unused]:
    for action in terms.contract.actions:
        use = evidence.tools.get(action.tool)
        if use is None:
            yield Unused(kind="grant", name=action.tool, present="granted", used="never called")
            continue
        for name in action.only.fields:
            if not use.fields[name]:
                yield Unused(kind="field", name=f"{action.tool} {name}", present="may be written", used="never written")
        yield from _limits(action, use)
    for name in terms.contract.models:
        if f"model:{name}" not in evidence.tools:
            yield Unused(kind="model", name=name, present="bound", used="never asked")
    for name, used in (("calls", evidence.calls), ("writes", evidence.writes)):
        present: int = getattr(terms.contract.budget, name)
        if used < present:
            yield Unused(kind="budget", name=f"budget.{name}", present=str(present), used=f"at most {used} in one run")


def _limits(action: Action, use: ToolUse) -> Iterator[Unused]:
    most = {"per_run": use.per_run, **{f"per_{name}": busiest.most for name, busiest in use.busiest.items()}}
    for name, used in most.items():
        present: int | None = getattr(action.limits, name)
        if present is not None and used < present:
            yield Unused(kind="limit", name=f"{action.tool} {name}", present=str(present), used=f"at most {used}")

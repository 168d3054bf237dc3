"""L3: what would have come of a cohort of runs if one thing had been otherwise, beside what comes of them by chance.

Each run is tried `samples` times with the change, and as often without it: a model answers a little otherwise each time,
and what the baseline does as well is no effect of the change. Models are live, tools are answered, and writes never sent.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from statistics import mean

import msgspec

from remit.errors import ConfigError
from remit.programs import ProjectPrograms
from remit.replay.answers import LIVE, ToolSource
from remit.replay.calls import lines_of
from remit.replay.causes import changes_between
from remit.replay.chance import SignTest, sign_test
from remit.replay.changes import WhatIf
from remit.replay.differences import Apart, Course, first_difference
from remit.replay.recorded import Choice, RecordedRun
from remit.replay.replays import Replays
from remit.replay.trial import TrialParts, TrialResult, attempt
from remit.runs.program import Program
from remit.values import Json

_AT_ONCE = 8


class TriedRun(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One run of the cohort, with the change and without it; `why` it was not tried, if it wasn't."""

    recorded: RecordedRun
    baseline: Sequence[TrialResult] = ()
    changed: Sequence[TrialResult] = ()
    why: str = ""

    @property
    def is_otherwise(self) -> bool:
        """Whether most trials with the change end in another way than most without it."""
        return _usual(self.changed) != _usual(self.baseline)

    @cached_property
    def apart(self) -> Apart | None:
        """Where a trial with the change first does what none does without it."""
        return first_difference([trial.course for trial in self.baseline], [trial.course for trial in self.changed])

    @cached_property
    def on_record(self) -> list[bytes]:
        """What the run did, to be held against what its trials do."""
        return Course(lines=lines_of(self.recorded.events), outcome=self.recorded.outcome).keys


class Cohort(msgspec.Struct, frozen=True, kw_only=True):
    """What the change did to all runs that could be tried; see `tests` for what of it may be chance.

    `parts`: what the change comes to in the release of each contract, such as `prompt `sort.md``.
    """

    change: WhatIf
    parts: Mapping[str, Sequence[str]]
    samples: int
    at: int
    runs: Sequence[TriedRun]

    @property
    def tried(self) -> list[TriedRun]:
        return [each for each in self.runs if not each.why]

    @property
    def tests(self) -> dict[str, SignTest]:
        """By what is compared: the sign test of the differences, one for each run, `up` being more with the change."""
        return {
            "ends otherwise than on record": self._test(lambda each, trial: trial.outcome != each.recorded.outcome),
            "does otherwise than on record": self._test(lambda each, trial: trial.course.keys != each.on_record),
            "completed": self._test(lambda _, trial: trial.outcome == "completed"),
            "calls": self._test(lambda _, trial: trial.calls),
            "cost": self._test(lambda _, trial: trial.cost_microusd),
        }

    def _test(self, measure: Callable[[TriedRun, TrialResult], float]) -> SignTest:
        return sign_test(
            mean(measure(each, trial) for trial in each.changed) - mean(measure(each, trial) for trial in each.baseline)
            for each in self.tried
        )

    @property
    def counts(self) -> dict[str, int]:
        return {
            "runs": len(self.runs),
            "tried": len(self.tried),
            "otherwise": sum(each.is_otherwise for each in self.tried),
            "undetermined": len(self.runs) - len(self.tried),
            "missed": sum(trial.outcome == "missed" for each in self.tried for trial in each.changed),
            "simulated": sum(trial.simulated for each in self.tried for trial in each.changed),
        }

    def arm(self, which: str) -> dict[str, Json]:
        """The `baseline` or the `changed` trials in all: how they end, and what a trial takes on average."""
        trials: list[TrialResult] = [trial for each in self.tried for trial in getattr(each, which)]
        return {
            "trials": len(trials),
            "outcomes": dict(Counter(trial.outcome for trial in trials).most_common()),
            "calls": mean([trial.calls for trial in trials]) if trials else 0,
            "cost_microusd": mean([trial.cost_microusd for trial in trials]) if trials else 0,
            "otherwise_than_on_record": sum(
                trial.outcome != each.recorded.outcome for each in self.tried for trial in getattr(each, which)
            ),
        }

    def plain(self) -> Json:
        """The whole comparison as JSON; redacted, as the record is."""
        return {
            **self.counts,
            "level": 3,
            "at": self.at,
            "change": {
                "kind": self.change.kind,
                "name": self.change.name,
                "digest": self.change.digest,
                "parts": {contract: list(parts) for contract, parts in self.parts.items()},
            },
            "samples": self.samples,
            "baseline": self.arm("baseline"),
            "changed": self.arm("changed"),
            "tests": {
                name: {**msgspec.to_builtins(test), "p_value": test.p_value} for name, test in self.tests.items()
            },
            "details": [_plain(each) for each in self.runs],
        }


def _plain(each: TriedRun) -> dict[str, Json]:
    return {
        "run": each.recorded.run,
        "contract": each.recorded.contract,
        "recorded": each.recorded.outcome,
        "why": each.why,
        "otherwise": bool(each.changed) and each.is_otherwise,
        "apart": None if each.apart is None else msgspec.to_builtins(each.apart),
        "baseline": [_trial(trial) for trial in each.baseline],
        "changed": [_trial(trial) for trial in each.changed],
    }


def _trial(trial: TrialResult) -> dict[str, Json]:
    return {
        "outcome": trial.outcome,
        "reason": trial.reason,
        "output": trial.output,
        "calls": trial.calls,
        "cost_microusd": trial.cost_microusd,
        "simulated": trial.simulated,
        "lines": msgspec.to_builtins(trial.lines),
    }


def _usual(trials: Sequence[TrialResult]) -> str:
    return Counter(trial.outcome for trial in trials).most_common(1)[0][0]


class Counterfactuals:
    """Counterfactuals over one tenant's runs."""

    def __init__(self, replays: Replays, programs: ProjectPrograms, parts: TrialParts) -> None:
        self._replays = replays
        self._programs = programs
        self._parts = parts
        self._made: dict[str, Program] = {}
        self._changed: dict[str, Sequence[str]] = {}

    async def compare(
        self, choice: Choice, change: WhatIf, tools: Mapping[str, ToolSource], *, samples: int = 1
    ) -> Cohort:
        """Try the chosen runs with the change and without it, and put that on the register.

        `tools`: where each tool's answers come from, the record by default. Raises `ConfigError` for a change that
        can't be made or changes nothing, and for a tool that may not be asked live.
        """
        self._made.clear()
        self._changed.clear()
        found = self._replays.read(choice)
        free = asyncio.Semaphore(_AT_ONCE)
        tried = await asyncio.gather(*(self._tried(each, change, tools, samples, free) for each in found))
        cohort = Cohort(change=change, parts=dict(self._changed), samples=samples, at=self._replays.now(), runs=tried)
        said = {"kind": change.kind, "name": change.name, "digest": change.digest, "samples": samples}
        await self._replays.note([each.run for each in found], 3, cohort.counts, change=said)
        return cohort

    async def _tried(
        self,
        recorded: RecordedRun,
        change: WhatIf,
        tools: Mapping[str, ToolSource],
        samples: int,
        free: asyncio.Semaphore,
    ) -> TriedRun:
        why = _not_triable(recorded)
        if why:
            return TriedRun(recorded=recorded, why=why)
        program, changed = self._programs_of(recorded.contract, change)
        sources = _sources(program, tools)
        other = {**sources, change.name: change.source} if change.source is not None else sources

        async def sample(with_change: bool) -> TrialResult:
            async with free:
                chosen = (changed, other) if with_change else (program, sources)
                return await attempt(recorded, *chosen, self._parts)

        trials = await asyncio.gather(*(sample(i >= samples) for i in range(2 * samples)))
        return TriedRun(recorded=recorded, baseline=trials[:samples], changed=trials[samples:])

    def _programs_of(self, contract: str, change: WhatIf) -> tuple[Program, Program]:
        program = self._programs.at_hand(contract, None)
        if change.vary is None:
            if change.name not in program.authority.tools:
                granted = ", ".join(f"`{name}`" for name in sorted(program.authority.tools))
                raise ConfigError(f"contract `{contract}` does not grant tool `{change.name}`; it grants {granted}")
            return program, program
        made = self._made.get(contract)
        if made is None:
            made = self._made[contract] = self._programs.varied(contract, change.vary)
        if made.authority.release == program.authority.release:
            raise ConfigError(f"the change changes nothing: the {change.text} is the one that `{contract}` has")
        self._changed[contract] = [part.text for part in changes_between(program.bundle, made.bundle)]
        return program, made


def _not_triable(recorded: RecordedRun) -> str:
    if recorded.damage:
        return recorded.damage
    if recorded.is_erased:
        return "its content was erased"
    if recorded.is_concealed:
        return "its originals were dropped, and what its tools answered is not known any more"
    if recorded.undoes:
        return f"it undoes `{recorded.undoes}`; nothing of what is tried here has a say in that"
    return recorded.no_code


def _sources(program: Program, tools: Mapping[str, ToolSource]) -> dict[str, ToolSource]:
    """Where each tool's answers come from: models are live, everything else comes from the record unless told."""
    granted = program.authority.tools
    for name, source in tools.items():
        if name not in granted:
            known = ", ".join(f"`{each}`" for each in sorted(granted))
            raise ConfigError(f"tool `{name}` is not granted by `{program.authority.contract.contract}`; granted: {known}")
        if source.kind == "live" and not (name.startswith("model:") or granted[name].spec.is_pure_read):
            raise ConfigError(
                f"tool `{name}` does more than read, and a replay never sends that; answer it from the record or a fixture"
            )
    return {**{name: LIVE for name in granted if name.startswith("model:")}, **tools}

"""A backtest: the record read once, in the order in which things happened, with two worlds beside it.

In one world the terms are those on record, and it must come to the recorded decisions: that is the self-check, without
which nothing that the other world comes to would mean anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from remit.backtest.policy import Policies
from remit.backtest.recorded import (
    LONGEST_WINDOW_US,
    AnsweredBody,
    AskedBody,
    CompletedBody,
    DecidedBody,
    OpenedBody,
    PastEvent,
    RecordReader,
    ResumedBody,
)
from remit.backtest.tally import Compared, DecisionTally, VerdictChange, change
from remit.backtest.terms import Terms
from remit.backtest.world import NOT_KEPT, UNDETERMINED, Judged, PastDecision, PastRun, Question, World, reached_by
from remit.contracts.model import Limits
from remit.errors import ConfigError
from remit.gate.verdicts import Carried, Completed, Failed, Unknown
from remit.journal.events import EventType
from remit.journal.journal import FROM_BESIDE
from remit.limits.meters import Reserved
from remit.limits.rules import Demand

_SHOWN = 5
_ERASED = "the run was erased"
_LOST = "what erased runs have used of its limits isn't known"


class Unreproduced(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that the self-check can't make again."""

    run: str
    step: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which decisions are made again: those of `contract`, since a time, or of some runs alone."""

    contract: str
    since_us: int = 0
    runs: frozenset[str] | None = None

    def has(self, run: str, at: int) -> bool:
        return at >= self.since_us and (self.runs is None or run in self.runs)


@dataclass(kw_only=True)
class Result:
    """What a backtest has found. `firm` and `hypothetical` share out all `decisions`."""

    decisions: int = 0
    reproduced: int = 0
    carried: int = 0
    """Of these: verdicts that no terms decide, such as malformed arguments."""
    runs: int = 0
    firm: DecisionTally = field(default_factory=DecisionTally)
    hypothetical: DecisionTally = field(default_factory=DecisionTally)
    unreproduced: list[Unreproduced] = field(default_factory=list[Unreproduced])
    """The first of them."""
    failures: int = 0

    def as_json(self) -> dict[str, Any]:
        firm = self.firm.as_json()
        counts = {"decisions": self.decisions, "reproduced": self.reproduced, "carried": self.carried, "runs": self.runs}
        return {**firm, **counts, "hypothetical": self.hypothetical.as_json()}

    def counts(self) -> dict[str, int]:
        """The counts alone, as the register keeps them."""
        firm = self.firm.counts()
        return {**firm, "decisions": self.decisions, "reproduced": self.reproduced, "hypothetical": self.hypothetical.decisions}


TermsOf = Callable[[str], Terms]
"""The terms of a release by its digest. Raises `ConfigError` where they can't be told."""


@dataclass(kw_only=True, slots=True)
class _Effects:
    """What one run has done in one world alone, until it is known what came of it; by step."""

    stopped: dict[str, tuple[DecisionTally, Demand]] = field(default_factory=dict[str, tuple[DecisionTally, Demand]])
    let_through: dict[str, tuple[DecisionTally, Demand]] = field(default_factory=dict[str, tuple[DecisionTally, Demand]])


class Backtest:
    """Decides the calls of one contract again. `terms_of` gives the terms on record, `text` redacts."""

    def __init__(
        self,
        scope: Scope,
        proposed: Terms,
        *,
        terms_of: TermsOf,
        text: Callable[[str], str],
        on_compared: Callable[[Compared], None] | None = None,
    ) -> None:
        self._scope = scope
        self._terms_of = terms_of
        self._releases: dict[str, Terms | ConfigError] = {}
        self._shares_limits = proposed.tenant_limits != Limits()
        self._before = World(None, text)
        self._after = World(proposed, text)
        self._policies = Policies()
        self._runs: dict[str, PastRun] = {}
        self._effects: dict[str, _Effects] = {}
        self._elsewhere: dict[tuple[str, str], tuple[tuple[Reserved, ...], Demand]] = {}
        self._unreadable: dict[str, str] = {}
        self._lost_until = 0
        self._undos: set[str] = set()
        self._on_compared = on_compared
        self.result = Result()

    def run(self, record: RecordReader, on_entry: Callable[[], None] | None = None) -> Result:
        """Read the record and decide. Raises `StorageError` where it is damaged."""
        first = record.start_of(self._scope.since_us) if self._scope.since_us else 1
        # The runs of other contracts matter only where limits are shared with them.
        contract = None if self._shares_limits else self._scope.contract
        for entry in record.entries(first, record.end(), contract):
            self._take(entry)
            if on_entry is not None:
                on_entry()
        return self.result

    def _take(self, entry: PastEvent) -> None:
        header = entry.header
        if entry.opens_undo:
            self._undos.add(header.run)
        if entry.contract != self._scope.contract:
            self._take_elsewhere(entry, "tenant/")
            return
        if header.run in self._undos:
            # A person's doing, under terms of its own; in limits it counts as it was recorded.
            self._take_elsewhere(entry, "")
            if header.type == EventType.RUN_CLOSED:
                self._undos.discard(header.run)
            return
        match header.type:
            case EventType.RUN_OPENED:
                self._opened(entry)
            case EventType.CALL_DECIDED:
                self._decided(entry)
            case EventType.CALL_COMPLETED | EventType.CALL_FAILED | EventType.CALL_UNKNOWN:
                self._ended(entry)
            case EventType.APPROVAL_REQUESTED | EventType.APPROVAL_DECIDED:
                self._questioned(entry)
            case EventType.RUN_RESUMED:
                self._resumed(entry)
            case _:
                self._forget(header.run)
        run = self._runs.get(header.run)
        if run is not None:
            run.is_redacted = run.is_redacted or bool(header.sealed)
            if header.type not in FROM_BESIDE:
                run.active_at = header.at

    def _opened(self, entry: PastEvent) -> None:
        header, body = entry.header, entry.body(OpenedBody)
        if body is None:
            self._unreadable[header.run] = _ERASED
            return
        recorded = self._release(header.refs.get("release", ""))
        if isinstance(recorded, ConfigError):
            self._unreadable[header.run] = recorded.message
            return
        self._runs[header.run] = PastRun(
            run=header.run,
            contract=entry.contract,
            recorded=recorded,
            on_behalf_of=body.on_behalf_of,
            opened_at=header.at,
            active_at=header.at,
        )

    def _release(self, release: str) -> Terms | ConfigError:
        known = self._releases.get(release)
        if known is None:
            try:
                known = self._terms_of(release)
            except ConfigError as error:
                known = error
            self._releases[release] = known
        return known

    def _forget(self, run: str) -> None:
        self._runs.pop(run, None)
        self._effects.pop(run, None)
        self._unreadable.pop(run, None)
        self._before.forget(run)
        self._after.forget(run)

    def _resumed(self, entry: PastEvent) -> None:
        run, body = self._runs.get(entry.header.run), entry.body(ResumedBody)
        if run is None or body is None:
            return
        since = entry.header.at - run.active_at
        run.parked_us += max(0, since if body.idle_us is None else min(body.idle_us, since))

    def _questioned(self, entry: PastEvent) -> None:
        header, run = entry.header, self._runs.get(entry.header.run)
        if run is None:
            return
        if header.type == EventType.APPROVAL_REQUESTED:
            asked = entry.body(AskedBody)
            if asked is not None:
                run.questions[header.span] = Question(asked=asked, asked_at=header.at)
            return
        answer, known = entry.body(AnsweredBody), run.questions.get(header.span)
        if answer is not None and known is not None and known.asked.case == answer.case:
            granted = answer.decision == "approved"
            run.questions[header.span] = Question(
                asked=known.asked, asked_at=known.asked_at, granted=granted, answered_at=header.at
            )

    def _ended(self, entry: PastEvent) -> None:
        header, run = entry.header, self._runs.get(entry.header.run)
        if run is None:
            return
        carried: Carried = Failed(code="", message="")
        if header.type == EventType.CALL_UNKNOWN:
            carried = Unknown(code="", message="")
        elif header.type == EventType.CALL_COMPLETED:
            # Only facts read results.
            told = self._after.terms(run).told_of | run.recorded.told_of
            body = entry.body(CompletedBody) if told else None
            carried = Completed(result=body.result if body else None)
        for world in (self._before, self._after):
            world.ended(run, header.span, carried, header.cost_microusd)
        effects = self._effects.get(header.run)
        if effects is not None and isinstance(carried, Failed) and header.span in effects.stopped:
            tally, demand = effects.stopped.pop(header.span)
            tally.stopped.add(demand, -1)

    # Decisions

    def _decided(self, entry: PastEvent) -> None:
        header = entry.header
        judged = self._scope.has(header.run, header.at)
        run = self._runs.get(header.run)
        body = entry.body(DecidedBody) if run is not None else None
        self.result.decisions += judged
        if judged and run is not None and not run.is_counted:
            run.is_counted = True
            self.result.runs += 1
        if run is None or body is None:
            self._not_readable(entry, judged)
            return
        run.is_redacted = run.is_redacted or bool(header.sealed)
        call = _past(entry, body, run)
        if not judged:
            self._before.follow(call, run)
            self._after.follow(call, run)
            return
        before, after = self._judge(call, run)
        proof = self._check(call, before)
        if proof is None or before.kind != call.verdict.kind:
            self._before.follow(call, run)
        else:
            self._before.note(call, run, before)
        if not proof and after.kind == "allow" and self._may_be_wrong(call, run):
            proof = _LOST
        if proof:
            self._after.undo(call, run)
            after = Judged(kind=UNDETERMINED, message=proof)
        if after.kind == UNDETERMINED:
            self._after.follow(call, run)
        else:
            self._after.note(call, run, after)
        run.has_parted = run.has_parted or before.kind != after.kind
        self._compare(call, run, after)

    def _judge(self, call: PastDecision, run: PastRun) -> tuple[Judged, Judged]:
        worlds = (self._before, self._after)
        first = [world.before_policy(call, run) for world in worlds]
        asking = [world for world, judged in zip(worlds, first, strict=True) if judged is None]
        sides = [(world.terms(run), world.standing(run.run)) for world in asking]
        said = iter(self._policies.say(call, run, sides) if sides else ())
        judged = [
            world.after_policy(call, run, next(said)) if early is None else early
            for world, early in zip(worlds, first, strict=True)
        ]
        return judged[0], judged[1]

    def _check(self, call: PastDecision, before: Judged) -> str | None:
        """The self-check: empty where the decision is made again, why it can't be told, `None` where it fails."""
        recorded = call.verdict
        if before.kind == UNDETERMINED and before.code != NOT_KEPT:
            return before.message
        same = before.kind == recorded.kind and before.code == recorded.code
        if same and (recorded.code == "limit_exhausted" or sorted(before.rules) == sorted(recorded.rules)):
            self.result.reproduced += 1
            self.result.carried += before.is_carried
            return ""
        if call.at < self._lost_until and "limit_exhausted" in (before.code, recorded.code):
            return _LOST
        self._fail(call.run, call.step, _difference(recorded.kind, recorded.code, recorded.rules, before))
        return None

    def _fail(self, run: str, step: str, why: str) -> None:
        self.result.failures += 1
        if len(self.result.unreproduced) < _SHOWN:
            self.result.unreproduced.append(Unreproduced(run=run, step=step, why=why))

    def _may_be_wrong(self, call: PastDecision, run: PastRun) -> bool:
        """Whether an allow depends on limits that count what erased runs have used, and are not the recorded ones."""
        if call.at >= self._lost_until:
            return False
        now, then = self._after.terms(run).limits.get(call.tool), run.recorded.limits.get(call.tool)
        return now is not None and bool(now.rates) and (then is None or now.rates != then.rates)

    def _not_readable(self, entry: PastEvent, judged: bool) -> None:
        header = entry.header
        why = self._unreadable.get(header.run, _ERASED)
        if header.verdict == "allow":
            self._lost_until = max(self._lost_until, header.at + LONGEST_WINDOW_US)
        if not judged:
            return
        if why != _ERASED:
            self._fail(header.run, header.span, why)
            return
        compared = Compared(
            run=header.run,
            step=header.span,
            contract=entry.contract,
            principal=header.actor,
            tool="erased",
            was=header.verdict,
            now=UNDETERMINED,
            change=VerdictChange.UNDETERMINED,
            rules=(),
            message=why,
            roles=(),
            is_hypothetical=False,
        )
        self._report(compared)

    def _compare(self, call: PastDecision, run: PastRun, after: Judged) -> None:
        recorded = call.verdict
        found = change(recorded.kind, recorded.code, after.kind)
        compared = Compared(
            run=call.run,
            step=call.step,
            contract=run.contract,
            principal=call.principal,
            tool=call.tool,
            was=recorded.kind,
            now=after.kind,
            change=found,
            rules=(recorded.rules if found is VerdictChange.LOOSENED else after.rules) or (after.code or recorded.code,),
            message=after.message,
            roles=after.roles,
            is_hypothetical=run.is_changed,
        )
        tally = self._report(compared)
        self._weigh(call, recorded.kind, after.kind, tally)
        if found not in (VerdictChange.SAME, VerdictChange.UNDETERMINED):
            run.is_changed = True

    def _report(self, compared: Compared) -> DecisionTally:
        tally = self.result.hypothetical if compared.is_hypothetical else self.result.firm
        tally.add(compared)
        if self._on_compared is not None:
            self._on_compared(compared)
        return tally

    def _weigh(self, call: PastDecision, was: str, now: str, tally: DecisionTally) -> None:
        """Writes and money that only one of the worlds has seen."""
        effects = self._effects.get(call.run)
        if effects is not None and was == "allow" and call.step in effects.let_through:
            # It was carried out on record after all, once somebody had approved it.
            earlier, demand = effects.let_through.pop(call.step)
            earlier.let_through.add(demand, -1)
        if now == UNDETERMINED or (was == "allow") == (now == "allow"):
            return
        effects = self._effects.setdefault(call.run, _Effects())
        if was == "allow":
            tally.stopped.add(call.demand, 1)
            effects.stopped[call.step] = (tally, call.demand)
        elif call.step not in effects.let_through:
            tally.let_through.add(call.demand, 1)
            effects.let_through[call.step] = (tally, call.demand)

    # Other contracts share the tenant's limits, and undos those of the contract as well

    def _take_elsewhere(self, entry: PastEvent, shared: str) -> None:
        """Count what a call that is not judged has reserved in the limits whose meters' names begin with `shared`."""
        header = entry.header
        key = (header.run, header.span)
        if header.type == EventType.CALL_DECIDED and header.verdict == "allow":
            body = entry.body(DecidedBody)
            if body is None:
                self._lost_until = max(self._lost_until, header.at + LONGEST_WINDOW_US)
                return
            reserved = tuple(one for one in _reserved(body) if one.meter.startswith(shared))
            if reserved:
                self._elsewhere[key] = (reserved, _demand(body))
                for world in (self._before, self._after):
                    world.put(reserved)
        elif key in self._elsewhere:
            reserved, demand = self._elsewhere.pop(key)
            carried = {
                EventType.CALL_COMPLETED: Completed(result=None),
                EventType.CALL_FAILED: Failed(code="", message=""),
            }.get(EventType(header.type))
            if carried is not None:
                for world in (self._before, self._after):
                    world.settle(reserved, demand, carried, header.cost_microusd)


def _reserved(body: DecidedBody) -> tuple[Reserved, ...]:
    return tuple(Reserved(meter=m, quantity=q, bucket=b, amount=a) for m, q, b, a in body.reserved)


def _demand(body: DecidedBody) -> Demand:
    calls, writes, rows, money, currency, spend = body.demand
    return Demand(calls=calls, writes=writes, rows=rows, money=money, currency=currency, spend=spend)


def _past(entry: PastEvent, body: DecidedBody, run: PastRun) -> PastDecision:
    header = entry.header
    run.steps.add(header.span)
    at_us = body.judged_at
    if at_us is None:
        # Records from before this was kept tell it only where policy has read the time.
        read = body.facts.time.epoch_ms
        at_us = header.at - header.latency_us if read is None else read * 1_000
    args: Mapping[str, Any] = body.args if body.args_digest else {}
    return PastDecision(
        run=header.run,
        step=header.span,
        at=header.at,
        at_us=at_us,
        proposed=len(run.steps) if body.proposed is None else body.proposed,
        principal=header.actor,
        tool=body.tool,
        tool_digest=header.refs.get("tool", ""),
        args=args,
        args_digest=body.args_digest,
        labels=body.labels,
        classes=body.classes,
        fields=body.fields,
        resource=body.resource,
        demand=_demand(body),
        reserved=_reserved(body),
        verdict=body.verdict,
        reached=reached_by(body.verdict, body.args_digest),
        is_redacted=bool(header.sealed),
    )


def _difference(kind: str, code: str, rules: tuple[str, ...], now: Judged) -> str:
    then = " ".join([kind, code, *rules]).replace("  ", " ").strip()
    again = " ".join([now.kind, now.code, *now.rules]).replace("  ", " ").strip()
    said = f": {now.message}" if now.message else ""
    return f"on record `{then}`, now `{again}`{said}"

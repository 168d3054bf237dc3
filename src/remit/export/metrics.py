"""Metrics: counts folded over the journal, from where the last look ended.

A run counts for its contract when it was opened as one; an undo is a run of its own kind, a run that was imported counts as
that and none of its calls do, and what stands on the register, replays among it, counts as nothing but that. Names come from tools' specifications, never from what an agent asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from remit.journal.events import IMPORTED, OF_REGISTER, OUTCOMES, UNDOES, EventType
from remit.journal.leaves import Leaf, LeafReader, Selection

NOT_A_TOOL = "(none)"
"""The tool of a call that named none."""
_APPROVAL = "approval"
_WITHDRAWN = (_APPROVAL, "question")
"""Kinds of cases that a run takes back when it is closed."""

DECISION_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
CALL_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
RUN_S = (0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 3600.0)
CASE_S = (60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0, 604800.0)


@dataclass(kw_only=True, slots=True)
class Histogram:
    """How often a value fell at or under each bound, and the sum of all."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list[int])
    sum: float = 0.0

    def observe(self, value: float) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


Labels = tuple[str, ...]


@dataclass(kw_only=True, slots=True)
class JournalCounts:
    """What the journal says up to one place. Keys are the values of the labels, in their order."""

    runs: Counter[Labels] = field(default_factory=Counter[Labels])
    """contract, outcome"""
    undos: Counter[Labels] = field(default_factory=Counter[Labels])
    """contract, outcome"""
    imports: Counter[Labels] = field(default_factory=Counter[Labels])
    """contract"""
    decisions: Counter[Labels] = field(default_factory=Counter[Labels])
    """contract, tool, verdict"""
    outcomes: Counter[Labels] = field(default_factory=Counter[Labels])
    """contract, tool, outcome"""
    denials: Counter[Labels] = field(default_factory=Counter[Labels])
    """contract, rule: the rules that fired, or the code where no rule did"""
    cost_microusd: Counter[Labels] = field(default_factory=Counter[Labels])
    """contract, tool"""
    tokens: Counter[Labels] = field(default_factory=Counter[Labels])
    """contract, tool, direction"""
    on_register: Counter[Labels] = field(default_factory=Counter[Labels])
    """type"""
    run_s: dict[Labels, Histogram] = field(default_factory=dict[Labels, Histogram])
    """contract"""
    call_s: dict[Labels, Histogram] = field(default_factory=dict[Labels, Histogram])
    """contract, tool"""
    decision_s: dict[Labels, Histogram] = field(default_factory=dict[Labels, Histogram])
    """contract"""
    case_s: dict[Labels, Histogram] = field(default_factory=dict[Labels, Histogram])
    """kind"""
    events: int = 0


class OpenRun(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run that has not ended."""

    contract: str
    is_undo: bool = False
    is_imported: bool = False


class FoldState(msgspec.Struct, kw_only=True):
    """All that a fold goes on from: what it has counted up to one event, and what it still waits for."""

    seq: int = 0
    hash: bytes = b""
    """Of the event of that `seq`; in another record it is another one."""
    folded: JournalCounts = msgspec.field(default_factory=JournalCounts)
    open: dict[str, OpenRun] = {}
    asked: dict[str, dict[str, tuple[str, int]]] = {}
    """By run and case: the kind of each open case, and when it was opened."""
    tools: dict[str, str] = {}
    """Names of tools by the digest of their specification."""


class JournalFold:
    """Folds the journal of one tenant, a stretch at a time, from `state` on."""

    def __init__(self, leaves: LeafReader, state: FoldState | None = None) -> None:
        self._leaves = leaves
        self.state = FoldState() if state is None else state

    @property
    def folded(self) -> JournalCounts:
        return self.state.folded

    def catch_up(self, upto: int) -> JournalCounts:
        """Fold what was recorded since the last time. Raises `StorageError`."""
        self.take(self._leaves.leaves(Selection(), after=self.state.seq, upto=upto))
        return self.folded

    def take(self, leaves: Iterable[Leaf]) -> None:
        """Fold leaves that follow upon those taken before."""
        for leaf in leaves:
            self._take(leaf)
            self.state.seq, self.state.hash = leaf.seq, leaf.hash
            self.folded.events += 1

    def open_runs(self) -> Counter[Labels]:
        """How many runs are open now, by contract."""
        return Counter((run.contract,) for run in self.state.open.values() if not (run.is_undo or run.is_imported))

    def _take(self, leaf: Leaf) -> None:
        header = leaf.header
        kind = leaf.type
        if kind in OF_REGISTER:
            self.folded.on_register[header.type,] += 1
        elif kind is EventType.RUN_OPENED:
            # By the header, which stays when the body is erased.
            is_undo, is_imported = UNDOES in header.refs, IMPORTED in header.refs
            self.state.open[header.run] = OpenRun(contract=_contract(header.actor), is_undo=is_undo, is_imported=is_imported)
        elif kind is EventType.RUN_CLOSED:
            self._closed(leaf)
        elif header.run in self.state.open and self.state.open[header.run].is_imported:
            return
        elif kind is EventType.CALL_DECIDED:
            self._decided(leaf)
        elif kind in OUTCOMES:
            self._ended(leaf, OUTCOMES[kind])
        elif kind in (EventType.APPROVAL_REQUESTED, EventType.CASE_OPENED):
            self._case_opened(leaf)
        elif kind in (EventType.APPROVAL_DECIDED, EventType.CASE_DECIDED):
            self._case_decided(leaf)

    def _closed(self, leaf: Leaf) -> None:
        header = leaf.header
        self._withdraw(header.run)
        run = self.state.open.pop(header.run, None) or OpenRun(contract=_contract(header.actor))
        if run.is_imported:
            self.folded.imports[run.contract,] += 1
            return
        if run.is_undo:
            self.folded.undos[run.contract, header.verdict] += 1
            return
        self.folded.runs[run.contract, header.verdict] += 1
        _observe(self.folded.run_s, (run.contract,), RUN_S, header.latency_us)

    def _withdraw(self, run: str) -> None:
        """A run that is closed asks nobody any more; other cases of it wait on."""
        left = {case: asked for case, asked in self.state.asked.pop(run, {}).items() if asked[0] not in _WITHDRAWN}
        if left:
            self.state.asked[run] = left

    def _decided(self, leaf: Leaf) -> None:
        header, contract = leaf.header, _contract(leaf.header.actor)
        self.folded.decisions[contract, self._tool(leaf), header.verdict] += 1
        _observe(self.folded.decision_s, (contract,), DECISION_S, header.latency_us)
        if header.verdict == "deny":
            verdict: dict[str, Any] = leaf.told.get("verdict", {})
            for rule in verdict.get("rules") or [verdict.get("code", "erased")]:
                self.folded.denials[contract, str(rule)] += 1

    def _ended(self, leaf: Leaf, outcome: str) -> None:
        header = leaf.header
        contract, tool = _contract(header.actor), self._tool(leaf)
        self.folded.outcomes[contract, tool, outcome] += 1
        _observe(self.folded.call_s, (contract, tool), CALL_S, header.latency_us)
        if header.cost_microusd:
            self.folded.cost_microusd[contract, tool] += header.cost_microusd
        for direction, tokens in (("input", header.tokens_in), ("output", header.tokens_out)):
            if tokens:
                self.folded.tokens[contract, tool, direction] += tokens

    def _case_opened(self, leaf: Leaf) -> None:
        body = leaf.told
        if "case" in body:
            asked = self.state.asked.setdefault(leaf.header.run, {})
            asked[body["case"]] = (str(body.get("kind", _APPROVAL)), leaf.header.at)

    def _case_decided(self, leaf: Leaf) -> None:
        body = leaf.told
        asked = self.state.asked.get(leaf.header.run, {})
        kind, at = asked.pop(body.get("case", ""), ("", 0))
        if not asked:
            self.state.asked.pop(leaf.header.run, None)
        if kind:
            _observe(self.folded.case_s, (kind,), CASE_S, leaf.header.at - at)

    def _tool(self, leaf: Leaf) -> str:
        """The tool that a call is of, by the digest of its specification, so that a body need be opened only once."""
        digest = leaf.header.refs.get("tool")
        if digest is None:
            return NOT_A_TOOL
        if digest not in self.state.tools:
            body: dict[str, Any] | None = leaf.body
            if body is None:
                return NOT_A_TOOL
            self.state.tools[digest] = str(body["tool"])
        return self.state.tools[digest]


def _contract(actor: str) -> str:
    """The contract that an agent works under; nothing a person's pseudonym would tell."""
    return actor.rpartition("/")[2] if actor.startswith("agent/") else ""


def _observe(found: dict[Labels, Histogram], labels: Labels, bounds: tuple[float, ...], us: int) -> None:
    found.setdefault(labels, Histogram(bounds=bounds)).observe(us / 1e6)

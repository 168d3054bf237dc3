"""Checking a stretch of events: whatever can be said of each by itself, and of its run within the stretch.

What leads beyond the stretch (the chain of a run from one to the next, the tree, the other tables) comes out as a
`Stretch`, which the verifying process joins in order. So stretches are checked by several processes at once.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any, cast

from remit_verify.header import read_json
from remit_verify.report import Finding, Findings

_MOST_FINDINGS_A_STRETCH = 1_000
_MOST_OPEN_KEYS = 5_000
LARGEST_SEQ = 2**63 - 1


@dataclass(kw_only=True, slots=True)
class Link:
    """The part of a run's chain that lies in one stretch."""

    tenant: str
    first_n: int
    first_prev: str | None
    """Hex; `None` where the header can't be read."""
    first_seq: int
    last_n: int
    last_hash: bytes
    last_seq: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Closing:
    """An event `run.closed`."""

    run: str
    n: int
    seq: int
    verdict: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Destroyed:
    """An event `run.erased` or `originals.dropped`."""

    tenant: str
    register: str
    run: str
    erased: bool
    seq: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Revoked:
    """An event `key.revoked`."""

    tenant: str
    register: str
    key: str
    at: int
    seq: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Signed:
    """A call that came in by a token of a key."""

    at: int
    run: str
    n: int
    seq: int


@dataclass(kw_only=True, slots=True)
class Leaves:
    """The leaf hashes of one tenant, 32 bytes each, and the `seq` of each."""

    hashes: bytearray = field(default_factory=bytearray)
    seqs: array[int] = field(default_factory=lambda: array("q"))


@dataclass(kw_only=True, slots=True)
class Stretch:
    """What a stretch of events comes to."""

    events: int = 0
    bodies: int = 0
    erased: int = 0
    findings: Findings = field(default_factory=lambda: Findings(most=_MOST_FINDINGS_A_STRETCH))
    leaves: dict[str, Leaves] = field(default_factory=dict[str, Leaves])
    links: dict[str, Link] = field(default_factory=dict[str, Link])
    closings: list[Closing] = field(default_factory=list[Closing])
    destroyed: list[Destroyed] = field(default_factory=list[Destroyed])
    revoked: list[Revoked] = field(default_factory=list[Revoked])
    signed: dict[tuple[str, str], Signed] = field(default_factory=dict[tuple[str, str], Signed])
    """The last call by each key, by tenant and key."""
    closed_keys: dict[str, str] = field(default_factory=dict[str, str])
    """Runs whose keys do not open, and why."""
    gone: set[str] = field(default_factory=set[str])
    """Runs that have an event without a body (of an exported file)."""
    oldest: dict[str, int] = field(default_factory=dict[str, int])
    """When the oldest event was written, in microseconds since the epoch, by tenant."""
    unread: str = ""
    """Why a part of the stretch could not be read at all."""


def broken_link(n: int, prev: str | None, last_n: int, last_hash: bytes) -> tuple[str, str] | None:
    """What is wrong where event `n` follows event `last_n` of its run (0: it is the first), and its code."""
    if n == last_n + 1:
        if prev is None or prev == last_hash.hex():
            return None
        return "chain_broken", f"its `prev` is not the hash of event {last_n}"
    if n <= last_n:
        return "event_repeated", f"it stands behind event {last_n} of its run: repeated, moved, or out of order"
    missing = f"event {n - 1} is" if n == last_n + 2 else f"events {last_n + 1} to {n - 1} are"
    return "event_missing", f"{missing} missing before it"


class Checking:
    """What every check of events has in common: it goes through them in order and gathers a `Stretch`."""

    def __init__(self) -> None:
        self.stretch = Stretch()

    def leaf(self, tenant: str, stored: bytes, seq: int) -> None:
        leaves = self.stretch.leaves.get(tenant)
        if leaves is None:
            leaves = self.stretch.leaves[tenant] = Leaves()
        leaves.hashes += stored
        leaves.seqs.append(seq)

    def chain(self, seq: int, tenant: str, run: str, n: int, leaf: bytes, fields: dict[str, Any] | None) -> None:
        prev = None if fields is None else fields["prev"]
        at = 0 if fields is None else fields["at"]
        if at < self.stretch.oldest.get(tenant, LARGEST_SEQ):
            self.stretch.oldest[tenant] = at
        link = self.stretch.links.get(run)
        if link is None:
            self.stretch.links[run] = Link(
                tenant=tenant, first_n=n, first_prev=prev, first_seq=seq, last_n=n, last_hash=leaf, last_seq=seq
            )
            return
        wrong = broken_link(n, prev, link.last_n, link.last_hash)
        if wrong is not None:
            self.add(wrong[0], (tenant, run, n, seq), wrong[1])
        if tenant != link.tenant:
            self.add("columns_differ", (tenant, run, n, seq), f"the events before it are of tenant `{link.tenant}`")
        link.last_n, link.last_hash, link.last_seq = n, leaf, seq

    def tell(self, seq: int, fields: dict[str, Any], text: bytes | None) -> None:
        """Keep what other tables are compared with."""
        kind, tenant, run, n = fields["type"], fields["tenant"], fields["run"], fields["n"]
        if kind == "run.closed":
            self.stretch.closings.append(Closing(run=run, n=n, seq=seq, verdict=fields.get("verdict", "")))
            if text is not None and _events_of(text) != n:
                self.add("run_count", (tenant, run, n, seq), f"its body does not say that the run has {n} events")
            return
        refs = fields.get("refs", {})
        if kind == "key.revoked":
            key = refs.get("key", "")
            self.stretch.revoked.append(Revoked(tenant=tenant, register=run, key=key, at=fields["at"], seq=seq))
            return
        if kind == "call.decided":
            place = (tenant, refs.get("key", ""))
            before = self.stretch.signed.get(place)
            if place[1] and (before is None or fields["at"] > before.at):
                self.stretch.signed[place] = Signed(at=fields["at"], run=run, n=n, seq=seq)
            return
        about = refs.get("run", "")
        self.stretch.destroyed.append(
            Destroyed(tenant=tenant, register=run, run=about, erased=kind == "run.erased", seq=seq)
        )

    def add(self, code: str, ident: tuple[Any, ...], wrong: str) -> None:
        tenant, run, n, seq = ident
        self.stretch.findings.add(event_finding(code, wrong, tenant=tenant, run=run, n=n, seq=seq))


def event_finding(code: str, wrong: str, *, tenant: Any, run: Any, n: Any, seq: Any) -> Finding:
    """A finding about an event, whose columns may hold anything."""
    return Finding(
        code=code,
        wrong=wrong,
        where=f"events, seq {seq}" if seq else "events",
        tenant=tenant if type(tenant) is str else repr(tenant)[:80],
        run=run if type(run) is str else repr(run)[:80],
        n=n if type(n) is int else None,
        seq=seq if type(seq) is int else None,
    )


TELLING = frozenset({"run.closed", "run.erased", "originals.dropped", "key.revoked", "call.decided"})


def _events_of(text: bytes) -> Any:
    try:
        value = read_json(text)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    found = cast("dict[str, Any]", value).get("events")
    return found if type(found) is int else None

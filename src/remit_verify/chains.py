"""The runs: the chain of each from stretch to stretch, and what the tables beside the events say about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from remit_verify.checking import Closing, Revoked, Signed, Stretch, broken_link, event_finding
from remit_verify.report import Finding, Findings

_UNDER_WAY_US = 60_000_000
"""A call whose token was looked at before its key was revoked may have been decided so much later."""


@dataclass(kw_only=True, slots=True)
class Chain:
    """Where the chain of a run has come to, and what is known of the run."""

    tenant: str
    n: int
    hash: bytes
    seq: int
    closing: Closing | None = None
    has_row: bool = False
    has_keys: bool = False
    gone: bool = False
    """An exported file lacks bodies of it."""

    def is_register(self, run: str) -> bool:
        return run == f"register-{self.tenant}"


class Chains:
    """The chains of all runs, joined from stretches in the order of `seq`."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._chains: dict[str, Chain] = {}
        self._erased: dict[tuple[str, str], int] = {}
        """Where the register says so first, by tenant and run."""
        self._dropped: set[tuple[str, str]] = set()
        self._closed_keys: dict[str, str] = {}
        self._revoked: dict[tuple[str, str], Revoked] = {}
        self._signed: dict[tuple[str, str], Signed] = {}

    def __len__(self) -> int:
        return len(self._chains)

    def runs(self) -> dict[str, int]:
        """How many runs each tenant has, its register aside."""
        counts: dict[str, int] = {}
        for run, chain in self._chains.items():
            counts[chain.tenant] = counts.get(chain.tenant, 0) + (not chain.is_register(run))
        return counts

    def join(self, stretch: Stretch) -> None:
        """Go on with the next stretch."""
        for run, link in stretch.links.items():
            chain = self._chains.get(run)
            wrong = broken_link(
                link.first_n, link.first_prev, 0 if chain is None else chain.n, b"" if chain is None else chain.hash
            )
            place = {"tenant": link.tenant, "run": run, "n": link.first_n, "seq": link.first_seq}
            if wrong is not None:
                self._findings.add(event_finding(wrong[0], wrong[1], **place))
            if chain is None:
                self._chains[run] = Chain(tenant=link.tenant, n=link.last_n, hash=link.last_hash, seq=link.last_seq)
                continue
            if chain.tenant != link.tenant:
                why = f"the events before it are of tenant `{chain.tenant}`"
                self._findings.add(event_finding("columns_differ", why, **place))
            chain.n, chain.hash, chain.seq = link.last_n, link.last_hash, link.last_seq
        for closing in stretch.closings:
            self._close(closing)
        for one in stretch.destroyed:
            if one.register != f"register-{one.tenant}":
                continue
            if one.erased:
                self._erased.setdefault((one.tenant, one.run), one.seq)
            else:
                self._dropped.add((one.tenant, one.run))
        self._join_keys(stretch)
        self._closed_keys.update(stretch.closed_keys)
        for run in stretch.gone:
            if run in self._chains:
                self._chains[run].gone = True

    def _join_keys(self, stretch: Stretch) -> None:
        """Which keys were revoked, and the last call by each key."""
        for revoked in stretch.revoked:
            if revoked.register == f"register-{revoked.tenant}":
                self._revoked.setdefault((revoked.tenant, revoked.key), revoked)
        for place, signed in stretch.signed.items():
            before = self._signed.get(place)
            if before is None or signed.at > before.at:
                self._signed[place] = signed

    def _close(self, closing: Closing) -> None:
        chain = self._chains.get(closing.run)
        if chain is None:
            return
        place = {"tenant": chain.tenant, "run": closing.run, "n": closing.n, "seq": closing.seq}
        if chain.is_register(closing.run):
            self._findings.add(event_finding("run_closed", "a register is never closed", **place))
        elif chain.closing is not None:
            why = f"its run is closed since event {chain.closing.n}, and is closed again"
            self._findings.add(event_finding("run_closed", why, **place))
        chain.closing = closing

    def compare_runs(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Hold `run, tenant, status, outcome` of the table `runs` against the events."""
        for run, tenant, status, outcome in rows:
            chain = self._chains.get(run) if isinstance(run, str) else None
            if chain is None:
                self._add("run_without_events", f"{run}", f"{tenant}", "it has a row, and no events", "runs")
                continue
            chain.has_row = True
            for code, why in _row_problems(run, chain, (tenant, status, outcome)):
                self._add(code, run, chain.tenant, why, "runs")
        for run, chain in self._chains.items():
            if not chain.has_row and not chain.is_register(run):
                self._add("run_row_missing", run, chain.tenant, "it has events, and no row", "runs")

    def compare_keys(self, rows: Iterable[tuple[Any, ...]], *, all_tenants: bool) -> None:
        """Hold `run`, and whether `body_key` and `sealed_key` exist, against the registers."""
        for run, has_body, has_sealed in rows:
            chain = self._chains.get(run) if isinstance(run, str) else None
            if chain is None:
                if all_tenants:
                    self._add("keys_without_events", f"{run}", "", "it has keys, and no events", "run_keys")
                continue
            chain.has_keys = True
            for code, why in self._key_problems(run, chain, body=bool(has_body), sealed=bool(has_sealed)):
                self._add(code, run, chain.tenant, why, "run_keys")
        for run, chain in self._chains.items():
            if not chain.has_keys:
                self._add("key_missing", run, chain.tenant, "it has events, and no row with its keys", "run_keys")
        for run, why in self._closed_keys.items():
            chain = self._chains.get(run)
            self._add("key_wrong", run, "" if chain is None else chain.tenant, why, "run_keys")

    def _key_problems(self, run: str, chain: Chain, *, body: bool, sealed: bool) -> Iterable[tuple[str, str]]:
        erased = (chain.tenant, run) in self._erased
        dropped = erased or (chain.tenant, run) in self._dropped
        if not body and not erased:
            yield "key_destroyed", "its `body_key` was destroyed, and the register has no `run.erased` about it"
        if not sealed and not dropped:
            why = "the register has neither `run.erased` nor `originals.dropped` about it"
            yield "key_destroyed", f"its `sealed_key` was destroyed, and {why}"
        if body and erased:
            yield "key_kept", "the register says that it was erased, and its `body_key` is still there"
        if sealed and dropped:
            yield "key_kept", "the register says that its originals are gone, and its `sealed_key` is still there"

    def compare_erased(self) -> None:
        """Hold what is left of erased runs against the register: nobody has a key to write more."""
        for (_, run), seq in self._erased.items():
            chain = self._chains.get(run)
            if chain is not None and chain.seq > seq:
                why = f"it was written after its run was erased by event seq {seq} of the register"
                place = {"tenant": chain.tenant, "run": run, "n": chain.n, "seq": chain.seq}
                self._findings.add(event_finding("event_after_erasure", why, **place))

    def compare_revoked(self) -> None:
        """Hold the keys that were revoked against the calls that came in by their tokens."""
        for (tenant, key), revoked in self._revoked.items():
            signed = self._signed.get((tenant, key))
            if signed is not None and signed.at > revoked.at + _UNDER_WAY_US:
                why = f"its token was signed with key `{key}`, revoked by event seq {revoked.seq} of the register"
                place = {"tenant": tenant, "run": signed.run, "n": signed.n, "seq": signed.seq}
                self._findings.add(event_finding("key_revoked", f"{why}; it is the last such call", **place))

    def compare_gone(self) -> None:
        """Hold the bodies that an exported file lacks against the register in it."""
        for run, chain in self._chains.items():
            if chain.gone and (chain.tenant, run) not in self._erased:
                why = "bodies of it are missing, and the register has no `run.erased` about it"
                self._add("key_destroyed", run, chain.tenant, why, "the file")

    def _add(self, code: str, run: str, tenant: str, wrong: str, table: str) -> None:
        where = table if table == "the file" else f"{table}, run `{run}`"
        self._findings.add(Finding(code=code, wrong=wrong, where=where, tenant=tenant, run=run))


def _row_problems(run: str, chain: Chain, row: tuple[Any, Any, Any]) -> Iterable[tuple[str, str]]:
    tenant, status, outcome = row
    if chain.is_register(run):
        yield "run_row", "a register has no row"
        return
    if tenant != chain.tenant:
        yield "run_row", f"its row is of tenant `{tenant}`, its events of `{chain.tenant}`"
    if chain.closing is None:
        if status == "closed":
            yield "run_row", "its row says that it is closed, and it has no event `run.closed`"
        elif outcome is not None:
            yield "run_row", f"its row has the outcome `{outcome}`, and it has no event `run.closed`"
        return
    if status != "closed":
        yield "run_row", f"its row says `{status}`, and event {chain.closing.n} has closed it"
    if outcome != chain.closing.verdict:
        yield "run_row", f"its row has the outcome `{outcome}`, and event {chain.closing.n} `{chain.closing.verdict}`"

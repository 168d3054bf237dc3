"""Checkpoints from three places: stored in the database, published in a file, and given by who verifies."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from remit_verify.keys import Keys
from remit_verify.merkle import HASH_BYTES
from remit_verify.notes import Claim, NoteError, escaped, note_name, read_checkpoint
from remit_verify.report import Checkpoint, Finding, Findings

_LARGEST_SIZE = 2**63 - 1
_WITH_ROW = {"newest", "stored"}
"""In the row of a tree, and in the table `checkpoints`: a row says the size and time beside the note."""
_FILES = {"published", "kept"}
"""In the file of checkpoints, and the last of them with the keys."""
_OWN = _WITH_ROW | _FILES | {"exported"}
"""What lies beside the record; all else is what the caller held."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoteRow:
    """A note as it was found. `size`, `at`: what the row beside it says, whatever it is; a file has none."""

    where: str
    note: Any
    size: Any = None
    at: Any = None


@dataclass(kw_only=True, slots=True)
class Claims:
    """What the checkpoints of one place say whose signature holds, in the order in which they stand there."""

    source: str
    sizes: array[int] = field(default_factory=lambda: array("q"))
    ats: array[int] = field(default_factory=lambda: array("q"))
    """Microseconds since the epoch, as signed, else as the row beside it has it, else -1."""
    timed: bytearray = field(default_factory=bytearray)
    """1 where the time is signed, else 0."""
    roots: bytearray = field(default_factory=bytearray)
    digests: list[bytes] = field(default_factory=list[bytes])
    rows: int = 0
    """All that were found, whether they hold or not."""
    findings: Findings = field(default_factory=Findings)

    def root(self, index: int) -> bytes:
        return bytes(self.roots[HASH_BYTES * index : HASH_BYTES * (index + 1)])

    def extend(self, other: Claims) -> None:
        """Go on with what the next stretch of the same place says."""
        self.sizes += other.sizes
        self.ats += other.ats
        self.timed += other.timed
        self.roots += other.roots
        self.digests += other.digests
        self.rows += other.rows
        self.findings.extend(other.findings)


def read_notes(rows: Iterable[NoteRow], keys: Keys, *, journal: str | None, tenant: str, source: str) -> Claims:
    """Check form and signature of each. `journal`: where it is not known, the name is held against the tenant alone."""
    claims = Claims(source=source)
    stored = source in _WITH_ROW
    for row in rows:
        claims.rows += 1
        wrong = _read_note(claims, row, keys, (journal, tenant), stored=stored)
        if wrong is not None:
            code, why = wrong
            claims.findings.add(Finding(code=code, wrong=why, where=row.where, tenant=tenant))
    return claims


def _read_note(
    claims: Claims, row: NoteRow, keys: Keys, name: tuple[str | None, str], *, stored: bool
) -> tuple[str, str] | None:
    """Take up one note; or say what is wrong with it."""
    if type(row.note) is not str:
        return "checkpoint_form", "its note is no text"
    try:
        claim = read_checkpoint(row.note, keys.verifiers)
    except NoteError as error:
        return "checkpoint_wrong", f"the note does not hold: {error}"
    if claim.size > _LARGEST_SIZE:
        return "checkpoint_form", f"a tree of {claim.size} leaves does not exist"
    journal, tenant = name
    if claim.origin != note_name(journal or "", tenant) and (journal or not _is_about(claim.origin, tenant)):
        return "checkpoint_form", f"it is about `{claim.origin}`, and not about this tenant of this database"
    if claim.at is not None and claim.at > _LARGEST_SIZE:
        return "checkpoint_form", f"its `at` {claim.at} is no time"
    wrong = _wrong_row(row, claim) if stored else None
    at = claim.at if claim.at is not None else row.at
    claims.sizes.append(claim.size)
    claims.ats.append(at if type(at) is int and 0 <= at <= _LARGEST_SIZE else -1)
    claims.timed.append(claim.at is not None)
    claims.roots += claim.root
    claims.digests.append(sha256(row.note.strip("\n").encode()).digest()[:16])
    return wrong


def _wrong_row(row: NoteRow, claim: Claim) -> tuple[str, str] | None:
    """What the row beside a note says otherwise than the note."""
    if type(row.size) is not int or row.size != claim.size:
        return "checkpoint_form", f"its row says size {row.size!r:.30}, its note {claim.size}"
    if type(row.at) is not int or not 0 <= row.at <= _LARGEST_SIZE:
        return "checkpoint_form", f"its `at` {row.at!r:.30} is no time"
    if claim.at not in (None, row.at):
        return "checkpoint_form", f"its row says that it was signed at {row.at}, its note at {claim.at}"
    return None


def _is_about(origin: str, tenant: str) -> bool:
    parts = origin.split("/")
    return len(parts) == 3 and parts[0] == "remit" and parts[2] == escaped(tenant)


class Held:
    """All claims about one tenant, to be compared with each other and with the roots of its tree."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.claims: list[Claims] = []
        self.findings = Findings()
        self.holding = 0
        """How many of them hold."""
        self.own: Checkpoint | None = None
        self.given: Checkpoint | None = None

    def sizes(self) -> Iterator[int]:
        for claims in self.claims:
            yield from claims.sizes

    def compare(self, roots: dict[int, bytes], *, events: int, integrated: int | None) -> None:
        """Hold every claim against the roots that the events have. `integrated`: leaves of the stored tree."""
        for claims in self.claims:
            self.findings.extend(claims.findings)
            self._compare_order(claims)
            for index, size in enumerate(claims.sizes):
                if size <= events and roots.get(size) == claims.root(index):
                    self._hold(claims, index)
        for claims in self.claims:
            self._tell_roots(claims, roots, events)
            top = max(claims.sizes, default=0)
            if claims.source == "stored" and integrated is not None and top > integrated:
                self._add("tree_behind", f"a checkpoint has {top} leaves, and the tree only {integrated}", "trees")
        self._compare_each_other()
        self._compare_published()

    def _tell_roots(self, claims: Claims, roots: dict[int, bytes], events: int) -> None:
        """What is signed and not there, or there otherwise; told once for all that a place has of it."""
        ahead = [size for size in claims.sizes if size > events]
        differing = [
            size
            for index, size in enumerate(claims.sizes)
            if size <= events and roots.get(size) != claims.root(index)
        ]
        where = f"checkpoints, {claims.source}"
        held = max((one.size for one in (self.own, self.given) if one is not None), default=None)
        since = "no checkpoint holds" if held is None else f"the last that holds has size {held}"
        if ahead:
            gone = f"{max(ahead) - events} of the events that it signed are gone"
            why = f"{_named(ahead)} signed more than the {events} events there are: {gone}; {since}"
            if claims.source in _FILES:
                why += "; if the database was restored from a backup, see \"Restore\" in docs/operations.md"
            self._add("events_truncated", why, where)
        if differing:
            self._add("checkpoint_root", f"{_named(differing)} signed another tree than the events make; {since}", where)

    def _hold(self, claims: Claims, index: int) -> None:
        self.holding += 1
        at = claims.ats[index]
        found = Checkpoint(
            size=claims.sizes[index],
            root=claims.root(index).hex(),
            at=at if at >= 0 else None,
            at_signed=bool(claims.timed[index]),
            source=claims.source,
        )
        if claims.source in _OWN:
            if self.own is None or found.size > self.own.size:
                self.own = found
        elif self.given is None or found.size > self.given.size:
            self.given = found

    def _compare_order(self, claims: Claims) -> None:
        if claims.source != "stored":
            return
        pairs = zip(claims.sizes, claims.ats, strict=True)
        size, at = 0, 0
        for next_size, next_at in pairs:
            if next_size < size or next_at < at:
                what = "is smaller" if next_size < size else "is older"
                why = f"the checkpoint of size {next_size} {what} than the one before it"
                self._add("checkpoint_order", why, f"checkpoints, {claims.source}")
            size, at = next_size, next_at

    def _compare_each_other(self) -> None:
        seen: dict[int, bytes] = {}
        forks: set[int] = set()
        for claims in self.claims:
            for index, size in enumerate(claims.sizes):
                if seen.setdefault(size, claims.root(index)) != claims.root(index):
                    forks.add(size)
        if forks:
            why = f"two different trees were signed for {_named(sorted(forks))}: the record was forked"
            self._add("fork", why, "checkpoints")

    def _compare_published(self) -> None:
        """What was published was stored before."""
        stored = {one for claims in self.claims if claims.source == "stored" for one in claims.digests}
        rows = {claims.source: claims.rows for claims in self.claims}
        if rows.get("newest") and not rows.get("stored"):
            why = "the tree was signed, and none of its checkpoints is stored; the first is stored with it"
            self._add("checkpoint_missing", why, "checkpoints")
        for claims in self.claims:
            if claims.source not in _FILES:
                continue
            lost = [size for size, one in zip(claims.sizes, claims.digests, strict=True) if one not in stored]
            if lost:
                why = f"{_named(lost)} was published, and is not in the database"
                self._add("checkpoint_missing", why, "checkpoints")

    def _add(self, code: str, wrong: str, where: str) -> None:
        self.findings.add(Finding(code=code, wrong=wrong, where=where, tenant=self.tenant))


def _named(sizes: list[int]) -> str:
    if len(sizes) == 1:
        return f"the checkpoint of size {sizes[0]}"
    return f"each of {len(sizes)} checkpoints, of sizes {min(sizes)} to {max(sizes)},"

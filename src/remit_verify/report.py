"""What a verification says: findings, each with what is wrong and where, and what was looked at."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST_FINDINGS = 10_000
"""As many are kept; the others are counted. Where everything is wrong, more of the same tells nobody anything."""


class Unreadable(Exception):
    """There is nothing to verify: the source or its keys can't be read. The message says why, and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is not as the specification has it (`docs/record.md`)."""

    code: str
    """What kind it is, such as `header_hash`; stable."""
    wrong: str
    """What is wrong, in a sentence."""
    where: str
    """The table and row, the tile, or the file and line."""
    tenant: str = ""
    run: str = ""
    n: int | None = None
    """The event's position in its run."""
    seq: int | None = None
    """The event's row in the table `events`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A checkpoint whose signature holds and whose root is that of the tree."""

    size: int
    root: str
    """Hex."""
    at: int | None
    """When it was signed, in microseconds since the epoch, as the note says; where it doesn't, as the database has it."""
    at_signed: bool
    """Whether the note itself says so, under its signature."""
    source: str
    """`newest`, `stored`, `published`, `exported`, or the name that it was given under."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenant:
    """What there is of one tenant, and up to where it is signed."""

    tenant: str
    events: int
    runs: int
    size: int
    """Leaves of the tree."""
    root: str
    """Hex; the root of the tree as it was computed anew from the events."""
    checkpoint: Checkpoint | None
    """The largest of its own that holds."""
    given: Checkpoint | None
    """The largest that the caller held, and that holds."""
    checkpoints: int
    """How many of all hold."""

    @property
    def behind(self) -> int:
        """Events behind the last checkpoint that holds: chained, not signed."""
        sizes = [one.size for one in (self.checkpoint, self.given) if one is not None]
        return self.events - max(sizes, default=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was verified, and what is wrong with it."""

    source: str
    tenants: tuple[Tenant, ...]
    findings: tuple[Finding, ...]
    found: int
    """All findings; more than `findings` holds where there are very many."""
    events: int
    runs: int
    erased: int
    """Bodies whose key was destroyed: their place in the chain is verified, what they said is gone."""
    bodies: int
    """Bodies that were decrypted and compared with their header."""
    seconds: float
    processes: int
    own_keys: bool
    """The verifier keys are those that the exported file names itself: no one else vouches for them."""

    @property
    def verified(self) -> bool:
        return not self.found


@dataclass(kw_only=True, slots=True)
class Findings:
    """Findings as they come up; past `most` they are only counted."""

    most: int = MOST_FINDINGS
    kept: list[Finding] = field(default_factory=list[Finding])
    count: int = 0

    def add(self, finding: Finding) -> None:
        self.count += 1
        if len(self.kept) < self.most:
            self.kept.append(finding)

    def extend(self, other: Findings) -> None:
        """Take over what another has, its count too."""
        self.kept.extend(other.kept[: max(0, self.most - len(self.kept))])
        self.count += other.count

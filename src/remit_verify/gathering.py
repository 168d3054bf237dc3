"""Gathering what the parts of a verification come to: chains, trees and checkpoints, and the report of them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from remit_verify.chains import Chains
from remit_verify.checking import Stretch
from remit_verify.checkpoints import Claims, Held, NoteRow
from remit_verify.keys import Keys
from remit_verify.merkle import HASH_BYTES
from remit_verify.notes import claimed_origin, escaped, split_notes
from remit_verify.report import Finding, Findings, Report, Tenant, Unreadable
from remit_verify.tree import TileRows, Tree
from remit_verify.work import Notes, Workers, check_notes

_NOTES = 256
"""Checkpoints that are checked in one piece of work."""
_LARGEST = 2**62
_UNDER_WAY_US = 60_000_000
"""What is younger may be about to be integrated, and its first checkpoint about to be published."""

Places = Callable[[str], Iterator[tuple[Any, ...]]]
"""Asks for `level, position` of all tiles of a tenant."""

GivenNote = tuple[str, int, str]
"""A checkpoint that the caller holds: the name of its text, the line it begins in, and itself."""


class Gathering:
    """One verification under way. `tenant`: the only one to verify."""

    def __init__(self, keys: Keys, tenant: str | None) -> None:
        self.keys = keys
        self.tenant = tenant
        self.journal: str | None = None
        self.tiles: TileRows | None = None
        self.findings = Findings()
        self.chains = Chains(self.findings)
        self._held: dict[str, Held] = {}
        self._rows: dict[str, tuple[Any, Any, Any]] = {}
        self._trees: dict[str, Tree] = {}
        self._events = self._bodies = self._erased = 0
        self._damaged: set[str] = set()
        self._own_keys = False
        self._is_export = False
        self._oldest: dict[str, int] = {}
        self._begun = time.time_ns() // 1000

    def add(self, finding: Finding) -> None:
        self.findings.add(finding)

    def damaged(self, table: str, why: str) -> None:
        """A table can't be read to its end; said once."""
        if table not in self._damaged:
            self._damaged.add(table)
            self.add(Finding(code="table_damaged", wrong=f"the table can't be read: {why}", where=table))

    def begin_trees(self, pool: Workers, rows: Iterable[tuple[Any, ...]]) -> None:
        """Take up `tenant, size, seq, root, note, at` of the stored trees."""
        for tenant, size, seq, root, note, at in rows:
            if self.tenant not in (None, tenant):
                continue
            good = type(size) is int and 0 <= size < _LARGEST and type(root) is bytes and len(root) == HASH_BYTES
            if type(tenant) is not str or not good or tenant in self._rows:
                why = "its row is not of the types that it should be, or there twice"
                self.add(Finding(code="tree_form", wrong=why, where="trees", tenant=f"{tenant}"))
            if type(tenant) is str:
                self._rows[tenant] = (size, seq, root) if good else (None, None, None)
                if size or note:
                    self._claim(pool, tenant, "newest", iter([NoteRow(where="trees", note=note, size=size, at=at)]))

    def stored(self, pool: Workers, rows: Iterable[tuple[Any, ...]]) -> None:
        """Take up `tenant, size, at, note` of the stored checkpoints, by tenant and size."""
        for tenant, some in groupby(rows, key=lambda row: row[0]):
            if self.tenant not in (None, tenant):
                continue
            if type(tenant) is not str:
                self.add(Finding(code="checkpoint_form", wrong="its tenant is no text", where="checkpoints"))
                continue
            notes = (
                NoteRow(where=f"checkpoints, size {size!r:.30}", note=note, size=size, at=at) for _, size, at, note in some
            )
            self._claim(pool, tenant, "stored", notes)
            if tenant not in self._rows:
                why = "there are checkpoints, and no row for the tree"
                self.add(Finding(code="tree_missing", wrong=why, where="trees", tenant=tenant))

    def published(self, pool: Workers, files: dict[str, str], *, must_exist: bool) -> None:
        """Take up the published files, by path."""
        self._claim_files(pool, "published", files)
        for tenant, held in self._held.items():
            claims = {one.source: one for one in held.claims}
            rows = {source: one.rows for source, one in claims.items()}
            first = min((at for one in claims.values() for at in one.ats), default=self._begun)
            # The first may be on its way to the file at this moment.
            is_due = rows.get("stored", 0) > 1 or not self._is_young(first)
            if must_exist and not rows.get("published") and is_due:
                why = "its checkpoints were published to no file here; restore the file, it guards the end of the record"
                where = f"checkpoints/{escaped(tenant)}.txt"
                self.add(Finding(code="published_missing", wrong=why, where=where, tenant=tenant))

    def kept(self, pool: Workers, files: dict[str, str]) -> None:
        """Take up the last published checkpoints that lie with the keys, by path."""
        self._claim_files(pool, "kept", files)

    def _claim_files(self, pool: Workers, source: str, files: dict[str, str]) -> None:
        for path, text in files.items():
            tenant = unquote(Path(path).name.removesuffix(".txt"))
            if self.tenant in (None, tenant):
                notes = (NoteRow(where=f"{path}, line {line}", note=note) for line, note in split_notes(text))
                self._claim(pool, tenant, source, notes)

    def _is_young(self, at: int) -> bool:
        return abs(self._begun - at) < _UNDER_WAY_US

    def exported(self, pool: Workers, tenant: str, rows: list[NoteRow]) -> None:
        """Take up the checkpoint that an exported file carries, if it does."""
        self._is_export = True
        self._claim(pool, tenant, "exported", iter(row for row in rows if row.note))

    def use_own_keys(self, keys: Keys) -> None:
        """Nobody else said which keys to trust: those that the file names itself."""
        self.keys = keys
        self._own_keys = True

    def given(self, pool: Workers, notes: list[GivenNote]) -> None:
        """Take up checkpoints that the caller holds."""
        known = {escaped(tenant): tenant for tenant in {*self._rows, *self._held}}
        sorted_out: dict[tuple[str, str], list[NoteRow]] = {}
        for file, line, note in notes:
            name = claimed_origin(note).rpartition("/")[2]
            tenant = known.get(name, unquote(name))
            if self.tenant in (None, tenant):
                sorted_out.setdefault((tenant, file), []).append(NoteRow(where=f"{file}, line {line}", note=note))
        for (tenant, file), rows in sorted_out.items():
            self._claim(pool, tenant, f"given in {file}", iter(rows))
        if notes and not sorted_out:
            why = f"no checkpoint that was given is about tenant `{self.tenant}`"
            self.add(Finding(code="checkpoint_form", wrong=why, where=notes[0][0], tenant=self.tenant or ""))

    def _claim(self, pool: Workers, tenant: str, source: str, rows: Iterator[NoteRow]) -> None:
        claims = Claims(source=source)
        pieces = (
            Notes(tenant=tenant, source=source, journal=self.journal, keys=self.keys, rows=some)
            for some in iter(lambda: list(islice(rows, _NOTES)), [])
        )
        for one in pool.each(check_notes, pieces):
            claims.extend(one)
        self._held.setdefault(tenant, Held(tenant)).claims.append(claims)

    def join(self, stretch: Stretch) -> None:
        """Go on with the next stretch of events."""
        self._events += stretch.events
        self._bodies += stretch.bodies
        self._erased += stretch.erased
        self.findings.extend(stretch.findings)
        if stretch.unread:
            self.add(Finding(code="events_damaged", wrong=stretch.unread, where="events"))
        self.chains.join(stretch)
        for tenant, at in stretch.oldest.items():
            self._oldest[tenant] = min(at, self._oldest.get(tenant, at))
        for tenant, leaves in stretch.leaves.items():
            self._tree(tenant).extend(leaves)

    def _tree(self, tenant: str) -> Tree:
        tree = self._trees.get(tenant)
        if tree is None:
            held = self._held.get(tenant)
            size = self._rows.get(tenant, (None,))[0]
            wanted = () if held is None else held.sizes()
            tree = self._trees[tenant] = Tree(tenant, size=size, wanted=wanted, tiles=self.tiles)
        return tree

    def finish_trees(self, places: Places) -> None:
        """No more events come: compare what there is of each tree."""
        self.chains.compare_erased()
        self.chains.compare_revoked()
        for tenant in sorted({*self._rows, *self._held, *self._trees}):
            tree = self._tree(tenant)
            tree.finish()
            row = self._rows.get(tenant)
            if row is not None and row[0] is not None:
                tree.compare_row(row)
            if self.tiles is not None:
                tree.compare_places(iter(places(tenant)))
            held = self._held.setdefault(tenant, Held(tenant))
            held.compare(tree.roots, events=tree.events, integrated=None if row is None else row[0] or 0)
            self.findings.extend(tree.findings)
            self.findings.extend(held.findings)
            self._compare_signed(tenant, tree.events, held)

    def _compare_signed(self, tenant: str, events: int, held: Held) -> None:
        """Whoever has no key can write events, and none of them is of any worth until it is signed."""
        if self._is_export:
            signed = max((one.size for one in (held.own, held.given) if one is not None), default=None)
            if signed is None:
                why = f"there is no checkpoint that holds, so nothing of it is signed ({events} events)"
                self.add(Finding(code="events_unsigned", wrong=why, where="the file, line 1", tenant=tenant))
            elif signed < events:
                why = f"{events - signed} of its events stand behind the checkpoint of size {signed}: put there by somebody else"
                self.add(Finding(code="events_unsigned", wrong=why, where="the file", tenant=tenant))
        elif events and held.own is None and not self._is_young(self._oldest.get(tenant, 0)):
            said = "there is no row for its tree" if tenant not in self._rows else "no checkpoint of it holds"
            why = f"none of its {events} events is signed: {said}; restore the database, or see \"Restore\" in docs/operations.md"
            code = "tree_missing" if tenant not in self._rows else "events_unsigned"
            self.add(Finding(code=code, wrong=why, where="trees", tenant=tenant))

    def report(self, source: str, seconds: float, processes: int) -> Report:
        """What it all comes to."""
        runs = self.chains.runs()
        tenants = tuple(self._summary(tenant, runs.get(tenant, 0)) for tenant in sorted(self._trees))
        return Report(
            source=source,
            tenants=tenants,
            findings=tuple(self.findings.kept),
            found=self.findings.count,
            events=sum(one.events for one in tenants),
            runs=sum(one.runs for one in tenants),
            erased=self._erased,
            bodies=self._bodies,
            seconds=seconds,
            processes=processes,
            own_keys=self._own_keys,
        )

    def _summary(self, tenant: str, runs: int) -> Tenant:
        tree, held = self._trees[tenant], self._held[tenant]
        size = self._rows.get(tenant, (None,))[0]
        # An exported file has no stored tree: it is as large as the checkpoint that it carries.
        size = min(tree.events, size if size is not None else held.own.size if held.own else 0)
        return Tenant(
            tenant=tenant,
            events=tree.events,
            runs=runs,
            size=size,
            root=tree.roots[size].hex(),
            checkpoint=held.own,
            given=held.given,
            checkpoints=held.holding,
        )


def read_given(texts: Mapping[str, str]) -> list[GivenNote]:
    """The checkpoints of texts, by the name of each. Raises `Unreadable` for a text without any."""
    notes: list[GivenNote] = []
    for name, text in texts.items():
        found = [(name, line, note) for line, note in split_notes(text)]
        if not found:
            raise Unreadable(f"there is no checkpoint in `{name}`")
        notes.extend(found)
    return notes


def read_published(folder: Path | None) -> dict[str, str]:
    """The published files of a folder, by path; what is no text comes out damaged. Raises `Unreadable`."""
    if folder is None or not folder.is_dir():
        return {}
    try:
        return {
            str(path): path.read_bytes().decode("utf-8", "replace")
            for path in sorted(folder.iterdir())
            if path.suffix == ".txt" and path.is_file()
        }
    except OSError as error:
        raise Unreadable(f"the published checkpoints in `{folder}` can't be read: {error}") from error

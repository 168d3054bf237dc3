"""The tree of a tenant: computed anew from its leaves, in one pass, and held against tiles, root and checkpoints."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from remit_verify.checking import Leaves
from remit_verify.merkle import EMPTY_ROOT, HASH_BYTES, CompactRange
from remit_verify.report import Finding, Findings

WIDTH = 256
"""Hashes of a full tile."""

TileRows = Callable[[str, int, int], list[tuple[Any, ...]]]
"""Asks for `hashes, first_seq` of the tiles at tenant, level and position."""


class Tree:
    """Leaves as they come, in order; and what is known of the tree before they do.

    `size`: leaves that are integrated, where there is a row in `trees`. `wanted`: sizes whose roots will be asked for.
    """

    def __init__(self, tenant: str, *, size: int | None, wanted: Iterable[int], tiles: TileRows | None) -> None:
        self.tenant = tenant
        self.findings = Findings()
        self.events = 0
        self.roots: dict[int, bytes] = {0: EMPTY_ROOT}
        self.last_seq: int | None = None
        """The `seq` of the last leaf that is integrated."""
        self._size = size or 0
        self._range = CompactRange()
        self._sizes = iter(sorted({*wanted, self._size} - {0}))
        self._next = next(self._sizes, None)
        self._tiles = tiles if size is not None else None
        self._levels: list[bytearray] = [bytearray()]
        self._places: list[int] = [0]
        self._first_seq = 0
        self._seqs: array[int] = array("q")
        self._differing = 0

    def extend(self, leaves: Leaves) -> None:
        """Add leaves."""
        hashes = bytes(leaves.hashes)
        for index, seq in enumerate(leaves.seqs):
            self._append(hashes[HASH_BYTES * index : HASH_BYTES * (index + 1)], seq)

    def _append(self, leaf: bytes, seq: int) -> None:
        full = self._range.append(leaf)
        self.events += 1
        if self._tiles is not None and self.events <= self._size:
            if not self._seqs:
                self._first_seq = seq
            self._seqs.append(seq)
            self._levels[0] += leaf
            if len(self._seqs) == WIDTH:
                self._compare(0)
            for level, node in enumerate(full, 1):
                self._add_node(level, node)
        if self.events == self._size:
            self.last_seq = seq
        if self.events == self._next:
            self.roots[self.events] = self._range.root()
            self._next = next(self._sizes, None)

    def _add_node(self, level: int, node: bytes) -> None:
        if level == len(self._levels):
            self._levels.append(bytearray())
            self._places.append(0)
        self._levels[level] += node
        if len(self._levels[level]) == WIDTH * HASH_BYTES:
            self._compare(level)

    def finish(self) -> None:
        """No more leaves come: compare the tiles that are not full."""
        self.roots[self.events] = self._range.root()
        if self._tiles is None:
            return
        for level, hashes in enumerate(self._levels):
            if hashes:
                self._compare(level)
        if self._differing > 1:
            self._add("tile_wrong", f"{self._differing - 1} more tiles differ", "tiles")

    def _compare(self, level: int) -> None:
        """Hold the stored tile against the computed one, and begin the next."""
        assert self._tiles is not None
        position, computed = self._places[level], bytes(self._levels[level])
        where = f"tiles, level {level}, position {position}"
        rows = self._tiles(self.tenant, level, position)
        if not rows:
            self._add("tile_missing", "the tile is missing", where)
        elif len(rows) > 1:
            self._add("tile_wrong", "the tile is there more than once", where)
        else:
            stored, first_seq = rows[0]
            if stored != computed:
                self._differ(level, position, computed, stored)
            wanted = self._first_seq if level == 0 else None
            if first_seq != wanted:
                self._add("tile_wrong", f"its `first_seq` is {first_seq!r:.30}, and should be {wanted}", where)
        self._places[level] += 1
        self._levels[level].clear()
        if level == 0:
            self._seqs = array("q")

    def _differ(self, level: int, position: int, computed: bytes, stored: Any) -> None:
        self._differing += 1
        if self._differing > 1:
            return
        where = f"tiles, level {level}, position {position}"
        if type(stored) is not bytes or len(stored) % HASH_BYTES:
            self._add("tile_wrong", "the tile is not made of hashes of 32 bytes", where)
        elif level:
            self._add("tile_wrong", "the tile holds other roots than those of the tiles below it", where)
        else:
            wrong, index = _difference(_hashes(computed), _hashes(stored))
            seq = self._seqs[index] if index < len(self._seqs) else None
            at = f"leaf {WIDTH * position + index}"
            self._add("leaves_differ", f"from {at} on the events are not those of the tree: {wrong}", where, seq)

    def _add(self, code: str, wrong: str, where: str, seq: int | None = None) -> None:
        self.findings.add(Finding(code=code, wrong=wrong, where=where, tenant=self.tenant, seq=seq))

    def compare_row(self, row: tuple[Any, Any, Any]) -> None:
        """Hold `size, seq, root` of the table `trees` against the leaves."""
        size, seq, root = row
        if self.events < self._size:
            missing = self._size - self.events
            self._add("leaves_missing", f"the tree has {size} leaves, and {missing} of them have no event", "trees")
            return
        if root != self.roots[self._size]:
            self._add("tree_root", f"its root is not that of its {size} events", "trees")
        if self._size and seq != self.last_seq:
            self._add("tree_seq", f"its `seq` is {seq!r:.30}, and event {size} of the tenant has {self.last_seq}", "trees")

    def compare_places(self, places: Iterator[tuple[Any, Any]]) -> None:
        """Hold the places of all stored tiles against the size of the tree: there is none that need not be."""
        for level, position in places:
            good = type(level) is int and type(position) is int and 0 <= level < 8 and position >= 0
            if not good or position * WIDTH >= self._size >> (8 * level):
                where = f"tiles, level {level!r:.30}, position {position!r:.30}"
                self._add("tile_extra", f"no such tile exists in a tree of {self._size} leaves", where)


def _hashes(tile: bytes) -> list[bytes]:
    return [tile[i : i + HASH_BYTES] for i in range(0, len(tile), HASH_BYTES)]


def _difference(events: list[bytes], tile: list[bytes]) -> tuple[str, int]:
    """What has become of the first leaf that differs, told from the hashes around it; and its index."""
    index = next((i for i, (a, b) in enumerate(zip(events, tile, strict=False)) if a != b), min(len(events), len(tile)))
    if index == len(events):
        return f"{len(tile) - index} of its leaves have no event", index
    if index == len(tile):
        return f"{len(events) - index} events are not in it", index
    event_is_ahead, leaf_is_ahead = events[index] in tile[index:], tile[index] in events[index:]
    if event_is_ahead and leaf_is_ahead:
        return "their order is another", index
    if event_is_ahead:
        missing = tile.index(events[index], index) - index
        return f"{missing} {'event is' if missing == 1 else 'events are'} missing", index
    if leaf_is_ahead:
        more = events.index(tile[index], index) - index
        return f"{more} {'event was' if more == 1 else 'events were'} put in", index
    if events[index + 1 : index + 2] == tile[index + 1 : index + 2]:
        return "the event was changed", index
    return "events were changed, moved or removed", index

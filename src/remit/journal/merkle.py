"""The Merkle tree over a tenant's events (RFC 6962, section 2.1), kept as tiles (C2SP tlog-tiles).

A tile holds up to 256 hashes: of leaves on level 0, above that the roots of the full tiles of the level below. Only the
last tile of each level ever changes, so appending touches as many tiles as are filled, whatever the size of the tree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

WIDTH = 256
HASH_BYTES = 32
EMPTY = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""

ReadTile = Callable[[int, int], Sequence[bytes]]
"""The hashes of tile (level, position)."""


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(hashes: bytes) -> list[bytes]:
    """The hashes of a tile."""
    return [hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)]


class Tree:
    """The right edge of a tree: enough to append leaves and to know the root."""

    def __init__(self, size: int, edge: Sequence[Sequence[bytes]]) -> None:
        """`edge`: for each level the hashes of its last tile that is not full, lowest level first."""
        self.size = size
        self._edge = [list(hashes) for hashes in edge]
        self._changed: dict[tuple[int, int], bytes] = {}

    @classmethod
    def load(cls, size: int, read: ReadTile) -> Tree:
        """The edge of a stored tree of `size` leaves."""
        edge: list[Sequence[bytes]] = []
        level, count = 0, size
        while count:
            partial = count % WIDTH
            edge.append(read(level, count // WIDTH)[:partial] if partial else [])
            level, count = level + 1, count // WIDTH
        return cls(size, edge)

    def append(self, leaf: bytes) -> None:
        """Add a leaf, by its hash."""
        carry, level, position = leaf, 0, self.size // WIDTH
        self.size += 1
        while True:
            if level == len(self._edge):
                self._edge.append([])
            tile = self._edge[level]
            tile.append(carry)
            if len(tile) < WIDTH:
                self._changed[level, position] = b""
                return
            self._changed[level, position] = b"".join(tile)
            carry = _perfect(tile)
            self._edge[level] = []
            level, position = level + 1, position // WIDTH

    def changed(self) -> dict[tuple[int, int], bytes]:
        """Every tile that was changed since this was asked last, whole, by level and position."""
        found, self._changed = self._changed, {}
        return {place: hashes or b"".join(self._edge[place[0]]) for place, hashes in found.items()}

    @property
    def root(self) -> bytes:
        """The root over all leaves so far."""
        return _fold(root for tile in reversed(self._edge) for root in _perfect_parts(tile))


def _perfect(hashes: Sequence[bytes]) -> bytes:
    """The root over a power of two of neighbouring hashes."""
    while len(hashes) > 1:
        hashes = [node_hash(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
    return hashes[0]


def _perfect_parts(hashes: Sequence[bytes]) -> Iterable[bytes]:
    """The roots of the largest perfect subtrees, left to right."""
    at = 0
    while at < len(hashes):
        part = 1 << ((len(hashes) - at).bit_length() - 1)
        yield _perfect(hashes[at : at + part])
        at += part


def _fold(roots: Iterable[bytes]) -> bytes:
    """The root over perfect subtrees of falling size, left to right."""
    folded = b""
    for root in reversed(list(roots)):
        folded = node_hash(root, folded) if folded else root
    return folded or EMPTY


# Proofs: the hashes of the subtrees beside a path, as RFC 6962, sections 2.1.1 and 2.1.2 have them.


def subtree(read: ReadTile, begin: int, end: int) -> bytes:
    """The root over the leaves from `begin` to `end` of a tree whose tiles `read` gives.

    `begin` must be a multiple of the smallest power of two that is not below `end - begin`, as it is for every node.
    """
    level, step = 0, 1
    while step * WIDTH <= end - begin and begin % (step * WIDTH) == 0:
        level, step = level + 1, step * WIDTH
    parts: list[bytes] = []
    at = begin
    while at < end:
        # A part is as large as fits, and is whole on the level where it is read.
        while step > end - at:
            level, step = level - 1, step // WIDTH
        tile = read(level, at // step // WIDTH)
        first = at // step % WIDTH
        count = min(WIDTH - first, (end - at) // step)
        parts += _perfect_parts(tile[first : first + count])
        at += count * step
    return _fold(parts)


def _largest_power_below(size: int) -> int:
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_proof(read: ReadTile, index: int, size: int) -> list[bytes]:
    """That leaf `index` (from 0) is in the tree of `size` leaves: its siblings, lowest first (section 2.1.1)."""
    begin, end = 0, size
    path: list[bytes] = []
    while end - begin > 1:
        middle = begin + _largest_power_below(end - begin)
        if index < middle:
            path.append(subtree(read, middle, end))
            end = middle
        else:
            path.append(subtree(read, begin, middle))
            begin = middle
    return path[::-1]


def consistency_proof(read: ReadTile, old: int, size: int) -> list[bytes]:
    """That the tree of `old` leaves is the beginning of the one of `size` leaves (section 2.1.2)."""
    if old in (0, size):
        return []
    begin, end = 0, size
    path: list[bytes] = []
    while old != end:
        middle = begin + _largest_power_below(end - begin)
        if old <= middle:
            path.append(subtree(read, middle, end))
            end = middle
        else:
            path.append(subtree(read, begin, middle))
            begin = middle
    return [*([subtree(read, begin, end)] if begin else []), *reversed(path)]

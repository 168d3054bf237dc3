"""The tree against the obvious recursive definition of RFC 6962, whatever the size and wherever it was stored between."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from remit.journal.merkle import EMPTY, Tree, consistency_proof, inclusion_proof, node_hash, split

LEAVES = [hashlib.sha256(b"\x00" + str(i).encode()).digest() for i in range(2_000)]


def largest_power_below(count: int) -> int:
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def obvious_root(leaves: Sequence[bytes]) -> bytes:
    """MTH of section 2.1."""
    if not leaves:
        return EMPTY
    if len(leaves) == 1:
        return leaves[0]
    k = largest_power_below(len(leaves))
    return node_hash(obvious_root(leaves[:k]), obvious_root(leaves[k:]))


def obvious_path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = largest_power_below(len(leaves))
    if m < k:
        return [*obvious_path(m, leaves[:k]), obvious_root(leaves[k:])]
    return [*obvious_path(m - k, leaves[k:]), obvious_root(leaves[:k])]


def obvious_subproof(m: int, leaves: Sequence[bytes], known: bool) -> list[bytes]:
    """SUBPROOF of section 2.1.2."""
    if m == len(leaves):
        return [] if known else [obvious_root(leaves)]
    k = largest_power_below(len(leaves))
    if m <= k:
        return [*obvious_subproof(m, leaves[:k], known), obvious_root(leaves[k:])]
    return [*obvious_subproof(m - k, leaves[k:], False), obvious_root(leaves[:k])]


class Stored:
    """A tree that is put away and loaded again after each portion."""

    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], bytes] = {}
        self.size = 0
        self.root = EMPTY

    def read(self, level: int, position: int) -> list[bytes]:
        return split(self.tiles[level, position])

    def grow(self, leaves: Sequence[bytes]) -> None:
        tree = Tree.load(self.size, self.read)
        for leaf in leaves:
            tree.append(leaf)
        self.tiles.update(tree.changed())
        self.size, self.root = tree.size, tree.root


def stored(sizes: Sequence[int]) -> Stored:
    tree = Stored()
    for size in sizes:
        tree.grow(LEAVES[tree.size : size])
    return tree


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 1_200), min_size=1, max_size=6).map(sorted))
def test_the_root_is_that_of_the_specification_however_the_leaves_arrived(sizes: list[int]) -> None:
    tree = stored(sizes)
    assert tree.root == obvious_root(LEAVES[: sizes[-1]])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_proofs_are_those_of_the_specification_also_of_an_older_tree(data: st.DataObject) -> None:
    whole = data.draw(st.integers(1, 1_200))
    size = data.draw(st.integers(1, whole))
    tree = stored([size // 2, whole])
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    assert inclusion_proof(tree.read, index, size) == obvious_path(index, LEAVES[:size])
    assert consistency_proof(tree.read, old, size) == obvious_subproof(old, LEAVES[:size], True)


def test_a_tree_of_two_levels_of_tiles_and_more() -> None:
    leaves = [hashlib.sha256(i.to_bytes(4, "big")).digest() for i in range(256 * 256 + 700)]
    tree = Stored()
    for at in range(0, len(leaves), 9_999):
        tree.grow(leaves[at : at + 9_999])
    assert tree.root == obvious_root(leaves)
    assert {level for level, _ in tree.tiles} == {0, 1, 2}
    for index in (0, 255, 256, 65_535, 65_536, len(leaves) - 1):
        assert inclusion_proof(tree.read, index, len(leaves)) == obvious_path(index, leaves)
    assert consistency_proof(tree.read, 65_537, len(leaves)) == obvious_subproof(65_537, leaves, True)


def test_known_roots_of_the_reference_tree() -> None:
    """The eight leaves that implementations of Certificate Transparency test themselves with."""
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    roots = {
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    leaves = [hashlib.sha256(b"\x00" + bytes.fromhex(data)).digest() for data in inputs]
    for size, root in roots.items():
        tree = Tree(0, [])
        for leaf in leaves[:size]:
            tree.append(leaf)
        assert tree.root.hex() == root

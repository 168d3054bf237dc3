"""Hashes, proofs and signed notes agree with what others published."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest

from remit_verify.merkle import (
    EMPTY_ROOT,
    CompactRange,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_hash,
    verify_consistency,
    verify_inclusion,
)
from remit_verify.notes import NoteError, SignedNote, VerifierKey, escaped, split_notes

# The reference tree of Certificate Transparency: its eight leaves, its roots at every size, and some of its proofs.
LEAVES = [
    leaf_hash(bytes.fromhex(data))
    for data in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEFT = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
PAIR_2 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
RIGHT_4 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
LEAF_5 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
PAIR_6 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
PAIR_8 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
INCLUSION: list[tuple[int, int, list[str]]] = [
    (0, 1, []),
    (0, 8, [LEFT, PAIR_2, RIGHT_4]),
    (5, 8, [LEAF_5, PAIR_8, ROOTS[4]]),
    (2, 3, [ROOTS[2]]),
    (1, 5, [ROOTS[1], PAIR_2, LEAF_5]),
]
CONSISTENCY: list[tuple[int, int, list[str]]] = [
    (1, 1, []),
    (1, 8, [LEFT, PAIR_2, RIGHT_4]),
    (2, 5, [PAIR_2, LEAF_5]),
    (2, 8, [PAIR_2, RIGHT_4]),
    (6, 8, [PAIR_6, PAIR_8, ROOTS[4]]),
]


@pytest.mark.parametrize("size", range(9))
def test_the_roots_are_those_of_the_reference_tree(size: int) -> None:
    assert root_hash(LEAVES[:size]).hex() == ROOTS[size]
    grown = CompactRange()
    for leaf in LEAVES[:size]:
        grown.append(leaf)
    assert grown.root().hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_inclusion_proofs_are_those_of_the_reference_tree(index: int, size: int, proof: list[str]) -> None:
    made = inclusion_proof(index, LEAVES[:size])
    assert [part.hex() for part in made] == proof
    assert verify_inclusion(LEAVES[index], index, size, made, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("first", "second", "proof"), CONSISTENCY)
def test_consistency_proofs_are_those_of_the_reference_tree(first: int, second: int, proof: list[str]) -> None:
    made = consistency_proof(first, LEAVES[:second])
    assert [part.hex() for part in made] == proof
    assert verify_consistency(first, second, made, bytes.fromhex(ROOTS[first]), bytes.fromhex(ROOTS[second]))


def leaves_of(size: int) -> list[bytes]:
    return [leaf_hash(str(index).encode()) for index in range(size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 33, 64, 100])
def test_every_proof_verifies_and_no_altered_one_does(size: int) -> None:
    leaves, chance = leaves_of(size), random.Random(size)
    root = root_hash(leaves)
    for index in range(size):
        proof = inclusion_proof(index, leaves)
        assert verify_inclusion(leaves[index], index, size, proof, root)
        assert not verify_inclusion(sha256(b"other").digest(), index, size, proof, root)
        assert not verify_inclusion(leaves[index], index, size, [*proof, root], root)
        assert not verify_inclusion(leaves[index], index + size, size, proof, root)
        if proof:
            at = chance.randrange(len(proof))
            altered = [*proof[:at], sha256(proof[at]).digest(), *proof[at + 1 :]]
            assert not verify_inclusion(leaves[index], index, size, altered, root)
            assert not verify_inclusion(leaves[index], index, size, proof[:-1], root)
    for first in range(1, size + 1):
        old, proof = root_hash(leaves[:first]), consistency_proof(first, leaves)
        assert verify_consistency(first, size, proof, old, root)
        assert not verify_consistency(first, size, [*proof, old], old, root)
        assert not verify_consistency(first, size, proof, sha256(old).digest(), root)
        assert not verify_consistency(first, size, proof, old, sha256(root).digest())
        if proof:
            assert not verify_consistency(first, size, proof[:-1], old, root)


def test_proofs_of_what_is_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="no leaf 3"):
        inclusion_proof(3, leaves_of(3))
    with pytest.raises(ValueError, match="does not grow"):
        consistency_proof(4, leaves_of(3))
    assert not verify_consistency(0, 3, [], EMPTY_ROOT, root_hash(leaves_of(3)))
    assert not verify_consistency(4, 3, [], EMPTY_ROOT, EMPTY_ROOT)


def test_a_range_that_grows_gives_the_roots_of_full_tiles_as_they_fill() -> None:
    leaves = leaves_of(70_000)
    grown = CompactRange()
    found: dict[int, list[bytes]] = {}
    for leaf in leaves:
        for level, node in enumerate(grown.append(leaf), 1):
            found.setdefault(level, []).append(node)
    assert [len(found[level]) for level in (1, 2)] == [273, 1]
    assert found[1][7] == root_hash(leaves[256 * 7 : 256 * 8])
    assert found[2][0] == root_hash(leaves[:65_536])
    assert grown.root() == root_hash(leaves)


# The example of the specification of signed notes, and the one of the package that it comes from.
C2SP_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = (
    "This is an example message.\n\n— example.com/foo"
    " Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


@pytest.mark.parametrize(("key", "note"), [(C2SP_KEY, C2SP_NOTE), (GO_KEY, GO_NOTE)])
def test_published_notes_verify_and_altered_ones_do_not(key: str, note: str) -> None:
    parsed = VerifierKey.parse(key)
    assert SignedNote.parse(note).verify([parsed]) == parsed
    for index in range(len(note)):
        altered = note[:index] + chr(ord(note[index]) ^ 1) + note[index + 1 :]
        with pytest.raises((NoteError, UnicodeError)):
            SignedNote.parse(altered).verify([parsed])


def test_a_signature_of_an_unknown_key_is_passed_over() -> None:
    signature = GO_NOTE.rpartition("\n\n")[2]
    both = C2SP_NOTE + signature
    assert SignedNote.parse(both).verify([VerifierKey.parse(C2SP_KEY)]).name == "example.com/foo"
    with pytest.raises(NoteError, match="does not fit"):
        SignedNote.parse(both).verify([VerifierKey.parse(C2SP_KEY), VerifierKey.parse(GO_KEY)])
    with pytest.raises(NoteError, match="none of the listed keys"):
        SignedNote.parse(C2SP_NOTE).verify([VerifierKey.parse(GO_KEY)])


@pytest.mark.parametrize("index", range(len(C2SP_KEY)))
def test_an_altered_verifier_key_is_refused(index: int) -> None:
    altered = C2SP_KEY[:index] + chr(ord(C2SP_KEY[index]) ^ 1) + C2SP_KEY[index + 1 :]
    with pytest.raises(NoteError):
        VerifierKey.parse(altered)


def test_notes_of_a_file_come_out_one_by_one_whatever_stands_between_them() -> None:
    torn = C2SP_NOTE[:40]
    text = f"{C2SP_NOTE}\n{GO_NOTE}\nno note at all\n\n{C2SP_NOTE}\n{torn}"
    found = list(split_notes(text))
    assert [note for _, note in found] == [C2SP_NOTE, GO_NOTE, "no note at all\n\n", C2SP_NOTE, torn]
    assert [line for line, _ in found] == [1, 5, 10, 12, 16]
    assert list(split_notes("")) == []


def test_a_tenant_is_spelled_in_ascii() -> None:
    assert escaped("shop-1_a.b") == "shop-1_a.b"
    assert escaped("büro/1 %") == "b%C3%BCro%2F1%20%25"

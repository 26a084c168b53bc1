"""The Merkle tree against the definition in RFC 6962, and its proofs against every change."""

import hashlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineage.merkle import (
    EMPTY_ROOT,
    MerkleTree,
    leaf_hash,
    root_from_leaves,
    verify_consistency,
    verify_inclusion,
)


def defined_root(leaves: list[bytes]) -> bytes:
    """MTH, word for word from RFC 6962 section 2.1."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    left, right = defined_root(leaves[:k]), defined_root(leaves[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def contents(count: int) -> list[bytes]:
    return [b"leaf %d" % number for number in range(count)]


def tree_of(count: int) -> MerkleTree:
    return MerkleTree(leaf_hash(content) for content in contents(count))


# From the certificate-transparency reference tests: the root of these eight leaves is public.
KNOWN_LEAVES = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57",
    b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
]
KNOWN_ROOT = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def test_known_root() -> None:
    assert MerkleTree(map(leaf_hash, KNOWN_LEAVES)).root().hex() == KNOWN_ROOT
    assert MerkleTree().root() == EMPTY_ROOT


def test_every_root_and_proof_up_to_40() -> None:
    tree = tree_of(40)
    for size in range(41):
        root = defined_root(contents(size))
        assert tree.root(size) == root
        for index in range(size):
            path = tree.inclusion_proof(index, size)
            leaf = leaf_hash(b"leaf %d" % index)
            assert verify_inclusion(leaf, index=index, size=size, path=path, root=root)
            for other in range(size):
                proves = verify_inclusion(leaf, index=other, size=size, path=path, root=root)
                assert proves == (other == index)
        for old in range(size + 1):
            assert verify_consistency(
                old_size=old,
                size=size,
                old_root=tree.root(old),
                root=root,
                path=tree.consistency_proof(old, size),
            )


def test_changed_proofs_fail() -> None:
    tree = tree_of(13)
    root, leaf = tree.root(), leaf_hash(b"leaf 5")
    path = tree.inclusion_proof(5)
    for wrong in ([], path[:-1], [*path, path[0]], [path[1], path[0], *path[2:]]):
        assert not verify_inclusion(leaf, index=5, size=13, path=wrong, root=root)
    assert not verify_inclusion(leaf_hash(b"x"), index=5, size=13, path=path, root=root)
    for size in (-1, 0, 5, 26, 40):
        assert not verify_inclusion(leaf, index=5, size=size, path=path, root=root)
    proof = tree.consistency_proof(6)
    facts = {"old_size": 6, "size": 13, "old_root": tree.root(6), "root": root}
    for wrong in ([], proof[:-1], [*proof, proof[0]], proof[::-1]):
        assert not verify_consistency(**facts, path=wrong)
    for change in ({"old_size": 5}, {"size": 7}, {"old_root": root}, {"root": tree.root(6)}):
        assert not verify_consistency(**{**facts, **change}, path=proof)
    assert not verify_consistency(
        old_size=0, size=3, old_root=tree.root(1), root=tree.root(3), path=[]
    )


@given(st.integers(1, 300), st.data())
@settings(max_examples=60, deadline=None)
def test_one_proof_for_many_leaves(size: int, data: st.DataObject) -> None:
    tree = tree_of(size)
    chosen = sorted(data.draw(st.sets(st.integers(0, size - 1))))
    leaves = [leaf_hash(b"leaf %d" % index) for index in chosen]
    siblings = tree.siblings(chosen)
    assert root_from_leaves(chosen, leaves, size=size, siblings=siblings) == tree.root()
    for short in (siblings[:-1], [*siblings, EMPTY_ROOT]):
        if short != siblings:
            with pytest.raises(ValueError, match="hash"):
                root_from_leaves(chosen, leaves, size=size, siblings=short)
    if chosen:
        wrong = [leaf_hash(b"other"), *leaves[1:]]
        assert root_from_leaves(chosen, wrong, size=size, siblings=siblings) != tree.root()


def test_all_leaves_need_no_siblings() -> None:
    assert tree_of(1000).siblings(range(1000)) == []
    assert len(tree_of(1024).siblings([17])) == 10


def test_refusals() -> None:
    tree = tree_of(4)
    for call in (
        lambda: tree.inclusion_proof(4),
        lambda: tree.inclusion_proof(-1),
        lambda: tree.consistency_proof(5),
        lambda: tree.root(5),
        lambda: tree.siblings([1, 1]),
        lambda: tree.siblings([2, 1]),
        lambda: tree.siblings([4]),
        lambda: root_from_leaves([0], [], size=1, siblings=[]),
    ):
        with pytest.raises(ValueError, match=r"\."):
            call()


def test_large_tree_stays_cheap() -> None:
    """Appending and proving do not grow with the tree: 200,000 leaves in seconds."""
    started = time.monotonic()
    tree = MerkleTree(number.to_bytes(32, "big") for number in range(200_000))
    for index in range(0, 200_000, 200):
        tree.inclusion_proof(index)
    assert time.monotonic() - started < 20

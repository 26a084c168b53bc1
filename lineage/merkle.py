"""The Merkle tree of RFC 6962 (and RFC 9162): roots, proofs, and their verification.

Functions that need stored hashes take a `NodeReader`, so the same code serves a tree in memory, in
SQLite or in the product's database. `node(level, index)` is the hash of the complete subtree over
the leaves [index * 2**level, (index + 1) * 2**level).
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

NodeReader = Callable[[int, int], bytes]


def leaf_hash(content: bytes) -> bytes:
    """The hash of a leaf: SHA-256(0x00 || content)."""
    return hashlib.sha256(b"\x00" + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def completed_nodes(size: int, leaf: bytes, node: NodeReader) -> list[tuple[int, int, bytes]]:
    """What appending `leaf` to a tree of `size` leaves adds: (level, index, hash), leaf first.

    Two nodes a leaf on average; `node` is asked for left siblings only.
    """
    added = [(0, size, leaf)]
    index, level, current = size, 0, leaf
    while index % 2 == 1:
        current = node_hash(node(level, index - 1), current)
        index, level = index // 2, level + 1
        added.append((level, index, current))
    return added


def root_of(size: int, node: NodeReader) -> bytes:
    """The root of the first `size` leaves."""
    return _range_root(0, size, node) if size else EMPTY_ROOT


def inclusion_path(index: int, size: int, node: NodeReader) -> list[bytes]:
    """The audit path of leaf `index` in the tree of `size` leaves, nearest sibling first.

    Raises ValueError when the tree has no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}.")
    path: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(_range_root(middle, end, node))
            end = middle
        else:
            path.append(_range_root(begin, middle, node))
            begin = middle
    path.reverse()
    return path


def consistency_path(old_size: int, size: int, node: NodeReader) -> list[bytes]:
    """The proof that the first `old_size` leaves of a tree of `size` are the old tree.

    Raises ValueError when `old_size` is over `size`. Empty for an old tree of 0 or of `size`.
    """
    if not 0 <= old_size <= size:
        raise ValueError(f"a tree of {old_size} cannot be the start of a tree of {size}.")
    if old_size in (0, size):
        return []
    path: list[bytes] = []
    begin, end, is_old_complete = 0, size, True
    while old_size != end:
        middle = begin + _split(end - begin)
        if old_size <= middle:
            path.append(_range_root(middle, end, node))
            end = middle
        else:
            path.append(_range_root(begin, middle, node))
            begin, is_old_complete = middle, False
    if not is_old_complete:
        path.append(_range_root(begin, end, node))
    path.reverse()
    return path


def verify_inclusion(
    leaf: bytes, *, index: int, size: int, path: Sequence[bytes], root: bytes
) -> bool:
    """Whether `path` proves that leaf hash `leaf` is number `index` of the tree with `root`."""
    if not 0 <= index < size:
        return False
    current, position, last = leaf, index, size - 1
    for sibling in path:
        if last == 0:
            return False
        if position % 2 == 1 or position == last:
            current = node_hash(sibling, current)
            while position % 2 == 0 and position:
                position, last = position // 2, last // 2
        else:
            current = node_hash(current, sibling)
        position, last = position // 2, last // 2
    return last == 0 and current == root


def verify_consistency(
    *, old_size: int, size: int, old_root: bytes, root: bytes, path: Sequence[bytes]
) -> bool:
    """Whether `path` proves that the tree with `old_root` is the start of the one with `root`."""
    if not 0 <= old_size <= size:
        return False
    if old_size == size:
        return not path and old_root == root
    if old_size == 0:
        return not path and old_root == EMPTY_ROOT
    rest = list(path)
    position, last = old_size - 1, size - 1
    while position % 2 == 1:
        position, last = position // 2, last // 2
    if position:
        if not rest:
            return False
        old = new = rest.pop(0)
    else:
        old = new = old_root
    for sibling in rest:
        if last == 0:
            return False
        if position % 2 == 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while position % 2 == 0 and position:
                position, last = position // 2, last // 2
        else:
            new = node_hash(new, sibling)
        position, last = position // 2, last // 2
    return last == 0 and old == old_root and new == root


def missing_siblings(indexes: Sequence[int], size: int, node: NodeReader) -> list[bytes]:
    """What a verifier who holds the leaves `indexes` lacks to compute the root of `size` leaves.

    The maximal subtrees with none of those leaves, left to right. This is all their audit paths
    in one: every inner hash that the leaves themselves give is left out. `indexes` are strictly
    rising; raises ValueError otherwise, or when one is outside the tree.
    """
    _check_rising(indexes, size)
    found: list[bytes] = []

    def walk(begin: int, end: int, low: int, high: int) -> None:
        if low == high:
            found.append(_range_root(begin, end, node))
        elif end - begin > 1 and high - low < end - begin:
            middle = begin + _split(end - begin)
            cut = _first_at_least(indexes, middle, low, high)
            walk(begin, middle, low, cut)
            walk(middle, end, cut, high)

    if size:
        walk(0, size, 0, len(indexes))
    return found


def root_from_leaves(
    indexes: Sequence[int], leaves: Sequence[bytes], *, size: int, siblings: Sequence[bytes]
) -> bytes:
    """The root that these leaves and the subtrees between them give.

    Raises ValueError when the counts do not fit the tree.
    """
    _check_rising(indexes, size)
    if len(leaves) != len(indexes):
        raise ValueError("each leaf needs one index.")
    supply = iter(siblings)

    def walk(begin: int, end: int, low: int, high: int) -> bytes:
        if low == high:
            try:
                return next(supply)
            except StopIteration:
                raise ValueError("the proof lacks a hash.") from None
        if end - begin == 1:
            return leaves[low]
        middle = begin + _split(end - begin)
        cut = _first_at_least(indexes, middle, low, high)
        return node_hash(walk(begin, middle, low, cut), walk(middle, end, cut, high))

    root = walk(0, size, 0, len(indexes)) if size else EMPTY_ROOT
    if next(supply, None) is not None:
        raise ValueError("the proof has a hash too many.")
    return root


class MerkleTree:
    """An append-only tree in memory: 64 bytes a leaf, so a million leaves take 64 MB."""

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[bytearray] = [bytearray()]
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf: bytes) -> None:
        """Add a leaf by its hash (see `leaf_hash`)."""
        for level, _, value in completed_nodes(self.size, leaf, self.node):
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += value

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree."""
        start = index * HASH_BYTES
        return bytes(self._levels[level][start : start + HASH_BYTES])

    def root(self, size: int | None = None) -> bytes:
        """The root of the first `size` leaves (all by default)."""
        return root_of(self._size(size), self.node)

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """See `inclusion_path`."""
        return inclusion_path(index, self._size(size), self.node)

    def consistency_proof(self, old_size: int, size: int | None = None) -> list[bytes]:
        """See `consistency_path`."""
        return consistency_path(old_size, self._size(size), self.node)

    def siblings(self, indexes: Sequence[int], size: int | None = None) -> list[bytes]:
        """See `missing_siblings`."""
        return missing_siblings(indexes, self._size(size), self.node)

    def _size(self, size: int | None) -> int:
        if size is None:
            return self.size
        if not 0 <= size <= self.size:
            raise ValueError(f"the tree has {self.size} leaves, not {size}.")
        return size


def _split(count: int) -> int:
    """The largest power of two below `count` (RFC 6962 section 2.1)."""
    return 1 << ((count - 1).bit_length() - 1)


def _range_root(begin: int, end: int, node: NodeReader) -> bytes:
    """The root over [begin, end), whose left parts are complete subtrees."""
    parts: list[bytes] = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        parts.append(node(level, begin >> level))
        begin += 1 << level
    root = parts.pop()
    while parts:
        root = node_hash(parts.pop(), root)
    return root


def _first_at_least(indexes: Sequence[int], value: int, low: int, high: int) -> int:
    while low < high:
        middle = (low + high) // 2
        if indexes[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


def _check_rising(indexes: Sequence[int], size: int) -> None:
    previous = -1
    for index in indexes:
        if not previous < index < size:
            raise ValueError(f"leaf {index} is out of order or not in a tree of {size}.")
        previous = index

"""The spine: the inner nodes of a tree being built, of which only one of each level is open.

    level 2   [child child child ...          a node that ends is stored, and its id is a child one level up
    level 1   [child ...                      push(child): the newest node of the level below
    leaves    (the builder's own)

Where a node ends is decided by what it holds alone (docs/format.md, section 9), never by what comes after: so a
tree can be finished at any moment, as a checkpoint, and go on growing as if nothing had been.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgpack
from blake3 import blake3

from repo_store.entry import Path
from repo_store.tree_node import CUT_BYTES, FANOUT_MAX, FANOUT_MIN, HEIGHT_MAX, Put

_CUT_BELOW = 4  # in the highest byte of the hash: 2**58 of 2**64


class Child(NamedTuple):
    """A stored node: its id, the entries or bytes below it, and the path of its first entry (of entries only)."""

    id: bytes
    weight: int
    first: Path


class _OpenNode:
    __slots__ = ("children", "encoded", "encoded_bytes", "first", "weight")

    def __init__(self, child: Child) -> None:
        self.first = child
        self.weight = 0
        self.children = 0
        self.encoded: list[bytes] = []
        self.encoded_bytes = 0


class Spine:
    """The inner nodes of one tree. Memory: one open node of at most 256 children for each level."""

    def __init__(
        self,
        cut_key: bytes,
        put: Put,
        *,
        label: int,
        encode: Callable[[Child], bytes],
        cut_name: Callable[[Child], bytes],
    ) -> None:
        """`label` + height goes in front of what `cut_name` returns, to be hashed for the cut."""
        self._cut_key = cut_key
        self._put = put
        self._label = label
        self._encode = encode
        self._cut_name = cut_name
        self._levels: list[_OpenNode | None] = []
        self._header = msgpack.Packer().pack_array_header

    def push(self, child: Child, height: int = 1) -> None:
        """Take the next leaf (or child of a node of `height`), and store the inner nodes that end with it."""
        while True:
            while height > len(self._levels):
                self._levels.append(None)
            node = self._levels[height - 1]
            if node is None:
                node = self._levels[height - 1] = _OpenNode(child)
            encoded = self._encode(child)
            node.encoded.append(encoded)
            node.encoded_bytes += len(encoded)
            node.weight += child.weight
            node.children += 1
            if not self._ends(node, child, height):
                return
            self._levels[height - 1] = None
            child = self._store(node, height, None)
            height += 1

    def root(self, last: Child | None) -> tuple[Child, int] | None:
        """Return the top node of the tree and its height, as if it ended here; None if there is nothing.

        `last` is the unfinished leaf at its end, already stored. The spine itself stays as it is.
        """
        top = len(self._levels)
        child = last
        for height in range(1, top + 1):
            node = self._levels[height - 1]
            if height == top and child is None and node is not None and node.children == 1:
                return node.first, height - 1
            if node is not None or child is not None:
                child = self._store(node, height, child)
        return None if child is None else (child, top)

    def _ends(self, node: _OpenNode, child: Child, height: int) -> bool:
        if node.children < FANOUT_MIN:
            return False
        if node.children >= FANOUT_MAX or node.encoded_bytes >= CUT_BYTES:
            return True
        name = bytes((self._label + height,)) + self._cut_name(child)
        return blake3(name, key=self._cut_key).digest(8)[7] < _CUT_BELOW

    def _store(self, node: _OpenNode | None, height: int, more: Child | None) -> Child:
        """Store a node (empty if None), with one child `more` at its end, and return it as a child."""
        assert height <= HEIGHT_MAX, "sixteen children to a node: no source has so many entries"
        assert node is not None or more is not None
        encoded = [] if node is None else node.encoded
        weight = 0 if node is None else node.weight
        if more is not None:
            encoded = [*encoded, self._encode(more)]
            weight += more.weight
        head = self._header(2) + bytes((height,)) + self._header(len(encoded))
        first = node.first if node is not None else more
        assert first is not None
        return Child(self._put(head + b"".join(encoded)), weight, first.first)

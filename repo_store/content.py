"""Content: which chunks a file or stream consists of, in the one form that its length calls for.

    no bytes        None
    one pair        the chunk's id; its length is the size of the entry
    2 to 32 pairs   [ids joined, [length, ...]]
    more            [root id, height] of a content tree:
                        leaf         [0, ids joined, [length, ...]]
                        inner node   [height, [[child id, bytes], ...]]

A pair is a chunk id and its length in bytes. The id HOLE stands for zeros that were never written; holes that
meet are joined. docs/format.md, section 9, is the authority. Nothing here touches storage: nodes come from `get`
and go to `put`, one open node of each level is in memory, so a stream may be of any length.
"""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, Final

import msgpack
from blake3 import blake3

from repo_store.entry import HOLE, ID_BYTES, Entry
from repo_store.errors import ObjectDamaged
from repo_store.tree_node import (
    HEIGHT_MAX,
    Get,
    Put,
    check_children,
    is_count,
    is_id,
    node_name,
    open_node,
)
from repo_store.tree_spine import Child, Spine

CHUNK_BYTES_MAX: Final = 8 * 1024 * 1024
"""The longest chunk: the plaintext of one frame."""
HOLE_BYTES_MAX: Final = 2**40
"""The longest hole in one pair; a longer one is several."""
INLINE_PAIRS_MAX: Final = 32
LEAF_PAIRS_MIN: Final = 256
LEAF_PAIRS_MAX: Final = 4096

_LABEL = 0x80

Content = bytes | list[Any] | None
"""What stands in an Entry's `content`."""


class ContentBuilder:
    """Turns a stream of pairs into the content of an entry. For one thread only."""

    def __init__(self, tree_cut_key: bytes, put: Put) -> None:
        packer = msgpack.Packer()
        self._pack = packer.pack
        self._cut_key = tree_cut_key
        self._put = put
        self._spine = Spine(
            tree_cut_key,
            put,
            label=_LABEL,
            encode=lambda child: packer.pack((child.id, child.weight)),
            cut_name=lambda child: child.id,
        )
        self._ids: list[bytes] = []
        self._lengths: list[int] = []
        self._hole_bytes = 0
        self._leaves = 0
        self._size = 0

    def add(self, chunk_id: bytes, length: int) -> None:
        """Take the next chunk, or HOLE, of `length` bytes. Raises ValueError for a length that cannot be: a bug."""
        if chunk_id == HOLE:
            if length <= 0:
                raise ValueError(f"a hole of {length} bytes")
            self._hole_bytes += length
            return
        if self._hole_bytes:
            self._end_hole()
        if not 0 < length <= CHUNK_BYTES_MAX or len(chunk_id) != ID_BYTES:
            raise ValueError(f"a chunk of {length} bytes with an id of {len(chunk_id)}")
        self._append(chunk_id, length)

    def finish(self) -> tuple[Content, int]:
        """Return the content for an Entry and the size that belongs to it."""
        if self._hole_bytes:
            self._end_hole()
        if self._leaves or len(self._ids) > INLINE_PAIRS_MAX:
            last = self._leaf() if self._ids else None
            root = self._spine.root(last)
            assert root is not None
            return [root[0].id, root[1]], self._size
        if len(self._ids) > 1:
            return [b"".join(self._ids), self._lengths], self._size
        return (self._ids[0] if self._ids else None), self._size

    def _append(self, chunk_id: bytes, length: int) -> None:
        self._ids.append(chunk_id)
        self._lengths.append(length)
        self._size += length
        count = len(self._ids)
        if count >= LEAF_PAIRS_MIN and (count == LEAF_PAIRS_MAX or _cuts(self._cut_key, chunk_id)):
            self._leaves += 1
            leaf = self._leaf()
            self._ids, self._lengths = [], []
            self._spine.push(leaf)

    def _end_hole(self) -> None:
        while self._hole_bytes:
            length = min(self._hole_bytes, HOLE_BYTES_MAX)
            self._hole_bytes -= length
            self._append(HOLE, length)

    def _leaf(self) -> Child:
        node = self._pack((0, b"".join(self._ids), self._lengths))
        return Child(self._put(node), sum(self._lengths), ())


def _cuts(cut_key: bytes, chunk_id: bytes) -> bool:
    """Say whether a leaf may end after this chunk: its hash, as a number of 64 bits, is below 2**54."""
    digest = blake3(b"\x80" + chunk_id, key=cut_key).digest(8)
    return digest[7] == 0 and digest[6] < 64


def content_pairs(get: Get, entry: Entry) -> Iterator[tuple[bytes, int]]:
    """Yield the chunk ids and lengths of an entry's content, in order. Raises ObjectDamaged."""
    for _, chunk_id, length in content_range(get, entry, 0, entry.size):
        yield chunk_id, length


def content_range(get: Get, entry: Entry, offset: int, length: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield (place, chunk id, length) of each pair that has bytes in the `length` bytes from `offset`, in order.

    `place` is where the pair begins in the content: the first may begin before `offset`, the last may end
    behind. Only nodes on the way there are read. Raises ObjectDamaged.
    """
    end = min(offset + length, entry.size)
    content = entry.content
    if offset >= end or content is None:
        return
    if isinstance(content, bytes):
        yield 0, content, entry.size
    elif type(content[1]) is list:
        yield from _between(content[0], content[1], 0, offset, end)
    else:
        stack: list[_Node] = [(content[0], content[1], entry.size, 0)]
        while stack:
            node_id, height, size, place = stack.pop()
            if height:
                children = _read_inner(get, node_id, height, size, place)
                stack.extend(
                    node for node in reversed(children) if node[3] < end and node[3] + node[2] > offset
                )
            else:
                ids, lengths = _read_leaf(get, node_id, size)
                yield from _between(ids, lengths, place, offset, end)


def content_nodes(get: Get, entry: Entry) -> Iterator[tuple[bytes, int]]:
    """Yield (id, height) of each node of an entry's content tree, if it has one. Leaves are named, not read."""
    content = entry.content
    if isinstance(content, list) and type(content[1]) is int:
        stack: list[_Node] = [(content[0], content[1], entry.size, 0)]
        while stack:
            node_id, height, size, place = stack.pop()
            yield node_id, height
            if height:
                stack.extend(reversed(_read_inner(get, node_id, height, size, place)))


def content_needs(
    get: Get, entry: Entry, is_new: Callable[[bytes], bool]
) -> Iterator[tuple[bytes | None, bytes]]:
    """Yield what an entry's content needs: (node id, nothing) of each node, (None, ids joined) of chunks, with holes.

    A node of which `is_new` is false is passed over with all below it. Raises ObjectDamaged, and what `get` raises.
    """
    content = entry.content
    if isinstance(content, bytes):
        yield None, content
    elif isinstance(content, list) and type(content[1]) is list:
        yield None, content[0]
    elif isinstance(content, list):
        stack: list[_Node] = [(content[0], content[1], entry.size, 0)]
        while stack:
            node_id, height, size, place = stack.pop()
            if not is_new(node_id):
                continue
            yield node_id, b""
            if height:
                stack.extend(reversed(_read_inner(get, node_id, height, size, place)))
            else:
                yield None, _read_leaf(get, node_id, size)[0]


def content_fits(content: Any, size: int) -> bool:
    """Say whether `content` can be that of an entry of `size` bytes, as far as the entry alone can tell."""
    return why_no_content(content, size) is None


def why_no_content(content: Any, size: int) -> str | None:
    """Return what is wrong with the content of an entry of `size` bytes, for a message; None if nothing is."""
    if content is None:
        return f"no content for its {size} bytes" if size else None
    if type(content) is bytes:
        return _why_no_pairs(content, [size], size)
    if type(content) is not list or len(content) != 2:
        return "a content of no known form"
    first, second = content
    if type(second) is int:
        return (
            None if is_id(first) and 0 <= second <= HEIGHT_MAX and size else "a content tree that cannot be"
        )
    if type(second) is list and len(second) > INLINE_PAIRS_MAX:
        return f"a content of {len(second)} pairs outside a tree"
    return _why_no_pairs(first, second, size)


_Node = tuple[bytes, int, int, int]
"""Id, height, bytes below it, and the place in the content where they begin."""


def _read_inner(get: Get, node_id: bytes, height: int, size: int, place: int) -> list[_Node]:
    name = node_name(node_id)
    children = check_children(name, open_node(get, node_id, height), 2)
    ids, counts = zip(*children, strict=True)
    if not all(map(is_id, ids)) or not all(map(is_count, counts)):
        raise ObjectDamaged(name, "has a child without an id or size")
    if sum(counts) != size:
        raise ObjectDamaged(name, f"holds {sum(counts)} bytes of content, where {size} belong")
    places = accumulate(counts, initial=place)
    return [(child, height - 1, count, at) for child, count, at in zip(ids, counts, places, strict=False)]


def _read_leaf(get: Get, node_id: bytes, size: int) -> tuple[bytes, list[int]]:
    node = open_node(get, node_id, 0)
    if len(node) != 3:
        raise ObjectDamaged(node_name(node_id), "is no leaf of a content tree")
    if (why := _why_no_pairs(node[1], node[2], size)) is not None:
        raise ObjectDamaged(node_name(node_id), f"has {why}")
    return node[1], node[2]


def _why_no_pairs(ids: Any, lengths: Any, size: int) -> str | None:
    """Return what is wrong with a list of pairs that should add up to `size` bytes; None if nothing is."""
    if (
        type(ids) is not bytes
        or type(lengths) is not list
        or len(ids) != ID_BYTES * len(lengths)
        or not lengths
    ):
        return "a content whose ids and lengths do not match"
    if set(map(type, lengths)) != {int} or min(lengths) <= 0:
        return "a content with an impossible length"
    if max(lengths) > CHUNK_BYTES_MAX:
        for at, length in enumerate(lengths):
            hole = ids[at * ID_BYTES : (at + 1) * ID_BYTES] == HOLE
            if length > (HOLE_BYTES_MAX if hole else CHUNK_BYTES_MAX):
                return f"a {'hole' if hole else 'chunk'} of {length} bytes"
    if sum(lengths) != size:
        return f"a content of {sum(lengths)} bytes, where {size} belong"
    return None


def _between(
    ids: bytes, lengths: list[int], place: int, offset: int, end: int
) -> Iterator[tuple[int, bytes, int]]:
    at = 0
    for length in lengths:
        if place >= end:
            return
        if place + length > offset:
            yield place, ids[at : at + ID_BYTES], length
        place += length
        at += ID_BYTES

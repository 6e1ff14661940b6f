"""Trees as docs/format.md, section 9, describes them, in the plainest Python: what the fast builders are held to.

Everything is in memory, and each level is cut by itself from the whole list of the level below. Nothing is shared
with repo_store but the Entry type.
"""

from collections.abc import Callable
from itertools import groupby
from typing import Any, NamedTuple

import msgpack
from blake3 import blake3

from repo_store.entry import Entry, Path

MIB = 1024 * 1024


class SlowTree(NamedTuple):
    """A tree in full: its root as (id, height, entries or bytes), None if empty, and every node by id."""

    root: tuple[bytes, int, int] | None
    nodes: dict[bytes, bytes]


class Built(NamedTuple):
    id: bytes
    weight: int
    first: Path


def node_id(data: bytes) -> bytes:
    """Return the id that the tests give a node."""
    return blake3(data).digest()


def cut_hash(key: bytes, label: int, name: bytes) -> int:
    return int.from_bytes(blake3(bytes([label]) + name, key=key).digest()[:8], "little")


def groups(items: list[Any], ends: Callable[[list[Any]], bool]) -> list[list[Any]]:
    """Cut the list after each item with which the group so far `ends`."""
    result: list[list[Any]] = [[]]
    for item in items:
        if result[-1] and ends(result[-1]):
            result.append([])
        result[-1].append(item)
    return [group for group in result if group]


def sorted_maps(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: sorted_maps(value[key]) for key in sorted(value)}
    return value


def entry_row(entry: Entry) -> list[Any]:
    return [*entry[:-1], sorted_maps(entry.extra) or None]


def leaf_node(entries: list[tuple[Path, Entry]]) -> list[Any]:
    return [0, leaf_runs(entries)]


def leaf_runs(entries: list[tuple[Path, Entry]]) -> list[Any]:
    runs: list[Any] = []
    for path, entry in entries:
        parent = list(path[:-1])
        if not runs or runs[-1][0] != parent:
            runs.append([parent, []])
        runs[-1][1].append(entry_row(entry))
    return runs


def slow_entry_tree(key: bytes, entries: list[tuple[Path, Entry]]) -> SlowTree:
    """Return the tree of the (path, entry) pairs, in whatever order they come."""

    row_bytes = {path: len(msgpack.packb(entry_row(entry))) for path, entry in entries}

    def leaf_ends(group: list[tuple[Path, Entry]]) -> bool:
        parents = [parent for parent, _ in groupby(path[:-1] for path, _ in group)]
        parent_bytes = sum(len(msgpack.packb(parent)) for parent in parents)
        if parent_bytes + sum(row_bytes[path] for path, _ in group) >= MIB or len(group) >= 1024:
            return True
        return len(group) >= 64 and cut_hash(key, 0, b"\0".join(group[-1][0])) < 2**56

    leaves = groups(sorted(entries, key=lambda pair: pair[0]), leaf_ends)
    nodes: dict[bytes, bytes] = {}
    built = [Built(_keep(nodes, leaf_node(leaf)), len(leaf), leaf[0][0]) for leaf in leaves]
    return slow_stack(
        key,
        nodes,
        built,
        label=0,
        cut_name=lambda child: b"\0".join(child.first),
        encode=lambda child: [list(child.first), child.id, child.weight],
    )


def joined_holes(pairs: list[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
    """Join holes that meet, then split those above 2**40 bytes from their start."""
    joined: list[tuple[bytes, int]] = []
    for chunk_id, length in pairs:
        if joined and chunk_id == bytes(32) == joined[-1][0]:
            joined[-1] = (chunk_id, joined[-1][1] + length)
        else:
            joined.append((chunk_id, length))
    result: list[tuple[bytes, int]] = []
    for chunk_id, length in joined:
        while chunk_id == bytes(32) and length > 2**40:
            result.append((chunk_id, 2**40))
            length -= 2**40
        result.append((chunk_id, length))
    return result


def slow_content(key: bytes, pairs: list[tuple[bytes, int]]) -> tuple[Any, int, dict[bytes, bytes]]:
    """Return the content field, the size, and the nodes of a stream of (chunk id, length)."""
    pairs = joined_holes(pairs)
    size = sum(length for _, length in pairs)
    if not pairs:
        return None, 0, {}
    if len(pairs) == 1:
        return pairs[0][0], size, {}
    if len(pairs) <= 32:
        return [b"".join(i for i, _ in pairs), [length for _, length in pairs]], size, {}

    def leaf_ends(group: list[tuple[bytes, int]]) -> bool:
        return len(group) >= 4096 or (len(group) >= 256 and cut_hash(key, 0x80, group[-1][0]) < 2**54)

    nodes: dict[bytes, bytes] = {}
    built = [
        Built(
            _keep(nodes, [0, b"".join(i for i, _ in leaf), [length for _, length in leaf]]),
            sum(length for _, length in leaf),
            (),
        )
        for leaf in groups(pairs, leaf_ends)
    ]
    tree = slow_stack(
        key,
        nodes,
        built,
        label=0x80,
        cut_name=lambda child: child.id,
        encode=lambda child: [child.id, child.weight],
    )
    assert tree.root is not None
    return [tree.root[0], tree.root[1]], size, tree.nodes


def _keep(nodes: dict[bytes, bytes], node: Any) -> bytes:
    data: bytes = msgpack.packb(node)
    nodes[node_id(data)] = data
    return node_id(data)


def slow_stack(
    key: bytes,
    nodes: dict[bytes, bytes],
    built: list[Built],
    *,
    label: int,
    cut_name: Callable[[Built], bytes],
    encode: Callable[[Built], list[Any]],
) -> SlowTree:
    """Put levels of inner nodes on top until one node is left."""
    if not built:
        return SlowTree(None, nodes)
    height = 0
    while len(built) > 1:
        height += 1
        level = height

        def ends(group: list[Built], level: int = level) -> bool:
            if len(group) < 16:
                return False
            if len(group) >= 256 or sum(len(msgpack.packb(encode(child))) for child in group) >= MIB:
                return True
            return cut_hash(key, label + level, cut_name(group[-1])) < 2**58

        built = [
            Built(
                _keep(nodes, [height, [encode(child) for child in group]]),
                sum(child.weight for child in group),
                group[0].first,
            )
            for group in groups(built, ends)
        ]
    return SlowTree((built[0].id, height, built[0].weight), nodes)

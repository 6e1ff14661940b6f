"""Entry nodes: what the bytes of a node of an entry tree say, checked against what the node above said.

    leaf         [0, [[parent, [entry, ...]], ...]]                        a run: entries of one parent
    inner node   [height, [[path of first entry, child id, entries], ...]]

docs/format.md, section 9, is the authority. Everything read is hostile; what does not fit is ObjectDamaged.
Nothing here touches storage.
"""

from functools import partial
from itertools import islice
from operator import lt
from typing import Any, Final, NamedTuple

from repo_store.entry import Entry, Path
from repo_store.entry_rules import rows_fit, why_no_entry
from repo_store.errors import ObjectDamaged
from repo_store.tree_node import (
    HEIGHT_MAX,
    Get,
    check_children,
    is_count,
    is_id,
    node_name,
    open_node,
    why_no_path,
)

LEAF_ENTRIES_MAX: Final = 1024

Run = tuple[Path, list[Entry]]
"""Consecutive entries, at least one, and the directory that they are all in."""


class NodeRef(NamedTuple):
    """A node as the one above it promises: it holds `entries` entries from path `first` up to before `end`.

    `first` is () for a root, of which nobody says it; `end` is None where nothing is known to follow.
    """

    id: bytes
    height: int
    entries: int
    first: Path
    end: Path | None


# Rows become entries without their fields being taken apart and together again.
_entry_from = partial(tuple.__new__, Entry)


def read_leaf(get: Get, node: NodeRef) -> list[Run]:
    """Return the runs of a leaf. Raises ObjectDamaged, and what `get` raises."""
    name = node_name(node.id)
    raw = _raw_runs(name, open_node(get, node.id, node.height))
    rows = [row for _, run in raw for row in run]
    if len(rows) != node.entries:
        raise ObjectDamaged(name, f"has {len(rows)} entries, where {node.entries} belong")
    if len(rows) > LEAF_ENTRIES_MAX:
        raise ObjectDamaged(name, f"has {len(rows)} entries, above the limit")
    if not rows_fit(rows):
        why = next(filter(None, map(why_no_entry, rows)), "an entry that cannot be")
        raise ObjectDamaged(name, f"has {why}")
    parents = _paths(name, [parent for parent, _ in raw])
    runs = [(parent, list(map(_entry_from, run))) for parent, (_, run) in zip(parents, raw, strict=True)]
    _check_order(name, runs, node)
    return runs


def read_inner(get: Get, node: NodeRef) -> list[NodeRef]:
    """Return what an inner node says of its children. Raises ObjectDamaged, and what `get` raises."""
    name = node_name(node.id)
    if node.height > HEIGHT_MAX:
        raise ObjectDamaged(name, f"has height {node.height}, above the limit")
    children = check_children(name, open_node(get, node.id, node.height), 3)
    raw_firsts, ids, counts = zip(*children, strict=True)
    if not all(map(is_id, ids)) or not all(map(is_count, counts)):
        raise ObjectDamaged(name, "has a child without an id or number of entries")
    if sum(counts) != node.entries:
        raise ObjectDamaged(name, f"has {sum(counts)} entries below it, where {node.entries} belong")
    firsts = _paths(name, raw_firsts)
    if () in firsts:
        raise ObjectDamaged(name, "has a child with an empty path")
    ends = [*firsts[1:], node.end]
    if not all(map(lt, firsts, islice(firsts, 1, None))) or not _in_bounds(firsts[0], firsts[-1], node):
        raise ObjectDamaged(name, "has children out of order")
    return [NodeRef(ids[i], node.height - 1, counts[i], firsts[i], ends[i]) for i in range(len(ids))]


def _raw_runs(name: str, node: list[Any]) -> list[tuple[Any, list[Any]]]:
    """Return the runs of a leaf as they are, only their form checked."""
    if len(node) != 2 or type(node[1]) is not list:
        raise ObjectDamaged(name, "is no leaf of an entry tree")
    for run in node[1]:
        if type(run) is not list or len(run) != 2 or type(run[1]) is not list or not run[1]:
            raise ObjectDamaged(name, "has a run that is no list of entries")
    return node[1]


def _paths(name: str, raw: list[Any] | tuple[Any, ...]) -> list[Path]:
    """Return the paths as tuples. Raises ObjectDamaged if one is not a list of names within the limits."""
    for path in raw:
        if (why := why_no_path(path)) is not None:
            raise ObjectDamaged(name, f"has {why}")
    return [tuple(path) for path in raw]


def _check_order(name: str, runs: list[Run], node: NodeRef) -> None:
    previous: Path = ()
    for parent, entries in runs:
        names = [entry[0] for entry in entries]
        path = (*parent, names[0])
        if path <= previous or not all(map(lt, names, islice(names, 1, None))):
            raise ObjectDamaged(name, "has entries out of order")
        previous = (*parent, names[-1])
    parent, entries = runs[0]
    if not _in_bounds((*parent, entries[0][0]), previous, node):
        raise ObjectDamaged(name, "has entries that do not belong in its place")


def _in_bounds(first: Path, last: Path, node: NodeRef) -> bool:
    return node.first in ((), first) and (node.end is None or last < node.end)

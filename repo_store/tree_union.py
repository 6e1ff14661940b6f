"""Tree union: the entries of many trees in one pass, in the order of their paths.

    for path, versions in union(get, roots, wanted): ...

A node that several trees share is named by its hash: it is read once, for all of them. Nodes wait in the order of the
paths that they begin with; one that comes in again under the same promise (the first path and the number of entries)
joins the one that waits. So the cost is that of the distinct nodes, however many trees there are, and in memory are
only the nodes around one place. Nothing here touches storage.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

import msgpack

from repo_store.entry import Entry, Path
from repo_store.entry_node import NodeRef, read_inner, read_leaf
from repo_store.errors import HoldfastError, ObjectDamaged, ObjectMissing
from repo_store.tree_node import Get, TreeRoot
from repo_store.tree_reader import LostNode

Wanted = Callable[[Path, Entry], bool]
"""Says whether an entry is wanted."""

Version = tuple[Entry, int]
"""An entry, and a bit for each of the trees that have it: that of tree n is 1 << n."""


@dataclass(frozen=True)
class LostNodes:
    """A node that could not be read, and the trees (a bit each) that miss its entries."""

    node: LostNode
    trees: int


_Key = tuple[Path, int, bytes, int]
"""First path, height with the highest first, id, number of entries."""


def union(
    get: Get, roots: Sequence[TreeRoot | None], wanted: Wanted, on_damage: Callable[[LostNodes], None]
) -> Iterator[tuple[Path, list[Version]]]:
    """Yield each path that has a wanted entry in any tree, with its versions: that of the first tree first.

    Entries that differ only in what a restore does not give back (ctime, inode) are one version.
    """
    walk = _Union(get, roots, wanted, on_damage)
    while walk.heap:
        path = walk.heap[0][0]
        yield from walk.before(path)
        walk.open_next()
    yield from walk.before(None)


class _Union:
    def __init__(
        self,
        get: Get,
        roots: Sequence[TreeRoot | None],
        wanted: Wanted,
        on_damage: Callable[[LostNodes], None],
    ) -> None:
        self._get, self._wanted, self._on_damage = get, wanted, on_damage
        self.heap: list[_Key] = []
        self._waiting: dict[_Key, tuple[Path | None, int]] = {}
        self._found: dict[Path, dict[bytes, Version]] = {}
        self._paths: list[Path] = []
        for number, root in enumerate(roots):
            if root is not None:
                self._put(NodeRef(root.id, root.height, root.entries, (), None), 1 << number)

    def open_next(self) -> None:
        """Read the node that begins first: its children wait, or its entries are found."""
        key = heappop(self.heap)
        end, trees = self._waiting.pop(key)
        first, height, node_id, entries = key
        node = NodeRef(node_id, -height, entries, first, end)
        try:
            if node.height:
                for child in read_inner(self._get, node):
                    self._put(child, trees)
            else:
                for parent, run in read_leaf(self._get, node):
                    for entry in run:
                        if self._wanted(parent, entry):
                            self._keep((*parent, entry[0]), entry, trees)
        except (ObjectDamaged, ObjectMissing) as error:
            self._lost(node, trees, error)

    def before(self, path: Path | None) -> Iterator[tuple[Path, list[Version]]]:
        """Yield what was found before `path`, which no node can add to any more; None stands for the end."""
        while self._paths and (path is None or self._paths[0] < path):
            found = heappop(self._paths)
            versions = self._found.pop(found).values()
            yield found, sorted(versions, key=lambda version: version[1] & -version[1])

    def _put(self, node: NodeRef, trees: int) -> None:
        key = (node.first, -node.height, node.id, node.entries)
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = node.end, trees
            heappush(self.heap, key)
            return
        # What follows differs from tree to tree: the entries must come before the nearest.
        ends = [end for end in (node.end, waiting[0]) if end is not None]
        self._waiting[key] = min(ends, default=None), waiting[1] | trees

    def _keep(self, path: Path, entry: Entry, trees: int) -> None:
        versions = self._found.get(path)
        if versions is None:
            versions = self._found[path] = {}
            heappush(self._paths, path)
        key = version_key(entry)
        before = versions.get(key)
        versions[key] = (entry, trees) if before is None else (before[0], before[1] | trees)

    def _lost(self, node: NodeRef, trees: int, error: HoldfastError) -> None:
        self._on_damage(LostNodes(LostNode(*node, error), trees))


def version_key(entry: Entry) -> bytes:
    """Return what two entries of a path share if a restore of them gives the same."""
    extra: dict[str, Any] | None = entry.extra
    if extra and "link" in extra:
        extra = {**extra, "link": 0}
    key: bytes = msgpack.packb((*entry[:6], *entry[8:10], extra))
    return key

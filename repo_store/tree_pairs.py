"""Tree pairs: two entry trees read in step, and only where they differ.

    for path, before, after in differing(get, one_root, other_root): ...

Nodes are named by their hash, so a node that stands at the same place of both trees is the same entries: it is
passed over with all below it, unread. Cuts follow names, so the trees of two manifests fall into step again right
behind each difference, and the cost is that of the nodes that differ. Nothing here touches storage; what is damaged
is raised.
"""

from collections.abc import Iterator

from repo_store.entry import Entry, Path
from repo_store.entry_node import NodeRef, Run, read_inner, read_leaf
from repo_store.tree_node import Get, TreeRoot

Pair = tuple[Path, Entry | None, Entry | None]
"""A path, and its entry in the first and in the second tree; None where a tree has none."""


def differing(get: Get, before: TreeRoot | None, after: TreeRoot | None, path: Path = ()) -> Iterator[Pair]:
    """Yield each path at or below `path` whose entries are not the same in both trees, in order.

    Raises ObjectDamaged or ObjectMissing where a node cannot be read.
    """
    left, right = _Side(get, before, path), _Side(get, after, path)
    while True:
        left.settle()
        right.settle()
        if left.pending or right.pending:
            yield from _from_entries(left, right)
        elif left.nodes or right.nodes:
            _step(left, right)
        else:
            return


class _Side:
    """What is left of one tree: entries of the leaf being read, then nodes, the next one last."""

    def __init__(self, get: Get, root: TreeRoot | None, path: Path) -> None:
        self._get = get
        self._path = path
        self.nodes = [] if root is None else [NodeRef(root.id, root.height, root.entries, (), None)]
        self.entries: list[tuple[Path, Entry]] = []
        self._at = 0

    @property
    def pending(self) -> bool:
        """Whether entries of an open leaf are left."""
        return self._at < len(self.entries)

    @property
    def first(self) -> tuple[Path, Entry]:
        """The next entry of the open leaf."""
        return self.entries[self._at]

    def take(self) -> tuple[Path, Entry]:
        """Return the next entry of the open leaf and go on behind it."""
        self._at += 1
        return self.entries[self._at - 1]

    def settle(self) -> None:
        """Drop the nodes at the front that have nothing of what is wanted."""
        path, depth = self._path, len(self._path)
        while self.nodes:
            node = self.nodes[-1]
            before = node.end is not None and node.end <= path
            if not before and not node.first[:depth] > path:
                return
            self.nodes.pop()

    def expand(self) -> None:
        """Put what the next node holds in its place."""
        node = self.nodes.pop()
        if node.height:
            self.nodes.extend(reversed(read_inner(self._get, node)))
        else:
            assert not self.pending
            self.entries, self._at = list(self._wanted(read_leaf(self._get, node))), 0

    def _wanted(self, runs: list[Run]) -> Iterator[tuple[Path, Entry]]:
        depth = len(self._path)
        for parent, entries in runs:
            for entry in entries:
                path = (*parent, entry[0])
                if path[:depth] == self._path:
                    yield path, entry


def _from_entries(left: _Side, right: _Side) -> Iterator[Pair]:
    """Compare entries of open leaves until there are none on a side that the other one's next node may reach."""
    while left.pending and right.pending:
        path, other = left.first[0], right.first[0]
        if path < other:
            yield path, left.take()[1], None
        elif other < path:
            yield other, None, right.take()[1]
        else:
            pair = path, left.take()[1], right.take()[1]
            if pair[1] != pair[2]:
                yield pair
    # One leaf is at its end. What is left of the other is alone up to where the next node begins.
    for side, next_nodes, is_left in ((left, right.nodes, True), (right, left.nodes, False)):
        while side.pending:
            if next_nodes and next_nodes[-1].first <= side.first[0]:
                (right if is_left else left).expand()
                return
            path, entry = side.take()
            yield (path, entry, None) if is_left else (path, None, entry)


def _step(left: _Side, right: _Side) -> None:
    """Pass over a node that both have next, or open the one that begins first, of two such the higher."""
    if not left.nodes or not right.nodes:
        (left if left.nodes else right).expand()
        return
    one, other = left.nodes[-1], right.nodes[-1]
    if one.id == other.id:
        left.nodes.pop()
        right.nodes.pop()
        return
    starts = (one.first, -one.height), (other.first, -other.height)
    if starts[0] <= starts[1]:
        left.expand()
    if starts[1] <= starts[0]:
        right.expand()

"""The tree reader: the entries of a manifest, in order, from the nodes of its tree.

    for path, entry in read_tree(get, root): ...         all of it, lazily
    for path, entry in subtree(get, root, path): ...     one entry and what is below it: only the nodes on the way
    lookup(get, root, path)                              one entry
    cursor.advance(path)                                 the entry of each path of a walk, in step with it

docs/format.md, section 9, is the authority. Every node is checked against what the node above says of it: height,
number of entries, path of the first entry, and the path that its last must come before. So the whole tree is
known to be in order, however little of it is read. Nothing here touches storage.

A node that is damaged or missing costs the entries below it: with `on_damage` it is reported and skipped, without
it the error is raised.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import NamedTuple

from repo_store.entry import Entry, Path
from repo_store.entry_node import NodeRef, Run, read_inner, read_leaf
from repo_store.errors import HoldfastError, ObjectDamaged, ObjectMissing
from repo_store.tree_node import Get, TreeRoot


class LostNode(NamedTuple):
    """A node that could not be read: its entries are lost, those from path `first` up to before `end`.

    `first` is () where the whole tree is lost, `end` None where nothing is known to follow.
    """

    id: bytes
    height: int
    entries: int
    first: Path
    end: Path | None
    error: HoldfastError


OnDamage = Callable[[LostNode], None]
"""Takes what is lost; reading goes on behind it."""

Skip = Callable[[bytes], bool]
"""Says of a node's id that the node and all below it are not wanted, for instance because they were seen before."""


def read_tree(get: Get, root: TreeRoot, *, on_damage: OnDamage | None = None) -> Iterator[tuple[Path, Entry]]:
    """Yield the path and entry of everything in the tree, in order."""
    return subtree(get, root, (), on_damage=on_damage)


def subtree(
    get: Get, root: TreeRoot, path: Path, *, on_damage: OnDamage | None = None
) -> Iterator[tuple[Path, Entry]]:
    """Yield the entry at `path` and everything below it, in order; nothing if there is nothing."""
    for parent, entries in runs(get, root, path, on_damage=on_damage):
        for entry in entries:
            yield (*parent, entry[0]), entry


def runs(
    get: Get,
    root: TreeRoot,
    path: Path = (),
    *,
    skip: Skip | None = None,
    on_damage: OnDamage | None = None,
) -> Iterator[Run]:
    """Yield the same as `subtree` as (parent, entries) of consecutive entries, the quicker form.

    `skip` is asked about each node before it is read.
    """
    walk = _Walk(get, root, skip, on_damage)
    depth = len(path)
    while (leaf := walk.next_leaf(path)) is not None:
        for parent, entries in leaf:
            if parent[:depth] == path:
                yield parent, entries
            elif parent == path[:-1]:
                found = [entry for entry in entries if entry[0] == path[-1]]
                if found:
                    yield parent, found
            if (*parent, entries[-1][0])[:depth] > path:
                return


def lookup(get: Get, root: TreeRoot, path: Path) -> Entry | None:
    """Return the entry at `path`, None if there is none."""
    for parent, entries in _Walk(get, root).next_leaf(path) or ():
        for entry in entries if parent == path[:-1] else ():
            if path and entry[0] == path[-1]:
                return entry
    return None


def nodes(
    get: Get, root: TreeRoot, *, skip: Skip | None = None, on_damage: OnDamage | None = None
) -> Iterator[tuple[bytes, int]]:
    """Yield (id, height) of each node that the tree consists of, parents first.

    Leaves are named, not read. Content trees are not among them (repo_store/content.py names theirs).
    """
    stack = [NodeRef(root.id, root.height, root.entries, (), None)]
    while stack:
        node = stack.pop()
        if skip is None or not skip(node.id):
            yield node.id, node.height
            if node.height:
                stack.extend(reversed(_children(get, node, on_damage)))


class Cursor:
    """Reads a tree in step with a walk that comes in the same order, to compare each path with what it was."""

    def __init__(self, get: Get, root: TreeRoot, *, on_damage: OnDamage | None = None) -> None:
        self._walk = _Walk(get, root, None, on_damage)
        self._runs: Iterator[Run] = iter(())
        self._entries: list[Entry] = []
        self._at = 0  # of the next one in `_entries`
        self._parent: Path = ()
        self._path: Path | None = ()
        self._entry: Entry | None = None

    def advance(self, path: Path) -> Entry | None:
        """Return the entry at `path`, or None if the tree has none. Paths must not go backwards.

        What the tree has before `path` is passed over, whole nodes of it unread.
        """
        here = self._path
        while here is not None and here < path:
            if self._at == len(self._entries):
                if not self._next_run(path):
                    self._path = None
                    return None
                continue
            entry = self._entries[self._at]
            self._at += 1
            here = (*self._parent, entry[0])
            self._path, self._entry = here, entry
        return self._entry if here == path else None

    def advance_all(self, parent: Path, names: list[bytes]) -> list[Entry | None]:
        """As `advance` for each of these names in one directory, in rising order."""
        found: list[Entry | None] = []
        while len(found) < len(names):
            found.append(self.advance((*parent, names[len(found)])))
            if self._parent == parent and self._path is not None and self._at:
                found += self._rest_of_run(names[len(found) :])
        return found

    def _rest_of_run(self, names: list[bytes]) -> list[Entry | None]:
        """Return what the run being read has of those of `names` that it reaches."""
        first = self._at - 1  # the one read last may lie ahead of the name that it was read for
        rest = self._entries[first:]
        reached = names[: bisect_right(names, rest[-1][0])]
        if not reached:
            return []
        of_name = {entry[0]: entry for entry in rest}
        found = [of_name.get(name) for name in reached]
        self._at = first + bisect_right(rest, reached[-1], key=itemgetter(0))
        self._entry, self._path = found[-1], (*self._parent, reached[-1])
        return found

    def _next_run(self, path: Path) -> bool:
        run = next(self._runs, None)
        while run is None:
            leaf = self._walk.next_leaf(path)
            if leaf is None:
                return False
            self._runs = iter(leaf)
            run = next(self._runs, None)
        self._parent, self._entries = run
        self._at = 0
        return True


class _Walk:
    """Goes through the leaves from left to right. In memory: one list of children for each level."""

    def __init__(
        self, get: Get, root: TreeRoot, skip: Skip | None = None, on_damage: OnDamage | None = None
    ) -> None:
        self._get = get
        self._skip = skip
        self._on_damage = on_damage
        self._stack = [NodeRef(root.id, root.height, root.entries, (), None)]

    def next_leaf(self, at_least: Path) -> list[Run] | None:
        """Return the next leaf that may have an entry at or behind `at_least`, None behind the last."""
        stack = self._stack
        while stack:
            node = stack.pop()
            if node.end is not None and node.end <= at_least:
                continue
            if self._skip is not None and self._skip(node.id):
                continue
            if node.height:
                children = _children(self._get, node, self._on_damage)
                start = bisect_right(children, at_least, key=lambda child: child.first)
                stack.extend(reversed(children[max(0, start - 1) :]))
                continue
            try:
                return read_leaf(self._get, node)
            except (ObjectDamaged, ObjectMissing) as error:
                _report(node, error, self._on_damage)
        return None


def _children(get: Get, node: NodeRef, on_damage: OnDamage | None) -> list[NodeRef]:
    try:
        return read_inner(get, node)
    except (ObjectDamaged, ObjectMissing) as error:
        _report(node, error, on_damage)
        return []


def _report(node: NodeRef, error: HoldfastError, on_damage: OnDamage | None) -> None:
    if on_damage is None:
        raise error
    on_damage(LostNode(*node, error))

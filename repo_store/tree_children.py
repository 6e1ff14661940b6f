"""Tree children: the entries directly in one directory of an entry tree.

A directory's entries are not together in the tree: behind each of its directories comes all that is in that one. Nodes with
nothing but such entries are passed over unread, so the cost is that of the directory, however much is below it.
"""

from collections.abc import Iterator

from repo_store.entry import Entry, Path
from repo_store.entry_node import NodeRef, read_inner, read_leaf
from repo_store.tree_node import Get, TreeRoot

_LAST = b"\0"
"""Behind a name: no name holds it, so this is the first path behind all that is below the name."""


def children(get: Get, root: TreeRoot, path: Path) -> Iterator[Entry]:
    """Yield the entries in the directory `path`, in order; () is the top. Raises ObjectDamaged, ObjectMissing."""
    depth = len(path)
    at_least = path
    stack = [NodeRef(root.id, root.height, root.entries, (), None)]
    while stack:
        node = stack.pop()
        if node.end is not None and node.end <= at_least:
            continue
        if node.first[:depth] > path:
            return
        if node.height:
            stack.extend(reversed(read_inner(get, node)))
            continue
        last: Path = ()
        for parent, entries in read_leaf(get, node):
            if parent == path:
                yield from entries
            last = (*parent, entries[-1].name)
        if len(last) > depth and last[:depth] == path:
            at_least = (*path, last[depth] + _LAST)

"""Needs: every chunk and tree node that some manifests need, whatever they share.

Trees share most of their nodes; each node is read once, however many manifests have it. The ids come out sorted, so
that the whole index can be walked in step with them (prune_survey.py). Memory is 32 bytes for a tree node, and a
bound for chunks: a repository of a million chunks and a thousand manifests fits into 300 MB with all else.

A node that cannot be read ends the trace with its error: what lies below it is unknown, so nothing may be freed.
"""

from collections.abc import Iterator
from pathlib import Path

from repo_store.content import content_needs
from repo_store.entry import HOLE, ID_BYTES, Entry
from repo_store.entry_node import NodeRef, read_inner, read_leaf
from repo_store.id_set import IdSet, SortedIds
from repo_store.rows import Section
from repo_store.tree_node import Get, TreeRoot


class Needs:
    """What has been traced so far. For one thread."""

    def __init__(self, get: Get, folder: Path, *, beside: "Needs | None" = None) -> None:
        """Nodes come from `get`; what does not fit into memory goes to files without a name in `folder`.

        What was traced `beside` is left out.
        """
        self._get, self._beside = get, beside
        self._seen = IdSet()
        self._ids = {Section.DATA: SortedIds(folder), Section.METADATA: SortedIds(folder)}

    def add(self, root: TreeRoot | None) -> None:
        """Add everything that a tree needs.

        Raises ObjectDamaged or ObjectMissing for a node that cannot be read; then what was reached stays needed, and
        no later trace relies on it.
        """
        if root is None or self.has_seen(root.id):
            return
        fresh: set[bytes] = set()  # seen by all only once this tree is whole
        for node_id, ids in self._walk(root, fresh):
            if node_id is not None:
                self._ids[Section.METADATA].add(node_id)
            for at in range(0, len(ids), ID_BYTES):
                chunk_id = ids[at : at + ID_BYTES]
                if chunk_id != HOLE:
                    self._ids[Section.DATA].add(chunk_id)
        self._seen.update(fresh)

    def ids(self, section: Section) -> Iterator[bytes]:
        """Yield the ids of all that is needed of one kind, sorted, each once."""
        return iter(self._ids[section])

    def _walk(self, root: TreeRoot, fresh: set[bytes]) -> Iterator[tuple[bytes | None, bytes]]:
        stack = [NodeRef(root.id, root.height, root.entries, (), None)]
        while stack:
            node = stack.pop()
            if not self._is_new(node.id, fresh):
                continue
            yield node.id, b""
            if node.height:
                stack.extend(reversed(read_inner(self._get, node)))
                continue
            for _, entries in read_leaf(self._get, node):
                for entry in entries:
                    if entry.content is not None:
                        yield from self._content(entry, fresh)

    def _content(self, entry: Entry, fresh: set[bytes]) -> Iterator[tuple[bytes | None, bytes]]:
        return content_needs(self._get, entry, lambda node_id: self._is_new(node_id, fresh))

    def _is_new(self, node_id: bytes, fresh: set[bytes]) -> bool:
        if node_id in fresh or self.has_seen(node_id):
            return False
        fresh.add(node_id)
        return True

    def has_seen(self, node_id: bytes) -> bool:
        """Return whether a node and all below it were traced, here or beside."""
        return node_id in self._seen or (self._beside is not None and self._beside.has_seen(node_id))

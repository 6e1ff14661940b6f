"""Verify walk: whether every chunk that any manifest needs is there, as quickly as one can tell.

Every node of every tree is read once, whichever manifests share it; the ids of contents are gathered and looked for a
million at a time. The answer is yes or no. Where it is no, engine/verify_trees.py goes the same way chunk by chunk and says
what is lost and whom it hurts: damage is rare, and may take its time.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from engine.progress import Progress
from repo_store.chunk_reader import ChunkReader
from repo_store.content import content_nodes, content_pairs
from repo_store.entry import HOLE, Entry
from repo_store.entry_node import NodeRef, read_inner, read_leaf
from repo_store.errors import ObjectDamaged, ObjectMissing
from repo_store.index import Index
from repo_store.manifest import Manifest
from repo_store.row_proof import ChunkSearch
from repo_store.row_stream import RowsChanged
from repo_store.rows import Section

_TOGETHER = 4096


class TreeWalk:
    """Goes through the trees of manifests. For one thread."""

    def __init__(self, index: Index, reader: ChunkReader) -> None:
        self._get_node = reader.get_node
        self._search = ChunkSearch(index)
        self._seen: set[bytes] = set()
        self._trees: set[tuple[bytes, int, int]] = set()

    def is_whole(self, manifests: Iterable[Manifest], progress: Progress) -> bool:
        """Return whether every node can be read and every chunk found. Raises StorageError, Interrupted."""
        try:
            for manifest in manifests:
                progress.files += 1
                if manifest.root is not None:
                    root = manifest.root
                    self._walk(NodeRef(root.id, root.height, root.entries, (), None), progress)
            return self._search.finish()
        except (ObjectDamaged, ObjectMissing, RowsChanged):
            return False

    def _walk(self, root: NodeRef, progress: Progress) -> None:
        stack = [root]
        while stack:
            node = stack.pop()
            if node.id in self._seen:
                continue
            self._seen.add(node.id)
            self._search.add(Section.METADATA, node.id)
            progress.check_stop()
            if node.height:
                stack.extend(reversed(read_inner(self._get_node, node)))
            else:
                for _, entries in read_leaf(self._get_node, node):
                    self._add_contents(entries)

    def _add_contents(self, entries: list[Entry]) -> None:
        contents = [entry.content for entry in entries]
        self._search.add(Section.DATA, b"".join([each for each in contents if type(each) is bytes]))
        if list in map(type, contents):
            for entry in entries:
                if isinstance(entry.content, list):
                    self._add_pieces(entry, *entry.content)

    def _add_pieces(self, entry: Entry, first: bytes, second: Any) -> None:
        """Ask for what the content of one entry, more than a single chunk, consists of."""
        if type(second) is int:
            tree = (first, second, entry.size)  # the whole claim: a node may be told to hold what it does not
            if tree in self._trees:
                return
            self._trees.add(tree)
            for node_id, _ in content_nodes(self._get_node, entry):
                self._search.add(Section.METADATA, node_id)
        pairs = content_pairs(self._get_node, entry)
        while some := list(islice(pairs, _TOGETHER)):
            self._search.add(Section.DATA, b"".join([chunk for chunk, _ in some if chunk != HOLE]))

"""Tree check: which damage a manifest's tree suffers from, each shared node looked at once.

For every node and every content the answer is a set of (object, reason); almost always it is the empty set, one
object for all. It is remembered by node id, so the second manifest of a series costs what it changed.
"""

from collections import OrderedDict
from collections.abc import Iterable

from repo_store.chunk_reader import ChunkReader
from repo_store.content import content_nodes, content_pairs
from repo_store.entry import HOLE, Entry
from repo_store.entry_node import NodeRef, read_inner, read_leaf
from repo_store.errors import ObjectDamaged, ObjectMissing
from repo_store.frame import FrameName
from repo_store.index import Index
from repo_store.pack import pack_name
from repo_store.rows import FrameLocation, Section
from repo_store.tree_node import TreeRoot

DamageSet = frozenset[tuple[str, str]]
"""(object name, reason) of all that is damaged below a node."""

_NONE: DamageSet = frozenset()
_FRAMES_HELD = 256


class TreeCheck:
    """Checks trees of one repository as the index sees it now: what it counts as absent is lost."""

    def __init__(self, index: Index, reader: ChunkReader, *, exact: bool = False) -> None:
        """Check trees; `exact`: also whether the directory of the pack agrees with the row that found a chunk."""
        self._index = index
        self._reader = reader
        self._exact = exact
        self._known: dict[bytes, DamageSet] = {}
        self._held: OrderedDict[tuple[bytes, FrameName], frozenset[tuple[bytes, int, int]]] = OrderedDict()
        self.false_frames: set[FrameName] = set()
        """Frames that rows name for chunks which they do not hold: for a writer as good as lost."""
        self._asked = b""

    def damage_of(self, root: TreeRoot) -> DamageSet:
        """Return all damage that a tree suffers from."""
        return self._node(NodeRef(root.id, root.height, root.entries, (), None))

    def _node(self, node: NodeRef) -> DamageSet:
        known = self._known.get(node.id)
        if known is None:
            known = self._known[node.id] = self._check(node)
        return known

    def _check(self, node: NodeRef) -> DamageSet:
        lost = self._lost(Section.METADATA, [node.id])
        if lost:
            return lost
        try:
            if node.height:
                return _union(self._node(child) for child in read_inner(self._get_node, node))
            return _union(
                self._content(entry)
                for _, entries in read_leaf(self._get_node, node)
                for entry in entries
                if entry.content is not None
            )
        except (ObjectDamaged, ObjectMissing) as error:
            return self._unreadable(error)

    def _get_node(self, node_id: bytes) -> bytes:
        self._asked = node_id
        return self._reader.get_node(node_id)

    def _content(self, entry: Entry) -> DamageSet:
        if isinstance(entry.content, bytes):
            return self._lost(Section.DATA, [entry.content])
        try:
            lost = self._lost(Section.METADATA, (node for node, _ in content_nodes(self._get_node, entry)))
            pairs = content_pairs(self._get_node, entry)
            return lost | self._lost(Section.DATA, (chunk for chunk, _ in pairs if chunk != HOLE))
        except (ObjectDamaged, ObjectMissing) as error:
            return self._unreadable(error)

    def _unreadable(self, error: ObjectDamaged | ObjectMissing) -> DamageSet:
        """Return what is damaged where the node asked for last has no whole copy: each that should hold one."""
        reason = error.reason if isinstance(error, ObjectDamaged) else "missing"
        found = frozenset({(error.name, reason)})
        return (
            found | self._holders(Section.METADATA, self._asked) if error.name.startswith("packs/") else found
        )

    def _lost(self, section: Section, ids: Iterable[bytes]) -> DamageSet:
        """Return what is damaged that should hold the chunks `ids`; nothing if all are present."""
        has, found = self._index.has_chunk, _NONE
        for chunk_id in ids:
            if not has(section, chunk_id):
                found |= self._holders(section, chunk_id)
            elif self._exact and not self._is_where_rows_say(section, chunk_id):
                name = f"chunk {chunk_id.hex()[:16]}"
                found |= {(name, "tables place it where its pack does not have it")}
        return found

    def _is_where_rows_say(self, section: Section, chunk_id: bytes) -> bool:
        """Say whether a row of a chunk agrees with the directory of a pack; note the frames of those that do not."""
        places = self._index.find_chunk(section, chunk_id)
        for place in places:
            for where in self._index.find_frame(place.frame):
                try:
                    if (chunk_id, place.offset, place.length) in self._chunks_of(where, place.frame):
                        return True
                except (ObjectDamaged, ObjectMissing):
                    continue
        self.false_frames.update(place.frame for place in places)
        return False

    def _chunks_of(self, where: FrameLocation, name: FrameName) -> frozenset[tuple[bytes, int, int]]:
        """Return (id, offset, length) of the chunks that a pack's directory says a frame holds; some are kept."""
        key = (where.pack, name)
        held = self._held.get(key)
        if held is None:
            directory = self._reader.packs.directory(where.pack, where.pack_size)
            frames = [frame.name for frame in directory.frames]
            held = frozenset(directory.chunks(frames.index(name)) if name in frames else ())
            self._held[key] = held
            if len(self._held) > _FRAMES_HELD:
                self._held.popitem(last=False)
        else:
            self._held.move_to_end(key)
        return held

    def _holders(self, section: Section, chunk_id: bytes) -> DamageSet:
        reason = f"holds chunk {chunk_id.hex()[:16]}, which is lost"
        packs = {
            pack_name(where.pack)
            for place in self._index.find_chunk(section, chunk_id)
            for where in self._index.find_frame(place.frame)
        }
        if not packs:
            return frozenset({(f"chunk {chunk_id.hex()[:16]}", "in no pack that any table knows")})
        return frozenset((pack, reason) for pack in packs)


def _union(sets: Iterable[DamageSet]) -> DamageSet:
    found = _NONE
    for one in sets:
        if one:
            found = found | one
    return found

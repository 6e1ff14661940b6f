"""Dependencies: everything a manifest needs, and their rescue when garbage collection wants it gone.

The dependencies of a manifest are all frames of all its entries and tree nodes, reused ones included, and the
bases of these frames. A writer that learns of a mark resolves all of them afresh; a frame whose every pack is
condemned is carried, sealed as it is, into a new pack of the writer's own, while the condemned pack still exists.
"""

from collections.abc import Iterator

from repo_store.carry import carry_frames
from repo_store.chunk_reader import ChunkReader
from repo_store.content import content_nodes, content_pairs
from repo_store.entry import HOLE, Entry
from repo_store.errors import ObjectMissing, StorageError
from repo_store.frame import FrameName
from repo_store.generations import Generations
from repo_store.index import Index
from repo_store.key_ring import KeyRing
from repo_store.repository_writer import RepositoryWriter
from repo_store.rows import FrameLocation, Section
from repo_store.storage import Storage
from repo_store.tree_node import Get, TreeRoot
from repo_store.tree_reader import nodes, runs

_TOGETHER = 4096


def trace(get: Get, root: TreeRoot) -> Iterator[tuple[Section, bytes]]:
    """Yield the section and id of every chunk that a tree needs, nodes first, some more than once."""
    for node_id, _ in nodes(get, root):
        yield Section.METADATA, node_id
    for _, entries in runs(get, root):
        for entry in entries:
            yield from trace_content(get, entry)


def trace_content(get: Get, entry: Entry) -> Iterator[tuple[Section, bytes]]:
    """Yield the section and id of every chunk that the content of one entry needs."""
    for node_id, _ in content_nodes(get, entry):
        yield Section.METADATA, node_id
    for chunk_id, _ in content_pairs(get, entry):
        if chunk_id != HOLE:
            yield Section.DATA, chunk_id


class Rescuer:
    """Keeps the dependencies of one manifest out of garbage collection's way."""

    def __init__(
        self,
        storage: Storage,
        ring: KeyRing,
        index: Index,
        reader: ChunkReader,
        writer: RepositoryWriter,
        root: TreeRoot | None,
    ) -> None:
        self._storage, self._ring, self._index = storage, ring, index
        self._reader, self._writer, self._root = reader, writer, root

    def rescue(self, generations: Generations) -> list[FrameName]:
        """Carry every dependency that `generations` condemn; return the frames carried, now durable.

        Raises StorageError if one can no longer be had: the run must begin again, from the source.
        """
        if self._root is None:
            return []
        self._index.refresh()
        gone = generations.packs | self._missing_packs()
        condemned: dict[FrameName, list[FrameLocation]] = {}
        try:
            for wanted in batched_ids(trace(self._reader.get_node, self._root)):
                self._find_condemned(wanted, gone, condemned)
        except ObjectMissing as error:
            raise StorageError(
                f"{error.name}, which this snapshot reuses, was removed meanwhile",
                hint="run it again: what it held will be read from the source",
            ) from error
        if condemned:
            for pack in carry_frames(self._storage, self._ring, self._reader.packs, condemned):
                self._writer.add_pack(*pack)
            self._writer.settle()
        return list(condemned)

    def _missing_packs(self) -> set[bytes]:
        listed = {bytes.fromhex(info.name[-64:]) for info in self._storage.list("packs/")}
        return {pack for pack, _ in self._index.packs() if pack not in listed}

    def _find_condemned(
        self,
        wanted: dict[Section, set[bytes]],
        gone: frozenset[bytes] | set[bytes],
        condemned: dict[FrameName, list[FrameLocation]],
    ) -> None:
        """Add to `condemned` the frames that must be carried for all chunks of `wanted` to stay, bases included."""
        for section, ids in wanted.items():
            places = self._index.find_chunks(section, ids)
            for chunk_id in ids:
                frames = [place.frame for place in places.get(chunk_id, ())]
                if not any(self._stays(frame, gone) for frame in frames):
                    self._carry_one(chunk_id, frames, condemned)

    def _stays(self, frame: FrameName, gone: frozenset[bytes] | set[bytes]) -> bool:
        return any(
            where.pack not in gone and (where.place.base is None or self._stays(where.place.base, gone))
            for where in self._index.find_frame(frame)
        )

    def _carry_one(
        self, chunk_id: bytes, frames: list[FrameName], condemned: dict[FrameName, list[FrameLocation]]
    ) -> None:
        for frame in frames:
            locations = self._index.find_frame(frame)
            if locations:
                condemned[frame] = locations
                for where in locations:
                    if where.place.base is not None:
                        condemned[where.place.base] = self._index.find_frame(where.place.base)
                return
        raise StorageError(
            f"chunk {chunk_id.hex()[:16]}, which this snapshot reuses, was removed meanwhile",
            hint="run it again: it will be read from the source",
        )


def batched_ids(traced: Iterator[tuple[Section, bytes]]) -> Iterator[dict[Section, set[bytes]]]:
    """Yield the traced ids by section, some thousands at a time, so that lookups can be sorted."""
    while True:
        wanted: dict[Section, set[bytes]] = {Section.DATA: set(), Section.METADATA: set()}
        for count, (section, chunk_id) in enumerate(traced, 1):
            wanted[section].add(chunk_id)
            if count == _TOGETHER:
                break
        if not any(wanted.values()):
            return
        yield wanted

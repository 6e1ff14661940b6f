"""The repository writer: one run that stores chunks, nodes and the tables that find them.

    chunks ── data packs ─┐
    nodes ── metadata packs (twice) ─┴─ barrier ── table ── barrier: settled

`settle` is the only way to durable: everything handed in before it is stored, indexed and synced when it returns, in
the order of docs/format.md ("Order of writing"). A run that dies leaves packs that no table names; the next run
reads their directories and uses them (`adopt`), so nothing is uploaded twice.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType

from repo_store.chunk_writer import ChunkWriter
from repo_store.content import content_nodes, content_pairs
from repo_store.damage import read_damage
from repo_store.directory import Directory
from repo_store.entry import HOLE, Entry
from repo_store.errors import ObjectDamaged, ObjectMissing
from repo_store.generations import Generations, read_generations
from repo_store.index import Index
from repo_store.key_ring import KeyRing
from repo_store.pack import pack_name
from repo_store.pack_reader import read_directory
from repo_store.pack_writer import PackRows as StoredPack
from repo_store.pack_writer import PackWriter
from repo_store.rows import Section
from repo_store.sealed import Kind
from repo_store.storage import Storage
from repo_store.table import table_name
from repo_store.tree_node import Get
from repo_store.worker_pool import WorkerPool

WORKERS = 2
CHUNK_ROOM_BYTES = 1536 * 1024
"""A frame buffer: a full frame, a chunk of 256 KiB not yet cut, and room to read on."""
NODE_PACK_BYTES = 16 * 1024 * 1024
NODES_IN_FLIGHT_BYTES = 48_000_000
ADOPTED_LISTED_MAX = 10_000
"""Above this many packs, reading those that a dead run left would cost more requests than it saves."""


class RepositoryWriter:
    """Writes to one repository for one run. For one thread; close it, whatever happened."""

    def __init__(
        self,
        storage: Storage,
        ring: KeyRing,
        index: Index,
        get_node: Get,
        *,
        level: int = 3,
        generations: Generations | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        """`generations`: what was read before the index was brought up to date, if that has just been done.

        `cache_dir`: where ledger records are kept, so that each is fetched once.
        """
        self._storage, self._ring, self._index, self._get_node = storage, ring, index, get_node
        if generations is None:
            generations = read_generations(storage, ring)
            index.refresh()
        self.generations = generations
        # Not put by this run, and about to be named by its table: they must be made durable with its own.
        self._foreign = [pack_name(pack) for pack in index.unsaved_packs()]
        self.stored_bytes = 0
        self._cache_dir = cache_dir
        self.unread_ledger: dict[str, str] = {}
        """Ledger records that cannot be read, object name → reason: what they say of damage is not known to this run."""
        self._guarded = self._exclude_absent()
        self._stored: SimpleQueue[StoredPack] = SimpleQueue()
        self._pool = WorkerPool(WORKERS, level=level)
        self._data_packs = PackWriter(
            storage, ring, Kind.DATA_DIRECTORY, self._pool, self._stored.put, buffer_bytes=CHUNK_ROOM_BYTES
        )
        self._node_packs = PackWriter(
            storage,
            ring,
            Kind.METADATA_DIRECTORY,
            self._pool,
            self._stored.put,
            pack_bytes=NODE_PACK_BYTES,
            buffer_bytes=CHUNK_ROOM_BYTES,
            in_flight_bytes_max=NODES_IN_FLIGHT_BYTES,
        )
        self.data = ChunkWriter(self._data_packs, index, Section.DATA, ring.data_chunk_id_key)
        self.nodes = ChunkWriter(self._node_packs, index, Section.METADATA, ring.metadata_chunk_id_key)

    def put_node(self, node: bytes) -> bytes:
        """Store a tree node and return its id."""
        return self.nodes.put(node)

    def take_rows(self) -> None:
        """Give the index the rows of the packs stored since the last call."""
        with suppress(Empty):
            while True:
                stored = self._stored.get_nowait()
                self.stored_bytes += stored.size
                self._index.add_pack(stored.hash, stored.size, stored.directory)

    def settle(self) -> None:
        """Store, index and sync everything handed in so far. Raises StorageError; then nothing may be committed."""
        self.data.finish_frame()
        self.nodes.finish_frame()
        self._data_packs.flush()
        self._node_packs.flush()
        self.take_rows()
        mark = self._index.freeze()
        self._storage.barrier(self._foreign)
        self._foreign = []
        stored = False
        while (table := self._index.take_table(mark)) is not None:
            self.stored_bytes += len(table)
            self._storage.put(table_name(table), table)
            stored = True
        if stored:
            self._storage.barrier()

    def add_pack(self, pack: bytes, size: int, directory: Directory) -> None:
        """Index a pack that was put through the storage by other means: one of carried frames."""
        self.stored_bytes += size
        self._index.add_pack(pack, size, directory)

    @property
    def all_intact(self) -> bool:
        """Whether nothing is condemned or damaged, so that `is_intact` says yes of every entry."""
        return not self._guarded

    def is_intact(self, entry: Entry) -> bool:
        """Say whether all of an entry's content can be relied on; quick while nothing is condemned or damaged."""
        if not self._guarded:
            return True
        try:
            # Nodes too: one that a reader still has in memory may be lost all the same.
            has = self._index.has_chunk
            return all(
                has(Section.METADATA, node_id) for node_id, _ in content_nodes(self._get_node, entry)
            ) and all(
                chunk_id == HOLE or has(Section.DATA, chunk_id)
                for chunk_id, _ in content_pairs(self._get_node, entry)
            )
        except (ObjectDamaged, ObjectMissing):
            return False

    def close(self) -> None:
        """End the run's threads. What was not settled is left to the next run."""
        self._data_packs.close()
        self._node_packs.close()
        self._pool.close()

    def __enter__(self) -> "RepositoryWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exclude_absent(self) -> bool:
        """Tell the index what to count as absent: the condemned, the damaged, the missing. Say if there is any."""
        packs = set(self.generations.packs)
        frames = set(self.generations.frames)
        known = dict(self._index.packs())
        listed = {bytes.fromhex(info.name[-64:]): info.size for info in self._storage.list("packs/")}
        packs.update(pack for pack, size in known.items() if listed.get(pack) != size)
        if len(known) <= ADOPTED_LISTED_MAX:
            unindexed = {pack: listed[pack] for pack in self._index.unindexed(listed)}
            self._adopt(unindexed, packs | self.generations.unreferenced)
        damage = read_damage(self._storage, self._ring, self._cache_dir)
        self.unread_ledger = damage.unread
        packs |= damage.packs
        frames |= damage.frames
        # What the next prune takes is stored anew; what was taken over unread belongs to a live manifest and is safe.
        self._index.set_absent(packs | self.generations.garbage, frames)
        return bool(packs & known.keys() or frames)

    def _adopt(self, unindexed: dict[bytes, int], condemned: Iterable[bytes]) -> None:
        """Use packs that a run stored and did not live to index. One that is not whole is left alone, and so is one of a
        signer whose tables would not count."""
        for pack, size in unindexed.items():
            if pack in condemned:
                continue
            with suppress(ObjectDamaged, ObjectMissing):
                directory = read_directory(self._storage, self._ring, pack, size)
                if self._index.trusts(directory.signer):
                    self._index.add_pack(pack, size, directory)
                    self._foreign.append(pack_name(pack))

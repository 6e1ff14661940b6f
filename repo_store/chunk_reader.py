"""The chunk reader: chunks by id, from wherever a whole copy of them is.

Chunks are read in the order in which packs hold them, each frame once, by a few threads ahead of the caller. Each
chunk's id is computed again from what was read. If a copy is damaged or missing the next one is tried: another
pack that holds the frame, another frame that holds the chunk. Where that was the last, the reader looks closer, once: a
prune may have moved the chunk, or the table that knew it is damaged, so tables are loaded again and packs that no table
knows are asked themselves. Only then is the chunk lost, and said so.
"""

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Full, Queue
from typing import NamedTuple

from blake3 import blake3

from repo_store.errors import HoldfastError, ObjectDamaged, ObjectMissing
from repo_store.frame import FrameName
from repo_store.index import Index
from repo_store.key_ring import KeyRing
from repo_store.pack import pack_name
from repo_store.pack_reader import PackReader, read_directory
from repo_store.pack_sweep import PackSweep
from repo_store.recent_rows import RecentRows
from repo_store.row_batch import location_key
from repo_store.rows import ChunkPlace, FrameLocation, Section
from repo_store.storage import Storage

_THREADS = 2
_QUEUED_FRAMES = 8
_CACHED_NODE_BYTES = 24_000_000
_KEPT_PACK_BYTES_MAX = 20 * 1024 * 1024
"""A pack of nodes up to this size is fetched in one request by one who comes back to it: all that writers make."""

Copy = tuple[ChunkPlace, FrameLocation]
"""One copy of a chunk: where in which frame, and where that frame is."""

Found = tuple[bytes, memoryview | HoldfastError]


class _Wanted(NamedTuple):
    """A chunk to be taken out of a frame, and the copies left to try should this one fail."""

    id: bytes
    place: ChunkPlace
    others: list[Copy]


@dataclass
class _PackJob:
    """What is wanted of one pack: for each of its frames the chunks."""

    pack: bytes
    size: int
    frames: dict[FrameName, FrameLocation] = field(default_factory=dict)
    wanted: dict[FrameName, list[_Wanted]] = field(default_factory=lambda: defaultdict(list))


class ChunkReader:
    """Reads chunks of one repository. `read_chunks` is for one thread at a time."""

    def __init__(self, storage: Storage, ring: KeyRing, index: Index) -> None:
        self._storage, self._ring, self._index = storage, ring, index
        self.packs = PackReader(storage, ring)
        self._lock = threading.Lock()
        self._unindexed: RecentRows | None = None
        self._keys = {Section.DATA: ring.data_chunk_id_key, Section.METADATA: ring.metadata_chunk_id_key}
        self._nodes: OrderedDict[FrameName, dict[bytes, bytes]] = OrderedDict()
        self._node_of: dict[bytes, FrameName] = {}
        self._node_bytes = 0
        self._last_node_pack = b""
        self.walks = False
        """Whether most nodes of a tree will be asked for, so that their packs had better be fetched whole at once."""
        self.damage: dict[str, str] = {}
        """Every damaged copy met so far, by object, whether or not another copy stood in for it."""

    def get_node(self, node_id: bytes) -> bytes:
        """Return the bytes of a tree node. Raises ObjectDamaged or ObjectMissing if no whole copy is left.

        Its whole frame is kept for a while: nodes are asked for in the order in which they were stored.
        """
        frame = self._node_of.get(node_id)
        if frame is not None:
            self._nodes.move_to_end(frame)
            return self._nodes[frame][node_id]
        lost: HoldfastError = ObjectMissing(f"tree node {node_id.hex()[:16]}")
        while True:
            for place, where in self._copies(Section.METADATA, [node_id]).get(node_id, []):
                try:
                    return self._load_nodes(node_id, place, where)
                except (ObjectDamaged, ObjectMissing) as error:
                    lost = self._note(where, error)
            if not self._look_closer():
                raise lost

    def read_chunks(self, ids: Sequence[bytes]) -> Iterator[Found]:
        """Yield each of the content chunks `ids` once, in the order of packs: its bytes, or why it is lost.

        The bytes are good until the next one is asked for. Raises StorageError if the storage fails as a whole.
        """
        lost: dict[bytes, HoldfastError] = {}
        yield from self._read_copies(ids, lost)
        if lost and self._look_closer():
            wanted, lost = list(lost), {}
            yield from self._read_copies(wanted, lost)
        yield from lost.items()

    def sweep(self, ids: Collection[bytes], take: Callable[[Sequence[Found]], None]) -> None:
        """As `read_chunks`, for very many: `take` is given the chunks, those of one frame together.

        It is called from several threads at once; the bytes are good until it returns. What it raises ends the sweep.
        """
        key = self._keys[Section.DATA]
        left = PackSweep(self.packs, self._where_first, self.frame, key, ids, take).run()
        for found in self.read_chunks(left) if left else ():
            take([found])

    def _where_first(self, chunk_id: bytes) -> FrameLocation | None:
        copies = self._copies(Section.DATA, [chunk_id]).get(chunk_id)
        return copies[0][1] if copies else None

    def _read_copies(self, ids: Sequence[bytes], lost: dict[bytes, HoldfastError]) -> Iterator[Found]:
        """Yield each of the chunks `ids` of which a whole copy is known; enter the others into `lost`."""
        copies = self._copies(Section.DATA, ids)
        again = [(chunk_id, copies[chunk_id]) for chunk_id in ids if copies.get(chunk_id)]
        for chunk_id in ids:
            if not copies.get(chunk_id):
                lost[chunk_id] = ObjectMissing(f"chunk {chunk_id.hex()[:16]}")
        while again:
            jobs = _plan(again)
            again = []
            for wanted, result in self._run(jobs):
                if not isinstance(result, HoldfastError):
                    yield wanted.id, result
                elif wanted.others:
                    again.append((wanted.id, wanted.others))
                else:
                    lost[wanted.id] = result

    def frame(self, name: FrameName) -> bytes:
        """Return the plaintext of a frame by name, from the first whole copy. Raises ObjectDamaged, ObjectMissing."""
        lost: HoldfastError = ObjectMissing(f"frame {name}")
        while True:
            for where in self._locations([name]).get(name, []):
                try:
                    return self.packs.read_base(where.pack, where.pack_size, where.place)
                except (ObjectDamaged, ObjectMissing) as error:
                    lost = self._note(where, error)
            if not self._look_closer():
                raise lost

    def _look_closer(self) -> bool:
        """Load the tables again, and the directories of packs that none of them knows; False if that was done before.

        Those rows are for reading only: a writer may rely on none that no barrier has made durable.
        """
        with self._lock:
            if self._unindexed is not None:
                return False
            found = RecentRows()
            self._index.refresh()
            listed = {bytes.fromhex(info.name[-64:]): info.size for info in self._storage.list("packs/")}
            for pack in self._index.unindexed(listed):
                with suppress(ObjectDamaged, ObjectMissing):
                    found.add_pack(
                        pack, listed[pack], read_directory(self._storage, self._ring, pack, listed[pack])
                    )
            self._unindexed = found
            return True

    def _note(self, where: FrameLocation, error: ObjectDamaged | ObjectMissing) -> HoldfastError:
        reason = error.reason if isinstance(error, ObjectDamaged) else "missing"
        self.damage.setdefault(pack_name(where.pack), reason)
        return error

    def _run(self, jobs: list[_PackJob]) -> Iterator[tuple[_Wanted, memoryview | HoldfastError]]:
        """Read the packs of `jobs` on a few threads and yield what each wanted chunk came to."""
        results: Queue[list[tuple[_Wanted, memoryview | HoldfastError]] | BaseException | None]
        results = Queue(_QUEUED_FRAMES)
        waiting = iter(jobs)
        lock, stop = threading.Lock(), threading.Event()

        def emit(item: list[tuple[_Wanted, memoryview | HoldfastError]] | BaseException | None) -> None:
            while not stop.is_set():
                with suppress(Full):
                    results.put(item, timeout=0.1)
                    return

        def work() -> None:
            try:
                while not stop.is_set():
                    with lock:
                        job = next(waiting, None)
                    if job is None:
                        break
                    for found in self._read_pack(job):
                        emit(found)
                        if stop.is_set():
                            break
                emit(None)
            except BaseException as error:
                emit(error)

        threads = [threading.Thread(target=work, name=f"read-{n}", daemon=True) for n in range(_THREADS)]
        for thread in threads:
            thread.start()
        try:
            running = len(threads)
            while running:
                item = results.get()
                if item is None:
                    running -= 1
                elif isinstance(item, BaseException):
                    raise item
                else:
                    yield from item
        finally:
            stop.set()
            with suppress(Empty):
                while True:
                    results.get_nowait()
            for thread in threads:
                thread.join()

    def _read_pack(self, job: _PackJob) -> Iterator[list[tuple[_Wanted, memoryview | HoldfastError]]]:
        """Yield, frame by frame, the chunks wanted of one pack; a damaged frame costs itself."""
        left = dict(sorted(job.frames.items(), key=lambda item: item[1].place.offset))
        try:
            self.packs.directory(job.pack, job.size)
            while left:
                places = [where.place for where in left.values()]
                try:
                    for place, plain in self.packs.read_frames(job.pack, job.size, places, self.frame):
                        del left[place.name]
                        yield self._take_out(job.wanted[place.name], plain)
                except ObjectDamaged as error:
                    name = next(iter(left))
                    del left[name]
                    yield [(wanted, error) for wanted in job.wanted[name]]
        except (ObjectDamaged, ObjectMissing) as error:
            yield [(wanted, error) for name in left for wanted in job.wanted[name]]

    def _take_out(
        self, chunks: list[_Wanted], plain: bytes
    ) -> list[tuple[_Wanted, memoryview | HoldfastError]]:
        view = memoryview(plain)
        key = self._keys[Section.DATA]
        taken: list[tuple[_Wanted, memoryview | HoldfastError]] = []
        for wanted in chunks:
            piece = view[wanted.place.offset : wanted.place.offset + wanted.place.length]
            if blake3(piece, key=key).digest() == wanted.id:
                taken.append((wanted, piece))
            else:
                name = f"chunk {wanted.id.hex()[:16]}"
                taken.append((wanted, ObjectDamaged(name, "its frame holds something else in its place")))
        return taken

    def _copies(self, section: Section, ids: Sequence[bytes]) -> dict[bytes, list[Copy]]:
        places = self._index.find_chunks(section, ids)
        if (more := self._unindexed) is not None:
            for chunk_id in ids:
                found = [more.chunk_place(row) for row in more.find_rows(section, chunk_id)]
                places[chunk_id] = [*places.get(chunk_id, ()), *found]
        # The first two fields of a place are the name of its frame, and a tuple equals a name: none is made for each
        # of thousands of chunks.
        names = {place[:2] for found in places.values() for place in found}
        found_frames = self._locations([FrameName(*name) for name in names])
        frames = {(name.origin, name.ordinal): where for name, where in found_frames.items()}
        return {
            chunk_id: [(place, where) for place in found for where in frames.get(place[:2], ())]
            for chunk_id, found in places.items()
        }

    def _locations(self, names: Collection[FrameName]) -> dict[FrameName, list[FrameLocation]]:
        frames = self._index.find_frames(names)
        if (more := self._unindexed) is not None:
            for name in names:
                rows = more.find_rows(Section.LOCATIONS, location_key(*name))
                frames[name] = [*frames.get(name, ()), *map(more.frame_location, rows)]
        return frames

    def _load_nodes(self, node_id: bytes, place: ChunkPlace, where: FrameLocation) -> bytes:
        """Read the frame and keep all whole nodes of it; return the one asked for."""
        # Who comes twice to one pack reads on in it: a request for each window would be many.
        comes_back = self.walks or where.pack == self._last_node_pack
        self._last_node_pack = where.pack
        ((_, plain),) = self.packs.read_frames(
            where.pack,
            where.pack_size,
            [where.place],
            self.frame,
            keep=comes_back and where.pack_size <= _KEPT_PACK_BYTES_MAX,
        )
        directory = self.packs.directory(where.pack, where.pack_size)
        nodes: dict[bytes, bytes] = {}
        for other, offset, length in directory.chunks(directory.frames.index(where.place)):
            piece = plain[offset : offset + length]
            if blake3(piece, key=self._keys[Section.METADATA]).digest() == other:
                nodes[other] = piece
        if node_id not in nodes:
            raise ObjectDamaged(
                f"tree node {node_id.hex()[:16]}", "its frame holds something else in its place"
            )
        self._keep(place.frame, nodes)
        return nodes[node_id]

    def _keep(self, frame: FrameName, nodes: dict[bytes, bytes]) -> None:
        self._node_bytes -= sum(map(len, self._nodes.pop(frame, {}).values()))
        self._nodes[frame] = nodes
        self._node_of.update(dict.fromkeys(nodes, frame))
        self._node_bytes += sum(map(len, nodes.values()))
        while self._node_bytes > _CACHED_NODE_BYTES and len(self._nodes) > 1:
            _, dropped = self._nodes.popitem(last=False)
            self._node_bytes -= sum(map(len, dropped.values()))
            for node_id in dropped:
                self._node_of.pop(node_id, None)


def _plan(again: list[tuple[bytes, list[Copy]]]) -> list[_PackJob]:
    """Group chunks by the pack of their first copy, in the order in which packs are first needed."""
    jobs: dict[bytes, _PackJob] = {}
    for chunk_id, ((place, where), *others) in again:
        job = jobs.get(where.pack)
        if job is None:
            job = jobs[where.pack] = _PackJob(where.pack, where.pack_size)
        name = where.place.name
        job.frames[name] = where
        job.wanted[name].append(_Wanted(chunk_id, place, others))
    return list(jobs.values())

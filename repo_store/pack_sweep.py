"""The pack sweep: many chunks out of their packs, asking the index once for a pack and not once for a chunk.

The directory of a pack names every chunk in it. So the first chunk that is still wanted is looked up, the directory of
the pack it is in is read (whoever takes a frame out of a pack needs it anyway), and all wanted chunks that the
directory names are taken out together: the cost of the index does not grow with chunks but with packs.

A few threads do that, each with a pack of its own. The id of each chunk is computed again before it is handed over.
What goes wrong with a chunk here is not judged: it is left over, for the chunk reader to try every copy.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from blake3 import blake3

from repo_store.directory import ID_BYTES, Directory
from repo_store.errors import ObjectDamaged, ObjectMissing
from repo_store.frame import FramePlace
from repo_store.pack_reader import FindBase, PackReader
from repo_store.rows import FrameLocation
from repo_store.storage import Buffer

THREADS = 2

Chunk = tuple[bytes, memoryview]
"""A chunk: its id and its bytes."""

Take = Callable[[Sequence[Chunk]], None]
"""Takes the chunks wanted of one frame, good until it returns. Called from several threads at once."""

_Spot = tuple[bytes, int, int]  # chunk id, offset in the plaintext of its frame, length


@dataclass(frozen=True, slots=True)
class _PackJob:
    """What is to be taken out of one pack, frame by frame."""

    pack: bytes
    size: int
    frames: list[tuple[FramePlace, list[_Spot]]]


class PackSweep:
    """One pass over the packs that hold the chunks `ids`. `run` it once."""

    def __init__(
        self,
        packs: PackReader,
        find: Callable[[bytes], FrameLocation | None],
        find_base: FindBase,
        id_key: bytes,
        ids: Iterable[bytes],
        take: Take,
    ) -> None:
        """`find` says where a frame is that should hold the chunk; None: nobody knows."""
        self._packs, self._find, self._find_base, self._id_key = packs, find, find_base, id_key
        self._take = take
        self._wanted = dict.fromkeys(ids)
        self._left: list[bytes] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._error: BaseException | None = None

    def run(self) -> list[bytes]:
        """Hand over what can be had, and return the ids of the rest.

        Raises what `take` raises, and StorageError if the storage fails as a whole.
        """
        threads = [
            threading.Thread(target=self._work, name=f"sweep-{n}", daemon=True) for n in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if self._error is not None:
            raise self._error
        return self._left

    def _work(self) -> None:
        try:
            while not self._stop.is_set() and (job := self._next_job()) is not None:
                self._read(job)
        except BaseException as error:
            with self._lock:
                self._error = self._error or error
            self._stop.set()

    def _next_job(self) -> _PackJob | None:
        # The directory is read with the lock held: another thread would only find the same pack meanwhile.
        with self._lock:
            while self._wanted:
                first = next(iter(self._wanted))
                where = self._find(first)
                frames = [] if where is None else self._claim(where.pack, where.pack_size)
                if self._wanted.pop(first, first) is None:  # nowhere, or not where the index says
                    self._left.append(first)
                if where is not None and frames:
                    return _PackJob(where.pack, where.pack_size, frames)
            return None

    def _claim(self, pack: bytes, size: int) -> list[tuple[FramePlace, list[_Spot]]]:
        """Take what the directory of the pack names off the list of what is wanted."""
        try:
            directory = self._packs.directory(pack, size)
        except (ObjectDamaged, ObjectMissing):
            return []
        wanted = self._wanted
        frames = []
        for index, place in enumerate(directory.frames):
            spots = [spot for spot in _spots(directory, index) if wanted.pop(spot[0], spot) is None]
            if spots:
                frames.append((place, spots))
        return frames

    def _read(self, job: _PackJob) -> None:
        spots_of = {place.name: spots for place, spots in job.frames}
        left = [place for place, _ in job.frames]
        try:
            while left and not self._stop.is_set():
                try:
                    for place, plain in self._packs.view_frames(job.pack, job.size, left, self._find_base):
                        del left[0]
                        self._hand_over(spots_of.pop(place.name), plain)
                        if self._stop.is_set():
                            return
                except ObjectDamaged:
                    self._leave(spots_of.pop(left.pop(0).name))
        except ObjectMissing:
            for spots in spots_of.values():
                self._leave(spots)

    def _hand_over(self, spots: list[_Spot], plain: Buffer) -> None:
        key, view = self._id_key, memoryview(plain)
        good: list[Chunk] = []
        for spot in spots:
            chunk_id, offset, length = spot
            piece = view[offset : offset + length]
            if blake3(piece, key=key).digest() == chunk_id:
                good.append((chunk_id, piece))
            else:
                self._leave([spot])
        if good:
            self._take(good)

    def _leave(self, spots: Iterable[_Spot]) -> None:
        with self._lock:
            self._left.extend(spot[0] for spot in spots)


def _spots(directory: Directory, frame: int) -> list[_Spot]:
    ids, offset, spots = directory.ids, 0, []
    at = directory.starts[frame] * ID_BYTES
    for length in directory.chunk_lengths(frame):
        spots.append((ids[at : at + ID_BYTES], offset, length))
        at += ID_BYTES
        offset += length
    return spots

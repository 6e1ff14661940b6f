"""The chunk writer: where bytes become chunks, and new chunks gather into frames.

Sources are read straight into the buffer of the frame being filled, cut and hashed in place:

    0            used          at                       end             capacity
    | new chunks | dropped ... | read, not yet cut ...  | room to read  |

A new chunk stays where it is (or moves down over dropped ones); one that the repository has is dropped.
So a byte is copied at most once between the source and the compressor, and never while another thread
could change it. Buffers belong to the pack writer, which takes them back once the frame is sealed.
"""

from collections.abc import Sequence

from blake3 import blake3

from repo_store.chunk_ids import chunk_ids
from repo_store.entry import ID_BYTES
from repo_store.errors import SourceError
from repo_store.index import Index
from repo_store.pack_writer import PackWriter

FRAME_BYTES = 1024 * 1024
"""A frame is closed once it holds this much: larger frames compress 1 % better and cost more per random read."""


class ChunkWriter:
    """Gives chunks their ids and hands the new ones on, a frame at a time. For one thread only."""

    def __init__(self, packs: PackWriter, index: Index, section: int, id_key: bytes) -> None:
        self._packs = packs
        self._section = section
        self._key = id_key
        self._has = index.has_chunk
        self._missing = index.missing
        self._mark_seen, self._mark_all_seen = index.mark_seen, index.mark_all_seen
        self._ids: list[bytes] = []
        self._lengths: list[int] = []
        self._buffer = packs.take_buffer()
        self.capacity = len(self._buffer)
        self.view = memoryview(self._buffer)
        self.used = 0
        self.new_chunks = 0
        self.new_bytes = 0

    def make_room(self, at: int, end: int, minimum: int) -> int:
        """Return the place of the uncut bytes view[at:end], moved if need be so that `minimum` bytes of room follow.

        Closes the frame when it is full. Raises SourceError if no buffer is large enough.
        """
        uncut = end - at
        if self.used < FRAME_BYTES and self.capacity - end >= minimum:
            return at
        if self.used >= FRAME_BYTES or self.capacity - self.used - uncut < minimum:
            return self._close_frame(at, end, minimum)
        self.view[self.used : self.used + uncut] = self.view[at:end]
        return self.used

    def settle(self, at: int, length: int) -> bytes:
        """Return the id of the chunk view[at:at+length]; keep its bytes if the repository has not got it."""
        piece = self.view[at : at + length]
        chunk_id = blake3(piece, key=self._key).digest()
        if not self._has(self._section, chunk_id):
            self._keep(chunk_id, piece, at, length)
        return chunk_id

    def settle_all(self, at: int, lengths: Sequence[int]) -> list[bytes]:
        """As `settle` for chunks of these lengths that follow each other from view[at] on; return their ids.

        A length of 0 is no chunk: its id is empty.
        """
        sizes = [length for length in lengths if length] if 0 in lengths else lengths
        joined = chunk_ids(self._key, self.view[at : at + sum(sizes)], sizes)
        ids = [joined[place : place + ID_BYTES] for place in range(0, len(joined), ID_BYTES)]
        missing = self._missing(self._section, ids)
        if len(missing) == len(ids) == len(set(ids)):
            self._keep_all(ids, sizes, at)
        elif missing:
            self._keep_missing(ids, sizes, at, set(missing))
        if sizes is lengths:
            return ids
        each = iter(ids)
        return [next(each) if length else b"" for length in lengths]

    def put(self, data: bytes) -> bytes:
        """Store `data` as one chunk and return its id."""
        length = len(data)
        if length > FRAME_BYTES:
            return self._put_large(data)
        at = self.make_room(self.used, self.used, length)
        self.view[at : at + length] = data
        return self.settle(at, length)

    def finish_frame(self, at: int | None = None, end: int | None = None) -> int:
        """Hand on what has gathered, however little; return the place of the uncut bytes view[at:end], if any."""
        at = self.used if at is None else at
        end = at if end is None else end
        return self._close_frame(at, end, 0) if self.used else at

    def _keep_all(self, ids: list[bytes], lengths: Sequence[int], at: int) -> None:
        """Keep chunks that lie one behind the other, all of them new and no two alike."""
        total, used = sum(lengths), self.used
        if at != used:
            self.view[used : used + total] = self.view[at : at + total]
        self.used = used + total
        self._ids += ids
        self._lengths += lengths
        self._mark_all_seen(self._section, ids)
        self.new_chunks += len(ids)
        self.new_bytes += total

    def _keep_missing(self, ids: list[bytes], lengths: Sequence[int], at: int, missing: set[bytes]) -> None:
        for chunk_id, length in zip(ids, lengths, strict=True):
            if chunk_id in missing:
                missing.discard(chunk_id)  # a second one like it is dropped
                self._keep(chunk_id, self.view[at : at + length], at, length)
            at += length

    def _keep(self, chunk_id: bytes, piece: memoryview, at: int, length: int) -> None:
        used = self.used
        if at != used:
            self.view[used : used + length] = piece
        self.used = used + length
        self._ids.append(chunk_id)
        self._lengths.append(length)
        self._mark_seen(self._section, chunk_id)
        self.new_chunks += 1
        self.new_bytes += length

    def _close_frame(self, at: int, end: int, minimum: int) -> int:
        uncut = end - at
        if self.used == 0 or self.capacity - uncut < minimum:
            raise SourceError(f"a chunk needs {minimum} bytes beside {uncut}; a frame has {self.capacity}")
        full_view = self.view
        self._buffer = self._packs.take_buffer()
        self.view = memoryview(self._buffer)
        self.view[:uncut] = full_view[at:end]
        self._packs.add_frame(full_view[: self.used], self._ids, self._lengths)
        self._ids, self._lengths = [], []
        self.used = 0
        return 0

    def _put_large(self, data: bytes) -> bytes:
        """Store a chunk that no frame buffer holds as a frame of its own."""
        chunk_id = blake3(data, key=self._key).digest()
        if not self._has(self._section, chunk_id):
            self._mark_seen(self._section, chunk_id)
            self._packs.add_frame(memoryview(data), [chunk_id], [len(data)])
            self.new_chunks += 1
            self.new_bytes += len(data)
        return chunk_id

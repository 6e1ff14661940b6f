"""Writing packs: frames in, stored packs and their rows out.

    producer ── add_frame ──> waiting ──> worker: compress, seal into the open pack, open again, recompute ids
                                             │ the open pack is full
    producer <── on_pack(rows) <── I/O thread: directory, hash, storage.put <──┘

Memory is fixed when the writer is made: a few frame buffers, and as many pack buffers as the bound admits. Frames are
sealed straight into the place in the pack buffer where they will be put from, so nothing is ever copied or joined.
A producer that is faster than the storage waits for a frame buffer; that is all the flow control there is.

Why the order is safe. A frame gets its ordinal and its place at one moment, under the lock, and the key of an open
pack belongs to that pack alone: no nonce is used twice. Rows come out only after `put` returned. The first error
in any thread stops everything: nothing is put after it, and the producer gets it from its next call.

Why frames go to one open pack in turn, and not at random to one of several: restic does that against
attacks that learn chunk lengths from a pack. Here chunk lengths are hidden by frames, and cuts by phte64; a second
open pack would cost 32 MiB and the neighbourhood that makes a restore read few packs.

Signals: the producer, which is the main thread, meets other threads only at SimpleQueues and a plain lock. A
KeyboardInterrupt out of any call leaves the writer usable: `flush` for a checkpoint, or `close`.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from queue import SimpleQueue
from threading import Condition, Lock, Thread
from types import TracebackType
from typing import NamedTuple

from blake3 import blake3

from repo_store.directory import Directory
from repo_store.frame import (
    PLAIN_BYTES_MAX,
    FrameCodec,
    FramePlace,
    Squeezed,
    seal_frame,
)
from repo_store.key_ring import KeyRing
from repo_store.open_pack import OpenPack, WaitingFrame, lazy_memory
from repo_store.pack import Pack, finish_pack, pack_name
from repo_store.pack_key import make_pack_key
from repo_store.sealed import TAG_BYTES, Kind
from repo_store.storage import Storage
from repo_store.worker_pool import WorkerPool

FRAME_BUFFER_BYTES = 1280 * 1024  # a frame is full at 1 MiB; the chunk that fills it may have 256 KiB
PACK_BYTES = 32 * 1024 * 1024
IN_FLIGHT_BYTES_MAX = 96_000_000
_SCRATCH_TO_A_WORKER = 3  # in frame buffers: compressed, decrypted and decompressed


class PackRows(NamedTuple):
    """A pack that was stored: its hash, its size in bytes, and the directory that lies in it."""

    hash: bytes
    size: int
    directory: Directory


class PackWriter:
    """Writes packs of one kind for one producer thread.

    `on_pack` is called with the rows of every pack once it is stored, on a thread of the writer: `SimpleQueue.put`
    is a good one. A metadata pack is stored, and told, twice. Any error, of any thread, is raised by the next
    call; after it nothing is stored any more. Frames added since the last `flush` are lost by `close`.
    """

    def __init__(
        self,
        storage: Storage,
        ring: KeyRing,
        kind: Kind,
        pool: WorkerPool,
        on_pack: Callable[[PackRows], None],
        *,
        pack_bytes: int = PACK_BYTES,
        buffer_bytes: int = FRAME_BUFFER_BYTES,
        in_flight_bytes_max: int = IN_FLIGHT_BYTES_MAX,
    ) -> None:
        assert pack_bytes >= 2 * buffer_bytes
        self._frame_bytes_max = min(PLAIN_BYTES_MAX, pack_bytes - TAG_BYTES)
        self._storage, self._ring, self._kind, self._pool, self._on_pack = storage, ring, kind, pool, on_pack
        metadata = kind == Kind.METADATA_DIRECTORY
        self._id_key = ring.metadata_chunk_id_key if metadata else ring.data_chunk_id_key
        self._copies = 2 if metadata else 1
        buffers = 2 * pool.threads + 2
        working_bytes = (buffers + _SCRATCH_TO_A_WORKER * pool.threads) * buffer_bytes
        packs = max(2, (in_flight_bytes_max - working_bytes) // pack_bytes)

        self.in_flight_bytes_max = working_bytes + packs * pack_bytes
        self.buffer_bytes = buffer_bytes
        self._pooled = {id(buffer): buffer for buffer in (bytearray(buffer_bytes) for _ in range(buffers))}
        self._free: SimpleQueue[bytearray | None] = SimpleQueue()
        for buffer in self._pooled.values():
            self._free.put(buffer)
        self._waiting: deque[WaitingFrame] = deque()

        self._lock = Lock()
        self._room = Condition(self._lock)  # a pack buffer came back; waited for by workers only
        self._error: BaseException | None = None
        self._sealing = 0
        self._open: OpenPack | None = None
        self._pack_buffers = [lazy_memory(pack_bytes) for _ in range(packs)]
        self._packs = packs
        self._drained: SimpleQueue[None] | None = None  # someone flushes, and waits here

        self._full: SimpleQueue[OpenPack | None] = SimpleQueue()
        self._threads = [
            Thread(target=self._store_packs, name=f"put-{number}", daemon=True) for number in range(packs - 1)
        ]
        for thread in self._threads:
            thread.start()

    def take_buffer(self) -> bytearray:
        """Return a buffer of `buffer_bytes` to fill; it comes back by itself once its frame is sealed.

        Waits while all are in use. One that is not needed goes back by `give_back`.
        """
        self._raise_error()
        buffer = self._free.get()
        if buffer is None:
            self._raise_error()
        assert buffer is not None, "None only wakes the producer for an error"
        return buffer

    def give_back(self, buffer: bytearray) -> None:
        """Return a buffer from `take_buffer` that no frame was made of."""
        assert id(buffer) in self._pooled
        self._free.put(buffer)

    def add_frame(self, plain: bytearray | memoryview, ids: list[bytes], lengths: Sequence[int]) -> None:
        """Add a frame of chunks with these ids and lengths, which together are `plain`: 1 byte to 8 MiB.

        `plain` is a buffer from `take_buffer`, or a part of one from its start, or memory of the caller's: it must not
        change until it is sealed. Memory of the caller's counts against the bound and may have to wait.
        """
        self._raise_error()
        assert ids and len(ids) == len(lengths) and sum(lengths) == len(plain), "chunks must fill their frame"
        assert len(plain) <= self._frame_bytes_max, "a frame has 1 byte to 8 MiB"
        view = memoryview(plain)
        owner = view.obj
        if isinstance(owner, bytearray) and id(owner) in self._pooled:
            buffers = [owner]
        else:
            wanted = min(-(-len(view) // self.buffer_bytes), len(self._pooled) // 2)
            buffers = [self.take_buffer() for _ in range(wanted)]
        # The deque is the truth about what is to be done; a job is only a nudge. Should a signal come between
        # the two, `flush` nudges again.
        self._waiting.append(WaitingFrame(view, ids, lengths, buffers))
        self._pool.submit(self._seal_next)

    def flush(self) -> None:
        """Store all that was added, and return once every put has returned and all rows are out."""
        self._raise_error()
        drained: SimpleQueue[None] = SimpleQueue()
        with self._lock:
            self._drained = drained
            self._advance()
        for _ in repeat(None, len(self._waiting)):
            self._pool.submit(self._seal_next)
        if self._error is None:
            drained.get()
        self._raise_error()

    def close(self) -> None:
        """End the threads and wait for them; what was not flushed is dropped. Raises nothing of its own."""
        self._fail(RuntimeError("the pack writer is closed"))
        for _ in self._threads:
            self._full.put(None)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> "PackWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _fail(self, error: BaseException) -> None:
        with self._room:
            if self._error is None:
                self._error = error
            self._waiting.clear()
            self._room.notify_all()
            if self._drained is not None:
                self._drained.put(None)
        self._free.put(None)

    # On the workers

    def _seal_next(self, codec: FrameCodec) -> None:
        with self._lock:
            if self._error is not None or not self._waiting:
                return
            frame = self._waiting.popleft()
            self._sealing += 1
        try:
            self._seal(codec, frame)
        except BaseException as error:
            self._fail(error)

    def _seal(self, codec: FrameCodec, frame: WaitingFrame) -> None:
        squeezed = codec.squeeze(frame.plain)
        reserved = self._reserve(squeezed, frame)
        if reserved is None:
            return
        pack, place = reserved
        target = pack.buffer[place.offset : place.offset + place.sealed_length]
        seal_frame(pack.key, place.name.ordinal, squeezed, target)
        codec.prove(pack.key, place, target, self._id_key, frame.ids, frame.lengths)
        frame.plain.release()
        for buffer in frame.buffers:
            self._free.put(buffer)
        with self._lock:
            pack.pending -= 1
            self._sealing -= 1
            if pack is not self._open and not pack.pending:
                self._full.put(pack)
            self._advance()

    def _reserve(self, squeezed: Squeezed, frame: WaitingFrame) -> tuple[OpenPack, FramePlace] | None:
        """Return the pack and place for a frame, waiting for a pack buffer if need be; None once there is an error."""
        with self._room:
            while self._error is None:
                pack = self._open
                if pack is not None and pack.has_room(squeezed.sealed_length, len(frame.ids)):
                    return pack, pack.reserve(squeezed, frame)
                if pack is not None:
                    self._finish_open()
                elif self._pack_buffers:
                    key = make_pack_key(self._ring, self._kind)
                    self._open = OpenPack(key, self._pack_buffers.pop())
                else:
                    self._room.wait()
        return None

    def _finish_open(self) -> None:
        """Close the open pack to new frames; whoever seals its last one sends it on. Under the lock."""
        pack, self._open = self._open, None
        if pack is not None and not pack.pending:
            self._full.put(pack)

    def _advance(self) -> None:
        """Bring a flush forward as far as it goes: finish the last pack, tell when all is stored. Under the lock."""
        if self._drained is None or self._waiting or self._sealing:
            return
        self._finish_open()
        if len(self._pack_buffers) == self._packs:
            self._drained.put(None)
            self._drained = None

    # On the I/O threads

    def _store_packs(self) -> None:
        while (pack := self._full.get()) is not None:
            try:
                self._store(pack)
            except BaseException as error:
                self._fail(error)
            with self._room:
                self._pack_buffers.append(pack.buffer)
                self._room.notify_all()
                self._advance()

    def _store(self, pack: OpenPack) -> None:
        frames = pack.buffer[: pack.used]
        hasher = blake3(frames)
        for _ in range(self._copies):
            stored = self._finish(pack, frames, hasher)
            self._raise_error()
            self._storage.put(pack_name(stored.hash), stored.buffers)
            self._on_pack(PackRows(stored.hash, stored.size, stored.directory))

    def _finish(self, pack: OpenPack, frames: memoryview, hasher: blake3) -> Pack:
        key = pack.key.sealed_key
        return finish_pack(self._ring, self._kind, [key], pack.places, pack.chunks, [frames], hasher=hasher)

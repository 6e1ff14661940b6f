"""The pack writer: everything added is stored and told, or the producer hears why not.

Packs and buffers are small here (64 KiB and 4 KiB), so that packs fill, bounds are met and threads wait within
milliseconds; nothing else differs from real use.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from support.packs import DATA, METADATA, id_key
from support.rings import make_ring
from support.simulated_storage import SimulatedDisk, SimulatedStorage

from repo_store.errors import HoldfastError, Refused, StorageError
from repo_store.frame import FrameCodec, Squeezed
from repo_store.key_ring import KeyRing
from repo_store.open_pack import CHUNKS_TO_A_PACK
from repo_store.pack import pack_name
from repo_store.pack_reader import PackReader, read_directory
from repo_store.pack_writer import IN_FLIGHT_BYTES_MAX, PackRows, PackWriter
from repo_store.sealed import Kind
from repo_store.storage import Buffer
from repo_store.worker_pool import WorkerPool

RING = make_ring()
SMALL = {"pack_bytes": 64 << 10, "buffer_bytes": 4 << 10, "in_flight_bytes_max": 0}
WAIT_SECONDS = 20


class Gate(SimulatedStorage):
    """A storage whose puts wait until `open` is set, and may be told to fail."""

    def __init__(self) -> None:
        super().__init__(SimulatedDisk())
        self.opened = threading.Event()
        self.entered = SimpleQueue[str]()
        self.error: BaseException | None = None
        self.puts: list[str] = []

    def put(self, name: str, data: Buffer | Sequence[Buffer]) -> None:
        self.entered.put(name)
        assert self.opened.wait(WAIT_SECONDS)
        if self.error is not None:
            raise self.error
        self.puts.append(name)
        super().put(name, data)


def gate(*, opened: bool = True) -> Gate:
    storage = Gate()
    if opened:
        storage.opened.set()
    return storage


@contextmanager
def writing(
    storage: SimulatedStorage,
    told: Callable[[PackRows], Any],
    *,
    ring: KeyRing = RING,
    kind: Kind = DATA,
    **limits: int,
) -> Iterator[PackWriter]:
    before = threading.active_count()
    with WorkerPool(2) as pool, PackWriter(storage, ring, kind, pool, told, **(SMALL | limits)) as writer:
        yield writer
    assert threading.active_count() == before, "close ends every thread"


def add(writer: PackWriter, chunks: Sequence[bytes], *, ring: KeyRing = RING, kind: Kind = DATA) -> None:
    """Add a frame as the engine does: in a buffer of the writer's."""
    plain = b"".join(chunks)
    buffer = writer.take_buffer()
    buffer[: len(plain)] = plain
    ids = [blake3(chunk, key=id_key(ring, kind)).digest() for chunk in chunks]
    writer.add_frame(memoryview(buffer)[: len(plain)], ids, [len(chunk) for chunk in chunks])


def some_frames(seed: int, count: int) -> list[list[bytes]]:
    """Return frames of chunks of which some compress well, some not at all."""
    source = random.Random(seed)
    frames = []
    for _ in range(count):
        sizes = [source.randint(1, 1000) for _ in range(source.randint(1, 4))]
        frames.append(
            [
                source.choice((source.randbytes(size), b"%d," % size * (size // 4 + 1)))[:1000]
                for size in sizes
            ]
        )
    return frames


def read_all(
    storage: SimulatedStorage, told: Sequence[PackRows], *, ring: KeyRing = RING
) -> list[list[bytes]]:
    """Return the chunks of every frame that was told, read back; ids are compared on the way."""
    reader = PackReader(storage, ring)
    frames = []
    for rows in told:
        places = rows.directory.frames
        for index, (_, plain) in enumerate(reader.read_frames(rows.hash, rows.size, places)):
            chunks = []
            for chunk_id, offset, length in rows.directory.chunks(index):
                chunks.append(plain[offset : offset + length])
                assert blake3(chunks[-1], key=id_key(ring, rows.directory.kind)).digest() == chunk_id
            frames.append(chunks)
    return frames


@pytest.mark.parametrize("kind", [DATA, METADATA])
@pytest.mark.parametrize("count", [1, 3, 200])
def test_everything_added_is_stored_and_told(kind: Kind, count: int) -> None:
    storage, told = gate(), list[PackRows]()
    frames = some_frames(count, count)
    with writing(storage, told.append, kind=kind) as writer:
        for chunks in frames:
            add(writer, chunks, kind=kind)
        writer.flush()
        back = read_all(storage, told)
        copies = 2 if kind == METADATA else 1
        assert sorted(back) == sorted(frames * copies)
    assert sorted(storage.puts) == sorted(pack_name(rows.hash) for rows in told)
    for rows in told:
        assert storage.info(pack_name(rows.hash)).size == rows.size
        assert read_directory(storage, RING, rows.hash, rows.size) == rows.directory


def test_metadata_packs_are_stored_twice_under_different_names() -> None:
    told = list[PackRows]()
    storage = gate()
    with writing(storage, told.append, kind=METADATA) as writer:
        add(writer, [b"node"], kind=METADATA)
        writer.flush()
    first, second = told
    assert first.hash != second.hash and len(storage.puts) == 2
    assert first.directory.frames == second.directory.frames, "the same frames, so either pack will do"
    storage.delete(pack_name(first.hash))
    assert read_all(storage, [second]) == [[b"node"]]


def test_packs_fill_up_and_never_pass_their_size() -> None:
    told = list[PackRows]()
    with writing(gate(), told.append) as writer:
        for _ in range(100):
            add(writer, [os.urandom(4000)])
        writer.flush()
    sizes = [sum(place.sealed_length for place in rows.directory.frames) for rows in told]
    assert len(told) == 7 and max(sizes) <= 64 << 10
    assert sorted(sizes)[1] > (64 << 10) - 4016, "a pack is closed only when the next frame does not fit"


def test_a_pack_has_a_bounded_number_of_chunks() -> None:
    told = list[PackRows]()
    chunks = [b"%03d" % number for number in range(1000)]
    ids = [blake3(chunk, key=RING.data_chunk_id_key).digest() for chunk in chunks]
    with writing(gate(), told.append, pack_bytes=1 << 20) as writer:
        for _ in range(70):
            writer.add_frame(bytearray(b"".join(chunks)), ids, [3] * 1000)
        writer.flush()
    assert [len(rows.directory.lengths) for rows in told] == [65_000, 5_000]
    assert CHUNKS_TO_A_PACK == 65_536


def test_rows_come_out_only_after_put_returned() -> None:
    storage, told = gate(opened=False), SimpleQueue[PackRows]()
    with writing(storage, told.put) as writer:
        add(writer, [b"one"])
        flushing = threading.Thread(target=writer.flush)
        flushing.start()
        storage.entered.get(timeout=WAIT_SECONDS)
        time.sleep(0.05)
        assert told.empty() and flushing.is_alive()
        storage.opened.set()
        flushing.join(WAIT_SECONDS)
        assert told.get(timeout=0).hash


def test_flush_may_be_called_with_nothing_and_again() -> None:
    storage, told = gate(), list[PackRows]()
    with writing(storage, told.append) as writer:
        writer.flush()
        assert not storage.puts
        for number in range(3):
            add(writer, [b"%d" % number])
            writer.flush()
            writer.flush()
            assert len(told) == number + 1


def test_unflushed_frames_are_dropped_by_close() -> None:
    storage, told = gate(), list[PackRows]()
    with writing(storage, told.append) as writer:
        add(writer, [b"one"])
    assert not storage.puts and not told
    with pytest.raises(RuntimeError, match="closed"):
        writer.take_buffer()


def test_a_pool_serves_two_writers_at_once() -> None:
    storage, told = gate(), SimpleQueue[PackRows]()
    with (
        WorkerPool(2) as pool,
        PackWriter(storage, RING, DATA, pool, told.put, **SMALL) as data,
        PackWriter(storage, RING, METADATA, pool, told.put, **SMALL) as metadata,
    ):
        for chunks in some_frames(1, 100):
            add(data, chunks)
            add(metadata, chunks, kind=METADATA)
        data.flush()
        metadata.flush()
    rows = [told.get_nowait() for _ in range(told.qsize())]
    assert {pack.directory.kind for pack in rows} == {DATA, METADATA}
    assert len(read_all(storage, rows)) == 300


def test_memory_of_the_callers_is_taken_too_even_larger_than_a_buffer() -> None:
    told, storage = list[PackRows](), gate()
    big = os.urandom(30_000)
    with writing(storage, told.append) as writer:
        writer.add_frame(bytearray(big), [blake3(big, key=RING.data_chunk_id_key).digest()], [30_000])
        add(writer, [b"small"])
        writer.flush()
    assert sorted(read_all(storage, told)) == sorted([[big], [b"small"]])


@pytest.mark.parametrize(
    ("ids", "lengths"), [([], []), ([b"i" * 32], [4]), ([b"i" * 32] * 2, [5]), ([b"i" * 32] * 2, [2, 2])]
)
def test_chunks_that_do_not_fill_their_frame_are_a_bug_in_the_caller(
    ids: list[bytes], lengths: list[int]
) -> None:
    with writing(gate(), print) as writer, pytest.raises(AssertionError, match="fill"):
        writer.add_frame(bytearray(b"plain"), ids, lengths)


def test_buffers_come_back_and_are_used_again() -> None:
    with writing(gate(), lambda rows: None) as writer:
        seen = set()
        for _ in range(100):
            buffer = writer.take_buffer()
            assert type(buffer) is bytearray and len(buffer) == writer.buffer_bytes == 4 << 10
            seen.add(id(buffer))
            buffer[:4] = b"text"
            writer.add_frame(
                memoryview(buffer)[:4], [blake3(b"text", key=RING.data_chunk_id_key).digest()], [4]
            )
        assert len(seen) == 6
        taken = [writer.take_buffer() for _ in range(6)]
        for buffer in taken:
            writer.give_back(buffer)
        assert writer.take_buffer() in taken
        writer.flush()


# Bounds


def test_bytes_in_flight_are_bounded_while_storage_hangs() -> None:
    storage, told = gate(opened=False), list[PackRows]()
    accepted = 0
    with writing(storage, told.append) as writer:
        done = threading.Event()

        def produce() -> None:
            nonlocal accepted
            for _ in range(300):
                add(writer, [os.urandom(4000)])
                accepted += 1
            writer.flush()
            done.set()

        producer = threading.Thread(target=produce, daemon=True)
        producer.start()
        _until_still(lambda: accepted)
        assert not done.is_set()
        # Two packs, and the frames in the six buffers, one of which the producer waits for.
        assert 16 <= accepted <= 2 * 16 + 6
        assert accepted * 4000 <= writer.in_flight_bytes_max
        storage.opened.set()
        assert done.wait(WAIT_SECONDS)
    assert sum(len(rows.directory.frames) for rows in told) == 300


def _until_still(value: Callable[[], int]) -> None:
    last, since = value(), time.monotonic()
    while time.monotonic() - since < 0.3:
        time.sleep(0.02)
        if value() != last:
            last, since = value(), time.monotonic()


def test_the_bound_of_real_use_is_96_megabytes() -> None:
    assert IN_FLIGHT_BYTES_MAX == 96_000_000
    with WorkerPool(2) as pool:
        for pack_mib, packs in ((32, 2), (24, 3), (16, 4)):
            with PackWriter(gate(), RING, DATA, pool, print, pack_bytes=pack_mib << 20) as writer:
                assert (packs * pack_mib) << 20 < writer.in_flight_bytes_max <= IN_FLIGHT_BYTES_MAX


# Nonces and names


def test_no_nonce_is_used_twice_under_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[bytes, bytes]] = []

    class Watching:
        def __init__(self, key: bytes) -> None:
            self._key, self._cipher = key, AESGCM(key)

        def encrypt_into(self, nonce: bytes, *rest: Any) -> int:
            used.append((self._key, nonce))
            return self._cipher.encrypt_into(nonce, *rest)

        def decrypt_into(self, *rest: Any) -> int:
            return self._cipher.decrypt_into(*rest)

    monkeypatch.setattr("repo_store.pack_key.AESGCM", Watching)
    told = list[PackRows]()
    with writing(gate(), told.append) as writer:
        for chunks in some_frames(2, 400):
            add(writer, chunks)
        writer.flush()
        for chunks in some_frames(3, 50):
            add(writer, chunks)
        writer.flush()
    assert len(used) == len(set(used)) == 450
    assert len({key for key, _ in used}) == len(told) >= 3
    origins = [rows.directory.keys[0].origin for rows in told]
    assert len(set(origins)) == len(origins)


def test_the_same_input_never_gives_the_same_pack() -> None:
    names = set()
    for _ in range(5):
        storage = gate()
        with writing(storage, lambda rows: None, kind=METADATA) as writer:
            add(writer, [b"same"], kind=METADATA)
            writer.flush()
        names |= set(storage.puts)
    assert len(names) == 10


def test_a_writer_stores_contents_that_it_cannot_read() -> None:
    ring = make_ring(readable=False)
    told, storage = list[PackRows](), gate()
    with writing(storage, told.append, ring=ring) as writer:
        add(writer, [b"contents"], ring=ring)
        writer.flush()
    with pytest.raises(Refused, match="cannot read contents"):
        read_all(storage, told, ring=ring)


# Failures


def _compressor_that(changes: Callable[[Squeezed], Squeezed]) -> Callable[..., Squeezed]:
    good = FrameCodec.squeeze

    def squeeze(self: FrameCodec, plain: Buffer, **options: Any) -> Squeezed:
        return changes(good(self, plain, **options))

    return squeeze


def _flipped(squeezed: Squeezed) -> Squeezed:
    data = bytearray(squeezed.data)
    data[len(data) // 2] ^= 1
    return squeezed._replace(data=bytes(data))


@pytest.mark.parametrize("plain", [b"compressible " * 200, os.urandom(2000)])
def test_a_bit_flipped_while_compressing_is_caught_before_it_is_stored(
    plain: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FrameCodec, "squeeze", _compressor_that(_flipped))
    storage, told = gate(), list[PackRows]()
    with writing(storage, told.append) as writer:
        add(writer, [plain])
        for call in (writer.flush, writer.take_buffer, writer.flush):
            with pytest.raises(
                HoldfastError, match=r"does not read back as sealed.*failing memory, or a bug"
            ):
                call()
    assert not storage.puts and not told


def test_a_bit_flipped_in_a_sealed_frame_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from repo_store import pack_writer

    good = pack_writer.seal_frame

    def seal(key: Any, ordinal: int, squeezed: Squeezed, target: memoryview) -> None:
        good(key, ordinal, squeezed, target)
        target[0] ^= 128

    monkeypatch.setattr(pack_writer, "seal_frame", seal)
    with writing(gate(), print) as writer:
        add(writer, [b"text"])
        with pytest.raises(HoldfastError, match="fails authentication: failing memory"):
            writer.flush()


def test_a_buffer_changed_behind_the_hash_is_caught() -> None:
    storage = gate()
    with writing(storage, print) as writer:
        writer.add_frame(bytearray(b"texT"), [blake3(b"text", key=RING.data_chunk_id_key).digest()], [4])
        with pytest.raises(HoldfastError, match="other ids than the chunks that went in"):
            writer.flush()
    assert not storage.puts


@pytest.mark.parametrize("error", [StorageError("disk full"), OSError("strange"), KeyboardInterrupt()])
def test_an_error_in_put_reaches_the_producer_and_nothing_later_is_put(error: BaseException) -> None:
    storage, told = gate(opened=False), list[PackRows]()
    storage.error = error
    with writing(storage, told.append) as writer:
        raised: list[BaseException] = []

        def produce() -> None:
            try:
                while True:
                    add(writer, [os.urandom(4000)])
            except BaseException as caught:
                raised.append(caught)

        producer = threading.Thread(target=produce, daemon=True)
        producer.start()
        storage.entered.get(timeout=WAIT_SECONDS)
        time.sleep(0.1)  # the producer now waits for a buffer that will never come
        storage.opened.set()
        producer.join(WAIT_SECONDS)
        assert raised == [error]
        with pytest.raises(type(error)):
            writer.flush()
        storage.error = None
        with pytest.raises(type(error)):
            writer.add_frame(bytearray(b"x"), [bytes(32)], [1])
        time.sleep(0.1)
    assert storage.entered.empty(), "one put was tried, no other was begun"
    assert not storage.puts and not told


def test_an_error_while_flush_waits_ends_it() -> None:
    storage = gate(opened=False)
    storage.error = StorageError("gone")
    with writing(storage, print) as writer:
        add(writer, [b"x"])
        threading.Timer(0.1, storage.opened.set).start()
        with pytest.raises(StorageError, match="gone"):
            writer.flush()


def test_a_failed_second_copy_fails_the_run() -> None:
    storage, told = SimulatedStorage(SimulatedDisk()), list[PackRows]()
    storage.faults.fail = lambda operation: operation.kind == "put" and operation.number == 2
    with writing(storage, told.append, kind=METADATA) as writer:
        add(writer, [b"node"], kind=METADATA)
        with pytest.raises(StorageError):
            writer.flush()
    assert len(told) == 1


def test_an_error_in_the_callback_reaches_the_producer() -> None:
    def fail(rows: PackRows) -> None:
        raise ValueError("callback")

    with writing(gate(), fail) as writer:
        add(writer, [b"x"])
        with pytest.raises(ValueError, match="callback"):
            writer.flush()


def test_close_ends_threads_that_wait_for_storage_room() -> None:
    storage = gate(opened=False)
    with WorkerPool(2) as pool:
        writer = PackWriter(storage, RING, DATA, pool, print, **SMALL)
        stop = threading.Event()

        def produce() -> None:
            try:
                while True:
                    add(writer, [os.urandom(4000)])
            except RuntimeError:
                stop.set()

        threading.Thread(target=produce, daemon=True).start()
        storage.entered.get(timeout=WAIT_SECONDS)
        time.sleep(0.1)
        threading.Timer(0.1, storage.opened.set).start()
        writer.close()
        assert stop.wait(WAIT_SECONDS)
    assert len(storage.puts) <= 1


def test_a_failed_writer_leaves_the_pool_to_others_while_its_storage_hangs() -> None:
    hanging, storage, told = gate(opened=False), gate(), list[PackRows]()
    with WorkerPool(2) as pool:
        failed = PackWriter(hanging, RING, DATA, pool, print, **SMALL)
        for _ in range(36):  # two packs are full, and both workers wait for room
            add(failed, [os.urandom(4000)])
        time.sleep(0.3)
        closing = threading.Thread(target=failed.close)
        closing.start()
        with PackWriter(storage, RING, DATA, pool, told.append, **SMALL) as other:
            add(other, [b"text"])
            flushing = threading.Thread(target=other.flush, daemon=True)
            flushing.start()
            flushing.join(5)
            assert not flushing.is_alive() and len(told) == 1
            assert closing.is_alive(), "its put still hangs"
            hanging.opened.set()
            closing.join(WAIT_SECONDS)


def test_a_pack_is_stored_only_when_its_slowest_frame_is_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    from repo_store import pack_writer

    good = pack_writer.seal_frame  # type: ignore[attr-defined]

    def slow(key: Any, ordinal: int, squeezed: Squeezed, target: memoryview) -> None:
        time.sleep({14: 0.15, 15: 0.3}.get(ordinal, 0))  # the last two of a full pack
        good(key, ordinal, squeezed, target)

    monkeypatch.setattr(pack_writer, "seal_frame", slow)
    storage, told = gate(), list[PackRows]()
    frames = [[os.urandom(4000)] for _ in range(20)]
    with WorkerPool(3) as pool, PackWriter(storage, RING, DATA, pool, told.append, **SMALL) as writer:
        for chunks in frames:
            add(writer, chunks)
        writer.flush()
    assert len(storage.puts) == 2
    assert sorted(read_all(storage, told)) == sorted(frames)


def test_a_frame_whose_job_an_interrupt_swallowed_is_stored_by_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, told = gate(), list[PackRows]()
    good = WorkerPool.submit

    def interrupted(*_: object) -> None:
        monkeypatch.setattr(WorkerPool, "submit", good)
        raise KeyboardInterrupt

    with writing(storage, told.append) as writer:
        monkeypatch.setattr(WorkerPool, "submit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            add(writer, [b"text"])
        writer.flush()
        assert read_all(storage, told) == [[b"text"]]


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """A shell starts background jobs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("seed", range(3))
def test_an_interrupt_out_of_any_call_leaves_a_writer_that_can_flush(seed: int) -> None:
    """SIGINT at random moments: what was stored is whole, a flush still works, close still ends all threads."""
    storage, told = gate(), list[PackRows]()
    source = random.Random(seed)
    frames = some_frames(seed, 60)
    with writing(storage, told.append) as writer:
        writer.take_buffer()  # an interrupted take may lose a buffer: one is lost already
        for _ in range(2):
            timer = threading.Timer(source.uniform(0.0, 0.02), _interrupt_main)
            try:
                timer.start()
                while True:
                    add(writer, source.choice(frames))
                    if source.random() < 0.1:
                        writer.flush()
            except KeyboardInterrupt:
                timer.join()
        add(writer, [b"checkpoint"])
        writer.flush()
        back = read_all(storage, told)
    assert [b"checkpoint"] in back
    assert all(chunks in frames or chunks == [b"checkpoint"] for chunks in back)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("blocked_in", ["take_buffer", "flush"])
def test_an_interrupt_ends_a_wait_for_a_storage_that_hangs(blocked_in: str) -> None:
    storage, told = gate(opened=False), list[PackRows]()
    added = 0
    with writing(storage, told.append) as writer:
        timer = threading.Timer(0.2, _interrupt_main)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            while blocked_in == "take_buffer" or added < 3:
                add(writer, [os.urandom(4000)])
                added += 1
            writer.flush()
        timer.join()
        storage.opened.set()
        writer.flush()
        assert sum(len(rows.directory.frames) for rows in told) == added


def _interrupt_main() -> None:
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)

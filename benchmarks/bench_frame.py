"""What a frame costs: compress, seal, open again, and the whole pack writer, beside the limits of the machine.

    pytest benchmarks/bench_frame.py --benchmark-enable -s

The limits, measured in the same run: memcpy, BLAKE3 of 64 KiB chunks, and bare zstd -3 on one and on two threads. The
figures that mean something on a shared machine are the ratios, printed at the end from the best round of each.
The bounds to keep: the pack writer on two workers at least 0.75 of two threads of bare zstd for text, at least 1 GB/s for
random bytes. Nothing here fails on a time.

Text is the source of Python's own library; the storage of the pack writer forgets what it gets.
"""

import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3
from pytest_benchmark.fixture import BenchmarkFixture

from repo_store.frame import FrameCodec, FrameName, FramePlace, seal_frame
from repo_store.pack_key import make_pack_key
from repo_store.pack_writer import PackRows, PackWriter
from repo_store.sealed import Kind
from repo_store.storage import Buffer
from repo_store.worker_pool import WorkerPool

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.rings import make_ring
from support.simulated_storage import SimulatedDisk, SimulatedStorage

FRAME_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024
FRAMES = 48
ROUNDS = 7
RING = make_ring()
CHUNK_LENGTHS = [CHUNK_BYTES] * (FRAME_BYTES // CHUNK_BYTES)
KINDS = ("text", "random", "zero")

_speeds: dict[tuple[str, str], float] = {}


def _text() -> bytes:
    gathered = bytearray()
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        gathered += path.read_bytes()
        if len(gathered) >= FRAMES * FRAME_BYTES:
            break
    return (bytes(gathered) * (FRAMES * FRAME_BYTES // len(gathered) + 1))[: FRAMES * FRAME_BYTES]


@pytest.fixture(scope="module", params=KINDS)
def frames(request: pytest.FixtureRequest) -> tuple[str, list[memoryview]]:
    """Return the name of a kind of data and `FRAMES` frames of it."""
    made = {
        "text": _text,
        "random": lambda: os.urandom(FRAMES * FRAME_BYTES),
        "zero": lambda: bytes(FRAMES * FRAME_BYTES),
    }
    data = memoryview(made[request.param]())
    return request.param, [data[at : at + FRAME_BYTES] for at in range(0, len(data), FRAME_BYTES)]


@pytest.fixture(scope="module", autouse=True)
def _print_ratios() -> Iterator[None]:
    yield
    for kind in KINDS:
        bare = _speeds.get((kind, "zstd -3, two threads"))
        for (of, stage), speed in _speeds.items():
            if of == kind:
                beside = "" if bare is None else f"{speed / bare:>8.2f} of zstd -3 on two threads"
                print(f"\n{kind:<8}{stage:<34}{speed * 1000:>8.0f} MB/s{beside}", end="")
        print()


def measure(benchmark: BenchmarkFixture, kind: str, stage: str, work: Callable[[], object]) -> None:
    benchmark.pedantic(work, rounds=ROUNDS, iterations=1, warmup_rounds=1)
    if benchmark.stats is not None:
        _speeds[kind, stage] = FRAMES * FRAME_BYTES / float(benchmark.stats.stats.min) / 1e9
        benchmark.extra_info["GB/s"] = round(_speeds[kind, stage], 3)


Frames = tuple[str, list[memoryview]]


def chunk_ids(frame: memoryview) -> list[bytes]:
    key = RING.data_chunk_id_key
    return [
        blake3(frame[at : at + CHUNK_BYTES], key=key).digest() for at in range(0, FRAME_BYTES, CHUNK_BYTES)
    ]


def test_memcpy(benchmark: BenchmarkFixture, frames: Frames) -> None:
    kind, views = frames
    target = memoryview(bytearray(FRAMES * FRAME_BYTES))

    def copy() -> None:
        for number, view in enumerate(views):
            target[number * FRAME_BYTES : (number + 1) * FRAME_BYTES] = view

    measure(benchmark, kind, "memcpy", copy)


def test_blake3(benchmark: BenchmarkFixture, frames: Frames) -> None:
    kind, views = frames
    measure(benchmark, kind, "BLAKE3, 64 KiB chunks", lambda: [chunk_ids(view) for view in views])


def bare_zstd(views: Sequence[memoryview], threads: int) -> Callable[[], object]:
    """Return work that compresses `views` on `threads` threads and does nothing else."""

    def compress(number: int) -> None:
        compressor = zstandard.ZstdCompressor(level=3)
        for view in views[number::threads]:
            compressor.compress(view)

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(compress, range(threads)))

    return run


def test_zstd_alone(benchmark: BenchmarkFixture, frames: Frames) -> None:
    measure(benchmark, frames[0], "zstd -3, one thread", bare_zstd(frames[1], 1))


def test_zstd_on_two_threads(benchmark: BenchmarkFixture, frames: Frames) -> None:
    measure(benchmark, frames[0], "zstd -3, two threads", bare_zstd(frames[1], 2))


def test_squeeze(benchmark: BenchmarkFixture, frames: Frames) -> None:
    codec = FrameCodec()
    measure(benchmark, frames[0], "compress", lambda: [codec.squeeze(view) for view in frames[1]])


def test_seal(benchmark: BenchmarkFixture, frames: Frames) -> None:
    key, codec = make_pack_key(RING, Kind.DATA_DIRECTORY), FrameCodec()
    squeezed = [codec.squeeze(view) for view in frames[1]]
    target = memoryview(bytearray(2 * FRAME_BYTES))

    def seal() -> None:
        for number, one in enumerate(squeezed):
            seal_frame(key, number, one, target[: one.sealed_length])

    measure(benchmark, frames[0], "seal", seal)


def test_open_again(benchmark: BenchmarkFixture, frames: Frames) -> None:
    key, codec = make_pack_key(RING, Kind.DATA_DIRECTORY), FrameCodec()
    sealed: list[tuple[FramePlace, bytearray, list[bytes]]] = []
    for number, view in enumerate(frames[1]):
        squeezed = codec.squeeze(view)
        target = bytearray(squeezed.sealed_length)
        seal_frame(key, number, squeezed, memoryview(target))
        name = FrameName(key.sealed_key.origin, number)
        place = FramePlace(name, 0, len(target), FRAME_BYTES, squeezed.codec)
        sealed.append((place, target, chunk_ids(view)))

    def prove() -> None:
        for place, target, ids in sealed:
            codec.prove(key, place, target, RING.data_chunk_id_key, ids, CHUNK_LENGTHS)

    measure(benchmark, frames[0], "open again and hash", prove)


class Forgetful(SimulatedStorage):
    """A storage without cost."""

    def put(self, name: str, data: Buffer | Sequence[Buffer]) -> None:
        """Forget `data`."""


def test_pack_writer_on_two_workers(benchmark: BenchmarkFixture, frames: Frames) -> None:
    kind, views = frames
    ids = [chunk_ids(view) for view in views]
    told: list[PackRows] = []
    with (
        WorkerPool(2) as pool,
        PackWriter(Forgetful(SimulatedDisk()), RING, Kind.DATA_DIRECTORY, pool, told.append) as writer,
    ):

        def write() -> None:
            for view, chunk in zip(views, ids, strict=True):
                writer.add_frame(view, chunk, CHUNK_LENGTHS)
            writer.flush()

        measure(benchmark, kind, "pack writer, two workers", write)

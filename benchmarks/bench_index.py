"""The index: probes, table build and refresh; with a number of rows as argument, memory and time at that size.

    pytest benchmarks/bench_index.py --benchmark-enable
    python benchmarks/bench_index.py 15000000

Rows are random, as ids are; a frame has 16 chunks, a pack 32 frames, and a table 512 packs.
"""

import os
import random
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from repo_store.directory import Directory
from repo_store.frame import FrameName, FramePlace
from repo_store.index import Index
from repo_store.key_ring import KeyRing
from repo_store.local_storage import LocalStorage
from repo_store.row_batch import RowBatch
from repo_store.rows import Section
from repo_store.sealed import Kind
from repo_store.storage import Storage
from repo_store.table import build_table, table_name

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.rings import make_ring

CHUNKS, FRAMES, PACKS = 16, 32, 512
PACK_ROWS = CHUNKS * FRAMES
SMALL_ROWS, BIG_ROWS = 100 * PACK_ROWS, 1_000_000


def directory(origin: bytes, ids: bytes) -> Directory:
    """Return the directory of a pack with these chunks."""
    size = CHUNKS * 65536
    frames = [FramePlace(FrameName(origin, n), n * size, size, size, 1) for n in range(FRAMES)]
    starts = list(range(0, PACK_ROWS + 1, CHUNKS))
    return Directory(
        Kind.DATA_DIRECTORY, [], frames, [0] * FRAMES, starts, ids, array("I", [65536]) * PACK_ROWS, b""
    )


def batches(rows: int, choice: random.Random) -> Iterator[tuple[RowBatch, bytes]]:
    """Yield batches of together about `rows` chunks, and their ids joined."""
    while rows > 0:
        batch, everything = RowBatch(), []
        for _ in range(min(PACKS, -(-rows // PACK_ROWS))):
            ids = choice.randbytes(32 * PACK_ROWS)
            batch.add_pack(choice.randbytes(32), 33_000_000, directory(choice.randbytes(16), ids))
            everything.append(ids)
            rows -= PACK_ROWS
        batch.sort()
        yield batch, b"".join(everything)


def fill(storage: Storage, ring: KeyRing, rows: int) -> list[bytes]:
    """Put tables of `rows` chunks; return a tenth of the ids."""
    known = []
    for batch, ids in batches(rows, random.Random(rows)):
        data = build_table(ring, batch)
        storage.put(table_name(data), data)
        known += [ids[at : at + 32] for at in range(0, len(ids), 320)]
    return known


@pytest.fixture(scope="module", params=[SMALL_ROWS, BIG_ROWS], ids=["small", "1M"])
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Index, list[bytes]]:
    path, ring = tmp_path_factory.mktemp("index"), make_ring()
    storage = LocalStorage.create(str(path / "repository"))
    known = fill(storage, ring, request.param)
    return Index.open(storage, ring, str(path / "cache")), known


def test_probe_miss(benchmark: Callable[..., object], opened: tuple[Index, list[bytes]]) -> None:
    index, ids = opened[0], [os.urandom(32) for _ in range(10_000)]
    benchmark(lambda: [index.has_chunk(Section.DATA, chunk_id) for chunk_id in ids])


def test_probe_hit(benchmark: Callable[..., object], opened: tuple[Index, list[bytes]]) -> None:
    index, known = opened
    ids = random.Random(1).sample(known, 5_000)
    benchmark(lambda: [index.has_chunk(Section.DATA, chunk_id) for chunk_id in ids])


def test_build_table(benchmark: Callable[..., object]) -> None:
    ring, [(batch, _)] = make_ring(), list(batches(PACKS * PACK_ROWS, random.Random(1)))
    benchmark(lambda: build_table(ring, batch))


def memory_mb() -> tuple[float, float]:
    """Return the resident memory now and at its highest, file pages included."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    # Not ru_maxrss: a child inherits that from whoever forked it.
    return int(status["VmRSS"].split()[0]) / 1000, int(status["VmHWM"].split()[0]) / 1000


def measure(rows: int) -> None:
    """Fill a repository in a child process, then open, reopen and probe its index here, and print the figures."""
    ring = make_ring()
    with tempfile.TemporaryDirectory() as folder:
        storage = LocalStorage.create(f"{folder}/repository")
        start = time.perf_counter()
        if (child := os.fork()) == 0:
            fill(storage, ring, rows)
            os._exit(0)
        os.waitpid(child, 0)
        print(
            f"{rows:,} rows; tables made in {time.perf_counter() - start:.1f} s; {memory_mb()[0]:.0f} MB before"
        )
        for what in ("first refresh", "next start"):
            index = None  # not two at once
            start = time.perf_counter()
            index = Index.open(storage, ring, f"{folder}/cache")
            seconds = time.perf_counter() - start
            print(f"{what}: {seconds:.2f} s, {memory_mb()[0]:.0f} MB, at most {memory_mb()[1]:.0f} MB")
        known = [
            ids[at : at + 32]
            for _, ids in batches(PACKS * PACK_ROWS, random.Random(rows))
            for at in range(0, len(ids), 32)
        ]
        assert index is not None
        print(f"{index.count():,} rows in {len(index._view[1])} runs")
        for what, ids in (
            ("miss", [os.urandom(32) for _ in range(100_000)]),
            ("hit", random.Random(1).choices(known, k=20_000)),
            ("hit again", random.Random(1).choices(known, k=20_000)),
        ):
            start, start_cpu = time.perf_counter(), time.process_time()
            for chunk_id in ids:
                index.has_chunk(Section.DATA, chunk_id)
            each = (time.perf_counter() - start) / len(ids) * 1e6
            cpu = (time.process_time() - start_cpu) / len(ids) * 1e6
            print(f"{what}: {each:.2f} µs a probe, {cpu:.2f} of them on the CPU; {memory_mb()[0]:.0f} MB")


if __name__ == "__main__":
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else BIG_ROWS)

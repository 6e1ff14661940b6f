"""How fast each way to cut is, beside memcpy and BLAKE3 of 64 KiB chunks in the same run.

    pytest benchmarks/bench_chunker.py --benchmark-enable

Machines differ and are shared, so the figures that mean something are ratios within one run; they
are printed at the end, from the best round of each. The bounds to keep, at 32K/64K/256K on a CPU
with VAES: gear64 at least half of memcpy, phte64 at least a fifth. Nothing here fails on a time.

The buffer is larger than the caches: memcpy of what fits them says nothing about a backup.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest
from blake3 import blake3
from pytest_benchmark.fixture import BenchmarkFixture

from chunker import KERNEL_VARIABLE, Algorithm, Chunker, Parameters, _cdc

BUFFER_BYTES = 256 * 1024 * 1024
SLOW_BYTES = 8 * 1024 * 1024  # for portable phte64
CHUNK_BYTES = 64 * 1024
SMALL_FILES = 1000

_speeds: dict[str, float] = {}


@pytest.fixture(scope="module")
def data() -> memoryview:
    return memoryview(os.urandom(BUFFER_BYTES))


@pytest.fixture(scope="module", autouse=True)
def _print_ratios() -> Iterator[None]:
    yield
    if "memcpy" not in _speeds or "blake3" not in _speeds:
        return  # benchmarks are off, or some were left out
    print(f"\n\n{'':<24}{'GB/s':>8}{'x memcpy':>10}{'x BLAKE3':>10}")
    for name, speed in _speeds.items():
        print(f"{name:<24}{speed:>8.3f}{speed / _speeds['memcpy']:>10.2f}{speed / _speeds['blake3']:>10.2f}")


def measure(benchmark: BenchmarkFixture, name: str, size: int, work: Callable[[], object]) -> None:
    benchmark.pedantic(work, rounds=7, iterations=1, warmup_rounds=1)
    if benchmark.stats is not None:
        best = float(benchmark.stats.stats.min)
        _speeds[name] = size / best / 1e9
        benchmark.extra_info["GB/s"] = round(_speeds[name], 3)


def test_memcpy(benchmark: BenchmarkFixture, data: memoryview) -> None:
    target = memoryview(bytearray(BUFFER_BYTES))

    def copy() -> None:
        target[:] = data

    measure(benchmark, "memcpy", BUFFER_BYTES, copy)


def test_blake3_of_chunks(benchmark: BenchmarkFixture, data: memoryview) -> None:
    starts = range(0, BUFFER_BYTES, CHUNK_BYTES)

    def hash_all() -> None:
        for start in starts:
            blake3(data[start : start + CHUNK_BYTES]).digest()

    measure(benchmark, "blake3", BUFFER_BYTES, hash_all)


def test_gear64(benchmark: BenchmarkFixture, data: memoryview) -> None:
    chunker = Chunker(Parameters(Algorithm.GEAR64), bytes(32))
    measure(benchmark, "gear64", BUFFER_BYTES, lambda: chunker.cuts(data))


@pytest.mark.parametrize("kernel", _cdc.kernels())
def test_phte64(
    benchmark: BenchmarkFixture, data: memoryview, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KERNEL_VARIABLE, kernel)
    chunker = Chunker(Parameters(), bytes(32))
    part = data[:SLOW_BYTES] if kernel == "portable" else data
    measure(benchmark, f"phte64 {kernel}", len(part), lambda: chunker.cuts(part))


def test_phte64_in_feeds_of_a_megabyte(benchmark: BenchmarkFixture, data: memoryview) -> None:
    chunker, step = Chunker(Parameters(), bytes(32)), 1024 * 1024

    def feed_all() -> None:
        stream = chunker.stream()
        for start in range(0, BUFFER_BYTES, step):
            stream.feed(data[start : start + step])
        stream.end()

    measure(benchmark, "phte64 in 1 MiB feeds", BUFFER_BYTES, feed_all)


def test_fixed_pages(benchmark: BenchmarkFixture, data: memoryview) -> None:
    chunker = Chunker(Parameters.fixed(8192), bytes(32))
    measure(benchmark, "fixed 8 KiB", BUFFER_BYTES, lambda: chunker.cuts(data))


def test_small_files(benchmark: BenchmarkFixture) -> None:
    """What a call costs beyond its work: files below size_min, one chunk each."""
    chunker, content = Chunker(Parameters(), bytes(32)), bytes(1000)

    def cut_all() -> None:
        for _ in range(SMALL_FILES):
            chunker.cuts(content)

    benchmark.pedantic(cut_all, rounds=50, iterations=1, warmup_rounds=5)
    if benchmark.stats is not None:
        start = time.perf_counter()
        for _ in range(SMALL_FILES):
            pass
        loop = time.perf_counter() - start
        call = (float(benchmark.stats.stats.min) - loop) / SMALL_FILES
        print(f"\none call for a small file: {call * 1e9:.0f} ns")

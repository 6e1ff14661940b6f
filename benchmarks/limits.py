"""Limits of this machine: what the same work would cost without a repository.

Every function measures once and returns a `Cost`. A figure of holdfast means something only beside one of these, taken
in the same run: machines differ, and a shared one differs from minute to minute.
"""

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import zstandard
from blake3 import blake3

from chunker import Algorithm, Chunker, Parameters
from chunker.tables import KEY_BYTES

BUFFER_BYTES = 64 * 1024 * 1024
ROUNDS = 9


class Cost(NamedTuple):
    """What something took: wall-clock and CPU seconds (user and system, all threads)."""

    seconds: float
    cpu: float


def cost_of(work: Callable[[], object]) -> Cost:
    """Run `work` in this process, or in children that it waits for, and return what it took."""
    before, start = os.times(), time.perf_counter()
    work()
    seconds, after = time.perf_counter() - start, os.times()
    return Cost(seconds, sum(after[:4]) - sum(before[:4]))


def rates() -> dict[str, float]:
    """Return bytes a second of CPU time, the best of a few rounds: memcpy, BLAKE3 and the chunkers."""
    data, target = os.urandom(BUFFER_BYTES), bytearray(BUFFER_BYTES)
    sizes = 32 * 1024, 64 * 1024, 256 * 1024
    key = blake3(b"benchmark").digest(KEY_BYTES)
    gear, phte = (
        Chunker(Parameters(algorithm, *sizes), key) for algorithm in (Algorithm.GEAR64, Algorithm.PHTE64)
    )
    work: dict[str, Callable[[], object]] = {
        "memcpy": lambda: memoryview(target).__setitem__(slice(None), data),
        "BLAKE3, 64 KiB at a time": lambda: [
            blake3(memoryview(data)[at : at + 65536]).digest() for at in range(0, BUFFER_BYTES, 65536)
        ],
        "gear64": lambda: gear.cuts(data),
        f"phte64 ({phte.kernel})": lambda: phte.cuts(data),
    }
    best = dict.fromkeys(work, float("inf"))
    for _ in range(ROUNDS):  # each stage in every round, so that a slow moment hits all of them
        for name, each in work.items():
            start = time.process_time()
            each()
            best[name] = min(best[name], time.process_time() - start)
    return {name: BUFFER_BYTES / seconds for name, seconds in best.items()}


def blake3_rate(rate: float, length: int) -> Cost:
    """Return what one core needs to hash `length` bytes at `rate`."""
    return Cost(length / rate, length / rate)


def make_tar(source: Path, archive: Path) -> None:
    """Write a tar of the tree; not a limit itself, zstd is given it ready made."""
    subprocess.run(["tar", "-cf", archive, "-C", source.parent, source.name], check=True)


def compress(archive: Path, target: Path) -> Cost:
    """`zstd -3 -T2` of the archive, then a sync of the result."""

    def work() -> None:
        if shutil.which("zstd"):
            subprocess.run(["zstd", "-3", "-T2", "-q", "-f", archive, "-o", target], check=True)
        else:
            compressor = zstandard.ZstdCompressor(level=3, threads=2)
            with archive.open("rb") as source, target.open("wb") as out:
                compressor.copy_stream(source, out)
        sync(target)

    return cost_of(work)


def decompress(compressed: Path) -> Cost:
    """`zstd -d` to nowhere: the limit of reading everything back."""

    def work() -> None:
        if shutil.which("zstd"):
            subprocess.run(["zstd", "-dqc", compressed], check=True, stdout=subprocess.DEVNULL)
        else:
            with compressed.open("rb") as source, Path(os.devnull).open("wb") as out:
                zstandard.ZstdDecompressor().copy_stream(source, out)

    return cost_of(work)


def copy(source: Path, target: Path) -> Cost:
    """`cp -r` of the tree into a new directory."""
    cost = cost_of(lambda: subprocess.run(["cp", "-r", source, target], check=True))
    shutil.rmtree(target)
    return cost


def slower(*costs: Cost) -> Cost:
    """Return the one with more wall-clock seconds."""
    return max(costs)


def sync(path: Path) -> None:
    """Wait until the file is on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def run_step(arguments: Sequence[str], *, stdin: int | None = None) -> tuple[Cost, str]:
    """Run `benchmarks/step.py` and return what the whole process took, start of Python included, and its output."""
    command = [sys.executable, str(Path(__file__).with_name("step.py")), *arguments]
    # As a user has it: Python compiles every module at every start where this is set.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=stdin, env=environment)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, cpu), done.stdout.decode()

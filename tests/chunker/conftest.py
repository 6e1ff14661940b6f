"""What the chunker's tests share: a key, bytes that look random, and every way to cut.

A test that takes `variant` runs once for gear64 and once for phte64 on each kernel that this CPU
can run, so no kernel is left to the machines that happen to choose it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from blake3 import blake3

from chunker import KERNEL_VARIABLE, Algorithm, Chunker, Parameters, _cdc

KEY = bytes(range(32))

# Made before any test may set the variable: which kernel runs is the test's choice alone.
VARIANTS = [(Algorithm.GEAR64, "portable"), *((Algorithm.PHTE64, name) for name in _cdc.kernels())]


@dataclass(frozen=True)
class Variant:
    """An algorithm on one kernel."""

    algorithm: Algorithm
    kernel: str

    def parameters(self, size_min: int, size_avg: int, size_max: int) -> Parameters:
        return Parameters(self.algorithm, size_min, size_avg, size_max)

    def chunker(self, size_min: int, size_avg: int, size_max: int, *, key: bytes = KEY) -> Chunker:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(KERNEL_VARIABLE, self.kernel)
            made = Chunker(self.parameters(size_min, size_avg, size_max), key)
        assert made.kernel == self.kernel
        return made


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "variant" in metafunc.fixturenames:
        variants = [Variant(*pair) for pair in VARIANTS]
        ids = [f"{variant.algorithm.label}-{variant.kernel}" for variant in variants]
        metafunc.parametrize("variant", variants, ids=ids, scope="session")


@pytest.fixture(scope="session")
def key() -> bytes:
    return KEY


@pytest.fixture(scope="session")
def random_bytes() -> Callable[[int, int], bytes]:
    """Return bytes that look random and are the same in every run: of a seed, that many."""

    def make(seed: int, size: int) -> bytes:
        return blake3(b"chunker tests %d" % seed).digest(length=size) if size else b""

    return make


@pytest.fixture(scope="session")
def text() -> bytes:
    """Return 2 MiB that look like a dump: rows that share most of their bytes."""
    row = "%d\tcustomer %d\t2026-01-%02d 12:00:00\tthe quick brown fox\t%d\\N\n"
    rows = [row % (i, i * 7919 % 1000, i % 28 + 1, i * i % 977) for i in range(40000)]
    return "".join(rows).encode()[: 2 * 1024 * 1024]


@pytest.fixture(autouse=True)
def _no_kernel_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(KERNEL_VARIABLE, raising=False)
    yield

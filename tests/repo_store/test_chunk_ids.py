"""Hashes of many pieces at once are those of the blake3 package, bit for bit, by every kernel of this machine."""

import os
import random
import struct
from array import array

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from support.guard_pages import GuardedRoom

from repo_store import _hashes, chunk_ids
from repo_store.row_batch import ROW_BYTES, sum_rows

KERNELS = range(_hashes.kernels())
EDGES = [0, 1, 63, 64, 65, 127, 128, 1023, 1024, 1025, 2047, 2048, 2049, 3072, 3073, 4096, 7 * 1024 + 1]
LENGTHS = st.lists(
    st.one_of(st.sampled_from(EDGES), st.integers(0, 300), st.integers(0, 40_000)), max_size=40
)


def by_package(key: bytes, data: bytes, lengths: list[int]) -> bytes:
    ends = [sum(lengths[: number + 1]) for number in range(len(lengths))]
    pieces = (data[end - length : end] for end, length in zip(ends, lengths, strict=True))
    return b"".join(blake3(piece, key=key).digest() for piece in pieces)


@pytest.mark.parametrize("kernel", KERNELS)
@given(lengths=LENGTHS, seed=st.integers(0, 2**32))
def test_every_kernel_hashes_as_the_package_does(kernel: int, lengths: list[int], seed: int) -> None:
    choice = random.Random(seed)
    key, data = choice.randbytes(32), choice.randbytes(sum(lengths))
    expected = by_package(key, data, lengths)
    assert _hashes.hashes(key, data, array("I", lengths), kernel) == expected
    assert chunk_ids.chunk_ids(key, data, lengths) == expected


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_long_piece_among_thousands_of_short_ones_is_hashed_whole(kernel: int) -> None:
    lengths = [number % 90 for number in range(3000)] + [3_000_000] + [1025] * 1500
    data = os.urandom(sum(lengths))
    assert _hashes.hashes(b"k" * 32, data, array("I", lengths), kernel) == by_package(
        b"k" * 32, data, lengths
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_hashing_touches_its_bytes_only(kernel: int) -> None:
    room = GuardedRoom(2 * 4096)
    for lengths in ([0], [1], [64], [65], [1024], [1025, 0], [3, 0, 2050], [4100]):
        data = os.urandom(sum(lengths))
        for guarded in room.places(data):
            hashes = _hashes.hashes(bytes(32), guarded, array("I", lengths), kernel)
            assert hashes == by_package(bytes(32), data, lengths)


def test_what_does_not_fit_together_is_refused() -> None:
    for data, lengths in ((b"abc", [2]), (b"abc", [4]), (b"", [1]), (b"abc", [])):
        with pytest.raises(ValueError, match="add up"):
            _hashes.hashes(bytes(32), data, array("I", lengths), 0)
        with pytest.raises(ValueError, match="add up"):
            chunk_ids.chunk_ids(bytes(32), data, lengths)
    with pytest.raises(ValueError, match="32 bytes"):
        _hashes.hashes(bytes(31), b"", array("I"), 0)
    for kernel in (-1, _hashes.kernels()):
        with pytest.raises(ValueError, match="no such kernel"):
            _hashes.hashes(bytes(32), b"", array("I"), kernel)


@pytest.mark.parametrize("wrong", [range(_hashes.kernels()), [_hashes.kernels() - 1], []])
def test_a_kernel_that_differs_from_the_package_is_not_used(
    monkeypatch: pytest.MonkeyPatch, wrong: list[int]
) -> None:
    """A processor, or a compiler, that gets one bit of one hash wrong costs speed and no backup."""

    def hashes(key: bytes, data: bytes, lengths: "array[int]", kernel: int) -> bytes:
        found = _hashes.hashes(key, data, lengths, kernel)
        return found if kernel not in wrong else found[:-1] + bytes([found[-1] ^ 1])

    monkeypatch.setattr(chunk_ids, "hashes", hashes)
    chunk_ids._kernel.cache_clear()
    try:
        right = [kernel for kernel in KERNELS if kernel not in wrong]
        assert chunk_ids.hash_kernel() == (right[-1] if right else None)
        lengths, data = [10, 2000, 0, 70], os.urandom(2080)
        assert chunk_ids.chunk_ids(b"k" * 32, data, lengths) == by_package(b"k" * 32, data, lengths)
    finally:
        chunk_ids._kernel.cache_clear()


def sum_of_rows(key: bytes, section: int, rows: bytes, names: list[bytes]) -> int:
    """docs/format.md, "Sum", read aloud."""
    size, index_at = ROW_BYTES[section], 32 if section else 20
    total = 0
    for at in range(0, len(rows), size):
        row = rows[at : at + size]
        (number,) = struct.unpack_from("<I", row, index_at)
        full = bytes([section]) + row[:index_at] + names[number] + row[index_at + 4 :]
        total += int.from_bytes(blake3(full, key=key).digest(), "little")
    return total % 2**256


@pytest.mark.parametrize("kernel", [None, *KERNELS])
@pytest.mark.parametrize("section", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 1, 3, 1024, 2500])
def test_the_sum_of_rows_is_the_one_that_the_format_describes(
    monkeypatch: pytest.MonkeyPatch, kernel: int | None, section: int, count: int
) -> None:
    choice = random.Random(count)
    names = [choice.randbytes(16 if section else 32) for _ in range(5)]
    size, index_at = ROW_BYTES[section], 32 if section else 20
    rows = b"".join(
        choice.randbytes(index_at)
        + struct.pack("<I", choice.randrange(5))
        + choice.randbytes(size - index_at - 4)
        for _ in range(count)
    )
    monkeypatch.setattr("repo_store.row_batch.hash_kernel", lambda: kernel)
    assert sum_rows(b"k" * 32, section, rows, names) == sum_of_rows(b"k" * 32, section, rows, names)


@pytest.mark.parametrize("kernel", [None, *KERNELS])
def test_a_row_with_a_number_that_stands_for_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, kernel: int | None
) -> None:
    monkeypatch.setattr("repo_store.row_batch.hash_kernel", lambda: kernel)
    row = bytes(32) + struct.pack("<I", 1) + bytes(8)
    for names in ([bytes(16)], []):
        with pytest.raises(IndexError):
            sum_rows(bytes(32), 1, row, names)

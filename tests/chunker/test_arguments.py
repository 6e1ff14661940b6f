"""What cannot be honoured is refused when it is given, in words, and never reaches the loops."""

from __future__ import annotations

import array
import dataclasses
import mmap
from typing import Any

import pytest

from chunker import (
    SIZE_AVG_FLOOR,
    SIZE_MAX_CEILING,
    SIZE_MIN_FLOOR,
    Algorithm,
    Chunker,
    Parameters,
    _cdc,
)

HASHED = [Algorithm.GEAR64, Algorithm.PHTE64]


@pytest.mark.parametrize("algorithm", HASHED)
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 256, 1024), "size_min 0 is below 64"),
        ((63, 256, 1024), "size_min 63 is below 64"),
        ((-1, 256, 1024), "size_min -1 is below 64"),
        ((64, 0, 1024), "size_avg 0 is not a power of two of at least 256"),
        ((64, 128, 1024), "size_avg 128 is not a power of two of at least 256"),
        ((64, 257, 1024), "size_avg 257 is not a power of two of at least 256"),
        ((64, -256, 1024), "size_avg -256 is not a power of two of at least 256"),
        ((512, 256, 1024), "sizes 512, 256, 1024 are not in the order size_min <= size_avg <= size_max"),
        ((64, 1024, 512), "sizes 64, 1024, 512 are not in the order size_min <= size_avg <= size_max"),
        ((64, 256, 2**24 + 1), "size_max 16777217 is above 16777216"),
        ((64, 256, 2**70), "size_max 1180591620717411303424 is above 16777216"),
    ],
)
def test_impossible_sizes_are_refused(
    algorithm: Algorithm, sizes: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        Parameters(algorithm, *sizes)
    assert str(caught.value) == f"{algorithm.label}: {message}"


@pytest.mark.parametrize("algorithm", HASHED)
def test_sizes_on_the_limits_are_taken(algorithm: Algorithm, key: bytes) -> None:
    for sizes in (
        (SIZE_MIN_FLOOR, SIZE_AVG_FLOOR, SIZE_MAX_CEILING),
        (SIZE_AVG_FLOOR, SIZE_AVG_FLOOR, SIZE_AVG_FLOOR),
        (SIZE_MAX_CEILING, SIZE_MAX_CEILING, SIZE_MAX_CEILING),
    ):
        assert Chunker(Parameters(algorithm, *sizes), key).cuts(b"abc") == [3]


@pytest.mark.parametrize("size", [0, -1, SIZE_MAX_CEILING + 1])
def test_impossible_fixed_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=rf"^fixed: size {size} is not in 1..{SIZE_MAX_CEILING}$"):
        Parameters.fixed(size)


@pytest.mark.parametrize("phase", [-1, 8192, 8193])
def test_a_phase_outside_the_first_page_is_refused(phase: int) -> None:
    with pytest.raises(ValueError, match=rf"^fixed: phase {phase} is not in 0..8191$"):
        Parameters.fixed(8192, phase=phase)


def test_fixed_has_one_size_and_only_fixed_has_a_phase() -> None:
    with pytest.raises(ValueError, match=r"^fixed: size_min, size_avg and size_max are not one size$"):
        Parameters(Algorithm.FIXED, 4096, 8192, 8192)
    with pytest.raises(ValueError, match=r"^phte64: phase 512: only fixed has a phase$"):
        Parameters(phase=512)


def test_the_reserved_algorithm_is_refused_by_name() -> None:
    with pytest.raises(ValueError) as caught:
        Parameters(Algorithm.PHTE96)
    assert str(caught.value) == (
        "chunking algorithm phte96 (3) is reserved; this version has fixed (0), gear64 (1), phte64 (2)"
    )


def test_unknown_algorithms_are_refused_with_those_that_are_known() -> None:
    known = r"fixed \(0\), gear64 \(1\), phte64 \(2\)$"
    with pytest.raises(ValueError, match=r"^unknown chunking algorithm 9; this version knows " + known):
        Parameters(9)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^unknown chunking algorithm 'rabin'; known are " + known):
        Algorithm.named("rabin")


def test_plain_numbers_from_a_manifest_become_the_algorithm() -> None:
    parameters = Parameters(2, 64, 256, 1024)  # type: ignore[arg-type]
    assert parameters.algorithm is Algorithm.PHTE64 is Algorithm.named("phte64")


@pytest.mark.parametrize("value", ["64", 64.0, None, True])
def test_sizes_that_are_not_integers_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^size_min is {type(value).__name__}, not int$"):
        Parameters(size_min=value)


def test_parameters_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Parameters().size_min = 1  # type: ignore[misc]


def test_the_ids_and_thresholds_are_those_of_the_format() -> None:
    assert [(a.value, a.label) for a in Algorithm] == [
        (0, "fixed"),
        (1, "gear64"),
        (2, "phte64"),
        (3, "phte96"),
    ]
    assert Parameters().threshold_strict == 2**46 - 1
    assert Parameters().threshold_loose == 2**50 - 1


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=rf"^the chunker key has {size} bytes, not 32$"):
        Chunker(Parameters(), bytes(size))


@pytest.mark.parametrize("key", ["x" * 32, bytearray(32), None])
def test_a_key_that_is_not_bytes_is_refused(key: Any) -> None:
    with pytest.raises(TypeError, match=r"^the chunker key is \w+, not bytes$"):
        Chunker(Parameters(), key)


def test_the_key_is_not_told(key: bytes) -> None:
    told = repr(Chunker(Parameters(), key))
    assert "phte64" in told.lower() and "kernel=" in told
    assert str(key) not in told and key.hex() not in told


def test_buffers_of_any_kind_are_cut_alike(key: bytes) -> None:
    chunker = Chunker(Parameters(Algorithm.PHTE64, 64, 256, 1024), key)
    data = bytes(range(256)) * 64
    expected = chunker.cuts(data)
    with mmap.mmap(-1, len(data)) as mapped:
        mapped.write(data)
        assert chunker.cuts(mapped) == expected
    for buffer in (bytearray(data), memoryview(data), array.array("Q", data)):
        assert chunker.cuts(buffer) == expected


def test_a_buffer_with_gaps_is_refused(key: bytes) -> None:
    gaps = memoryview(bytes(1000))[::2]
    chunker = Chunker(Parameters(), key)
    for use in (chunker.cuts, chunker.stream().feed):
        with pytest.raises(BufferError):
            use(gaps)


@pytest.mark.parametrize("source", ["text", 7, None, [1, 2]])
def test_what_is_no_buffer_is_refused_and_the_stream_goes_on(key: bytes, source: Any) -> None:
    stream = Chunker(Parameters.fixed(4), key).stream()
    assert stream.feed(b"abc") == []
    with pytest.raises(TypeError):
        stream.feed(source)
    assert stream.feed(b"de") + stream.end() == [4, 5]


def test_a_buffer_is_free_again_after_it_was_cut(key: bytes) -> None:
    data = bytearray(100_000)
    chunker = Chunker(Parameters(), key)
    stream = chunker.stream()
    chunker.cuts(data), stream.feed(data)
    data.append(1)  # would raise BufferError while anyone holds it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((7, 64, 256, 1024, 0, bytes(2048), bytes(16), None), "no such algorithm"),
        ((3, 64, 256, 1024, 0, bytes(2048), bytes(16), None), "no such algorithm"),
        ((2, 64, 256, 1024, 0, bytes(2047), bytes(16), None), "the table is not 2048 bytes long"),
        ((2, 64, 256, 1024, 0, bytes(2048), bytes(15), None), "the AES key is not 16 bytes long"),
        ((1, 63, 256, 1024, 0, bytes(2048), b"", None), "size_min is below the hash window"),
        ((1, -1, 256, 1024, 0, bytes(2048), b"", None), "sizes are not in the order"),
        ((1, 64, 128, 1024, 0, bytes(2048), b"", None), "size_avg is not a power of two"),
        ((1, 64, 384, 1024, 0, bytes(2048), b"", None), "size_avg is not a power of two"),
        ((1, 64, 1024, 512, 0, bytes(2048), b"", None), "sizes are not in the order"),
        ((1, 64, 256, 2**24 + 1, 0, bytes(2048), b"", None), "size_max is above the limit of 16 MiB"),
        ((0, 0, 0, 0, 0, b"", b"", None), "size is not between"),
        ((0, 8, 8, 8, 8, b"", b"", None), "phase is not below size"),
        ((0, 8, 8, 8, -1, b"", b"", None), "phase is not below size"),
    ],
)
def test_the_c_code_refuses_on_its_own_what_the_python_code_lets_through(
    arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _cdc.Context(*arguments)


def test_a_stream_needs_a_context() -> None:
    with pytest.raises(TypeError):
        _cdc.Stream(object())  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        _cdc.Context(1, 64, 2**64, 2**64, 0, bytes(2048), b"", None)

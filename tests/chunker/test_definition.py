"""The C cuts as the reference does, and at the very places where a loop could be off by one.

The exact tests choose gear's secret table by hand, so that a hash takes the value of the threshold
itself: random bytes would meet it once in 2^64 places.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunker import WINDOW_BYTES, Algorithm, Parameters, _cdc, reference

RandomBytes = Callable[[int, int], bytes]

SIZES = [(64, 256, 1024), (64, 256, 257), (65, 256, 300), (255, 256, 256), (256, 256, 4096), (300, 512, 700)]


@pytest.mark.parametrize("sizes", SIZES)
def test_random_bytes_are_cut_as_the_definition_says(
    variant: Any, sizes: tuple[int, int, int], key: bytes, random_bytes: RandomBytes
) -> None:
    data = random_bytes(sum(sizes), 12000)
    assert variant.chunker(*sizes).cuts(data) == reference.cuts(variant.parameters(*sizes), key, data)


def test_text_is_cut_as_the_definition_says(variant: Any, key: bytes, text: bytes) -> None:
    data = text[:12000]
    sizes = (64, 256, 1024)
    assert variant.chunker(*sizes).cuts(data) == reference.cuts(variant.parameters(*sizes), key, data)


@pytest.mark.parametrize("period", [1, 2, 3, 7, 8, 16, 63, 64, 65, 127, 128, 130])
def test_repeated_patterns_are_cut_as_the_definition_says(
    variant: Any, period: int, key: bytes, random_bytes: RandomBytes
) -> None:
    data = (random_bytes(period, period) * 3000)[:3000]
    sizes = (64, 256, 1024)
    assert variant.chunker(*sizes).cuts(data) == reference.cuts(variant.parameters(*sizes), key, data)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 66, 127, 128, 129, 255, 256, 257, 1023, 1024, 1025])
def test_short_streams_are_cut_as_the_definition_says(
    variant: Any, size: int, key: bytes, random_bytes: RandomBytes
) -> None:
    sizes = (64, 256, 1024)
    for seed in range(5):
        data = random_bytes(seed, size)
        assert variant.chunker(*sizes).cuts(data) == reference.cuts(variant.parameters(*sizes), key, data)


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=1500),
    repeats=st.integers(1, 4),
    size_min=st.integers(WINDOW_BYTES, 256),
    size_max=st.integers(256, 1200),
)
def test_any_bytes_are_cut_as_the_definition_says(
    variant: Any, data: bytes, repeats: int, size_min: int, size_max: int
) -> None:
    data, sizes = data * repeats, (size_min, 256, size_max)
    expected = reference.cuts(variant.parameters(*sizes), bytes(range(32)), data)
    assert variant.chunker(*sizes).cuts(data) == expected


def gear_with_words(words: dict[int, int], sizes: tuple[int, int, int]) -> _cdc.Context:
    table = struct.pack("<256Q", *(words.get(byte, 0) % 2**64 for byte in range(256)))
    return _cdc.Context(Algorithm.GEAR64, *sizes, 0, table, b"", None)


def gear_hit_by_byte_one(sizes: tuple[int, int, int], hash_there: int) -> _cdc.Context:
    """A context in which zeros never cut and a lone 1 among them makes the hash after it as given.

    Zeros: table[0] = 1, so the hash is 2^64 - 1. Behind the 1 it is 2 * (2^64 - 1) + table[1].
    """
    return gear_with_words({0: 1, 1: hash_there + 2}, sizes)


def lone_one(size: int, place: int) -> bytes:
    return bytes(place - 1) + b"\x01" + bytes(size - place)


FILES = (32 * 1024, 64 * 1024, 256 * 1024)
STRICT, LOOSE = Parameters().threshold_strict, Parameters().threshold_loose


@pytest.mark.parametrize(
    ("place", "threshold"),
    [
        *((place, STRICT) for place in (32768, 32769, 40960, 40961, 40962, 65534, 65535)),
        *((place, LOOSE) for place in (65536, 65537, 73728, 73729, 262142, 262143)),
    ],
)
def test_a_hash_at_the_threshold_cuts_and_one_above_it_does_not(place: int, threshold: int) -> None:
    data = lone_one(262144, place)
    assert gear_hit_by_byte_one(FILES, threshold).cuts(data) == [place, 262144]
    # Some places on, that hash wraps around to a small number and cuts there: what counts is here.
    assert gear_hit_by_byte_one(FILES, threshold + 1).cuts(data)[0] > place


def test_the_threshold_is_strict_below_the_average_and_loose_from_there_on() -> None:
    context = gear_hit_by_byte_one(FILES, LOOSE)
    assert context.cuts(lone_one(262144, 65535)) == [262144], "one before the average: still strict"
    assert context.cuts(lone_one(262144, 65536)) == [65536, 262144]


def test_no_cut_lies_below_the_minimum_and_the_first_may_lie_on_it() -> None:
    context = gear_hit_by_byte_one(FILES, STRICT)
    assert context.cuts(lone_one(262144, 32767)) == [262144]
    assert context.cuts(lone_one(262144, 32768)) == [32768, 262144]


def test_a_lone_hit_is_found_at_every_place_of_both_lanes() -> None:
    """Lanes are 4096 places each and swap roles every 8192: three rounds, and the rest behind."""
    sizes = (64, 32768, 65536)
    context = gear_hit_by_byte_one(sizes, 0)
    around = [64 + 4096 * lane + shift for lane in range(8) for shift in range(-70, 70)]
    for place in [p for p in around if p >= 64] + list(range(64, 32768, 61)):
        assert context.cuts(lone_one(32767, place)) == [place, 32767], place


def test_the_first_of_two_hits_wins_in_whichever_lane_it_lies() -> None:
    context = gear_hit_by_byte_one((64, 32768, 65536), 0)
    base = 65  # the first place that the two lanes judge
    for near in (0, 1, 100, 4094, 4095):
        for far in (0, 1, 100, 4094, 4095):
            places = (base + near, base + 4096 + far)
            if places[1] - places[0] <= WINDOW_BYTES:
                continue  # the second hash would feel the first byte
            data = bytearray(40000)
            for place in places:
                data[place - 1] = 1
            assert context.cuts(bytes(data))[0] == places[0], places


def test_the_window_is_64_bytes_and_not_one_more_or_less() -> None:
    """A byte 63 places back still moves the top bit; one 64 places back moves nothing."""
    sizes = (64, 256, 1024)
    table = {0: 0, 1: 1}  # zeros hash to 0, which cuts; a 1 that is j places back adds 2^j
    context = gear_with_words(table, sizes)
    assert context.cuts(b"\x01" + bytes(200))[0] == 65, "at 64 the 1 is 63 back, at 65 it is gone"
    assert context.cuts(bytes(201))[0] == 64

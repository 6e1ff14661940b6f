"""What deduplication needs of cuts, whatever the bytes: limits, purity, resynchronisation, spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunker import WINDOW_BYTES, reference

RandomBytes = Callable[[int, int], bytes]
SMALL = (128, 256, 1024)


def lengths_of(cuts: list[int]) -> list[int]:
    return [end - start for start, end in pairwise([0, *cuts])]


def chunks_of(cuts: list[int], data: bytes) -> list[bytes]:
    return [data[start:end] for start, end in pairwise([0, *cuts])]


@settings(max_examples=80, deadline=None)
@given(data=st.binary(max_size=900), repeats=st.integers(1, 6))
def test_chunks_join_to_the_input_and_keep_the_limits(variant: Any, data: bytes, repeats: int) -> None:
    data = data * repeats
    size_min, _, size_max = SMALL
    chunks = chunks_of(variant.chunker(*SMALL).cuts(data), data)
    assert b"".join(chunks) == data
    assert all(size_min <= len(chunk) <= size_max for chunk in chunks[:-1])
    assert all(1 <= len(chunk) <= size_max for chunk in chunks[-1:])


def test_a_cut_depends_on_the_64_bytes_before_it_and_its_distance_only(
    variant: Any, key: bytes, random_bytes: RandomBytes
) -> None:
    """Find windows that cut, put other bytes before them, and see them cut again at that place.

    The minimum is the place itself, so whatever comes before has no say but through the hash.
    """
    data, place = random_bytes(20, 30000), 200
    strict = variant.parameters(place, 256, 1024).threshold_strict
    decide = reference.hash_of(variant.algorithm, key)
    ends = [end for end in range(WINDOW_BYTES, len(data)) if decide(data, end) <= strict]
    assert len(ends) >= 10
    chunker = variant.chunker(place, 256, 1024)
    for end in ends:
        window = data[end - WINDOW_BYTES : end]
        for seed in range(30, 34):
            before = random_bytes(seed, place - WINDOW_BYTES)
            assert chunker.cuts(before + window + bytes(2000))[0] == place


def test_every_byte_of_the_window_counts(variant: Any, key: bytes, random_bytes: RandomBytes) -> None:
    """A window that cuts, changed in one byte, does not cut there any more."""
    data, place = random_bytes(21, 20000), 200
    strict = variant.parameters(place, 256, 1024).threshold_strict
    decide = reference.hash_of(variant.algorithm, key)
    end = next(end for end in range(place, len(data)) if decide(data, end) <= strict)
    head = bytearray(data[end - place : end])
    chunker = variant.chunker(place, 256, 1024)
    assert chunker.cuts(bytes(head) + bytes(2000))[0] == place
    # gear's oldest bytes reach the top bits only: flip the bytes that are sure to matter there.
    newest = WINDOW_BYTES if variant.algorithm.label == "phte64" else WINDOW_BYTES - 16
    for back in range(1, newest + 1):
        changed = bytearray(head)
        changed[place - back] ^= 0x55
        after = chunker.cuts(bytes(changed) + bytes(2000))[0]
        assert (after == place) == (decide(bytes(changed), place) <= strict)


@pytest.mark.parametrize("edit", ["insert", "delete", "replace"])
def test_an_edit_changes_only_the_chunks_next_to_it(
    variant: Any, edit: str, random_bytes: RandomBytes
) -> None:
    chunker = variant.chunker(2048, 4096, 16384)
    data = random_bytes(22, 400_000)
    before = chunks_of(chunker.cuts(data), data)
    for place in range(20_000, 380_000, 40_009):
        kept = {"insert": place, "delete": place + 11, "replace": place + 7}[edit]
        patch = b"" if edit == "delete" else b"1234567"
        edited = data[:place] + patch + data[kept:]
        new = set(chunks_of(chunker.cuts(edited), edited)) - set(before)
        assert 1 <= len(new) <= 6, "resynchronised within a few chunks"


@pytest.mark.parametrize(
    ("size_avg", "size"), [(256, 500_000), (1024, 1_000_000), (4096, 2_000_000), (65536, 16_000_000)]
)
def test_the_mean_and_spread_of_lengths_are_what_the_thresholds_give(
    variant: Any, size_avg: int, size: int, random_bytes: RandomBytes
) -> None:
    """For min = avg / 2 the mean is 1.19 avg and the coefficient of variation 0.24: 12% of chunks
    end under the strict threshold, the others avg / 4 behind avg on average."""
    chunker = variant.chunker(size_avg // 2, size_avg, size_avg * 4)
    lengths = lengths_of(chunker.cuts(random_bytes(23, size)))[:-1]
    slack = 1.3 / len(lengths) ** 0.5  # some four deviations
    assert statistics.mean(lengths) / size_avg == pytest.approx(1.19, abs=slack)
    assert statistics.stdev(lengths) / statistics.mean(lengths) == pytest.approx(0.243, abs=slack)
    early = sum(length < size_avg for length in lengths) / len(lengths)
    assert early == pytest.approx(0.1175, abs=slack)


def test_different_keys_cut_at_unrelated_places(variant: Any, random_bytes: RandomBytes) -> None:
    data, sizes = random_bytes(24, 1_000_000), (512, 1024, 4096)
    one = set(variant.chunker(*sizes, key=bytes(32)).cuts(data))
    other = set(variant.chunker(*sizes, key=bytes(31) + b"\x01").cuts(data))
    assert len(one) > 700 and len(other) > 700
    # By chance alone a cut is shared with probability 1 / 1219.
    assert len(one & other) <= 8


def test_a_run_of_one_byte_is_cut_at_the_limits_alone(variant: Any) -> None:
    """A constant hash either always cuts or never: long runs deduplicate in any case."""
    for byte in range(0, 256, 5):
        lengths = lengths_of(variant.chunker(*SMALL).cuts(bytes([byte]) * 20_480))[:-1]
        assert len(set(lengths)) == 1
        assert lengths[0] in SMALL

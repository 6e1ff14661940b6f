"""A stream is cut the same however it comes: in one piece, in bytes, forked, or on many threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunker import Chunker, Parameters, Stream

RandomBytes = Callable[[int, int], bytes]
SMALL = (128, 256, 1024)


def feed_split(stream: Stream, data: bytes, places: Iterable[int]) -> list[int]:
    """Feed `data` split at `places`, checking that a cut is told in the feed that reaches it."""
    found: list[int] = []
    for start, end in pairwise([0, *sorted(places), len(data)]):
        cuts = stream.feed(data[start:end])
        assert all(start < cut <= end for cut in cuts)
        found += cuts
    return found + stream.end()


def test_bytes_fed_one_by_one_are_cut_as_a_whole(variant: Any, random_bytes: RandomBytes) -> None:
    chunker, data = variant.chunker(*SMALL), random_bytes(1, 6000)
    assert feed_split(chunker.stream(), data, range(1, len(data))) == chunker.cuts(data)


def test_a_split_at_any_place_around_the_limits_changes_no_cut(
    variant: Any, random_bytes: RandomBytes
) -> None:
    chunker, data = variant.chunker(*SMALL), random_bytes(2, 4000)
    expected = chunker.cuts(data)
    starts = [0, *expected[:4]]
    for limit in SMALL:
        for place in (start + limit + shift for start in starts for shift in range(-64, 65)):
            if place < len(data):
                assert feed_split(chunker.stream(), data, [place]) == expected, place


def test_two_splits_within_a_window_change_no_cut(variant: Any, random_bytes: RandomBytes) -> None:
    chunker, data = variant.chunker(*SMALL), random_bytes(3, 2000)
    expected = chunker.cuts(data)
    for place in range(expected[0] - 70, expected[0] + 2):
        for length in (1, 2, 31, 63, 64, 65):
            assert feed_split(chunker.stream(), data, [place, place + length]) == expected


@settings(max_examples=80, deadline=None)
@given(data=st.binary(max_size=700), repeats=st.integers(1, 5), splits=st.data())
def test_any_split_changes_no_cut(variant: Any, data: bytes, repeats: int, splits: st.DataObject) -> None:
    data = data * repeats
    places = splits.draw(st.lists(st.integers(0, len(data)), max_size=30))
    chunker = variant.chunker(*SMALL)
    assert feed_split(chunker.stream(), data, places) == chunker.cuts(data)


def test_a_large_stream_in_pieces_is_cut_as_a_whole(variant: Any, random_bytes: RandomBytes) -> None:
    chunker, data = variant.chunker(2048, 4096, 16384), random_bytes(4, 1024 * 1024)
    expected = chunker.cuts(data)
    assert len(expected) > 150
    for piece in (100_003, 16_384, 16_383, 4096):
        assert feed_split(chunker.stream(), data, range(piece, len(data), piece)) == expected


def test_more_cuts_than_the_binding_holds_at_a_time_are_all_told(
    variant: Any, random_bytes: RandomBytes
) -> None:
    chunker, data = variant.chunker(64, 256, 1024), random_bytes(5, 400_000)
    cuts = chunker.cuts(data)
    assert len(cuts) > 2 * 512
    assert chunker.stream().feed(data) == cuts[:-1]


def test_fixed_pages_are_cut_alike_however_they_are_fed(key: bytes) -> None:
    for phase in (0, 1, 512, 4095):
        chunker = Chunker(Parameters.fixed(4096, phase=phase), key)
        data = bytes(20000)
        expected = [*range(phase or 4096, 20000, 4096), 20000]
        assert chunker.cuts(data) == expected
        assert feed_split(chunker.stream(), data, range(1, 20000, 7)) == expected


def test_a_stream_that_ends_on_a_cut_has_no_chunk_after_it(key: bytes) -> None:
    chunker = Chunker(Parameters.fixed(100), key)
    assert chunker.cuts(bytes(200)) == [100, 200]
    stream = chunker.stream()
    assert (stream.feed(bytes(200)), stream.end()) == ([100, 200], [])


def test_an_empty_stream_has_no_chunks(variant: Any) -> None:
    chunker = variant.chunker(*SMALL)
    assert chunker.cuts(b"") == []
    stream = chunker.stream()
    assert (stream.feed(b""), stream.feed(bytearray()), stream.end()) == ([], [], [])


def test_a_fork_goes_on_by_itself(variant: Any, random_bytes: RandomBytes) -> None:
    chunker = variant.chunker(*SMALL)
    head, left, right = random_bytes(6, 777), random_bytes(7, 3000), random_bytes(8, 3000)
    stream = chunker.stream()
    told = stream.feed(head)
    fork = stream.copy()
    assert told + stream.feed(left) + stream.end() == chunker.cuts(head + left)
    assert told + fork.feed(right) + fork.end() == chunker.cuts(head + right)


def test_a_stream_outlives_its_chunker(variant: Any, random_bytes: RandomBytes) -> None:
    data = random_bytes(9, 3000)
    expected = variant.chunker(*SMALL).cuts(data)
    stream = variant.chunker(*SMALL).stream()
    assert stream.feed(data) + stream.end() == expected


def test_a_stream_that_has_ended_is_refused(key: bytes) -> None:
    stream = Chunker(Parameters(), key).stream()
    assert stream.feed(b"x") + stream.end() == [1]
    for use in (stream.end, stream.copy, lambda: stream.feed(b"y")):
        with pytest.raises(ValueError, match=r"^the stream has ended$"):
            use()


def test_threads_share_a_chunker(variant: Any, random_bytes: RandomBytes) -> None:
    chunker = variant.chunker(2048, 4096, 16384)
    inputs = [random_bytes(seed, 200_000) for seed in range(8)]
    expected = [chunker.cuts(data) for data in inputs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(chunker.cuts, inputs)) == expected


def test_a_stream_fed_by_two_threads_at_once_refuses_one_or_takes_turns(key: bytes) -> None:
    """Whichever way the threads meet, the state is never torn: what was taken is cut right."""
    chunker, piece = Chunker(Parameters(), key), bytes(4 * 1024 * 1024)
    stream, refused, taken = chunker.stream(), [], []
    start = threading.Barrier(2)

    def feed() -> None:
        start.wait()
        for _ in range(20):
            try:
                taken.append(stream.feed(piece))
            except RuntimeError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=feed) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) + len(refused) == 40
    assert set(refused) <= {"the stream is being fed by another thread"}
    size_max = Parameters().size_max
    told = sorted(cut for cuts in taken for cut in cuts)
    assert told == list(range(size_max, len(taken) * len(piece) + 1, size_max))

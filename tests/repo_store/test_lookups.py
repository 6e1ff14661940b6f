"""The C of _lookups.c is held to its reference, and to the bytes that it is given."""

import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import rows_reference as reference
from support.guard_pages import GuardedRoom

from repo_store import _lookups, _rows
from repo_store.run import filter_bytes

# Few different bytes, so that ids are often equal, or equal up to a late byte.
IDS = st.lists(st.lists(st.sampled_from([0, 1, 255]), min_size=32, max_size=32).map(bytes), max_size=40)
LENGTHS = st.integers(1, 8 * 1024 * 1024 // 40)


@given(IDS, st.data(), st.integers(0, 2**32 - 1), st.integers(0, 65_534))
def test_rows_of_a_frame_are_those_that_the_format_describes(
    ids: list[bytes], data: st.DataObject, origin: int, ordinal: int
) -> None:
    lengths = data.draw(st.lists(LENGTHS, min_size=len(ids), max_size=len(ids)))
    rows = _lookups.chunk_rows(b"".join(ids), array("I", lengths), origin, ordinal)
    assert rows == reference.chunk_rows(ids, lengths, origin, ordinal)


@given(IDS, IDS, st.integers(1, 64))
def test_a_frame_is_found_for_every_id_in_its_block(ids: list[bytes], asked: list[bytes], size: int) -> None:
    rows = b"".join(sorted({i + bytes([number]) * 12 for number, i in enumerate(ids)}))
    asked = [*asked, *ids]
    blocks = [rows[at : at + 44 * size] for at in range(0, len(rows), 44 * size)] or [b""]
    fences = [block[:8] for block in blocks]
    numbers = _lookups.blocks_of(b"".join(fences), 8, b"".join(asked))
    assert numbers == reference.blocks_of(fences, asked)
    asked_blocks = [blocks[number] for number in numbers]
    assert _lookups.frames_of(asked_blocks, b"".join(asked)) == reference.frames_of(asked_blocks, asked)


def test_the_only_filter_that_may_hold_an_id_is_named() -> None:
    choice = random.Random(1)
    groups = [[choice.randbytes(32) for _ in range(40)] for _ in range(4)]
    groups[3] = groups[2][:5]
    filters = []
    for group in (*groups, []):
        filter_ = bytearray(filter_bytes(len(group)))
        if group:
            _rows.filter_add(filter_, b"".join(group), 32)
        filters.append(bytes(filter_))
    ids = [*(i for group in groups for i in group), *(choice.randbytes(32) for _ in range(200))]
    hits = _lookups.probe_ids(tuple(filters), b"".join(ids))
    assert hits == reference.probe_ids(tuple(filters), ids)
    assert hits[0] == 1 and hits[80] == 255 and hits.count(0) > 150
    assert _lookups.probe_ids((), b"".join(ids)) == bytes(len(ids))


def test_the_answers_need_no_byte_beyond_their_arrays() -> None:
    room = GuardedRoom(4096)
    for count in (0, 1, 7):
        ids = [bytes([number]) * 32 for number in range(count)]
        lengths = array("I", range(1, count + 1))
        for guarded in room.places(lengths.tobytes()):
            rows = _lookups.chunk_rows(b"".join(ids), guarded, 3, 4)  # type: ignore[arg-type]
            assert rows == reference.chunk_rows(ids, list(lengths), 3, 4)


def test_what_does_not_fit_together_is_refused() -> None:
    block = bytes(44)
    with pytest.raises(ValueError, match="one length to each id"):
        _lookups.chunk_rows(bytes(32), array("I", [1, 2]), 0, 0)
    with pytest.raises(ValueError, match="16 bits"):
        _lookups.chunk_rows(b"", array("I"), 0, 65_536)
    with pytest.raises(ValueError, match="one block to each id"):
        _lookups.frames_of([block], b"")
    with pytest.raises(ValueError, match="whole number of rows"):
        _lookups.frames_of([block[1:]], bytes(32))
    with pytest.raises(ValueError, match="whole number of fences"):
        _lookups.blocks_of(bytes(9), 8, bytes(32))
    with pytest.raises(ValueError, match="whole number of ids"):
        _lookups.probe_ids((), bytes(31))
    with pytest.raises(TypeError):
        _lookups.probe_ids((bytearray(64),), bytes(32))  # type: ignore[arg-type]

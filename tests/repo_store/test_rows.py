"""The C of _rows.c is held to its reference, and the filter to the rate that memory was planned with."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import rows_reference as reference

from repo_store import _rows
from repo_store.run import filter_bytes

# Few different bytes, so that keys are often equal, or equal up to a late byte.
ROWS = st.integers(8, 30).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.lists(
            st.lists(st.sampled_from([0, 1, 255]), min_size=size, max_size=size).map(bytes), max_size=30
        ).map(b"".join),
    )
)


@given(ROWS)
def test_rows_are_sorted_by_all_their_bytes(rows: tuple[int, bytes]) -> None:
    size, data = rows
    changed = bytearray(data)
    _rows.sort_rows(changed, size)
    assert bytes(changed) == reference.sort_rows(data, size)


@given(ROWS, st.data())
def test_the_lower_bound_is_the_number_of_rows_below_the_key(
    rows: tuple[int, bytes], data: st.DataObject
) -> None:
    size, ordered = rows[0], reference.sort_rows(rows[1], rows[0])
    key = data.draw(st.lists(st.sampled_from([0, 1, 255]), max_size=size).map(bytes))
    assert _rows.lower_bound(ordered, size, key) == reference.lower_bound(ordered, size, key)


@given(ROWS, st.integers(0, 8), st.sampled_from([0, 1, 2, 256, 1 << 32 - 1]))
def test_the_first_bad_row_is_named(rows: tuple[int, bytes], key_bytes: int, limit: int) -> None:
    size, data = rows
    for checked in (data, reference.sort_rows(data, size)):
        expected = reference.check_rows(checked, size, key_bytes, size - 4, limit)
        assert _rows.check_rows(checked, size, key_bytes, size - 4, limit) == expected


@given(st.lists(st.tuples(st.binary(min_size=20, max_size=20), st.integers(0, 4)), max_size=20), st.data())
def test_numbers_are_replaced_and_dropped_rows_close_up(
    rows: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    number = st.sampled_from([0, 1, 7, reference.DROP])
    numbers = data.draw(st.lists(number, min_size=5, max_size=5))
    joined = b"".join(key + struct.pack("<IQ", index, 5) for key, index in rows)
    changed = bytearray(joined)
    kept = _rows.remap_rows(changed, 32, 20, struct.pack("<5I", *numbers))
    assert bytes(changed[: kept * 32]) == reference.remap_rows(joined, 32, 20, numbers)


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=40), st.integers(1, 5), st.data())
def test_the_filter_is_the_one_of_the_reference(keys: list[bytes], blocks: int, data: st.DataObject) -> None:
    fast, slow = bytearray(64 * blocks), bytearray(64 * blocks)
    _rows.filter_add(fast, b"".join(keys), 32)
    reference.filter_add(slow, b"".join(keys), 32)
    assert fast == slow
    filters = (b"", bytes(fast), bytes(64), bytes([255]) * 64)
    for key in [*keys, data.draw(st.binary(min_size=32, max_size=32))]:
        assert _rows.probe(filters, key) == reference.probe(filters, key)


@pytest.mark.parametrize("key_bytes", [20, 32])
def test_one_and_a_half_in_a_hundred_pass_the_filter_wrongly(key_bytes: int) -> None:
    choice, count = random.Random(1), 50_000
    if key_bytes == 32:
        keys = [choice.randbytes(32) for _ in range(2 * count)]
    else:  # frame names: whole origins in or out, that differ in the last bytes only
        origins = [choice.randbytes(16) for _ in range(2 * count // 50)]
        keys = [origin + ordinal.to_bytes(4, "big") for origin in origins for ordinal in range(50)]
    filled = bytearray(filter_bytes(count))
    _rows.filter_add(filled, b"".join(keys[:count]), key_bytes)
    filters = (bytes(filled),)
    assert all(_rows.probe(filters, key) for key in keys[:count])
    assert sum(_rows.probe(filters, key) for key in keys[count:]) < 0.015 * count


def test_arguments_that_would_read_outside_a_buffer_are_refused() -> None:
    rows, numbers = bytearray(64), struct.pack("<I", 0)
    for call in (
        lambda: _rows.sort_rows(rows, 63),
        lambda: _rows.sort_rows(rows, 0),
        lambda: _rows.sort_rows(rows, 4),
        lambda: _rows.lower_bound(rows, 32, bytes(33)),
        lambda: _rows.check_rows(rows, 32, 33, 0, 1),
        lambda: _rows.check_rows(rows, 32, 8, 29, 1),
        lambda: _rows.remap_rows(rows, 32, 30, numbers),
        lambda: _rows.remap_rows(bytearray(b"\1" * 32), 32, 8, numbers),
        lambda: _rows.filter_add(bytearray(63), rows, 32),
        lambda: _rows.filter_add(bytearray(64), rows, 16),
        lambda: _rows.probe((bytes(64),) * 63, bytes(32)),
    ):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(TypeError):
        _rows.probe((bytes(64),), bytes(19))

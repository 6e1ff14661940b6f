"""The C of _rows.c stays inside of the buffers that it is given.

Method: every buffer is laid once flush against a forbidden page in front and once against one behind; one byte
read or written outside ends the process. The answers must be those of the reference, wherever the buffers lie.
`make sanitize` runs this file and test_rows.py once more under the address and undefined-behaviour sanitizers.
"""

import random
import struct
import sys
from collections.abc import Iterator

import pytest
from support import rows_reference as reference
from support.guard_pages import GuardedRoom

from repo_store import _rows

ROW_BYTES = (8, 9, 20, 31, 44, 60)
COUNTS = (0, 1, 2, 3, 7, 64, 65)
ROOM_BYTES = 2 * 4096


@pytest.fixture(scope="module")
def rooms() -> tuple[GuardedRoom, GuardedRoom]:
    return GuardedRoom(ROOM_BYTES), GuardedRoom(ROOM_BYTES)


def inputs(row_bytes_min: int = 8) -> Iterator[tuple[int, bytes]]:
    """Yield (row_bytes, rows): many are equal in their first eight bytes, some in all, so that the rest is compared."""
    choice = random.Random(1)
    for row_bytes in ROW_BYTES:
        for count in COUNTS:
            if row_bytes >= row_bytes_min:
                rests = (bytes(choice.choices((0, 255), k=row_bytes - 8)) for _ in range(count))
                yield row_bytes, b"".join(bytes([choice.choice((0, 1))]) * 8 + rest for rest in rests)


def test_sorting_touches_its_rows_only(rooms: tuple[GuardedRoom, GuardedRoom]) -> None:
    for row_bytes, data in inputs():
        for rows in rooms[0].places(data):
            _rows.sort_rows(rows, row_bytes)
            assert bytes(rows) == reference.sort_rows(data, row_bytes)


def test_a_search_reads_its_rows_and_its_key_only(rooms: tuple[GuardedRoom, GuardedRoom]) -> None:
    for row_bytes, data in inputs():
        ordered = reference.sort_rows(data, row_bytes)
        for key_bytes in (0, 1, 7, row_bytes):
            key = (ordered[-row_bytes:] or bytes(row_bytes))[:key_bytes]
            for rows in rooms[0].places(ordered):
                for guarded_key in rooms[1].places(key):
                    found = _rows.lower_bound(rows, row_bytes, guarded_key)
                    assert found == reference.lower_bound(ordered, row_bytes, key)


def test_a_check_reads_its_rows_only(rooms: tuple[GuardedRoom, GuardedRoom]) -> None:
    for row_bytes, data in inputs():
        for key_bytes in (0, row_bytes):
            for rows in rooms[0].places(data):
                for index_at in (0, row_bytes - 4):
                    expected = reference.check_rows(data, row_bytes, key_bytes, index_at, 256)
                    assert _rows.check_rows(rows, row_bytes, key_bytes, index_at, 256) == expected


def test_new_numbers_touch_their_rows_only(rooms: tuple[GuardedRoom, GuardedRoom]) -> None:
    numbers = [3, reference.DROP, 0, 1 << 31, 9]
    for row_bytes in ROW_BYTES:
        for count in COUNTS:
            row = bytes(row_bytes - 4)
            data = b"".join(row + struct.pack("<I", number % len(numbers)) for number in range(count))
            for map_ in rooms[1].places(struct.pack(f"<{len(numbers)}I", *numbers)):
                for rows in rooms[0].places(data):
                    kept = _rows.remap_rows(rows, row_bytes, row_bytes - 4, map_)
                    expected = reference.remap_rows(data, row_bytes, row_bytes - 4, numbers)
                    assert bytes(rows[: kept * row_bytes]) == expected


def test_a_number_behind_the_end_of_the_map_is_never_looked_up(
    rooms: tuple[GuardedRoom, GuardedRoom],
) -> None:
    for index in (0, 1, 2, 1 << 31, reference.DROP):
        for map_ in rooms[1].places(struct.pack("<I", 5)[: 4 * (index > 0)]):
            with pytest.raises(ValueError, match="outside the map"):
                _rows.remap_rows(bytearray(struct.pack("<QI", 0, index)), 12, 8, map_)


@pytest.mark.parametrize("filter_bytes", [64, 65, 127, 128, 4096])
def test_a_filter_is_written_in_its_whole_blocks_only(
    rooms: tuple[GuardedRoom, GuardedRoom], filter_bytes: int
) -> None:
    for row_bytes, data in inputs(row_bytes_min=20):
        expected = bytearray(filter_bytes)
        reference.filter_add(expected, data, row_bytes)
        for filter_ in rooms[0].places(bytes(filter_bytes)):
            for rows in rooms[1].places(data):
                _rows.filter_add(filter_, rows, row_bytes)
                if filter_bytes % 64 == 0:  # the last, broken block belongs to no key
                    assert bytes(filter_) == expected
                else:
                    assert not any(filter_[filter_bytes // 64 * 64 :])


@pytest.mark.parametrize("far", [sys.maxsize, sys.maxsize - 3, -sys.maxsize - 1, -1])
def test_places_at_the_end_of_the_world_are_refused(far: int) -> None:
    rows = bytearray(64)
    for call in (
        lambda: _rows.check_rows(rows, 32, 8, far, 1),
        lambda: _rows.check_rows(rows, 32, far, 8, 1),
        lambda: _rows.remap_rows(rows, 32, far, bytes(4)),
        lambda: _rows.sort_rows(rows, far),
        lambda: _rows.filter_add(bytearray(64), rows, far),
        lambda: _rows.lower_bound(rows, far, b""),
    ):
        with pytest.raises(ValueError):
            call()

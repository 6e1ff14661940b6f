"""Row streams: the rows of an index in sorted order, raw, for whoever compares many keys with all of them.

A lookup of one chunk costs microseconds, reading on to the next row a fraction of one: who has as many keys as there are
rows sorts them and goes through both side by side. This module touches no storage.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from repo_store._rows import lower_bound, remap_rows
from repo_store.errors import StorageError

DROP = 0xFFFFFFFF
"""What a number is mapped to whose rows are left out."""
NUMBER_AT = 32  # within a chunk row: the number of its origin


class RowsChanged(StorageError):
    """A file of the local cache was damaged while its rows were read, and has been made again."""


class RowStream(NamedTuple):
    """All chunk rows of one run, or of what is in memory, in the order of their ids.

    `origins` are what the numbers in the rows stand for, None where the table of those rows does not count.
    """

    origins: tuple[bytes | None, ...]
    pieces: Callable[[], Iterator[bytes]]
    """Reads the rows, some thousands at a time. Raises RowsChanged."""


def renumber(piece: bytes, numbers: bytes, row_bytes: int) -> bytes:
    """Return the rows with their numbers mapped through `numbers` (u32 each), without those that map to DROP."""
    rows = bytearray(piece)
    kept = remap_rows(rows, row_bytes, NUMBER_AT, numbers)
    return bytes(memoryview(rows)[: kept * row_bytes])


def beside(
    wanted: bytes | bytearray, width: int, pieces: Iterator[bytes], row_bytes: int
) -> Iterator[tuple[int, int, bytes]]:
    """Yield (first, last, rows): each piece of sorted rows with the range of the sorted keys `wanted` that may be in it.

    Keys have `width` bytes and begin with an id, as rows do. Rows of one id may be in two pieces: then ranges overlap.
    """
    for rows in pieces:
        if rows:
            last_id = rows[-row_bytes:][:NUMBER_AT]
            last = lower_bound(wanted, width, last_id + b"\xff" * (width - NUMBER_AT))
            while wanted[last * width : last * width + NUMBER_AT] == last_id:
                last += 1
            yield lower_bound(wanted, width, rows[:NUMBER_AT]), last, rows

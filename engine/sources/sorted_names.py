"""Sorted names: the names in one directory in the order of their raw bytes, however many there are.

Up to NAMES_MAX names are sorted in memory. A larger directory is sorted in runs that wait in an unnamed
temporary file and are merged while they are read, so memory does not grow with the directory.
"""

import heapq
import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from typing import IO

NAMES_MAX = 100_000
"""Names held in memory at once: about 8 MB."""

READ_BYTES = 64 * 1024
"""Read ahead for each run of a spilled directory."""

_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()


def sorted_names(directory_fd: int) -> Iterator[bytes]:
    """Return the names in the directory, sorted. All are read before it returns, none is read twice.

    Raises OSError if the directory cannot be read or the temporary file not be written.
    """
    # Given a descriptor, scandir has only str names; the codec of the file system takes them back exactly.
    with os.scandir(directory_fd) as listing:
        names = sorted([item.name.encode(_ENCODING, _ERRORS) for item in islice(listing, NAMES_MAX)])
        if len(names) < NAMES_MAX:
            return iter(names)
        spill = tempfile.TemporaryFile()
        runs: list[tuple[int, int]] = []
        try:
            while names:
                runs.append(_write_run(spill, names))
                names = sorted([item.name.encode(_ENCODING, _ERRORS) for item in islice(listing, NAMES_MAX)])
            spill.flush()
        except BaseException:
            spill.close()
            raise
    return _merge(spill, runs)


def _write_run(spill: IO[bytes], names: list[bytes]) -> tuple[int, int]:
    """Append the names, each with a NUL after it (no name holds one), and return where they start and end."""
    start = spill.tell()
    spill.write(b"\0".join(names) + b"\0")
    return start, spill.tell()


def _merge(spill: IO[bytes], runs: list[tuple[int, int]]) -> Iterator[bytes]:
    with spill:
        yield from heapq.merge(*(_read_run(spill.fileno(), start, end) for start, end in runs))


def _read_run(fd: int, start: int, end: int) -> Iterator[bytes]:
    rest = b""
    while start < end:
        piece = os.pread(fd, min(READ_BYTES, end - start), start)
        if not piece:
            raise OSError("the temporary file with sorted names ended early")
        start += len(piece)
        *names, rest = (rest + piece).split(b"\0")
        yield from names

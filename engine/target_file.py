"""Target file: one file of a restore, written in pieces, in any order, by any thread.

Runs of zeros are not written, so that holes come back; a file's descriptor may be closed between two writes,
so that a restore in pack order can have more files under way than descriptors.
"""

import os
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING

from engine.problems import printable_path
from repo_store.entry import Entry, Path
from repo_store.errors import ObjectDamaged

if TYPE_CHECKING:
    from engine.target import Target

OPEN_FILES_MAX = 256
HOLE_BYTES = 4096
"""The unit in which zeros are left out, and its alignment in the file: the block size of most file systems."""

_ZEROS = bytes(HOLE_BYTES)
_CLOSED = -1


def data_runs(data: bytes | memoryview, offset: int) -> list[tuple[int, int]]:
    """Return (start, end) of what must be written of `data`, which belongs at `offset` of a file.

    What lies between is whole aligned blocks of zeros. Data without zeros where blocks begin, as text, is
    told apart by looking at one byte of each block.
    """
    length = len(data)
    first = -offset % HOLE_BYTES
    heads = bytes(data[first::HOLE_BYTES])
    runs: list[tuple[int, int]] = []
    begin = 0
    block = heads.find(0)
    while block >= 0:
        start = first + block * HOLE_BYTES
        end = start + HOLE_BYTES
        if end <= length and bytes(data[start:end]) == _ZEROS:
            if begin < start:
                runs.append((begin, start))
            begin = end
        block = heads.find(0, block + 1)
    if begin < length:
        runs.append((begin, length))
    return runs


def write_runs(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write `data` at `offset` except for its blocks of zeros. Returns where the last byte written ended."""
    runs = data_runs(data, offset) if len(data) >= HOLE_BYTES else [(0, len(data))]
    for start, end in runs:
        piece = data if end - start == len(data) else memoryview(data)[start:end]
        written = os.pwrite(fd, piece, offset + start)
        while written < end - start:
            written += os.pwrite(fd, memoryview(data)[start + written : end], offset + start + written)
    return offset + runs[-1][1] if runs else 0


class TargetFile:
    """A file being restored. `write_at` may be called from many threads, `finish` or `discard` once, by one."""

    def __init__(self, target: "Target", path: Path, entry: Entry, fd: int) -> None:
        """Own `fd`, the new and empty file at `path` of the target."""
        self.path = path
        self.entry = entry
        self.fd = fd
        self.identity = (0, 0, 0)  # device, inode, owner: noted when it is closed, compared when opened again
        self.pins = 0
        self._target = target

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write `data`, which belongs at `offset` of the file.

        Raises ObjectDamaged if that is beyond the size in its entry, StorageError if it cannot be written.
        """
        if offset < 0 or offset + len(data) > self.entry.size:
            raise ObjectDamaged(printable_path(self.path), "its content is longer than its size")
        self._target.write_piece(self, offset, data)

    def finish(self) -> None:
        """Give the file its size and metadata and close it. Ranges never written are zeros."""
        self._target.finish_file(self)

    def discard(self) -> None:
        """Remove the file: not all of its content could be had. The caller reports why."""
        self._target.discard_file(self)


class OpenFiles:
    """The files under way: pinned ones stay open, of the idle ones the last OPEN_FILES_MAX used."""

    def __init__(self, reopen: Callable[[TargetFile], int]) -> None:
        self._reopen = reopen
        self._idle: OrderedDict[TargetFile, None] = OrderedDict()
        self._lock = Lock()

    def add(self, file: TargetFile) -> TargetFile:
        """Take in a new open file, and return it."""
        with self._lock:
            self._make_idle(file)
        return file

    def pin(self, file: TargetFile) -> int:
        """Return the open descriptor; it stays open until as many calls of `unpin`. Raises OSError."""
        with self._lock:
            if file.fd == _CLOSED:
                file.fd = self._reopen(file)
            self._idle.pop(file, None)
            file.pins += 1
            return file.fd

    def unpin(self, file: TargetFile) -> None:
        """Let the file be closed when others need its descriptor."""
        with self._lock:
            file.pins -= 1
            if file.pins == 0:
                self._make_idle(file)

    def close(self, file: TargetFile) -> None:
        """Close the file for good, by whoever holds the last pin."""
        with self._lock:
            self._idle.pop(file, None)
            self._close(file)

    def close_all(self) -> None:
        """Close what was begun and never finished."""
        with self._lock:
            while self._idle:
                self._close(self._idle.popitem(last=False)[0])

    def _make_idle(self, file: TargetFile) -> None:
        self._idle[file] = None
        if len(self._idle) > OPEN_FILES_MAX:
            oldest, _ = self._idle.popitem(last=False)
            status = os.fstat(oldest.fd)
            oldest.identity = (status.st_dev, status.st_ino, status.st_uid)
            self._close(oldest)

    def _close(self, file: TargetFile) -> None:
        if file.fd != _CLOSED:
            os.close(file.fd)
            file.fd = _CLOSED

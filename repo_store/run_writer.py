"""Run writer: makes one file of the local cache from rows that arrive in order.

The file is written under a temporary name, not synced, and renamed when it is whole; a run that only this process
needs is unlinked at once and lives as long as it is open. docs for the layout: run.py. This module touches only the
folder that it is given.
"""

import os
import secrets
from array import array
from collections.abc import Sequence
from pathlib import Path

import msgpack
from blake3 import blake3

from repo_store._rows import filter_add
from repo_store.os_errors import cache_failing
from repo_store.row_batch import ROW_BYTES
from repo_store.rows import Section
from repo_store.run import (
    BLOCK_ROWS,
    FENCE_BYTES,
    FOOTER,
    MAGIC,
    ORIGIN_ENTRY,
    PACK_ENTRY,
    Run,
    TableEntry,
    block_check,
    filter_bytes,
)

RUN_SUFFIX, TEMPORARY_SUFFIX = ".run", ".tmp"
_DROP = 0xFFFFFFFF  # as in _rows.c
_FLUSH_BYTES = 4 * 1024 * 1024


def make_private_folder(folder: str) -> None:
    """Make `folder` and the one it lies in, for this user only, unless they are there. Raises StorageError."""
    with cache_failing("create", folder):
        for path in (os.path.dirname(folder), folder):
            os.makedirs(path, mode=0o700, exist_ok=True)


class Dictionary:
    """The packs and origins of a run in the making, each with the table that it came from."""

    def __init__(self) -> None:
        self.tables: list[TableEntry] = []
        self._packs: dict[bytes, int] = {}
        self._origins: dict[bytes, int] = {}

    def add_table(self, entry: TableEntry) -> int:
        """Add a table; return its number."""
        self.tables.append(entry)
        return len(self.tables) - 1

    def add_packs(self, entries: Sequence[tuple[bytes, int, int | None]]) -> "array[int]":
        """Add packs (hash, size, number of the table or None to drop); return the new number of each."""
        return _numbers(
            self._packs, [None if t is None else PACK_ENTRY.pack(pack, size, t) for pack, size, t in entries]
        )

    def add_origins(self, entries: Sequence[tuple[bytes, int | None]]) -> "array[int]":
        """Add origins (name, number of the table or None to drop); return the new number of each."""
        return _numbers(
            self._origins, [None if t is None else ORIGIN_ENTRY.pack(origin, t) for origin, t in entries]
        )

    def encoded(self) -> tuple[bytes, bytes]:
        """Return packs and origins as a run holds them."""
        return b"".join(self._packs), b"".join(self._origins)


def _numbers(known: dict[bytes, int], entries: Sequence[bytes | None]) -> "array[int]":
    numbers = array("I")
    assert numbers.itemsize == 4
    for entry in entries:
        numbers.append(_DROP if entry is None else known.setdefault(entry, len(known)))
    return numbers


class RunWriter:
    """Writes one run. Rows come section by section, in order; `finish` gives the run, `abandon` removes the file."""

    def __init__(self, folder: str, lineage: bytes, counts_max: Sequence[int]) -> None:
        """`counts_max` are at least the rows that will come for each section: the filters are made for as many."""
        self._folder, self._lineage = folder, lineage
        self._name = secrets.token_hex(16)
        self._path = os.path.join(folder, self._name + TEMPORARY_SUFFIX)
        make_private_folder(folder)
        with cache_failing("create", self._path):
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._salt = os.urandom(32)
        self._filters = [bytearray(filter_bytes(count)) for count in counts_max]
        self._fences = (bytearray(), bytearray(), bytearray())
        self.counts = [0, 0, 0]
        self._section = 0
        self._partial = bytearray()
        self._buffer = bytearray()

    def add(self, section: int, rows: bytes | bytearray) -> None:
        """Append rows to a section; sections must come in order. Raises StorageError."""
        if section != self._section:
            assert section > self._section, "sections come in order"
            self._end_section()
            self._section = section
        if not rows:
            return
        row_bytes = ROW_BYTES[section]
        filter_add(self._filters[section], rows, row_bytes)
        self._partial += rows
        self.counts[section] += len(rows) // row_bytes
        step = BLOCK_ROWS * row_bytes
        whole = len(self._partial) - len(self._partial) % step
        if whole:
            self._add_blocks(memoryview(self._partial)[:whole], step)
            del self._partial[:whole]

    def _add_blocks(self, rows: memoryview, step: int) -> None:
        fences, fence_bytes = self._fences[self._section], FENCE_BYTES[self._section]
        for at in range(0, len(rows), step):
            block = rows[at : at + step]
            fences += block[:fence_bytes]
            self._buffer += block
            self._buffer += block_check(self._salt, block)
        rows.release()
        if len(self._buffer) >= _FLUSH_BYTES:
            self._flush()

    def _end_section(self) -> None:
        if self._partial:
            rows = memoryview(self._partial)
            self._add_blocks(rows, len(rows))
            self._partial = bytearray()

    def _flush(self) -> None:
        self._write(self._buffer)
        self._buffer = bytearray()

    def _write(self, data: bytes | bytearray) -> None:
        view = memoryview(data)
        with cache_failing("write", self._path):
            while view:
                view = view[os.write(self._fd, view) :]

    def finish(self, dictionary: Dictionary, *, private: bool) -> Run:
        """Complete the file and return it opened; a private one has no name any more. Raises StorageError."""
        self._end_section()
        self._flush()
        packs, origins = dictionary.encoded()
        parts: list[bytes | bytearray] = [*self._filters, *self._fences, packs, origins]
        body = {
            "repository": self._lineage,
            "salt": self._salt,
            "counts": self.counts,
            "tables": [list(entry) for entry in dictionary.tables],
            "parts": [[len(part), blake3(part).digest()] for part in parts],
        }
        for part in parts:
            self._write(part)
        parts.clear()  # the run reads them again: not two copies of the filters
        self._filters.clear()
        tail = msgpack.packb(body)
        self._write(tail + FOOTER.pack(MAGIC, len(tail), blake3(tail).digest()))
        name = "" if private else self._name + RUN_SUFFIX
        with cache_failing("name", self._path):
            if private:
                Path(self._path).unlink(missing_ok=True)  # another process may have swept the folder
            else:
                Path(self._path).rename(Path(self._folder, name))
        fd, self._fd = self._fd, -1
        return Run(fd, name, self._lineage)

    def abandon(self) -> None:
        """Remove the file, unless it is finished."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with cache_failing("remove", self._path):
                Path(self._path).unlink(missing_ok=True)


def write_sorted(
    folder: str,
    lineage: bytes,
    sections: Sequence[bytes | bytearray],
    dictionary: Dictionary,
    *,
    private: bool,
) -> Run:
    """Write a run of rows that are sorted in memory. Raises StorageError."""
    counts = [len(sections[section]) // ROW_BYTES[section] for section in Section]
    writer = RunWriter(folder, lineage, counts)
    try:
        for section in Section:
            writer.add(section, sections[section])
        return writer.finish(dictionary, private=private)
    except BaseException:
        writer.abandon()
        raise

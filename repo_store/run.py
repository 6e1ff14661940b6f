"""Runs: sorted rows of many tables in one immutable file of the local cache.

    blocks of section 0 || … 1 || … 2 || filters || fences || packs || origins || tail || footer

A block holds 64 rows and an 8-byte check. Resident are, for each section, a fence (the start of each block's first
key) and a filter, and the two dictionaries: about 12 bits a row. Everything else is read by `pread`, a block at a
time. The file is private to one user and can be lost: it is never synced, so every byte is checked before it is
believed, at opening or when its block is read. What does not check raises RunDamaged, and the rows are fetched from
the storage again. The file's layout is no part of the repository format.

A dictionary entry names the table that it came from. So a table that is no longer listed, or not trusted, is left
out of every answer at once, without touching its rows; the next merge drops them.
"""

import os
import struct
import weakref
from collections.abc import Iterator
from typing import NamedTuple

import msgpack
from blake3 import blake3

from repo_store._lookups import blocks_of, frames_of
from repo_store._rows import lower_bound
from repo_store.frame import NAME_BYTES
from repo_store.pack_key import ORIGIN_BYTES
from repo_store.row_batch import (
    ROW_BYTES,
    chunk_place,
    frame_location,
    origin_number,
    pack_number,
    row_ordinal,
)
from repo_store.rows import ChunkPlace, FrameLocation, Section

BLOCK_ROWS = 64
CHECK_BYTES = 8
FENCE_BYTES = (NAME_BYTES, 8, 8)
FILTER_BLOCK_BYTES = 64
FILTER_ROW_BITS = 10
"""1.3 % of the keys that are not there pass; measured in tests/repo_store/test_run.py."""

PACK_ENTRY = struct.Struct("<32sQI")  # hash, size, number of the table
ORIGIN_ENTRY = struct.Struct("<16sI")  # origin, number of the table
FOOTER = struct.Struct("<8sQ32s")  # magic, length of the tail, its hash
MAGIC = b"HFRUN 1\n"
_BLOCKS_AT_ONCE = 48  # read in sequence: 135 to 185 kB


class RunDamaged(Exception):
    """A file of the cache is not as it was written. It can be made again, so this never leaves the index."""

    def __init__(self, run: "Run | None", reason: str) -> None:
        super().__init__(reason)
        self.run = run


class TableEntry(NamedTuple):
    """A table whose rows are in a run: its hash (32; 16 random bytes before it has one), signer and rows."""

    name: bytes
    signer: bytes
    rows: int


def filter_bytes(count: int) -> int:
    """Return the size of a filter for `count` rows."""
    return FILTER_BLOCK_BYTES * -(-count * FILTER_ROW_BITS // (8 * FILTER_BLOCK_BYTES))


def block_check(salt: bytes, rows: bytes | memoryview) -> bytes:
    """Return the check that follows a block; the salt of the file makes blocks of other files wrong."""
    return blake3(rows, key=salt).digest(CHECK_BYTES)


class Run:
    """An open run. Never changes but for `alive` and `listed`; the file is closed when the last user lets go of it."""

    def __init__(self, fd: int, name: str, lineage: bytes) -> None:
        """Take over the open file `fd`. Raises RunDamaged if its resident parts are not whole, or of another repository."""
        self.name = name
        self._fd = fd
        weakref.finalize(self, os.close, fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead: lookups jump about
        tail, end = self._read_tail()
        try:
            self._take(tail, end, lineage)
        except (KeyError, TypeError, ValueError, struct.error):
            raise RunDamaged(None, f"{name}: its tail is not understood") from None

    def _read_tail(self) -> tuple[bytes, int]:
        size = os.fstat(self._fd).st_size
        footer = os.pread(self._fd, FOOTER.size, max(0, size - FOOTER.size))
        if len(footer) != FOOTER.size:
            raise RunDamaged(None, f"{self.name}: too short")
        magic, length, digest = FOOTER.unpack(footer)
        end = size - FOOTER.size - length
        if magic != MAGIC or end < 0:
            raise RunDamaged(None, f"{self.name}: does not end like a run")
        tail = os.pread(self._fd, length, end)
        if blake3(tail).digest() != digest:
            raise RunDamaged(None, f"{self.name}: its tail is damaged")
        return tail, end

    def _take(self, tail: bytes, end: int, lineage: bytes) -> None:
        body = msgpack.unpackb(tail)
        if body["repository"] != lineage:
            raise RunDamaged(None, f"{self.name}: of another repository")
        self._salt: bytes = body["salt"]
        self.counts: tuple[int, ...] = tuple(body["counts"])
        self.tables = tuple(TableEntry(*entry) for entry in body["tables"])
        self._starts = block_starts(self.counts)
        at, parts = self._starts[-1], []
        for size, digest in body["parts"]:
            parts.append((at, size, digest))
            at += size
        if at != end or len(parts) != 8:
            raise RunDamaged(None, f"{self.name}: has bytes that nothing accounts for")
        self.filters: tuple[bytes, ...] = ()
        self._filter_parts = parts[:3]
        self._fences = tuple(self._read_part(None, *part) for part in parts[3:6])
        self.packs, self.origins = (self._read_part(None, *part) for part in parts[6:])
        self.alive = self.listed = bytes([1]) * len(self.tables)

    def _read_part(self, run: "Run | None", at: int, size: int, digest: bytes) -> bytes:
        part = os.pread(self._fd, size, at)
        if blake3(part).digest() != digest:
            raise RunDamaged(run, f"{self.name}: its resident part is damaged")
        return part

    def load_filters(self) -> None:
        """Read the filters, which lookups need and merges do not. Raises RunDamaged."""
        if not self.filters:
            self.filters = tuple(self._read_part(self, *part) for part in self._filter_parts)

    @property
    def live_rows(self) -> int:
        """Rows of tables that are alive."""
        return sum(entry.rows for entry, alive in zip(self.tables, self.alive, strict=True) if alive)

    def read_block(self, section: int, number: int) -> bytes:
        """Return the rows of one block. Raises RunDamaged."""
        step = BLOCK_ROWS * ROW_BYTES[section] + CHECK_BYTES
        at = self._starts[section] + number * step
        data = os.pread(self._fd, min(step, self._starts[section + 1] - at), at)
        rows = data[:-CHECK_BYTES]
        self._check_block(section, number, rows, data[-CHECK_BYTES:])
        return rows

    def _check_block(self, section: int, number: int, rows: bytes, check: bytes) -> None:
        fence_bytes = FENCE_BYTES[section]
        fence = self._fences[section][number * fence_bytes : (number + 1) * fence_bytes]
        if block_check(self._salt, rows) != check or not rows.startswith(fence) or not rows:
            raise RunDamaged(self, f"{self.name}: a block of section {section} is damaged")

    def stream(self, section: int) -> Iterator[bytes]:
        """Yield all rows of a section in order, some blocks at a time, and let go of their file pages."""
        step = BLOCK_ROWS * ROW_BYTES[section] + CHECK_BYTES
        end = self._starts[section + 1]
        for first, start in enumerate(range(self._starts[section], end, step * _BLOCKS_AT_ONCE)):
            data = os.pread(self._fd, min(step * _BLOCKS_AT_ONCE, end - start), start)
            blocks = [data[at : at + step] for at in range(0, len(data), step)]
            for number, block in enumerate(blocks, first * _BLOCKS_AT_ONCE):
                self._check_block(section, number, block[:-CHECK_BYTES], block[-CHECK_BYTES:])
            if len(data) != min(step * _BLOCKS_AT_ONCE, end - start):
                raise RunDamaged(self, f"{self.name}: ends early")
            yield b"".join(block[:-CHECK_BYTES] for block in blocks)
            os.posix_fadvise(self._fd, start, len(data), os.POSIX_FADV_DONTNEED)

    def find_rows(self, section: int, key: bytes, blocks: "BlockReader") -> list[bytes]:
        """Return every row that starts with the whole key `key`, of live tables or not. Raises RunDamaged."""
        fences, fence_bytes, row_bytes = self._fences[section], FENCE_BYTES[section], ROW_BYTES[section]
        fence = key[:fence_bytes]
        number = max(0, lower_bound(fences, fence_bytes, fence) - 1)
        found: list[bytes] = []
        if not fences:
            return found
        rows = blocks.read(self, section, number)
        at = lower_bound(rows, row_bytes, key) * row_bytes
        while True:
            while rows.startswith(key, at):
                found.append(rows[at : at + row_bytes])
                at += row_bytes
            number += 1
            after = fences[number * fence_bytes : (number + 1) * fence_bytes]
            if at < len(rows) or not after or after > fence:
                return found
            rows, at = blocks.read(self, section, number), 0
            at = lower_bound(rows, row_bytes, key) * row_bytes

    def frames_of(self, section: int, ids: list[bytes], blocks: "BlockReader") -> list[bytes | None]:
        """Return for each chunk the frame of a row that it has here, for `frame_name`; None where it takes `find_rows`
        to tell. Raises RunDamaged."""
        if not self.counts[section]:
            return [None] * len(ids)
        joined = b"".join(ids)
        numbers = blocks_of(self._fences[section], FENCE_BYTES[section], joined)
        return frames_of(blocks.read_all(self, section, numbers), joined)

    def frame_name(self, frame: bytes) -> bytes | None:
        """Return the 20 bytes of the name of a frame that `frames_of` gave, or None if its table is not alive."""
        at = int.from_bytes(frame[:4], "little") * ORIGIN_ENTRY.size
        table = int.from_bytes(self.origins[at + ORIGIN_BYTES : at + ORIGIN_ENTRY.size], "little")
        return self.origins[at : at + ORIGIN_BYTES] + frame[4:] + b"\0\0" if self.alive[table] else None

    def chunk_place(self, row: bytes) -> ChunkPlace | None:
        """Return what a chunk row says, or None if its table is not alive."""
        at = origin_number(row) * ORIGIN_ENTRY.size
        table = int.from_bytes(self.origins[at + ORIGIN_BYTES : at + ORIGIN_ENTRY.size], "little")
        return chunk_place(row, self.origins[at : at + ORIGIN_BYTES]) if self.alive[table] else None

    def frame_key(self, row: bytes) -> bytes | None:
        """Return the 20 bytes of the name of the frame that a chunk row points to, or None if its table is not alive."""
        at = origin_number(row) * ORIGIN_ENTRY.size
        table = int.from_bytes(self.origins[at + ORIGIN_BYTES : at + ORIGIN_ENTRY.size], "little")
        return self.origins[at : at + ORIGIN_BYTES] + row_ordinal(row) if self.alive[table] else None

    def frame_location(self, row: bytes) -> FrameLocation | None:
        """Return what a location row says, or None if its table is not alive."""
        pack, size, table = PACK_ENTRY.unpack_from(self.packs, pack_number(row) * PACK_ENTRY.size)
        return frame_location(row, pack, size) if self.alive[table] else None

    def live_origins(self) -> tuple[bytes | None, ...]:
        """Return what the numbers in chunk rows stand for; None where the table of those rows is not alive."""
        return tuple(
            origin if self.alive[table] else None for origin, table in ORIGIN_ENTRY.iter_unpack(self.origins)
        )

    def live_packs(self) -> Iterator[tuple[bytes, int]]:
        """Yield hash and size of every pack that a live table knows."""
        for pack, size, table in PACK_ENTRY.iter_unpack(self.packs):
            if self.alive[table]:
                yield pack, size

    def listed_packs(self) -> Iterator[bytes]:
        """Yield the hash of every pack that a table knows which still exists, trusted or not."""
        return (pack for pack, _, table in PACK_ENTRY.iter_unpack(self.packs) if self.listed[table])


def block_starts(counts: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return where the blocks of each section start in the file, and where the last ends."""
    starts, at = [], 0
    for section in Section:
        starts.append(at)
        at += counts[section] * ROW_BYTES[section] + -(-counts[section] // BLOCK_ROWS) * CHECK_BYTES
    return starts[0], starts[1], starts[2], at


class BlockReader:
    """What reads blocks for a lookup: the block cache, or a run itself."""

    def read(self, run: Run, section: int, number: int) -> bytes:
        """Return the rows of one block. Raises RunDamaged."""
        return run.read_block(section, number)

    def read_all(self, run: Run, section: int, numbers: list[int]) -> list[bytes]:
        """Return the rows of each of these blocks. Raises RunDamaged."""
        return [self.read(run, section, number) for number in numbers]

"""Recent rows: what this run of the program has stored since its last table, in memory, ready to be looked up.

They are held as dictionaries because each may be asked for at once; at ROWS_MAX the index freezes them into a private
run. So memory stays bounded however much a first snapshot stores. This module touches no storage.
"""

import struct

from repo_store.directory import Directory
from repo_store.row_batch import (
    KEY_BYTES,
    ROW_BYTES,
    RowBatch,
    chunk_place,
    frame_location,
    origin_number,
    pack_number,
)
from repo_store.rows import ChunkPlace, FrameLocation, Section

ROWS_MAX = 65_536
"""About 13 MB in memory, and a table of 3 MB."""

_SPLIT = [struct.Struct(f"{key}s{row - key}s") for key, row in zip(KEY_BYTES, ROW_BYTES, strict=True)]


class RecentRows:
    """A growing set of rows. Added to by one thread at a time; looked up by any."""

    def __init__(self) -> None:
        self.count = 0
        self.packs: list[tuple[bytes, int]] = []
        self.rows: tuple[dict[bytes, bytes], dict[bytes, bytes], dict[bytes, bytes]] = ({}, {}, {})
        """For each section: key of a row → what follows it, once for each row of this key, joined."""
        self._origins: list[bytes] = []
        self._batch = RowBatch()
        self._added = [0, 0, 0]  # bytes of each section of the batch that are in `rows`

    def add_pack(self, pack: bytes, size: int, directory: Directory) -> None:
        """Add everything that the directory of the pack of this hash and size (bytes) says."""
        self._batch.add_pack(pack, size, directory)
        # Before the rows that point into them: another thread may find a row as soon as it is there.
        self.packs, self._origins = list(self._batch.packs), list(self._batch.origins)
        for section in Section:
            self._add_rows(section, bytes(self._batch.sections[section][self._added[section] :]))
            self._added[section] = len(self._batch.sections[section])

    def _add_rows(self, section: int, data: bytes) -> None:
        rows, split = self.rows[section], list(_SPLIT[section].iter_unpack(data))
        keys = [key for key, _ in split]
        if rows.keys().isdisjoint(keys) and len(set(keys)) == len(keys):
            rows.update(split)
        else:
            for key, rest in split:
                known = rows.get(key)
                rows[key] = rest if known is None else known + rest
        self.count += len(split)

    def find_rows(self, section: int, key: bytes) -> list[bytes]:
        """Return every row of the whole key `key`."""
        rest, size = self.rows[section].get(key, b""), ROW_BYTES[section] - KEY_BYTES[section]
        return [key + rest[at : at + size] for at in range(0, len(rest), size)]

    def all_rows(self, section: int) -> list[bytes]:
        """Return every row of a section."""
        return [row for key in list(self.rows[section]) for row in self.find_rows(section, key)]

    def chunk_place(self, row: bytes) -> ChunkPlace:
        """Return what a chunk row says."""
        return chunk_place(row, self._origins[origin_number(row)])

    def frame_location(self, row: bytes) -> FrameLocation:
        """Return what a location row says."""
        return frame_location(row, *self.packs[pack_number(row)])

    def batch(self) -> RowBatch:
        """Return all rows, sorted."""
        batch = RowBatch()
        batch.packs, batch.origins = dict(self._batch.packs), dict(self._batch.origins)
        for section in Section:
            batch.sections[section].extend(self._batch.sections[section])
        batch.sort()
        return batch

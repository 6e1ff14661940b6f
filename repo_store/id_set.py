"""Sets of ids that may be large: which tree nodes were seen, which chunks are needed.

    IdSet       in memory, 32 bytes an id; answers whether an id is new
    SortedIds   in files beyond a bound; gives all ids back in order, each once

A Python set takes a hundred bytes for an id. Prune asks about every node and chunk of a repository, so both kinds keep
ids as sorted rows joined in flat buffers. Ids are compared whole: a hash of an id would one day take a needed chunk
for one that was seen. The files have no name and end with the process.
"""

import heapq
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from repo_store._rows import lower_bound, sort_rows
from repo_store.entry import ID_BYTES
from repo_store.os_errors import cache_failing

RECENT_MAX = 16_384
"""Ids held as objects, about 2 MB, before they are joined."""
SPILL_IDS = 131_072
"""Ids held as objects, about 14 MB, before they go to a file."""
_READ_BYTES = 2048 * ID_BYTES


class IdSet:
    """Ids that were seen. Grows by 32 bytes an id; a look costs a few binary searches."""

    def __init__(self) -> None:
        self._recent: set[bytes] = set()
        self._sorted: list[bytearray] = []  # each at least twice as long as the next

    def add(self, id_: bytes) -> bool:
        """Add an id; return whether it was new."""
        if id_ in self:
            return False
        self._recent.add(id_)
        if len(self._recent) >= RECENT_MAX:
            self._join()
        return True

    def __contains__(self, id_: bytes) -> bool:
        if id_ in self._recent:
            return True
        return any(rows.startswith(id_, lower_bound(rows, ID_BYTES, id_) * ID_BYTES) for rows in self._sorted)

    def __len__(self) -> int:
        return len(self._recent) + sum(map(len, self._sorted)) // ID_BYTES

    def update(self, ids: Iterable[bytes]) -> None:
        """Add many ids."""
        for id_ in ids:
            self.add(id_)

    def _join(self) -> None:
        rows = bytearray().join(self._recent)
        self._recent = set()
        while self._sorted and len(self._sorted[-1]) < 2 * len(rows):
            rows += self._sorted.pop()
        sort_rows(rows, ID_BYTES)
        self._sorted.append(rows)


class SortedIds:
    """Ids to be gone through in order, each once; may be added to between two passes."""

    def __init__(self, folder: Path) -> None:
        """Spill into `folder`."""
        self._folder = folder
        self._recent: set[bytes] = set()
        self._files: list[tuple[IO[bytes], int]] = []

    def add(self, id_: bytes) -> None:
        """Add an id. Raises StorageError if it cannot be spilled."""
        self._recent.add(id_)
        if len(self._recent) >= SPILL_IDS:
            self._spill()

    def add_joined(self, ids: bytes) -> None:
        """Add ids that stand joined."""
        for at in range(0, len(ids), ID_BYTES):
            self.add(ids[at : at + ID_BYTES])

    def __iter__(self) -> Iterator[bytes]:
        last = b""
        for id_ in heapq.merge(sorted(self._recent), *(_ids(file, size) for file, size in self._files)):
            if id_ != last:
                yield id_
                last = id_

    def _spill(self) -> None:
        rows = b"".join(sorted(self._recent))
        self._recent = set()
        with cache_failing("write", str(self._folder)):
            file = tempfile.TemporaryFile(dir=self._folder)
            file.write(rows)
            file.flush()
        self._files.append((file, len(rows)))


def _ids(file: IO[bytes], size: int) -> Iterator[bytes]:
    for start in range(0, size, _READ_BYTES):
        rows = os.pread(file.fileno(), min(_READ_BYTES, size - start), start)
        for at in range(0, len(rows), ID_BYTES):
            yield rows[at : at + ID_BYTES]

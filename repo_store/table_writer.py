"""Table writer: a table made from rows that come in order, without holding them all.

The blocks are sealed as they fill and go to a file without a name; only what the trailer states of each block stays in
memory, 24 bytes for a thousand rows. docs/format.md, section 7, is the authority; `table.build_table` makes the
same bytes of rows that fit into memory.
"""

import mmap
import tempfile
from pathlib import Path

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from repo_store.key_ring import KeyRing
from repo_store.os_errors import cache_failing
from repo_store.row_batch import ROW_BYTES, sum_rows
from repo_store.row_sums import Merge, RowSums
from repo_store.rows import Section
from repo_store.sealed import FORMAT, Kind, make_header, seal_object
from repo_store.storage import Buffer
from repo_store.table import (
    BLOCK_ROWS,
    FIRST_BYTES,
    FOOTER,
    TABLE_MAGIC,
    TABLE_ROWS_MAX,
    block_digest,
    block_nonce,
    row_names,
    trailer_body,
)


class Names:
    """The packs and origins that the rows of one table point into, numbered as they come."""

    def __init__(self) -> None:
        self.packs: dict[tuple[bytes, int], int] = {}
        self.origins: dict[bytes, int] = {}

    def pack(self, pack: bytes, size: int) -> int:
        """Return the number of a pack."""
        return self.packs.setdefault((pack, size), len(self.packs))

    def origin(self, origin: bytes) -> int:
        """Return the number of an origin."""
        return self.origins.setdefault(origin, len(self.origins))

    def of_rows(self) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """Return, for each section, what the numbers in its rows stand for now."""
        return row_names([pack for pack, _ in self.packs], list(self.origins))


class TableWriter:
    """Writes one table. For one thread; close it."""

    def __init__(self, ring: KeyRing, folder: Path, names: Names) -> None:
        """`names` may grow until `finish`; the file lies in `folder`. Raises StorageError."""
        self._ring, self._names = ring, names
        self._header = make_header(ring, Kind.TABLE, magic=TABLE_MAGIC)
        self._cipher = AESGCM(self._header.key)
        with cache_failing("write", str(folder)):
            self._file = tempfile.TemporaryFile(dir=folder)
        self._partial = bytearray()
        self._section = Section.LOCATIONS
        self._counts, self._sums = [0, 0, 0], [0, 0, 0]
        self._firsts = (bytearray(), bytearray(), bytearray())
        self._digests = (bytearray(), bytearray(), bytearray())
        self._blocks = 0
        self._write(self._header.data)

    def add(self, section: Section, rows: bytes | bytearray) -> None:
        """Append rows to a section; sections and rows come in order."""
        if section != self._section:
            assert section > self._section, "sections come in order"
            self._end_section()
            self._section = section
        ring, names = self._ring, self._names.of_rows()
        self._counts[section] += len(rows) // ROW_BYTES[section]
        self._sums[section] += sum_rows(ring.row_sum_key, section, rows, names[section])
        self._partial += rows
        step = BLOCK_ROWS * ROW_BYTES[section]
        whole = len(self._partial) - len(self._partial) % step
        for at in range(0, whole, step):
            self._add_block(bytes(self._partial[at : at + step]))
        del self._partial[:whole]

    def sums(self) -> RowSums:
        """Return the counts and keyed sums of the rows added so far."""
        a, b, c = self._sums
        return RowSums((self._counts[0], self._counts[1], self._counts[2]), (a, b, c)) + RowSums()

    def finish(self, merge: Merge) -> tuple[str, list[Buffer]]:
        """Return name and bytes of the table, which is good until `close`.

        Raises ObjectDamaged if the rows are not those of the sources without the removed ones.
        """
        self._end_section()
        sums = self.sums()
        assert sum(sums.counts) <= TABLE_ROWS_MAX, "a table of too many rows is a bug in the caller"
        body = trailer_body(
            self._header,
            self._names.packs,
            self._names.origins,
            sums,
            firsts=[bytes(each) for each in self._firsts],
            digests=[bytes(each) for each in self._digests],
            merge=merge,
        )
        size = self._file.tell()
        trailer = seal_object(self._ring, Kind.TABLE, body, beside_bytes=size + FOOTER.size)
        footer = FOOTER.pack(TABLE_MAGIC, FORMAT, Kind.TABLE, 0, len(trailer), 0)
        self._file.flush()
        blocks = memoryview(mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ))
        hasher = blake3(blocks)
        hasher.update(trailer + footer)
        return f"tables/{hasher.hexdigest()}", [blocks, trailer, footer]

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _end_section(self) -> None:
        if self._partial:
            self._add_block(bytes(self._partial))
            self._partial = bytearray()

    def _add_block(self, rows: bytes) -> None:
        bound = self._ring.repository + self._header.data
        sealed = self._cipher.encrypt(block_nonce(self._blocks), rows, bound)
        self._firsts[self._section].extend(rows[:FIRST_BYTES])
        self._digests[self._section].extend(block_digest(sealed))
        self._blocks += 1
        self._write(sealed)

    def _write(self, data: bytes) -> None:
        with cache_failing("write", str(self._file.name)):
            self._file.write(data)

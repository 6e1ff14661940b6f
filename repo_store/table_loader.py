"""Table loader: tables of the storage become runs of the local cache.

Small tables are gathered in memory until a run is worth writing; a large one is streamed into a run of its own. Each is
checked whole: its blocks, the order of its rows, and that its name is the hash of its bytes. A damaged table costs
itself: it is reported, and its packs show up as unindexed, so that their directories can stand in for it.
"""

from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from blake3 import blake3

from repo_store._rows import remap_rows, sort_rows
from repo_store.errors import ObjectDamaged, ObjectMissing
from repo_store.key_ring import KeyRing
from repo_store.pack_key import ORIGIN_BYTES
from repo_store.row_batch import KEY_BYTES, ROW_BYTES
from repo_store.rows import Section
from repo_store.run import Run, TableEntry
from repo_store.run_writer import Dictionary, RunWriter, write_sorted
from repo_store.sealed_cache import SealedCache
from repo_store.storage import ObjectInfo, Storage
from repo_store.table import PACK_ENTRY, TABLE_BYTES_MAX, Trailer
from repo_store.table_reader import TableReader

GATHER_ROWS = 196_608
"""Rows gathered before a run is written: about 10 MB, twice that while they are sorted."""
WHOLE_BYTES_MAX = 8 * 1024 * 1024
"""A table up to this size is fetched in one request."""
_FETCHES_AT_ONCE = 4
_PIECE_BYTES = 8 * 1024 * 1024


class TableLoader:
    """Loads tables and writes runs into `folder`. `problems` collects what was damaged."""

    def __init__(
        self, storage: Storage, ring: KeyRing, folder: str, *, private: bool, kept: SealedCache
    ) -> None:
        """`private`: the runs get no name that another process could see. `kept` may have tables this machine made."""
        self._storage, self._ring = storage, ring
        self._folder, self._private = folder, private
        self._kept = kept
        self.problems: list[ObjectDamaged] = []
        self._dictionary = Dictionary()
        self._rows = (bytearray(), bytearray(), bytearray())
        self._count = 0

    def load(self, tables: Sequence[ObjectInfo]) -> Iterator[Run]:
        """Yield runs that together hold the rows of `tables`, without those damaged or gone. Raises StorageError."""
        small = [table for table in tables if table.size <= WHOLE_BYTES_MAX]
        with ThreadPoolExecutor(_FETCHES_AT_ONCE, thread_name_prefix="table") as pool:
            for at in range(0, len(small), _FETCHES_AT_ONCE):
                group = small[at : at + _FETCHES_AT_ONCE]
                for table, data in zip(group, pool.map(self._fetch, group), strict=True):
                    if data is not None:
                        self._gather(table.name, data)
                    if self._count >= GATHER_ROWS:
                        yield self._write_gathered()
        if self._dictionary.tables:
            yield self._write_gathered()
        for table in tables:
            if table.size > WHOLE_BYTES_MAX:
                yield from self._stream(table)

    def _fetch(self, table: ObjectInfo) -> bytes | None:
        kept = self._kept.get(table.name)
        if kept is not None and f"tables/{blake3(kept).hexdigest()}" == table.name:
            return kept  # the very bytes: a spoilt file is another table, or none
        try:
            return self._storage.get(table.name)
        except ObjectMissing:
            return None  # removed since it was listed: another table has its rows, or nobody needs them

    def _gather(self, name: str, data: bytes) -> None:
        try:
            if f"tables/{blake3(data).hexdigest()}" != name:
                raise ObjectDamaged(name, "its bytes are not those it was named after")
            reader = TableReader(self._ring, name, len(data), lambda at, length: data[at : at + length])
            sections = [bytearray(reader.rows(section)) for section in Section]
        except ObjectDamaged as problem:
            self.problems.append(problem)
            return
        numbers = _add_table(self._dictionary, name, reader.trailer)
        for section in Section:
            remap_rows(sections[section], ROW_BYTES[section], KEY_BYTES[section], numbers[section])
            self._rows[section].extend(sections[section])
        self._count += sum(reader.trailer.sums.counts)

    def _write_gathered(self) -> Run:
        for section in Section:
            sort_rows(self._rows[section], ROW_BYTES[section])
        run = write_sorted(
            self._folder, self._ring.repository, self._rows, self._dictionary, private=self._private
        )
        self._dictionary = Dictionary()
        self._rows, self._count = (bytearray(), bytearray(), bytearray()), 0
        return run

    def _stream(self, table: ObjectInfo) -> Iterator[Run]:
        """Yield the run of one large table, or nothing if it is damaged or gone."""
        read = _HashedRead(self._storage, table)
        writer: RunWriter | None = None
        try:
            reader = TableReader(self._ring, table.name, table.size, read)
            dictionary = Dictionary()
            numbers = _add_table(dictionary, table.name, reader.trailer)
            writer = RunWriter(self._folder, self._ring.repository, reader.trailer.sums.counts)
            for section in Section:
                for rows in reader.stream(section):
                    renumbered = bytearray(rows)
                    remap_rows(renumbered, ROW_BYTES[section], KEY_BYTES[section], numbers[section])
                    writer.add(section, renumbered)
            read.finish()
            run = writer.finish(dictionary, private=self._private)
        except ObjectDamaged as problem:
            self.problems.append(problem)
        except ObjectMissing:
            pass  # as in `_fetch`
        else:
            yield run
        finally:
            if writer is not None:
                writer.abandon()


def _add_table(dictionary: Dictionary, name: str, trailer: Trailer) -> "list[array[int]]":
    """Add a table with its packs and origins; return, by section, what the numbers in its rows become."""
    number = dictionary.add_table(
        TableEntry(bytes.fromhex(name.removeprefix("tables/")), trailer.signer, sum(trailer.sums.counts))
    )
    packs = dictionary.add_packs(
        [(pack, size, number) for pack, size in PACK_ENTRY.iter_unpack(trailer.packs)]
    )
    origins = trailer.origins
    numbers = dictionary.add_origins(
        [(origins[at : at + ORIGIN_BYTES], number) for at in range(0, len(origins), ORIGIN_BYTES)]
    )
    return [packs, numbers, numbers]


class _HashedRead:
    """Reads ranges of one object and hashes what comes in sequence, so that the hash needs no second reading."""

    def __init__(self, storage: Storage, table: ObjectInfo) -> None:
        self._storage, self._table = storage, table
        self._hash = blake3()
        self._hashed_bytes = 0

    def __call__(self, offset: int, length: int) -> bytes:
        data = self._storage.get(self._table.name, offset, length)
        if offset == self._hashed_bytes:
            self._hash.update(data)
            self._hashed_bytes += len(data)
        return data

    def finish(self) -> None:
        """Read what is left. Raises ObjectDamaged unless the name of the object is the hash of its bytes."""
        size = self._table.size
        assert size <= TABLE_BYTES_MAX, "the table reader has refused it"
        while self._hashed_bytes < size:
            if not self(self._hashed_bytes, min(_PIECE_BYTES, size - self._hashed_bytes)):
                break
        if f"tables/{self._hash.hexdigest()}" != self._table.name:
            raise ObjectDamaged(self._table.name, "its bytes are not those it was named after")

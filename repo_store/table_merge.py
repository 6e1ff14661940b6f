"""Table merge: several tables become one, without the rows of what goes, and with the proof that no other row is missing.

    merged + removed = sum of the sources            counts and keyed sums, section by section (row_sums.py)

Keys are hashes and spread evenly, so the key space is cut into ranges; the rows of a range are taken from all sources,
sorted and written. Memory is a range and some blocks of each source, whatever their size. The rows come from the tables
as the storage has them, each block checked, and both sides of the equation are computed from what was read and what
was written: a merge that does not add up is never stored.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from repo_store._rows import lower_bound
from repo_store.key_ring import KeyRing
from repo_store.pack_key import ORIGIN_BYTES
from repo_store.row_batch import ROW_BYTES, row_ordinal, sum_rows
from repo_store.row_sums import Merge, RowSums
from repo_store.rows import Section
from repo_store.storage import Buffer, Storage
from repo_store.table import PACK_ENTRY, row_names, table_hash
from repo_store.table_reader import TableReader
from repo_store.table_writer import Names, TableWriter

RANGE_ROWS = 32_768

KeepPack = Callable[[bytes, int], bool]
"""Says of a pack, by hash and size, that rows which point to it stay."""
KeepFrame = Callable[[bytes], bool]
"""Says of a frame, by the 20 bytes of its name, that the rows of its chunks stay."""


@dataclass(frozen=True)
class Merged:
    """A merged table, ready to be put, perhaps without a row. Its bytes are good until `close`."""

    name: str
    buffers: Sequence[Buffer]
    sources: tuple[bytes, ...]
    close: Callable[[], None]


def merge_tables(
    storage: Storage,
    ring: KeyRing,
    tables: Sequence[tuple[bytes, int]],
    *,
    generation: int,
    keep_pack: KeepPack,
    keep_frame: KeepFrame,
    folder: Path,
) -> Merged:
    """Return the merge of `tables`, by hash and size. Raises ObjectDamaged, ObjectMissing, StorageError."""
    sources = [_Source(storage, ring, hash_, size, keep_pack, keep_frame) for hash_, size in tables]
    names = Names()
    writer = TableWriter(ring, folder, names)
    try:
        removed = RowSums()
        for section in Section:
            removed += _merge_section(ring, section, sources, writer, names)
        stated = tuple((source.hash, source.reader.trailer.sums) for source in sources)
        name, buffers = writer.finish(Merge(generation, stated, removed))
        return Merged(name, buffers, tuple(hash_ for hash_, _ in tables), writer.close)
    except BaseException:
        writer.close()
        raise


class _Source:
    """One table being merged."""

    def __init__(
        self,
        storage: Storage,
        ring: KeyRing,
        hash_: bytes,
        size: int,
        keep_pack: KeepPack,
        keep_frame: KeepFrame,
    ) -> None:
        name = f"tables/{hash_.hex()}"
        assert table_hash(name) == hash_
        self.hash = hash_
        self.reader = TableReader(ring, name, size, partial(storage.get, name))
        trailer = self.reader.trailer
        self._packs = list(PACK_ENTRY.iter_unpack(trailer.packs))
        self._origins = [
            trailer.origins[at : at + ORIGIN_BYTES] for at in range(0, len(trailer.origins), ORIGIN_BYTES)
        ]
        self.names = row_names([pack for pack, _ in self._packs], self._origins)
        self._stays = [keep_pack(*entry) for entry in self._packs]
        self._keep_frame = keep_frame
        self._frames: dict[bytes, bool] = {}
        self._rest = b""
        self._stream: Iterator[bytes] = iter(())

    def start(self, section: Section) -> None:
        """Go to the first row of a section."""
        self._stream, self._rest = self.reader.stream(section), b""

    def take(self, section: Section, bound: bytes | None) -> Iterator[bytes]:
        """Yield the rows that come before `bound`, all that are left if None."""
        step = ROW_BYTES[section]
        while True:
            if not self._rest:
                self._rest = next(self._stream, b"")
                if not self._rest:
                    return
            end = len(self._rest) if bound is None else lower_bound(self._rest, step, bound) * step
            rows, self._rest = self._rest[:end], self._rest[end:]
            yield rows
            if self._rest:
                return

    def sort_out(self, section: Section, rows: bytes, names: Names) -> tuple[list[bytes], bytes]:
        """Return the rows that stay, renumbered for `names`, and those that go, as they were."""
        at = 32 if section else 20
        stay: list[bytes] = []
        go: list[bytes] = []
        for start in range(0, len(rows), ROW_BYTES[section]):
            row = rows[start : start + ROW_BYTES[section]]
            number = int.from_bytes(row[at : at + 4], "little")
            renamed = self._renamed(section, row, number, names)
            if renamed is None:
                go.append(row)
            else:
                stay.append(row[:at] + renamed.to_bytes(4, "little") + row[at + 4 :])
        return stay, b"".join(go)

    def _renamed(self, section: Section, row: bytes, number: int, names: Names) -> int | None:
        if section == Section.LOCATIONS:
            return names.pack(*self._packs[number]) if self._stays[number] else None
        origin = self._origins[number]
        frame = origin + row_ordinal(row)
        stays = self._frames.get(frame)
        if stays is None:
            stays = self._frames[frame] = self._keep_frame(frame)
        return names.origin(origin) if stays else None


def _merge_section(
    ring: KeyRing, section: Section, sources: Sequence[_Source], writer: TableWriter, names: Names
) -> RowSums:
    """Write the rows of a section that stay; return the sums of those that do not."""
    count = sum(source.reader.trailer.sums.counts[section] for source in sources)
    ranges = max(1, count // RANGE_ROWS)
    removed, total = 0, 0
    for source in sources:
        source.start(section)
    for number in range(1, ranges + 1):
        bound = None if number == ranges else ((number << 64) // ranges).to_bytes(8, "big")
        stay: list[bytes] = []
        for source in sources:
            for rows in source.take(section, bound):
                stays, goes = source.sort_out(section, rows, names)
                stay += stays
                removed += len(goes) // ROW_BYTES[section]
                total += sum_rows(ring.row_sum_key, section, goes, source.names[section])
        stay.sort()
        once, twice = _without_doubles(stay)
        removed += len(twice)
        total += sum_rows(ring.row_sum_key, section, b"".join(twice), names.of_rows()[section])
        writer.add(section, b"".join(once))
    counts, sums = [0, 0, 0], [0, 0, 0]
    counts[section], sums[section] = removed, total
    return RowSums((counts[0], counts[1], counts[2]), (sums[0], sums[1], sums[2])) + RowSums()


def _without_doubles(rows: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return sorted rows each once, and those that stood there again."""
    once: list[bytes] = []
    twice: list[bytes] = []
    last = b""
    for row in rows:
        (twice if row == last else once).append(row)
        last = row
    return once, twice

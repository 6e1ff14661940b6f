"""Merges of tables hold the rows of their sources, without those that go, and prove it; sets of ids are sets."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.repositories import Made, make_repository

from repo_store.errors import ObjectDamaged
from repo_store.frame import Codec, FrameName, FramePlace
from repo_store.id_set import IdSet, SortedIds
from repo_store.row_batch import RowBatch, location_key
from repo_store.row_sums import Merge, RowSums
from repo_store.rows import Section
from repo_store.storage import Storage
from repo_store.table import PACK_ENTRY, build_table, table_hash, table_name
from repo_store.table_merge import merge_tables
from repo_store.table_reader import TableReader
from repo_store.table_writer import Names, TableWriter

Row = tuple[int, bytes, bytes]
"""Section, the row but for its number, what the number stands for."""


def make_batch(source: random.Random, packs: int, frames: int, chunks: int) -> RowBatch:
    """Return a batch of random packs, frames and chunks."""
    batch = RowBatch()
    for _ in range(packs):
        number = batch.packs.setdefault((source.randbytes(32), source.randint(100, 9000)), len(batch.packs))
        for ordinal in range(frames):
            origin = source.randbytes(16)
            where = batch.origins.setdefault(origin, len(batch.origins))
            place = FramePlace(FrameName(origin, ordinal), 0, 40, 24, Codec.STORED)
            row = location_key(*place.name) + number.to_bytes(4, "little") + bytes(12) + bytes(24)
            batch.sections[Section.LOCATIONS].extend(row)
            for _ in range(chunks):
                chunk = (
                    source.randbytes(32)
                    + where.to_bytes(4, "little")
                    + (ordinal << 48 | 24).to_bytes(8, "little")
                )
                batch.sections[source.choice((Section.DATA, Section.METADATA))].extend(chunk)
    batch.sort()
    return batch


def rows_of(made: Made, storage: Storage, name: str) -> list[Row]:
    """Return every row of a table in full, in order."""
    size = storage.info(name).size
    reader = TableReader(made.repository.ring, name, size, lambda at, length: storage.get(name, at, length))
    reader.check_sums()
    packs = [pack for pack, _ in PACK_ENTRY.iter_unpack(reader.trailer.packs)]
    origins = [reader.trailer.origins[at : at + 16] for at in range(0, len(reader.trailer.origins), 16)]
    found: list[Row] = []
    for section, (at, width) in enumerate(((20, 60), (32, 44), (32, 44))):
        names = origins if section else packs
        rows = reader.rows(section)
        for start in range(0, len(rows), width):
            row = rows[start : start + width]
            found.append(
                (section, row[:at] + row[at + 4 :], names[int.from_bytes(row[at : at + 4], "little")])
            )
    return found


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=4),
    st.integers(0, 100),
)
def test_a_merge_holds_the_rows_of_its_sources_without_those_removed(
    tmp_path_factory: pytest.TempPathFactory, seed: int, shapes: list[tuple[int, int, int]], percent: int
) -> None:
    folder, source = tmp_path_factory.mktemp("merge"), random.Random(seed)
    made, storage = MADE, MADE.storage.again()
    tables = []
    for shape in shapes:
        data = build_table(made.repository.ring, make_batch(source, *shape))
        storage.put(table_name(data), data)
        tables.append((table_hash(table_name(data)), len(data)))
    tables.append(tables[0])  # the same rows twice
    before = [row for name, _ in tables for row in rows_of(made, storage, f"tables/{name.hex()}")]
    gone = {row[2] for row in before if row[0] == 0 and source.randint(0, 99) < percent}
    frames = {row[1][:16] for row in before if row[0] == 0 and row[2] not in gone}
    merged = merge_tables(
        storage,
        made.repository.ring,
        tables,
        generation=7,
        keep_pack=lambda pack, size: pack not in gone,
        keep_frame=lambda name: name[:16] in frames,
        folder=folder,
    )
    storage.put(merged.name, merged.buffers)
    merged.close()
    after = rows_of(made, storage, merged.name)
    wanted = {row for row in before if (row[2] not in gone if row[0] == 0 else row[2] in frames)}
    assert set(after) == wanted and len(after) == len(wanted)
    size = storage.info(merged.name).size
    reader = TableReader(
        made.repository.ring, merged.name, size, lambda at, n: storage.get(merged.name, at, n)
    )
    stated = reader.trailer.merge
    assert stated is not None and stated.generation == 7
    assert sum(stated.removed.counts) == len(before) - len(after)
    named = {pack for pack, _ in PACK_ENTRY.iter_unpack(reader.trailer.packs)}
    assert named.isdisjoint(gone)


MADE = make_repository()


def test_a_merge_that_does_not_add_up_is_not_made(tmp_path: Path) -> None:
    batch = make_batch(random.Random(1), 2, 2, 3)
    names = Names()
    for pack, size in batch.packs:
        names.pack(pack, size)
    for origin in batch.origins:
        names.origin(origin)
    writer = TableWriter(MADE.repository.ring, tmp_path, names)
    for section in Section:
        writer.add(section, batch.sections[section][: 2 * len(batch.sections[section])])
    stated = writer.sums()
    more = RowSums((1, 0, 0), (5, 0, 0))
    with pytest.raises(ObjectDamaged, match="its merge does not add up in section 0"):
        writer.finish(Merge(1, ((bytes(32), stated + more),), RowSums()))
    writer.close()


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 5000), max_size=3000))
def test_sets_of_ids_are_sets(tmp_path_factory: pytest.TempPathFactory, numbers: list[int]) -> None:
    folder = tmp_path_factory.mktemp("ids")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("repo_store.id_set.RECENT_MAX", 16)
        patch.setattr("repo_store.id_set.SPILL_IDS", 64)
        seen, ordered, plain = IdSet(), SortedIds(folder), set()
        for number in numbers:
            id_ = random.Random(number).randbytes(32)
            assert seen.add(id_) == (id_ not in plain)
            ordered.add(id_)
            plain.add(id_)
        assert len(seen) == len(plain)
        assert list(ordered) == sorted(plain)
        assert list(ordered) == sorted(plain), "as often as one likes"
        assert all(id_ in seen for id_ in plain) and bytes(32) not in seen

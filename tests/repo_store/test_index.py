"""The index answers what the tables say, keeps to its bounds, and loses nothing with its cache."""

import os
import random
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.directories import (
    CHUNK_BYTES,
    make_directory,
    make_table,
    put_table,
    random_pack,
    two_signers,
)
from support.rings import make_ring
from support.simulated_storage import SimulatedStorage

from repo_store import index as index_module
from repo_store import table_loader
from repo_store.errors import StorageError
from repo_store.frame import FrameName
from repo_store.index import Index
from repo_store.remote_index import RemoteIndex, is_worth_loading
from repo_store.row_cache import RowCache
from repo_store.rows import ChunkPlace, Section
from repo_store.sealed import Kind
from repo_store.table import table_name
from repo_store.table_reader import TableReader

RING = make_ring()
DATA, METADATA = Section.DATA, Section.METADATA


@pytest.fixture
def choice() -> random.Random:
    return random.Random(7)


def run_files(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("rows-*/*.run"))


def test_a_chunk_is_seen_then_stored_then_in_a_table_and_present_all_the_time(
    tmp_path: Path, choice: random.Random
) -> None:
    storage = SimulatedStorage()
    index = Index.open(storage, RING, str(tmp_path))
    pack = random_pack(choice)
    chunk_id = pack[2].chunk_ids(0)[3]
    assert not index.has_chunk(DATA, chunk_id)
    index.mark_seen(DATA, chunk_id)
    assert index.has_chunk(DATA, chunk_id) and not index.find_chunk(DATA, chunk_id)
    index.add_pack(*pack)
    assert index.has_chunk(DATA, chunk_id)
    place = ChunkPlace(*pack[2].frames[0].name, 3 * CHUNK_BYTES, CHUNK_BYTES)
    assert index.find_chunk(DATA, chunk_id) == [place]
    index.freeze()
    assert index.has_chunk(DATA, chunk_id) and index.find_chunk(DATA, chunk_id) == [place]
    data = index.take_table()
    assert data is not None and index.take_table() is None
    assert index.has_chunk(DATA, chunk_id)
    put_table(storage, data)
    index.refresh()
    assert index.has_chunk(DATA, chunk_id) and index.find_chunk(DATA, chunk_id) == [place]
    assert not index.has_chunk(METADATA, chunk_id), "a lookup names its kind"
    [location] = index.find_frame(place.frame)
    assert location == (pack[0], pack[1], pack[2].frames[0])


def test_a_table_holds_only_what_was_frozen_before_the_mark(tmp_path: Path, choice: random.Random) -> None:
    index = Index.open(SimulatedStorage(), RING, str(tmp_path))
    first, second = random_pack(choice), random_pack(choice)
    index.add_pack(*first)
    mark = index.freeze()
    index.add_pack(*second)
    index.freeze()
    data = index.take_table(mark)
    assert data is not None
    trailer = TableReader(RING, "t", len(data), lambda at, n: data[at : at + n]).trailer
    assert trailer.packs[:32] == first[0] and len(trailer.packs) == 40
    assert index.take_table(mark) is None
    assert index.take_table() is not None


def test_a_table_taken_but_never_listed_is_gone_at_the_next_refresh(
    tmp_path: Path, choice: random.Random
) -> None:
    index = Index.open(SimulatedStorage(), RING, str(tmp_path))
    pack = random_pack(choice)
    index.add_pack(*pack)
    index.take_table()
    index.refresh()
    assert not index.has_chunk(DATA, pack[2].chunk_ids(0)[0])


def test_rows_of_one_chunk_in_two_frames_and_of_one_frame_in_two_packs_are_all_kept(
    tmp_path: Path, choice: random.Random
) -> None:
    storage, chunk_id = SimulatedStorage(), choice.randbytes(32)
    names = [FrameName(choice.randbytes(16), 5), FrameName(choice.randbytes(16), 70)]
    packs = [choice.randbytes(32) for _ in range(3)]
    put_table(storage, make_table(RING, (packs[0], 9000, make_directory([(names[0], None, [chunk_id])]))))
    put_table(storage, make_table(RING, (packs[1], 9001, make_directory([(names[0], None, [chunk_id])]))))
    put_table(storage, make_table(RING, (packs[2], 9002, make_directory([(names[1], None, [chunk_id])]))))
    for index in (Index.open(storage, RING, str(tmp_path)), RemoteIndex.open(storage, RING)):
        places = index.find_chunks(DATA, [chunk_id])[chunk_id]
        assert sorted(place.frame for place in places) == sorted(names), "one place a frame, not one a table"
        assert {at.pack for at in index.find_frames(names)[names[0]]} == set(packs[:2])
        assert [at.pack_size for at in index.find_frames(names)[names[1]]] == [9002]


def test_what_is_absent_does_not_count_for_a_writer_but_is_found(
    tmp_path: Path, choice: random.Random
) -> None:
    storage, index = SimulatedStorage(), None
    origin, ids = choice.randbytes(16), [choice.randbytes(32) for _ in range(3)]
    base, based = FrameName(origin, 0), FrameName(choice.randbytes(16), 1)
    base_pack, pack, copy = (choice.randbytes(32) for _ in range(3))
    put_table(storage, make_table(RING, (base_pack, 5000, make_directory([(base, None, ids[:1])]))))
    index = Index.open(storage, RING, str(tmp_path))
    for name in (pack, copy):
        index.add_pack(name, 6000, make_directory([(based, base, ids[1:])]))
    assert all(index.has_chunk(DATA, chunk_id) for chunk_id in ids)
    index.set_absent([pack], [])
    assert index.has_chunk(DATA, ids[1]), "another pack has the frame"
    assert [at.pack for at in index.find_frame(based)] == [copy, pack], "what stays comes first"
    index.set_absent([pack, copy], [])
    assert not index.has_chunk(DATA, ids[1]) and index.has_chunk(DATA, ids[0])
    assert len(index.find_frame(based)) == 2 and index.find_chunk(DATA, ids[1])
    index.set_absent([], [based.pack()])
    assert not index.has_chunk(DATA, ids[1])
    index.set_absent([], [base.pack()])
    assert not index.has_chunk(DATA, ids[0]) and not index.has_chunk(DATA, ids[1]), "absent with its base"
    index.set_absent([base_pack], [])
    assert not index.has_chunk(DATA, ids[0]) and not index.has_chunk(DATA, ids[1])
    index.set_absent([], [])
    assert all(index.has_chunk(DATA, chunk_id) for chunk_id in ids), "verdicts are not kept"


def test_of_many_chunks_those_in_absent_frames_are_missing(tmp_path: Path, choice: random.Random) -> None:
    storage = SimulatedStorage()
    packs = [random_pack(choice, frames=2, chunks=100) for _ in range(3)]
    put_table(storage, make_table(RING, *packs))
    index = Index.open(storage, RING, str(tmp_path))
    ids = [chunk_id for pack in packs for number in (0, 1) for chunk_id in pack[2].chunk_ids(number)]
    index.set_absent([packs[1][0]], [packs[2][2].frames[0].name.pack()])
    gone = {*packs[1][2].chunk_ids(0), *packs[1][2].chunk_ids(1), *packs[2][2].chunk_ids(0)}
    assert index.missing(DATA, ids) == [chunk_id for chunk_id in ids if chunk_id in gone]
    index.set_absent([], [])
    assert index.missing(DATA, ids) == []


def test_a_chunk_whose_frame_is_in_no_pack_or_whose_base_has_a_base_is_absent(
    tmp_path: Path, choice: random.Random
) -> None:
    index = Index.open(SimulatedStorage(), RING, str(tmp_path))
    a, b, c = (FrameName(choice.randbytes(16), number) for number in range(3))
    ids = [choice.randbytes(32) for _ in range(3)]
    index.add_pack(choice.randbytes(32), 5000, make_directory([(a, b, ids[:1])]))
    assert not index.has_chunk(DATA, ids[0]), "its base is nowhere"
    index.add_pack(choice.randbytes(32), 5000, make_directory([(b, c, ids[1:2]), (c, None, ids[2:])]))
    assert index.has_chunk(DATA, ids[1]) and index.has_chunk(DATA, ids[2])
    assert not index.has_chunk(DATA, ids[0]), "a base never has a base"


def test_of_several_places_those_in_present_frames_come_first(tmp_path: Path, choice: random.Random) -> None:
    index = Index.open(SimulatedStorage(), RING, str(tmp_path))
    names = [FrameName(choice.randbytes(16), number) for number in range(3)]
    packs, chunk_id = [choice.randbytes(32) for _ in names], choice.randbytes(32)
    for name, pack in zip(names, packs, strict=True):
        index.add_pack(pack, 5000, make_directory([(name, None, [chunk_id])]))
    for condemned in range(3):
        index.set_absent([packs[condemned]], [])
        assert index.find_chunk(DATA, chunk_id)[-1].frame == names[condemned]


def test_rows_of_a_signer_who_is_not_trusted_are_ignored_but_its_packs_are_known(
    tmp_path: Path, choice: random.Random
) -> None:
    mine, other = two_signers(RING)
    storage, packs = SimulatedStorage(), [random_pack(choice), random_pack(choice)]
    put_table(storage, make_table(mine, packs[0]))
    put_table(storage, make_table(other, packs[1]))
    own, all_ = [pack[2].chunk_ids(1)[0] for pack in packs]
    for cache in (
        "cold",
        "cold",
        "warm",
    ):  # the second finds what the first cached; trust is no part of the cache
        folder = str(tmp_path / cache)
        index = Index.open(storage, mine, folder, trusted={mine.signer})
        assert index.has_chunk(DATA, own) and not index.has_chunk(DATA, all_)
        assert not index.find_chunk(DATA, all_) and not index.find_frame(packs[1][2].frames[0].name)
        assert [pack for pack, _ in index.packs()] == [packs[0][0]]
        assert index.unindexed([packs[0][0], packs[1][0], bytes(32)]) == [bytes(32)]
        assert {place.origin for _, place in index.chunks(DATA)} == {packs[0][2].frames[0].name.origin}
        assert index.count() == 36
        everyone = Index.open(storage, mine, folder)
        assert everyone.has_chunk(DATA, all_) and everyone.count() == 72
    remote = RemoteIndex.open(storage, mine, trusted={mine.signer})
    assert list(remote.find_chunks(DATA, [own, all_])) == [own]


def test_a_damaged_table_costs_itself_and_is_named(tmp_path: Path, choice: random.Random) -> None:
    storage = SimulatedStorage()
    packs = [random_pack(choice) for _ in range(3)]
    names = [put_table(storage, make_table(RING, pack)) for pack in packs]
    data = bytearray(storage.get(names[1]))
    data[200] ^= 1
    storage.disk.damage(names[1], bytes(data))
    other = make_table(RING, random_pack(choice))
    storage.disk.damage(names[2], other)  # a whole table, under the name of another
    for round_ in range(2):
        index = Index.open(storage, RING, str(tmp_path))
        assert sorted(problem.name for problem in index.problems) == sorted(names[1:]), round_
        assert all("its bytes are not those it was named after" in p.reason for p in index.problems)
        assert index.has_chunk(DATA, packs[0][2].chunk_ids(0)[0])
        assert index.unindexed([pack[0] for pack in packs]) == [packs[1][0], packs[2][0]]
    storage.disk.damage(names[2], None)
    remote = RemoteIndex.open(storage, RING)
    assert not remote.find_frames([packs[1][2].frames[0].name])
    assert [(problem.name, problem.reason) for problem in remote.problems] == [
        (names[1], "block 0 of section 0 is not the one that was signed")
    ]


def test_names_that_are_no_tables_are_left_alone(tmp_path: Path) -> None:
    storage = SimulatedStorage()
    for name in ("tables/readme", "tables/" + "ab" * 31, "tables/x/" + "ab" * 32):
        storage.put(name, b"?")
    assert Index.open(storage, RING, str(tmp_path)).problems == []


def test_an_unchanged_repository_is_opened_without_reading_a_table(
    tmp_path: Path, choice: random.Random
) -> None:
    storage = SimulatedStorage()
    for _ in range(5):
        put_table(storage, make_table(RING, random_pack(choice)))
    Index.open(storage, RING, str(tmp_path))
    storage.operations.clear()
    Index.open(storage, RING, str(tmp_path))
    assert [operation.kind for operation in storage.operations] == ["list"]


def test_many_small_tables_become_few_runs(tmp_path: Path, choice: random.Random) -> None:
    storage, ids = SimulatedStorage(), []
    for _ in range(40):
        pack = random_pack(choice, frames=1, chunks=3)
        ids += pack[2].chunk_ids(0)
        put_table(storage, make_table(RING, pack))
        index = Index.open(storage, RING, str(tmp_path))
        assert len(run_files(tmp_path)) <= 4
    assert all(index.has_chunk(DATA, chunk_id) for chunk_id in ids)


def test_rows_of_tables_that_left_the_listing_are_gone_and_later_leave_the_disk(
    tmp_path: Path, choice: random.Random
) -> None:
    storage = SimulatedStorage()
    packs = [random_pack(choice, chunks=50) for _ in range(8)]
    names = [put_table(storage, make_table(RING, pack)) for pack in packs]
    index = Index.open(storage, RING, str(tmp_path))
    size = sum(file.stat().st_size for file in run_files(tmp_path))
    for gone in range(5):
        storage.delete(names[gone])
        index.refresh()
        for number, pack in enumerate(packs):
            assert index.has_chunk(DATA, pack[2].chunk_ids(0)[0]) == (number > gone)
            assert bool(index.find_frame(pack[2].frames[0].name)) == (number > gone)
    assert index.count() == 3 * 204 == sum(1 for _ in index.chunks(DATA)) + sum(1 for _ in index.locations())
    assert sum(file.stat().st_size for file in run_files(tmp_path)) < size * 0.7


def test_memory_of_the_rows_of_this_run_is_bounded_by_freezing(
    tmp_path: Path, choice: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "ROWS_MAX", 50)
    storage = SimulatedStorage()
    index = Index.open(storage, RING, str(tmp_path))
    packs = [random_pack(choice) for _ in range(100)]
    same = packs[0]  # found unindexed and added twice: a table names it once
    for pack in (*packs[:9], same, *packs[9:]):
        index.add_pack(*pack)
        assert len(index._own.runs) < 17 and index._recent.count < 50
    ids = [chunk_id for pack in packs for chunk_id in pack[2].chunk_ids(2)]
    others = [choice.randbytes(32) for _ in range(500)]
    assert all(index.has_chunk(DATA, chunk_id) for chunk_id in ids)
    assert index.missing(DATA, [*others, *ids]) == others
    while (data := index.take_table()) is not None:
        put_table(storage, data)
        assert all(index.has_chunk(DATA, chunk_id) for chunk_id in ids[::7])
    assert not run_files(tmp_path), "what is not in the storage is nobody else's"
    index.refresh()
    assert index.problems == [] and all(index.has_chunk(DATA, chunk_id) for chunk_id in ids)
    assert index.missing(DATA, [*ids, *others]) == others
    assert sorted(index.packs()) == sorted((pack[0], pack[1]) for pack in packs)


def test_taken_tables_are_merged_among_themselves(
    tmp_path: Path, choice: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index.open(SimulatedStorage(), RING, str(tmp_path))
    ids = []
    for _ in range(40):
        pack = random_pack(choice, frames=1)
        ids += pack[2].chunk_ids(0)
        index.add_pack(*pack)
        index.take_table()
        assert len(index._own.runs) < 17
    assert all(index.has_chunk(DATA, chunk_id) for chunk_id in ids)


@pytest.mark.parametrize("streamed", [False, True])
def test_large_tables_are_streamed_and_checked_against_their_name(
    tmp_path: Path, choice: random.Random, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    if streamed:
        monkeypatch.setattr(table_loader, "WHOLE_BYTES_MAX", 0)
        monkeypatch.setattr(table_loader, "_PIECE_BYTES", 1000)
    storage = SimulatedStorage()
    packs = [random_pack(choice, frames=20, chunks=150) for _ in range(2)]
    name = put_table(storage, make_table(RING, *packs))
    index = Index.open(storage, RING, str(tmp_path))
    assert index.problems == [] and index.count() == 2 * 20 * 151
    for pack in packs:
        for number in range(20):
            assert all(index.has_chunk(DATA, chunk_id) for chunk_id in pack[2].chunk_ids(number))
    data = bytearray(storage.get(name))
    for at in (10, 40, 200, 70_000, len(data) - 1):
        damaged = bytearray(data)
        damaged[at] ^= 4
        storage.disk.damage(name, bytes(damaged))
        index = Index.open(storage, RING, str(tmp_path / str(at)))
        assert [problem.name for problem in index.problems] == [name]
        assert index.count() == 0 and not list(tmp_path.glob(f"{at}/rows-*/*.tmp"))


def test_a_cache_file_torn_at_any_byte_or_flipped_anywhere_is_made_again(
    tmp_path: Path, choice: random.Random
) -> None:
    storage = SimulatedStorage()
    pack = random_pack(choice, frames=2, chunks=140)
    put_table(storage, make_table(RING, pack))
    Index.open(storage, RING, str(tmp_path))
    folder = next(tmp_path.glob("rows-*"))
    [run] = run_files(tmp_path)
    whole, listed = run.read_bytes(), (folder / "list").read_bytes()
    ids = pack[2].chunk_ids(0) + pack[2].chunk_ids(1)

    def check(because: str) -> None:
        index = Index.open(storage, RING, str(tmp_path))
        assert index.missing(DATA, ids) == [], because
        index = Index.open(storage, RING, str(tmp_path))
        assert all(index.has_chunk(DATA, chunk_id) for chunk_id in ids), because
        assert len(index.find_frame(pack[2].frames[1].name)) == 1, because
        assert index.count() == 282 and index.problems == [], because

    for cut in [0, 1, 47, *range(100, len(whole), 1997), len(whole) - 1]:
        for data in (whole[:cut], whole[:cut] + bytes(len(whole) - cut)):
            shutil.rmtree(folder)
            folder.mkdir()
            run.write_bytes(data)
            (folder / "list").write_bytes(listed)
            check(f"torn at {cut}")
    for at in range(0, len(whole), 127):
        shutil.rmtree(folder)
        folder.mkdir()
        run.write_bytes(whole[:at] + bytes([whole[at] ^ 32]) + whole[at + 1 :])
        (folder / "list").write_bytes(listed)
        check(f"flipped at {at}")
    for cut in range(0, len(listed), 5):
        (folder / "list").write_bytes(listed[:cut])
        check(f"list torn at {cut}")
    assert len(run_files(tmp_path)) == 1, "nothing is left over"


def test_a_file_damaged_while_it_is_open_is_made_again_if_the_storage_has_its_rows(
    tmp_path: Path, choice: random.Random
) -> None:
    storage = SimulatedStorage()
    pack = random_pack(choice, chunks=100)
    put_table(storage, make_table(RING, pack))
    index = Index.open(storage, RING, str(tmp_path))
    [run] = run_files(tmp_path)
    with run.open("r+b") as file:
        file.write(bytes(30_000))
    assert all(index.has_chunk(DATA, chunk_id) for chunk_id in pack[2].chunk_ids(0))
    assert run_files(tmp_path) != [run]


def test_a_damaged_file_of_rows_that_are_in_no_table_fails_the_run(
    tmp_path: Path, choice: random.Random
) -> None:
    index = Index.open(SimulatedStorage(), RING, str(tmp_path))
    pack = random_pack(choice)
    index.add_pack(*pack)
    index.freeze()
    os.pwrite(index._own.runs[0]._fd, bytes(300), 0)
    with pytest.raises(StorageError, match="a file of this run was damaged under it"):
        index.has_chunk(DATA, pack[2].chunk_ids(0)[0])
    with pytest.raises(StorageError, match="a file of this run was damaged under it"):
        index.take_table()


def test_the_cache_is_private_and_may_be_deleted_at_any_time(tmp_path: Path, choice: random.Random) -> None:
    storage = SimulatedStorage()
    packs = [random_pack(choice) for _ in range(3)]
    put_table(storage, make_table(RING, packs[0]))
    index = Index.open(storage, RING, str(tmp_path / "cache"))
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    for pack in packs:
        shutil.rmtree(tmp_path / "cache")
        index.add_pack(*pack)
        data = index.take_table()
        assert data is not None
        put_table(storage, data)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        index.refresh()
        assert index.has_chunk(DATA, pack[2].chunk_ids(1)[1])
    assert all(index.has_chunk(DATA, pack[2].chunk_ids(0)[0]) for pack in packs)


def test_two_processes_share_one_cache_and_neither_waits_for_a_stopped_one(
    tmp_path: Path, choice: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = SimulatedStorage()
    packs = [random_pack(choice) for _ in range(4)]
    put_table(storage, make_table(RING, packs[0]))
    first, second = (Index.open(storage, RING, str(tmp_path)) for _ in range(2))
    put_table(storage, make_table(RING, packs[1]))
    first.refresh()  # merges and removes the file that the second has open
    assert second.has_chunk(DATA, packs[0][2].chunk_ids(0)[0])
    storage.operations.clear()
    second.refresh()
    assert not [operation for operation in storage.operations if operation.kind == "get"], (
        "the first loaded it"
    )
    assert second.has_chunk(DATA, packs[1][2].chunk_ids(0)[0])

    monkeypatch.setattr(RowCache.lock.__wrapped__, "__defaults__", (0.01,))  # type: ignore[attr-defined]
    before = run_files(tmp_path)
    with RowCache(str(tmp_path), RING.repository).lock() as held:
        assert held
        put_table(storage, make_table(RING, packs[2]))
        second.refresh()
        assert second.has_chunk(DATA, packs[2][2].chunk_ids(0)[0])
        assert run_files(tmp_path) == before, "what it could not publish it keeps to itself"
    second.refresh()
    assert second.has_chunk(DATA, packs[2][2].chunk_ids(0)[0]) and run_files(tmp_path) != before


def test_a_cache_of_another_repository_is_not_believed(tmp_path: Path, choice: random.Random) -> None:
    storage = SimulatedStorage()
    pack = random_pack(choice)
    put_table(storage, make_table(RING, pack))
    Index.open(storage, RING, str(tmp_path))
    folder, other = next(tmp_path.glob("rows-*")), make_ring()
    folder.rename(folder.with_name(f"rows-{other.repository.hex()[:16]}"))
    index = Index.open(SimulatedStorage(), other, str(tmp_path))
    assert not index.has_chunk(DATA, pack[2].chunk_ids(0)[0]) and index.count() == 0


def test_a_chunk_never_seems_missing_on_its_way_through_the_stages(
    tmp_path: Path, choice: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "ROWS_MAX", 100)
    storage = SimulatedStorage()
    index = Index.open(storage, RING, str(tmp_path))
    told: list[bytes] = []
    missing: list[bytes] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            missing.extend(chunk_id for chunk_id in told[-40:] if not index.has_chunk(DATA, chunk_id))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for number in range(120):
            pack = random_pack(choice, frames=1)
            for chunk_id in pack[2].chunk_ids(0):
                index.mark_seen(DATA, chunk_id)
                told.append(chunk_id)
            index.add_pack(*pack)
            if number % 10 == 9:
                while (data := index.take_table()) is not None:
                    put_table(storage, data)
                index.refresh()
    finally:
        done.set()
        asking.join()
    assert not missing
    assert not any(index._seen), "what is stored is not remembered twice"


def test_a_fresh_host_reads_only_the_blocks_it_needs(
    tmp_path: Path, choice: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = SimulatedStorage()
    packs = [random_pack(choice, frames=30, chunks=100) for _ in range(10)]
    metadata = random_pack(choice, kind=Kind.METADATA_DIRECTORY)
    put_table(storage, make_table(RING, *packs[:9], metadata))
    name = put_table(storage, make_table(RING, packs[9]))
    remote = RemoteIndex.open(storage, RING)
    wanted = [packs[number][2].chunk_ids(3)[5] for number in (0, 4, 9)]
    storage.operations.clear()
    found = remote.find_chunks(DATA, [*wanted, bytes([1]) * 32])
    assert sorted(found) == sorted(wanted)
    assert sum(operation.size for operation in storage.operations) < 600_000
    frames = remote.find_frames(place.frame for [place] in found.values())
    assert {location.pack for [location] in frames.values()} == {packs[n][0] for n in (0, 4, 9)}
    [node] = metadata[2].chunk_ids(1)[:1]
    assert node in remote.find_chunks(METADATA, [node]) and not remote.find_chunks(DATA, [node])

    moved = make_table(RING, *packs[9:])  # a prune exchanges a table under the reader
    storage.delete(name)
    put_table(storage, moved)
    assert list(remote.find_chunks(DATA, wanted[2:])) == wanted[2:]
    assert is_worth_loading(storage, RING, str(tmp_path))
    monkeypatch.setattr("repo_store.remote_index.LOAD_BYTES_MAX", 1_000_000)
    assert not is_worth_loading(storage, RING, str(tmp_path))
    Index.open(storage, RING, str(tmp_path))
    assert is_worth_loading(storage, RING, str(tmp_path)), "the cache has them"


def test_storage_that_fails_is_a_storage_error_and_the_view_stays(
    tmp_path: Path, choice: random.Random
) -> None:
    storage = SimulatedStorage()
    pack = random_pack(choice)
    put_table(storage, make_table(RING, pack))
    index = Index.open(storage, RING, str(tmp_path))
    put_table(storage, make_table(RING, random_pack(choice)))
    for kind in ("list", "get"):
        storage.faults.fail = lambda operation, kind=kind: operation.kind == kind
        with pytest.raises(StorageError):
            index.refresh()
        assert index.has_chunk(DATA, pack[2].chunk_ids(0)[0])
    assert not list(tmp_path.glob("rows-*/*.tmp"))


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot create: "):
        Index.open(SimulatedStorage(), RING, str(tmp_path / "file"))


def test_table_names_are_those_of_their_hash(choice: random.Random) -> None:
    data = make_table(RING, random_pack(choice))
    assert table_name(data).startswith("tables/") and len(table_name(data)) == 71


@pytest.mark.full
def test_memory_stays_within_its_bound_with_a_million_and_a_half_rows() -> None:
    """Loads, opens and probes in a process of its own; the bound is 96 MB over what Python and its libraries take."""
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "benchmarks" / "bench_index.py"), "1500000"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    before = int(re.search(r"(\d+) MB before", shown)[1])  # type: ignore[index]
    most = max(int(found) for found in re.findall(r"at most (\d+) MB", shown))
    assert most - before < 96, shown

"""Rows held against directories, and chunks looked for in bulk: the answers are those of looking one by one."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.directories import make_directory, make_table, put_table
from support.rings import make_ring
from support.simulated_storage import SimulatedStorage

from repo_store.directory import Directory
from repo_store.frame import FrameName
from repo_store.index import Index
from repo_store.row_proof import ChunkSearch, RowProof
from repo_store.row_stream import RowsChanged, beside
from repo_store.rows import Section
from repo_store.table import table_name

RING = make_ring()
Packed = tuple[bytes, int, Directory]


class Scene:
    """Packs, and an index that knows them as `choice` has it: in tables, in own runs, in memory."""

    def __init__(self, folder: str, choice: random.Random, count: int, frames_shared: bool) -> None:
        self.choice = choice
        self.storage = SimulatedStorage()
        self.packs = [self._pack() for _ in range(count)]
        if frames_shared:  # a carried frame: one name, two packs
            directory = self.packs[0][2]
            self.packs.append((choice.randbytes(32), 7000, directory))
        for pack in self.packs:
            if choice.random() < 0.5:
                put_table(self.storage, make_table(RING, pack))
                if choice.random() < 0.3:  # told twice
                    put_table(self.storage, make_table(RING, pack))
        self.index = Index.open(self.storage, RING, folder)
        tabled = {pack for pack, _ in self.index.packs()}
        for pack in self.packs:
            if pack[0] not in tabled:
                self.index.add_pack(*pack)
                if choice.random() < 0.3:
                    self.index.freeze()

    def _pack(self) -> Packed:
        origin, choice = self.choice.randbytes(16), self.choice
        frames = [
            (FrameName(origin, ordinal), None, [choice.randbytes(32) for _ in range(choice.randint(1, 40))])
            for ordinal in range(choice.randint(1, 4))
        ]
        return choice.randbytes(32), choice.randint(5000, 9000), make_directory(frames)

    def ids(self) -> list[bytes]:
        return [each for *_, d in self.packs for n in range(len(d.frames)) for each in d.chunk_ids(n)]


@pytest.fixture
def folder() -> Iterator[str]:
    with TemporaryDirectory() as made:
        yield made


SEEDS = st.integers(0, 2**32)


@settings(max_examples=settings.default.max_examples // 5)
@given(SEEDS, st.integers(1, 6), st.booleans(), st.integers(1, 60))
def test_rows_that_are_what_directories_say_are_proven_whatever_the_size_of_a_batch(
    seed: int, count: int, shared: bool, rows_max: int
) -> None:
    with TemporaryDirectory() as folder:
        scene = Scene(folder, random.Random(seed), count, shared)
        proof = RowProof(scene.index, rows_max=rows_max)
        for pack in scene.packs:
            proof.add_pack(*pack)
        assert proof.finish() and proof.covers_all()
        some = RowProof(scene.index, rows_max=rows_max)
        for pack in scene.packs[1:]:
            some.add_pack(*pack)
        assert some.finish(), "what was read is in the index"
        assert shared or not some.covers_all(), "and what was not read is not proven"


@settings(max_examples=settings.default.max_examples // 5)
@given(SEEDS, st.sampled_from(["missing", "moved", "swapped", "invented", "elsewhere"]), st.integers(1, 60))
def test_a_row_that_is_missing_or_untrue_is_found(seed: int, lie: str, rows_max: int) -> None:
    choice = random.Random(seed)
    with TemporaryDirectory() as folder:
        storage, origin = SimulatedStorage(), choice.randbytes(16)
        ids = [[choice.randbytes(32) for _ in range(10)] for _ in range(3)]
        names = [FrameName(origin, number) for number in range(3)]
        frames = [(name, None, list(each)) for name, each in zip(names, ids, strict=True)]
        truth = choice.randbytes(32), 6000, make_directory(frames)
        hit = choice.randrange(3)
        told = frames[hit][2]
        if lie == "missing":
            told.pop()
        elif lie == "moved":
            told.insert(0, told.pop(choice.randrange(1, 10)))
        elif lie == "swapped":
            other = frames[(hit + 1) % 3][2]
            told[3], other[3] = other[3], told[3]
        elif lie == "invented":
            told.append(choice.randbytes(32))
        size = 6001 if lie == "elsewhere" else 6000
        # Where the frames lie is told as it is: only the chunks, or only the pack, are not.
        said = replace(make_directory(frames), frames=truth[2].frames)
        put_table(storage, make_table(RING, (truth[0], size, said)))
        proof = RowProof(Index.open(storage, RING, folder), rows_max=rows_max)
        proof.add_pack(*truth)
        assert proof.finish() == (lie == "invented"), "what is asked for is there, or is not"
        assert proof.covers_all() == (lie == "missing"), "what is there was asked for, or was not"


@settings(max_examples=settings.default.max_examples // 5)
@given(SEEDS, st.integers(1, 6), st.integers(1, 100), st.integers(0, 3))
def test_a_search_for_many_answers_what_a_look_at_each_does(
    seed: int, count: int, ids_max: int, absent: int
) -> None:
    choice = random.Random(seed)
    with TemporaryDirectory() as folder:
        scene = Scene(folder, choice, count, frames_shared=choice.random() < 0.3)
        gone = [pack[0] for pack in choice.sample(scene.packs, min(absent, len(scene.packs)))]
        scene.index.set_absent(gone, [])
        known = scene.ids()
        for _ in range(4):
            asked = choice.sample(known, choice.randint(0, min(len(known), 30)))
            asked += [choice.randbytes(32)] * (choice.random() < 0.3) + asked[:3]
            choice.shuffle(asked)
            search = ChunkSearch(scene.index, ids_max=ids_max)
            for chunk_id in asked:
                search.add(Section.DATA, chunk_id)
            assert search.finish() == all(scene.index.has_chunk(Section.DATA, each) for each in asked)


def test_sections_do_not_meet(folder: str) -> None:
    scene = Scene(folder, random.Random(3), 2, frames_shared=False)
    search = ChunkSearch(scene.index)
    search.add(Section.METADATA, scene.ids()[0])
    assert not search.finish()


def test_rows_of_tables_that_are_no_longer_listed_count_for_nothing(folder: str) -> None:
    choice = random.Random(4)
    storage, packs = SimulatedStorage(), []
    for _ in range(3):
        frame = FrameName(choice.randbytes(16), 0), None, [choice.randbytes(32) for _ in range(50)]
        packs.append((choice.randbytes(32), 5000, make_directory([frame])))
    tables = [make_table(RING, pack) for pack in packs]
    for table in tables:
        put_table(storage, table)
    Index.open(storage, RING, folder)
    storage.delete(table_name(tables[0]))
    index = Index.open(storage, RING, folder)
    proof, search = RowProof(index), ChunkSearch(index)
    for pack in packs[1:]:
        proof.add_pack(*pack)
        search.add(Section.DATA, pack[2].ids)
    assert proof.finish() and proof.covers_all() and search.finish()
    search.add(Section.DATA, packs[0][2].ids)
    assert not search.finish()


def test_rows_of_one_id_in_two_pieces_are_met_in_both() -> None:
    row = bytes(31) + b"\1"
    pieces = [row + bytes(12), row + b"\1" * 12]
    wanted = pieces[0] + pieces[1]
    met = [(first, last) for first, last, _ in beside(wanted, 44, iter(pieces), 44)]
    assert met == [(0, 2), (0, 2)]


def test_a_cache_damaged_while_it_is_read_is_told_and_made_again(folder: str) -> None:
    scene = Scene(folder, random.Random(5), 1, frames_shared=False)
    data = scene.index.take_table()
    if data is not None:
        put_table(scene.storage, data)
    index = Index.open(scene.storage, RING, folder)
    (run,) = Path(folder).glob("rows-*/*.run")
    spoilt = bytearray(run.read_bytes())
    spoilt[70] ^= 1  # within the rows of the first section
    for at in range(60 * 4, len(spoilt) // 2, 44):
        spoilt[at] ^= 1
    run.write_bytes(spoilt)
    search = ChunkSearch(index)
    search.add(Section.DATA, b"".join(scene.ids()))
    with pytest.raises(RowsChanged):
        search.finish()
    again = ChunkSearch(index)
    again.add(Section.DATA, b"".join(scene.ids()))
    assert again.finish()

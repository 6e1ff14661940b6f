"""Reading packs: few requests, aligned windows, and damage named where it is."""

import os
from array import array
from collections.abc import Sequence
from dataclasses import replace

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from support.packs import DATA, METADATA, frames_of, make_frame, make_pack, store
from support.rings import make_ring
from support.simulated_storage import SimulatedDisk, SimulatedStorage

from repo_store import pack_check
from repo_store.errors import ObjectDamaged, ObjectMissing, Refused
from repo_store.frame import Base, Codec, FrameName, FramePlace
from repo_store.pack import CarriedFrame, FrameChunks, Pack, carry, pack_name
from repo_store.pack_check import verify_pack
from repo_store.pack_key import make_pack_key
from repo_store.pack_reader import PackReader, plan_runs, read_directory

RING = make_ring()
MIB = 1 << 20
TEXT = b"call me ishmael; some years ago, never mind how long precisely, " * 20


class Counting(SimulatedStorage):
    """A storage that remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__(SimulatedDisk())
        self.reads: list[tuple[int, int | None]] = []

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self.reads.append((offset, length))
        return super().get(name, offset, length)

    def rewrite(self, name: str, data: bytes) -> None:
        """Put other bytes in the place of an object, as rot or an attacker would."""
        self.replace(name, data)


def stored(pack: Pack) -> tuple[Counting, bytes, int]:
    storage = Counting()
    hash_, size = store(storage, pack)
    return storage, hash_, size


def big_pack(frames: int = 12) -> Pack:
    """Return a pack of frames of 1 MiB less a little that do not compress."""
    return make_pack(RING, [[os.urandom(MIB - 1000 * number)] for number in range(1, frames + 1)])


BIG = big_pack()


def read(reader: PackReader, pack: Pack, wanted: Sequence[int]) -> list[bytes]:
    places = [pack.directory.frames[index] for index in wanted]
    return [plain for _, plain in reader.read_frames(pack.hash, pack.size, places)]


@pytest.mark.parametrize("kind", [DATA, METADATA])
def test_frames_read_back_in_the_order_of_offsets(kind: object) -> None:
    frames = [[TEXT, b"one"], [os.urandom(700)], [b"a", b"b", TEXT]]
    pack = make_pack(RING, frames, kind=DATA if kind == DATA else METADATA)
    storage, _, _ = stored(pack)
    assert read(PackReader(storage, RING), pack, [2, 0, 1]) == [b"".join(chunks) for chunks in frames]
    assert storage.reads == [(0, None)], "a small pack is read at once"


def test_plaintexts_stay_valid_after_the_next_one() -> None:
    frames = [[os.urandom(700)] for _ in range(5)]
    pack = make_pack(RING, frames)
    assert read(PackReader(stored(pack)[0], RING), pack, range(5)) == [chunks[0] for chunks in frames]


def test_most_of_a_pack_is_read_whole() -> None:
    storage, _, _ = stored(BIG)
    assert len(read(PackReader(storage, RING), BIG, range(8))) == 8
    assert storage.reads == [(0, None)]


def test_a_few_frames_are_read_in_aligned_windows() -> None:
    storage, _, size = stored(BIG)
    reader = PackReader(storage, RING)
    first = read(reader, BIG, [0])
    second = read(reader, BIG, [9, 0])
    assert first[0] == second[0] and len(second) == 2
    directory, *frames = storage.reads
    assert directory == ((size - 16) // MIB * MIB, None)
    assert frames[:2] == [(0, MIB), (0, MIB)], "the directory and the key are read once"
    assert all(offset % MIB == 0 and length is not None and length % MIB == 0 for offset, length in frames)


def test_the_end_of_a_pack_is_a_window_too() -> None:
    storage, _, _ = stored(BIG)
    read(PackReader(storage, RING), BIG, [11])
    assert all(offset % MIB == 0 for offset, _ in storage.reads)


def test_a_long_directory_takes_two_requests() -> None:
    chunks = [b"%06d" % number for number in range(40_000)]
    pack = make_pack(RING, [chunks, [os.urandom(3 * MIB)]], kind=METADATA)
    storage, hash_, size = stored(pack)
    directory = read_directory(storage, RING, hash_, size)
    assert directory == pack.directory
    assert len(storage.reads) == 2 and storage.reads[1][0] + (storage.reads[1][1] or 0) == storage.reads[0][0]
    assert (
        sum(pack_bytes or size for _, pack_bytes in storage.reads)
        >= size - directory.frames[-1].offset - 3 * MIB
    )


@given(st.lists(st.tuples(st.integers(0, 60 * MIB), st.integers(17, 9 * MIB)), min_size=1, max_size=20))
def test_runs_cover_every_frame_with_aligned_disjoint_windows(spans: list[tuple[int, int]]) -> None:
    size = 64 * MIB - 100
    places = [FramePlace(FrameName(bytes(16), 0), at, min(length, size - at), 1, 0) for at, length in spans]
    runs = plan_runs(places, size)
    taken = [place for run in runs for place in run.places]
    assert sorted(taken) == sorted(places)
    for run in runs:
        assert run.start % MIB == 0 and (run.end % MIB == 0 or run.end == size)
        assert run.end - run.start <= 32 * MIB
        for place in run.places:
            assert run.start <= place.offset and place.offset + place.sealed_length <= run.end


def test_the_cache_of_directories_is_bounded() -> None:
    storage = Counting()
    packs = [make_pack(RING, [[os.urandom(5 * MIB)]]) for _ in range(3)]
    for pack in packs:
        store(storage, pack)
    reader = PackReader(storage, RING, cache_bytes_max=1200)  # two directories of one frame and one chunk
    for index in (0, 1, 0, 2, 0, 1):
        reader.directory(packs[index].hash, packs[index].size)
    assert len(storage.reads) == 4, "the least recently used one went"


# Bases


def with_base() -> tuple[Counting, Pack, Pack]:
    """Return a storage, a pack with a base frame, and a pack with a frame that needs it."""
    key = make_pack_key(RING, DATA)
    base = make_frame(RING, key, 0, [TEXT])
    delta = make_frame(
        RING, make_pack_key(RING, DATA), 5, [TEXT[:500], b"more"], base=Base(base.place.name, TEXT)
    )
    storage = Counting()
    packs = carry(RING, DATA, [base]), carry(RING, DATA, [delta])
    for pack in packs:
        store(storage, pack)
    return storage, *packs


def test_a_frame_with_a_base_reads_back_through_the_base() -> None:
    storage, first, second = with_base()
    reader = PackReader(storage, RING)
    asked: list[FrameName] = []

    def find(name: FrameName) -> bytes:
        asked.append(name)
        return reader.read_base(first.hash, first.size, first.directory.frames[0])

    places = second.directory.frames
    assert places[0].codec == Codec.ZSTD_WITH_BASE
    (row, plain), *none = reader.read_frames(second.hash, second.size, places, find)
    assert plain == TEXT[:500] + b"more" and row == places[0] and not none
    assert asked == [first.directory.frames[0].name]
    assert verify_pack(storage, RING, second.hash, find).whole


def test_a_base_that_cannot_be_had_is_told() -> None:
    storage, first, second = with_base()
    reader = PackReader(storage, RING)
    with pytest.raises(ObjectDamaged, match=r"needs the base .*, which cannot be looked up here"):
        list(reader.read_frames(second.hash, second.size, second.directory.frames))

    def missing(name: FrameName) -> bytes:
        raise ObjectMissing(pack_name(first.hash))

    with pytest.raises(ObjectMissing):
        list(reader.read_frames(second.hash, second.size, second.directory.frames, missing))
    check = verify_pack(storage, RING, second.hash, missing)
    assert list(check.damaged.values()) == [f"{pack_name(first.hash)}: no such object"]


def test_a_wrong_base_is_found_by_verify() -> None:
    storage, _, second = with_base()
    check = verify_pack(storage, RING, second.hash, lambda name: bytes(reversed(TEXT)))
    (reason,) = check.damaged.values()
    assert "holds other chunks than its directory says" in reason or "does not decompress" in reason


def test_a_base_of_a_base_is_refused() -> None:
    storage, _, second = with_base()
    with pytest.raises(ObjectDamaged, match="serves as a base and has a base itself"):
        PackReader(storage, RING).read_base(second.hash, second.size, second.directory.frames[0])


# Damage


def test_a_missing_pack_stays_missing() -> None:
    pack = make_pack(RING, [[TEXT]])
    for call in (
        lambda: read_directory(Counting(), RING, pack.hash, pack.size),
        lambda: read(PackReader(Counting(), RING), pack, [0]),
        lambda: verify_pack(Counting(), RING, pack.hash),
    ):
        with pytest.raises(ObjectMissing):
            call()


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b""])
def test_a_pack_of_another_size_is_refused(change: object) -> None:
    storage, hash_, size = stored(BIG)
    data = b"".join(BIG.buffers)
    storage.rewrite(pack_name(hash_), change(data))  # type: ignore[operator]
    for wanted in ([0], range(12)):
        with pytest.raises(ObjectDamaged, match=rf"{pack_name(hash_)}.* bytes where {size} were expected"):
            read(PackReader(storage, RING), BIG, wanted)
    assert verify_pack(storage, RING, hash_).problem is not None


def test_a_truncated_pack_is_refused_in_the_middle_of_a_run() -> None:
    storage, hash_, _ = stored(BIG)
    reader = PackReader(storage, RING)
    read(reader, BIG, [0])
    storage.rewrite(pack_name(hash_), b"".join(BIG.buffers)[: MIB // 2])
    with pytest.raises(ObjectDamaged, match=f"has {MIB // 2} bytes where {MIB} were expected"):
        read(reader, BIG, [0])


@given(st.data())
def test_a_flipped_bit_anywhere_is_found(data: st.DataObject) -> None:
    frames = [[TEXT], [os.urandom(100)]]
    pack = make_pack(RING, frames, kind=METADATA)
    storage, hash_, _ = stored(pack)
    changed = bytearray(b"".join(pack.buffers))
    bit = data.draw(st.integers(0, 8 * len(changed) - 1))
    changed[bit // 8] ^= 1 << bit % 8
    storage.rewrite(pack_name(hash_), bytes(changed))
    assert not verify_pack(storage, RING, hash_).whole
    with pytest.raises(ObjectDamaged) as told:
        read(PackReader(storage, RING), pack, [0, 1])
    assert told.value.name == pack_name(hash_)


def test_one_damaged_frame_costs_one_frame() -> None:
    pack = make_pack(RING, [[TEXT], [os.urandom(100)], [b"third"]])
    storage, hash_, _ = stored(pack)
    changed = bytearray(b"".join(pack.buffers))
    hurt = pack.directory.frames[1]
    changed[hurt.offset + 50] ^= 1
    storage.rewrite(pack_name(hash_), bytes(changed))
    check = verify_pack(storage, RING, hash_)
    assert check.problem == "its bytes have another hash than its name" and check.contents
    assert check.damaged == {hurt.name: f"frame {hurt.name} fails authentication"}
    assert (check.frames, check.chunks, check.whole) == (3, 3, False)
    reader = PackReader(storage, RING)
    assert read(reader, pack, [0, 2]) == [TEXT, b"third"]
    with pytest.raises(
        ObjectDamaged, match=rf"^{pack_name(hash_)}: damaged: frame {hurt.name} fails authentication"
    ):
        read(reader, pack, [0, 1, 2])


def test_two_packs_in_each_others_place_are_found() -> None:
    one, two = make_pack(RING, [[TEXT]]), make_pack(RING, [[TEXT[::-1]]])
    storage = Counting()
    for pack, other in ((one, two), (two, one)):
        storage.put(pack_name(pack.hash), b"".join(other.buffers))
    check = verify_pack(storage, RING, one.hash)
    assert check.problem == "its bytes have another hash than its name" and not check.damaged
    with pytest.raises(ObjectDamaged, match=r"does not hold frame|bytes where"):
        read(PackReader(storage, RING), one, [0])


def test_two_frames_in_each_others_place_are_found() -> None:
    pack = make_pack(RING, [[os.urandom(100)], [os.urandom(100)]])
    storage, hash_, _ = stored(pack)
    data = b"".join(pack.buffers)
    storage.rewrite(pack_name(hash_), data[116:232] + data[:116] + data[232:])
    assert len(verify_pack(storage, RING, hash_).damaged) == 2


def test_a_table_that_disagrees_with_the_directory_is_not_believed() -> None:
    storage, hash_, size = stored(BIG)
    reader = PackReader(storage, RING)
    place = BIG.directory.frames[0]
    for wrong, words in (
        (place._replace(name=FrameName(place.name.origin, 99)), "does not hold frame"),
        (place._replace(offset=5), "disagree about frame"),
        (place._replace(plain_length=5), "disagree about frame"),
    ):
        with pytest.raises(ObjectDamaged, match=f"{pack_name(hash_)}.*{words}"):
            list(reader.read_frames(hash_, size, [wrong]))


@pytest.mark.parametrize("size", [0, -1, 65 * MIB])
def test_a_size_that_no_pack_has_is_refused(size: int) -> None:
    storage, hash_, _ = stored(BIG)
    with pytest.raises(ObjectDamaged, match=r"outside the limits of a pack|bytes where"):
        list(PackReader(storage, RING).read_frames(hash_, size, [BIG.directory.frames[0]]))


def test_chunks_that_a_directory_lies_about_are_found_by_verify() -> None:
    frame = make_frame(RING, make_pack_key(RING, DATA), 0, [b"truth", b"told"])
    lied = frame._replace(chunks=FrameChunks(frame.chunks.ids[:32] + os.urandom(32), frame.chunks.lengths))
    moved = frame._replace(
        place=frame.place, chunks=FrameChunks(frame.chunks.ids, array("I", [4, 5])), sealed=frame.sealed
    )
    for wrong in (lied, moved):
        storage, hash_, _ = stored(carry(RING, DATA, [wrong]))
        check = verify_pack(storage, RING, hash_)
        assert check.problem is None
        assert list(check.damaged.values()) == [
            f"frame {frame.place.name} holds other chunks than its directory says"
        ]


# Roles and epochs


def test_a_writer_verifies_hash_and_directory_only() -> None:
    writer = replace(RING, role="writer", epochs={1: replace(RING.epochs[1], data_private=None)})
    pack = make_pack(RING, [[TEXT]])
    storage, hash_, _ = stored(pack)
    check = verify_pack(storage, writer, hash_)
    assert check.whole and not check.contents and check.frames == 1
    with pytest.raises(Refused, match="which cannot read contents"):
        read(PackReader(storage, writer), pack, [0])
    storage.rewrite(pack_name(hash_), b"".join(pack.buffers)[::-1])
    assert verify_pack(storage, writer, hash_).problem is not None


def test_a_writer_reads_metadata() -> None:
    writer = replace(RING, role="writer", epochs={1: replace(RING.epochs[1], data_private=None)})
    pack = make_pack(RING, [[b"node"]], kind=METADATA)
    storage, hash_, _ = stored(pack)
    assert read(PackReader(storage, writer), pack, [0]) == [b"node"]
    assert verify_pack(storage, writer, hash_).contents


def test_carried_frames_of_two_epochs_read_back() -> None:
    both = make_ring(epochs=(1, 2))
    earlier = replace(both, epochs={1: both.epochs[1]})
    frames: list[CarriedFrame] = []
    for ring, text in ((earlier, b"first"), (both, b"second"), (both, b"third")):
        frames += frames_of(make_pack(ring, [[text], [text * 2]]))
    pack = carry(both, DATA, frames[1:5])
    storage, hash_, _ = stored(pack)
    assert read(PackReader(storage, both), pack, range(4)) == [
        b"firstfirst",
        b"second",
        b"secondsecond",
        b"third",
    ]
    assert verify_pack(storage, both, hash_).whole
    one = replace(both, epochs={2: both.epochs[2]})
    assert not verify_pack(storage, one, hash_).contents
    with pytest.raises(Refused, match="holds no keys of epoch 1"):
        read(PackReader(storage, one), pack, [0])


def test_ids_are_of_the_kind_of_the_pack() -> None:
    pack = make_pack(RING, [[TEXT]], kind=METADATA)
    assert pack.directory.chunk_ids(0) == [blake3(TEXT, key=RING.metadata_chunk_id_key).digest()]
    assert blake3(TEXT, key=RING.data_chunk_id_key).digest() not in pack.directory.chunk_ids(0)


@given(st.data())
def test_a_pack_read_in_pieces_is_judged_as_one_read_whole(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, MIB), min_size=1, max_size=6))
    pack = make_pack(RING, [[os.urandom(size)] for size in sizes])
    storage, hash_, size = stored(pack)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_check, "PIECE_BYTES", data.draw(st.sampled_from([1, 2, 16])) * MIB)
        check = verify_pack(storage, RING, hash_, size=size)
        assert check.whole and check.contents and check.frames == len(sizes)
        changed = bytearray(b"".join(pack.buffers))
        at = data.draw(st.integers(0, pack.directory.frames[-1].offset + sizes[-1] - 1))
        changed[at] ^= 1
        storage.rewrite(pack_name(hash_), bytes(changed))
        (hurt,) = [p for p in pack.directory.frames if p.offset <= at < p.offset + p.sealed_length]
        check = verify_pack(storage, RING, hash_, size=size)
        assert (list(check.damaged), check.problem) == (
            [hurt.name],
            "its bytes have another hash than its name",
        )
        for other in (bytes(changed)[:-1], bytes(changed) + b"x"):
            storage.rewrite(pack_name(hash_), other)
            assert "expected" in (verify_pack(storage, RING, hash_, size=size).problem or "")

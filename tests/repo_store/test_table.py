"""Tables: what is built reads back, in whole and in parts; what is damaged or forged is refused in its own words."""

import json
import random
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from support.directories import make_directory, make_table, random_pack, two_signers
from support.rings import make_ring
from support.rows_reference import split

from repo_store import table as table_module
from repo_store.errors import ObjectDamaged
from repo_store.frame import FrameName
from repo_store.key_ring import EpochKeys, KeyRing, RosterLine, signer_of
from repo_store.padme import padme
from repo_store.row_batch import ROW_BYTES, RowBatch, chunk_place, frame_location, origin_number, pack_number
from repo_store.row_sums import Merge, RowSums, check_merge
from repo_store.rows import Section
from repo_store.sealed import Kind
from repo_store.table import FOOTER, PACK_ENTRY, batch_sums, build_table, table_hash, table_name
from repo_store.table_reader import TableReader

RING = make_ring()
VECTOR = Path(__file__).parent.parent / "vectors" / "tables"


def reader_of(data: bytes, ring: KeyRing = RING) -> TableReader:
    return TableReader(ring, "t", len(data), lambda at, length: data[at : at + length])


def all_rows(reader: TableReader) -> list[list[bytes]]:
    return [split(b"".join(reader.stream(section)), ROW_BYTES[section]) for section in Section]


def refusal(data: bytes, ring: KeyRing = RING) -> str:
    with pytest.raises(ObjectDamaged) as caught:
        reader = reader_of(data, ring)
        all_rows(reader)
        reader.check_sums()
    return caught.value.reason


def filled(*packs: tuple[bytes, int, object]) -> RowBatch:
    batch = RowBatch()
    for pack in packs:
        batch.add_pack(*pack)  # type: ignore[arg-type]
    batch.sort()
    return batch


@pytest.fixture(scope="module")
def sample() -> bytes:
    choice = random.Random(3)
    return make_table(
        RING,
        random_pack(choice, frames=40, chunks=60),
        random_pack(choice, frames=30, chunks=60, kind=Kind.METADATA_DIRECTORY),
    )


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 1 << 32).map(random.Random),
    st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=6),
)
def test_a_table_reads_back_as_the_rows_it_was_built_from(
    choice: random.Random, shape: list[tuple[int, bool]]
) -> None:
    packs = [
        random_pack(choice, frames, 5, Kind.METADATA_DIRECTORY if meta else Kind.DATA_DIRECTORY)
        for frames, meta in shape
    ]
    reader = reader_of(make_table(RING, *packs))
    reader.check_sums()
    wanted = {
        chunk_id for _, _, d in packs for index in range(len(d.frames)) for chunk_id in d.chunk_ids(index)
    }
    assert {row[:32] for row in (*all_rows(reader)[1], *all_rows(reader)[2])} == wanted
    for pack, size, directory in packs:
        section = Section.METADATA if directory.kind == Kind.METADATA_DIRECTORY else Section.DATA
        for index, frame in enumerate(directory.frames):
            key = frame.name.origin + frame.name.ordinal.to_bytes(4, "big")
            [row] = reader.find(Section.LOCATIONS, [key])[key]
            stored = PACK_ENTRY.unpack_from(reader.trailer.packs, 40 * pack_number(row))
            assert frame_location(row, *stored) == (pack, size, frame)
            for chunk_id, offset, length in directory.chunks(index):
                [row] = reader.find(section, [chunk_id])[chunk_id]
                at = 16 * origin_number(row)
                place = chunk_place(row, reader.trailer.origins[at : at + 16])
                assert place == (*frame.name, offset, length)


def test_a_table_has_a_padme_size_and_two_of_the_same_rows_have_two_names() -> None:
    pack = random_pack(random.Random(1))
    one, two = make_table(RING, pack), make_table(RING, pack)
    assert len(one) == padme(len(one)) and table_name(one) != table_name(two)
    assert table_hash(table_name(one)).hex() == table_name(one).removeprefix("tables/")


def test_an_empty_table_is_a_table() -> None:
    assert all_rows(reader_of(make_table(RING))) == [[], [], []]


def test_every_row_of_a_key_is_kept_across_blocks() -> None:
    batch, chunk_id, choice = RowBatch(), bytes([9]) * 32, random.Random(1)
    for number in range(1500):
        ids = [chunk_id, choice.randbytes(32)]
        batch.add_pack(choice.randbytes(32), 9, make_directory([(FrameName(bytes(16), number), None, ids)]))
    batch.sort()
    reader = reader_of(build_table(RING, batch))
    assert len(reader.find(Section.DATA, [chunk_id])[chunk_id]) == 1500
    assert len(all_rows(reader)[Section.LOCATIONS]) == 1500, "65,535 frames of one origin share eight bytes"
    for ordinal in range(1500):
        key = bytes(16) + ordinal.to_bytes(4, "big")
        assert len(reader.find(Section.LOCATIONS, [key])[key]) == 1


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 2399), max_size=8),
    st.sets(st.sampled_from([b"\0" * 32, b"\xff" * 32, b"a" * 32])),
)
def test_any_keys_are_found_with_few_reads(sample: bytes, numbers: list[int], edges: set[bytes]) -> None:
    reads: list[int] = []

    def read(at: int, length: int) -> bytes:
        reads.append(length)
        return sample[at : at + length]

    reader = TableReader(RING, "t", len(sample), read)
    rows = all_rows(reader)[1]
    reads.clear()
    wanted = {rows[number][:32]: [rows[number]] for number in numbers}
    assert reader.find(Section.DATA, [*wanted, *edges]) == wanted
    assert len(reads) <= 1 and sum(reads) <= 3 * (1024 * 44 + 16)


def test_the_last_key_of_all_is_found() -> None:
    choice = random.Random(1)
    ids = [*sorted(choice.randbytes(32) for _ in range(2047)), b"\xff" * 32, b"\xff" * 31 + b"\xfe"]
    directory = make_directory([(FrameName(bytes(16), 0), None, ids)])
    reader = reader_of(make_table(RING, (bytes(32), 9, directory)))
    assert set(reader.find(Section.DATA, ids[-2:])) == set(ids[-2:])


def test_a_flipped_bit_anywhere_is_refused(sample: bytes) -> None:
    trailer_at = len(sample) - 16 - FOOTER.unpack(sample[-16:])[4]
    ends = [*range(64), *range(trailer_at, trailer_at + 200), *range(len(sample) - 16, len(sample))]
    for at in [*ends, *range(64, len(sample), 1013)]:
        data = bytearray(sample)
        data[at] ^= 1 << (at % 8)
        refusal(bytes(data))


def test_a_table_cut_short_or_with_something_after_it_is_refused(sample: bytes) -> None:
    for length in [*range(100), *range(100, len(sample), 3001), len(sample) - 1]:
        refusal(sample[:length])
    for extra in (b"\0", sample[-16:], bytes(3000) + sample[-16:]):
        refusal(sample + extra)


def test_an_object_that_is_shorter_than_listed_is_refused(sample: bytes) -> None:
    with pytest.raises(ObjectDamaged, match="ends before its"):
        TableReader(RING, "t", len(sample), lambda at, length: sample[at : at + length - 1])


def test_each_damage_is_refused_in_its_own_words(sample: bytes) -> None:
    footer = FOOTER.unpack(sample[-16:])
    trailer_at = len(sample) - 16 - footer[4]
    other = make_table(RING, random_pack(random.Random(9), frames=40, chunks=60))
    other_trailer_at = len(other) - 16 - FOOTER.unpack(other[-16:])[4]

    def ended(*fields: object) -> bytes:
        return sample[:-16] + FOOTER.pack(*fields)

    step = 1024 * 44 + 16
    first = 64 + 70 * 60 + 16  # where the blocks of data chunks start
    swapped = sample[:first] + sample[first + step : first + 2 * step] + sample[first : first + step]
    cases = {
        "too short for a table": b"HFTB",
        "does not end like a table": ended(b"HFPK", *footer[1:]),
        "has format 2; this version reads up to 1": ended(footer[0], 2, *footer[2:]),
        "its footer is of kind 10, not of a table": ended(*footer[:2], 10, *footer[3:]),
        "its footer is of kind 15, not of a table": ended(*footer[:5], 7),
        "its trailer is larger than the table": ended(*footer[:4], 1 << 31, 0),
        "does not start like an object of holdfast": b"HFSO" + sample[4:],
        "fails authentication": sample[:trailer_at]
        + sample[trailer_at : trailer_at + 100]
        + bytes(footer[4] - 100)
        + sample[-16:],
        "its trailer belongs to another table": sample[:other_trailer_at] + other[other_trailer_at:],
        "block 0 of section 1 is not the one that was signed": swapped + sample[first + 2 * step :],
    }
    for reason, data in cases.items():
        assert refusal(data) == reason
    assert refusal(sample[:64] + b"\0" + sample[64:]).startswith("its blocks would end at ")
    assert "sealed under another key" in refusal(sample, make_ring())


def test_a_block_sealed_again_by_one_who_has_the_key_is_refused(sample: bytes) -> None:
    """Every role holds the metadata key; the digests in the signed trailer are what keeps a writer from forging."""
    forged = make_table(RING, random_pack(random.Random(4), frames=40, chunks=60))
    header = reader_of(sample)
    block = header._cipher.encrypt(struct.pack("<I8x", 0), bytes(70 * 60), header._beside)
    assert len(forged) and refusal(sample[:64] + block + sample[64 + len(block) :]).endswith("was signed")


def rebuilt(sample: bytes, change: Callable[[dict[str, object]], None]) -> bytes:
    """Return `sample` with a trailer changed and signed again: what failing memory or a bug would write."""
    choice = random.Random(5)
    batch = filled(random_pack(choice), random_pack(choice, kind=Kind.METADATA_DIRECTORY))
    with pytest.MonkeyPatch.context() as patch:
        whole = table_module._trailer_body

        def body(*args: object) -> dict[str, object]:
            made = whole(*args)  # type: ignore[arg-type]
            change(made)
            return made

        patch.setattr(table_module, "_trailer_body", body)
        return build_table(RING, batch)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("packs", b"x" * 41, "its packs are not 40 bytes each"),
        ("packs", b"", "rows of section 0 are out of order or point nowhere"),
        ("origins", None, "its origins are not 16 bytes each"),
        ("origins", b"", "rows of section 1 are out of order or point nowhere"),
        ("counts", [1, 2], "its counts and sums are not three of each"),
        ("counts", [1, 2, True], "its counts and sums are not three of each"),
        ("counts", [4, 32, -1], "its counts and sums are not three of each"),
        ("counts", [1 << 24, 32, 32], "states 16777280 rows, above the limit"),
        ("sums", [b"", b"", b""], "its counts and sums are not three of each"),
        ("sums", [bytes(32)] * 3, "rows of section 0 do not add up to their sum"),
        ("header", None, "its trailer names no header"),
        ("header", bytes(16), "its trailer belongs to another table"),
        ("firsts", [b"", b"", b""], "its firsts are not 8 bytes for every block"),
        (
            "firsts",
            [bytes(8)] * 3,
            "block 0 of section 0 does not start with the key that the trailer states",
        ),
        ("digests", [bytes(16)] * 2, "its digests are not 16 bytes for every block"),
        ("merged", 5, "what it was merged from is not stated as it must be"),
        ("merged", {"generation": 1, "sources": []}, "what it was merged from is not stated as it must be"),
    ],
)
def test_a_trailer_that_says_nonsense_is_refused(sample: bytes, key: str, value: object, reason: str) -> None:
    assert refusal(rebuilt(sample, lambda body: body.update({key: value}))) == reason


def test_rows_that_say_nonsense_are_refused() -> None:
    def build(change: Callable[[RowBatch], None]) -> bytes:
        batch = filled(random_pack(random.Random(6)))
        change(batch)
        return build_table(RING, batch)

    def unsort(batch: RowBatch) -> None:
        rows = batch.sections[1]
        rows[:44], rows[44:88] = rows[44:88], rows[:44]

    def hole(batch: RowBatch) -> None:
        batch.sections[2][:] = bytes(32) + batch.sections[1][32:44]

    for section, at in ((0, 36), (0, 37), (0, 39)):
        reason = refusal(build(lambda batch, s=section, at=at: batch.sections[s].__setitem__(at, 3)))
        assert reason == "a location has a codec that this version does not know"
    assert refusal(build(unsort)) == "rows of section 1 are out of order or point nowhere"
    assert refusal(build(hole)) == "it has a row for the hole, which is no chunk"


def test_order_is_checked_between_groups_of_blocks() -> None:
    choice = random.Random(8)
    ids = sorted(choice.randbytes(32) for _ in range(65 * 1024))
    batch = RowBatch()
    batch.add_pack(bytes(32), 1, make_directory([(FrameName(bytes(16), 0), None, ids)]))
    rows = batch.sections[1]
    rows[:] = rows[1024 * 44 :] + rows[: 1024 * 44]  # the first 64 blocks are in order, and so is the last
    assert refusal(build_table(RING, batch)) == "rows of section 1 are out of order or point nowhere"


def test_a_signer_who_is_unknown_or_may_not_sign_tables_is_refused() -> None:
    stranger = replace(RING, signing_key=Ed25519PrivateKey.generate())
    assert refusal(make_table(stranger)).endswith("which is not in the roster")
    public = stranger.signing_key.public_key().public_bytes_raw()
    line = RosterLine(public, "22" * 8, "reader", frozenset({Kind.LEDGER}))
    ring = replace(RING, roster={**RING.roster, signer_of(public): line})
    assert refusal(make_table(stranger), ring).endswith("a reader, which may not sign this")
    mine, other = two_signers(RING)
    assert reader_of(make_table(other), mine).trailer.signer == other.signer


def test_a_lost_doubled_altered_or_exchanged_row_breaks_the_merge() -> None:
    choice = random.Random(11)
    packs = [random_pack(choice) for _ in range(3)]
    sources = [filled(packs[0]), filled(packs[1], packs[2])]
    removed = filled(packs[2])
    merged = filled(packs[0], packs[1])
    stated = [(choice.randbytes(32), batch_sums(RING, source)) for source in sources]
    merge = Merge(4, tuple(stated), batch_sums(RING, removed))
    data = build_table(RING, merged, merge=merge)
    assert reader_of(data).trailer.merge == merge

    def refused(change: Callable[[RowBatch], None], reason: str) -> None:
        batch = filled(packs[0], packs[1])
        change(batch)
        with pytest.raises(ObjectDamaged) as caught:
            check_merge("t", [sums for _, sums in stated], merge.removed, batch_sums(RING, batch))
        assert caught.value.reason == reason

    lost = "its merge does not add up in section {}: {} rows went in, {} came out"
    altered = "its merge does not add up in section {}: a row was altered or exchanged"
    refused(lambda batch: batch.sections[1].__delitem__(slice(0, 44)), lost.format(1, 96, 95))
    refused(lambda batch: batch.sections[0].extend(batch.sections[0][:60]), lost.format(0, 12, 13))
    for at in (0, 32, 36, 43):  # id, origin, place
        refused(
            lambda batch, at=at: batch.sections[1].__setitem__(at, batch.sections[1][at] ^ 1),
            altered.format(1),
        )
    for at in (0, 19, 20, 24, 59):
        refused(
            lambda batch, at=at: batch.sections[0].__setitem__(at, batch.sections[0][at] ^ 1),
            altered.format(0),
        )

    def double(batch: RowBatch) -> None:
        batch.sections[1][:44] = batch.sections[1][44:88]

    def swap_sections(batch: RowBatch) -> None:
        batch.sections[2].extend(batch.sections[1])
        batch.sections[1].clear()

    refused(double, altered.format(1))
    refused(swap_sections, lost.format(1, 96, 32))
    with pytest.raises(ObjectDamaged, match="does not add up"):
        build_table(RING, removed, merge=merge)


def test_sums_see_the_section_and_wrap_around() -> None:
    batch = filled(random_pack(random.Random(12)))
    moved = RowBatch()
    moved.packs, moved.origins = batch.packs, batch.origins
    moved.sections[2].extend(batch.sections[1])
    assert batch_sums(RING, batch).sums[1] != batch_sums(RING, moved).sums[2]
    top = RowSums((1, 0, 0), ((1 << 256) - 1, 0, 0))
    assert (top + RowSums((1, 0, 0), (2, 0, 0))).sums[0] == 1


def test_the_golden_table_says_what_it_always_said() -> None:
    vector = json.loads((VECTOR / "small.json").read_text())
    secrets = {key: bytes.fromhex(value) for key, value in vector["secrets"].items()}
    public = secrets["sign_public"]
    ring = replace(
        RING,
        repository=secrets["repository"],
        id_key=secrets["id_key"],
        roster={signer_of(public): RosterLine(public, "00" * 8, "writer", frozenset({Kind.TABLE}))},
        epochs={1: EpochKeys(secrets["metadata_key"], b"", None)},
    )
    data, says = (VECTOR / "small.table").read_bytes(), vector["says"]
    assert table_name(data) == says["name"]
    reader = reader_of(data, ring)
    reader.check_sums()
    assert reader.trailer.merge is not None and reader.trailer.merge.generation == 7
    packs = dict(PACK_ENTRY.iter_unpack(reader.trailer.packs))
    assert {pack.hex(): size for pack, size in packs.items()} == says["packs"]
    hashes, rows = list(packs), all_rows(reader)
    frames = []
    for row in rows[0]:
        location = frame_location(row, hashes[pack_number(row)], 0)
        (origin, ordinal), *numbers, base = location.place
        frames.append(
            [origin.hex(), ordinal, location.pack.hex(), *numbers, [base[0].hex(), base[1]] if base else []]
        )
    assert sorted(frames) == sorted(says["frames"])
    chunks, wanted = [], []
    for section in (1, 2):
        for row in rows[section]:
            at = 16 * origin_number(row)
            chunks.append((section, row[:32], *chunk_place(row, reader.trailer.origins[at : at + 16])))
    for section, origin, ordinal, length, joined in says["chunks"]:
        for number, chunk_id in enumerate(split(bytes.fromhex(joined), 32)):
            wanted.append((section, chunk_id, bytes.fromhex(origin), ordinal, number * length, length))
    assert sorted(chunks) == sorted(wanted)

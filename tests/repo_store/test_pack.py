"""Packs: directories that say exactly what lies there, and refusals in their own words."""

import os
import struct
from array import array
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from support.packs import DATA, METADATA, body_of, frames_of, make_frame, make_pack, resealed
from support.rings import make_ring

from repo_store.directory import KEYS_MAX, parse_directory
from repo_store.errors import HoldfastError, ObjectDamaged
from repo_store.frame import Base, Codec, FrameCodec, FrameName
from repo_store.key_ring import RosterLine
from repo_store.pack import Pack, carry, finish_pack, pack_name, read_footer, read_tail
from repo_store.pack_key import make_pack_key, open_pack_key
from repo_store.padme import padme
from repo_store.sealed import Kind, Opened

RING = make_ring()
NAME = "packs/aa/aabb"
TEXT = b"all happy families are alike; " * 30
FRAMES = [[TEXT, b"one"], [os.urandom(700)], [b"a", b"b", TEXT]]
ROW = struct.Struct("<HBBIIIII20sI")
Body = dict[str, Any]


def joined(pack: Pack) -> bytes:
    return b"".join(pack.buffers)


def contents(pack: Pack) -> list[bytes]:
    """Return the plaintexts of the frames of a pack, read back from its bytes and the ring alone."""
    data = joined(pack)
    directory = read_tail(RING, NAME, len(data), data)
    keys = [open_pack_key(RING, directory.kind, NAME, key) for key in directory.keys]
    codec = FrameCodec()
    return [
        bytes(codec.open(keys[at], NAME, place, data[place.offset : place.offset + place.sealed_length]))
        for place, at in zip(directory.frames, directory.key_of, strict=True)
    ]


@pytest.mark.parametrize("kind", [DATA, METADATA])
def test_a_pack_reads_back(kind: Kind) -> None:
    pack = make_pack(RING, FRAMES, kind=kind)
    assert contents(pack) == [b"".join(chunks) for chunks in FRAMES]
    assert pack.hash == blake3(joined(pack)).digest()
    assert pack_name(pack.hash) == f"packs/{pack.hash.hex()[:2]}/{pack.hash.hex()}"
    assert pack.directory.signer == RING.signer and pack.directory.kind == kind


@settings(max_examples=settings.default.max_examples // 2)
@given(
    st.lists(st.lists(st.binary(min_size=1, max_size=400), min_size=1, max_size=6), min_size=1, max_size=6)
)
def test_any_pack_reads_back_with_all_its_chunks(frames: list[list[bytes]]) -> None:
    pack = make_pack(RING, frames, kind=METADATA)
    directory = read_tail(RING, NAME, pack.size, joined(pack))
    assert contents(pack) == [b"".join(chunks) for chunks in frames]
    for index, chunks in enumerate(frames):
        offset = 0
        for (chunk_id, at, length), chunk in zip(directory.chunks(index), chunks, strict=True):
            assert (at, length) == (offset, len(chunk))
            assert chunk_id == blake3(chunk, key=RING.metadata_chunk_id_key).digest()
            offset += length
    assert pack.size == padme(pack.size)


def test_the_footer_has_the_bytes_of_the_format() -> None:
    data = joined(make_pack(RING, FRAMES))
    magic, version, kind, zero, directory_bytes, frames_bytes = struct.unpack("<4sBBHII", data[-16:])
    assert (magic, version, kind, zero) == (b"HFPK", 1, 10, 0)
    assert directory_bytes + frames_bytes + 16 == len(data)
    assert data[frames_bytes : frames_bytes + 6] == b"HFSO\x01\x0a"


def test_the_directory_has_the_fields_of_the_format() -> None:
    pack = make_pack(RING, FRAMES)
    data = joined(pack)
    body = body_of(RING, data)
    assert list(body) == ["random", "keys", "frames", "ids", "lengths"]
    rows = list(ROW.iter_unpack(body["frames"]))
    place = pack.directory.frames[1]
    assert rows[1] == (0, 0, 0, 1, place.offset, place.sealed_length, 700, 1, bytes(20), 0)
    assert body["lengths"] == struct.pack("<6I", len(TEXT), 3, 700, 1, 1, len(TEXT))
    assert body["ids"][32:64] == blake3(b"one", key=RING.data_chunk_id_key).digest()
    assert [len(part) if isinstance(part, bytes) else part for part in body["keys"][0]] == [16, 1, 1, 1168]


def test_no_two_packs_are_ever_equal() -> None:
    key = make_pack_key(RING, METADATA)
    frame = make_frame(RING, key, 0, [TEXT], kind=METADATA)
    packs = [carry(RING, METADATA, [frame]) for _ in range(20)]
    assert len({pack.hash for pack in packs}) == 20
    assert len({body_of(RING, joined(pack))["random"] for pack in packs}) == 20


def test_a_finished_hash_of_the_frames_may_be_given() -> None:
    frame = make_frame(RING, make_pack_key(RING, DATA), 0, [TEXT])
    hasher = blake3(frame.sealed)
    pack = finish_pack(RING, DATA, [frame.key], [frame.place], [frame.chunks], [frame.sealed], hasher=hasher)
    assert pack.hash == blake3(joined(pack)).digest()
    assert hasher.digest() == blake3(frame.sealed).digest(), "it can be used for the second copy"


# Carrying


def test_frames_of_three_packs_and_two_epochs_are_carried_without_opening() -> None:
    both = make_ring(epochs=(1, 2))
    earlier = replace(both, epochs={1: both.epochs[1]})
    packs = [make_pack(earlier, FRAMES), make_pack(both, FRAMES[:2]), make_pack(both, FRAMES[1:])]
    chosen = [frames_of(packs[0])[2], frames_of(packs[1])[0], frames_of(packs[0])[0], frames_of(packs[2])[1]]
    writer = replace(both, epochs={2: replace(both.epochs[2], data_private=None)})
    carried = carry(writer, DATA, chosen)
    directory = carried.directory
    assert len(directory.keys) == 3 and [key.epoch for key in directory.keys] == [1, 2, 2]
    assert [place.name for place in directory.frames] == [frame.place.name for frame in chosen]
    data = joined(carried)
    for index, frame in enumerate(chosen):
        place = directory.frames[index]
        assert data[place.offset : place.offset + place.sealed_length] == frame.sealed
        key = open_pack_key(both, DATA, NAME, directory.keys[directory.key_of[index]])
        FrameCodec().prove(
            key, place, frame.sealed, both.data_chunk_id_key, directory.chunk_ids(index), frame.chunks.lengths
        )


def test_a_pack_of_too_many_keys_is_not_made() -> None:
    frames = [
        make_frame(RING, make_pack_key(RING, METADATA), 0, [b"x"], kind=METADATA) for _ in range(KEYS_MAX + 1)
    ]
    assert len(carry(RING, METADATA, frames[:-1]).directory.keys) == 256
    with pytest.raises(HoldfastError, match="does not have 1 to 256 keys: not written"):
        carry(RING, METADATA, frames)


def test_data_is_not_carried_into_a_metadata_pack() -> None:
    frame = make_frame(RING, make_pack_key(RING, DATA), 0, [TEXT])
    with pytest.raises(HoldfastError, match="uses suite 1, which keys of its kind never do: not written"):
        carry(RING, METADATA, [frame])


def test_a_directory_that_does_not_read_back_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = make_frame(RING, make_pack_key(RING, DATA), 0, [TEXT])
    good = ROW.pack

    class Failing(struct.Struct):
        def pack(self, *values: Any) -> bytes:
            return good(*values[:3], values[3] ^ 4, *values[4:])

    monkeypatch.setattr("repo_store.pack.FRAME_ROW", Failing("<HBBIIIII20sI"))
    with pytest.raises(HoldfastError, match="does not read back as written: failing memory, or a bug"):
        carry(RING, DATA, [frame])


def test_a_frame_with_its_base_in_the_same_pack_keeps_its_name() -> None:
    key = make_pack_key(RING, DATA)
    first = make_frame(RING, key, 4, [TEXT])
    second = make_frame(RING, key, 9, [TEXT[:700]], base=Base(first.place.name, TEXT))
    pack = carry(RING, DATA, [second, first])
    assert pack.directory.frames[0].base == first.place.name == FrameName(key.sealed_key.origin, 4)
    assert pack.directory.frames[0].codec == Codec.ZSTD_WITH_BASE


# Refusals


def refused(data: bytes, words: str, *, size: int | None = None) -> None:
    with pytest.raises(ObjectDamaged, match=words) as told:
        read_tail(RING, NAME, len(data) if size is None else size, data)
    assert told.value.name == NAME
    assert str(told.value).startswith(f"{NAME}: damaged: ")


DATA_PACK = joined(make_pack(RING, FRAMES))


def test_a_pack_of_a_wrong_size_is_refused() -> None:
    refused(DATA_PACK[:15], "too short for a pack")
    refused(b"", "too short for a pack")
    refused(DATA_PACK[:-1], "does not end like a pack")
    refused(DATA_PACK[1:], f"its footer accounts for {len(DATA_PACK)} of {len(DATA_PACK) - 1} bytes")
    refused(DATA_PACK, "above the limit of a pack", size=(64 << 20) + 1)
    directory_bytes = struct.unpack("<I", DATA_PACK[-8:-4])[0]
    refused(DATA_PACK[-directory_bytes:], f"has {directory_bytes} bytes, of which", size=len(DATA_PACK))


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (0, b"HFTB", "does not end like a pack"),
        (4, b"\2", "has pack format 2; this version reads up to 1"),
        (5, b"\x0c", "its footer says kind 12, which is not that of a pack"),
        (5, b"\0", "its footer says kind 0, which is not that of a pack"),
        (5, b"\x0b", "kind 10 does not belong there"),
        (6, b"\1", "its footer says kind 10, which is not that of a pack"),
        (8, b"\xff\xff\xff\xff", "its footer accounts for"),
        (12, b"\0\0\0\0", "its footer accounts for"),
    ],
)
def test_each_field_of_the_footer_is_checked(at: int, value: bytes, words: str) -> None:
    footer = bytearray(DATA_PACK[-16:])
    footer[at : at + len(value)] = value
    refused(DATA_PACK[:-16] + footer, words)


def test_a_shifted_border_between_frames_and_directory_is_refused() -> None:
    directory_bytes, frames_bytes = struct.unpack("<II", DATA_PACK[-8:])
    refused(DATA_PACK[:-8] + struct.pack("<II", directory_bytes + 1, frames_bytes - 1), "does not start like")


@given(st.data())
def test_every_changed_bit_behind_the_frames_is_refused(data: st.DataObject) -> None:
    frames_bytes = struct.unpack("<I", DATA_PACK[-4:])[0]
    bit = data.draw(st.integers(8 * frames_bytes, 8 * len(DATA_PACK) - 1))
    changed = bytearray(DATA_PACK)
    changed[bit // 8] ^= 1 << bit % 8
    refused(bytes(changed), ".")


def _rows(change: Callable[[list[list[Any]]], object]) -> Callable[[Body], object]:
    def apply(body: Body) -> None:
        rows = [list(row) for row in ROW.iter_unpack(body["frames"])]
        change(rows)
        body["frames"] = b"".join(ROW.pack(*row) for row in rows)

    return apply


def _field(row: int, column: int, value: Any) -> Callable[[Body], object]:
    return _rows(lambda rows: rows[row].__setitem__(column, value))


def _key(column: int, value: Any) -> Callable[[Body], object]:
    return lambda body: body["keys"][0].__setitem__(column, value)


BASE = b"o" * 16 + b"\1\0\0\0"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda body: body.pop("random"), "its directory has no random"),
        (lambda body: body.update(random=bytes(15)), "its directory has no 16 random bytes"),
        (lambda body: body.pop("keys"), "does not have 1 to 256 keys"),
        (lambda body: body.update(keys=[]), "does not have 1 to 256 keys"),
        (lambda body: body.update(keys=body["keys"] * 257), "does not have 1 to 256 keys"),
        (lambda body: body.update(keys=body["keys"] * 2), "has two keys of one origin"),
        (lambda body: body.update(keys=[7]), "has a key that is none"),
        (lambda body: body.update(keys=[[]]), "has a key that is none"),
        (_key(0, bytes(15)), "has a key that is none"),
        (_key(1, "1"), "has a key that is none"),
        (_key(2, 2), "uses suite 2, which this version does not know"),
        (_key(2, 0), "uses suite 0, which keys of its kind never do"),
        (_key(3, bytes(1167)), "has 1167 bytes sealed"),
        (lambda body: body.pop("frames"), "its directory has no frames"),
        (lambda body: body.update(frames=b""), "0 bytes, not whole rows"),
        (lambda body: body.update(frames=body["frames"][:-1]), "143 bytes, not whole rows"),
        (_field(1, 0, 1), "frame 1 in its directory uses key 1 of 1"),
        (_field(1, 1, 3), "uses codec 3, which this version does not know"),
        (_field(1, 1, 2), "uses codec 2 without a base"),
        (_field(1, 8, BASE), "uses codec 0 with a base"),
        (_field(0, 8, BASE), "uses codec 1 with a base"),
        (_field(1, 2, 1), "has a number that none can have"),
        (_field(1, 9, 1), "has a number that none can have"),
        (_field(1, 3, 65_535), "has a number that none can have"),
        (_field(1, 3, 0), "has two frames of one name"),
        (_field(1, 4, 0), "leaves a gap or overlaps"),
        (_field(0, 4, 1), "leaves a gap or overlaps"),
        (_field(1, 5, 700), "is stored, yet 700 bytes are sealed as 700"),
        (_field(2, 5, 16), "leaves a gap or overlaps"),
        (_field(2, 5, 17), "accounts for 8[0-9][0-9] of 8[0-9][0-9] bytes of frames"),
        (_field(1, 6, 701), "is stored, yet 701 bytes are sealed as 716"),
        (_field(0, 6, 0), "has 2 chunks of 0 bytes, outside the limits"),
        (_field(0, 6, (8 << 20) + 1), "has 2 chunks of 8388609 bytes, outside the limits"),
        (_field(0, 7, 0), "has 0 chunks of 903 bytes, outside the limits"),
        (_field(0, 7, 904), "has 904 chunks of 903 bytes, outside the limits"),
        (_field(0, 7, 3), "192 bytes of ids and 24 of lengths for 7 chunks"),
        (_rows(lambda rows: rows.pop()), "of 8[0-9][0-9] bytes of frames"),
        (_rows(lambda rows: rows.reverse()), "leaves a gap or overlaps"),
        (lambda body: body.update(ids=body["ids"][:-32]), "160 bytes of ids and 24 of lengths for 6 chunks"),
        (lambda body: body.update(ids=bytes(32) + body["ids"][32:]), "has a chunk with the id of a hole"),
        (lambda body: body.update(ids=body["ids"][:-32] + bytes(32)), "has a chunk with the id of a hole"),
        (lambda body: body.update(ids="text"), "its directory has no ids"),
        (lambda body: body.update(lengths=body["lengths"][:-4]), "192 bytes of ids and 20 of lengths"),
        (lambda body: body.pop("lengths"), "its directory has no lengths"),
        (
            lambda body: body.update(lengths=struct.pack("<6I", 903, 0, 700, 1, 1, 900)),
            "has a chunk of no bytes",
        ),
        (
            lambda body: body.update(lengths=struct.pack("<6I", 901, 3, 700, 1, 1, 900)),
            "cover 904 of its 903 bytes",
        ),
        (
            lambda body: body.update(lengths=struct.pack("<6I", 900, 3, 699, 2, 1, 900)),
            "cover 699 of its 700 bytes",
        ),
    ],
)
def test_a_signed_directory_that_makes_no_sense_is_refused(
    change: Callable[[Body], object], words: str
) -> None:
    refused(resealed(RING, DATA_PACK, change), words)


def test_zeros_that_are_no_whole_id_are_no_hole() -> None:
    def change(body: Body) -> None:
        body["ids"] = b"x" + bytes(62) + b"y" + body["ids"][64:]

    data = resealed(RING, DATA_PACK, change)
    assert read_tail(RING, NAME, len(data), data).chunk_ids(0)[0] == b"x" + bytes(31)


def test_unknown_fields_are_ignored() -> None:
    def change(body: Body) -> None:
        body["later"] = 1
        body["keys"][0].append("later")

    data = resealed(RING, DATA_PACK, change)
    assert read_tail(RING, NAME, len(data), data).frames == make_names(DATA_PACK)


def make_names(data: bytes) -> list[Any]:
    return read_tail(RING, NAME, len(data), data).frames


def test_a_base_of_a_base_is_refused() -> None:
    key = make_pack_key(RING, DATA)
    far = FrameName(os.urandom(16), 0)
    first = make_frame(RING, key, 0, [TEXT], base=Base(far, TEXT))
    second = make_frame(RING, key, 1, [TEXT[1:]], base=Base(first.place.name, TEXT))
    with pytest.raises(HoldfastError, match=f"has the base {first.place.name}, which has a base itself"):
        carry(RING, DATA, [first, second])


def test_a_directory_of_another_kind_or_repository_is_refused() -> None:
    refused(
        resealed(RING, DATA_PACK, lambda body: None, kind=METADATA),
        "uses suite 1, which keys of its kind never do",
    )
    other = make_ring()
    with pytest.raises(ObjectDamaged, match="was sealed under another key"):
        read_tail(other, NAME, len(DATA_PACK), DATA_PACK)
    same_keys = replace(RING, repository=os.urandom(32))
    with pytest.raises(ObjectDamaged, match="fails authentication"):
        read_tail(same_keys, NAME, len(DATA_PACK), DATA_PACK)


def test_a_directory_signed_by_someone_who_may_not_is_refused() -> None:
    line = RING.roster[RING.signer]
    may_not = RosterLine(line.public, line.slot, "reader", frozenset({Kind.MANIFEST}))
    for roster, words in (
        ({}, "which is not in the roster"),
        ({RING.signer: may_not}, "a reader, which may not sign"),
    ):
        with pytest.raises(ObjectDamaged, match=words):
            read_tail(replace(RING, roster=roster), NAME, len(DATA_PACK), DATA_PACK)


@given(st.binary(max_size=200), st.integers(0, 1 << 27))
def test_arbitrary_bytes_are_refused_and_nothing_else(tail: bytes, size: int) -> None:
    with pytest.raises(ObjectDamaged):
        read_footer(NAME, size, tail)


@given(
    st.dictionaries(
        st.sampled_from(["random", "keys", "frames", "ids", "lengths"]),
        st.binary(max_size=150)
        | st.lists(st.lists(st.binary(max_size=40) | st.integers()), max_size=3)
        | st.none(),
    )
)
def test_arbitrary_bodies_are_refused_and_nothing_else(body: Body) -> None:
    with pytest.raises(ObjectDamaged):
        parse_directory(NAME, DATA, Opened({"random": bytes(16), **body}, bytes(16)), 100)


def test_fifty_thousand_chunks_are_parsed_without_work_for_each() -> None:
    frames = [[b"%08d" % (frame * 1000 + number) for number in range(1000)] for frame in range(50)]
    pack = make_pack(RING, frames, kind=METADATA)
    assert len(pack.directory.lengths) == 50_000
    assert isinstance(pack.directory.lengths, array) and isinstance(pack.directory.ids, bytes)
    assert pack.directory.chunk_ids(49)[999] == blake3(b"00049999", key=RING.metadata_chunk_id_key).digest()

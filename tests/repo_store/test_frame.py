"""Frames: what goes in comes out, and nothing else ever does."""

import os
from array import array
from dataclasses import replace
from typing import Any

import pytest
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from support.packs import DATA, METADATA, make_frame
from support.rings import make_ring

from repo_store.errors import HoldfastError, ObjectDamaged
from repo_store.frame import (
    NO_BASE,
    Base,
    Codec,
    FrameCodec,
    FrameName,
    FramePlace,
    Squeezed,
    holds_chunks,
    seal_frame,
)
from repo_store.key_ring import KeyRing
from repo_store.pack import CarriedFrame
from repo_store.pack_key import PackKey, make_pack_key, open_pack_key

RING = make_ring()
KEY = make_pack_key(RING, DATA)
OBJECT = "packs/aa/aabb"
TEXT = b"it was the best of times, it was the worst of times\n" * 40


def open_(
    frame: CarriedFrame, *, key: PackKey = KEY, base_plain: bytes | None = None, **changes: Any
) -> bytes:
    sealed = changes.pop("sealed", frame.sealed)
    return bytes(FrameCodec().open(key, OBJECT, frame.place._replace(**changes), sealed, base=base_plain))


@given(
    st.lists(st.binary(min_size=1, max_size=300) | st.just(TEXT), min_size=1, max_size=5),
    st.integers(0, 65_534),
)
def test_what_goes_in_comes_out(chunks: list[bytes], ordinal: int) -> None:
    frame = make_frame(RING, KEY, ordinal, chunks)
    assert open_(frame) == b"".join(chunks)
    assert len(frame.sealed) <= len(b"".join(chunks)) + 16


@given(st.binary(min_size=1, max_size=200), st.binary(max_size=100), st.binary(max_size=2000))
def test_a_frame_with_a_base_comes_back_with_the_plaintext_of_its_base(a: bytes, b: bytes, c: bytes) -> None:
    base = Base(FrameName(os.urandom(16), 7), c + TEXT[:97] + a)
    frame = make_frame(RING, KEY, 3, [c + TEXT[:97], b + a])
    against = make_frame(RING, KEY, 3, [c + TEXT[:97], b + a], base=base)
    assert open_(against, base_plain=bytes(base.plain) if against.place.base else None) == open_(frame)


def test_a_base_saves_what_is_in_it_however_far_back() -> None:
    plain = os.urandom(3 << 20)
    base = Base(FrameName(os.urandom(16), 0), plain + os.urandom(1 << 20))
    frame = make_frame(RING, KEY, 1, [plain], base=base)
    assert frame.place.codec == Codec.ZSTD_WITH_BASE and frame.place.base == base.name
    assert len(frame.sealed) < len(plain) // 50
    assert open_(frame, base_plain=bytes(base.plain)) == plain


def test_a_frame_is_sealed_exactly_as_the_format_says() -> None:
    """The bytes made here from docs/format.md alone are the frame."""
    aes_key, origin = os.urandom(32), os.urandom(16)
    key = PackKey(KEY.sealed_key, RING.repository + bytes([32]) + origin, AESGCM(aes_key))
    base = FrameName(os.urandom(16), 0x01020304)
    for codec, named, written in (
        (0, None, bytes(20)),
        (1, None, NO_BASE),
        (2, base, base.origin + b"\4\3\2\1"),
    ):
        target = bytearray(len(TEXT) + 16)
        seal_frame(key, 0x1234, Squeezed(Codec(codec), TEXT, named), memoryview(target))
        bound = RING.repository + bytes([32]) + origin + b"\x34\x12\0\0" + bytes([codec]) + written
        assert AESGCM(aes_key).encrypt(b"\x34\x12" + bytes(10), TEXT, bound) == target


@pytest.mark.parametrize(
    ("plain", "codec"),
    [
        (bytes(1 << 20), Codec.ZSTD),
        (TEXT, Codec.ZSTD),
        (os.urandom(1 << 20), Codec.STORED),
        (b"x", Codec.STORED),
        (os.urandom(64) + bytes(1), Codec.STORED),
        (os.urandom(1 << 16) + bytes(4000), Codec.ZSTD),
        (os.urandom(1 << 16) + bytes(1700), Codec.STORED),
    ],
)
def test_what_does_not_shrink_by_a_thirty_second_is_stored(plain: bytes, codec: Codec) -> None:
    squeezed = FrameCodec().squeeze(plain)
    assert squeezed.codec == codec
    assert squeezed.sealed_length == len(squeezed.data) + 16


def test_a_base_that_does_not_help_is_not_used() -> None:
    squeezed = FrameCodec().squeeze(os.urandom(5000), base=Base(FrameName(bytes(16), 0), os.urandom(5000)))
    assert (squeezed.codec, squeezed.base) == (Codec.STORED, None)


def test_every_changed_bit_is_refused() -> None:
    frame = make_frame(RING, KEY, 0, [b"short"])
    for bit in range(8 * len(frame.sealed)):
        sealed = bytearray(frame.sealed)
        sealed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(
            ObjectDamaged, match=rf"^{OBJECT}: damaged: frame {frame.place.name} fails authenticat"
        ):
            open_(frame, sealed=bytes(sealed))


@pytest.mark.parametrize("length", [0, 1, 16, 20])
def test_a_truncated_frame_is_refused(length: int) -> None:
    frame = make_frame(RING, KEY, 0, [b"short"])
    with pytest.raises(ObjectDamaged, match=f"has {length} of 21 bytes"):
        open_(frame, sealed=frame.sealed[:length])
    with pytest.raises(ObjectDamaged, match=r"is stored, yet|of"):
        open_(frame, sealed=frame.sealed[:length], sealed_length=length)


def test_a_frame_in_the_place_of_another_is_refused() -> None:
    other_ring = replace(RING, repository=os.urandom(32))
    other_key = make_pack_key(RING, DATA)
    frame = make_frame(RING, KEY, 5, [TEXT])
    name = frame.place.name
    moved = [
        ("ordinal", KEY, {"name": name._replace(ordinal=6)}),
        ("pack", other_key, {}),
        ("origin", replace(KEY, lead=other_key.lead), {}),
        ("repository", replace(KEY, lead=other_ring.repository + KEY.lead[32:]), {}),
        ("kind", replace(KEY, lead=KEY.lead[:32] + bytes([33]) + KEY.lead[33:]), {}),
    ]
    for what, key, changes in moved:
        with pytest.raises(ObjectDamaged, match="fails authentication"):
            open_(frame, key=key, **changes)
            pytest.fail(f"a frame of another {what} was opened")


def test_codec_and_base_are_bound() -> None:
    base = Base(FrameName(os.urandom(16), 9), TEXT)
    frame = make_frame(RING, KEY, 5, [TEXT])
    against = make_frame(RING, KEY, 6, [TEXT], base=base)
    with pytest.raises(ObjectDamaged, match="fails authentication"):
        open_(frame, codec=0, plain_length=len(frame.sealed) - 16)
    with pytest.raises(ObjectDamaged, match="fails authentication"):
        open_(frame, codec=2, base=base.name, base_plain=TEXT)
    with pytest.raises(ObjectDamaged, match="fails authentication"):
        open_(against, base=FrameName(base.name.origin, 8), base_plain=TEXT)


def test_a_wrong_base_never_gives_wrong_bytes() -> None:
    """zstd may decompress against the wrong prefix; the chunk ids then tell (`holds_chunks`)."""
    base = Base(FrameName(os.urandom(16), 9), TEXT + os.urandom(500))
    frame = make_frame(RING, KEY, 6, [bytes(base.plain)], base=base)
    assert frame.place.base == base.name
    try:
        opened = open_(frame, base_plain=bytes(reversed(base.plain)))
    except ObjectDamaged:
        return
    assert not holds_chunks(RING.data_chunk_id_key, opened, [frame.chunks.ids], frame.chunks.lengths)


def test_what_a_row_may_not_say_is_refused_each_in_its_own_words() -> None:
    frame = make_frame(RING, KEY, 0, [TEXT])
    stored = make_frame(RING, KEY, 1, [b"short"])
    other = FrameName(os.urandom(16), 1)
    for source, changes, words in (
        (frame, {"codec": 3}, "uses codec 3, which this version does not know"),
        (frame, {"codec": 2}, "uses codec 2 without a base"),
        (frame, {"base": other}, "uses codec 1 with a base"),
        (stored, {"base": other}, "uses codec 0 with a base"),
        (frame, {"codec": 2, "base": other}, "needs a base that was not found"),
        (frame, {"codec": 2, "base": frame.place.name}, "is its own base"),
        (frame, {"plain_length": 0}, "is said to hold 0 bytes, outside the limits"),
        (frame, {"plain_length": (8 << 20) + 1}, "is said to hold 8388609 bytes, outside the limits"),
        (frame, {"plain_length": len(TEXT) - 1}, f"holds {len(TEXT)} bytes, its row says {len(TEXT) - 1}"),
        (stored, {"plain_length": 6}, "is stored, yet 6 bytes are sealed as 21"),
    ):
        with pytest.raises(ObjectDamaged, match=f"frame {source.place.name} {words}"):
            open_(source, **changes)
    with pytest.raises(ObjectDamaged, match="has no base"):
        open_(frame, base_plain=TEXT)


def _seal_raw(codec: Codec, data: bytes, plain_length: int) -> CarriedFrame:
    frame = make_frame(RING, KEY, 0, [b"x"])
    target = bytearray(len(data) + 16)
    seal_frame(KEY, 0, Squeezed(codec, data, None), memoryview(target))
    return frame._replace(
        sealed=bytes(target),
        place=frame.place._replace(sealed_length=len(target), plain_length=plain_length, codec=codec),
    )


def test_zstd_frames_that_the_format_does_not_admit_are_refused() -> None:
    plain_zstd = zstandard.ZstdCompressor().compress(TEXT)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"
    for data, words in (
        (unsized, "holds no size, its row says"),
        (b"no zstd at all", "does not decompress"),
        (plain_zstd[:-3], "does not decompress"),
        (plain_zstd + b"more", "does not decompress"),
        (plain_zstd + plain_zstd, "does not decompress"),
        (skippable, "holds 0 bytes, its row says"),
        (zstandard.ZstdCompressor().compress(bytes(64 << 20)), "holds 67108864 bytes, its row says"),
    ):
        with pytest.raises(ObjectDamaged, match=words):
            open_(_seal_raw(Codec.ZSTD, data, len(TEXT)))


def test_holds_chunks_is_exact() -> None:
    key = os.urandom(32)
    chunks = [b"one", b"two", b"three"]
    ids, lengths = [blake3(chunk, key=key).digest() for chunk in chunks], [3, 3, 5]
    assert holds_chunks(key, b"onetwothree", ids, lengths)
    assert holds_chunks(key, b"onetwothree", ids, array("I", lengths))
    assert not holds_chunks(key, b"onetwothree!", ids, lengths)
    assert not holds_chunks(key, b"onetwothre", ids, lengths)
    assert not holds_chunks(key, b"onetwothreE", ids, lengths)
    assert not holds_chunks(key, b"Onetwothree", ids, lengths)
    assert not holds_chunks(os.urandom(32), b"onetwothree", ids, lengths)
    assert not holds_chunks(key, b"onetwothree", ids[:2], lengths[:2])


@pytest.mark.parametrize("ring", [RING])
def test_proof_finds_what_memory_did(ring: KeyRing) -> None:
    frame = make_frame(ring, KEY, 0, [TEXT, b"tail"])
    ids = [frame.chunks.ids[:32], frame.chunks.ids[32:]]
    lengths = frame.chunks.lengths
    codec = FrameCodec()
    codec.prove(KEY, frame.place, frame.sealed, ring.data_chunk_id_key, ids, lengths)
    sealed = bytearray(frame.sealed)
    sealed[7] ^= 16
    with pytest.raises(
        HoldfastError, match=r"does not read back as sealed: frame .* failing memory, or a bug"
    ) as told:
        codec.prove(KEY, frame.place, sealed, ring.data_chunk_id_key, ids, lengths)
    assert not isinstance(told.value, ObjectDamaged), "nothing stored is damaged"
    other = [ids[0], os.urandom(32)]
    with pytest.raises(
        HoldfastError, match="its chunks have other ids than the chunks that went in: failing memory"
    ):
        codec.prove(KEY, frame.place, frame.sealed, ring.data_chunk_id_key, other, lengths)


@pytest.mark.parametrize("ordinal", [0, 1, 5])
def test_hashing_that_is_wrong_and_agrees_with_itself_is_found_out(
    monkeypatch: pytest.MonkeyPatch, ordinal: int
) -> None:
    frame = make_frame(RING, KEY, ordinal, [TEXT, b"middle", b"tail"])
    ids = [frame.chunks.ids[at : at + 32] for at in (0, 32, 64)]
    ids[ordinal % 3] = os.urandom(32)
    monkeypatch.setattr("repo_store.frame.chunk_ids", lambda *_: b"".join(ids))
    with pytest.raises(HoldfastError, match="its chunks have other ids than the chunks that went in"):
        FrameCodec().prove(KEY, frame.place, frame.sealed, RING.data_chunk_id_key, ids, frame.chunks.lengths)


def test_an_opened_key_opens_the_frames_of_the_one_that_sealed_them() -> None:
    for kind in (DATA, METADATA):
        made = make_pack_key(RING, kind)
        frame = make_frame(RING, made, 2, [TEXT], kind=kind)
        assert open_(frame, key=open_pack_key(RING, kind, OBJECT, made.sealed_key)) == TEXT


def test_names_are_twenty_bytes() -> None:
    name = FrameName(bytes(range(16)), 258)
    assert name.pack() == bytes(range(16)) + b"\2\1\0\0"
    assert FrameName.unpack(name.pack()) == name
    assert str(name) == "000102030405060708090a0b0c0d0e0f.258"
    assert FramePlace(name, 0, 17, 1, 0).base is None

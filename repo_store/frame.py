"""Frames: one or more chunks, compressed together and sealed.

    AES-256-GCM(pack key, nonce = ordinal, codec(chunk 0 || chunk 1 || …))

docs/format.md, "Packs and frames", is the authority. A frame's name, (origin, ordinal), says under which key and
where in its order it was first sealed; it stays the same wherever the frame is carried. The associated data binds
repository, kind, name, codec and base, so a frame in the place of another is refused.

Check twice: a frame that was sealed is opened again, and the ids of its chunks are recomputed from what came out
(`FrameCodec.prove`), before it may be stored. Memory that flips a bit while a chunk is compressed is then found
now, not in the restore of next year.

No search for incompressible data comes before the compression: zstd finds out by itself, block by block, and
passes over random bytes, JPEG or gzip at 5 GB/s, as fast as any sampling would and without ever guessing wrong. What
does not become smaller by 1/32 is stored as it is, so that reading it back costs nothing.

Law: bytes in, bytes out; this module touches no storage. A `FrameCodec` belongs to one thread.
"""

import struct
from array import array
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag

from repo_store.chunk_ids import chunk_ids
from repo_store.errors import HoldfastError, ObjectDamaged
from repo_store.pack_key import ORIGIN_BYTES, PackKey
from repo_store.sealed import TAG_BYTES
from repo_store.storage import Buffer

PLAIN_BYTES_MAX = 8 * 1024 * 1024
FRAMES_TO_A_KEY_MAX = 65_535  # so that an ordinal fits 16 bits in the rows of tables
_NAME = struct.Struct(f"<{ORIGIN_BYTES}sI")
_NONCE = struct.Struct("<I8x")
_BOUND = struct.Struct("<IB20s")  # ordinal, codec, name of the base: what follows `PackKey.lead`
NAME_BYTES = 20
NO_BASE = bytes(NAME_BYTES)
assert _NAME.size == NAME_BYTES and _NONCE.size == 12  # the sizes docs/format.md gives
_GAIN_SHIFT = 5  # stored unless compression saves 1/32


class Codec(IntEnum):
    """How the plaintext of a frame is written. The numbers are part of the format."""

    STORED = 0
    ZSTD = 1
    ZSTD_WITH_BASE = 2


class FrameName(NamedTuple):
    """Where a frame was first sealed: under the key of this origin, as the one of this number."""

    origin: bytes
    ordinal: int

    def __str__(self) -> str:
        return f"{self.origin.hex()}.{self.ordinal}"

    def pack(self) -> bytes:
        """Return the 20 bytes that stand for the name in directories and associated data."""
        return _NAME.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> "FrameName":
        """Return the name that 20 bytes stand for."""
        return cls(*_NAME.unpack(data))


class FramePlace(NamedTuple):
    """A frame and where it lies in a pack: a row of the location table. Lengths and offsets in bytes."""

    name: FrameName
    offset: int
    sealed_length: int
    plain_length: int
    codec: int
    base: FrameName | None = None


class Base(NamedTuple):
    """A frame that another is compressed against: its name and its whole plaintext."""

    name: FrameName
    plain: Buffer


class Squeezed(NamedTuple):
    """The plaintext of a frame after its codec, before sealing."""

    codec: Codec
    data: Buffer
    base: FrameName | None

    @property
    def sealed_length(self) -> int:
        """The bytes it will have once it is sealed."""
        return len(self.data) + TAG_BYTES


def seal_frame(key: PackKey, ordinal: int, squeezed: Squeezed, target: memoryview) -> None:
    """Seal a frame as number `ordinal` of `key` into `target`, which has exactly its sealed length.

    The caller never uses an ordinal of a key twice.
    """
    assert 0 <= ordinal < FRAMES_TO_A_KEY_MAX
    bound = _bound(key, ordinal, squeezed.codec, squeezed.base)
    key.cipher.encrypt_into(_NONCE.pack(ordinal), squeezed.data, bound, target)


class FrameCodec:
    """The working memory of one thread that makes or opens frames: compressors and a buffer, used again and again.

    A fresh megabyte costs more than encrypting it, because the kernel hands it out page by page.
    """

    def __init__(self, *, level: int = 3) -> None:
        self._level = level
        self._compressor = zstandard.ZstdCompressor(level=level)
        self._decompressor = zstandard.ZstdDecompressor()
        self._opened = bytearray()

    def squeeze(self, plain: Buffer, *, base: Base | None = None) -> Squeezed:
        """Return `plain` (1 byte to 8 MiB) in the codec that serves it, against `base` if that is given and helps."""
        assert 0 < len(plain) <= PLAIN_BYTES_MAX, "a frame has 1 byte to 8 MiB"
        if base is None:
            codec, squeezed = Codec.ZSTD, self._compressor.compress(plain)
        else:
            codec, squeezed = Codec.ZSTD_WITH_BASE, self._compress_against(base.plain, plain)
        if len(squeezed) > len(plain) - (len(plain) >> _GAIN_SHIFT) - 1:
            return Squeezed(Codec.STORED, plain, None)
        return Squeezed(codec, squeezed, base.name if base else None)

    def open(
        self, key: PackKey, object_name: str, place: FramePlace, sealed: Buffer, *, base: Buffer | None = None
    ) -> bytes | memoryview:
        """Return the plaintext of the frame `place`, given its bytes `sealed` and, for codec 2, its base's plaintext.

        A memoryview is valid until the next call. Raises ObjectDamaged, naming the object it was found in, if
        the frame is not exactly what was sealed there.
        """
        name, _, sealed_length, plain_length, codec, base_name = place
        if len(sealed) != sealed_length or sealed_length <= TAG_BYTES:
            raise _damaged(object_name, name, f"has {len(sealed)} of {sealed_length} bytes")
        if not 0 < plain_length <= PLAIN_BYTES_MAX:
            raise _damaged(object_name, name, f"is said to hold {plain_length} bytes, outside the limits")
        check_codec(object_name, place)
        if (codec == Codec.ZSTD_WITH_BASE) != (base is not None):
            raise _damaged(
                object_name, name, "needs a base that was not found" if base is None else "has no base"
            )
        opened = self._room(sealed_length - TAG_BYTES)
        try:
            nonce, bound = _NONCE.pack(name.ordinal), _bound(key, name.ordinal, codec, base_name)
            key.cipher.decrypt_into(nonce, sealed, bound, opened)
        except InvalidTag:
            raise _damaged(object_name, name, "fails authentication") from None
        if codec == Codec.STORED:
            return opened
        return self._decompress(object_name, place, opened, base)

    def prove(
        self,
        key: PackKey,
        place: FramePlace,
        sealed: Buffer,
        id_key: bytes,
        ids: Iterable[bytes],
        lengths: Iterable[int],
        *,
        base: Buffer | None = None,
    ) -> None:
        """Open the frame just sealed and recompute the ids of its chunks from what came out.

        One chunk of each frame is hashed by the blake3 package alone, so that what is wrong with hashing many at once, if
        anything ever is, cannot agree with itself for long. Raises HoldfastError if it does not read back: nothing of
        this run can be trusted then.
        """
        ids, lengths = list(ids), array("I", lengths)
        try:
            plain = self.open(key, "the new pack", place, sealed, base=base)
            holds = holds_chunks(id_key, plain, ids, lengths)
            chosen = place.name.ordinal % len(ids)
            start = sum(lengths[:chosen])
            piece = memoryview(plain)[start : start + lengths[chosen]]
            holds = holds and blake3(piece, key=id_key).digest() == ids[chosen]
        except ObjectDamaged as error:
            raise _unproven(place, error.reason) from error
        if not holds:
            raise _unproven(place, "its chunks have other ids than the chunks that went in")

    def _room(self, length: int) -> memoryview:
        if len(self._opened) < length:
            self._opened = bytearray(length)
        return memoryview(self._opened)[:length]

    def _compress_against(self, base: Buffer, plain: Buffer) -> bytes:
        # The window must reach from the end of the plaintext to the start of the base; the tables that
        # the level has for a frame alone are too small to remember what stood there.
        window_log = max(zstandard.WINDOWLOG_MIN, (len(base) + len(plain)).bit_length())
        parameters = zstandard.ZstdCompressionParameters.from_level(
            self._level,
            source_size=len(plain),
            dict_size=len(base),
            window_log=window_log,
            hash_log=window_log,
            chain_log=window_log,
        )
        compressor = zstandard.ZstdCompressor(dict_data=_prefix(base), compression_params=parameters)
        return compressor.compress(plain)

    def _decompress(
        self, object_name: str, place: FramePlace, squeezed: memoryview, base: Buffer | None
    ) -> bytes:
        try:
            size = zstandard.frame_content_size(squeezed)
            # The library trusts the size in the header for its allocation: it must be the size that we trust.
            if size != place.plain_length:
                said = "no size" if size < 0 else f"{size} bytes"
                raise _damaged(object_name, place.name, f"holds {said}, its row says {place.plain_length}")
            if base is None:
                return self._decompressor.decompress(squeezed, allow_extra_data=False)
            decompressor = zstandard.ZstdDecompressor(dict_data=_prefix(base))
            return decompressor.decompress(squeezed, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise _damaged(object_name, place.name, f"does not decompress: {error}") from None


def check_codec(object_name: str, place: FramePlace) -> None:
    """Raise ObjectDamaged unless the codec of `place` is known and fits its lengths and base."""
    name, _, sealed_length, plain_length, codec, base = place
    if codec > Codec.ZSTD_WITH_BASE:
        raise _damaged(object_name, name, f"uses codec {codec}, which this version does not know")
    if codec == Codec.STORED and sealed_length != plain_length + TAG_BYTES:
        raise _damaged(
            object_name, name, f"is stored, yet {plain_length} bytes are sealed as {sealed_length}"
        )
    if (codec == Codec.ZSTD_WITH_BASE) != (base is not None):
        raise _damaged(
            object_name, name, f"uses codec {codec} {'without' if base is None else 'with'} a base"
        )
    if base == name:
        raise _damaged(object_name, name, "is its own base")


def holds_chunks(id_key: bytes, plain: Buffer, ids: Iterable[bytes], lengths: Iterable[int]) -> bool:
    """Return whether `plain` is exactly the chunks with these ids and lengths, in this order."""
    ids, lengths = list(ids), array("I", lengths)
    assert len(ids) == len(lengths), "there is one id to each length"
    return sum(lengths) == len(plain) and chunk_ids(id_key, plain, lengths) == b"".join(ids)


def _bound(key: PackKey, ordinal: int, codec: int, base: FrameName | None) -> bytes:
    return key.lead + _BOUND.pack(ordinal, codec, NO_BASE if base is None else base.pack())


def _prefix(base: Buffer) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(bytes(base), dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _damaged(object_name: str, name: FrameName, reason: str) -> ObjectDamaged:
    return ObjectDamaged(object_name, f"frame {name} {reason}")


def _unproven(place: FramePlace, reason: str) -> HoldfastError:
    return HoldfastError(
        f"frame {place.name} does not read back as sealed: {reason}: failing memory, or a bug",
        hint="test this machine's memory before the next snapshot",
    )

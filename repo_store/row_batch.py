"""Row batches: rows of an index as fixed-width bytes, with the dictionaries that their short numbers point into.

    location row   origin (16), u32 ordinal big-endian | u32 number of the pack, offset, sealed length, plain length, …
    chunk row      chunk id (32)                       | u32 number of the origin, u64 place

docs/format.md, section 7, is the authority. What stands before the bar is the key. An object for every row would
cost a hundred bytes and a microsecond each, so rows are only ever cut from and joined to flat buffers; the loops over
them are in C (_rows.c). This module touches no storage.
"""

import struct
from collections.abc import Iterable, Sequence

from blake3 import blake3

from repo_store._hashes import row_sum
from repo_store._lookups import chunk_rows
from repo_store._rows import sort_rows
from repo_store.chunk_ids import hash_kernel
from repo_store.directory import Directory
from repo_store.frame import NAME_BYTES, NO_BASE, Codec, FrameName, FramePlace
from repo_store.pack_key import ORIGIN_BYTES
from repo_store.rows import CHUNK_ID_BYTES, ChunkPlace, FrameLocation, Section, section_of

KEY_BYTES = (NAME_BYTES, CHUNK_ID_BYTES, CHUNK_ID_BYTES)
_LOCATION = struct.Struct("<IIIIB3x20s")  # number of the pack, offset, sealed, plain length, codec, base
_CHUNK = struct.Struct("<IQ")  # number of the origin, place
ROW_BYTES = (KEY_BYTES[0] + _LOCATION.size, KEY_BYTES[1] + _CHUNK.size, KEY_BYTES[2] + _CHUNK.size)
assert ROW_BYTES == (60, 44, 44)  # the sizes docs/format.md gives

CODEC_MAX = max(Codec)
CODEC_AT, ZEROS_AT = 36, slice(37, 40)  # within a location row
SUM_BYTES = 32
_SUM_MODULUS = 1 << (8 * SUM_BYTES)
_LOCATION_IN_FULL = struct.Struct("<20sI36s")
_CHUNK_IN_FULL = struct.Struct("<32sI8s")


_new_tuple = tuple.__new__  # a third of the time of ChunkPlace(…), and a restore makes one for each chunk


class RowBatch:
    """Rows gathered in memory, for one table or one run of the cache."""

    def __init__(self) -> None:
        self.packs: dict[tuple[bytes, int], int] = {}
        self.origins: dict[bytes, int] = {}
        self.sections: tuple[bytearray, bytearray, bytearray] = (bytearray(), bytearray(), bytearray())

    def add_pack(self, pack: bytes, size: int, directory: Directory) -> None:
        """Add everything that the directory of the pack of this hash and size (bytes) says."""
        number = self.packs.setdefault((pack, size), len(self.packs))
        locations, chunks = self.sections[Section.LOCATIONS], self.sections[section_of(directory.kind)]
        for index, frame in enumerate(directory.frames):
            origin, ordinal = frame.name
            lengths = frame.sealed_length, frame.plain_length
            base = NO_BASE if frame.base is None else frame.base.pack()
            locations += location_key(origin, ordinal)
            locations += _LOCATION.pack(number, frame.offset, *lengths, frame.codec, base)
            origin_number = self.origins.setdefault(origin, len(self.origins))
            first, last = directory.starts[index], directory.starts[index + 1]
            ids = directory.ids[first * CHUNK_ID_BYTES : last * CHUNK_ID_BYTES]
            chunks += chunk_rows(ids, directory.lengths[first:last], origin_number, ordinal)

    def sort(self) -> None:
        """Bring the rows into the order of their bytes."""
        for section, row_bytes in zip(self.sections, ROW_BYTES, strict=True):
            sort_rows(section, row_bytes)

    @property
    def count(self) -> int:
        """Rows in all sections."""
        return sum(len(section) // size for section, size in zip(self.sections, ROW_BYTES, strict=True))


def location_key(origin: bytes, ordinal: int) -> bytes:
    """Return the key under which the location of a frame is sorted."""
    return origin + ordinal.to_bytes(4, "big")


def origin_number(row: bytes) -> int:
    """Return the number of the origin that a chunk row points to."""
    return int.from_bytes(row[32:36], "little")


def pack_number(row: bytes) -> int:
    """Return the number of the pack that a location row points to."""
    return int.from_bytes(row[20:24], "little")


def row_ordinal(row: bytes) -> bytes:
    """Return the ordinal of the frame that a chunk row points to, as the 4 bytes that end the frame's name."""
    return row[42:44] + b"\0\0"


def chunk_place(row: bytes, origin: bytes) -> ChunkPlace:
    """Return what a chunk row says; `origin` is what its number stands for."""
    place = int.from_bytes(row[36:44], "little")
    return _new_tuple(ChunkPlace, (origin, place >> 48, place >> 24 & 0xFFFFFF, place & 0xFFFFFF))


def frame_location(row: bytes, pack: bytes, pack_size: int) -> FrameLocation:
    """Return what a location row says; `pack` and its size are what its number stands for."""
    name = FrameName(row[:ORIGIN_BYTES], int.from_bytes(row[ORIGIN_BYTES:NAME_BYTES], "big"))
    _, offset, sealed_length, plain_length, codec, base = _LOCATION.unpack_from(row, NAME_BYTES)
    base_name = None if base == NO_BASE else FrameName.unpack(base)
    return FrameLocation(
        pack, pack_size, FramePlace(name, offset, sealed_length, plain_length, codec, base_name)
    )


def sum_rows(key: bytes, section: int, rows: bytes | bytearray, names: Sequence[bytes]) -> int:
    """Return the sum modulo 2^256 of the keyed hashes of `rows`, each in full (docs/format.md, "Sum").

    `names` are the hashes of the packs (section 0) or the origins that the numbers in the rows stand for.
    """
    kernel = hash_kernel()
    if kernel is not None:
        joined, size = b"".join(names), len(names[0]) if names else CHUNK_ID_BYTES
        total = row_sum(key, section, rows, ROW_BYTES[section], KEY_BYTES[section], joined, size, kernel)
        return int.from_bytes(total, "little")
    lead = bytes([section])
    shape = _CHUNK_IN_FULL if section else _LOCATION_IN_FULL
    hashes: Iterable[int] = (
        int.from_bytes(blake3(b"".join((lead, head, names[number], tail)), key=key).digest(), "little")
        for head, number, tail in shape.iter_unpack(rows)
    )
    return sum(hashes) % _SUM_MODULUS

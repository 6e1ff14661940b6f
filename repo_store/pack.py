"""Packs: sealed frames in one immutable object, with a signed directory of them.

    frame 0 || … || frame N-1 || sealed directory || footer (16)

docs/format.md, "Packs and frames", is the authority. The directory comes last so that a pack is written as one
forward stream; the footer has a fixed size so that it is found from the end. Padmé padding inside the directory hides
how much of it is chunks. 16 random bytes in the directory make every pack, and so every pack name, unique.

`finish_pack` makes the directory of frames that lie ready, whether they were sealed a moment ago or are *carried*:
taken from other packs as they are, with their sealed keys. No key that can read contents is needed for that.

Law: bytes in, bytes out; this module touches no storage. Cost per chunk is kept in C: ids stay one byte string,
lengths one array, since a pack may hold tens of thousands of chunks.
"""

import os
import struct
from array import array
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from blake3 import blake3

from repo_store.directory import FRAME_ROW, ID_BYTES, Directory, parse_directory
from repo_store.errors import HoldfastError, ObjectDamaged
from repo_store.frame import NO_BASE, FramePlace
from repo_store.key_ring import KeyRing
from repo_store.pack_key import SealedKey
from repo_store.sealed import Kind, open_object, seal_object
from repo_store.storage import Buffer

PACK_BYTES_MAX = 64 * 1024 * 1024
_FOOTER = struct.Struct("<4sBBHII")
FOOTER_BYTES = 16
assert _FOOTER.size == FOOTER_BYTES  # the size docs/format.md gives
_MAGIC = b"HFPK"
_FORMAT = 1
PACK_KINDS = (Kind.DATA_DIRECTORY, Kind.METADATA_DIRECTORY)


class Footer(NamedTuple):
    """The end of a pack: its kind, and the bytes of its directory and of all its frames."""

    kind: Kind
    directory_bytes: int
    frames_bytes: int


class FrameChunks(NamedTuple):
    """The chunks of one frame, in order: their ids joined (32 bytes each) and their lengths."""

    ids: bytes
    lengths: "array[int]"


class Pack(NamedTuple):
    """A pack ready to be stored: its name's hash, its bytes as buffers to be written one after the other."""

    hash: bytes
    buffers: list[Buffer]
    directory: Directory

    @property
    def size(self) -> int:
        """The size of the object in bytes."""
        return sum(map(len, self.buffers))


class CarriedFrame(NamedTuple):
    """A frame taken from a pack as it is: its sealed key, its row there, its sealed bytes and its chunks."""

    key: SealedKey
    place: FramePlace
    sealed: Buffer
    chunks: FrameChunks


def pack_name(pack_hash: bytes) -> str:
    """Return the name of the pack object whose bytes have this hash."""
    shown = pack_hash.hex()
    return f"packs/{shown[:2]}/{shown}"


def pack_hash(buffers: Sequence[Buffer]) -> bytes:
    """Return the hash that names a pack of these bytes."""
    hasher = blake3()
    for buffer in buffers:
        hasher.update(buffer)
    return hasher.digest()


def finish_pack(
    ring: KeyRing,
    kind: Kind,
    keys: Sequence[SealedKey],
    places: Sequence[FramePlace],
    chunks: Sequence[FrameChunks],
    frames: Sequence[Buffer],
    *,
    hasher: blake3 | None = None,
) -> Pack:
    """Return the pack of the sealed bytes `frames`, in which `places` lie one after the other from offset 0.

    `hasher` may already have seen `frames`. The directory is parsed again before the pack is returned. Raises
    HoldfastError if it does not read back, or if the pack would be above a limit.
    """
    frames_bytes = sum(map(len, frames))
    body = {
        "random": os.urandom(16),
        "keys": [list(key) for key in keys],
        "frames": _frame_rows(keys, places, chunks),
        "ids": b"".join([ids for ids, _ in chunks]),
        "lengths": _little(chain.from_iterable(lengths for _, lengths in chunks)),
    }
    sealed = seal_object(ring, kind, body, beside_bytes=frames_bytes + FOOTER_BYTES)
    size = frames_bytes + len(sealed) + FOOTER_BYTES
    tail = sealed + _FOOTER.pack(_MAGIC, _FORMAT, kind, 0, len(sealed), frames_bytes)
    try:
        directory = read_tail(ring, "the new pack", size, tail)
    except ObjectDamaged as error:
        raise HoldfastError(f"{error}: not written, for it could not be read") from error
    if directory.frames != list(places) or directory.ids != body["ids"]:
        raise HoldfastError(
            "the directory of a new pack does not read back as written: failing memory, or a bug"
        )
    if hasher is None:
        hasher = blake3()
        for buffer in frames:
            hasher.update(buffer)
    return Pack(hasher.copy().update(tail).digest(), [*frames, tail], directory)


def carry(ring: KeyRing, kind: Kind, frames: Sequence[CarriedFrame]) -> Pack:
    """Return a pack of frames from other packs: sealed bytes, names and sealed keys as they were.

    Raises HoldfastError if they need more keys or bytes than a pack may have.
    """
    keys = {frame.key.origin: frame.key for frame in frames}
    places = []
    offset = 0
    for frame in frames:
        places.append(frame.place._replace(offset=offset))
        offset += frame.place.sealed_length
    return finish_pack(
        ring,
        kind,
        list(keys.values()),
        places,
        [frame.chunks for frame in frames],
        [frame.sealed for frame in frames],
    )


def read_footer(name: str, size: int, tail: Buffer) -> Footer:
    """Return what the last bytes of a pack of `size` bytes say. Raises ObjectDamaged if they make no sense."""
    if size > PACK_BYTES_MAX:
        raise ObjectDamaged(name, f"has {size} bytes, above the limit of a pack")
    if size < FOOTER_BYTES or len(tail) < FOOTER_BYTES:
        raise ObjectDamaged(name, "too short for a pack")
    magic, version, kind, zero, directory_bytes, frames_bytes = _FOOTER.unpack(tail[-FOOTER_BYTES:])
    if magic != _MAGIC:
        raise ObjectDamaged(name, "does not end like a pack")
    if version != _FORMAT:
        raise ObjectDamaged(name, f"has pack format {version}; this version reads up to {_FORMAT}")
    if kind not in PACK_KINDS or zero:
        raise ObjectDamaged(name, f"its footer says kind {kind}, which is not that of a pack")
    if frames_bytes + directory_bytes + FOOTER_BYTES != size:
        told = frames_bytes + directory_bytes + FOOTER_BYTES
        raise ObjectDamaged(name, f"its footer accounts for {told} of {size} bytes")
    return Footer(Kind(kind), directory_bytes, frames_bytes)


def read_tail(ring: KeyRing, name: str, size: int, tail: Buffer) -> Directory:
    """Return the directory of a pack of `size` bytes from its last bytes, `tail`.

    `tail` must hold the whole directory (`Footer.directory_bytes` and the footer). Raises ObjectDamaged.
    """
    footer = read_footer(name, size, tail)
    end = len(tail) - FOOTER_BYTES
    start = end - footer.directory_bytes
    if start < 0:
        raise ObjectDamaged(
            name, f"its directory has {footer.directory_bytes} bytes, of which {end} are there"
        )
    opened = open_object(ring, footer.kind, name, bytes(tail[start:end]), subject="")
    return parse_directory(name, footer.kind, opened, footer.frames_bytes)


def _frame_rows(
    keys: Sequence[SealedKey], places: Sequence[FramePlace], chunks: Sequence[FrameChunks]
) -> bytes:
    key_of = {key.origin: index for index, key in enumerate(keys)}
    rows = bytearray()
    for (name, offset, sealed, plain, codec, base), (_, lengths) in zip(places, chunks, strict=True):
        base_name = NO_BASE if base is None else base.pack()
        key = key_of[name.origin]
        rows += FRAME_ROW.pack(key, codec, 0, name.ordinal, offset, sealed, plain, len(lengths), base_name, 0)
    return bytes(rows)


def _little(numbers: "chain[int]") -> bytes:
    lengths = array("I", numbers)
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        lengths.byteswap()
    return lengths.tobytes()


assert array("I").itemsize == 4 and ID_BYTES == 32  # the sizes docs/format.md gives

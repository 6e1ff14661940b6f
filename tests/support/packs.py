"""Packs made by hand, frame by frame, for the tests of everything that reads them."""

import struct
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from blake3 import blake3

from repo_store.frame import Base, FrameCodec, FrameName, FramePlace, seal_frame
from repo_store.key_ring import KeyRing
from repo_store.pack import CarriedFrame, FrameChunks, Pack, carry, pack_name
from repo_store.pack_key import PackKey, make_pack_key
from repo_store.sealed import Kind, open_object, seal_object
from repo_store.storage import Storage

DATA, METADATA = Kind.DATA_DIRECTORY, Kind.METADATA_DIRECTORY


def id_key(ring: KeyRing, kind: Kind) -> bytes:
    """Return the key of the chunk ids in packs of `kind`."""
    return ring.metadata_chunk_id_key if kind == METADATA else ring.data_chunk_id_key


def make_frame(
    ring: KeyRing,
    key: PackKey,
    ordinal: int,
    chunks: Sequence[bytes],
    *,
    base: Base | None = None,
    kind: Kind = DATA,
) -> CarriedFrame:
    """Return one sealed frame that holds `chunks`."""
    plain = b"".join(chunks)
    squeezed = FrameCodec().squeeze(plain, base=base)
    sealed = bytearray(squeezed.sealed_length)
    seal_frame(key, ordinal, squeezed, memoryview(sealed))
    name = FrameName(key.sealed_key.origin, ordinal)
    place = FramePlace(name, 0, len(sealed), len(plain), squeezed.codec, squeezed.base)
    ids = b"".join(blake3(chunk, key=id_key(ring, kind)).digest() for chunk in chunks)
    return CarriedFrame(
        key.sealed_key, place, bytes(sealed), FrameChunks(ids, array("I", [len(chunk) for chunk in chunks]))
    )


def make_pack(ring: KeyRing, frames: Sequence[Sequence[bytes]], *, kind: Kind = DATA) -> Pack:
    """Return a pack of frames that hold these chunks, all under one fresh key."""
    key = make_pack_key(ring, kind)
    return carry(
        ring, kind, [make_frame(ring, key, number, chunks, kind=kind) for number, chunks in enumerate(frames)]
    )


def frames_of(pack: Pack) -> list[CarriedFrame]:
    """Return the frames of a pack, ready to be carried into another."""
    data = b"".join(pack.buffers)
    directory = pack.directory
    frames = []
    for index, place in enumerate(directory.frames):
        ids = b"".join(directory.chunk_ids(index))
        chunks = FrameChunks(ids, directory.chunk_lengths(index))
        sealed = data[place.offset : place.offset + place.sealed_length]
        frames.append(CarriedFrame(directory.keys[directory.key_of[index]], place, sealed, chunks))
    return frames


def store(storage: Storage, pack: Pack) -> tuple[bytes, int]:
    """Put a pack; return its hash and size."""
    storage.put(pack_name(pack.hash), pack.buffers)
    return pack.hash, pack.size


def body_of(ring: KeyRing, data: bytes) -> dict[str, Any]:
    """Return the map in the directory of the pack `data`."""
    directory_bytes, frames_bytes = struct.unpack("<II", data[-8:])
    sealed = data[frames_bytes : frames_bytes + directory_bytes]
    return open_object(ring, Kind(data[-11]), "a pack", sealed, subject="").body


def resealed(
    ring: KeyRing, data: bytes, change: Callable[[dict[str, Any]], object], *, kind: Kind = DATA
) -> bytes:
    """Return the pack with its directory changed and signed again by someone who may."""
    frames_bytes = struct.unpack("<I", data[-4:])[0]
    body = body_of(ring, data)
    change(body)
    sealed = seal_object(ring, kind, body, beside_bytes=frames_bytes + 16)
    return (
        data[:frames_bytes] + sealed + struct.pack("<4sBBHII", b"HFPK", 1, kind, 0, len(sealed), frames_bytes)
    )

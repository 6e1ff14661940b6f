"""Carry: sealed frames moved into new packs as they are, with their sealed keys.

The one operation behind rescue, repack and repair. Nothing is opened, so no key that reads contents is needed; a frame
keeps its name, and every table row that names it stays true. A frame that its source does not hold whole is caught when
the pack is read again, not here: a copy of a damaged frame is as good as the damaged frame.
"""

from collections.abc import Iterator, Mapping, Sequence

from repo_store.directory import Directory
from repo_store.errors import ObjectDamaged, ObjectMissing, StorageError
from repo_store.frame import FrameName
from repo_store.key_ring import KeyRing
from repo_store.pack import CarriedFrame, FrameChunks, carry, pack_name
from repo_store.pack_reader import PackReader
from repo_store.rows import FrameLocation
from repo_store.sealed import Kind
from repo_store.storage import Storage

CARRIED_BYTES_MAX = 32 * 1024 * 1024
CARRIED_KEYS_MAX = 200


def carry_frames(
    storage: Storage, ring: KeyRing, packs: PackReader, frames: Mapping[FrameName, Sequence[FrameLocation]]
) -> Iterator[tuple[bytes, int, Directory]]:
    """Put the frames, each found at one of its locations, into new packs; yield hash, size and directory of each.

    What is put is visible, not yet durable. Raises StorageError naming a frame that is nowhere any more.
    """
    for kind, copies in ((Kind.DATA_DIRECTORY, 1), (Kind.METADATA_DIRECTORY, 2)):
        gathered: list[CarriedFrame] = []
        for frame, found_kind in _take(storage, packs, frames):
            if found_kind != kind:
                continue
            if gathered and _full(gathered, frame):
                yield from _put(storage, ring, kind, gathered, copies)
                gathered = []
            gathered.append(frame)
        if gathered:
            yield from _put(storage, ring, kind, gathered, copies)


def _take(
    storage: Storage, packs: PackReader, frames: Mapping[FrameName, Sequence[FrameLocation]]
) -> Iterator[tuple[CarriedFrame, Kind]]:
    in_order = sorted(
        frames.items(), key=lambda item: (item[1][0].pack, item[1][0].place.offset) if item[1] else ()
    )
    for name, locations in in_order:
        for where in locations:
            try:
                directory = packs.directory(where.pack, where.pack_size)
                index = directory.frames.index(where.place)
                sealed = storage.get(pack_name(where.pack), where.place.offset, where.place.sealed_length)
            except (ObjectDamaged, ObjectMissing, ValueError):
                continue
            if len(sealed) == where.place.sealed_length:
                key = directory.keys[directory.key_of[index]]
                chunks = FrameChunks(b"".join(directory.chunk_ids(index)), directory.chunk_lengths(index))
                yield CarriedFrame(key, where.place, sealed, chunks), directory.kind
                break
        else:
            raise StorageError(
                f"frame {name}, which this snapshot reuses, was removed meanwhile",
                hint="run it again: what it held will be read from the source",
            )


def _full(gathered: list[CarriedFrame], frame: CarriedFrame) -> bool:
    size = sum(other.place.sealed_length for other in gathered) + frame.place.sealed_length
    keys = {other.key.origin for other in gathered} | {frame.key.origin}
    return size > CARRIED_BYTES_MAX or len(keys) > CARRIED_KEYS_MAX


def _put(
    storage: Storage, ring: KeyRing, kind: Kind, frames: list[CarriedFrame], copies: int
) -> Iterator[tuple[bytes, int, Directory]]:
    for _ in range(copies):
        pack = carry(ring, kind, frames)
        storage.put(pack_name(pack.hash), pack.buffers)
        yield pack.hash, pack.size, pack.directory

"""Carry: sealed frames moved into new packs as they are, with their sealed keys.

The one operation behind rescue, repack and repair. Nothing is opened, so no key that reads contents is needed; a frame
keeps its name, and every table row that names it stays true. Rescue takes a few frames out of packs that go anyway: a
frame that its source does not hold whole is caught when the pack is read again, for a copy of a damaged frame is as
good as the damaged frame. Repacking makes packs unneeded, so it reads them whole and checks their hash first.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from repo_store.bounded import get_pack
from repo_store.directory import Directory
from repo_store.errors import ObjectDamaged, ObjectMissing, StorageError
from repo_store.frame import FrameName
from repo_store.key_ring import KeyRing
from repo_store.pack import CarriedFrame, FrameChunks, carry, pack_hash, pack_name, read_tail
from repo_store.pack_reader import PackReader
from repo_store.rows import FrameLocation
from repo_store.sealed import Kind
from repo_store.storage import Storage

CARRIED_BYTES_MAX = 32 * 1024 * 1024
CARRIED_KEYS_MAX = 200
CARRIED_CHUNKS_MAX = 65_536
_COPIES = {Kind.DATA_DIRECTORY: 1, Kind.METADATA_DIRECTORY: 2}


class PackedFrames(NamedTuple):
    """A new pack of carried frames: its hash, its size in bytes and its directory."""

    hash: bytes
    size: int
    directory: Directory


OnDamage = Callable[[bytes, ObjectDamaged | ObjectMissing], None]
"""Takes the hash of a pack that cannot be read whole, and why."""


def carry_packs(
    storage: Storage, ring: KeyRing, wanted: Mapping[bytes, Collection[FrameName]], *, on_damage: OnDamage
) -> Iterator[PackedFrames]:
    """Put the frames `wanted` of each pack, by hash, into new packs; yield those.

    Each source is read whole and must have the hash in its name: what is carried is what was stored, though no key
    opens it here. What is put is visible, not yet durable. In memory: one source and one new pack of each kind.
    """
    gathered: dict[Kind, list[CarriedFrame]] = {kind: [] for kind in _COPIES}
    for pack, names in wanted.items():
        try:
            data, directory = _read_whole(storage, ring, pack)
        except (ObjectDamaged, ObjectMissing) as error:
            on_damage(pack, error)
            continue
        waiting = gathered[directory.kind]
        for index, place in enumerate(directory.frames):
            if place.name not in names:
                continue
            sealed = data[place.offset : place.offset + place.sealed_length]
            chunks = FrameChunks(b"".join(directory.chunk_ids(index)), directory.chunk_lengths(index))
            frame = CarriedFrame(directory.keys[directory.key_of[index]], place, sealed, chunks)
            if waiting and _full(waiting, frame):
                yield from _put(storage, ring, directory.kind, waiting, _COPIES[directory.kind])
                waiting.clear()
            waiting.append(frame)
    for kind, frames in gathered.items():
        if frames:
            yield from _put(storage, ring, kind, frames, _COPIES[kind])


def _read_whole(storage: Storage, ring: KeyRing, pack: bytes) -> tuple[bytes, Directory]:
    name = pack_name(pack)
    data = get_pack(storage, name)
    if pack_hash([data]) != pack:
        raise ObjectDamaged(name, "its bytes have another hash than its name")
    return data, read_tail(ring, name, len(data), data)


def carry_frames(
    storage: Storage, ring: KeyRing, packs: PackReader, frames: Mapping[FrameName, Sequence[FrameLocation]]
) -> Iterator[PackedFrames]:
    """Put the frames, each found at one of its locations, into new packs; yield hash, size and directory of each.

    What is put is visible, not yet durable. Raises StorageError naming a frame that is nowhere any more.
    """
    for kind, copies in _COPIES.items():
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
    chunks = sum(len(other.chunks.lengths) for other in gathered) + len(frame.chunks.lengths)
    return size > CARRIED_BYTES_MAX or len(keys) > CARRIED_KEYS_MAX or chunks > CARRIED_CHUNKS_MAX


def _put(
    storage: Storage, ring: KeyRing, kind: Kind, frames: list[CarriedFrame], copies: int
) -> Iterator[PackedFrames]:
    for _ in range(copies):
        pack = carry(ring, kind, frames)
        storage.put(pack_name(pack.hash), pack.buffers)
        yield PackedFrames(pack.hash, pack.size, pack.directory)

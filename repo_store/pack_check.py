"""Checking packs: is one still what was stored, down to the last chunk?

The hash in its name shows rot without any key; the directory shows who wrote it; with a key for the contents every
frame is opened and the ids of its chunks are computed again. One damaged frame costs one frame: the others are named
as whole, so that repair can carry them away.
"""

from dataclasses import dataclass, field

from repo_store.bounded import get_pack
from repo_store.directory import Directory
from repo_store.errors import HoldfastError, ObjectDamaged
from repo_store.frame import FrameCodec, FrameName, holds_chunks
from repo_store.key_ring import KeyRing
from repo_store.pack import pack_hash, pack_name, read_tail
from repo_store.pack_key import KeySuite, PackKey, SealedKey, open_pack_key
from repo_store.pack_reader import FindBase, plain_of_base
from repo_store.sealed import Kind
from repo_store.storage import Storage


@dataclass(slots=True)
class PackCheck:
    """What `verify_pack` found. `problem` concerns the whole pack, `damaged` says what is wrong with which frame.

    Where the contents could not be opened for want of a key, `contents` is False.
    """

    name: str
    problem: str | None = None
    damaged: dict[FrameName, str] = field(default_factory=dict)
    frames: int = 0
    chunks: int = 0
    contents: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong with what was checked."""
        return self.problem is None and not self.damaged


def verify_pack(
    storage: Storage, ring: KeyRing, hash_: bytes, find_base: FindBase | None = None
) -> PackCheck:
    """Read a pack whole and check everything about it that this holder's keys admit.

    The bytes have the hash in the name, the directory holds, every frame opens, every chunk id comes out again. Without
    a key for the contents: hash and directory only. Raises ObjectMissing and StorageError; damage is in the result.
    """
    name = pack_name(hash_)
    check = PackCheck(name)
    try:
        data = get_pack(storage, name)
    except ObjectDamaged as error:
        check.problem = error.reason
        return check
    if pack_hash([data]) != hash_:
        check.problem = "its bytes have another hash than its name"
    try:
        directory = read_tail(ring, name, len(data), data)
    except ObjectDamaged as error:
        check.problem = error.reason
        return check
    check.frames, check.chunks = len(directory.frames), len(directory.lengths)
    check.contents = all(_readable(ring, key) for key in directory.keys)
    if check.contents:
        _verify_frames(ring, check, directory, data, find_base)
    return check


def _verify_frames(
    ring: KeyRing, check: PackCheck, directory: Directory, data: bytes, find_base: FindBase | None
) -> None:
    metadata = directory.kind == Kind.METADATA_DIRECTORY
    id_key = ring.metadata_chunk_id_key if metadata else ring.data_chunk_id_key
    codec = FrameCodec()
    view = memoryview(data)
    opened: dict[int, PackKey] = {}
    for index, place in enumerate(directory.frames):
        at = directory.key_of[index]
        try:
            if at not in opened:
                opened[at] = open_pack_key(ring, directory.kind, check.name, directory.keys[at])
            sealed = view[place.offset : place.offset + place.sealed_length]
            base = plain_of_base(check.name, place, find_base)
            plain = codec.open(opened[at], check.name, place, sealed, base=base)
        except HoldfastError as error:
            check.damaged[place.name] = error.reason if isinstance(error, ObjectDamaged) else str(error)
            continue
        if not holds_chunks(id_key, plain, directory.chunk_ids(index), directory.chunk_lengths(index)):
            check.damaged[place.name] = f"frame {place.name} holds other chunks than its directory says"


def _readable(ring: KeyRing, key: SealedKey) -> bool:
    epoch = ring.epochs.get(key.epoch)
    return epoch is not None and (key.suite == KeySuite.DERIVED or epoch.data_private is not None)

"""Checking packs: is one still what was stored, down to the last chunk?

The hash in its name shows rot without any key; the directory shows who wrote it; with a key for the contents every
frame is opened and the ids of its chunks are computed again. Neither stands in for the other: the hash alone ties the
bytes to the name that tables state, the ids alone tell a writer who stored something else than it said
(docs/decisions/0021-what-a-verification-need-not-read.md). One damaged frame costs one frame: the others are named as
whole, so that repair can carry them away.

A pack is read in pieces. One buffer for the whole of it costs more than all hashing, because the kernel hands out 32 MiB
page by page each time; pieces below that are used again by the allocator.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from blake3 import blake3

from repo_store.directory import Directory
from repo_store.errors import HoldfastError, ObjectDamaged
from repo_store.frame import FrameCodec, FrameName, holds_chunks
from repo_store.key_ring import KeyRing
from repo_store.pack import FOOTER_BYTES, PACK_BYTES_MAX, pack_name, read_footer, read_tail
from repo_store.pack_key import KeySuite, PackKey, SealedKey, open_pack_key
from repo_store.pack_reader import WINDOW_BYTES, FindBase, plain_of_base
from repo_store.sealed import Kind
from repo_store.storage import Buffer, Storage

PIECE_BYTES = 16 * 1024 * 1024
assert PIECE_BYTES % WINDOW_BYTES == 0  # aligned reads, as those of a restore: lengths of frames do not show


@dataclass(slots=True)
class PackCheck:
    """What `verify_pack` found. `problem` concerns the whole pack, `damaged` says what is wrong with which frame.

    Where the contents could not be opened for want of a key, `contents` is False. `directory` is None where it is damaged.
    """

    name: str
    problem: str | None = None
    damaged: dict[FrameName, str] = field(default_factory=dict)
    frames: int = 0
    chunks: int = 0
    contents: bool = False
    directory: Directory | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong with what was checked."""
        return self.problem is None and not self.damaged


def verify_pack(
    storage: Storage,
    ring: KeyRing,
    hash_: bytes,
    find_base: FindBase | None = None,
    *,
    size: int | None = None,
) -> PackCheck:
    """Read a pack whole and check everything about it that this holder's keys admit. `size` is that of the listing.

    The bytes have the hash in the name, the directory holds, every frame opens, every chunk id comes out again. Without
    a key for the contents: hash and directory only. Raises ObjectMissing and StorageError; damage is in the result.
    """
    name = pack_name(hash_)
    check = PackCheck(name)
    try:
        pieces = _Pieces(storage, name, storage.info(name).size if size is None else size)
        directory = check.directory = read_tail(ring, name, pieces.size, pieces.tail)
        check.frames, check.chunks = len(directory.frames), len(directory.lengths)
        check.contents = all(_readable(ring, key) for key in directory.keys)
        if check.contents:
            _verify_frames(ring, check, directory, pieces, find_base)
        if pieces.digest() != hash_:
            check.problem = "its bytes have another hash than its name"
    except ObjectDamaged as error:
        if error.name != name:
            raise
        check.problem = error.reason
    return check


class _Pieces:
    """The bytes of one pack from the first to the last, each hashed as it passes. The tail is read at once."""

    def __init__(self, storage: Storage, name: str, size: int) -> None:
        if size > PACK_BYTES_MAX:
            raise ObjectDamaged(name, f"has more than {PACK_BYTES_MAX} bytes, the limit")
        self._storage, self._name, self.size = storage, name, size
        self._hasher = blake3()
        self._tail_at = max(0, size - PIECE_BYTES) // WINDOW_BYTES * WINDOW_BYTES
        # One byte more than there should be: an object that has grown is not the one that was listed.
        self.tail = self._read(self._tail_at, size, more=1)
        first = size - FOOTER_BYTES - read_footer(name, size, self.tail).directory_bytes
        if first < self._tail_at:
            self.tail = self._read(first, self._tail_at) + self.tail
            self._tail_at = first
        self._all = self._iterate()

    def __iter__(self) -> Iterator[bytes]:
        return self._all

    def digest(self) -> bytes:
        """Return the hash of all bytes, after reading on to the end."""
        for _ in self._all:
            pass
        digest: bytes = self._hasher.digest()
        return digest

    def _iterate(self) -> Iterator[bytes]:
        for at in range(0, self._tail_at, PIECE_BYTES):
            piece = self._read(at, min(at + PIECE_BYTES, self._tail_at))
            self._hasher.update(piece)
            yield piece
        self._hasher.update(self.tail)
        yield self.tail

    def _read(self, start: int, end: int, *, more: int = 0) -> bytes:
        data = self._storage.get(self._name, start, end - start + more)
        if len(data) != end - start:
            raise ObjectDamaged(self._name, f"has {start + len(data)} bytes where {end} were expected")
        return data


def _sealed_frames(directory: Directory, pieces: Iterator[bytes]) -> Iterator[Buffer]:
    """Yield the sealed bytes of each frame, in order; frames lie one after the other from offset 0."""
    view, start = memoryview(b""), 0
    for place in directory.frames:
        at, end = place.offset, place.offset + place.sealed_length
        parts: list[Buffer] = []
        while at < end:
            if at == start + len(view):
                start += len(view)
                view = memoryview(next(pieces))
            part = view[at - start : end - start]
            at += len(part)
            parts.append(part if at == end else bytes(part))  # a copy: the piece behind it can go
        yield parts[0] if len(parts) == 1 else b"".join(parts)


def _verify_frames(
    ring: KeyRing, check: PackCheck, directory: Directory, pieces: _Pieces, find_base: FindBase | None
) -> None:
    metadata = directory.kind == Kind.METADATA_DIRECTORY
    id_key = ring.metadata_chunk_id_key if metadata else ring.data_chunk_id_key
    codec = FrameCodec()
    opened: dict[int, PackKey] = {}
    for index, sealed in enumerate(_sealed_frames(directory, iter(pieces))):
        place, at = directory.frames[index], directory.key_of[index]
        try:
            if at not in opened:
                opened[at] = open_pack_key(ring, directory.kind, check.name, directory.keys[at])
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

"""Reading packs: directories and frames out of storage, in as few requests as hide their lengths.

What is read is a whole pack or aligned windows of 1 MiB, never the bytes of just one frame: a storage that watches
a restore would learn the lengths of frames, which are those of the data (docs/format.md, "Packs and frames").
Windows that lie close together become one request.

The directory of a pack decides. A table says which pack a frame is in; where the two disagree, the table is not
believed and the pack is named. Directories and opened pack keys are kept in a bounded cache.

Errors: ObjectMissing passes through; ObjectDamaged names the pack and the frame. Methods may be called by several
threads at once; one iterator belongs to one thread at a time.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from threading import Lock, local
from typing import NamedTuple

from repo_store.directory import Directory
from repo_store.errors import ObjectDamaged
from repo_store.frame import Codec, FrameCodec, FrameName, FramePlace
from repo_store.key_ring import KeyRing
from repo_store.pack import FOOTER_BYTES, PACK_BYTES_MAX, pack_name, read_footer, read_tail
from repo_store.pack_key import PackKey, open_pack_key
from repo_store.storage import Buffer, Storage

WINDOW_BYTES = 1024 * 1024
WHOLE_BYTES_MAX = 4 * 1024 * 1024  # a pack up to this size is read at once
_GAP_WINDOWS = 2  # closer than this, reading on is cheaper than asking again
_RUN_BYTES_MAX = 32 * 1024 * 1024
_CACHE_BYTES_MAX = 16_000_000
_FRAME_COST = 500  # about the bytes of Python objects to a frame in a cached directory

FindBase = Callable[[FrameName], Buffer]
"""Returns the plaintext of a base frame. Raises ObjectMissing or ObjectDamaged if it cannot be had."""


class Run(NamedTuple):
    """Bytes of a pack to be read in one request, and the frames to be taken out of them."""

    start: int
    end: int
    places: list[FramePlace]


@dataclass(slots=True)
class _Known:
    """A directory in the cache, with the pack keys opened so far."""

    directory: Directory
    index_of: dict[FrameName, int]
    keys: dict[int, PackKey] = field(default_factory=dict)

    @property
    def cost(self) -> int:
        """About the bytes it takes in memory."""
        return 40 * len(self.directory.lengths) + _FRAME_COST * len(self.directory.frames)


def read_directory(storage: Storage, ring: KeyRing, hash_: bytes, size: int) -> Directory:
    """Return the directory of the pack with this hash and size, from its last windows.

    Raises ObjectMissing, or ObjectDamaged if it is not whole. One request; two if the directory is long.
    """
    name = pack_name(hash_)
    start = max(0, size - FOOTER_BYTES) // WINDOW_BYTES * WINDOW_BYTES
    tail = _get(storage, name, size, start, size)
    footer = read_footer(name, size, tail)
    first = footer.frames_bytes // WINDOW_BYTES * WINDOW_BYTES
    if first < start:
        tail = _get(storage, name, size, first, start) + tail
    return read_tail(ring, name, size, tail)


def plan_runs(places: Iterable[FramePlace], size: int) -> list[Run]:
    """Return the aligned reads that bring all of `places` from a pack of `size` bytes, in the order of offsets."""
    runs: list[Run] = []
    for place in sorted(places, key=lambda place: place.offset):
        start = place.offset // WINDOW_BYTES * WINDOW_BYTES
        end = min(-(-(place.offset + place.sealed_length) // WINDOW_BYTES) * WINDOW_BYTES, size)
        if (
            runs
            and start <= runs[-1].end + _GAP_WINDOWS * WINDOW_BYTES
            and end - runs[-1].start <= _RUN_BYTES_MAX
        ):
            runs[-1] = runs[-1]._replace(end=max(end, runs[-1].end))
            runs[-1].places.append(place)
        else:
            runs.append(Run(start, end, [place]))
    return runs


class PackReader:
    """Reads frames of the packs of one repository, keeping directories and keys that it met."""

    def __init__(self, storage: Storage, ring: KeyRing, *, cache_bytes_max: int = _CACHE_BYTES_MAX) -> None:
        self._storage, self._ring = storage, ring
        self._cache_bytes_max = cache_bytes_max
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._cost = 0
        self._lock = Lock()
        self._local = local()
        self._kept: tuple[bytes, bytes] | None = None  # the hash and the bytes of one pack

    def directory(self, hash_: bytes, size: int) -> Directory:
        """Return the directory of a pack. Raises ObjectMissing or ObjectDamaged."""
        return self._know(hash_, size, None).directory

    def read_frames(
        self,
        hash_: bytes,
        size: int,
        places: Iterable[FramePlace],
        find_base: FindBase | None = None,
        *,
        keep: bool = False,
    ) -> Iterator[tuple[FramePlace, bytes]]:
        """Yield each of `places` in the pack of this hash and size with its plaintext, in the order of offsets.

        To `keep` the pack is to read all of it and to have it at hand for the next calls, until another is kept.
        Raises ObjectMissing or ObjectDamaged at the first frame that cannot be had; start again behind it to have the
        others. Raises Refused if this holder cannot read contents.
        """
        for place, plain in self.view_frames(hash_, size, places, find_base, keep=keep):
            yield place, bytes(plain)

    def view_frames(
        self,
        hash_: bytes,
        size: int,
        places: Iterable[FramePlace],
        find_base: FindBase | None = None,
        *,
        keep: bool = False,
    ) -> Iterator[tuple[FramePlace, Buffer]]:
        """As `read_frames`, without a copy: the plaintext is good until this thread opens another frame."""
        wanted = list(places)
        name = pack_name(hash_)
        runs = plan_runs(wanted, size)
        if keep or size <= WHOLE_BYTES_MAX or 2 * sum(run.end - run.start for run in runs) >= size:
            whole = self._read_whole(hash_, size, keep=keep)
            known = self._know(hash_, size, whole)
            yield from self._open_run(name, known, Run(0, size, wanted), whole, find_base)
            return
        known = self._know(hash_, size, None)
        for run in runs:
            data = _get(self._storage, name, size, run.start, run.end)
            yield from self._open_run(name, known, run, data, find_base)

    def _read_whole(self, hash_: bytes, size: int, *, keep: bool) -> bytes:
        """Return all bytes of a pack. Raises ObjectMissing or ObjectDamaged."""
        name, kept = pack_name(hash_), self._kept
        if kept is not None and kept[0] == hash_:
            return kept[1]
        if not 0 < size <= PACK_BYTES_MAX:
            raise ObjectDamaged(name, f"has {size} bytes, outside the limits of a pack")
        if keep:
            self._kept = kept = None  # never two at a time
        whole = _get(self._storage, name, size, 0, size)
        if keep:
            self._kept = hash_, whole
        return whole

    def read_base(self, hash_: bytes, size: int, place: FramePlace) -> bytes:
        """Return the plaintext of a frame that another has as its base.

        Raises ObjectDamaged if it has a base itself: chains would make one lost frame lose many.
        """
        if place.codec == Codec.ZSTD_WITH_BASE:
            raise ObjectDamaged(
                pack_name(hash_), f"frame {place.name} serves as a base and has a base itself"
            )
        return next(self.read_frames(hash_, size, [place]))[1]

    def _open_run(
        self, name: str, known: _Known, run: Run, data: bytes, find_base: FindBase | None
    ) -> Iterator[tuple[FramePlace, Buffer]]:
        view = memoryview(data)
        for place in sorted(run.places, key=lambda place: place.offset):
            index = known.index_of.get(place.name)
            if index is None:
                raise ObjectDamaged(name, f"does not hold frame {place.name}, though a table says so")
            if known.directory.frames[index] != place:
                raise ObjectDamaged(name, f"its directory and a table disagree about frame {place.name}")
            key = self._key(name, known, known.directory.key_of[index])
            sealed = view[place.offset - run.start :][: place.sealed_length]
            base = plain_of_base(name, place, find_base)
            yield place, self._codec().open(key, name, place, sealed, base=base)

    def _codec(self) -> FrameCodec:
        codec: FrameCodec | None = getattr(self._local, "codec", None)
        if codec is None:
            codec = self._local.codec = FrameCodec()
        return codec

    def _key(self, name: str, known: _Known, index: int) -> PackKey:
        # Two threads may open the same key at once: both get the same, one is kept.
        key = known.keys.get(index)
        if key is None:
            directory = known.directory
            key = open_pack_key(self._ring, directory.kind, name, directory.keys[index])
            known.keys[index] = key
        return key

    def _know(self, hash_: bytes, size: int, whole: bytes | None) -> _Known:
        with self._lock:
            known = self._known.get(hash_)
            if known is not None:
                self._known.move_to_end(hash_)
                return known
        if whole is None:
            directory = read_directory(self._storage, self._ring, hash_, size)
        else:
            directory = read_tail(self._ring, pack_name(hash_), size, whole)
        known = _Known(directory, {place.name: index for index, place in enumerate(directory.frames)})
        with self._lock:
            if hash_ not in self._known:
                self._cost += known.cost
            self._known[hash_] = known
            while self._cost > self._cache_bytes_max and len(self._known) > 1:
                self._cost -= self._known.popitem(last=False)[1].cost
        return known


def plain_of_base(name: str, place: FramePlace, find_base: FindBase | None) -> Buffer | None:
    """Return the plaintext of the base that the frame `place` of pack `name` needs, None if it needs none."""
    if place.base is None:
        return None
    if find_base is None:
        raise ObjectDamaged(
            name, f"frame {place.name} needs the base {place.base}, which cannot be looked up here"
        )
    return find_base(place.base)


def _get(storage: Storage, name: str, size: int, start: int, end: int) -> bytes:
    # Reading on to the end of the object shows whether it ends where it should.
    data = storage.get(name, start, None if end == size else end - start)
    if len(data) != end - start:
        raise ObjectDamaged(name, f"has {start + len(data)} bytes where {end} were expected")
    return data

"""Mounting: the manifests of a repository as one tree of directories, read piece by piece.

    <series>/<time of its end>-<start of its id>/…      the entries of one manifest
    <series>/latest                                     a link to the newest complete one

The list of manifests is that of the start. Nothing is read before it is asked for; chunks are kept for a while, within
CACHED_BYTES_MAX, and fetched READ_AHEAD_BYTES at a time, since frames hold many. For one thread only. This module knows
no FUSE: cli/mount.py puts it in between.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from engine.selection import rfc3339
from engine.session import Session
from repo_store.content import content_range
from repo_store.entry import HOLE, Entry, EntryKind, Path
from repo_store.errors import HoldfastError, ObjectDamaged
from repo_store.manifest import Manifest
from repo_store.tree_children import children
from repo_store.tree_reader import lookup

CACHED_BYTES_MAX: Final = 64 * 1024 * 1024
READ_AHEAD_BYTES: Final = 4 * 1024 * 1024
_ENTRIES_CACHED_MAX = 4096
_LATEST = b"latest"


@dataclass(frozen=True)
class Place:
    """What is at a path of the mounted tree: a folder of ours, a link of ours, or an entry of a manifest."""

    manifest: Manifest | None = None
    path: Path = ()
    entry: Entry | None = None
    target: bytes | None = None
    time_ns: int = 0


class MountedTree:
    """The tree. Paths are tuples of names, from the top of the mount."""

    def __init__(self, session: Session, manifests: list[Manifest]) -> None:
        """Take the manifests, oldest first."""
        self._reader = session.reader
        self._series: dict[bytes, dict[bytes, Manifest]] = {}
        self._latest: dict[bytes, tuple[int, bytes]] = {}
        for manifest in manifests:
            series = _folder_name(manifest.series)
            name = f"{rfc3339(manifest.end // 10**9 * 10**9)}-{manifest.id.hex()[:8]}".encode()
            self._series.setdefault(series, {})[name] = manifest
            if manifest.status == "complete":
                newest = self._latest.get(series, (0, b""))
                self._latest[series] = max(newest, (manifest.sequence, name))
        self._entries: OrderedDict[tuple[bytes, Path], Entry | None] = OrderedDict()
        self._chunks: OrderedDict[bytes, bytes] = OrderedDict()
        self._cached_bytes = 0

    def find(self, path: Path) -> Place | None:
        """Return what is at `path`, None if there is nothing. Raises ObjectDamaged, ObjectMissing."""
        if not path:
            return Place()
        runs = self._series.get(path[0])
        if runs is None or len(path) == 1:
            return None if runs is None else Place()
        if len(path) == 2 and path[1] == _LATEST and path[0] in self._latest:
            return Place(target=self._latest[path[0]][1])
        manifest = runs.get(path[1])
        if manifest is None or len(path) == 2:
            return None if manifest is None else Place(manifest, time_ns=manifest.end)
        entry = self._entry(manifest, path[2:])
        return None if entry is None else Place(manifest, path[2:], entry)

    def names(self, path: Path) -> Iterator[bytes] | None:
        """Return the names in a directory, None if there is none at `path`."""
        place = self.find(path)
        if place is None or place.target is not None:
            return None
        if len(path) == 0:
            return iter(sorted(self._series))
        if len(path) == 1:
            latest = [_LATEST] if path[0] in self._latest else []
            return iter([*sorted(self._series[path[0]]), *latest])
        if place.entry is not None and place.entry.kind != EntryKind.DIRECTORY:
            return None
        assert place.manifest is not None
        return self._list(place.manifest, place.path)

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of a file or stream from `offset`. Raises ObjectDamaged, ObjectMissing."""
        get = self._reader.get_node
        end = min(offset + size, entry.size)
        pieces: list[bytes] = []
        pairs = list(content_range(get, entry, offset, end - offset)) if end > offset else []
        if any(chunk_id != HOLE and chunk_id not in self._chunks for _, chunk_id, _ in pairs):
            self._fetch([pair[1] for pair in content_range(get, entry, offset, READ_AHEAD_BYTES)])
        for place, chunk_id, length in pairs:
            start, stop = max(offset - place, 0), min(end - place, length)
            pieces.append(
                bytes(stop - start) if chunk_id == HOLE else self._chunk(chunk_id, length)[start:stop]
            )
        return b"".join(pieces)

    def _entry(self, manifest: Manifest, path: Path) -> Entry | None:
        key = manifest.id, path
        if key not in self._entries:
            found = None if manifest.root is None else lookup(self._reader.get_node, manifest.root, path)
            self._remember(key, found)
        self._entries.move_to_end(key)
        return self._entries[key]

    def _list(self, manifest: Manifest, path: Path) -> Iterator[bytes]:
        if manifest.root is not None:
            for entry in children(self._reader.get_node, manifest.root, path):
                self._remember((manifest.id, (*path, entry.name)), entry)  # asked for next, nearly always
                yield entry.name

    def _remember(self, key: tuple[bytes, Path], entry: Entry | None) -> None:
        self._entries[key] = entry
        if len(self._entries) > _ENTRIES_CACHED_MAX:
            self._entries.popitem(last=False)

    def _chunk(self, chunk_id: bytes, length: int) -> bytes:
        if chunk_id not in self._chunks:
            self._fetch([chunk_id])
        self._chunks.move_to_end(chunk_id)
        data = self._chunks[chunk_id]
        if len(data) != length:
            name = f"chunk {chunk_id.hex()[:16]}"
            raise ObjectDamaged(name, f"has {len(data)} bytes where {length} belong")
        return data

    def _fetch(self, ids: list[bytes]) -> None:
        """Bring these chunks into the cache. The first is wanted now: if it is lost, that is raised."""
        missing = [each for each in dict.fromkeys(ids) if each != HOLE and each not in self._chunks]
        for chunk_id, data in self._reader.read_chunks(missing):
            if isinstance(data, HoldfastError):
                if len(missing) == 1:
                    raise data
                continue  # raised once it is asked for itself
            self._chunks[chunk_id] = bytes(data)
            self._cached_bytes += len(data)
        while self._cached_bytes > CACHED_BYTES_MAX:
            _, old = self._chunks.popitem(last=False)
            self._cached_bytes -= len(old)


def _folder_name(series: str) -> bytes:
    """Return a name for the folder of a series: as it is but for slashes, and no two series have the same."""
    name = (
        series.replace("%", "%25").replace("/", "%2F").replace("\0", "%00").encode("utf-8", "surrogateescape")
    )
    return {b".": b"%2E", b"..": b"%2E."}.get(name, name)

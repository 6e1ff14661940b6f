"""Remote index: the same answers as the index, straight from the tables in the storage, without a local cache.

For a fresh host that restores a little from much: of each table it reads the ends, and then only the blocks that the
wanted chunks and frames can be in. Ask for many at once: every call costs requests to every table. Nothing is kept
but the trailers (about 25 bytes for a thousand rows, and the dictionaries).
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from repo_store.errors import ObjectDamaged, ObjectMissing
from repo_store.frame import FrameName
from repo_store.key_ring import KeyRing
from repo_store.pack_key import ORIGIN_BYTES
from repo_store.row_batch import chunk_place, frame_location, location_key, origin_number, pack_number
from repo_store.row_cache import RowCache
from repo_store.rows import ChunkPlace, FrameLocation, Section
from repo_store.storage import ObjectInfo, Storage
from repo_store.table import PACK_ENTRY, Trailer, table_hash
from repo_store.table_reader import TableReader

LOAD_BYTES_MAX = 64 * 1024 * 1024
"""Tables that together have no more than this are loaded whole: fewer requests, and the next time none."""
_REQUESTS_AT_ONCE = 8
_ROUNDS_MAX = 2  # a prune may exchange tables meanwhile: they are listed once more

Key = TypeVar("Key")
Value = TypeVar("Value")


def is_worth_loading(storage: Storage, ring: KeyRing, cache_dir: str) -> bool:
    """Return whether an `Index` costs little, because few tables are missing from the cache; else use `RemoteIndex`."""
    runs = RowCache(cache_dir, ring.repository).load()
    known = {entry.name for run in runs for entry in run.tables}
    missing = [info.size for info in storage.list("tables/") if table_hash(info.name) not in known]
    return sum(missing) <= LOAD_BYTES_MAX


class RemoteIndex:
    """Lookups in the tables of a storage. For one thread."""

    def __init__(self, storage: Storage, ring: KeyRing, *, trusted: Collection[bytes] | None = None) -> None:
        """`trusted` are the signers whose rows count; None: all of the roster. Reads nothing yet."""
        self._storage, self._ring = storage, ring
        self._trusted = ring.roster.keys() if trusted is None else frozenset(trusted)
        self._readers: dict[bytes, TableReader] = {}
        self.problems: list[ObjectDamaged] = []
        """Tables that were found damaged, once each time they were."""

    @classmethod
    def open(
        cls, storage: Storage, ring: KeyRing, *, trusted: Collection[bytes] | None = None
    ) -> "RemoteIndex":
        """Return the index of what the storage lists now. Raises StorageError."""
        index = cls(storage, ring, trusted=trusted)
        index.refresh()
        return index

    def refresh(self) -> list[ObjectDamaged]:
        """Read the ends of the tables that are new, forget those no longer listed; return what is damaged."""
        self.problems = []
        listed = {name: info for info in self._storage.list("tables/") if (name := table_hash(info.name))}
        missing = [name for name in sorted(listed) if name not in self._readers]
        readers = self._ask(partial(self._open_table), [listed[name] for name in missing])
        kept = {name: reader for name, reader in self._readers.items() if name in listed}
        kept.update((name, reader) for name, reader in zip(missing, readers, strict=True) if reader)
        self._readers = kept
        return self.problems

    def _open_table(self, info: ObjectInfo) -> TableReader | None:
        try:
            return TableReader(self._ring, info.name, info.size, partial(self._storage.get, info.name))
        except ObjectDamaged as problem:
            self.problems.append(problem)
        except ObjectMissing:
            pass  # removed since it was listed
        return None

    def find_chunks(self, section: int, ids: Iterable[bytes]) -> dict[bytes, list[ChunkPlace]]:
        """Return the places of each chunk that has any, as `Index.find_chunks`. Raises StorageError."""
        return self._find(section, {chunk_id: chunk_id for chunk_id in ids}, _chunk_place)

    def find_frames(self, names: Iterable[FrameName]) -> dict[FrameName, list[FrameLocation]]:
        """Return the locations of each frame that has any, as `Index.find_frames`. Raises StorageError."""
        return self._find(Section.LOCATIONS, {location_key(*name): name for name in names}, _frame_location)

    def _find(
        self, section: int, keys: Mapping[bytes, Key], read: Callable[[Trailer, bytes], Value]
    ) -> dict[Key, list[Value]]:
        for _ in range(_ROUNDS_MAX):
            found: dict[bytes, dict[Value, None]] = {}
            readers = [reader for reader in self._readers.values() if reader.trailer.signer in self._trusted]
            answers = self._ask(partial(self._find_rows, section, sorted(keys)), readers)
            for reader, rows in zip(readers, answers, strict=True):
                for key, several in (rows or {}).items():
                    found.setdefault(key, {}).update((read(reader.trailer, row), None) for row in several)
            if None not in answers:
                break
            self.refresh()
        return {keys[key]: list(values) for key, values in found.items()}

    def _find_rows(
        self, section: int, keys: Sequence[bytes], reader: TableReader
    ) -> dict[bytes, list[bytes]] | None:
        """Return the rows of `keys` in one table, or None if it is gone."""
        try:
            return reader.find(section, keys)
        except ObjectDamaged as problem:
            self.problems.append(problem)
            return {}
        except ObjectMissing:
            return None

    def _ask(self, ask: Callable[[Key], Value], items: Sequence[Key]) -> list[Value]:
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="table") as pool:
            return list(pool.map(ask, items))


def _chunk_place(trailer: Trailer, row: bytes) -> ChunkPlace:
    at = origin_number(row) * ORIGIN_BYTES
    return chunk_place(row, trailer.origins[at : at + ORIGIN_BYTES])


def _frame_location(trailer: Trailer, row: bytes) -> FrameLocation:
    return frame_location(row, *PACK_ENTRY.unpack_from(trailer.packs, pack_number(row) * PACK_ENTRY.size))

"""The ledger of a repository: its records found, read and dated.

A record that cannot be read tells nothing and stops nobody: it is set aside by name, the others count. With a cache a
machine fetches each record once, and asks a later time for the list only. Records are given out one after the other
and not kept: there may be years of them.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from repo_store.bounded import get_sealed
from repo_store.errors import ObjectDamaged, ObjectMissing
from repo_store.key_ring import KeyRing
from repo_store.ledger import LedgerRecord
from repo_store.sealed import Kind, open_object
from repo_store.sealed_cache import SealedCache
from repo_store.storage import ObjectInfo, Storage

PREFIX = "ledger/"
_NAME = re.compile(r"ledger/[0-9a-f]{32}")
_READERS = 8
_TOGETHER = 32
"""Records read at once: one of a whole repository of 1 TB has 1 MB."""


class LedgerEntry(NamedTuple):
    """A record, its object's name, and when the storage says that it was put (ns since 1970)."""

    name: str
    record: LedgerRecord
    dated_ns: int


class Ledger:
    """The records of one repository. `damaged` fills as they are read: object name → reason."""

    def __init__(self, storage: Storage, ring: KeyRing, cache_dir: Path | None = None) -> None:
        """With `cache_dir` records are kept there as stored; without, all are read from the storage."""
        self._storage, self._ring = storage, ring
        self._cache = SealedCache(None if cache_dir is None else cache_dir / "ledger", PREFIX)
        self.damaged: dict[str, str] = {}

    def entries(self) -> Iterator[LedgerEntry]:
        """Yield every record that can be read, in no stated order. Raises StorageError."""
        listed = [info for info in self._storage.list(PREFIX) if _NAME.fullmatch(info.name)]
        self._cache.keep_only({info.name for info in listed})
        with ThreadPoolExecutor(_READERS) as pool:
            for at in range(0, len(listed), _TOGETHER):
                for found in pool.map(self._read, listed[at : at + _TOGETHER]):
                    if isinstance(found, ObjectDamaged):
                        self.damaged[found.name] = found.reason
                    elif found is not None:
                        yield found

    def _read(self, info: ObjectInfo) -> LedgerEntry | ObjectDamaged | None:
        kept = self._cache.get(info.name)
        if kept is not None:
            with suppress(ObjectDamaged):
                return self._open(info, kept)
        found = self._fetch(info)
        # Spoilt on its way, perhaps: what it says of damage would not be known to a snapshot.
        return self._fetch(info) if isinstance(found, ObjectDamaged) else found

    def _fetch(self, info: ObjectInfo) -> LedgerEntry | ObjectDamaged | None:
        try:
            data = get_sealed(self._storage, info.name)
            entry = self._open(info, data)
        except ObjectMissing:
            return None  # removed meanwhile by a prune
        except ObjectDamaged as error:
            return error
        self._cache.put(info.name, data)
        return entry

    def _open(self, info: ObjectInfo, data: bytes) -> LedgerEntry:
        opened = open_object(self._ring, Kind.LEDGER, info.name, data)
        return LedgerEntry(info.name, LedgerRecord.from_body(info.name, opened.body), info.modified_ns)

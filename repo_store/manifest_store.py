"""The manifests of a repository: found, read once, kept in a local cache.

Live manifests are those under `manifests/` that are no tombstones and have no forget marker. A damaged one costs
itself: it is set aside by name, the others are read. Cached copies are the sealed bytes as stored, checked
again at every use, so the cache can be deleted or spoilt at any time.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from repo_store.bounded import get_sealed
from repo_store.errors import HoldfastError, ObjectDamaged, ObjectMissing, UsageError
from repo_store.key_ring import KeyRing
from repo_store.manifest import Manifest
from repo_store.sealed import Kind, open_any
from repo_store.sealed_cache import SealedCache
from repo_store.storage import Storage

_READERS = 8


@dataclass
class ManifestList:
    """All manifests that a look at the storage found: live ones oldest first, and those that cannot be read."""

    live: list[Manifest]
    damaged: dict[str, str] = field(default_factory=dict)
    """Object name → reason."""

    def find(self, prefix: str) -> Manifest:
        """Return the manifest whose id starts with `prefix`. Raises UsageError unless there is exactly one."""
        matches = [m for m in self.live if m.id.hex().startswith(prefix.lower())]
        if len(matches) == 1:
            return matches[0]
        if not matches:
            raise UsageError(f"{prefix}: no such manifest", hint="`holdfast manifests` lists them")
        ids = ", ".join(m.id.hex()[:12] for m in matches[:5])
        raise UsageError(f"{prefix}: {len(matches)} manifests start like this: {ids}")

    def newest(
        self,
        series: str,
        *,
        statuses: Iterable[str] = ("complete",),
        signed_by: Callable[[bytes | None], bool] = lambda signer: True,
    ) -> Manifest | None:
        """Return the newest manifest of `series` by sequence, never by clock, or None."""
        wanted = frozenset(statuses)
        mine = [m for m in self.live if m.series == series and m.status in wanted and signed_by(m.signer)]
        return max(mine, key=lambda m: (m.sequence, m.end, m.id), default=None)


def read_manifests(storage: Storage, ring: KeyRing, cache_dir: Path | None) -> ManifestList:
    """Return every live manifest of the repository, oldest first."""
    names = {info.name for info in storage.list("manifests/")}
    forgotten = {info.name.removeprefix("forgotten/") for info in storage.list("forgotten/")}
    wanted = sorted(name for name in names if name.removeprefix("manifests/") not in forgotten)
    reader = _Reader(storage, ring, cache_dir)
    with ThreadPoolExecutor(_READERS) as pool:
        results = list(pool.map(reader.read, wanted))
    damaged = {error.name: error.reason for error in results if isinstance(error, ObjectDamaged)}
    live = [found for found in results if isinstance(found, Manifest)]
    reader.cache.keep_only(names)
    return ManifestList(_oldest_first(live), damaged)


def manifest_cache(cache_dir: Path | None) -> SealedCache:
    """Return where this machine keeps manifests as they were stored."""
    return SealedCache(None if cache_dir is None else cache_dir / "manifests", "manifests/")


def read_forgotten(storage: Storage, ring: KeyRing, manifest_id: bytes) -> Manifest | None:
    """Return a manifest that has a forget marker and was not removed yet; None if there is none.

    Raises ObjectDamaged if it cannot be read.
    """
    name = f"manifests/{manifest_id.hex()}"
    if not any(info.name == f"forgotten/{manifest_id.hex()}" for info in storage.list("forgotten/")):
        return None
    found = _Reader(storage, ring, None).read(name)
    if isinstance(found, ObjectDamaged):
        raise found
    return found


def _oldest_first(manifests: list[Manifest]) -> list[Manifest]:
    """Sort by end time, but never against the sequence of a series: a clock set back reorders nothing."""
    manifests.sort(key=lambda m: (m.series, m.sequence, m.end, m.id))
    effective: dict[str, int] = {}
    keyed = []
    for manifest in manifests:
        end = effective[manifest.series] = max(manifest.end, effective.get(manifest.series, 0))
        keyed.append((end, manifest.series, manifest.sequence, manifest.id, manifest))
    return [item[-1] for item in sorted(keyed, key=lambda item: item[:4])]


class _Reader:
    def __init__(self, storage: Storage, ring: KeyRing, cache_dir: Path | None) -> None:
        self._storage = storage
        self._ring = ring
        self.cache = manifest_cache(cache_dir)

    def read(self, name: str) -> Manifest | ObjectDamaged | None:
        """Return the manifest, None for a tombstone or one deleted meanwhile, or the error of a damaged one."""
        cached = self.cache.get(name)
        if cached is not None:
            with suppress(HoldfastError):
                return self._open(name, cached)
        found = self._fetch(name)
        if isinstance(found, ObjectDamaged):
            # Spoilt on its way, perhaps. Taken for lost, the newest of a series would have its number given out again,
            # and `latest` would go on meaning the old one.
            found = self._fetch(name)
        return found

    def _fetch(self, name: str) -> Manifest | ObjectDamaged | None:
        try:
            data = get_sealed(self._storage, name)
            found = self._open(name, data)
        except ObjectMissing:
            return None
        except ObjectDamaged as error:
            return error
        self.cache.put(name, data)
        return found

    def _open(self, name: str, data: bytes) -> Manifest | None:
        kind, opened = open_any(self._ring, (Kind.MANIFEST, Kind.TOMBSTONE), name, data)
        return None if kind == Kind.TOMBSTONE else Manifest.from_body(name, opened.body, signer=opened.signer)

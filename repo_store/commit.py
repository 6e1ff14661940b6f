"""The commit of a manifest: the writer's half of the protocol that makes pruning safe without locks.

    pending  →  look for what garbage collection announced  →  manifest

A prune publishes its mark and *then* lists pendings; a writer publishes its pending and *then* looks for marks.
Whatever the order in which these four happen, one of the two sees the other (Dekker), and no clock takes part.
What the writer finds condemned it carries into a pack of its own while the condemned one still exists, and
looks again; `manifests/<id>` is created last, create-only, so that it decides against a tombstone.
docs/format.md, section 10, gives the order of writing; invariant 1 of docs/invariants.md rests on it.
"""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace

from repo_store.bounded import get_sealed
from repo_store.errors import HoldfastError, ObjectConflict, ObjectMissing, StorageError
from repo_store.frame import FrameName
from repo_store.generations import Generations, read_generations
from repo_store.key_ring import KeyRing
from repo_store.manifest import Manifest
from repo_store.sealed import Kind, open_any, seal_object
from repo_store.storage import Storage

_ROUNDS_MAX = 8

Rescue = Callable[[Generations], Collection[FrameName]]
"""Makes every dependency of the manifest present without what the generations condemn, durably, and returns
the names of the frames it had to carry (empty: nothing was condemned). Raises if it cannot."""


def commit_manifest(
    storage: Storage,
    ring: KeyRing,
    manifest: Manifest,
    *,
    seen: Generations,
    rescue: Rescue,
    recheck: Callable[[], object],
    keep: Callable[[str, bytes], object] = lambda name, data: None,
) -> Manifest:
    """Commit `manifest`, whose packs and tables are durable, and return it as committed.

    `seen` is what the writer knew of garbage collection when it began to reuse chunks; `recheck` raises if the newest
    config no longer lets this writer write; `keep` is given the committed object, so that this machine need not fetch it
    again. Raises StorageError if it
    was given up by a prune meanwhile; then nothing was committed, and what was stored is reused by the next run.
    """
    pending = f"pending/{manifest.id.hex()}"
    name = f"manifests/{manifest.id.hex()}"
    storage.put(pending, seal_object(ring, Kind.PENDING, manifest.to_body(), subject=pending))
    storage.barrier()
    recheck()
    now = _settle_dependencies(storage, ring, seen, rescue)
    try:
        dated = storage.info(pending).modified_ns
    except ObjectMissing:
        raise _given_up(storage, ring, name) from None
    manifest = replace(manifest, generation=now.highest, storage_date=dated)
    sealed = seal_object(ring, Kind.MANIFEST, manifest.to_body(), subject=name)
    try:
        storage.put(name, sealed)
    except ObjectConflict:
        raise _given_up(storage, ring, name) from None
    storage.barrier()
    keep(name, sealed)
    # The manifest is committed; a pending left behind is removed by the next prune.
    with suppress(StorageError):
        storage.delete(pending)
    return manifest


def _settle_dependencies(storage: Storage, ring: KeyRing, seen: Generations, rescue: Rescue) -> Generations:
    """Return what was announced when nothing of it condemned a dependency any more.

    What is announced later than that is announced after the pending, so that prune finds the pending and spares
    what it names. What was announced and finished before the run began cannot hurt: the run has read tables
    and live manifests since, and a finished sweep takes nothing that a live manifest needs.
    """
    for _ in range(_ROUNDS_MAX):
        now = read_generations(storage, ring)
        if (now == seen and not now.open) or not rescue(now):
            return now
    raise StorageError("garbage collection keeps condemning what this run needs", hint="run it again")


def _given_up(storage: Storage, ring: KeyRing, name: str) -> HoldfastError:
    kind, _ = open_any(ring, (Kind.MANIFEST, Kind.TOMBSTONE), name, get_sealed(storage, name))
    if kind == Kind.TOMBSTONE:
        return StorageError(
            "a prune gave this snapshot up as dead before it was committed",
            hint="run it again: what was stored is reused",
        )
    return ObjectConflict(name)

"""Forget markers as they are stored: one create-only object for each manifest that is not wanted any more.

The first marker of a manifest counts; a second one finds it there and is satisfied with it, so any number of hosts may
forget the same manifest at once. A marker is never taken back: what it shadows may be gone before anybody could.
"""

from repo_store.bounded import get_sealed
from repo_store.errors import ObjectConflict
from repo_store.key_ring import KeyRing
from repo_store.markers import ForgetMarker
from repo_store.sealed import Kind, open_object, seal_object
from repo_store.storage import Storage

PREFIX = "forgotten/"


def forget_marker_name(manifest_id: bytes) -> str:
    """Return the name of the marker that forgets a manifest."""
    return PREFIX + manifest_id.hex()


def put_forget_marker(storage: Storage, ring: KeyRing, marker: ForgetMarker) -> None:
    """Create a marker, visible at once and durable after a barrier that names it.

    If there is one already it is opened, as whoever deletes on its strength will open it: raises ObjectDamaged.
    """
    name = forget_marker_name(marker.id)
    try:
        storage.put(name, seal_object(ring, Kind.FORGET, marker.to_body(), subject=name))
    except ObjectConflict:
        found = open_object(ring, Kind.FORGET, name, get_sealed(storage, name))
        ForgetMarker.from_body(name, found.body)


def list_forgotten(storage: Storage) -> set[str]:
    """Return the ids, in hex, of all manifests that have a marker, whole or damaged."""
    return {info.name.removeprefix(PREFIX) for info in storage.list(PREFIX)}

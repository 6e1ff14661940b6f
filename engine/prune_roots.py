"""Roots: the manifests that must keep all they need, and those that may yet come to need something.

    pendings  →  tombstones for those given up  →  manifests  →  forget markers

The order is part of the protocol (docs/format.md, section 10): a manifest that was still pending at the first look is
committed by the second or not at all. Given up is a pending that was there already when the previous generation
ended, and one whose tree cannot be read; its tombstone decides, so its writer fails before it can commit. A forgotten
manifest counts as live until its marker was opened.
"""

import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from engine.prune_needs import Needs
from engine.session import Session
from repo_store.bounded import get_sealed
from repo_store.errors import ObjectConflict, ObjectDamaged, ObjectMissing
from repo_store.forget_marker import forget_marker_name, list_forgotten
from repo_store.manifest import Manifest
from repo_store.manifest_store import read_forgotten
from repo_store.markers import ForgetMarker, Tombstone
from repo_store.sealed import Kind, open_object, seal_object


@dataclass
class Roots:
    """What one look found."""

    live: list[Manifest] = field(default_factory=list)
    pending: list[Manifest] = field(default_factory=list)
    """Pendings that may be committed yet."""
    hopes: Needs | None = None
    """What they need beside the live manifests: to be kept, and no damage if it is gone."""
    waiting: list[bytes] = field(default_factory=list)
    """Ids of all pendings that were there."""
    settled: list[bytes] = field(default_factory=list)
    """Pendings that may go: their manifest exists or never can."""
    forgotten: list[bytes] = field(default_factory=list)
    """Manifests that may go: each has a marker that was opened."""

    def trace(self, needs: Needs) -> None:
        """Add what the live manifests need. Raises ObjectDamaged if any of it cannot be known."""
        for manifest in self.live:
            try:
                needs.add(manifest.root)
            except (ObjectDamaged, ObjectMissing) as error:
                reason = error.reason if isinstance(error, ObjectDamaged) else "missing"
                shown = manifest.id.hex()[:12]
                raise ObjectDamaged(
                    error.name, f"{reason}; manifest {shown} needs it, so nothing was removed"
                ) from error


def list_pendings(session: Session) -> list[bytes]:
    """Return the ids of the pendings that are there now."""
    names = (info.name.removeprefix("pending/") for info in session.storage.list("pending/"))
    return sorted(bytes.fromhex(name) for name in names)


def look(
    session: Session, needs: Needs, *, stale: Collection[bytes], give_up: bool, pendings: bool = True
) -> Roots:
    """Look at pendings, then at manifests, and trace manifests into `needs`, pendings beside it if `pendings`.

    `stale` pendings are given up, if `give_up`; without it nothing is written, and they count as still wanted. Raises
    ObjectDamaged if a live manifest or part of its tree cannot be read.
    """
    roots = Roots(waiting=list_pendings(session))
    forgotten = list_forgotten(session.storage)
    undecided = [each for each in roots.waiting if each.hex() not in forgotten]
    opened, unreadable = _read_pendings(session, undecided)
    if give_up:
        tombstone(session, [*unreadable, *(each for each in undecided if each in stale)])
    # Listed before the manifests are: what is decided here is among them, or is a tombstone.
    decided = {
        info.name.removeprefix("manifests/") for info in session.storage.list("manifests/")
    } | forgotten
    _read_manifests(session, roots)
    # The tables of what was found are older than it is: with them every node can be found, however late it came.
    session.index.refresh()
    roots.trace(needs)
    undecided_now = [each for each in opened if pendings and each.id.hex() not in decided]
    if undecided_now:
        roots.hopes = Needs(session.reader.get_node, session.cache_dir, beside=needs)
    for manifest in undecided_now:
        _trace_pending(session, roots, manifest, give_up=give_up)
    over = {*stale, *unreadable}
    roots.settled += [each for each in roots.waiting if each in over and each.hex() in decided]
    return roots


def tombstone(session: Session, ids: Iterable[bytes]) -> None:
    """Make it impossible to commit these ids; one that is committed already stays so. Durable on return."""
    put = []
    for each in sorted(set(ids)):
        name = f"manifests/{each.hex()}"
        marker = Tombstone(id=each, time=time.time_ns(), reason="given up by a prune")
        with suppress(ObjectConflict):
            session.storage.put(
                name, seal_object(session.ring, Kind.TOMBSTONE, marker.to_body(), subject=name)
            )
            put.append(name)
    if put:
        session.storage.barrier(put)


def _read_pendings(session: Session, ids: Iterable[bytes]) -> tuple[list[Manifest], list[bytes]]:
    opened, unreadable = [], []
    for each in ids:
        name = f"pending/{each.hex()}"
        with suppress(
            ObjectMissing
        ):  # its writer has decided meanwhile: the manifest will be listed, or never was
            try:
                body = open_object(session.ring, Kind.PENDING, name, get_sealed(session.storage, name)).body
                opened.append(Manifest.from_body(f"manifests/{each.hex()}", body))
            except ObjectDamaged:
                unreadable.append(each)
    return opened, unreadable


def _trace_pending(session: Session, roots: Roots, manifest: Manifest, *, give_up: bool) -> None:
    """Keep what a pending needs; one whose tree cannot be read could not be restored either, and is given up."""
    assert roots.hopes is not None
    try:
        roots.hopes.add(manifest.root)
    except (ObjectDamaged, ObjectMissing):
        if not give_up:
            return
        tombstone(session, [manifest.id])
        if _is_committed(session, manifest.id):
            raise
        roots.settled.append(manifest.id)
    else:
        roots.pending.append(manifest)


def _is_committed(session: Session, manifest_id: bytes) -> bool:
    name = f"manifests/{manifest_id.hex()}"
    try:
        open_object(session.ring, Kind.TOMBSTONE, name, get_sealed(session.storage, name))
    except ObjectDamaged:
        return True
    return False


def _read_manifests(session: Session, roots: Roots) -> None:
    found = session.read_manifests(notes=False)
    for name, reason in found.damaged.items():
        raise ObjectDamaged(name, f"{reason}; what it needs is not known, so nothing was removed")
    roots.live = list(found.live)
    present = {info.name.removeprefix("manifests/") for info in session.storage.list("manifests/")}
    for shown in sorted(list_forgotten(session.storage) & present):
        manifest_id = bytes.fromhex(shown)
        try:
            _open_marker(session, manifest_id)
        except ObjectDamaged:
            manifest = read_forgotten(session.storage, session.ring, manifest_id)
            roots.live += [] if manifest is None else [manifest]
        else:
            roots.forgotten.append(manifest_id)


def _open_marker(session: Session, manifest_id: bytes) -> None:
    name = forget_marker_name(manifest_id)
    body = open_object(session.ring, Kind.FORGET, name, get_sealed(session.storage, name)).body
    ForgetMarker.from_body(name, body)

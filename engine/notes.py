"""Notes: tags and holds for manifests that exist already.

A note is written, made durable, and only then this looks whether the manifest was forgotten meanwhile: engine/forget.py
says why. Nothing is written where nothing would change, so a command may be repeated.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from engine.selection import rfc3339
from engine.session import Session
from repo_store.errors import Refused
from repo_store.forget_marker import list_forgotten
from repo_store.manifest import TAGS_MAX, Manifest
from repo_store.markers import Note
from repo_store.note_store import PREFIX, SignedNote, in_order, is_shorter, next_time, tags_and_hold
from repo_store.roles import OWNER
from repo_store.sealed import Kind, seal_object

RANDOM_BYTES: Final = 8


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a note shall say. `hold_until` counts if `sets_hold`; None then lifts the hold."""

    add_tags: tuple[str, ...] = ()
    remove_tags: tuple[str, ...] = ()
    sets_hold: bool = False
    hold_until: int | None = None


def change_notes(
    session: Session, manifests: Sequence[Manifest], change: Change, *, now_ns: int
) -> list[Manifest]:
    """Give each manifest a note; return the manifests as they are then, in the same order.

    On return the notes are durable. Raises Refused if this key may not do it, or if a manifest was forgotten meanwhile;
    nothing is written unless all of it is allowed.
    """
    session.repository.refresh("write")
    ring = session.ring
    if not ring.may_sign(Kind.NOTE):
        raise Refused(f"slot {ring.slot} has the role {ring.role}, which may not change tags and holds")
    notes = session.read_notes()
    changed, objects = [], {}
    for manifest in manifests:
        before = notes.of(manifest.id)
        stored = notes.noted(manifest)
        signed = _sign(session, stored, before, change, now_ns)
        tags, hold = tags_and_hold(stored, [signed])
        if (set(tags), hold) != (set(stored.tags), stored.hold_until):
            _check(session, stored, tags, change)
            body = signed.note.to_body()
            objects[signed.name] = seal_object(ring, Kind.NOTE, body, subject=signed.name)
        changed.append(stored.noted(tags=tags, hold_until=hold))
    for name, data in objects.items():
        session.storage.put(name, data)
    session.storage.barrier()
    _refuse_forgotten(session, manifests)
    return changed


def _sign(
    session: Session, manifest: Manifest, before: Sequence[SignedNote], change: Change, now_ns: int
) -> SignedNote:
    note = Note(
        id=manifest.id,
        time=next_time(in_order(before), now_ns),
        add_tags=change.add_tags,
        remove_tags=change.remove_tags,
        sets_hold=change.sets_hold,
        hold_until=change.hold_until,
    )
    name = f"{PREFIX}{manifest.id.hex()}.{os.urandom(RANDOM_BYTES).hex()}"
    # An owner's, as far as what it would do goes; whether this key may do it is asked in `_check`.
    return SignedNote(name, note, by_owner=True)


def _check(session: Session, manifest: Manifest, tags: Sequence[str], change: Change) -> None:
    """Raise Refused if this key may not make this change of `manifest`, or no manifest may have so many tags."""
    shown = manifest.id.hex()[:12]
    if len(tags) > TAGS_MAX:
        raise Refused(f"manifest {shown} would have {len(tags)} tags, more than {TAGS_MAX}")
    shortens = change.sets_hold and is_shorter(change.hold_until, manifest.hold_until)
    if shortens and session.ring.role != OWNER:
        until = rfc3339(manifest.hold_until or 0)
        raise Refused(f"manifest {shown} is held until {until}, and only an owner may shorten that")


def _refuse_forgotten(session: Session, manifests: Sequence[Manifest]) -> None:
    forgotten = list_forgotten(session.storage)
    gone = [manifest.id.hex()[:12] for manifest in manifests if manifest.id.hex() in forgotten]
    if gone:
        raise Refused(
            f"manifest {', '.join(gone)} was forgotten meanwhile, and no hold keeps it",
            hint="until a prune has run, `holdfast restore` with the whole id still brings it back",
        )

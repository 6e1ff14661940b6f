"""Notes: tags and holds that came after a manifest, and what they make of it.

A note is an object of its own, `notes/<id>.<random>`, because nothing is ever changed. The notes of a manifest count
in the order of (time, name). Who writes one gives it a time later than that of every note he has seen
(`next_time`), so that what he saw and changed stays changed, however wrong a clock is; a clock decides only between
people who did not see each other. A hold can be made longer by everybody who may sign notes, shorter by an owner
alone: a shorter one of somebody else does nothing. docs/format.md, section 10, is the authority.
"""

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from repo_store.body import NUMBER_MAX
from repo_store.bounded import get_sealed
from repo_store.errors import HoldfastError, ObjectDamaged, ObjectMissing, Refused
from repo_store.key_ring import KeyRing
from repo_store.manifest import Manifest
from repo_store.manifest_store import ManifestList
from repo_store.markers import Note
from repo_store.roles import OWNER
from repo_store.sealed import Kind, open_object
from repo_store.sealed_cache import SealedCache
from repo_store.storage import Storage

PREFIX: Final = "notes/"
_NAME = re.compile(r"notes/[0-9a-f]{32}\.[0-9a-f]{16}")
_READERS = 8


@dataclass(frozen=True)
class SignedNote:
    """A note as stored: its object's name, and whether an owner signed it."""

    name: str
    note: Note
    by_owner: bool


@dataclass
class NoteList:
    """All notes that a look at the storage found, and those that cannot be read."""

    notes: list[SignedNote]
    damaged: dict[str, str] = field(default_factory=dict)
    """Object name → reason."""

    @cached_property
    def _by_id(self) -> dict[bytes, list[SignedNote]]:
        by_id: dict[bytes, list[SignedNote]] = {}
        for each in in_order(self.notes):
            by_id.setdefault(each.note.id, []).append(each)
        return by_id

    def of(self, manifest_id: bytes) -> list[SignedNote]:
        """Return the notes of one manifest in the order in which they count."""
        return self._by_id.get(manifest_id, [])

    def noted(self, manifest: Manifest) -> Manifest:
        """Return a manifest as it was stored with the tags and the hold that its notes gave it."""
        notes = self.of(manifest.id)
        if not notes:
            return manifest
        tags, hold = tags_and_hold(manifest, notes)
        return manifest.noted(tags=tags, hold_until=hold)


def in_order(notes: Iterable[SignedNote]) -> list[SignedNote]:
    """Return notes in the order in which they count."""
    return sorted(notes, key=lambda each: (each.note.time, each.name))


def tags_and_hold(manifest: Manifest, notes: Sequence[SignedNote]) -> tuple[tuple[str, ...], int | None]:
    """Return the tags and the hold that `notes`, in order, leave a manifest with.

    In one note tags are removed before others are added.
    """
    tags, hold = dict.fromkeys(manifest.tags), manifest.hold_until
    for signed in notes:
        note = signed.note
        for tag in note.remove_tags:
            tags.pop(tag, None)
        tags.update(dict.fromkeys(note.add_tags))
        if note.sets_hold and (signed.by_owner or not is_shorter(note.hold_until, hold)):
            hold = note.hold_until
    return tuple(tags), hold


def is_shorter(hold: int | None, than: int | None) -> bool:
    """Say whether a hold ends before another one; None is no hold."""
    return (hold or 0) < (than or 0)


def next_time(notes: Sequence[SignedNote], now_ns: int) -> int:
    """Return the time for a note that shall count after `notes`. Raises Refused if there is none."""
    time = max([now_ns, *(each.note.time + 1 for each in notes)])
    if time > NUMBER_MAX:
        raise Refused(f"{notes[-1].name}: is dated at the end of all time, so no other note can follow it")
    return time


def apply_notes(manifests: ManifestList, notes: NoteList) -> ManifestList:
    """Return manifests as their notes have them; notes that cannot be read stand among the damaged."""
    return ManifestList(list(map(notes.noted, manifests.live)), manifests.damaged | notes.damaged)


def read_notes(storage: Storage, ring: KeyRing, cache_dir: Path | None = None) -> NoteList:
    """Return every note of the repository."""
    names = sorted(info.name for info in storage.list(PREFIX) if _NAME.fullmatch(info.name))
    cache = SealedCache(None if cache_dir is None else cache_dir / "notes", PREFIX)

    def read(name: str) -> SignedNote | ObjectDamaged | None:
        cached = cache.get(name)
        if cached is not None:
            with suppress(HoldfastError):
                return open_note(ring, name, cached)
        try:
            data = get_sealed(storage, name)
            found = open_note(ring, name, data)
        except ObjectMissing:
            return None  # removed meanwhile, with its manifest
        except ObjectDamaged as error:
            return error
        cache.put(name, data)
        return found

    with ThreadPoolExecutor(_READERS) as pool:
        results = list(pool.map(read, names))
    cache.keep_only(set(names))
    return NoteList(
        [each for each in results if isinstance(each, SignedNote)],
        {each.name: each.reason for each in results if isinstance(each, ObjectDamaged)},
    )


def open_note(ring: KeyRing, name: str, data: bytes) -> SignedNote:
    """Return the note `name`. Raises ObjectDamaged if it is none, or was signed by one who may not sign notes."""
    opened = open_object(ring, Kind.NOTE, name, data)
    line = ring.roster[opened.signer]
    return SignedNote(name, Note.from_body(name, opened.body), line.role == OWNER)

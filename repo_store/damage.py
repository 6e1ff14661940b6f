"""Damage: what verifications have found lost.

A frame or pack that any trusted ledger record names as damaged counts as absent for writers, for ever: what was in
it is stored anew under a new name the next time it is met, and so heals. Nothing here needs a clock.
"""

from contextlib import suppress
from typing import NamedTuple

from repo_store.bounded import get_sealed
from repo_store.errors import ObjectDamaged, ObjectMissing
from repo_store.key_ring import KeyRing
from repo_store.ledger import LedgerRecord
from repo_store.sealed import Kind, open_object
from repo_store.storage import Storage


class Damage(NamedTuple):
    """Packs (by hash) and frames (by name, 20 bytes) that were found damaged."""

    packs: frozenset[bytes]
    frames: frozenset[bytes]


def read_damage(storage: Storage, ring: KeyRing) -> Damage:
    """Return all damage on record.

    A record that is itself damaged tells nothing and stops nobody: `verify` names it, and finds again what it knew.
    """
    packs: set[bytes] = set()
    frames: set[bytes] = set()
    for record in read_ledger(storage, ring):
        packs.update(record.damaged_packs)
        frames.update(record.damaged_frames)
    return Damage(frozenset(packs), frozenset(frames))


def read_ledger(storage: Storage, ring: KeyRing) -> list[LedgerRecord]:
    """Return every whole ledger record, in no stated order."""
    records = []
    for info in storage.list("ledger/"):
        with suppress(ObjectDamaged, ObjectMissing):
            opened = open_object(ring, Kind.LEDGER, info.name, get_sealed(storage, info.name))
            records.append(LedgerRecord.from_body(info.name, opened.body))
    return records

"""Damage: what verifications have found lost.

A frame or pack that any trusted ledger record names as damaged counts as absent for writers, for ever: what was in
it is stored anew under a new name the next time it is met, and so heals. Nothing here needs a clock.
"""

from pathlib import Path
from typing import NamedTuple

from repo_store.key_ring import KeyRing
from repo_store.ledger import LedgerRecord
from repo_store.ledger_store import Ledger
from repo_store.storage import Storage


class Damage(NamedTuple):
    """Packs (by hash) and frames (by name, 20 bytes) that were found damaged.

    `unread` are the records that cannot be read, object name → reason: they tell nothing and stop nobody, `verify` names
    them too, and finds again what they knew.
    """

    packs: frozenset[bytes]
    frames: frozenset[bytes]
    unread: dict[str, str]


def read_damage(storage: Storage, ring: KeyRing, cache_dir: Path | None = None) -> Damage:
    """Return all damage on record. With `cache_dir` a record is fetched from the storage once."""
    packs: set[bytes] = set()
    frames: set[bytes] = set()
    ledger = Ledger(storage, ring, cache_dir)
    for entry in ledger.entries():
        packs.update(entry.record.damaged_packs)
        frames.update(entry.record.damaged_frames)
    return Damage(frozenset(packs), frozenset(frames), ledger.damaged)


def read_ledger(storage: Storage, ring: KeyRing) -> list[LedgerRecord]:
    """Return every whole ledger record, in no stated order."""
    return [entry.record for entry in Ledger(storage, ring).entries()]

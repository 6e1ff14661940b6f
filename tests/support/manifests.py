"""Manifests that nobody made: only what tells one from another, for tests of judgement, and the same put into a
repository."""

from collections.abc import Iterable
from typing import Any

from support.sessions import World

from repo_store.manifest import Manifest
from repo_store.markers import Note
from repo_store.sealed import Kind, seal_object

SECOND = 10**9
HOUR = 3600 * SECOND
DAY = 24 * HOUR


def manifest(number: int, status: str = "complete", **changes: Any) -> Manifest:
    """Return the manifest that is the `number`th of the series "one", ended at `number` seconds, with `changes`."""
    fields: dict[str, Any] = {
        "id": number.to_bytes(16, "big"),
        "series": "one",
        "sequence": number,
        "previous": None,
        "start": 0,
        "end": number * SECOND,
        "storage_date": None,
        "host": "host",
        "source": "files",
        "status": status,
        "root": None,
    }
    return Manifest(**{**fields, **changes})


def numbers(manifests: Iterable[Manifest]) -> list[int]:
    """Return the numbers that manifests were made with."""
    return [int.from_bytes(each.id, "big") for each in manifests]


def store(world: World, manifests: Iterable[Manifest]) -> None:
    """Put manifests into a repository, signed by the owner, durably."""
    ring = world.session().ring
    for each in manifests:
        name = f"manifests/{each.id.hex()}"
        world.disk.damage(name, seal_object(ring, Kind.MANIFEST, each.to_body(), subject=name))


def store_note(world: World, note: Note, random: str = "00" * 8, *, ring: Any = None) -> str:
    """Put a note into a repository, signed by the owner or the holder of `ring`; return its name."""
    name = f"notes/{note.id.hex()}.{random}"
    sealed = seal_object(ring or world.session().ring, Kind.NOTE, note.to_body(), subject=name)
    world.disk.damage(name, sealed)
    return name

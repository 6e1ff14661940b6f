"""Markers: small records about a manifest, each an object of its own, because nothing is ever changed.

    Tombstone      at manifests/<id>: this id can never be committed any more
    ForgetMarker   at forgotten/<id>: this manifest is not wanted any more
    Note           at notes/<id>.<random>: tags and a hold that came later

docs/format.md, sections 8 and 10, is the authority. These are bodies only; no storage is touched.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repo_store.body import FORMAT, MANIFEST_ID_BYTES, Body, check_own_name


@dataclass(frozen=True, kw_only=True)
class Tombstone:
    """Prune gave a pending up. `time` is nanoseconds since 1970 UTC."""

    id: bytes
    time: int
    reason: str

    def to_body(self) -> dict[str, Any]:
        """Return the body."""
        return {"format": FORMAT, "id": self.id, "time": self.time, "reason": self.reason}

    @staticmethod
    def from_body(name: str, body: Mapping[Any, Any]) -> "Tombstone":
        """Return what the object `name` holds. Raises ObjectDamaged."""
        return Tombstone(**_id_time_reason("manifests/", Body(name, body)))


@dataclass(frozen=True, kw_only=True)
class ForgetMarker:
    """A manifest is forgotten; it shadows the manifest even if that should appear again."""

    id: bytes
    time: int
    reason: str

    def to_body(self) -> dict[str, Any]:
        """Return the body."""
        return {"format": FORMAT, "time": self.time, "id": self.id, "reason": self.reason}

    @staticmethod
    def from_body(name: str, body: Mapping[Any, Any]) -> "ForgetMarker":
        """Return what the object `name` holds. Raises ObjectDamaged."""
        return ForgetMarker(**_id_time_reason("forgotten/", Body(name, body)))


@dataclass(frozen=True, kw_only=True)
class Note:
    """Tags added and removed, and a hold set or, with `hold_until` None, lifted, if `sets_hold`."""

    id: bytes
    time: int
    add_tags: tuple[str, ...] = ()
    remove_tags: tuple[str, ...] = ()
    sets_hold: bool = False
    hold_until: int | None = None

    def to_body(self) -> dict[str, Any]:
        """Return the body."""
        body: dict[str, Any] = {"format": FORMAT, "time": self.time, "id": self.id}
        if self.add_tags:
            body["add_tags"] = list(self.add_tags)
        if self.remove_tags:
            body["remove_tags"] = list(self.remove_tags)
        if self.sets_hold:
            body["hold_until"] = self.hold_until
        return body

    @staticmethod
    def from_body(name: str, body: Mapping[Any, Any]) -> "Note":
        """Return what the object `name` holds. Raises ObjectDamaged."""
        read = Body(name, body)
        sets_hold = read.has("hold_until")
        note = Note(
            id=read.data("id", MANIFEST_ID_BYTES),
            time=read.number("time"),
            add_tags=_tags(read, "add_tags"),
            remove_tags=_tags(read, "remove_tags"),
            sets_hold=sets_hold,
            hold_until=read.optional("hold_until", read.number) if sets_hold else None,
        )
        check_own_name(read, f"notes/{note.id.hex()}.")
        return note


def _tags(body: Body, key: str) -> tuple[str, ...]:
    return tuple(body.texts(key)) if body.has(key) else ()


def _id_time_reason(prefix: str, body: Body) -> dict[str, Any]:
    marker_id = body.data("id", MANIFEST_ID_BYTES)
    check_own_name(body, prefix + marker_id.hex())
    return {"id": marker_id, "time": body.number("time"), "reason": body.text("reason", empty=True)}

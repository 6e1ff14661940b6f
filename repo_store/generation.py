"""Generations: the three records of one garbage collection.

    Mark    these are condemned if nobody needs them
    Sweep   these go: the point of no return
    Done    they are gone; these were found without reference, and only they may be condemned next

docs/format.md, section 10, is the authority. These are bodies only; no storage is touched. Packs and tables are
named by the 32 bytes of their hash, frames by 20 bytes, manifests and pendings by 16, WAL by object name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from repo_store.body import FORMAT, MANIFEST_ID_BYTES, Body, check_own_name
from repo_store.object_names import is_name

HASH_BYTES: Final = 32
FRAME_NAME_BYTES: Final = 20
GENERATION_MAX: Final = 10**10 - 1


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What is condemned if nobody needs it. `frames` are sparse: absent for writers, wanted by readers."""

    generation: int
    time: int
    packs: tuple[bytes, ...] = ()
    tables: tuple[bytes, ...] = ()
    frames: tuple[bytes, ...] = ()
    wal: tuple[str, ...] = ()

    def to_body(self) -> dict[str, Any]:
        """Return the body."""
        return {
            "format": FORMAT,
            "time": self.time,
            "generation": self.generation,
            "packs": b"".join(self.packs),
            "tables": b"".join(self.tables),
            "frames": b"".join(self.frames),
            "wal": list(self.wal),
        }

    @staticmethod
    def from_body(name: str, body: Mapping[Any, Any]) -> "Mark":
        """Return what the object `name` holds. Raises ObjectDamaged."""
        read = Body(name, body)
        return Mark(
            generation=_generation(read, "mark"),
            time=read.number("time"),
            packs=read.joined("packs", HASH_BYTES),
            tables=read.joined("tables", HASH_BYTES),
            frames=read.joined("frames", FRAME_NAME_BYTES),
            wal=_wal(read),
        )


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What goes. `manifests` are forgotten ones, whose markers stay; `pendings` are committed ones or given up."""

    generation: int
    time: int
    packs: tuple[bytes, ...] = ()
    tables: tuple[bytes, ...] = ()
    wal: tuple[str, ...] = ()
    manifests: tuple[bytes, ...] = ()
    pendings: tuple[bytes, ...] = ()

    def to_body(self) -> dict[str, Any]:
        """Return the body."""
        return {
            "format": FORMAT,
            "time": self.time,
            "generation": self.generation,
            "packs": b"".join(self.packs),
            "tables": b"".join(self.tables),
            "wal": list(self.wal),
            "manifests": b"".join(self.manifests),
            "pendings": b"".join(self.pendings),
        }

    @staticmethod
    def from_body(name: str, body: Mapping[Any, Any]) -> "Sweep":
        """Return what the object `name` holds. Raises ObjectDamaged."""
        read = Body(name, body)
        return Sweep(
            generation=_generation(read, "sweep"),
            time=read.number("time"),
            packs=read.joined("packs", HASH_BYTES),
            tables=read.joined("tables", HASH_BYTES),
            wal=_wal(read),
            manifests=read.joined("manifests", MANIFEST_ID_BYTES),
            pendings=read.joined("pendings", MANIFEST_ID_BYTES),
        )


@dataclass(frozen=True, kw_only=True)
class Done:
    """The end of a generation, and what it saw: `unreferenced` packs that no manifest needed, `pendings` that waited.

    Only these may be condemned or given up by the next, so that nobody who is at work is caught by surprise.
    """

    generation: int
    time: int
    unreferenced: tuple[bytes, ...] = ()
    unindexed: tuple[bytes, ...] = ()
    """Those of `unreferenced` that no table named: perhaps a run was about to."""
    pendings: tuple[bytes, ...] = ()

    def to_body(self) -> dict[str, Any]:
        """Return the body."""
        body: dict[str, Any] = {
            "format": FORMAT,
            "time": self.time,
            "generation": self.generation,
            "unreferenced": b"".join(self.unreferenced),
        }
        if self.unindexed:
            body["unindexed"] = b"".join(self.unindexed)
        if self.pendings:
            body["pendings"] = b"".join(self.pendings)
        return body

    @staticmethod
    def from_body(name: str, body: Mapping[Any, Any]) -> "Done":
        """Return what the object `name` holds. Raises ObjectDamaged."""
        read = Body(name, body)
        return Done(
            generation=_generation(read, "done"),
            time=read.number("time"),
            unreferenced=read.joined("unreferenced", HASH_BYTES),
            unindexed=read.joined("unindexed", HASH_BYTES) if read.has("unindexed") else (),
            pendings=read.joined("pendings", MANIFEST_ID_BYTES) if read.has("pendings") else (),
        )


def _generation(body: Body, stage: str) -> int:
    generation = body.number("generation", lowest=1, highest=GENERATION_MAX)
    check_own_name(body, f"gc/{generation:010d}.{stage}")
    return generation


def _wal(body: Body) -> tuple[str, ...]:
    names = body.texts("wal")
    for name in names:
        if not name.startswith("wal/") or not is_name(name):
            body.refuse(f"its `wal` has {name[:80]!r}, which is no name of a WAL object")
    return tuple(names)

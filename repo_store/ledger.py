"""Ledger: what was verified, when, and how deep.

docs/format.md, section 10, is the authority. A record names what was found good and what was found damaged;
frames named damaged count as absent for writers, so that the next snapshot heals them. What follows for the next
verification stands in repo_store/pack_history.py. These are bodies only; no storage is touched.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from repo_store.body import FORMAT, MANIFEST_ID_BYTES, Body, check_own_name
from repo_store.generation import FRAME_NAME_BYTES, HASH_BYTES

PACKS_TO_A_RECORD_MAX: Final = 500_000
"""A verification of more packs (16 TB) writes several records: 16 MB each, sealed objects have at most 64."""


class Depth(StrEnum):
    """How much was looked at."""

    STRUCTURE = "structure"
    """Every reference resolves, and every pack is there with its size."""
    DATA = "data"
    """Every byte was read and every chunk has its id."""


@dataclass(frozen=True, kw_only=True)
class LedgerRecord:
    """One verification. `time` is nanoseconds since 1970 UTC; packs by their hash, frames by their name.

    `faulty_packs` were read and are not whole, whether or not anything is lost by it. `contents` is False where some
    of `packs` could not be opened for want of a key: then their bytes are as stored, and nobody looked at the chunks.
    """

    id: bytes
    time: int
    depth: str
    packs: tuple[bytes, ...] = ()
    damaged_packs: tuple[bytes, ...] = ()
    damaged_frames: tuple[bytes, ...] = ()
    faulty_packs: tuple[bytes, ...] = ()
    contents: bool = True

    def to_body(self) -> dict[str, Any]:
        """Return the body."""
        body: dict[str, Any] = {
            "format": FORMAT,
            "time": self.time,
            "id": self.id,
            "depth": str(self.depth),
            "packs": b"".join(self.packs),
            "damaged_packs": b"".join(self.damaged_packs),
            "damaged_frames": b"".join(self.damaged_frames),
        }
        if self.faulty_packs:
            body["faulty_packs"] = b"".join(self.faulty_packs)
        if not self.contents:
            body["contents"] = 0
        return body

    @staticmethod
    def from_body(name: str, body: Mapping[Any, Any]) -> "LedgerRecord":
        """Return what the object `name` holds. Raises ObjectDamaged."""
        read = Body(name, body)
        record = LedgerRecord(
            id=read.data("id", MANIFEST_ID_BYTES),
            time=read.number("time"),
            depth=read.choice("depth", list(Depth)),
            packs=read.joined("packs", HASH_BYTES),
            damaged_packs=read.joined("damaged_packs", HASH_BYTES),
            damaged_frames=read.joined("damaged_frames", FRAME_NAME_BYTES),
            faulty_packs=read.joined("faulty_packs", HASH_BYTES) if read.has("faulty_packs") else (),
            contents=not read.has("contents") or read.number("contents", highest=1) == 1,
        )
        check_own_name(read, f"ledger/{record.id.hex()}")
        return record

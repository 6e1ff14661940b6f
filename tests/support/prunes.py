"""Prunes in tests: forgetting by hand, running as many generations as it takes, and what must be true afterwards."""

from collections.abc import Iterator
from functools import cached_property

from blake3 import blake3
from support.repositories import NOW
from support.sessions import World
from support.simulated_storage import Faults, SimulatedDisk
from support.slow_repository import DATA, Frame, Lost, SlowRepository, secrets_of

from engine.prune import PruneResult, plan_prune, run_prune
from engine.session import Session
from repo_store.forget_marker import put_forget_marker
from repo_store.key_ring import KeyRing
from repo_store.manifest import Manifest
from repo_store.markers import ForgetMarker


def forget(session: Session, *manifests: Manifest) -> None:
    """Forget manifests, durably."""
    for manifest in manifests:
        put_forget_marker(
            session.storage, session.ring, ForgetMarker(id=manifest.id, time=NOW, reason="test")
        )
    session.storage.barrier()


def prune(
    world: World, disk: SimulatedDisk | None = None, *, faults: Faults | None = None, **options: object
) -> PruneResult:
    """Plan and run one generation, as a host that has never seen the repository."""
    session = world.session(disk, faults=faults, operation="prune")
    return run_prune(session, plan_prune(session, **options))  # type: ignore[arg-type]


def finish(world: World, disk: SimulatedDisk | None = None) -> PruneResult:
    """Run generations until nothing more is freed or waits; return the last result."""
    for _ in range(8):
        result = prune(world, disk)
        if not (result.adopted or result.bytes_freed or result.bytes_next):
            return result
    raise AssertionError("prune does not come to an end")


class Oracle(SlowRepository):
    """The slow repository of one state of a disk, made to remember: each pack is searched and each frame opened once."""

    def frames(self) -> Iterator[Frame]:
        """Yield every frame of every pack whose directory holds."""
        return iter(self._all_frames)

    @cached_property
    def _all_frames(self) -> list[Frame]:
        return list(super().frames())

    @cached_property
    def _holders(self) -> dict[tuple[int, bytes], list[tuple[Frame, int, int]]]:
        holders: dict[tuple[int, bytes], list[tuple[Frame, int, int]]] = {}
        for frame in self._all_frames:
            start = 0
            for chunk_id, size in frame.chunks:
                holders.setdefault((frame.kind, chunk_id), []).append((frame, start, size))
                start += size
        return holders

    @cached_property
    def _opened(self) -> dict[tuple[str, bytes], bytes]:
        return {}

    def chunk(self, kind: int, chunk_id: bytes, length: int | None = None) -> bytes:
        """Return a chunk, from whichever frame has it whole. Raises Lost."""
        label = "data chunk id" if kind == DATA else "metadata chunk id"
        key = blake3(self._secrets.id_key, derive_key_context=f"holdfast 1 {label}").digest()
        for frame, start, size in self._holders.get((kind, chunk_id), ()):
            place = (frame.pack, frame.name)
            try:
                plain = self._opened.setdefault(place, self._opened.get(place) or self._plain(frame))
            except Lost:
                continue
            data = plain[start : start + size]
            if blake3(data, key=key).digest() == chunk_id and length in (None, size):
                return data
        raise Lost(f"chunk {chunk_id.hex()[:16]}")


def slow(disk: SimulatedDisk, ring: KeyRing) -> Oracle:
    """Return the oracle of what is on the disk now."""
    return Oracle(disk.objects(), secrets_of(ring))


def slow_content(disk: SimulatedDisk, ring: KeyRing) -> dict[str, dict[str, bytes]]:
    """Return path → bytes for every live manifest, by id, as the oracle reads it. Raises Lost."""
    oracle = slow(disk, ring)
    return {
        shown: {
            b"/".join(path).decode(): oracle.content(row)
            for path, row in oracle.entries(body)
            if row[1] in (0, 6)
        }
        for shown, body in oracle.manifests().items()
    }


def pack_names(disk: SimulatedDisk) -> set[str]:
    """Return the names of all packs."""
    return {name for name in disk.objects() if name.startswith("packs/")}


def frames_of(disk: SimulatedDisk, ring: KeyRing) -> list[Frame]:
    """Return every frame of every pack."""
    return list(slow(disk, ring).frames())

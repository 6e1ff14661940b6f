"""Repacking: needed frames leave packs that are mostly unneeded, sealed as they are, and small packs become larger ones.

Packs are chosen by what they waste, most first, until what all packs waste together is a small share of what is needed,
or the limit of work is reached. A pack that is repacked is not deleted by this generation: it only becomes unneeded, and
the next one may take it. A pack whose bytes no longer have the hash in its name is left as it is, and named.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from engine.progress import Progress
from engine.prune_frames import frame_name
from engine.prune_survey import METADATA_COPIES, Survey
from engine.prune_tables import put_rows
from engine.session import Session
from repo_store.carry import PackedFrames, carry_packs
from repo_store.errors import ObjectDamaged, ObjectMissing
from repo_store.frame import FrameName
from repo_store.pack import pack_name

WASTE_SHARE = 40
"""Repacking stops where of all frames in packs less than one byte in so many is unneeded."""
SMALL_BYTES = 4 * 1024 * 1024
SMALL_PACKS_MIN = 16
"""Fewer small packs than this are left alone."""
SMALL_ORIGINS_MAX = 64
"""A small pack with more keys than this has been made of small packs before."""


@dataclass(frozen=True)
class RepackPlan:
    """Packs to be repacked, by hash, and the bytes that are read for it and carried."""

    packs: tuple[bytes, ...] = ()
    read_bytes: int = 0
    carried_bytes: int = 0
    left: int = 0
    """Packs that were worth it too, and did not fit into the limit of work."""


@dataclass
class Repacked:
    """What repacking did."""

    packs: list[bytes] = field(default_factory=list)
    """Packs that nothing needs any more, because all that is needed of them was carried away."""
    stored: list[bytes] = field(default_factory=list)
    """The new packs."""
    stored_bytes: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    """Packs that could not be read whole: object name → reason."""


def plan_repack(
    found: Survey, *, avoid: Collection[bytes], without: Collection[bytes] = (), bytes_max: int
) -> RepackPlan:
    """Return which packs to repack; `avoid` are packs that go anyway, `without` frames that are compacted instead.

    `bytes_max` bounds the bytes carried.
    """
    avoid, left_out = frozenset(avoid), {found.frames.find(name) for name in without}
    used = {pack: found.used_bytes(pack, left_out) for pack in found.homes if found.hashes[pack] not in avoid}
    chosen: list[int] = []
    carried, left = 0, 0
    for pack in [*_wasteful(found, used), *_small(found, used)]:
        if pack in chosen:
            continue
        if carried + used[pack] > bytes_max:
            left += 1
        else:
            chosen.append(pack)
            carried += used[pack]
    return RepackPlan(
        tuple(found.hashes[pack] for pack in chosen), sum(found.sizes[pack] for pack in chosen), carried, left
    )


def _wasteful(found: Survey, used: dict[int, int]) -> list[int]:
    """Return the packs to repack so that little is wasted, those first that waste the largest share."""
    held = found.held_bytes()
    waste = {pack: held[pack] - used[pack] for pack in used}
    left, bound = sum(waste.values()), sum(used.values()) // WASTE_SHARE
    chosen = []
    for pack in sorted(waste, key=lambda pack: (-waste[pack] / held[pack], found.hashes[pack])):
        if left <= bound or not waste[pack]:
            break
        chosen.append(pack)
        left -= waste[pack]
    return chosen


def _small(found: Survey, used: dict[int, int]) -> list[int]:
    """Return small packs that together make larger ones."""
    origins = {
        pack: len({found.frames.name(frame)[:16] for frame in found.homes[pack]})
        for pack in used
        if found.sizes[pack] < SMALL_BYTES
    }
    small = [pack for pack, count in origins.items() if count <= SMALL_ORIGINS_MAX]
    return sorted(small, key=lambda pack: found.hashes[pack]) if len(small) >= SMALL_PACKS_MIN else []


def run_repack(
    session: Session,
    plan: RepackPlan,
    found: Survey,
    progress: Progress,
    *,
    without: Collection[FrameName] = (),
    gone: Collection[bytes] = (),
) -> Repacked:
    """Carry what is needed out of the packs of `plan`, index it and make it durable; `without` some frames.

    Copies in packs that are `gone` soon do not count. Raises StorageError.
    """
    done = Repacked()
    if not plan.packs:
        return done
    progress.phase, progress.bytes, progress.bytes_total = "repacking", 0, plan.read_bytes
    wanted = _wanted(found, plan.packs, frozenset(gone), frozenset(without))
    unread: set[bytes] = set()

    def read_whole(pack: bytes, error: ObjectDamaged | ObjectMissing) -> None:
        unread.add(pack)
        if isinstance(error, ObjectDamaged):
            done.damaged[pack_name(pack)] = error.reason

    for packed in carry_packs(session.storage, session.ring, wanted, on_damage=read_whole):
        progress.check_stop()
        progress.bytes += packed.size
        _take(session, done, packed)
    put_rows(session, done.stored)
    session.index.refresh()
    done.packs = [pack for pack in plan.packs if pack not in unread]
    return done


def _take(session: Session, done: Repacked, packed: PackedFrames) -> None:
    session.index.add_pack(packed.hash, packed.size, packed.directory)
    done.stored.append(packed.hash)
    done.stored_bytes += packed.size


def _wanted(
    found: Survey, repacked: Collection[bytes], gone: frozenset[bytes], without: frozenset[FrameName]
) -> dict[bytes, set[FrameName]]:
    """Return, for each pack that is repacked, the frames to be carried out of it, each from one pack only."""
    frames = found.frames
    numbers = {hash_: number for number, hash_ in enumerate(found.hashes)}
    leaving = {numbers[hash_] for hash_ in {*repacked, *gone} if hash_ in numbers}
    wanted: dict[bytes, set[FrameName]] = {}
    taken: set[int] = set()
    for hash_ in sorted(repacked):
        pack = numbers[hash_]
        for frame in found.homes.get(pack, ()):
            staying = [other for other in frames.packs(frame) if other not in leaving]
            enough = METADATA_COPIES if frames.metadata[frame] else 1
            name = frame_name(frames.name(frame))
            if frame not in taken and len(staying) < enough and name not in without:
                taken.add(frame)
                wanted.setdefault(hash_, set()).add(name)
    return wanted

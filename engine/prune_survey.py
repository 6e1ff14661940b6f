"""Survey: which packs the needed chunks lie in, and which packs nobody would miss.

The index is walked once in step with the sorted ids of what is needed. What no table knows is asked of the packs
themselves, so a damaged table frees nothing. Where a chunk lies in several frames all of them are kept until one
of them was read back and found good (a ledger record of depth `data` names its pack); where a frame lies in several
packs one copy is kept, of metadata two. A chunk that is needed and nowhere ends the prune as damage.
"""

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import merge
from operator import itemgetter

from engine.prune_frames import FrameMap
from engine.prune_needs import Needs
from engine.session import Session
from repo_store.damage import read_ledger
from repo_store.errors import ObjectDamaged, ObjectMissing
from repo_store.ledger import Depth
from repo_store.pack_reader import read_directory
from repo_store.row_batch import ROW_BYTES, RowBatch, chunk_place
from repo_store.rows import ChunkPlace, Section

METADATA_COPIES = 2
SPARSE_SHARE = 2
"""A frame is sparse if less than one part in so many of it is needed."""
WASTE_SHARE = 20
"""Compaction leaves less than one byte in so many of all frames unneeded."""


@dataclass(frozen=True)
class Verdicts:
    """What earlier runs found out about packs (by hash) and frames (by the 20 bytes of their name)."""

    verified: frozenset[bytes] = frozenset()
    """Packs that were read back whole after they were stored."""
    damaged_packs: frozenset[bytes] = frozenset()
    damaged_frames: frozenset[bytes] = frozenset()
    sparse: frozenset[bytes] = frozenset()
    """Frames that writers and compaction replace, so that another copy of a chunk is the one to keep."""


@dataclass
class Survey:
    """What a look at the repository came to. Packs are numbers into `hashes` and `sizes`."""

    hashes: list[bytes]
    sizes: list[int]
    frames: FrameMap
    leaving: dict[bytes, int] = field(default_factory=dict)
    """Packs that were to count as gone and are still there, with their sizes."""
    missing: set[bytes] = field(default_factory=set)
    """Packs that tables know and the storage does not list with that size."""
    lost: list[tuple[Section, bytes]] = field(default_factory=list)
    """Chunks that are needed and nowhere."""
    homes: dict[int, list[int]] = field(default_factory=dict)
    """Pack → the needed frames for which it is kept."""
    relied: set[int] = field(default_factory=set)
    """Packs that are kept in place of others: they must be durable before those go."""

    def kept(self) -> set[bytes]:
        """Return the packs that must stay for all that is needed to stay."""
        return {self.hashes[pack] for pack in self.homes}

    def unneeded(self) -> list[bytes]:
        """Return the packs that could go, were nobody at work, sorted."""
        return sorted(self.hashes[pack] for pack in range(len(self.hashes)) if pack not in self.homes)

    def used_bytes(self, pack: int, without: Collection[int] = ()) -> int:
        """Return the bytes of the frames for which a pack is kept, `without` some."""
        return sum(self.frames.sealed[frame] for frame in self.homes.get(pack, ()) if frame not in without)

    def held_bytes(self) -> list[int]:
        """Return the bytes of all frames in each pack, needed or not."""
        held = [0] * len(self.hashes)
        for frame, sealed in enumerate(self.frames.sealed):
            for pack in self.frames.packs(frame):
                held[pack] += sealed
        return held

    def sparse(self, known: Collection[bytes] = ()) -> list[bytes]:
        """Return the names of the frames of which less than half is needed, sorted.

        Of those `known` to be sparse also the ones that nobody needs any more, as long as a copy is there: so what
        was stored in their place stays the one to keep.
        """
        frames = self.frames
        candidates = {*frames.needed(), *(frames.find(name) for name in known)}
        return sorted(
            frames.name(frame)
            for frame in candidates
            if frame >= 0 and frames.packs(frame) and SPARSE_SHARE * frames.live[frame] < frames.plain[frame]
        )

    def wasteful(self, known: Collection[bytes] = ()) -> list[bytes]:
        """Return the frames to be rewritten so that frames hold little but what is needed: all that are sparse, and the
        emptiest others. Sorted by name."""
        frames = self.frames
        chosen = set(self.sparse(known))
        kept = [frame for frame in frames.needed() if frames.name(frame) not in chosen]
        live = sum(frames.live[frame] for frame in frames.needed())
        waste = sum(frames.plain[frame] - frames.live[frame] for frame in kept)
        kept.sort(key=lambda frame: (frames.live[frame] / max(1, frames.plain[frame]), frames.name(frame)))
        for frame in kept:
            if waste * WASTE_SHARE <= live:
                break
            chosen.add(frames.name(frame))
            waste -= frames.plain[frame] - frames.live[frame]
        return sorted(chosen)

    def require_whole(self) -> None:
        """Raise ObjectDamaged if anything that is needed is nowhere."""
        if self.lost:
            section, chunk_id = self.lost[0]
            what = "tree node" if section == Section.METADATA else "chunk"
            more = f", with {len(self.lost) - 1} others," if len(self.lost) > 1 else ""
            raise ObjectDamaged(
                f"{what} {chunk_id.hex()[:16]}", f"needed{more} and in no pack: nothing was removed"
            )


def read_verdicts(session: Session, sparse: Collection[bytes]) -> Verdicts:
    """Return what the ledger says, and which frames are `sparse`."""
    verified: set[bytes] = set()
    damaged: set[bytes] = set()
    frames: set[bytes] = set()
    for record in read_ledger(session.storage, session.ring):
        verified.update(record.packs if record.depth == Depth.DATA and record.contents else ())
        damaged.update(record.damaged_packs)
        damaged.update(record.faulty_packs)
        frames.update(record.damaged_frames)
    return Verdicts(frozenset(verified - damaged), frozenset(damaged), frozenset(frames), frozenset(sparse))


def survey(
    session: Session,
    needs: Needs,
    verdicts: Verdicts,
    avoid: Collection[bytes],
    *,
    hopes: Needs | None = None,
    without: Collection[bytes] = (),
) -> Survey:
    """Look at what is stored now. `avoid` are packs not to be kept for what also lies elsewhere; `hopes` what is kept
    where it is there, and is not missed where it is not; `without` are packs that count as gone already.

    Raises StorageError. Reads the listing, new tables, and the directories of packs that no table knows.
    """
    session.index.refresh()
    listed = {bytes.fromhex(info.name[-64:]): info.size for info in session.storage.list("packs/")}
    leaving = {pack: listed.pop(pack) for pack in without if pack in listed}
    found = Survey(list(listed), list(listed.values()), FrameMap(), leaving)
    numbers = {hash_: number for number, hash_ in enumerate(found.hashes)}
    for where in session.index.locations():
        if listed.get(where.pack) == where.pack_size:
            found.frames.add(where.place, numbers[where.pack])
        elif where.pack not in leaving:
            found.missing.add(where.pack)
    unindexed = _read_unindexed(session, found, numbers, listed)
    verified = {numbers[hash_] for hash_ in verdicts.verified if hash_ in numbers}
    chooser = _Chooser(found.frames, verdicts, verified)
    for wanted in (needs,) if hopes is None else (needs, hopes):
        for section in (Section.DATA, Section.METADATA):
            rows = session.index.chunks_in_order(section)
            places = merge(rows, _rows(unindexed, section), key=itemgetter(0))
            lost = _resolve(found, chooser, section, wanted.ids(section), places)
            found.lost += lost if wanted is needs else ()
    damaged = {numbers[hash_] for hash_ in verdicts.damaged_packs if hash_ in numbers}
    avoided = damaged | {numbers[hash_] for hash_ in avoid if hash_ in numbers}
    _choose_homes(found, avoided, damaged, verified, chooser.chosen)
    return found


def _read_unindexed(
    session: Session, found: Survey, numbers: dict[bytes, int], listed: dict[bytes, int]
) -> RowBatch:
    batch = RowBatch()
    for hash_ in sorted(session.index.unindexed(listed)):
        with suppress(ObjectDamaged, ObjectMissing):  # then nothing that is needed and found lies in it
            directory = read_directory(session.storage, session.ring, hash_, listed[hash_])
            batch.add_pack(hash_, listed[hash_], directory)
            for place in directory.frames:
                found.frames.add(place, numbers[hash_])
    batch.sort()
    return batch


def _rows(batch: RowBatch, section: Section) -> Iterator[tuple[bytes, ChunkPlace]]:
    rows, size, origins = batch.sections[section], ROW_BYTES[section], list(batch.origins)
    for at in range(0, len(rows), size):
        row = bytes(rows[at : at + size])
        yield row[:32], chunk_place(row, origins[int.from_bytes(row[32:36], "little")])


class _Chooser:
    """Says which of several frames are kept for a chunk that all of them hold."""

    def __init__(self, frames: FrameMap, verdicts: Verdicts, verified: set[int]) -> None:
        self._frames, self._verdicts, self._verified = frames, verdicts, verified
        self.chosen: set[int] = set()
        """Frames that were preferred to others."""

    def keep(self, candidates: list[int]) -> list[int]:
        frames = self._frames
        usable = [frame for frame in candidates if frames.is_usable(frame)]
        if len(usable) < 2:
            return usable
        good = [frame for frame in usable if self._is_verified(frame)]
        if not good:
            return usable
        best = min(good, key=lambda frame: (frames.name(frame) in self._verdicts.sparse, frames.name(frame)))
        self.chosen.add(best)
        return [best]

    def _is_verified(self, frame: int) -> bool:
        if self._frames.name(frame) in self._verdicts.damaged_frames:
            return False
        base = self._frames.base[frame]
        return any(pack in self._verified for pack in self._frames.packs(frame)) and (
            base < 0 or self._is_verified(base)
        )


def _resolve(
    found: Survey,
    chooser: _Chooser,
    section: Section,
    needed: Iterator[bytes],
    places: Iterator[tuple[bytes, ChunkPlace]],
) -> list[tuple[Section, bytes]]:
    """Count what is needed in the frames that hold it, and return what is nowhere; both iterators are sorted by id."""
    lost: list[tuple[Section, bytes]] = []
    frames, is_metadata = found.frames, section == Section.METADATA
    row = next(places, None)
    for chunk_id in needed:
        while row is not None and row[0] < chunk_id:
            row = next(places, None)
        lengths: dict[int, int] = {}
        while row is not None and row[0] == chunk_id:
            frame = frames.find(row[1].frame.pack())
            if frame >= 0:
                lengths[frame] = row[1].length
            row = next(places, None)
        kept = chooser.keep(list(lengths))
        if not kept:
            lost.append((section, chunk_id))
        for frame in kept:
            frames.need(frame, lengths[frame], metadata=is_metadata)
    return lost


def _choose_homes(
    found: Survey, avoided: set[int], damaged: set[int], verified: set[int], chosen: set[int]
) -> None:
    """Decide for which packs each needed frame counts: all, if it has few copies, else those that stay anyway."""
    frames, homes = found.frames, found.homes
    several = []
    for frame in frames.needed():
        packs = frames.packs(frame)
        if len(packs) <= (METADATA_COPIES if frames.metadata[frame] else 1):
            for pack in packs:
                homes.setdefault(pack, []).append(frame)
            if frame in chosen:
                found.relied.update(packs)
        else:
            several.append(frame)
    for frame in sorted(several, key=frames.name):
        wanted = METADATA_COPIES if frames.metadata[frame] else 1
        in_order = sorted(
            frames.packs(frame),
            key=lambda pack: (pack in avoided, pack not in homes, -found.sizes[pack], found.hashes[pack]),
        )
        kept = in_order[:wanted]
        if not damaged.isdisjoint(in_order) and verified.isdisjoint(kept):
            kept = in_order  # the damaged copy may be the better one
        for pack in kept:
            homes.setdefault(pack, []).append(frame)
        found.relied.update(kept)

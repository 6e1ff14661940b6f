"""Compaction: what is needed of sparse frames is read, and written at once into new, full frames.

It takes a key that reads contents. A frame can go once each of its needed chunks lies in another frame that was read
back whole: so the new packs are read again after they were stored, and with them the packs in which writers had stored
such chunks anew. The ledger keeps the result, and the survey of this run and of all later ones goes by it.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from engine.progress import Progress
from engine.prune_frames import FrameMap
from engine.prune_needs import Needs
from engine.prune_survey import Survey, Verdicts
from engine.prune_tables import put_rows
from engine.session import Session
from repo_store.chunk_writer import ChunkWriter
from repo_store.errors import HoldfastError, ObjectDamaged, ObjectMissing
from repo_store.frame import FrameName
from repo_store.ledger import Depth, LedgerRecord
from repo_store.pack_check import verify_pack
from repo_store.pack_writer import PackRows, PackWriter
from repo_store.rows import Section
from repo_store.sealed import Kind, seal_object
from repo_store.worker_pool import WorkerPool

_WORKERS = 2
_BUFFER_BYTES = 1536 * 1024
_IN_FLIGHT_BYTES_MAX = 80_000_000
_NODE_PACK_BYTES = 16 * 1024 * 1024
_CHUNKS_AT_ONCE = 4096
_SECTIONS = {
    Section.DATA: Kind.DATA_DIRECTORY,
    Section.METADATA: Kind.METADATA_DIRECTORY,
}


@dataclass
class Compacted:
    """What compaction did."""

    frames: frozenset[FrameName] = frozenset()
    """Sparse frames of which every needed chunk now lies in another frame, read back whole."""
    stored: list[bytes] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    """What could not be read: object name → reason."""


@dataclass
class _Work:
    """What there is to rewrite: by section the ids joined, and who else has a chunk of a sparse frame."""

    ids: dict[Section, bytearray] = field(default_factory=lambda: {each: bytearray() for each in _SECTIONS})
    frames: set[int] = field(default_factory=set)
    others: set[bytes] = field(default_factory=set)
    """Packs with another copy of such a chunk, to be read back."""


def run_compact(
    session: Session,
    needs: Needs,
    found: Survey,
    sparse: Collection[bytes],
    *,
    verdicts: Verdicts,
    bytes_max: int,
    progress: Progress,
) -> Compacted:
    """Rewrite the `sparse` frames, at most `bytes_max` bytes of what is needed of them; durable on return.

    Raises Refused for a key that cannot read contents, StorageError.
    """
    chosen = _choose(found.frames, sparse, bytes_max)
    done = Compacted()
    if not chosen:
        return done
    session.ring.data_private(session.ring.epoch)
    progress.phase = "compacting"
    work = _find(session, needs, found, chosen, verdicts)
    _rewrite(session, found.frames, work, done, chosen, progress)
    good = _read_back(session, [*done.stored, *sorted(work.others)], done, progress)
    _write_ledger(session, good)
    whole = work.others | set(done.stored) == set(good) and not done.damaged
    if whole:
        names = (found.frames.name(frame) for frame in work.frames)
        done.frames = frozenset(map(FrameName.unpack, names))
    return done


def _choose(frames: FrameMap, sparse: Collection[bytes], bytes_max: int) -> set[int]:
    """Return the frames to rewrite, the emptiest first. A frame that others have as their base stays."""
    bases = {frames.base[frame] for frame in frames.needed()}
    numbers = [frame for frame in map(frames.find, sparse) if frame >= 0 and frame not in bases]
    numbers.sort(key=lambda frame: (frames.live[frame] / max(1, frames.plain[frame]), frames.name(frame)))
    chosen: set[int] = set()
    for frame in numbers:
        bytes_max -= frames.live[frame]
        if bytes_max < 0:
            break
        chosen.add(frame)
    return chosen


def _find(session: Session, needs: Needs, found: Survey, chosen: set[int], verdicts: Verdicts) -> _Work:
    """Find the needed chunks of the `chosen` frames, and where else they are."""
    work, frames = _Work(), found.frames
    for section in _SECTIONS:
        places = session.index.chunks_in_order(section)
        row = next(places, None)
        for chunk_id in needs.ids(section):
            while row is not None and row[0] < chunk_id:
                row = next(places, None)
            holders = set()
            while row is not None and row[0] == chunk_id:
                holders.add(frames.find(row[1].frame.pack()))
                row = next(places, None)
            if holders & chosen:
                work.frames |= holders & chosen
                others = {frame for frame in holders - chosen if frame >= 0 and frames.is_usable(frame)}
                _take(found, work, section, chunk_id, others, verdicts)
    return work


def _take(
    found: Survey, work: _Work, section: Section, chunk_id: bytes, others: set[int], verdicts: Verdicts
) -> None:
    if not others:
        work.ids[section] += chunk_id
        return
    packs = {found.hashes[pack] for frame in others for pack in found.frames.packs(frame)[:1]}
    if not packs & verdicts.verified:
        work.others |= packs


def _rewrite(
    session: Session, frames: FrameMap, work: _Work, done: Compacted, chosen: set[int], progress: Progress
) -> None:
    stored: SimpleQueue[PackRows] = SimpleQueue()
    names = [frames.name(frame) for frame in chosen]
    session.index.set_absent((), names)  # what is rewritten counts as new
    with WorkerPool(_WORKERS) as pool:
        for section in _SECTIONS:
            if not work.ids[section]:
                continue
            with _pack_writer(session, section, pool, stored.put) as packs:
                writer = ChunkWriter(packs, session.index, section, _id_key(session, section))
                for data in _read(session, section, bytes(work.ids[section]), done):
                    progress.check_stop()
                    progress.bytes += len(data)
                    writer.put(data)
                writer.finish_frame()
                packs.flush()
            _index_stored(session, stored, done)
    session.index.set_absent((), ())
    put_rows(session, done.stored)
    session.index.refresh()


def _pack_writer(
    session: Session, section: Section, pool: WorkerPool, on_pack: Callable[[PackRows], None]
) -> PackWriter:
    options = {"pack_bytes": _NODE_PACK_BYTES} if section == Section.METADATA else {}
    return PackWriter(
        session.storage,
        session.ring,
        _SECTIONS[section],
        pool,
        on_pack,
        buffer_bytes=_BUFFER_BYTES,
        in_flight_bytes_max=_IN_FLIGHT_BYTES_MAX,
        **options,
    )


def _id_key(session: Session, section: Section) -> bytes:
    ring = session.ring
    return ring.metadata_chunk_id_key if section == Section.METADATA else ring.data_chunk_id_key


def _index_stored(session: Session, stored: "SimpleQueue[PackRows]", done: Compacted) -> None:
    with suppress(Empty):
        while True:
            rows = stored.get_nowait()
            session.index.add_pack(rows.hash, rows.size, rows.directory)
            done.stored.append(rows.hash)


def _read(session: Session, section: Section, ids: bytes, done: Compacted) -> Iterator[bytes]:
    """Yield the chunks; enter into `done` what cannot be read."""
    split = [ids[at : at + 32] for at in range(0, len(ids), 32)]
    if section == Section.METADATA:
        for node_id in split:
            try:
                yield session.reader.get_node(node_id)
            except (ObjectDamaged, ObjectMissing) as error:
                done.damaged[error.name] = getattr(error, "reason", "missing")
        return
    for at in range(0, len(split), _CHUNKS_AT_ONCE):
        for chunk_id, data in session.reader.read_chunks(split[at : at + _CHUNKS_AT_ONCE]):
            if isinstance(data, HoldfastError):
                done.damaged[f"chunk {chunk_id.hex()[:16]}"] = str(data)
            else:
                yield bytes(data)


def _read_back(session: Session, packs: list[bytes], done: Compacted, progress: Progress) -> list[bytes]:
    """Return those of the packs that are whole down to the last chunk, as they lie in the storage now."""
    good = []
    for pack in packs:
        progress.check_stop()
        with suppress(ObjectMissing):
            check = verify_pack(session.storage, session.ring, pack, session.reader.frame)
            if check.whole and check.contents:
                good.append(pack)
            elif not check.whole:
                done.damaged[check.name] = check.problem or next(iter(check.damaged.values()))
    return good


def _write_ledger(session: Session, packs: list[bytes]) -> None:
    if not packs:
        return
    record = LedgerRecord(id=os.urandom(16), time=time.time_ns(), depth=Depth.DATA, packs=tuple(packs))
    name = f"ledger/{record.id.hex()}"
    session.storage.put(name, seal_object(session.ring, Kind.LEDGER, record.to_body(), subject=name))
    session.storage.barrier([name])

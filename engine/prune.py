"""Prune: frees what no manifest needs any more, beside any number of writers, readers and other prunes.

    plan    what is needed, what could go, what is worth moving; reads, decides, writes nothing
    run     repack  →  merge tables  →  mark  →  look  →  sweep  →  delete  →  done

One run is one generation. What it finds unneeded for the first time it only writes down, and the next run may take
it: so a pack that a running snapshot has uploaded and not yet committed is never taken, and a snapshot that begins
after a prune has ended builds on nothing that the next one takes. docs/format.md, section 10, is the authority for the
records; prune_generation.py holds what comes after the mark. Everything up to the mark only adds objects.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from engine.collector import collecting_rarely
from engine.progress import Progress
from engine.prune_compact import Compacted, run_compact
from engine.prune_generation import Removed, finish_generation, open_generation, outdated, unless_overtaken
from engine.prune_needs import Needs
from engine.prune_repack import Repacked, RepackPlan, plan_repack, run_repack
from engine.prune_roots import Roots, look
from engine.prune_survey import Survey, read_verdicts, survey
from engine.prune_tables import TableGroup, merge_group, plan_tables
from engine.session import Session
from engine.wal_retention import wal_to_condemn
from repo_store.config import DEDUP_ALL
from repo_store.errors import Refused
from repo_store.gc_log import GcLog, read_log
from repo_store.generation import Mark
from repo_store.sealed import Kind

REPACK_BYTES_MAX = 64 * 1024**3
"""Bytes that one run carries, unless told otherwise."""
SPARSE_MAX = 1_000_000
"""Sparse frames that one mark names: 20 MB."""
_SIGNED = (Kind.MARK, Kind.SWEEP, Kind.DONE, Kind.TOMBSTONE, Kind.TABLE, Kind.DATA_DIRECTORY)


@dataclass(frozen=True, kw_only=True)
class PrunePlan:
    """What a run would do. Sizes in bytes; packs, tables and manifests by hash or id."""

    generation: int
    adopts: bool
    """Another run left this generation open: the run only finishes it, and then it is time for a new plan."""
    idle: bool = False
    """There is nothing to do: a run writes nothing."""
    condemned: Mapping[bytes, int] = field(default_factory=dict)
    """Packs that go, with their sizes: unneeded now, and when the generation before ended."""
    unneeded: Mapping[bytes, int] = field(default_factory=dict)
    """Packs that the next run may take, with their sizes."""
    repack: RepackPlan = field(default_factory=RepackPlan)
    sparse: tuple[bytes, ...] = ()
    """Frames of which less than half is needed, or that are to be compacted, by name: writers store anew what they want
    of them."""
    compact: bool = False
    move_bytes_max: int = REPACK_BYTES_MAX
    merges: tuple[TableGroup, ...] = ()
    manifests: tuple[bytes, ...] = ()
    """Forgotten manifests that are removed."""
    pendings: tuple[bytes, ...] = ()
    """Pendings that are given up or were left behind."""
    wal: tuple[str, ...] = ()
    wal_window_start: int | None = None
    pack_bytes: int = 0
    """All packs, as stored."""
    live_bytes: int = 0
    """The sealed bytes of all frames that are needed, of each once."""
    needs: Needs | None = field(default=None, repr=False, compare=False)
    survey: Survey | None = field(default=None, repr=False, compare=False)

    @property
    def condemned_bytes(self) -> int:
        """The size of the packs that go."""
        return sum(self.condemned.values())


@dataclass
class PruneResult:
    """What a run did."""

    generation: int
    adopted: bool = False
    packs_deleted: int = 0
    packs_repacked: int = 0
    packs_stored: int = 0
    bytes_freed: int = 0
    bytes_left: int = 0
    """All packs, as stored when the run ended."""
    bytes_next: int = 0
    """Packs that the next run may take."""
    tables_merged: int = 0
    manifests_removed: int = 0
    pendings_removed: int = 0
    wal_removed: int = 0
    sparse_frames: int = 0
    frames_compacted: int = 0
    packs_spared: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    """Packs that could not be read whole when they were to be repacked: object name → reason."""


def require_prune_key(session: Session) -> None:
    """Raise Refused if this key may not prune."""
    ring = session.ring
    if not all(map(ring.may_sign, _SIGNED)):
        raise Refused(f"slot {ring.slot} has the role {ring.role}, which may not prune")


@collecting_rarely()
def plan_prune(
    session: Session,
    *,
    compact: bool = False,
    repack_bytes_max: int = REPACK_BYTES_MAX,
    wal_window_start: int | None = None,
    progress: Progress | None = None,
) -> PrunePlan:
    """Return what a run would do now. Writes nothing to the repository.

    `compact`: sparse frames are to be rewritten at once, which takes a key that reads contents. Raises ObjectDamaged
    if anything that a live manifest needs cannot be read: then nothing may be freed.
    """
    progress = progress or Progress()
    if compact:
        session.ring.data_private(session.ring.epoch)
    log = read_log(session.storage, session.ring)
    if log.is_open:
        return PrunePlan(generation=log.highest, adopts=True, wal_window_start=wal_window_start)
    needs = Needs(session.reader.get_node, session.cache_dir)
    stale = log.before.pendings if log.before is not None else ()
    progress.phase = "tracing"
    with unless_overtaken(session, log.names):
        roots = look(session, needs, stale=stale, give_up=False)
    progress.check_stop()
    progress.phase = "index"
    before = frozenset(log.before.unreferenced if log.before is not None else ())
    known = log.mark.frames if log.mark is not None else ()
    verdicts = read_verdicts(session, known)
    with unless_overtaken(session, log.names):
        found = survey(session, needs, verdicts, before, hopes=roots.hopes)
        found.require_whole()
    sizes = dict(zip(found.hashes, found.sizes, strict=True))
    condemned = {pack: sizes[pack] for pack in found.unneeded() if pack in before}
    sparse = tuple((found.wasteful(known) if compact else found.sparse(known))[:SPARSE_MAX])
    repack = plan_repack(
        found, avoid=condemned, without=sparse if compact else (), bytes_max=repack_bytes_max
    )
    waiting = {pack: sizes[pack] for pack in {*found.unneeded(), *repack.packs} if pack not in condemned}
    gone = {*condemned, *found.missing}
    plan = PrunePlan(
        generation=log.highest + 1,
        adopts=False,
        condemned=condemned,
        unneeded=waiting,
        repack=repack,
        sparse=sparse,
        compact=compact,
        move_bytes_max=repack_bytes_max,
        merges=plan_tables(session.index.tables(), gone, own=_own_signer(session)),
        manifests=tuple(roots.forgotten),
        pendings=tuple(each for each in roots.waiting if each in stale),
        wal=_wal(session, roots, wal_window_start),
        wal_window_start=wal_window_start,
        pack_bytes=sum(found.sizes),
        live_bytes=sum(found.frames.sealed[frame] for frame in found.frames.needed()),
        needs=needs,
        survey=found,
    )
    return replace(plan, idle=_is_idle(log, roots, plan))


def _own_signer(session: Session) -> bytes | None:
    return None if session.repository.config.dedup == DEDUP_ALL else session.ring.signer


def _is_idle(log: GcLog, roots: Roots, plan: PrunePlan) -> bool:
    """Return whether a run would change nothing but the number of the generation."""
    known = frozenset(log.before.unreferenced if log.before is not None else ())
    return not (
        plan.condemned
        or plan.unneeded.keys() - known
        or plan.repack.packs
        or plan.merges
        or plan.manifests
        or roots.waiting
        or plan.wal
        or any(number < log.highest for number, _ in log.names)
        or (plan.compact and plan.sparse)
        or plan.sparse != (log.mark.frames if log.mark is not None else ())
    )


def _wal(session: Session, roots: Roots, window_start: int | None) -> tuple[str, ...]:
    names = [info.name for info in session.storage.list("wal/")]
    return wal_to_condemn(names, [*roots.live, *roots.pending], window_start)


@collecting_rarely()
def run_prune(session: Session, plan: PrunePlan, *, progress: Progress | None = None) -> PruneResult:
    """Carry out a plan: one generation. On return what was removed is gone, durably, and everything else is whole.

    Raises ObjectDamaged if something needed is missing, Refused if the plan is out of date or this key may not prune,
    StorageError. After an error or a kill at any point any later run goes on from there.
    """
    progress = progress or Progress()
    require_prune_key(session)
    if plan.adopts or plan.needs is None or plan.survey is None:
        needs = Needs(session.reader.get_node, session.cache_dir)
        removed = finish_generation(session, needs, wal_window_start=plan.wal_window_start, progress=progress)
        return _result(session, PruneResult(removed.generation, adopted=True), removed)
    if plan.idle:
        return _result(session, PruneResult(plan.generation - 1), Removed(plan.generation - 1))
    if read_log(session.storage, session.ring).highest != plan.generation - 1:
        raise outdated()
    result = PruneResult(plan.generation, sparse_frames=len(plan.sparse))
    compacted = _compact(session, plan, progress)
    repacked = run_repack(
        session, plan.repack, plan.survey, progress, without=compacted.frames, gone=plan.condemned
    )
    progress.check_stop()
    tables = _merge(session, plan, progress)
    progress.check_stop()
    mark = Mark(
        generation=plan.generation,
        time=time.time_ns(),
        packs=tuple(sorted(plan.condemned)),
        tables=tuple(sorted(tables)),
        frames=plan.sparse,
        wal=plan.wal,
    )
    session.storage.barrier()
    open_generation(session, mark)
    removed = finish_generation(
        session,
        plan.needs,
        avoid=repacked.packs,
        sparse=plan.sparse,
        wal_window_start=plan.wal_window_start,
        progress=progress,
    )
    return _with_moves(_result(session, result, removed), repacked, compacted)


def _compact(session: Session, plan: PrunePlan, progress: Progress) -> Compacted:
    if not plan.compact:
        return Compacted()
    assert plan.needs is not None and plan.survey is not None
    return run_compact(
        session,
        plan.needs,
        plan.survey,
        plan.sparse,
        verdicts=read_verdicts(session, ()),
        bytes_max=plan.move_bytes_max,
        progress=progress,
    )


def _merge(session: Session, plan: PrunePlan, progress: Progress) -> list[bytes]:
    """Put the merged tables; return the tables that they replace."""
    progress.phase = "tables"
    assert plan.survey is not None
    replaced: list[bytes] = []
    for group in plan.merges:
        progress.check_stop()
        merged = merge_group(session, group, plan.survey, plan.condemned, plan.generation)
        replaced += merged.sources if merged is not None else ()
    return replaced


def _result(session: Session, result: PruneResult, removed: Removed) -> PruneResult:
    sizes = {bytes.fromhex(info.name[-64:]): info.size for info in session.storage.list("packs/")}
    result.packs_deleted, result.packs_spared = removed.packs, removed.spared
    result.bytes_freed, result.bytes_left = removed.freed_bytes, sum(sizes.values())
    result.bytes_next = sum(sizes.get(pack, 0) for pack in removed.unreferenced)
    result.tables_merged, result.manifests_removed = removed.tables, removed.manifests
    result.pendings_removed, result.wal_removed = removed.pendings, removed.wal
    return result


def _with_moves(result: PruneResult, repacked: Repacked, compacted: Compacted) -> PruneResult:
    result.packs_repacked = len(repacked.packs)
    result.packs_stored = len(repacked.stored) + len(compacted.stored)
    result.frames_compacted = len(compacted.frames)
    result.damaged = {**repacked.damaged, **compacted.damaged}
    return result

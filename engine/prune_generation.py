"""One generation, from its mark to its end: the half of the protocol that deletes.

    mark  →  look: pendings, manifests, trace  →  rescue  →  sweep  →  delete  →  done

The mark is public before anybody is looked for, and a writer publishes its pending before it looks for marks; so one of
the two sees the other. The sweep is the point of no return. Whoever finds a generation open goes on with it, on any
host: without a sweep from the look, with one from a second trace, which refuses a sweep that names what a committed
manifest needs. Only packs that the generation before had found unreferenced are ever swept. No clock takes part.
"""

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from engine.progress import Progress
from engine.prune_needs import Needs
from engine.prune_roots import Roots, look
from engine.prune_survey import Survey, Verdicts, read_verdicts, survey
from engine.prune_tables import index_again, proved_tables
from engine.session import Session
from engine.wal_retention import wal_to_condemn
from repo_store.errors import ObjectDamaged, ObjectMissing, Refused
from repo_store.forget_marker import forget_marker_name
from repo_store.gc_log import (
    GcLog,
    is_current,
    list_records,
    put_record,
    read_log,
    record_name,
    remove_old_records,
)
from repo_store.generation import Done, Mark, Sweep
from repo_store.pack import pack_name


@dataclass
class Removed:
    """What a generation removed. Sizes in bytes."""

    generation: int
    packs: int = 0
    tables: int = 0
    manifests: int = 0
    pendings: int = 0
    wal: int = 0
    freed_bytes: int = 0
    spared: int = 0
    """Packs that were condemned and turned out to be needed."""
    unreferenced: tuple[bytes, ...] = ()
    """Packs that the next generation may take."""
    superseded: bool = field(default=False)
    """Another prune finished the generation first."""


def open_generation(session: Session, mark: Mark) -> Mark:
    """Put a mark, unless another prune opened this generation first; return the mark that counts. Durable.

    Raises Refused if that one is finished already: what `mark` was made from is out of date.
    """
    counts = put_record(session.storage, session.ring, mark)
    if not is_current(session.storage, mark.generation):
        raise outdated()
    return counts


def outdated() -> Refused:
    """Return the error for a plan that another prune has made out of date."""
    return Refused("another prune finished meanwhile", hint="run it again")


@contextmanager
def unless_overtaken(session: Session, names: Collection[tuple[int, str]]) -> Iterator[None]:
    """Say that the plan is out of date where something seems lost and `names`, of the records, are no longer all there
    is: another prune may rightly have removed what was forgotten since this one looked. Raises Refused."""
    try:
        yield
    except (ObjectDamaged, ObjectMissing):
        if list_records(session.storage) == names:
            raise
        raise outdated() from None


def finish_generation(
    session: Session,
    needs: Needs,
    *,
    avoid: Collection[bytes] = (),
    sparse: Collection[bytes] = (),
    wal_window_start: int | None = None,
    progress: Progress | None = None,
) -> Removed:
    """Carry the open generation to its end; `needs` is what was traced so far, `avoid` packs not to be relied on.

    Raises ObjectDamaged if anything needed is missing or a sweep names it; then nothing was removed. StorageError,
    Refused or an interruption leave the generation open, for any later run to go on with.
    """
    work = _Generation(session, needs, avoid, sparse, wal_window_start, progress or Progress())
    return work.run()


class _Generation:
    def __init__(
        self,
        session: Session,
        needs: Needs,
        avoid: Collection[bytes],
        sparse: Collection[bytes],
        wal_window_start: int | None,
        progress: Progress,
    ) -> None:
        self._session, self._storage = session, session.storage
        self._needs, self._avoid, self._sparse = needs, frozenset(avoid), frozenset(sparse)
        self._window, self._progress = wal_window_start, progress
        self._log: GcLog = read_log(session.storage, session.ring)
        self._found: Survey | None = None
        self._roots = Roots()

    def run(self) -> Removed:
        log = self._log
        if not log.is_open:
            raise outdated()
        # A later version may have come to need what this one does not know of.
        self._session.repository.refresh("prune")
        sweep = log.sweep
        if sweep is None:
            assert log.mark is not None, "an open generation has a mark or a sweep"
            with unless_overtaken(self._session, log.names):
                own = self._decide(log.mark)
            self._progress.check_stop()
            sweep = put_record(self._storage, self._session.ring, own)
            if sweep != own:
                self._found = None
        if not is_current(self._storage, sweep.generation):
            return Removed(sweep.generation, superseded=True)
        if self._found is None:
            with unless_overtaken(self._session, list_records(self._storage)):
                self._trace_again(sweep)
        return self._carry_out(sweep)

    def _decide(self, mark: Mark) -> Sweep:
        """Look for all who may need what is marked; keep what they need, and return what goes."""
        session, before = self._session, self._log.before
        stale = before.pendings if before is not None else ()
        self._progress.phase = "tracing"
        roots = self._roots = look(session, self._needs, stale=stale, give_up=True)
        self._progress.check_stop()
        found = self._found = self._survey({*mark.packs, *self._avoid})
        allowed = set(mark.packs) & set(before.unreferenced if before is not None else ())
        kept = found.kept()
        packs = sorted(allowed & set(found.hashes) - kept)
        tables = proved_tables(session, mark.tables)
        index_again(session, tables, gone=packs)
        self._require_durable(found)
        return Sweep(
            generation=mark.generation,
            time=time.time_ns(),
            packs=tuple(packs),
            tables=tuple(tables),
            wal=wal_to_condemn(mark.wal, [*roots.live, *roots.pending], self._window),
            manifests=tuple(roots.forgotten),
            pendings=tuple(sorted(set(roots.settled))),
        )

    def _survey(self, avoid: Collection[bytes]) -> Survey:
        self._progress.phase = "index"
        found = survey(self._session, self._needs, self._verdicts(), avoid, hopes=self._roots.hopes)
        found.require_whole()
        return found

    def _verdicts(self) -> Verdicts:
        mark = self._log.mark
        return read_verdicts(self._session, {*self._sparse, *(mark.frames if mark is not None else ())})

    def _require_durable(self, found: Survey) -> None:
        """Sync what stays in place of what goes, and the markers that shadow what goes: others may have put them."""
        names = [pack_name(found.hashes[pack]) for pack in sorted(found.relied)]
        names += [forget_marker_name(each) for each in self._roots.forgotten]
        self._storage.barrier(names)

    def _trace_again(self, sweep: Sweep) -> None:
        """Refuse an adopted sweep that names what a committed manifest needs. Pendings do not count: their writers
        see the sweep, and carry what it names or fail."""
        session = self._session
        needs = Needs(session.reader.get_node, session.cache_dir)
        self._needs = needs
        self._roots = look(session, needs, stale=(), give_up=False, pendings=False)
        # As if the sweep were over: what writers have stored anew since, because of it, does not count against it.
        self._found = survey(session, needs, self._verdicts(), (), without=sweep.packs)
        if self._found.lost:
            named = sorted(self._survey(sweep.packs).kept() & set(sweep.packs))
            raise ObjectDamaged(
                record_name(sweep.generation, "sweep"),
                f"names {pack_name(named[0])}, which a manifest needs: nothing more was removed",
            )

    def _carry_out(self, sweep: Sweep) -> Removed:
        """Delete what the sweep names, in an order in which each state is a valid repository."""
        assert self._found is not None
        sizes = dict(zip(self._found.hashes, self._found.sizes, strict=True)) | self._found.leaving
        tables = {info.name: info.size for info in self._storage.list("tables/")}
        names = [f"tables/{table.hex()}" for table in sweep.tables]
        removed = Removed(
            sweep.generation,
            packs=sum(pack in sizes for pack in sweep.packs),
            tables=sum(name in tables for name in names),
            manifests=len(sweep.manifests),
            pendings=len(sweep.pendings),
            wal=len(sweep.wal),
            freed_bytes=sum(sizes.get(pack, 0) for pack in sweep.packs)
            + sum(tables.get(name, 0) for name in names),
            spared=len(set(self._log.mark.packs if self._log.mark else ()) - set(sweep.packs)),
        )
        self._progress.phase = "deleting"
        self._delete(f"manifests/{each.hex()}" for each in sweep.manifests)
        self._delete(f"pending/{each.hex()}" for each in sweep.pendings)
        self._storage.barrier()  # a manifest that came back after a power cut would lack its packs
        self._delete(names)
        self._delete(pack_name(pack) for pack in sweep.packs)
        # Names of WAL can come again; all others cannot, so deleting those late harms nobody.
        if sweep.wal and is_current(self._storage, sweep.generation):
            self._delete(sweep.wal)
        self._delete_notes()
        self._storage.barrier()
        done = self._done(sweep)
        removed.unreferenced = done.unreferenced
        put_record(self._storage, self._session.ring, done)
        remove_old_records(self._storage)
        self._session.index.refresh()
        return removed

    def _done(self, sweep: Sweep) -> Done:
        found = self._found
        assert found is not None
        gone = set(sweep.packs)
        unreferenced = [pack for pack in found.unneeded() if pack not in gone]
        unindexed = set(self._session.index.unindexed(unreferenced))
        return Done(
            generation=sweep.generation,
            time=time.time_ns(),
            unreferenced=tuple(unreferenced),
            unindexed=tuple(pack for pack in unreferenced if pack in unindexed),
            pendings=tuple(each for each in self._roots.waiting if each not in set(sweep.pendings)),
        )

    def _delete_notes(self) -> None:
        """Remove the notes of manifests that were forgotten and are gone."""
        storage = self._storage
        notes = [info.name for info in storage.list("notes/")]
        if not notes:
            return
        present = {info.name.partition("/")[2] for info in storage.list("manifests/")}
        forgotten = {info.name.partition("/")[2] for info in storage.list("forgotten/")}
        gone = forgotten - present
        self._delete(name for name in notes if name.partition("/")[2].partition(".")[0] in gone)

    def _delete(self, names: Iterable[str]) -> None:
        for name in names:
            self._storage.delete(name)

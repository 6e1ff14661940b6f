"""Generations: what garbage collection has announced, as a writer must see it.

A generation opens with a mark (packs condemned if nobody needs them), decides with a sweep (packs that
go), and closes with a done (docs/format.md, section 10). A writer only reads them: what is condemned counts
as absent for it, so that it never builds on something that is about to go. The prune's half of the
protocol stands elsewhere. Nothing here looks at a clock.
"""

from dataclasses import dataclass

from repo_store.gc_log import parse_record_name, read_again, read_body
from repo_store.generation import Done, Mark, Sweep
from repo_store.key_ring import KeyRing
from repo_store.storage import Storage


@dataclass(frozen=True)
class Generations:
    """What `gc/` says now: the highest generation, and what it makes absent for a writer."""

    highest: int
    open: bool
    """Whether a generation has a mark and no done yet."""
    packs: frozenset[bytes]
    tables: frozenset[bytes]
    frames: frozenset[bytes]
    wal: frozenset[str]
    unreferenced: frozenset[bytes] = frozenset()
    """Packs that the last finished generation found without reference. Not condemned: a run that stored one itself
    keeps it by its commit. A run that begins now takes over none that a dead run may have left."""
    garbage: frozenset[bytes] = frozenset()
    """Those of them that were in a table, so nobody was about to commit them: the next generation takes them, and a run
    that begins now builds on none of them. So no run fails for a generation that began after it."""


def read_generations(storage: Storage, ring: KeyRing) -> Generations:
    """Return what `gc/` says. Raises ObjectDamaged if a record cannot be read: guessing could lose data."""
    return read_again(lambda: _read(storage, ring))


def _read(storage: Storage, ring: KeyRing) -> Generations:
    names = sorted(info.name for info in storage.list("gc/"))
    found = {parse_record_name(name): name for name in names}
    newest_mark = max((number for number, stage in found if stage == "mark"), default=0)
    last = Done(generation=1, time=0)
    packs: set[bytes] = set()
    tables: set[bytes] = set()
    frames: set[bytes] = set()
    wal: set[str] = set()
    for (number, stage), name in found.items():
        if stage == "mark":
            condemns = not {(number, "sweep"), (number, "done")} & found.keys()
            if not condemns and number != newest_mark:
                continue
            mark = Mark.from_body(name, read_body(storage, ring, number, stage))
            # What the newest mark named sparse stays absent for writers after its sweep too.
            frames.update(mark.frames)
            if condemns:
                packs.update(mark.packs)
                tables.update(mark.tables)
                wal.update(mark.wal)
        elif stage == "sweep":
            # Even a finished sweep condemns: a reader's old table may still name what it took.
            sweep = Sweep.from_body(name, read_body(storage, ring, number, stage))
            packs.update(sweep.packs)
            tables.update(sweep.tables)
            wal.update(sweep.wal)
        elif stage == "done":
            # In the order of their numbers: the last one counts.
            last = Done.from_body(name, read_body(storage, ring, number, stage))
    begun = {number for number, stage in found if stage != "done"}
    return Generations(
        highest=max((number for number, _ in found), default=0),
        open=any((number, "done") not in found for number in begun),
        packs=frozenset(packs),
        tables=frozenset(tables),
        frames=frozenset(frames),
        wal=frozenset(wal),
        unreferenced=frozenset(last.unreferenced),
        garbage=frozenset(last.unreferenced) - frozenset(last.unindexed),
    )

"""Generations: what garbage collection has announced, as a writer must see it.

A generation opens with a mark (packs condemned if nobody needs them), decides with a sweep (packs that
go), and closes with a done (docs/format.md, section 10). A writer only reads them: what is condemned counts
as absent for it, so that it never builds on something that is about to go. The prune's half of the
protocol stands elsewhere. Nothing here looks at a clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from repo_store.bounded import get_sealed
from repo_store.errors import ObjectDamaged
from repo_store.generation import Done, Mark, Sweep
from repo_store.key_ring import KeyRing
from repo_store.sealed import Kind, open_object
from repo_store.storage import Storage

_KINDS = {"mark": Kind.MARK, "sweep": Kind.SWEEP, "done": Kind.DONE}


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


def read_generations(storage: Storage, ring: KeyRing) -> Generations:
    """Return what `gc/` says. Raises ObjectDamaged if a record cannot be read: guessing could lose data."""
    names = sorted(info.name for info in storage.list("gc/"))
    found = {_parse(name): name for name in names}
    packs: set[bytes] = set()
    tables: set[bytes] = set()
    frames: set[bytes] = set()
    wal: set[str] = set()
    for (number, stage), name in found.items():
        if stage == "mark" and not {(number, "sweep"), (number, "done")} & found.keys():
            mark = Mark.from_body(name, _body(storage, ring, stage, name))
            packs.update(mark.packs)
            tables.update(mark.tables)
            frames.update(mark.frames)
            wal.update(mark.wal)
        elif stage == "sweep":
            # Even a finished sweep condemns: a reader's old table may still name what it took.
            sweep = Sweep.from_body(name, _body(storage, ring, stage, name))
            packs.update(sweep.packs)
            tables.update(sweep.tables)
            wal.update(sweep.wal)
        elif stage == "done":
            Done.from_body(name, _body(storage, ring, stage, name))
    marked = {number for number, stage in found if stage == "mark"}
    return Generations(
        highest=max((number for number, _ in found), default=0),
        open=any((number, "done") not in found for number in marked),
        packs=frozenset(packs),
        tables=frozenset(tables),
        frames=frozenset(frames | _sparse(storage, ring, found)),
        wal=frozenset(wal),
    )


def _sparse(storage: Storage, ring: KeyRing, found: Iterable[tuple[int, str]]) -> set[bytes]:
    """Return the frames that the newest mark named sparse: they stay absent for writers after its sweep too."""
    marks = [number for number, stage in found if stage == "mark"]
    if not marks:
        return set()
    name = f"gc/{max(marks):010d}.mark"
    return set(Mark.from_body(name, _body(storage, ring, "mark", name)).frames)


def _parse(name: str) -> tuple[int, str]:
    number, _, stage = name.removeprefix("gc/").partition(".")
    if stage not in _KINDS or len(number) != 10 or not number.isdecimal():
        raise ObjectDamaged(name, "is no record of garbage collection that this version knows")
    return int(number), stage


def _body(storage: Storage, ring: KeyRing, stage: str, name: str) -> dict[str, object]:
    return open_object(ring, _KINDS[stage], name, get_sealed(storage, name)).body

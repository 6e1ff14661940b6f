"""The log of garbage collection as a prune reads and writes it; a writer's view is in generations.py.

    mark  →  sweep  →  done

Each record is created once, by whoever comes first; who comes second reads the winner's. Only the highest generation
is ever at work. A prune that was held up for long may put a record of an earlier one: it is void, and `is_current`
tells its maker. For that the highest generation is never removed. Old records go in an order in which no part of
them looks like a generation that is at work: marks, sweeps, dones, with a barrier after each.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from repo_store.bounded import get_sealed
from repo_store.errors import ObjectConflict, ObjectDamaged, ObjectMissing
from repo_store.generation import Done, Mark, Sweep
from repo_store.key_ring import KeyRing
from repo_store.sealed import Kind, open_object, seal_object
from repo_store.storage import Storage

STAGES = ("mark", "sweep", "done")
KINDS = {"mark": Kind.MARK, "sweep": Kind.SWEEP, "done": Kind.DONE}
_NAME = re.compile(r"gc/([0-9]{10})\.(mark|sweep|done)")


_LOOKS_MAX = 10

Record = TypeVar("Record", Mark, Sweep, Done)
Found = TypeVar("Found")


@dataclass(frozen=True)
class GcLog:
    """What `gc/` holds: names, and the records that a prune must know."""

    names: frozenset[tuple[int, str]]
    mark: Mark | None
    """Of the highest generation, like the two that follow."""
    sweep: Sweep | None
    done: Done | None
    before: Done | None
    """The end of the newest generation that is finished: what it found unreferenced may be condemned."""

    @property
    def highest(self) -> int:
        """The highest generation, 0 if there was none."""
        return max((number for number, _ in self.names), default=0)

    @property
    def is_open(self) -> bool:
        """Whether the highest generation is not finished."""
        return self.highest > 0 and self.done is None


def record_name(generation: int, stage: str) -> str:
    """Return the name of a record."""
    return f"gc/{generation:010d}.{stage}"


def parse_record_name(name: str) -> tuple[int, str]:
    """Return generation and stage. Raises ObjectDamaged for a name under `gc/` that this version does not know."""
    match = _NAME.fullmatch(name)
    if match is None or not int(match[1]):
        raise ObjectDamaged(name, "is no record of garbage collection that this version knows")
    return int(match[1]), match[2]


def list_records(storage: Storage) -> frozenset[tuple[int, str]]:
    """Return generation and stage of every record. Raises ObjectDamaged for an unknown name."""
    return frozenset(parse_record_name(info.name) for info in storage.list("gc/"))


def read_again(read: Callable[[], Found]) -> Found:
    """Return what `read` gives; a record that a prune removed under its hands makes it look again."""
    for _ in range(_LOOKS_MAX - 1):
        with suppress(ObjectMissing):
            return read()
    return read()


def read_log(storage: Storage, ring: KeyRing) -> GcLog:
    """Return the log. Raises ObjectDamaged for a record that cannot be read: nothing may be guessed here."""
    return read_again(lambda: _read(storage, ring))


def _read(storage: Storage, ring: KeyRing) -> GcLog:
    names = list_records(storage)
    highest = max((number for number, _ in names), default=0)
    finished = max((number for number, stage in names if stage == "done"), default=0)

    def read(number: int, stage: str, record: type[Record]) -> Record | None:
        if (number, stage) not in names:
            return None
        return record.from_body(record_name(number, stage), read_body(storage, ring, number, stage))

    return GcLog(
        names,
        read(highest, "mark", Mark),
        read(highest, "sweep", Sweep),
        read(highest, "done", Done),
        read(finished, "done", Done),
    )


def put_record(storage: Storage, ring: KeyRing, record: Record) -> Record:
    """Put a record durably, unless another prune was first; return the one that counts. Raises StorageError."""
    stage = type(record).__name__.lower()
    name = record_name(record.generation, stage)
    try:
        storage.put(name, seal_object(ring, KINDS[stage], record.to_body(), subject=name))
        counts = record
    except ObjectConflict:
        try:
            counts = type(record).from_body(name, read_body(storage, ring, record.generation, stage))
        except ObjectMissing:
            return record  # removed as old meanwhile: this generation is over, as `is_current` will say
    with suppress(ObjectMissing):
        storage.barrier([name])
    return counts


def is_current(storage: Storage, generation: int) -> bool:
    """Return whether a generation is still at work: not finished, and none after it has begun."""
    names = list_records(storage)
    return (generation, "done") not in names and max(number for number, _ in names) == generation


def remove_old_records(storage: Storage) -> None:
    """Remove the records of all generations below the highest, if that is finished."""
    names = list_records(storage)
    highest = max((number for number, _ in names), default=0)
    if (highest, "done") not in names:
        return
    for stage in STAGES:
        old = sorted(number for number, found in names if found == stage and number < highest)
        for number in old:
            storage.delete(record_name(number, stage))
        if old:
            storage.barrier()


def read_body(storage: Storage, ring: KeyRing, number: int, stage: str) -> dict[str, Any]:
    """Return the body of a record. Raises ObjectMissing or ObjectDamaged."""
    name = record_name(number, stage)
    return open_object(ring, KINDS[stage], name, get_sealed(storage, name)).body

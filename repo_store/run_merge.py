"""Run merge: several runs become one, without the rows of tables that are gone.

Keys are spread evenly, being hashes, so the key space is cut into equal ranges of about 64k rows; the rows of a range
are collected from all sources, sorted and written. Memory is one range and a read buffer for each source, whatever
the size of the runs. `plan_merge` decides which runs; the decision needs nothing but their sizes.
"""

from array import array
from collections.abc import Collection, Iterator, Sequence

from repo_store._rows import lower_bound, remap_rows, sort_rows
from repo_store.row_batch import KEY_BYTES, ROW_BYTES
from repo_store.rows import Section
from repo_store.run import ORIGIN_ENTRY, PACK_ENTRY, Run
from repo_store.run_writer import Dictionary, RunWriter

RANGE_ROWS = 65_536
GROWTH = 3
"""A run is rewritten once the smaller ones together hold a third of its rows: few runs, and each row is rewritten
only log3 of (all rows / rows of a snapshot) times in its life."""
DEAD_SHARE = 4
"""A run is rewritten once one row in so many belongs to a table that is gone."""


def plan_merge(runs: Sequence[Run], listed: Collection[bytes]) -> list[Run]:
    """Return the runs to merge into one: none if they are few and clean enough as they are."""
    live = {run: sum(entry.rows for entry in run.tables if entry.name in listed) for run in runs}
    ordered = sorted(runs, key=live.__getitem__)
    end = smaller = 0
    for number, run in enumerate(ordered):
        if number and live[run] < GROWTH * smaller:
            end = number + 1
        smaller += live[run]
    dirty = [run for run in ordered[end:] if (sum(run.counts) - live[run]) * DEAD_SHARE > sum(run.counts)]
    return ordered[:end] + dirty


def merge_runs(
    folder: str, lineage: bytes, runs: Sequence[Run], listed: Collection[bytes], *, private: bool
) -> Run:
    """Write one run of the rows in `runs` that belong to `listed` tables. Raises RunDamaged, StorageError."""
    counts = [sum(run.counts[section] for run in runs) for section in Section]
    writer = RunWriter(folder, lineage, counts)
    try:
        dictionary = Dictionary()
        maps = [_map(run, listed, dictionary) for run in runs]
        for section in Section:
            cursors = [
                _Cursor(run, section, numbers[section]) for run, numbers in zip(runs, maps, strict=True)
            ]
            for rows in _merged(section, cursors, counts[section]):
                writer.add(section, rows)
        return writer.finish(dictionary, private=private)
    except BaseException:
        writer.abandon()
        raise


def _map(run: Run, listed: Collection[bytes], dictionary: Dictionary) -> "list[array[int]]":
    """Add what `run` knows of listed tables to `dictionary`; return, by section, the new numbers."""
    tables = [dictionary.add_table(entry) if entry.name in listed else None for entry in run.tables]
    packs = dictionary.add_packs(
        [(pack, size, tables[table]) for pack, size, table in PACK_ENTRY.iter_unpack(run.packs)]
    )
    origins = dictionary.add_origins(
        [(origin, tables[table]) for origin, table in ORIGIN_ENTRY.iter_unpack(run.origins)]
    )
    return [packs, origins, origins]


class _Cursor:
    """Walks through one section of one run, giving out rows below rising bounds."""

    def __init__(self, run: Run, section: int, numbers: "array[int]") -> None:
        self._stream = run.stream(section)
        self._row_bytes, self._key_bytes = ROW_BYTES[section], KEY_BYTES[section]
        self._numbers = numbers
        self._rows = b""

    def take(self, bound: bytes | None) -> Iterator[bytearray]:
        """Yield the rows that come before `bound` (all that are left if None), numbered anew, the dropped left out."""
        while True:
            if not self._rows:
                self._rows = next(self._stream, b"")
                if not self._rows:
                    return
            count = len(self._rows) if bound is None else self._below(bound)
            taken = bytearray(self._rows[:count])
            self._rows = self._rows[count:]
            if taken:
                kept = remap_rows(taken, self._row_bytes, self._key_bytes, self._numbers)
                del taken[kept * self._row_bytes :]
                yield taken
            if self._rows:
                return

    def _below(self, bound: bytes) -> int:
        return lower_bound(self._rows, self._row_bytes, bound) * self._row_bytes


def _merged(section: int, cursors: Sequence[_Cursor], count: int) -> Iterator[bytearray]:
    ranges = max(1, count // RANGE_ROWS)
    for number in range(1, ranges + 1):
        bound = None if number == ranges else ((number << 64) // ranges).to_bytes(8, "big")
        rows = bytearray().join(piece for cursor in cursors for piece in cursor.take(bound))
        sort_rows(rows, ROW_BYTES[section])
        yield rows

"""Own runs: rows that this run of the program has stored, frozen into private files until the storage has them.

A frozen run waits to become a table; once it is taken, it answers until the next refresh finds that table listed. The
files have no name, so nothing is left of them when the process ends, however it ends: what was stored and is in no
table is found again by listing the packs (`Index.unindexed`).
"""

import os
from array import array
from collections.abc import Collection, Sequence
from typing import NamedTuple

from blake3 import blake3

from repo_store._rows import remap_rows
from repo_store.key_ring import KeyRing
from repo_store.row_batch import KEY_BYTES, ROW_BYTES, RowBatch
from repo_store.rows import Section
from repo_store.run import ORIGIN_ENTRY, PACK_ENTRY, Run, TableEntry
from repo_store.run_merge import merge_runs
from repo_store.run_writer import Dictionary, write_sorted
from repo_store.table import build_table

RUNS_MAX = 16
"""Runs waiting, and runs taken, before as many are merged into one: lookups ask the filter of every run."""


class _Waiting(NamedTuple):
    """A run that is in no table yet. `mark` is the number of the last freeze in it."""

    mark: int
    run: Run


class OwnRuns:
    """The runs of this process. For one thread at a time; `runs` may be read by any."""

    def __init__(self, ring: KeyRing, folder: str) -> None:
        self._ring, self._folder = ring, folder
        self._waiting: list[_Waiting] = []
        self._taken: list[Run] = []
        self.mark = 0
        """How often rows were frozen."""

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, waiting or taken."""
        return (*(waiting.run for waiting in self._waiting), *self._taken)

    def add(self, batch: RowBatch) -> None:
        """Freeze the rows of a sorted batch. Raises StorageError."""
        dictionary = Dictionary()
        table = dictionary.add_table(TableEntry(os.urandom(16), self._ring.signer, batch.count))
        dictionary.add_packs([(pack, size, table) for pack, size in batch.packs])
        dictionary.add_origins([(origin, table) for origin in batch.origins])
        run = write_sorted(self._folder, self._ring.repository, batch.sections, dictionary, private=True)
        run.load_filters()
        self.mark += 1
        self._waiting.append(_Waiting(self.mark, run))
        if len(self._waiting) >= RUNS_MAX:
            mark = self._waiting[-1].mark
            self._waiting = [_Waiting(mark, self._merge([waiting.run for waiting in self._waiting]))]

    def take(self, mark: int) -> bytes | None:
        """Return a table of the oldest waiting run, unless it was frozen after `mark`; None if there is none."""
        if not self._waiting or self._waiting[0].mark > mark:
            return None
        run = self._waiting[0].run
        data = build_table(self._ring, _batch(run))
        name = blake3(data).digest()
        run.tables = tuple(entry._replace(name=name) for entry in run.tables)
        self._taken.append(run)
        del self._waiting[0]
        if len(self._taken) >= RUNS_MAX:
            self._taken = [self._merge(self._taken)]
        return data

    def _merge(self, runs: Sequence[Run]) -> Run:
        names = {entry.name for run in runs for entry in run.tables}
        merged = merge_runs(self._folder, self._ring.repository, runs, names, private=True)
        merged.load_filters()
        return merged

    def is_taken(self, run: Run) -> bool:
        """Return whether every row of `run` is in a table that was taken."""
        return run in self._taken

    def drop(self, run: Run) -> None:
        """Forget a taken run: the storage has its rows."""
        self._taken = [taken for taken in self._taken if taken is not run]

    def drop_listed(self, listed: Collection[bytes]) -> None:
        """Forget the taken runs whose tables are all `listed`: they were loaded."""
        self._taken = [run for run in self._taken if any(entry.name not in listed for entry in run.tables)]

    def drop_taken(self) -> None:
        """Forget all taken runs: what is not listed was removed again."""
        self._taken = []


def _batch(run: Run) -> RowBatch:
    """Return all rows of a run as what a table is built from.

    A merged run may know one pack twice, from two freezes; a table names it once.
    """
    batch = RowBatch()
    packs, origins = array("I"), array("I")
    for pack, size, _ in PACK_ENTRY.iter_unpack(run.packs):
        packs.append(batch.packs.setdefault((pack, size), len(batch.packs)))
    for origin, _ in ORIGIN_ENTRY.iter_unpack(run.origins):
        origins.append(batch.origins.setdefault(origin, len(batch.origins)))
    for section in Section:
        rows = batch.sections[section]
        for piece in run.stream(section):
            rows.extend(piece)
        remap_rows(rows, ROW_BYTES[section], KEY_BYTES[section], origins if section else packs)
    batch.sort()
    return batch

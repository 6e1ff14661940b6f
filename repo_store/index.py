"""The index: where every chunk and every frame of the repository is, as one client sees it.

    has_chunk, find_* ──> seen ids ──> recent rows ──> runs: filters ──> fences ──> a block (cache or pread)
                             └─ mark_seen └─ add_pack     └─ freeze (own, private) · refresh (tables of the storage)

A chunk on its way into the repository moves down this line, and is entered into the next stage before it leaves the
last; a lookup walks the line in the same direction, so it never misses a chunk that is between two stages.

The index is a cache of pack directories (docs/format.md, section 7): nothing is true because it stands here. A row
counts if its table is listed and its signer trusted.

Memory at 15 million rows: filters 19 MB, block cache 24 MB, recent rows 10 MB, fences and dictionaries 4 MB; start-up
reads those and no row. One thread writes (mark_seen, add_pack, freeze, take_table, refresh); any may look up.
"""

import threading
from collections.abc import Collection
from functools import partial

from repo_store._lookups import probe_ids
from repo_store._rows import probe
from repo_store.directory import ID_BYTES, Directory
from repo_store.errors import ObjectDamaged, StorageError
from repo_store.key_ring import KeyRing
from repo_store.own_runs import OwnRuns
from repo_store.recent_rows import ROWS_MAX, RecentRows
from repo_store.row_cache import RowCache
from repo_store.row_view import RowView
from repo_store.rows import section_of
from repo_store.run import Run, RunDamaged
from repo_store.run_merge import merge_runs, plan_merge
from repo_store.storage import ObjectInfo, Storage
from repo_store.table import table_hash, table_name
from repo_store.table_loader import WHOLE_BYTES_MAX, TableLoader


class Index(RowView):
    """One client's view of the tables of one repository."""

    def __init__(
        self, storage: Storage, ring: KeyRing, cache: RowCache, trusted: Collection[bytes] | None
    ) -> None:
        super().__init__(cache.folder)
        self._storage, self._ring, self._cache = storage, ring, cache
        self._trusted = None if trusted is None else frozenset(trusted)
        self._mutex = threading.RLock()
        self._seen: tuple[set[bytes], set[bytes], set[bytes]] = (set(), set(), set())
        self._own = OwnRuns(ring, cache.folder)
        self._shared: list[Run] = []
        self._listed: frozenset[bytes] = frozenset()
        self.problems: list[ObjectDamaged] = []
        """Tables that the last refresh found damaged."""

    @classmethod
    def open(
        cls, storage: Storage, ring: KeyRing, cache_dir: str, *, trusted: Collection[bytes] | None = None
    ) -> "Index":
        """Return the index, up to date with the storage.

        `trusted` are the signers whose rows count; None: all of the roster. Raises StorageError.
        """
        index = cls(storage, ring, RowCache(cache_dir, ring.repository), trusted)
        index.refresh()
        return index

    def refresh(self) -> list[ObjectDamaged]:
        """Load the tables that are new in the storage, drop what is no longer listed; return what is damaged.

        A table from `take_table` that is not listed counts as removed: put it first. Raises StorageError.
        """
        with self._mutex:
            self._refresh(set())
            self._own.drop_taken()
            self._show(self._shared)
            return self.problems

    def _refresh(self, broken: set[Run]) -> None:
        """Bring shared runs and storage together, using none of the `broken` runs, nor any that turns out to be."""
        while True:
            try:
                self._refresh_without(broken)
                return
            except RunDamaged as damage:
                if damage.run is None or damage.run in broken:
                    raise StorageError(f"{self._folder}: {damage}, just after it was written") from damage
                broken.add(damage.run)

    def _refresh_without(self, broken: Collection[Run]) -> None:
        tables = {name: info for info in self._storage.list("tables/") if (name := table_hash(info.name))}
        with self._cache.lock() as held:
            loaded = self._cache.load() if held else self._shared
            usable = [run for run in loaded if run not in broken]
            shared, problems = self._update(usable, tables, private=not held)
            if held and set(shared) != set(loaded):
                self._cache.publish(shared)
        self.problems = problems
        self._listed = frozenset(tables)
        self._own.drop_listed(self._listed)
        self._show(shared)

    def _update(
        self, runs: list[Run], tables: dict[bytes, ObjectInfo], *, private: bool
    ) -> tuple[list[Run], list[ObjectDamaged]]:
        """Return runs that hold exactly the rows of `tables` but for rows of dead ones, and what is damaged."""
        runs = [run for run in runs if any(entry.name in tables for entry in run.tables)]
        known = {entry.name for run in runs for entry in run.tables}
        kept = self._cache.tables
        loader = TableLoader(self._storage, self._ring, self._cache.folder, private=private, kept=kept)
        missing = [info for name, info in sorted(tables.items()) if name not in known]
        runs.extend(loader.load(missing))
        group = plan_merge(runs, tables)
        if group:
            merged = merge_runs(self._cache.folder, self._ring.repository, group, tables, private=private)
            runs = [run for run in runs if run not in group] + [merged]
        for run in runs:
            run.load_filters()
        if missing and not private:
            kept.keep_only(())  # loaded, or of no use to anybody
        return runs, loader.problems

    def _show(self, shared: list[Run]) -> None:
        """Make `shared` and the own runs what lookups see."""
        signers = self._ring.roster.keys() if self._trusted is None else self._trusted
        for run in shared:
            run.listed = bytes(e.name in self._listed for e in run.tables)
            run.alive = bytes(e.name in self._listed and e.signer in signers for e in run.tables)
        for run in set(self._shared) - set(shared):
            self._blocks.forget(run)
        self._shared = shared
        self._show_runs((*shared, *self._own.runs))

    def trusts(self, signer: bytes) -> bool:
        """Return whether rows count that this signer made."""
        return signer in (self._ring.roster if self._trusted is None else self._trusted)

    # What a writer asks and tells.

    def has_chunk(self, section: int, chunk_id: bytes) -> bool:
        """Return whether a chunk need not be stored: it is present, or this run is about to store it."""
        if chunk_id in self._seen[section]:
            return True
        recent = self._recent
        view = self._view
        if chunk_id not in recent.rows[section] and not probe(view[0][section], chunk_id):
            return False
        return self._whole(partial(self._is_chunk_present, section, chunk_id))

    def missing(self, section: int, ids: list[bytes]) -> list[bytes]:
        """Return those of `ids` for which `has_chunk` says no, in a fraction of its time where there are many."""
        seen, recent = self._seen[section], self._recent.rows[section]
        hits = probe_ids(self._view[0][section], b"".join(ids))
        if not any(hits) and seen.isdisjoint(ids) and not any(map(recent.__contains__, ids)):
            return ids
        found = self._whole(partial(self._present_in_runs, section, ids))
        has = self.has_chunk
        return [chunk_id for chunk_id in ids if chunk_id not in found and not has(section, chunk_id)]

    def mark_all_seen(self, section: int, ids: list[bytes]) -> None:
        """Count chunks as present, as `mark_seen` does."""
        self._seen[section].update(ids)

    def mark_seen(self, section: int, chunk_id: bytes) -> None:
        """Count a chunk as present: this run stores it in a pack that is not put yet."""
        self._seen[section].add(chunk_id)

    def add_pack(self, pack: bytes, size: int, directory: Directory) -> None:
        """Add the rows of a pack that was put (or found unindexed): its hash, its size and its directory.

        They are looked up from now on, and in the next table. Raises StorageError.
        """
        with self._mutex:
            self._recent.add_pack(pack, size, directory)
            self._verdicts = {}
            seen, ids = self._seen[section_of(directory.kind)], directory.ids
            seen.difference_update(ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES))
            if self._recent.count >= ROWS_MAX:
                self.freeze()

    def unsaved_packs(self) -> list[bytes]:
        """Return the packs, by hash, whose rows are in no table yet."""
        with self._mutex:
            waiting = [run for run in self._own.runs if not self._own.is_taken(run)]
            known = [pack for run in waiting for pack, _ in run.live_packs()]
            return [*known, *(pack for pack, _ in self._recent.packs)]

    def freeze(self) -> int:
        """Close the rows added so far; return the mark that `take_table` takes. Call it before the barrier."""
        with self._mutex:
            if self._recent.count:
                try:
                    self._own.add(self._recent.batch())
                except RunDamaged as damage:
                    raise self._lost(damage) from damage
                self._show(self._shared)
                self._recent = RecentRows()
            return self._own.mark

    def take_table(self, mark: int | None = None) -> bytes | None:
        """Return one signed table of rows not taken before (up to `mark`, else all), or None if none are left.

        To be put under `table_name(data)` before the next refresh; call until None.
        """
        with self._mutex:
            if mark is None:
                mark = self.freeze()
            try:
                table = self._own.take(mark)
            except RunDamaged as damage:
                raise self._lost(damage) from damage
            finally:
                self._show(self._shared)
            if table is not None and len(table) <= WHOLE_BYTES_MAX:
                self._cache.tables.put(table_name(table), table)
            return table

    # What keeps it right.

    def _replace(self, damage: RunDamaged) -> None:
        with self._mutex:
            run = damage.run
            if run is None or (run in self._own.runs and not self._own.is_taken(run)):
                raise self._lost(damage) from damage
            if run in self._view[1]:
                self._own.drop(run)
                self._refresh({run})

    def _lost(self, damage: RunDamaged) -> StorageError:
        """Return the error for rows of this run that are in no table yet: there is nothing to make them from."""
        return StorageError(f"{self._folder}: a file of this run was damaged under it: {damage}")

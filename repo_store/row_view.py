"""Row view: lookups in all rows that one client has, wherever they are, and the verdict whether they count.

Rows are in recent rows (memory) and in runs (files). The view is exchanged as a whole by the index, so a lookup in
another thread sees the old or the new one. A frame is present if one of its packs is not condemned, it is not named
sparse or damaged itself, and its base, if it has one, is present; a chunk, if one of its frames is. This module reads
the cache and touches no storage.
"""

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import itemgetter
from typing import NamedTuple, TypeVar

from repo_store._lookups import probe_ids
from repo_store._rows import probe
from repo_store.block_cache import BlockCache
from repo_store.errors import StorageError
from repo_store.frame import FrameName
from repo_store.recent_rows import RecentRows
from repo_store.row_batch import ROW_BYTES, location_key
from repo_store.row_stream import RowsChanged, RowStream
from repo_store.rows import ChunkPlace, FrameLocation, Section
from repo_store.run import PACK_ENTRY, Run, RunDamaged

VERDICTS_MAX = 32_768
"""Frames whose presence is remembered: neighbouring chunks ask for the same frame."""
_REBUILDS_MAX = 3
SEVERAL = 255  # as in _lookups.c

Result = TypeVar("Result")
Filters = tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[bytes, ...]]


class KnownTable(NamedTuple):
    """A table as the cache knows it: who signed it, how many rows it has, and the packs that it names."""

    signer: bytes
    rows: int
    packs: frozenset[bytes]


class RowView(ABC):
    """What lookups see. A subclass keeps it up to date; any thread may ask."""

    def __init__(self, folder: str) -> None:
        """`folder` is that of the cache, for messages."""
        self._folder = folder
        self._blocks = BlockCache()
        self._recent = RecentRows()
        self._view: tuple[Filters, tuple[Run, ...]] = (((), (), ()), ())
        self._absent_packs: frozenset[bytes] = frozenset()
        self._absent_frames: frozenset[bytes] = frozenset()
        self._verdicts: dict[bytes, bool] = {}

    def _show_runs(self, runs: tuple[Run, ...]) -> None:
        """Make `runs` what lookups see."""
        filters = [tuple(run.filters[section] for run in runs) for section in Section]
        self._view = ((filters[0], filters[1], filters[2]), runs)
        self._verdicts = {}

    @abstractmethod
    def _replace(self, damage: RunDamaged) -> None:
        """Make a damaged run again, or raise StorageError."""

    def set_absent(self, packs: Iterable[bytes], frames: Iterable[bytes]) -> None:
        """State which packs (32 bytes) are condemned and which frames (names of 20) sparse or damaged; replaces."""
        self._absent_packs, self._absent_frames = frozenset(packs), frozenset(frames)
        self._verdicts = {}

    def find_chunk(self, section: int, chunk_id: bytes) -> list[ChunkPlace]:
        """Return every place of a chunk in the stored packs, those in present frames first."""
        places = self._whole(lambda: self._places(section, chunk_id))
        return sorted(places, key=lambda place: not self.has_frame(place.frame)) if places[1:] else places

    def find_chunks(self, section: int, ids: Iterable[bytes]) -> dict[bytes, list[ChunkPlace]]:
        """As `find_chunk`, for many at once, reading in the order of rows; ids without a place are left out."""
        found = ((chunk_id, self.find_chunk(section, chunk_id)) for chunk_id in sorted(set(ids)))
        return {chunk_id: places for chunk_id, places in found if places}

    def find_frame(self, name: FrameName) -> list[FrameLocation]:
        """Return every location of a frame, those in packs that are not condemned first."""
        locations = self._whole(lambda: self._locations(name))
        return sorted(locations, key=lambda location: location.pack in self._absent_packs)

    def find_frames(self, names: Iterable[FrameName]) -> dict[FrameName, list[FrameLocation]]:
        """As `find_frame`, for many at once, reading in the order of rows; names without a location are left out."""
        found = ((name, self.find_frame(name)) for name in sorted(set(names)))
        return {name: locations for name, locations in found if locations}

    def has_frame(self, name: FrameName) -> bool:
        """Return whether a frame is present: it, a pack of it and its base are neither missing nor absent."""
        return self._whole(lambda: self._is_present(name))

    def packs(self) -> Iterator[tuple[bytes, int]]:
        """Yield hash and size of every pack that trusted tables and this run know, each once."""
        known: set[tuple[bytes, int]] = set(self._recent.packs)
        yield from tuple(known)
        for run in self._view[1]:
            for entry in run.live_packs():
                if entry not in known:
                    known.add(entry)
                    yield entry

    def unindexed(self, listed: Iterable[bytes]) -> list[bytes]:
        """Return which of the packs in the storage, by hash, no table knows, whoever signed it."""
        known = {pack for pack, _ in self._recent.packs}
        for run in self._view[1]:
            known.update(run.listed_packs())
        return [pack for pack in listed if pack not in known]

    def tables(self) -> dict[bytes, KnownTable]:
        """Return what is known of every table that is listed, by its hash."""
        known: dict[bytes, KnownTable] = {}
        for run in self._view[1]:
            packs: list[set[bytes]] = [set() for _ in run.tables]
            for pack, _, table in PACK_ENTRY.iter_unpack(run.packs):
                packs[table].add(pack)
            for entry, listed, named in zip(run.tables, run.listed, packs, strict=True):
                if listed:
                    known[entry.name] = KnownTable(entry.signer, entry.rows, frozenset(named))
        return known

    def chunks(self, section: int) -> Iterator[tuple[bytes, ChunkPlace]]:
        """Yield every row of a section, in no stated order. Raises StorageError if the cache is damaged meanwhile."""
        recent, (_, runs) = self._recent, self._view
        for row in recent.all_rows(section):
            yield row[:32], recent.chunk_place(row)
        for run in runs:
            yield from self._chunks_of(run, section)

    def chunks_in_order(self, section: int) -> Iterator[tuple[bytes, ChunkPlace]]:
        """As `chunks`, sorted by id."""
        recent, (_, runs) = self._recent, self._view
        fresh = sorted((row[:32], recent.chunk_place(row)) for row in recent.all_rows(section))
        yield from heapq.merge(fresh, *(self._chunks_of(run, section) for run in runs), key=itemgetter(0))

    def _chunks_of(self, run: Run, section: int) -> Iterator[tuple[bytes, ChunkPlace]]:
        for row in self._rows_of(run, section):
            place = run.chunk_place(row)
            if place is not None:
                yield row[:32], place

    def locations(self) -> Iterator[FrameLocation]:
        """Yield every location of every frame, as `chunks` does."""
        recent, (_, runs) = self._recent, self._view
        for row in recent.all_rows(Section.LOCATIONS):
            yield recent.frame_location(row)
        for run in runs:
            for row in self._rows_of(run, Section.LOCATIONS):
                location = run.frame_location(row)
                if location is not None:
                    yield location

    def row_streams(self, section: int) -> list[RowStream]:
        """Return all chunk rows of a section, of dead tables too, as sorted streams of raw rows."""
        batch, runs = self._recent.batch(), self._view[1]
        recent = RowStream(tuple(batch.origins), lambda: iter([bytes(batch.sections[section])]))
        return [recent, *(RowStream(r.live_origins(), partial(self._pieces, r, section)) for r in runs)]

    def count(self) -> int:
        """Return the number of rows that count, of all sections."""
        return self._recent.count + sum(run.live_rows for run in self._view[1])

    def _rows_of(self, run: Run, section: int) -> Iterator[bytes]:
        size = ROW_BYTES[section]
        for rows in self._pieces(run, section):
            yield from (rows[at : at + size] for at in range(0, len(rows), size))

    def _pieces(self, run: Run, section: int) -> Iterator[bytes]:
        try:
            yield from run.stream(section)
        except RunDamaged as damage:
            self._replace(damage)
            raise RowsChanged(f"{self._folder}: damaged while it was read: run again") from damage

    def _places(self, section: int, chunk_id: bytes) -> list[ChunkPlace]:
        recent = self._recent
        found = [recent.chunk_place(row) for row in recent.find_rows(section, chunk_id)]
        for run in self._runs_with(section, chunk_id):
            rows = run.find_rows(section, chunk_id, self._blocks)
            found += [place for place in map(run.chunk_place, rows) if place is not None]
        return found if len(found) < 2 else list(dict.fromkeys(found))

    def _locations(self, name: FrameName) -> list[FrameLocation]:
        recent, key = self._recent, location_key(*name)
        found = [recent.frame_location(row) for row in recent.find_rows(Section.LOCATIONS, key)]
        for run in self._runs_with(Section.LOCATIONS, key):
            rows = run.find_rows(Section.LOCATIONS, key, self._blocks)
            found += [location for location in map(run.frame_location, rows) if location is not None]
        return found if len(found) < 2 else list(dict.fromkeys(found))

    def _runs_with(self, section: int, key: bytes) -> list[Run]:
        filters, runs = self._view
        hits = probe(filters[section], key)
        return [run for number, run in enumerate(runs) if hits >> number & 1]

    def _is_present(self, name: FrameName) -> bool:
        verdicts, key = self._verdicts, name.pack()
        verdict = verdicts.get(key)
        if verdict is None:
            if len(verdicts) >= VERDICTS_MAX:
                verdicts.clear()
            verdict = verdicts[key] = self._judge(name, key, may_have_base=True)
        return verdict

    def _is_chunk_present(self, section: int, chunk_id: bytes) -> bool:
        """As the places of the chunk say, but in a fifth of the time: the writer asks for every chunk."""
        recent, verdicts = self._recent, self._verdicts
        if chunk_id in recent.rows[section] and any(
            self._is_present(recent.chunk_place(row).frame) for row in recent.find_rows(section, chunk_id)
        ):
            return True
        for run in self._runs_with(section, chunk_id):
            for row in run.find_rows(section, chunk_id, self._blocks):
                key = run.frame_key(row)
                if key is not None and (verdicts.get(key) or self._is_present(FrameName.unpack(key))):
                    return True
        return False

    def _present_in_runs(self, section: int, ids: list[bytes]) -> set[bytes]:
        """Return those of `ids` that one run alone can have and has, in a present frame; quick for many."""
        filters, runs = self._view
        of_run: dict[int, list[bytes]] = {}
        for chunk_id, hit in zip(ids, probe_ids(filters[section], b"".join(ids)), strict=True):
            if 0 < hit < SEVERAL:
                of_run.setdefault(hit - 1, []).append(chunk_id)
        found: set[bytes] = set()
        for number, keys in of_run.items():
            run, verdicts = runs[number], dict[bytes | None, bool]()
            frames = run.frames_of(section, keys, self._blocks)
            for frame in {*frames} - {None}:
                key = run.frame_name(frame or b"")
                verdicts[frame] = key is not None and self._is_present(FrameName.unpack(key))
            found.update(key for key, frame in zip(keys, frames, strict=True) if verdicts.get(frame))
        return found

    def _judge(self, name: FrameName, key: bytes, *, may_have_base: bool) -> bool:
        if key in self._absent_frames:
            return False
        for location in self._locations(name):
            base = location.place.base
            if location.pack in self._absent_packs:
                continue
            if base is None or (may_have_base and self._judge(base, base.pack(), may_have_base=False)):
                return True
        return False

    def _whole(self, look: Callable[[], Result]) -> Result:
        """Return what `look` gives; where a file of the cache is damaged, make it again first. Raises StorageError."""
        for _ in range(_REBUILDS_MAX):
            try:
                return look()
            except RunDamaged as damage:
                self._replace(damage)
        raise StorageError(f"{self._folder}: files here are damaged as soon as they are written")

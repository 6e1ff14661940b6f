"""Random histories of two clients against a naive model: dictionaries that are filled from what was put.

Method: one repository, two clients of two signers with caches of their own or a shared one. Each step adds packs, takes
and puts tables, refreshes, removes tables, names packs and frames absent, deletes or damages cache files, or opens a
client anew. After each step every client answers as the model says: what the tables it last saw listed say, of signers
it trusts, and what it added itself since.
"""

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.directories import make_directory, make_table, two_signers
from support.rings import make_ring
from support.simulated_storage import SimulatedStorage

from repo_store import index as index_module
from repo_store import own_runs, run_merge, run_writer, table_loader
from repo_store import run as run_module
from repo_store.directory import Directory
from repo_store.frame import FrameName
from repo_store.index import Index
from repo_store.key_ring import KeyRing
from repo_store.remote_index import RemoteIndex
from repo_store.rows import ChunkPlace, FrameLocation, Section, section_of
from repo_store.sealed import Kind
from repo_store.table import table_name

RINGS = two_signers(make_ring())
Pack = tuple[bytes, int, Directory]
CHOICE = random.Random(99)
IDS = [CHOICE.randbytes(32) for _ in range(60)]
ORIGINS = [CHOICE.randbytes(16) for _ in range(6)]
KINDS = st.sampled_from([Kind.DATA_DIRECTORY, Kind.METADATA_DIRECTORY])
NAMES = st.builds(FrameName, st.sampled_from(ORIGINS), st.integers(0, 3))
FRAMES = st.lists(
    st.tuples(NAMES, st.none() | NAMES, st.lists(st.sampled_from(IDS), min_size=1, max_size=6)), max_size=5
)


@dataclass
class Client:
    """An index and what the model knows of it."""

    ring: KeyRing
    folder: Path
    trusted: frozenset[bytes] | None
    index: Index
    own: list[list[Pack]] = field(default_factory=list)  # by table to be; the last is not taken
    listed: frozenset[str] = frozenset()
    absent_packs: frozenset[bytes] = frozenset()
    absent_frames: frozenset[bytes] = frozenset()


class IndexHistory(RuleBasedStateMachine):
    """The rules. `tables` is what was put: name → signer and packs."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="holdfast-index-"))
        self.storage = SimulatedStorage()
        self.tables: dict[str, tuple[bytes, list[Pack]]] = {}
        self.removed: dict[str, tuple[bytes, list[Pack]]] = {}
        self.clients: list[Client] = []

    @initialize(shared=st.booleans(), own_only=st.booleans())
    def start(self, shared: bool, own_only: bool) -> None:
        for number, ring in enumerate(RINGS):
            folder = self.folder / ("shared" if shared else str(number))
            trusted = frozenset({ring.signer}) if own_only and number else None
            index = Index.open(self.storage, ring, str(folder), trusted=trusted)
            self.clients.append(Client(ring, folder, trusted, index, [[]]))

    @rule(who=st.integers(0, 1), frames=FRAMES, kind=KINDS, pack=st.binary(min_size=32, max_size=32))
    def add_a_pack(
        self, who: int, frames: list[tuple[FrameName, FrameName | None, list[bytes]]], kind: Kind, pack: bytes
    ) -> None:
        client, added = self.clients[who], (pack, len(pack) + sum(pack), make_directory(frames, kind))
        for chunk_id in added[2].chunk_ids(0) if frames else []:
            client.index.mark_seen(section_of(kind), chunk_id)
            assert client.index.has_chunk(section_of(kind), chunk_id)
        client.index.add_pack(*added)
        client.own[-1].append(added)

    @rule(who=st.integers(0, 1), put=st.sampled_from([True, True, True, False]))
    def take_tables(self, who: int, put: bool) -> None:
        client, packs, several = self.clients[who], self.clients[who].own[-1], []
        while (data := client.index.take_table()) is not None:
            several.append(data)
        if several:  # the rows of these packs are in one of them, together
            client.own.append([])
            for data in several if put else []:
                self.storage.put(table_name(data), data)
                self.tables[table_name(data)] = (client.ring.signer, packs if data is several[-1] else [])
            if put and len(several) > 1:  # the model keeps tables whole: as if a merge had come at once
                self._put_merged(client.ring, packs, [table_name(data) for data in several])

    def _put_merged(self, ring: KeyRing, packs: list[Pack], sources: list[str]) -> None:
        data = make_table(ring, *packs)
        self.storage.put(table_name(data), data)
        self.tables[table_name(data)] = (ring.signer, packs)
        for name in sources:
            self.storage.delete(name)
            del self.tables[name]

    @rule(who=st.integers(0, 1))
    def refresh(self, who: int) -> None:
        client = self.clients[who]
        assert client.index.refresh() == []
        client.listed = frozenset(self.tables)
        client.own = [client.own[-1]]

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def remove_a_table(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.tables)))
        self.storage.delete(name)
        self.removed[name] = self.tables.pop(name)

    @precondition(lambda self: len(self.tables) > 1)
    @rule()
    def merge_all_tables(self) -> None:
        packs = [pack for signer, of_table in self.tables.values() for pack in of_table]
        sources = sorted(self.tables)
        self.removed.update(self.tables)
        self._put_merged(RINGS[0], packs, sources)

    @rule(who=st.integers(0, 1), data=st.data())
    def name_some_absent(self, who: int, data: st.DataObject) -> None:
        client = self.clients[who]
        packs = sorted({pack for pack, _, _ in self._packs(client)})
        chosen = data.draw(st.sets(st.sampled_from(packs), max_size=4)) if packs else set()
        frames = {name.pack() for name in data.draw(st.sets(NAMES, max_size=3))}
        client.absent_packs, client.absent_frames = frozenset(chosen), frozenset(frames)
        client.index.set_absent(chosen, frames)

    @rule(who=st.integers(0, 1))
    def delete_the_cache(self, who: int) -> None:
        shutil.rmtree(self.clients[who].folder, ignore_errors=True)

    @rule(who=st.integers(0, 1), at=st.floats(0, 0.999), cut=st.booleans())
    def damage_the_cache(self, who: int, at: float, cut: bool) -> None:
        if any(name not in self.tables for client in self.clients for name in client.listed):
            return  # what is made again shows the tables of now, and the model would have to know when
        for path in self.clients[who].folder.glob("rows-*/*.run"):
            data = path.read_bytes()
            place = int(at * len(data))
            with path.open("r+b") as file:
                if cut:
                    file.truncate(place)
                else:
                    file.seek(place)
                    file.write(bytes([data[place] ^ 16]))
        for client in self.clients:  # rebuilding lists anew
            client.index.refresh()
            client.listed, client.own = frozenset(self.tables), [client.own[-1]]

    @rule(who=st.integers(0, 1))
    def die_and_open_again(self, who: int) -> None:
        client = self.clients[who]
        index = Index.open(self.storage, client.ring, str(client.folder), trusted=client.trusted)
        packs = {pack for pack, _, _ in client.own[-1]}
        known = {pack for _, of_table in self.tables.values() for pack, _, _ in of_table}
        assert set(index.unindexed(sorted(packs))) == packs - known
        self.clients[who] = Client(
            client.ring, client.folder, client.trusted, index, [[]], frozenset(self.tables)
        )

    def _packs(self, client: Client) -> list[Pack]:
        tables = {**self.removed, **self.tables}
        seen = [tables[name] for name in sorted(client.listed)]
        trusted = client.ring.roster.keys() if client.trusted is None else client.trusted
        listed = [pack for signer, packs in seen if signer in trusted for pack in packs]
        return listed + [pack for packs in client.own for pack in packs]

    @invariant()
    def every_client_answers_as_the_model(self) -> None:
        for client in self.clients:
            chunks, frames = _answers(self._packs(client))
            index = client.index
            assert sorted(index.packs()) == sorted({(pack, size) for pack, size, _ in self._packs(client)})
            present = {
                name
                for name in frames
                if _is_present(name, frames, client.absent_packs, client.absent_frames)
            }
            for section in (Section.DATA, Section.METADATA):
                found = index.find_chunks(section, IDS)
                for chunk_id in IDS:
                    places = chunks.get((section, chunk_id), set())
                    assert set(found.get(chunk_id, [])) == places
                    assert len(found.get(chunk_id, [])) == len(places), "each place once"
                    wanted = any(place.frame in present for place in places)
                    assert index.has_chunk(section, chunk_id) == wanted
                every = [*IDS, *IDS[:3]]
                one_by_one = [chunk_id for chunk_id in every if not index.has_chunk(section, chunk_id)]
                assert index.missing(section, every) == one_by_one
            for origin in ORIGINS:
                for ordinal in range(4):
                    name = FrameName(origin, ordinal)
                    assert set(index.find_frame(name)) == frames.get(name, set())
                    assert index.has_frame(name) == (name in present)

    @invariant()
    def a_fresh_host_answers_the_same(self) -> None:
        remote = RemoteIndex.open(self.storage, RINGS[0])
        chunks, frames = _answers([pack for _, packs in self.tables.values() for pack in packs])
        for section in (Section.DATA, Section.METADATA):
            wanted = {chunk_id: places for (of, chunk_id), places in chunks.items() if of == section}
            assert {key: set(found) for key, found in remote.find_chunks(section, IDS).items()} == wanted
        assert {name: set(found) for name, found in remote.find_frames(frames).items()} == frames

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _answers(
    packs: list[Pack],
) -> tuple[dict[tuple[Section, bytes], set[ChunkPlace]], dict[FrameName, set[FrameLocation]]]:
    chunks: dict[tuple[Section, bytes], set[ChunkPlace]] = {}
    frames: dict[FrameName, set[FrameLocation]] = {}
    for pack, size, directory in packs:
        for number, frame in enumerate(directory.frames):
            frames.setdefault(frame.name, set()).add(FrameLocation(pack, size, frame))
            for chunk_id, offset, length in directory.chunks(number):
                key = (section_of(directory.kind), chunk_id)
                chunks.setdefault(key, set()).add(ChunkPlace(*frame.name, offset, length))
    return chunks, frames


def _is_present(
    name: FrameName,
    frames: dict[FrameName, set[FrameLocation]],
    absent_packs: frozenset[bytes],
    absent_frames: frozenset[bytes],
) -> bool:
    def some(name: FrameName) -> list[FrameLocation]:
        found = frames.get(name, set()) if name.pack() not in absent_frames else set()
        return [location for location in found if location.pack not in absent_packs]

    bases = [location.place.base for location in some(name)]
    return any(base is None or any(at.place.base is None for at in some(base)) for base in bases)


@contextmanager
def _small_bounds() -> Iterator[None]:
    """Make every bound small, so that short histories freeze, spill, stream and merge."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "ROWS_MAX", 12)
        patch.setattr(own_runs, "RUNS_MAX", 3)
        patch.setattr(table_loader, "GATHER_ROWS", 30)
        patch.setattr(table_loader, "WHOLE_BYTES_MAX", 3000)
        patch.setattr(run_module, "BLOCK_ROWS", 3)
        patch.setattr(run_module, "_BLOCKS_AT_ONCE", 2)
        patch.setattr(run_writer, "BLOCK_ROWS", 3)
        patch.setattr(run_merge, "RANGE_ROWS", 7)
        yield


class TestIndexHistory(IndexHistory.TestCase):  # type: ignore[name-defined,misc]
    """Runs the histories."""

    settings = settings(
        max_examples=25,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )

    def runTest(self) -> None:  # noqa: N802 - the name that unittest asks for
        with _small_bounds():
            super().runTest()

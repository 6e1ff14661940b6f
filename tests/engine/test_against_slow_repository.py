"""Whatever was done to a repository, the product reads of it exactly what the slow repository reads.

Method: random histories of small trees in two series and of streams, by hosts new and old, mixed with what others may do
meanwhile: a table is lost, packs are carried into new ones and deleted as a prune does, one copy of a metadata pack or a
data pack is lost for good. After each history every manifest is read by the product (a host that has never seen the
repository, and one that has) and by tests/support/slow_repository.py, which shares no code with it.
"""

import os
import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.repositories import make_repository
from support.sessions import World, write_tree
from support.simulated_storage import SimulatedStorage
from support.slow_repository import Lost, SlowRepository, secrets_of

from chunker import Algorithm, Parameters
from engine.files_snapshot import snapshot_files
from engine.reading_back import list_entries, read_content
from engine.session import Places, Session, session_of
from engine.snapshot_run import SnapshotOptions
from engine.stream_snapshot import snapshot_stdin
from engine.verify import verify_repository
from repo_store.carry import carry_frames
from repo_store.entry import EntryKind
from repo_store.errors import ObjectDamaged, ObjectMissing, StorageError
from repo_store.manifest import Manifest
from repo_store.repository import open_repository
from repo_store.sealed import Kind
from repo_store.table import table_name

TINY = Parameters(Algorithm.PHTE64, 64, 256, 1024)
SERIES = ("one", "two")

CONTENTS = st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 63, 900, 12_000]))
TREES = st.dictionaries(
    st.sampled_from(["a", "a-b", "a/b", "c/d", "c/e", "f"]).filter(lambda n: n != "a"), CONTENTS, max_size=4
)
STEPS = st.one_of(
    st.tuples(st.just("files"), st.sampled_from(SERIES), TREES),
    st.tuples(st.just("stream"), st.just("stream"), CONTENTS),
    st.tuples(
        st.sampled_from(["lose table", "carry", "lose data", "lose nodes", "verify"]),
        st.integers(0, 99),
        st.none(),
    ),
)


def data_of(content: tuple[int, int]) -> bytes:
    """Return bytes by seed and length; the same seed starts the same, so that chunks are shared."""
    seed, length = content
    return random.Random(seed).randbytes(12_000)[:length]


@dataclass
class History:
    """A repository in memory, and the host that has seen all of it."""

    folder: Path
    world: World = field(init=False)

    def __post_init__(self) -> None:
        made = make_repository()
        self.storage, self.ring = made.storage, made.repository.ring
        self.world = World(made.storage.disk, made.key_file, self.folder / "hosts")
        self.old_host = Places(self.folder / "cache", self.folder / "state")

    def session(self, *, fresh: bool) -> Session:
        if fresh:
            return self.world.session(operation="write")
        storage = SimulatedStorage(self.world.disk)
        repository = open_repository(
            storage, self.world.key_file, str(self.old_host.state_dir), operation="write"
        )
        return session_of(repository, self.old_host, operation="write")

    def names(self, prefix: str, kind: Kind | None = None) -> list[str]:
        objects = self.world.disk.objects()
        return [n for n in objects if n.startswith(prefix) and (kind is None or objects[n][-11] == kind)]

    def files(self, series: str, tree: dict[str, tuple[int, int]]) -> None:
        source = Path(tempfile.mkdtemp(dir=self.folder)) / "tree"
        source.mkdir()
        write_tree(source, {name: data_of(content) for name, content in tree.items()})
        options = SnapshotOptions(series=series, host="host", parameters=TINY)
        snapshot_files(self.session(fresh=False), [str(source)], options=options)

    def stream(self, _: str, content: tuple[int, int]) -> None:
        source = self.folder / "stream"
        source.write_bytes(data_of(content))
        fd = os.open(source, os.O_RDONLY)
        snapshot_stdin(
            self.session(fresh=True), b"stream", fd, options=SnapshotOptions(series="stream", parameters=TINY)
        )
        os.close(fd)

    def lose(self, names: list[str], number: int) -> None:
        if names:
            self.world.disk.damage(names[number % len(names)], None)

    def carry(self, number: int) -> None:
        """Move all frames of one pack into new ones, with a table of their own, then delete it: as prune does."""
        session = self.session(fresh=True)
        packs = sorted(session.index.packs())
        if not packs:
            return
        pack, _ = packs[number % len(packs)]
        frames = {w.place.name: [w] for w in session.index.locations() if w.pack == pack}
        try:
            carried = list(carry_frames(session.storage, self.ring, session.reader.packs, frames))
        except StorageError:  # it is lost already, and nobody prunes a damaged repository
            return
        for new in carried:
            session.index.add_pack(*new)
        while (table := session.index.take_table()) is not None:
            session.storage.put(table_name(table), table)
        self.world.disk.damage(f"packs/{pack.hex()[:2]}/{pack.hex()}", None)

    def do(self, step: str, first: object, second: object) -> None:
        if step == "files":
            self.files(first, second)  # type: ignore[arg-type]
        elif step == "stream":
            self.stream(first, second)  # type: ignore[arg-type]
        elif step == "carry":
            self.carry(first)  # type: ignore[arg-type]
        elif step == "verify":
            verify_repository(self.session(fresh=True), data=True)
        else:
            names = {
                "lose table": self.names("tables/"),
                "lose data": self.names("packs/", Kind.DATA_DIRECTORY),
                "lose nodes": self.names("packs/", Kind.METADATA_DIRECTORY),
            }
            self.lose(names[step], first)  # type: ignore[arg-type]


Answer = dict[tuple[bytes, ...], bytes | None] | None
"""Path → content, None where it is lost; None for a tree that is lost."""


def ask_slow(slow: SlowRepository) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for manifest_id, body in slow.manifests().items():
        try:
            entries = slow.entries(body)
        except Lost:
            answers[manifest_id] = None
            continue
        found: dict[tuple[bytes, ...], bytes | None] = {}
        for path, row in entries:
            try:
                found[path] = slow.content(row)
            except Lost:
                found[path] = None
        answers[manifest_id] = found
    return answers


def ask_product(session: Session) -> dict[str, Answer]:
    return {manifest.id.hex(): _read(session, manifest) for manifest in session.read_manifests().live}


def _read(session: Session, manifest: Manifest) -> Answer:
    found: dict[tuple[bytes, ...], bytes | None] = {}
    try:
        entries = list(list_entries(session, manifest))
    except (ObjectDamaged, ObjectMissing):
        return None
    for path, entry in entries:
        try:
            has_bytes = entry.kind in (EntryKind.FILE, EntryKind.STREAM)
            found[path] = b"".join(read_content(session, manifest, path)) if has_bytes else b""
        except (ObjectDamaged, ObjectMissing):
            found[path] = None
    return found


@given(steps=st.lists(STEPS, min_size=1, max_size=8))
@settings(max_examples=settings.default.max_examples // 4)
def test_the_product_and_the_slow_repository_agree(steps: list[tuple[str, object, object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder))
        for step in steps:
            history.do(*step)
        wanted = ask_slow(SlowRepository(history.world.disk.objects(), secrets_of(history.ring)))
        for fresh in (True, False):
            assert ask_product(history.session(fresh=fresh)) == wanted
        hurt = {i for i, answer in wanted.items() if answer is None or None in answer.values()}
        report = verify_repository(history.session(fresh=True), data=True)
        told = set().union(*(found.manifests for found in report.damaged.values()))
        assert told == hurt


@given(steps=st.lists(STEPS, min_size=1, max_size=6), tree=TREES)
@settings(max_examples=settings.default.max_examples // 10)
def test_a_snapshot_after_any_history_and_a_verification_is_whole(
    steps: list[tuple[str, object, object]], tree: dict[str, tuple[int, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder))
        for step in steps:
            history.do(*step)
        verify_repository(history.session(fresh=True), data=True)
        before = set(history.names("manifests/"))
        history.files("one", tree)
        (new,) = set(history.names("manifests/")) - before
        answer = ask_slow(SlowRepository(history.world.disk.objects(), secrets_of(history.ring)))[
            new[len("manifests/") :]
        ]
        assert answer is not None
        whole = {b"/".join(path[1:]).decode(): data for path, data in answer.items()}
        assert {name: whole[name] for name in tree} == {
            name: data_of(content) for name, content in tree.items()
        }


@pytest.mark.parametrize("died", [False, True])
def test_where_writers_trust_only_themselves_an_owner_still_restores_everything(
    tmp_path: Path, died: bool
) -> None:
    """Whether the rows of another are in a table or, as its run died before that, in the directories of packs only."""
    made = make_repository()
    writer = made.add("writer")
    newest = made.open().config
    made.put_config(
        newest.number + 1, made.body(number=newest.number + 1, previous=newest.digest, dedup="own")
    )
    shared = {"a": b"alpha" * 1000}
    for key, own in ((writer, {"b": b"beta"}), (made.key_file, {"c": b"gamma"})):
        tree = write_tree(tmp_path / key.slot / "tree", shared | own)
        session = World(made.storage.disk, key, tmp_path / "hosts").session(operation="write")
        stored = snapshot_files(session, [str(tree)]).manifest.statistics["new_bytes"]
        assert stored == sum(map(len, (shared | own).values())), "neither builds on what the other stored"
        for table in [name for name in made.storage.disk.objects() if name.startswith("tables/")] * died:
            made.storage.disk.damage(table, None)
    owner = World(made.storage.disk, made.key_file, tmp_path / "hosts").session(operation="read")
    wanted = ask_slow(SlowRepository(made.storage.disk.objects(), secrets_of(owner.ring)))
    assert ask_product(owner) == wanted
    assert len(wanted) == 2
    assert all(answer is not None and None not in answer.values() for answer in wanted.values())

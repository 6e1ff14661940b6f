"""What a prune keeps, what it frees, and what it refuses to touch."""

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from support.packs import make_frame, store
from support.prunes import finish, forget, frames_of, pack_names, prune, slow, slow_content
from support.repositories import NOW, Made, make_repository
from support.sessions import World, content_of, storage_of, tree_content, write_tree
from support.simulated_storage import Faults, Operation

from engine.files_snapshot import snapshot_files
from engine.prune import plan_prune, require_prune_key, run_prune
from engine.session import Session
from engine.snapshot_run import SnapshotOptions
from engine.verify import verify_repository
from repo_store.errors import ObjectDamaged, Refused, StorageError
from repo_store.frame import Base
from repo_store.gc_log import read_log
from repo_store.generation import Done, Mark, Sweep
from repo_store.manifest import Manifest
from repo_store.markers import Note, Tombstone
from repo_store.pack import carry
from repo_store.pack_key import make_pack_key
from repo_store.repository import open_repository
from repo_store.sealed import Kind, seal_object

OPTIONS = SnapshotOptions(host="host")


class Scene:
    """A repository with `count` snapshots of a tree of which a part changes each time."""

    def __init__(self, folder: Path, count: int = 4) -> None:
        self.made: Made = make_repository()
        self.disk = self.made.storage.disk
        self.world = World(self.disk, self.made.key_file, folder / "hosts")
        self.ring = self.made.repository.ring
        self.tree = folder / "tree"
        self.manifests: list[Manifest] = []
        self.contents: dict[str, dict[str, bytes]] = {}
        self.source = random.Random(3)
        for _ in range(count):
            self.change()
            self.snapshot()

    def change(self, files: int = 6, size: int = 40_000) -> None:
        turn = len(self.manifests)
        names = [f"d{n % 3}/f{n}" for n in range(turn * 3, turn * 3 + files)]
        write_tree(self.tree, {name: self.source.randbytes(size) for name in names})

    def snapshot(self, faults: Faults | None = None) -> Manifest:
        session = self.world.session(self.disk, faults=faults)
        manifest = snapshot_files(session, [str(self.tree)], options=OPTIONS).manifest
        self.manifests.append(manifest)
        self.contents[manifest.id.hex()] = tree_content(self.tree)
        return manifest

    def forget(self, *manifests: Manifest) -> None:
        forget(self.session(), *manifests)
        for manifest in manifests:
            del self.contents[manifest.id.hex()]

    def session(self, faults: Faults | None = None) -> Session:
        return self.world.session(self.disk, faults=faults, operation="prune")

    def announce(self, *records: Mark | Sweep | Done | Tombstone | Note, name: str = "") -> None:
        kinds = {
            Mark: Kind.MARK,
            Sweep: Kind.SWEEP,
            Done: Kind.DONE,
            Tombstone: Kind.TOMBSTONE,
            Note: Kind.NOTE,
        }
        for record in records:
            if isinstance(record, Mark | Sweep | Done):
                name = f"gc/{record.generation:010d}.{type(record).__name__.lower()}"
            self.disk.damage(
                name, seal_object(self.ring, kinds[type(record)], record.to_body(), subject=name)
            )

    def damage(self, name: str) -> None:
        self.made.damage(name)

    def assert_whole(self) -> None:
        assert slow_content(self.disk, self.ring) == self.contents

    def data_packs(self) -> set[str]:
        return {frame.pack for frame in frames_of(self.disk, self.ring) if frame.kind == 10}

    def bytes_of(self, names: set[str]) -> int:
        return sum(len(self.disk.objects()[name]) for name in names)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_nothing_is_planned_where_everything_is_needed(scene: Scene) -> None:
    before = scene.disk.objects()
    session = scene.session()
    plan = plan_prune(session)
    assert plan.idle and not plan.condemned and not plan.unneeded
    result = run_prune(session, plan)
    assert (result.bytes_freed, result.packs_deleted) == (0, 0)
    assert scene.disk.objects() == before
    assert not [o for o in storage_of(session).operations if o.kind in ("put", "delete")]


def test_a_plan_writes_nothing(scene: Scene) -> None:
    scene.forget(*scene.manifests[:3])
    prune(scene.world)
    before = scene.disk.objects()
    plan = plan_prune(scene.session(), compact=True)
    assert plan.condemned and plan.condemned_bytes
    assert scene.disk.objects() == before


def test_what_was_forgotten_is_freed_by_the_second_prune(scene: Scene) -> None:
    scene.forget(*scene.manifests[:3])
    packs = pack_names(scene.disk)
    first = prune(scene.world)
    assert first.packs_deleted == 0 and first.bytes_next > 0 and first.manifests_removed == 3
    assert packs <= pack_names(scene.disk)
    scene.assert_whole()
    second = prune(scene.world)
    assert second.packs_deleted > 0 and second.bytes_freed >= first.bytes_next
    scene.assert_whole()
    assert verify_repository(scene.world.session(), data=True).status == "ok"
    assert slow(scene.disk, scene.ring).manifests().keys() == scene.contents.keys()


def test_the_marker_stays_and_shadows_a_manifest_that_comes_back(scene: Scene) -> None:
    first = scene.manifests[0]
    name = f"manifests/{first.id.hex()}"
    data = scene.disk.objects()[name]
    scene.forget(first)
    finish(scene.world)
    assert name not in scene.disk.objects()
    scene.disk.damage(name, data)
    scene.assert_whole()
    finish(scene.world)
    scene.assert_whole()
    assert name not in scene.disk.objects()


def test_a_manifest_with_a_damaged_marker_is_live(scene: Scene) -> None:
    first = scene.manifests[0]
    forget(scene.session(), first)
    scene.damage(f"forgotten/{first.id.hex()}")
    finish(scene.world)
    scene.disk.damage(f"forgotten/{first.id.hex()}", None)
    scene.assert_whole()


def test_metadata_stays_in_two_packs(scene: Scene) -> None:
    scene.forget(*scene.manifests[:3])
    finish(scene.world)
    copies: dict[bytes, set[str]] = {}
    for frame in frames_of(scene.disk, scene.ring):
        if frame.kind == 11:
            copies.setdefault(frame.name, set()).add(frame.pack)
    assert copies and all(len(packs) == 2 for packs in copies.values())


def test_the_base_of_a_frame_that_is_needed_stays(scene: Scene) -> None:
    old = scene.source.randbytes(20_000)
    new = old[:10_000] + b"changed" + old[10_000:]
    key, other = (make_pack_key(scene.ring, Kind.DATA_DIRECTORY) for _ in range(2))
    base = make_frame(scene.ring, key, 0, [old])
    delta = make_frame(scene.ring, other, 0, [new], base=Base(base.place.name, old))
    for frame in (base, delta):
        store(scene.made.storage, carry(scene.ring, Kind.DATA_DIRECTORY, [frame]))
    write_tree(scene.tree, {"changed": new})
    assert scene.snapshot().statistics["new_bytes"] < len(new) + 6 * 40_000, "the chunk in the delta was used"
    finish(scene.world)
    scene.assert_whole()
    assert base.place.name.pack() in {frame.name for frame in frames_of(scene.disk, scene.ring)}


@pytest.mark.parametrize("what", ["manifests", "packs"])
def test_damage_to_what_is_needed_frees_nothing_and_is_named(scene: Scene, what: str) -> None:
    scene.forget(*scene.manifests[:3])
    prune(scene.world)
    if what == "manifests":
        name = f"manifests/{scene.manifests[-1].id.hex()}"
        scene.damage(name)
    else:
        frames = [frame for frame in frames_of(scene.disk, scene.ring) if frame.kind == 11]
        newest = max(frames, key=lambda frame: frame.plain_bytes)
        for pack in {frame.pack for frame in frames if frame.name == newest.name}:
            scene.disk.damage(pack, None)
    before = scene.disk.objects()
    with pytest.raises(ObjectDamaged, match="nothing was removed"):
        prune(scene.world)
    assert scene.disk.objects() == before


def test_a_missing_pack_of_data_frees_nothing_and_is_named(scene: Scene) -> None:
    scene.forget(*scene.manifests[:2])
    prune(scene.world)
    oracle = slow(scene.disk, scene.ring)
    _, row = next(each for each in oracle.entries(oracle.manifests().popitem()[1]) if each[1][1] == 0)
    for frame in frames_of(scene.disk, scene.ring):
        if row[9] in dict(frame.chunks):
            scene.disk.damage(frame.pack, None)
    before = scene.disk.objects()
    with pytest.raises(ObjectDamaged, match=r"needed.* and in no pack: nothing was removed"):
        prune(scene.world)
    assert scene.disk.objects() == before


def test_a_damaged_table_frees_nothing_that_is_needed(scene: Scene) -> None:
    scene.forget(scene.manifests[0])
    for name in [name for name in scene.disk.objects() if name.startswith("tables/")]:
        scene.damage(name)
    finish(scene.world)
    scene.assert_whole()


def test_an_adopted_sweep_that_names_what_is_needed_is_refused(scene: Scene) -> None:
    packs = tuple(sorted(bytes.fromhex(name[-64:]) for name in pack_names(scene.disk)))
    scene.announce(Mark(generation=1, time=NOW, packs=packs), Sweep(generation=1, time=NOW, packs=packs))
    before = scene.disk.objects()
    with pytest.raises(
        ObjectDamaged, match=r"gc/0000000001.sweep: damaged: names packs/.* which a manifest needs"
    ):
        prune(scene.world)
    assert scene.disk.objects() == before


def test_an_adopted_mark_takes_only_what_the_generation_before_found(scene: Scene) -> None:
    scene.forget(*scene.manifests[:3])
    packs = tuple(sorted(bytes.fromhex(name[-64:]) for name in pack_names(scene.disk)))
    scene.announce(Mark(generation=1, time=NOW, packs=packs))
    result = prune(scene.world)
    assert (result.adopted, result.packs_deleted) == (True, 0)
    scene.assert_whole()
    finish(scene.world)
    scene.assert_whole()


def test_tables_without_a_proved_merge_stay(scene: Scene) -> None:
    tables = tuple(
        sorted(bytes.fromhex(name[-64:]) for name in scene.disk.objects() if name.startswith("tables/"))
    )
    scene.announce(Mark(generation=1, time=NOW, tables=tables))
    prune(scene.world)
    assert all(f"tables/{table.hex()}" in scene.disk.objects() for table in tables)


def test_a_pending_left_behind_is_given_up_by_the_second_prune(scene: Scene) -> None:
    def dies(operation: Operation) -> bool:
        return operation.kind == "put" and operation.name.startswith("manifests/")

    scene.change()
    with pytest.raises(StorageError):
        scene.snapshot(Faults(fail=dies))
    (name,) = [name for name in scene.disk.objects() if name.startswith("pending/")]
    decided = name.replace("pending/", "manifests/")
    prune(scene.world)
    assert name in scene.disk.objects() and decided not in scene.disk.objects(), "its writer may be at work"
    prune(scene.world)
    assert name not in scene.disk.objects()
    kind, _ = slow(scene.disk, scene.ring).open_object(scene.disk.objects()[decided], (2, 3), decided)
    assert kind == 3, "a tombstone decides against its writer"
    finish(scene.world)
    scene.assert_whole()


def test_a_pending_that_cannot_be_read_is_given_up_at_once(scene: Scene) -> None:
    name = f"pending/{os.urandom(16).hex()}"
    scene.disk.damage(name, b"not a pending")
    prune(scene.world)
    assert name not in scene.disk.objects()
    assert name.replace("pending/", "manifests/") in scene.disk.objects()
    scene.assert_whole()


def test_what_a_pending_needs_stays(scene: Scene) -> None:
    """The manifest is forgotten; a pending with the same tree is all that still wants it."""
    first = scene.manifests[0]
    scene.forget(first)
    prune(scene.world)
    pending = replace(first, id=os.urandom(16), storage_date=None, generation=0)
    name = f"pending/{pending.id.hex()}"
    scene.disk.damage(name, seal_object(scene.ring, Kind.PENDING, pending.to_body(), subject=name))
    prune(scene.world)
    assert content_of(scene.world.session(), pending)


def test_a_pack_that_is_spared_is_indexed_again(scene: Scene) -> None:
    """The tables that named it were merged without its rows before anybody was known to need it."""
    first = scene.manifests[0]
    scene.forget(first)
    prune(scene.world)
    session = scene.session()
    plan = plan_prune(session)
    assert plan.condemned and plan.merges
    pending = replace(first, id=os.urandom(16), storage_date=None, generation=0)
    name = f"pending/{pending.id.hex()}"
    scene.disk.damage(name, seal_object(scene.ring, Kind.PENDING, pending.to_body(), subject=name))
    assert run_prune(session, plan).packs_spared
    fresh = scene.world.session()
    assert not fresh.index.unindexed(bytes.fromhex(name[-64:]) for name in pack_names(scene.disk))
    assert content_of(fresh, pending)


def test_notes_go_with_their_manifest(scene: Scene) -> None:
    first, second = scene.manifests[:2]
    names = [f"notes/{manifest.id.hex()}.{os.urandom(8).hex()}" for manifest in (first, second)]
    for manifest, name in zip((first, second), names, strict=True):
        scene.announce(Note(id=manifest.id, time=NOW, add_tags=("t",)), name=name)
    scene.forget(first)
    finish(scene.world)
    assert names[0] not in scene.disk.objects() and names[1] in scene.disk.objects()


def test_a_writer_may_not_prune(scene: Scene) -> None:
    key = scene.made.add("writer")
    repository = open_repository(scene.made.storage.again(), key, None, operation="prune")
    session = scene.session()
    session.repository = repository
    with pytest.raises(Refused, match="writer, which may not prune"):
        require_prune_key(session)


def test_a_flag_that_came_after_the_plan_stops_the_prune_by_name(scene: Scene) -> None:
    scene.forget(*scene.manifests[:3])
    prune(scene.world)
    session = scene.session()
    plan = plan_prune(session)
    newest = scene.made.open().config
    body = scene.made.body(
        number=newest.number + 1, previous=newest.digest, features={"prune": ["holographic-packs"]}
    )
    scene.made.put_config(newest.number + 1, body)
    before = pack_names(scene.disk)
    with pytest.raises(Refused, match="holographic-packs"):
        run_prune(session, plan)
    assert pack_names(scene.disk) == before
    assert read_log(session.storage, scene.ring).is_open, "the mark was put before the config was read again"


def test_a_plan_that_another_prune_overtook_is_refused(scene: Scene) -> None:
    scene.forget(*scene.manifests[:3])
    session = scene.session()
    plan = plan_prune(session)
    finish(scene.world)
    with pytest.raises(Refused, match="another prune finished meanwhile"):
        run_prune(session, plan)
    scene.assert_whole()


def test_a_sweep_that_comes_too_late_deletes_nothing(scene: Scene) -> None:
    """Others finished the generation with a sweep that spared all, went on to the next and removed the records."""
    scene.forget(*scene.manifests[:3])
    prune(scene.world)

    def others_go_on(operation: Operation) -> None:
        if operation.kind == "put" and operation.name == "gc/0000000002.sweep":
            scene.disk.damage("gc/0000000002.mark", None)
            scene.announce(
                Mark(generation=3, time=NOW), Sweep(generation=3, time=NOW), Done(generation=3, time=NOW)
            )

    before = pack_names(scene.disk)
    result = prune(scene.world, faults=Faults(before=others_go_on))
    assert "gc/0000000002.sweep" in scene.disk.objects(), "it was put, and it is void"
    assert result.packs_deleted == 0 and before <= pack_names(scene.disk)
    finish(scene.world)
    scene.assert_whole()


def test_an_unknown_record_stops_a_prune(scene: Scene) -> None:
    scene.disk.damage("gc/0000000001.plan", b"?")
    with pytest.raises(ObjectDamaged, match="no record of garbage collection that this version knows"):
        plan_prune(scene.session())


def test_tables_are_merged_when_they_are_many_and_lose_no_row(tmp_path: Path) -> None:
    scene = Scene(tmp_path, count=1)
    for _ in range(10):
        scene.change(files=2, size=3_000)
        scene.snapshot()
    before = {name for name in scene.disk.objects() if name.startswith("tables/")}
    result = prune(scene.world)
    after = {name for name in scene.disk.objects() if name.startswith("tables/")}
    assert result.tables_merged >= 8 and len(after) < len(before)
    session = scene.world.session()
    assert not session.index.problems
    assert not session.index.unindexed(bytes.fromhex(name[-64:]) for name in pack_names(scene.disk))
    scene.assert_whole()
    assert finish(scene.world).tables_merged == 0


def test_small_packs_become_few(tmp_path: Path) -> None:
    scene = Scene(tmp_path, count=1)
    for _ in range(10):
        scene.change(files=2, size=3_000)
        scene.snapshot()
    before = len(pack_names(scene.disk))
    assert prune(scene.world).packs_repacked >= 16
    finish(scene.world)
    assert len(pack_names(scene.disk)) < before / 4
    scene.assert_whole()
    kept = pack_names(scene.disk)
    finish(scene.world)
    assert pack_names(scene.disk) == kept, "what has been put together once is left alone"


def test_the_limit_of_work_is_kept_and_says_what_is_left(scene: Scene) -> None:
    write_tree(scene.tree, {f"big/{n}": scene.source.randbytes(400_000) for n in range(8)})
    scene.snapshot()
    for n in range(5):
        (scene.tree / f"big/{n}").unlink()
    scene.snapshot()
    scene.forget(*scene.manifests[:-1])
    plan = plan_prune(scene.session(), repack_bytes_max=0)
    assert not plan.repack.packs and plan.repack.left and plan.repack.carried_bytes == 0
    plan = plan_prune(scene.session())
    assert plan.repack.packs and not plan.repack.left
    finish(scene.world)
    scene.assert_whole()
    frames = frames_of(scene.disk, scene.ring)
    live = sum(frame.sealed_bytes for frame in frames if frame.kind == 10)
    assert scene.bytes_of(scene.data_packs()) < 1.05 * live, "what is stored is frames that are needed"


def test_a_pack_that_rotted_is_not_carried_and_named(scene: Scene) -> None:
    write_tree(scene.tree, {f"big/{n}": scene.source.randbytes(400_000) for n in range(8)})
    scene.snapshot()
    for n in range(5):
        (scene.tree / f"big/{n}").unlink()
    scene.snapshot()
    scene.forget(*scene.manifests[:-1])
    plan = plan_prune(scene.session())
    wasteful = [
        pack for pack in plan.repack.packs if f"packs/{pack.hex()[:2]}/{pack.hex()}" in scene.data_packs()
    ]
    name = f"packs/{wasteful[0].hex()[:2]}/{wasteful[0].hex()}"
    data = bytearray(scene.disk.objects()[name])
    data[100] ^= 1
    scene.disk.damage(name, bytes(data))
    result = prune(scene.world)
    assert result.damaged == {name: "its bytes have another hash than its name"}
    finish_names = pack_names(scene.disk)
    prune(scene.world)
    assert name in finish_names & pack_names(scene.disk), (
        "it is evidence, and perhaps the only copy of the rest"
    )


def _sparse_scene(scene: Scene) -> None:
    """Make frames of which a quarter is needed."""
    write_tree(scene.tree, {f"mixed/{n}": scene.source.randbytes(60_000) for n in range(48)})
    scene.snapshot()
    for n in range(48):
        if n % 6:
            (scene.tree / f"mixed/{n}").unlink()
    scene.snapshot()
    scene.forget(*scene.manifests[:-1])


def test_sparse_frames_are_named_and_writers_store_anew_what_they_want_of_them(scene: Scene) -> None:
    _sparse_scene(scene)
    result = prune(scene.world)
    assert result.sparse_frames
    mark = read_log(scene.session().storage, scene.ring).mark
    assert mark is not None and len(mark.frames) == result.sparse_frames
    scene.assert_whole()
    (scene.tree / "mixed/0").rename(scene.tree / "mixed/renamed")
    assert scene.snapshot().statistics["new_bytes"] >= 60_000
    finish(scene.world)
    scene.assert_whole()


def test_compaction_leaves_little_more_than_the_chunks_that_are_needed(scene: Scene) -> None:
    _sparse_scene(scene)
    finish(scene.world)
    before = scene.bytes_of(scene.data_packs())
    live = sum(map(len, scene.contents[scene.manifests[-1].id.hex()].values()))
    assert before > 1.5 * live
    result = prune(scene.world, compact=True)
    assert result.frames_compacted and not result.damaged
    scene.assert_whole()
    finish(scene.world)
    scene.assert_whole()
    assert scene.bytes_of(scene.data_packs()) < 1.15 * live
    assert verify_repository(scene.world.session(), data=True).status == "ok"


def test_compaction_takes_a_key_that_reads_contents(scene: Scene) -> None:
    session = scene.session()
    ring = session.ring
    epochs = {number: replace(keys, data_private=None) for number, keys in ring.epochs.items()}
    session.repository = replace(session.repository, ring=replace(ring, epochs=epochs))
    with pytest.raises(Refused, match="cannot read contents"):
        plan_prune(session, compact=True)


def test_a_chunk_in_two_frames_keeps_both_until_one_was_read_back(scene: Scene) -> None:
    _sparse_scene(scene)
    prune(scene.world)
    (scene.tree / "mixed/0").rename(scene.tree / "mixed/renamed")
    scene.snapshot()
    wanted = {chunk for frame in frames_of(scene.disk, scene.ring) for chunk, _ in frame.chunks}
    finish(scene.world)
    frames = frames_of(scene.disk, scene.ring)
    twice = [chunk for chunk in wanted if len({f.name for f in frames if chunk in dict(f.chunks)}) > 1]
    assert twice, "the old frame and the new one both stay"
    verify_repository(scene.world.session(operation="verify"), data=True)
    finish(scene.world)
    scene.assert_whole()

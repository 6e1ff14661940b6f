"""The writer's half of the protocol: what a prune announces, and when, never leads to a manifest that lacks anything.

Method: a snapshot of a tree is taken; then another one runs while a prune, played by hand with sealed records, announces
and deletes at the worst moments: before the start, between pending and manifest. Afterwards all that was condemned is
deleted, and the slow repository, which shares no code with the product, must find every byte of the new manifest. The
negative controls take one step of the protocol away and see the manifest break.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.packs import make_frame, store
from support.repositories import NOW, Made, make_repository
from support.sessions import World, content_of, storage_of, tree_content, write_tree
from support.simulated_storage import NOTHING_MORE, Faults, Operation, PowerCut
from support.slow_repository import Frame, Lost, SlowRepository, secrets_of

import repo_store.commit
from engine.files_snapshot import snapshot_files
from engine.snapshot_run import SnapshotOptions, SnapshotResult
from engine.verify import verify_repository
from repo_store.dependencies import Rescuer
from repo_store.errors import Refused, StorageError
from repo_store.frame import Base
from repo_store.generation import Done, Mark, Sweep
from repo_store.generations import Generations, read_generations
from repo_store.manifest import Manifest
from repo_store.markers import Tombstone
from repo_store.pack import carry
from repo_store.pack_key import make_pack_key
from repo_store.repository import Repository
from repo_store.sealed import Kind, seal_object

OPTIONS = SnapshotOptions(host="host")


@dataclass
class Scene:
    """A repository with one snapshot, and the tree it was made of."""

    made: Made
    world: World
    tree: Path
    before: Manifest
    packs: set[str] = field(default_factory=set)

    @property
    def objects(self) -> dict[str, bytes]:
        return self.made.storage.disk.objects()

    @property
    def slow(self) -> SlowRepository:
        return SlowRepository(self.objects, secrets_of(self.made.repository.ring))

    def snapshot(self, action: Callable[[], object] | None = None) -> SnapshotResult:
        """Take a snapshot; `action` happens when its pending is there and nothing was looked at yet."""
        session = self.world.session(self.made.storage.disk, faults=after_pending(action) if action else None)
        return snapshot_files(session, [str(self.tree)], options=OPTIONS)

    def announce(self, *records: Mark | Sweep | Done | Tombstone) -> None:
        """Put signed records as a prune does."""
        kinds = {Mark: Kind.MARK, Sweep: Kind.SWEEP, Done: Kind.DONE, Tombstone: Kind.TOMBSTONE}
        for record in records:
            if isinstance(record, Tombstone):
                name = f"manifests/{record.id.hex()}"
            else:
                name = f"gc/{record.generation:010d}.{type(record).__name__.lower()}"
            sealed = seal_object(
                self.made.repository.ring, kinds[type(record)], record.to_body(), subject=name
            )
            self.made.storage.disk.damage(name, sealed)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            self.made.storage.disk.damage(name, None)

    def read(self, manifest: Manifest) -> dict[str, bytes]:
        """Return the content of a manifest by the slow repository. Raises Lost."""
        slow = self.slow
        body = slow.manifests()[manifest.id.hex()]
        return {
            b"/".join(path).decode(): slow.content(row) for path, row in slow.entries(body) if row[1] == 0
        }

    def frames(self, packs: Iterable[str]) -> list[Frame]:
        chosen = set(packs)
        return [frame for frame in self.slow.frames() if frame.pack in chosen]


def pack_names(objects: Iterable[str]) -> set[str]:
    return {name for name in objects if name.startswith("packs/")}


def hashes(names: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(name[-64:]) for name in sorted(names))


def after_pending(action: Callable[[], object]) -> Faults:
    """Let `action` happen once, when the pending is there, before the newest config and the marks are looked at."""
    waiting = [action]
    seen: list[str] = []

    def before(operation: Operation) -> None:
        seen.extend([operation.name] if operation.name.startswith("pending/") else [])
        if seen and waiting and (operation.kind, operation.name) == ("list", "config/"):
            waiting.pop()()

    return Faults(before=before)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    # What did not change is taken over unread: so a manifest can depend on what nobody looked at.
    monkeypatch.setattr("engine.sources.unchanged.RACY_MARGIN_NS", -(10**15))
    made = make_repository()
    world = World(made.storage.disk, made.key_file, tmp_path / "hosts")
    source = random.Random(7)
    files = {f"d/f{n}": source.randbytes(30_000) for n in range(4)} | {"large": source.randbytes(300_000)}
    tree = write_tree(tmp_path / "tree", files)
    before = snapshot_files(world.session(), [str(tree)], options=OPTIONS).manifest
    scene = Scene(made, world, tree, before)
    scene.packs = pack_names(scene.objects)
    write_tree(tree, {"new": b"new"})
    return scene


def without_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the look for marks, with all that follows from it, out of the protocol."""

    def blind(storage: Any, ring: Any, seen: Generations, rescue: Any) -> Generations:
        return seen

    monkeypatch.setattr(repo_store.commit, "_settle_dependencies", blind)


def test_what_was_condemned_before_the_start_is_stored_anew(scene: Scene) -> None:
    scene.announce(Mark(generation=1, time=NOW, packs=hashes(scene.packs)))
    result = scene.snapshot()
    scene.delete(scene.packs)
    assert scene.read(result.manifest) == tree_content(scene.tree)
    assert content_of(scene.world.session(), result.manifest) == tree_content(scene.tree)


def test_what_a_sweep_names_is_absent_even_while_it_is_still_there(scene: Scene) -> None:
    condemned = hashes(scene.packs)
    scene.announce(
        Mark(generation=1, time=NOW, packs=condemned),
        Sweep(generation=1, time=NOW, packs=condemned),
        Done(generation=1, time=NOW),
    )
    result = scene.snapshot()
    scene.delete(scene.packs)
    assert scene.read(result.manifest) == tree_content(scene.tree)


def test_what_is_condemned_between_pending_and_manifest_is_carried_under_its_own_names(scene: Scene) -> None:
    result = scene.snapshot(lambda: scene.announce(Mark(generation=1, time=NOW, packs=hashes(scene.packs))))
    own = {frame.name for frame in scene.frames(scene.packs) if frame.kind == 10}
    carried = scene.frames(pack_names(scene.objects) - scene.packs)
    assert own <= {frame.name for frame in carried}, "sealed bytes and names as they were"
    assert result.manifest.statistics["new_bytes"] == 3, "nothing was read again"
    scene.delete(scene.packs)
    assert scene.read(result.manifest) == tree_content(scene.tree)
    assert content_of(scene.world.session(), result.manifest) == tree_content(scene.tree)


def test_what_is_condemned_is_lost_if_nobody_looks(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    without_looking(monkeypatch)
    result = scene.snapshot(lambda: scene.announce(Mark(generation=1, time=NOW, packs=hashes(scene.packs))))
    scene.delete(scene.packs)
    with pytest.raises(Lost):
        scene.read(result.manifest)


def test_frames_of_metadata_are_carried_twice(scene: Scene, tmp_path: Path) -> None:
    write_tree(scene.tree, {"stream-like": random.Random(1).randbytes(4_000_000)})  # has a content tree
    scene.snapshot()
    packs = pack_names(scene.objects)
    write_tree(scene.tree, {"one more": b"1"})
    result = scene.snapshot(lambda: scene.announce(Mark(generation=1, time=NOW, packs=hashes(packs))))
    known = {frame.name for frame in scene.frames(packs) if frame.kind == 11}
    carried = [frame for frame in scene.frames(pack_names(scene.objects) - packs) if frame.name in known]
    assert carried, "the nodes of the large file are taken over, so they had to be carried"
    for name in {frame.name for frame in carried}:
        assert len({frame.pack for frame in carried if frame.name == name}) == 2
    scene.delete(packs)
    assert scene.read(result.manifest) == tree_content(scene.tree)


def test_a_run_fails_when_what_it_needs_is_gone_and_the_next_reads_the_source(scene: Scene) -> None:
    def prune_quickly() -> None:
        condemned = hashes(scene.packs)
        scene.announce(
            Mark(generation=1, time=NOW, packs=condemned), Sweep(generation=1, time=NOW, packs=condemned)
        )
        scene.delete(scene.packs)

    with pytest.raises(StorageError, match="removed meanwhile") as failed:
        scene.snapshot(prune_quickly)
    assert failed.value.hint is not None and failed.value.hint.startswith("run it again")
    assert set(scene.slow.manifests()) == {scene.before.id.hex()}, "nothing was committed"
    result = scene.snapshot()
    assert scene.read(result.manifest) == tree_content(scene.tree)


def test_a_manifest_without_its_packs_appears_if_nobody_looks(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_looking(monkeypatch)
    faults = Faults(
        before=lambda o: (
            scene.delete(scene.packs) if o.name.startswith("manifests/") and o.kind == "put" else None
        )
    )
    session = scene.world.session(scene.made.storage.disk, faults=faults)
    result = snapshot_files(session, [str(scene.tree)], options=OPTIONS)
    with pytest.raises(Lost):
        scene.read(result.manifest)


def test_the_pending_is_durable_before_the_look_and_the_manifest_comes_after_it(scene: Scene) -> None:
    session = scene.world.session(scene.made.storage.disk)
    snapshot_files(session, [str(scene.tree)], options=OPTIONS)
    steps = [
        step
        for o in storage_of(session).operations
        if (step := f"{o.kind} {o.name.partition('/')[0]}") in STEPS or o.kind == "barrier"
    ]
    last = steps[len(steps) - steps[::-1].index("put pending") - 1 :]
    assert last == [
        "put pending",
        "barrier ",
        "list config",
        "list gc",
        "put manifests",
        "barrier ",
        "delete pending",
    ]


STEPS = {"put pending", "list config", "list gc", "put manifests", "delete pending"}


def test_packs_that_a_verification_met_are_synced_before_the_table_of_the_same_session_names_them(
    scene: Scene,
) -> None:
    write_tree(scene.tree, {"more": random.Random(9).randbytes(50_000)})
    dying = scene.world.session(scene.made.storage.disk, faults=Faults(cut_after=3))
    with pytest.raises(PowerCut):
        snapshot_files(dying, [str(scene.tree)], options=OPTIONS)
    session = scene.world.session(scene.made.storage.disk)
    verify_repository(session)
    result = snapshot_files(session, [str(scene.tree)], options=OPTIONS)
    assert result.manifest.statistics["new_bytes"] == 0, "what the dead run had stored was used"
    found = scene.made.storage.disk.after_power_cut(NOTHING_MORE)
    assert content_of(scene.world.session(found), result.manifest) == tree_content(scene.tree)


def test_a_tombstone_decides_against_the_run_and_what_it_stored_is_reused(scene: Scene) -> None:
    def give_up(operation: Operation) -> None:
        if operation.kind == "put" and operation.name.startswith("manifests/"):
            dead = bytes.fromhex(operation.name.partition("/")[2])
            scene.announce(Tombstone(id=dead, time=NOW, reason="no sign of life"))

    session = scene.world.session(scene.made.storage.disk, faults=Faults(before=give_up))
    with pytest.raises(StorageError, match="a prune gave this snapshot up as dead before it was committed"):
        snapshot_files(session, [str(scene.tree)], options=OPTIONS)
    assert [m.id for m in scene.world.session().read_manifests().live] == [scene.before.id]
    result = scene.snapshot()
    assert result.manifest.statistics["new_bytes"] == 0, "all of it was there"
    assert scene.read(result.manifest) == tree_content(scene.tree)


@pytest.mark.parametrize(("finished", "traces"), [(True, 0), (False, 1)])
def test_only_a_generation_that_is_open_or_new_makes_a_run_trace(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, finished: bool, traces: int
) -> None:
    gone = (bytes([1]) * 32,)
    records: list[Mark | Sweep | Done] = [
        Mark(generation=1, time=NOW, packs=gone),
        Sweep(generation=1, time=NOW, packs=gone),
    ]
    scene.announce(*records, *([Done(generation=1, time=NOW)] if finished else []))
    called: list[Generations] = []
    rescue = Rescuer.rescue

    def counted(self: Rescuer, generations: Generations) -> Any:
        called.append(generations)
        return rescue(self, generations)

    monkeypatch.setattr(Rescuer, "rescue", counted)
    result = scene.snapshot()
    assert len(called) == traces
    assert result.manifest.generation == 1, "the manifest tells how far its writer had looked"


def test_a_generation_that_came_and_went_while_the_run_was_under_way_is_noticed(scene: Scene) -> None:
    def come_and_go() -> None:
        condemned = hashes(scene.packs)
        scene.announce(
            Mark(generation=1, time=NOW, packs=condemned),
            Sweep(generation=1, time=NOW, packs=condemned),
            Done(generation=1, time=NOW),
        )
        scene.delete(scene.packs)

    with pytest.raises(StorageError, match="removed meanwhile"):
        scene.snapshot(come_and_go)


def _flagged(scene: Scene) -> None:
    """Append a config with a feature of a later version that writers must know."""
    made = scene.made
    newest = made.open().config
    features = {"write": ["holographic-packs"]}
    made.put_config(
        newest.number + 1, made.body(number=newest.number + 1, previous=newest.digest, features=features)
    )


def test_a_config_that_came_meanwhile_stops_a_writer_that_does_not_know_its_flag(scene: Scene) -> None:
    with pytest.raises(Refused, match="to write to this repository needs the feature 'holographic-packs'"):
        _with_config_after_pending(scene)
    assert set(scene.slow.manifests()) == {scene.before.id.hex()}
    assert content_of(scene.world.session(operation="read"), scene.before), "reading goes on"


def test_a_config_that_came_meanwhile_goes_unnoticed_if_nobody_reads_it_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Repository, "refresh", lambda self, operation: self)
    result = _with_config_after_pending(scene)
    assert result.manifest.id.hex() in scene.slow.manifests()


def _with_config_after_pending(scene: Scene) -> SnapshotResult:
    def before(operation: Operation) -> None:
        if operation.kind == "put" and operation.name.startswith("pending/"):
            _flagged(scene)

    session = scene.world.session(scene.made.storage.disk, faults=Faults(before=before))
    return snapshot_files(session, [str(scene.tree)], options=OPTIONS)


def test_sparse_frames_are_absent_for_writers_and_still_readable(scene: Scene) -> None:
    sparse = tuple(frame.name for frame in scene.frames(scene.packs) if frame.kind == 10)
    scene.announce(
        Mark(generation=1, time=NOW, frames=sparse),
        Sweep(generation=1, time=NOW),
        Done(generation=1, time=NOW),
    )
    before = tree_content(scene.tree)
    del before["tree/new"]
    assert content_of(scene.world.session(), scene.before) == before
    result = scene.snapshot()
    assert result.manifest.statistics["new_bytes"] == sum(map(len, before.values())) + 3
    own = {frame.name for frame in scene.frames(pack_names(scene.objects) - scene.packs)}
    assert not own & set(sparse), "what is sparse is written anew, not carried"
    assert content_of(scene.world.session(), scene.before) == before
    scene.delete(pack for pack in scene.packs if scene.frames([pack])[0].kind == 10)
    assert scene.read(result.manifest) == tree_content(scene.tree)


def test_the_base_of_a_frame_is_a_dependency_like_the_frame(scene: Scene) -> None:
    ring, storage = scene.made.repository.ring, scene.made.storage
    old = random.Random(3).randbytes(20_000)
    new = old[:10_000] + b"changed" + old[10_000:]
    key, other = make_pack_key(ring, Kind.DATA_DIRECTORY), make_pack_key(ring, Kind.DATA_DIRECTORY)
    base = make_frame(ring, key, 0, [old])
    delta = make_frame(ring, other, 0, [new], base=Base(base.place.name, old))
    assert delta.place.base == base.place.name
    base_hash, _ = store(storage, carry(ring, Kind.DATA_DIRECTORY, [base]))
    store(storage, carry(ring, Kind.DATA_DIRECTORY, [delta]))
    write_tree(scene.tree, {"changed": new})
    result = scene.snapshot(lambda: scene.announce(Mark(generation=1, time=NOW, packs=(base_hash,))))
    assert result.manifest.statistics["new_bytes"] == 3, "the chunk in the delta frame was used"
    scene.delete([f"packs/{base_hash.hex()[:2]}/{base_hash.hex()}"])
    assert scene.read(result.manifest) == tree_content(scene.tree)
    assert content_of(scene.world.session(), result.manifest) == tree_content(scene.tree)


def test_a_run_gives_up_when_marks_keep_coming(scene: Scene) -> None:
    """Each look finds another generation that condemns what was just carried."""
    numbers = iter(range(1, 100))
    ring = scene.made.repository.ring

    def before(operation: Operation) -> None:
        pending = any(name.startswith("pending/") for name in scene.objects)
        if pending and (operation.kind, operation.name) == ("list", "gc/"):
            scene.announce(Mark(generation=next(numbers), time=NOW, packs=hashes(pack_names(scene.objects))))

    session = scene.world.session(scene.made.storage.disk, faults=Faults(before=before))
    with pytest.raises(StorageError, match="garbage collection keeps condemning what this run needs"):
        snapshot_files(session, [str(scene.tree)], options=OPTIONS)
    assert read_generations(scene.made.storage.again(), ring).highest >= 8
    assert set(scene.slow.manifests()) == {scene.before.id.hex()}

"""A snapshot may lose power at any moment, and no manifest lies.

Method: a repository holds one snapshot of a tree; the tree changes; a second snapshot, with a checkpoint in its middle, runs
on a storage that dies after 0, 1, 2, … steps (puts, deletes, barriers). For each death the disk is looked at
as it may be found: only what barriers made durable, all of it, a choice in between. Each time, by a host that has
never seen the repository: every manifest gives back its bytes, `verify` finds no damage, the next
snapshot succeeds and what was stored before the death is not stored again.
"""

import random
from pathlib import Path

import pytest
from support.sessions import World, content_of, make_world, storage_of, tree_content, write_tree
from support.simulated_storage import EVERYTHING, NOTHING_MORE, Faults, Operation, PowerCut, SimulatedDisk

from engine.files_snapshot import snapshot_files
from engine.snapshot_run import SnapshotOptions, SnapshotResult
from engine.verify import verify_repository
from repo_store.errors import HoldfastError, StorageError

OPTIONS = SnapshotOptions(checkpoint_bytes=700_000, host="host")
SEED = 20261123


def _files(seed: int, count: int) -> dict[str, bytes]:
    random_source = random.Random(seed)
    return {
        f"d{n % 7}/f{n}": random_source.randbytes(random_source.choice((0, 900, 9_000, 40_000, 150_000)))
        for n in range(count)
    }


def _snapshot(world: World, tree: Path, disk: SimulatedDisk, faults: Faults | None = None) -> SnapshotResult:
    return snapshot_files(world.session(disk, faults=faults), [str(tree)], options=OPTIONS)


class _Scene:
    """The repository before the second snapshot, and what each state of the tree holds."""

    def __init__(self, tmp_path: Path) -> None:
        self.world = make_world(tmp_path / "hosts")
        self.tree = write_tree(tmp_path / "tree", _files(SEED, 30))
        self.before = tree_content(self.tree)
        _snapshot(self.world, self.tree, self.world.disk)
        self.start = SimulatedDisk(self.world.disk.objects())
        write_tree(self.tree, _files(SEED + 1, 40))
        self.after = tree_content(self.tree)

    def fresh_disk(self) -> SimulatedDisk:
        return SimulatedDisk(self.start.objects())


@pytest.fixture
def scene(tmp_path: Path) -> _Scene:
    return _Scene(tmp_path)


def _steps_of_a_whole_run(scene: _Scene) -> int:
    session = scene.world.session(scene.fresh_disk())
    snapshot_files(session, [str(scene.tree)], options=OPTIONS)
    changes = [o for o in storage_of(session).operations if o.kind in ("put", "delete", "barrier")]
    assert sum(o.name.startswith("manifests/") for o in changes) >= 2, "one checkpoint, one end"
    return len(changes)


def _assert_nothing_lies(scene: _Scene, disk: SimulatedDisk) -> None:
    """Every manifest on the disk gives its bytes back, and verify agrees."""
    session = scene.world.session(disk)
    manifests = session.read_manifests()
    assert not manifests.damaged
    assert manifests.live, "the first snapshot is never lost"
    for manifest in manifests.live:
        content = content_of(session, manifest)
        if manifest.status == "partial":
            assert content.items() <= (scene.after.items() | scene.before.items())
        else:
            assert content in (scene.before, scene.after)
    report = verify_repository(session, data=True)
    assert report.status == "ok", report.damaged


def test_a_power_cut_after_any_step_of_a_snapshot_leaves_only_whole_manifests(scene: _Scene) -> None:
    steps = _steps_of_a_whole_run(scene)
    for cut_after in range(steps + 1):
        disk = scene.fresh_disk()
        finished = False
        try:
            _snapshot(scene.world, scene.tree, disk, Faults(cut_after=cut_after))
            finished = True
        except PowerCut:
            pass
        assert finished == (cut_after >= steps), f"one death for each of {steps} steps, not at {cut_after}"
        for seed in (NOTHING_MORE, EVERYTHING, cut_after + 2):
            found = disk.after_power_cut(seed)
            _assert_nothing_lies(scene, found)
        result = _snapshot(scene.world, scene.tree, found)
        assert content_of(scene.world.session(found), result.manifest) == scene.after


def test_what_was_stored_before_a_death_is_not_stored_again(scene: _Scene) -> None:
    disk = scene.fresh_disk()
    dies_at_the_first_table = Faults(fail=lambda o: o.kind == "put" and o.name.startswith("tables/"))
    with pytest.raises(StorageError):
        _snapshot(scene.world, scene.tree, disk, dies_at_the_first_table)
    uploaded = sum(len(data) for name, data in disk.objects().items() if name.startswith("packs/"))
    result = _snapshot(scene.world, scene.tree, disk)
    whole = _snapshot(scene.world, scene.tree, scene.fresh_disk())
    saved = whole.manifest.statistics["new_bytes"] - result.manifest.statistics["new_bytes"]
    assert saved > 400_000, f"{uploaded} bytes were there already"


def test_packs_of_a_dead_run_are_synced_before_a_table_names_them(scene: _Scene) -> None:
    disk = scene.fresh_disk()
    with pytest.raises(PowerCut):
        _snapshot(scene.world, scene.tree, disk, Faults(cut_after=2))
    # The packs are visible, but no barrier has made them durable; the next run must, or its manifest may lie.
    result = _snapshot(scene.world, scene.tree, disk)
    found = disk.after_power_cut(NOTHING_MORE)
    assert content_of(scene.world.session(found), result.manifest) == scene.after


@pytest.mark.parametrize("kind", ["put", "barrier", "list", "get", "info"])
def test_every_single_storage_error_fails_the_snapshot_and_loses_nothing(scene: _Scene, kind: str) -> None:
    session = scene.world.session(scene.fresh_disk())
    snapshot_files(session, [str(scene.tree)], options=OPTIONS)
    total = sum(o.kind == kind for o in storage_of(session).operations)
    for wanted in range(1, total + 1):
        disk, seen = scene.fresh_disk(), [0]

        def fails(operation: Operation, wanted: int = wanted, seen: list[int] = seen) -> bool:
            seen[0] += operation.kind == kind
            return operation.kind == kind and seen[0] == wanted

        try:
            result = _snapshot(scene.world, scene.tree, disk, Faults(fail=fails))
        except HoldfastError:
            pass
        else:
            assert kind in ("get", "list", "info"), f"{kind} number {wanted} failed and was not reported"
            assert content_of(scene.world.session(disk), result.manifest) == scene.after
        _assert_nothing_lies(scene, disk)


def test_a_lost_acknowledgement_of_the_manifest_is_reported_and_the_manifest_is_whole(scene: _Scene) -> None:
    disk = scene.fresh_disk()
    with pytest.raises(StorageError):
        _snapshot(
            scene.world,
            scene.tree,
            disk,
            Faults(lose_acknowledgement=lambda o: o.kind == "put" and o.name.startswith("manifests/")),
        )
    _assert_nothing_lies(scene, disk)


def test_a_full_disk_fails_the_snapshot_and_the_next_one_goes_on(scene: _Scene) -> None:
    size = sum(map(len, scene.start.objects().values()))
    for room in (0, 10_000, 300_000, 900_000, 1_500_000):
        disk = scene.fresh_disk()
        with pytest.raises(StorageError):
            _snapshot(scene.world, scene.tree, disk, Faults(bytes_max=size + room))
        _assert_nothing_lies(scene, disk)
        result = _snapshot(scene.world, scene.tree, disk)
        assert content_of(scene.world.session(disk), result.manifest) == scene.after


def test_the_order_of_writing_is_packs_table_pending_manifest_with_a_barrier_after_each(
    scene: _Scene,
) -> None:
    session = scene.world.session(scene.fresh_disk())
    snapshot_files(session, [str(scene.tree)], options=SnapshotOptions(host="host"))
    steps: list[str] = []
    for operation in storage_of(session).operations:
        kind = operation.name.partition("/")[0]
        step = operation.kind if operation.kind == "barrier" else f"{operation.kind} {kind}"
        look = operation.kind == "list" and kind == "gc" and "put pending" in steps
        if (operation.kind in ("put", "delete", "barrier") or look) and steps[-1:] != [step]:
            steps.append(step)
    assert steps == [
        *("put packs", "barrier", "put tables", "barrier", "put pending", "barrier", "list gc"),
        *("put manifests", "barrier", "delete pending"),
    ]


def test_a_snapshot_that_was_reported_survives_a_power_cut(scene: _Scene) -> None:
    disk = scene.fresh_disk()
    result = _snapshot(scene.world, scene.tree, disk)
    session = scene.world.session(disk.after_power_cut(NOTHING_MORE))
    (manifest,) = [m for m in session.read_manifests().live if m.id == result.manifest.id]
    assert content_of(session, manifest) == scene.after

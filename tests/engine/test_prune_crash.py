"""A prune may die at any step, and any later one goes on from there; no manifest ever lacks a byte.

Method: a repository holds several snapshots, some of them forgotten, and a finished generation; then a prune that
repacks, merges, sweeps and deletes runs on a storage that dies after 0, 1, 2, … steps. For each death the disk is looked
at as it may be found: only what barriers made durable, all of it, a choice in between. Each time the slow repository,
which shares no code with the product, reads every live manifest; then another host, which has never seen the
repository, takes a snapshot and prunes to the end.
"""

import random
from pathlib import Path

import pytest
from support.prunes import finish, forget, pack_names, prune, slow_content
from support.sessions import World, make_world, storage_of, tree_content, write_tree
from support.simulated_storage import EVERYTHING, NOTHING_MORE, Faults, Operation, PowerCut, SimulatedDisk

from engine.files_snapshot import snapshot_files
from engine.prune import PruneResult, plan_prune, run_prune
from engine.snapshot_run import SnapshotOptions
from engine.verify import verify_repository
from repo_store.errors import HoldfastError
from repo_store.key_ring import KeyRing

OPTIONS = SnapshotOptions(host="host")
SEED = 20261123
STEPS = ("put", "delete", "barrier")


class Scene:
    """Six snapshots of a tree of which a third changes each time; the first four are forgotten, one prune has run."""

    def __init__(self, tmp_path: Path) -> None:
        self.world: World = make_world(tmp_path / "hosts")
        self.tree = tmp_path / "tree"
        self.ring: KeyRing = self.world.session().ring
        self.live: dict[str, dict[str, bytes]] = {}
        source = random.Random(SEED)
        manifests = []
        for turn in range(6):
            sizes = (0, 900, 9_000, 60_000, 150_000)
            changed = {
                f"d{n % 5}/f{n}": source.randbytes(source.choice(sizes))
                for n in range(turn * 4, turn * 4 + 9)
            }
            write_tree(self.tree, changed)
            manifests.append(snapshot_files(self.world.session(), [str(self.tree)], options=OPTIONS).manifest)
            if turn >= 4:
                self.live[manifests[-1].id.hex()] = tree_content(self.tree)
            if turn == 1:
                for path in list(self.tree.rglob("f*"))[::2]:
                    path.unlink()
        forget(self.world.session(operation="prune"), *manifests[:4])
        prune(self.world)
        self.start = SimulatedDisk(self.world.disk.objects())

    def fresh_disk(self) -> SimulatedDisk:
        return SimulatedDisk(self.start.objects())

    def assert_whole(self, disk: SimulatedDisk) -> None:
        assert slow_content(disk, self.ring) == self.live

    def assert_goes_on(self, disk: SimulatedDisk) -> None:
        """Another host takes a snapshot and prunes until nothing is left to free."""
        result = snapshot_files(self.world.session(disk), [str(self.tree)], options=OPTIONS)
        finish(self.world, disk)
        expected = {**self.live, result.manifest.id.hex(): tree_content(self.tree)}
        assert slow_content(disk, self.ring) == expected
        report = verify_repository(self.world.session(disk))
        assert report.status == "ok", report.damaged


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("prune"))


def _steps(scene: Scene) -> list[Operation]:
    session = scene.world.session(scene.fresh_disk(), operation="prune")
    plan = plan_prune(session)
    assert plan.condemned and plan.merges, "the scene must have something to sweep and to merge"
    before = len(storage_of(session).operations)
    run_prune(session, plan)
    return storage_of(session).operations[before:]


def _run(scene: Scene, disk: SimulatedDisk, faults: Faults) -> PruneResult:
    return prune(scene.world, disk, faults=faults)


def test_a_power_cut_after_any_step_of_a_prune_loses_nothing(
    scene: Scene, request: pytest.FixtureRequest
) -> None:
    every = 1 if request.config.getoption("--full") else 8
    steps = sum(operation.kind in STEPS for operation in _steps(scene))
    for cut_after in range(steps + 1):
        disk = scene.fresh_disk()
        finished = False
        try:
            _run(scene, disk, Faults(cut_after=cut_after))
            finished = True
        except PowerCut:
            pass
        assert finished == (cut_after >= steps), f"one death for each of {steps} steps, not at {cut_after}"
        for seed in (NOTHING_MORE, EVERYTHING, cut_after + 2):
            found = disk.after_power_cut(seed)
            scene.assert_whole(found)
        if cut_after % every == every // 2:
            scene.assert_goes_on(found)


@pytest.mark.parametrize("kind", ["put", "delete", "barrier", "list", "get"])
def test_every_single_storage_error_fails_the_prune_and_loses_nothing(
    scene: Scene, kind: str, request: pytest.FixtureRequest
) -> None:
    session = scene.world.session(scene.fresh_disk(), operation="prune")
    run_prune(session, plan_prune(session))
    total = sum(operation.kind == kind for operation in storage_of(session).operations)
    full = request.config.getoption("--full")
    chosen = range(1, total + 1, 1 if full else max(1, total // 12))
    for wanted in chosen:
        disk, seen = scene.fresh_disk(), [0]

        def fails(operation: Operation, wanted: int = wanted, seen: list[int] = seen) -> bool:
            seen[0] += operation.kind == kind
            return operation.kind == kind and seen[0] == wanted

        try:
            _run(scene, disk, Faults(fail=fails))
        except HoldfastError:
            pass
        else:
            assert kind in ("get", "list"), f"{kind} number {wanted} failed and was not reported"
        scene.assert_whole(disk)
    scene.assert_goes_on(disk)


def test_a_lost_acknowledgement_of_any_record_is_survived(scene: Scene) -> None:
    for stage in ("mark", "sweep", "done"):
        disk = scene.fresh_disk()
        lose = Faults(lose_acknowledgement=lambda o, s=stage: o.kind == "put" and o.name.endswith(s))  # type: ignore[misc]
        with pytest.raises(HoldfastError):
            _run(scene, disk, lose)
        scene.assert_whole(disk)
        assert finish(scene.world, disk).bytes_left < sum(
            len(data) for name, data in scene.start.objects().items() if name.startswith("packs/")
        )
        scene.assert_whole(disk)


def test_what_is_freed_is_all_that_nobody_needs(scene: Scene) -> None:
    disk = scene.fresh_disk()
    finish(scene.world, disk)
    scene.assert_whole(disk)
    assert not any(name.startswith("pending/") for name in disk.objects())
    generations = {name.partition(".")[0] for name in disk.objects() if name.startswith("gc/")}
    assert len(generations) == 1, "old generations are removed, the highest stays"
    kept = len(pack_names(disk))
    finish(scene.world, disk)
    assert len(pack_names(disk)) == kept, "a prune with nothing to do does nothing"

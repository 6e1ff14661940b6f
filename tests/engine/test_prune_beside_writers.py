"""Prune beside writers: whatever the two do at the same time, what is committed restores.

Method: the tree goes back to a state whose manifest was forgotten, so that a snapshot wants chunks that a prune is about
to take. Then one runs inside the other: a whole snapshot before any operation of a prune; a whole prune before any
operation of a snapshot; and a prune that stops for ever after some steps inside a snapshot, to be finished by another
host. The slow repository reads every manifest afterwards. A snapshot that begins between two prunes never fails for the
second one. The negative controls take one protection away, and see a manifest break.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.prunes import finish, forget, prune, slow_content
from support.sessions import make_world, storage_of, tree_content, write_tree
from support.simulated_storage import Faults, Operation, SimulatedDisk
from support.slow_repository import Lost

import repo_store.commit
from engine.files_snapshot import snapshot_files
from engine.prune import plan_prune, run_prune
from engine.prune_roots import Roots, look
from engine.snapshot_run import SnapshotOptions, SnapshotResult
from repo_store.errors import Refused, StorageError
from repo_store.gc_log import read_log
from repo_store.generation import Done
from repo_store.generations import Generations

OPTIONS = SnapshotOptions(host="host")


class Stopped(BaseException):
    """A prune that goes no further: its process is gone, what it put is there."""


class Scene:
    """Two trees, `old` and `new`; the snapshot of the old one is forgotten; `prunes` have run since."""

    def __init__(self, folder: Path, *, prunes: int) -> None:
        self.world = make_world(folder / "hosts")
        source = random.Random(5)
        shared = {f"s/f{n}": source.randbytes(30_000) for n in range(6)}
        self.tree = write_tree(folder / "tree", shared)
        shares = self.snapshot(self.world.disk).manifest
        write_tree(
            self.tree, {f"o/f{n}": source.randbytes(50_000) for n in range(6)}
        )  # in a pack of their own
        self.old = tree_content(self.tree)
        first = self.snapshot(self.world.disk).manifest
        for path in (self.tree / "o").iterdir():
            path.rename(self.tree / f"moved-{path.name}")  # the same chunks in another tree, for a while
        kept = self.snapshot(self.world.disk).manifest
        for path in self.tree.glob("moved-*"):
            path.unlink()
        write_tree(self.tree, {f"n/f{n}": source.randbytes(40_000) for n in range(4)})
        newest = self.snapshot(self.world.disk).manifest
        self.live = {newest.id.hex(): tree_content(self.tree)}
        forget(self.world.session(operation="prune"), shares, first, kept)
        self.ring = self.world.session().ring
        for _ in range(prunes):
            prune(self.world)
        for name, data in self.old.items():
            path = self.tree.parent / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        self.wanted = tree_content(self.tree)
        self.start = SimulatedDisk(self.world.disk.objects())

    def snapshot(self, disk: SimulatedDisk, faults: Faults | None = None) -> SnapshotResult:
        return snapshot_files(self.world.session(disk, faults=faults), [str(self.tree)], options=OPTIONS)

    def fresh(self) -> SimulatedDisk:
        return SimulatedDisk(self.start.objects())

    def assert_whole(self, disk: SimulatedDisk, *results: SnapshotResult) -> None:
        expected = {**self.live, **{result.manifest.id.hex(): self.wanted for result in results}}
        assert slow_content(disk, self.ring) == expected


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The old data was found unneeded by a prune, and the next one takes it."""
    return Scene(tmp_path_factory.mktemp("beside"), prunes=1)


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """No prune has run yet."""
    return Scene(tmp_path_factory.mktemp("early"), prunes=0)


def at(number: int, action: Callable[[], object]) -> Faults:
    """Let `action` happen before the operation of this number."""

    def before(operation: Operation) -> None:
        if operation.number == number:
            action()

    return Faults(before=before)


def chosen(total: int, count: int, *, full: bool) -> list[int]:
    """Return which operations to interrupt: all, or `count` spread over them."""
    return (
        list(range(1, total + 1))
        if full
        else sorted({1 + number * total // count for number in range(count)})
    )


def operations_of_a_prune(scene: Scene) -> int:
    session = scene.world.session(scene.fresh(), operation="prune")
    run_prune(session, plan_prune(session))
    return len(storage_of(session).operations)


def operations_of_a_snapshot(scene: Scene) -> int:
    session = scene.world.session(scene.fresh())
    snapshot_files(session, [str(scene.tree)], options=OPTIONS)
    return len(storage_of(session).operations)


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--full"))


def test_a_snapshot_at_any_moment_of_a_prune_restores(scene: Scene, full: bool) -> None:
    for number in chosen(operations_of_a_prune(scene), 8, full=full):
        disk = scene.fresh()
        results: list[SnapshotResult] = []
        prune(scene.world, disk, faults=at(number, lambda d=disk, r=results: r.append(scene.snapshot(d))))  # type: ignore[misc]
        assert len(results) == 1
        scene.assert_whole(disk, *results)
    finish(scene.world, disk)
    scene.assert_whole(disk, *results)


def test_a_snapshot_that_began_after_the_last_prune_is_never_failed_by_the_next(
    scene: Scene, full: bool
) -> None:
    """Nor does it wait: it commits all that it was asked to, whenever the prune comes."""
    for number in chosen(operations_of_a_snapshot(scene), 8, full=full):
        disk = scene.fresh()
        result = scene.snapshot(disk, at(number, lambda d=disk: prune(scene.world, d)))  # type: ignore[misc]
        scene.assert_whole(disk, result)
    finish(scene.world, disk)
    scene.assert_whole(disk, result)


def test_two_prunes_within_a_snapshot_fail_it_cleanly_or_not_at_all(early: Scene, full: bool) -> None:
    failed = 0

    def twice(disk: SimulatedDisk) -> None:
        prune(early.world, disk)
        prune(early.world, disk)

    for number in chosen(operations_of_a_snapshot(early), 8, full=full):
        disk = early.fresh()
        results: list[SnapshotResult] = []
        try:
            results.append(early.snapshot(disk, at(number, lambda d=disk: twice(d))))  # type: ignore[misc]
        except StorageError as error:
            assert error.hint is not None and "run it again" in error.hint
            failed += 1
        early.assert_whole(disk, *results)
        finish(early.world, disk)
        early.assert_whole(disk, *results)
    assert failed, "the scene must come to the point where a snapshot lost what it had counted on"


def test_a_prune_that_stops_for_ever_within_a_snapshot_is_finished_by_another(
    scene: Scene, full: bool
) -> None:
    snapshots, prunes = operations_of_a_snapshot(scene), operations_of_a_prune(scene)
    source = random.Random(11)
    pairs = [
        (source.randint(1, snapshots), source.randint(prunes // 2, prunes))
        for _ in range(400 if full else 10)
    ]
    for outer, inner in pairs:
        disk = scene.fresh()

        def stop() -> None:
            raise Stopped

        def part(disk: SimulatedDisk = disk, inner: int = inner) -> None:
            with suppress(Stopped):
                prune(scene.world, disk, faults=at(inner, stop))

        result = scene.snapshot(disk, at(outer, part))
        scene.assert_whole(disk, result)
        finish(scene.world, disk)
        scene.assert_whole(disk, result)


def test_two_prunes_at_once_agree(scene: Scene, full: bool) -> None:
    for number in chosen(operations_of_a_prune(scene), 8, full=full):
        disk = scene.fresh()
        try:
            prune(scene.world, disk, faults=at(number, lambda d=disk: prune(scene.world, d)))  # type: ignore[misc]
        except Refused as error:
            assert error.hint == "run it again"
        scene.assert_whole(disk)
        finish(scene.world, disk)
        scene.assert_whole(disk)


def test_a_slow_prune_that_wakes_up_late_removes_nothing_more(scene: Scene, full: bool) -> None:
    """Others finish its generation, and the next, and remove the records; a snapshot counts on what they spared."""
    for number in chosen(operations_of_a_prune(scene), 8, full=full):
        disk = scene.fresh()
        results: list[SnapshotResult] = []

        def meanwhile(disk: SimulatedDisk = disk, results: list[SnapshotResult] = results) -> None:
            prune(scene.world, disk)
            results.append(scene.snapshot(disk))
            prune(scene.world, disk)
            prune(scene.world, disk)

        with suppress(Refused):
            prune(scene.world, disk, faults=at(number, meanwhile))
        scene.assert_whole(disk, *results)


# What the protections are for.


def test_a_pack_that_was_not_unneeded_before_would_be_lost(
    early: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the rule of the generation before, a snapshot that reuses what was just forgotten is failed at once."""
    real = read_log

    def everything(storage: Any, ring: Any) -> Any:
        log = real(storage, ring)
        packs = [bytes.fromhex(info.name[-64:]) for info in storage.list("packs/")]
        return type(log)(
            log.names, log.mark, log.sweep, log.done, Done(generation=1, time=1, unreferenced=tuple(packs))
        )

    monkeypatch.setattr("engine.prune.read_log", everything)
    monkeypatch.setattr("engine.prune_generation.read_log", everything)
    total = operations_of_a_snapshot(early)
    failed = 0
    for number in chosen(total, 8, full=False):
        disk = early.fresh()
        try:
            early.snapshot(disk, at(number, lambda d=disk: prune(early.world, d)))  # type: ignore[misc]
        except StorageError:
            failed += 1
    assert failed, "one prune within a snapshot would fail it"


def test_a_manifest_would_be_lost_if_prune_looked_for_no_pendings(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = look

    def blind(session: Any, needs: Any, **options: Any) -> Roots:
        return real(session, needs, **{**options, "pendings": False})

    monkeypatch.setattr("engine.prune.look", blind)
    monkeypatch.setattr("engine.prune_generation.look", blind)
    assert _breaks(scene, monkeypatch), "nothing in the scene depends on the look at pendings"


def test_a_manifest_would_be_lost_if_its_writer_looked_for_no_marks(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(storage: Any, ring: Any, seen: Generations, rescue: Any) -> Generations:
        return seen

    monkeypatch.setattr(repo_store.commit, "_settle_dependencies", blind)
    assert _breaks(scene, monkeypatch), "nothing in the scene depends on the look at marks"


def _breaks(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Say whether some moment of a prune, with a writer that knows nothing of the one before, breaks a manifest."""
    forgetful = Generations(0, False, frozenset(), frozenset(), frozenset(), frozenset())
    total = operations_of_a_snapshot(scene)
    for number in range(total - 22, total + 2):
        disk = scene.fresh()
        session = scene.world.session(disk, faults=at(number, lambda d=disk: prune(scene.world, d)))  # type: ignore[misc]
        session.generations = forgetful
        try:
            snapshot_files(session, [str(scene.tree)], options=OPTIONS)
            slow_content(disk, scene.ring)
        except Lost:
            return True
        except StorageError:
            continue
    return False


def test_the_log_is_what_its_records_say(scene: Scene) -> None:
    log = read_log(scene.world.session(scene.fresh()).storage, scene.ring)
    assert (log.highest, log.is_open) == (1, False)
    assert log.before is not None and log.before.unreferenced

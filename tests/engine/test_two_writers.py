"""Several runs at once, in processes and threads, into one repository: all commit, and all of it restores.

Method: real processes that start together on a real disk, with a pause before each change of the storage so that they
really overlap, sharing one cache or each with its own, with different trees and with one tree; one of two killed while
the other runs. The moment that makes a fork certain, two runs between looking for the newest manifest and
committing theirs, is made with threads that wait for each other on a simulated disk.
"""

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.processes import Content, Ended, Host, make_host, objects, random_files, wait_for_objects
from support.sessions import World, content_of, make_world, tree_content, write_tree
from support.simulated_storage import Faults, Operation

from engine.files_snapshot import snapshot_files
from engine.progress import Progress
from engine.snapshot_run import SnapshotOptions, SnapshotResult, SnapshotRun
from engine.verify import verify_repository
from repo_store.manifest import Manifest

SEED = 20261126
PAUSE_MS = 10
HANG_SECONDS = 60


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return make_host(tmp_path / "host")


def _second(host: Host, cache: str) -> Host:
    return host if cache == "shared" else host.beside("second")


def _run_together(*commands: tuple[Host, Path], pause_ms: int = PAUSE_MS) -> list[Ended]:
    """Start a snapshot for each (host, tree) at once and wait for all."""
    started = [host.start("snapshot", "files", tree, "--json", pause_ms=pause_ms) for host, tree in commands]
    return [running.wait() for running in started]


def _tree(tmp_path: Path, name: str, seed: int, count: int = 16) -> Path:
    return write_tree(tmp_path / name, random_files(seed, count))


def _committed(ended: list[Ended], manifests: list[Manifest]) -> list[Manifest]:
    """Check that every run succeeded, and return the manifests that they say they made."""
    assert [each.code for each in ended] == [0] * len(ended), ended
    assert [each.err for each in ended] == [""] * len(ended)
    by_id = {manifest.id.hex(): manifest for manifest in manifests}
    found = [by_id[json.loads(each.out)["manifest"]] for each in ended]
    assert all(manifest.status == "complete" for manifest in found)
    return found


@pytest.mark.parametrize("cache", ["shared", "separate"])
@pytest.mark.parametrize("rounds", [1, pytest.param(12, marks=pytest.mark.full)])
def test_two_processes_with_different_trees_both_commit(
    tmp_path: Path, host: Host, cache: str, rounds: int
) -> None:
    second = _second(host, cache)
    states: list[Content] = []
    for number in range(rounds):
        print(f"seed {SEED}, round {number}")
        trees = [_tree(tmp_path, name, SEED + 10 * number + i) for i, name in enumerate(("one", "two"))]
        states += [tree_content(tree) for tree in trees]
        ended = _run_together((host, trees[0]), (second, trees[1]))
        manifests = host.assert_nothing_lies(states)
        found = _committed(ended, manifests)
        assert len({manifest.series for manifest in found}) == 2
        for manifest, state in zip(found, states[-2:], strict=True):
            assert content_of(host.fresh_session(), manifest) == state
    assert not objects(host.location, "pending")


@pytest.mark.parametrize("cache", ["shared", "separate"])
@pytest.mark.parametrize("rounds", [2, pytest.param(12, marks=pytest.mark.full)])
def test_two_processes_with_one_tree_both_commit_and_the_series_stays_whole(
    tmp_path: Path, host: Host, cache: str, rounds: int
) -> None:
    second = _second(host, cache)
    states: list[Content] = []
    for number in range(rounds):
        print(f"seed {SEED}, round {number}")
        tree = _tree(tmp_path, "one", SEED + number)
        states.append(tree_content(tree))
        found = _committed(_run_together((host, tree), (second, tree)), host.assert_nothing_lies(states))
        session = host.fresh_session()
        assert [content_of(session, manifest) for manifest in found] == [states[-1]] * 2
    _assert_is_a_history(host.fresh_session().read_manifests().live)


def _assert_is_a_history(manifests: list[Manifest]) -> None:
    """Check that every manifest follows one that is there, and counts on from it, whatever forked."""
    assert len({manifest.series for manifest in manifests}) == 1
    by_id = {manifest.id: manifest for manifest in manifests}
    for manifest in manifests:
        if manifest.previous is None:
            assert manifest.sequence == 1
        else:
            before = by_id[manifest.previous[0]]
            assert manifest.previous[1] == before.hash
            assert manifest.sequence == before.sequence + 1


@pytest.mark.parametrize("count", [3, pytest.param(8, marks=pytest.mark.full)])
def test_many_processes_at_once_do_not_store_what_is_there_already(
    tmp_path: Path, host: Host, count: int
) -> None:
    tree = _tree(tmp_path, "one", SEED)
    host.snapshot(tree)
    new = write_tree(tmp_path / "one", {f"new/{n}": bytes([n]) * 50_000 for n in range(5)})
    hosts = [host, *(host.beside(f"host{n}") for n in range(1, count))]
    ended = _run_together(*((each, new) for each in hosts))
    found = _committed(ended, host.assert_nothing_lies([tree_content(tree), _without(tree, "new/")]))
    assert all(manifest.statistics["new_bytes"] <= 5 * 50_000 for manifest in found)


def _without(tree: Path, part: str) -> Content:
    return {name: data for name, data in tree_content(tree).items() if f"/{part}" not in name}


@pytest.mark.parametrize(
    ("kind", "cache"),
    [
        ("packs", "shared"),
        ("tables", "separate"),
        *(
            pytest.param(*case, marks=pytest.mark.full)
            for case in (("tables", "shared"), ("packs", "separate"), ("pending", "shared"))
        ),
    ],
)
def test_one_of_two_is_killed_and_the_other_commits(
    tmp_path: Path, host: Host, kind: str, cache: str
) -> None:
    tree = _tree(tmp_path, "one", SEED, 40)
    second = _second(host, cache)
    survivor = host.start("snapshot", "files", tree, "--json", pause_ms=25)
    victim = second.start("snapshot", "files", tree, "--json", pause_ms=15)
    wait_for_objects(victim, host.location, kind, 1)
    victim.kill()
    ended = survivor.wait()
    manifests = host.assert_nothing_lies([tree_content(tree)])
    _committed([ended], manifests)
    again = second.run("snapshot", "files", tree, "--json")
    (manifest,) = _committed([again], second.assert_nothing_lies([tree_content(tree)]))
    assert manifest.statistics["new_bytes"] == 0, "the survivor had stored all of it"


def test_a_reader_beside_a_writer_gets_whole_manifests(tmp_path: Path, host: Host) -> None:
    trees = [_tree(tmp_path, "one", SEED), _tree(tmp_path, "two", SEED + 1, 60)]
    host.snapshot(trees[0])
    writer = host.start("snapshot", "files", trees[1], pause_ms=PAUSE_MS)
    verified = 0
    while not writer.ended or not verified:
        host.assert_nothing_lies([tree_content(tree) for tree in trees])
        verified += 1
    assert writer.wait().code == 0
    assert len(host.assert_nothing_lies([tree_content(tree) for tree in trees])) >= 2


# In threads, on a simulated disk: the moments are chosen.


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "hosts")


def _in_threads(jobs: list[Callable[[], SnapshotResult]]) -> list[SnapshotResult]:
    """Run the jobs at once and return their results. A hang or an error fails the test."""
    results: dict[int, SnapshotResult] = {}
    errors: list[BaseException] = []

    def run(number: int, job: Callable[[], SnapshotResult]) -> None:
        try:
            results[number] = job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_SECONDS)
        assert not thread.is_alive(), "a run hangs"
    assert not errors, errors
    return [results[number] for number in range(len(jobs))]


def _meeting(count: int, place: str) -> Faults:
    """Make the runs of `count` threads wait for each other before they put their first object below `place`."""
    meet = threading.Barrier(count, timeout=HANG_SECONDS)
    arrived: set[int] = set()

    def before(operation: Operation) -> None:
        if operation.kind == "put" and operation.name.startswith(place):
            thread = threading.get_ident()
            if thread not in arrived:
                arrived.add(thread)
                meet.wait()

    return Faults(before=before)


@pytest.mark.parametrize("place", ["tables/", "pending/", "manifests/"])
@pytest.mark.parametrize("count", [2, 3])
def test_runs_of_one_series_that_overlap_fork_it_and_all_are_kept(
    tmp_path: Path, world: World, place: str, count: int
) -> None:
    tree = _tree(tmp_path, "tree", SEED, 8)
    options = SnapshotOptions(host="host")
    first = snapshot_files(world.session(), [str(tree)], options=options)
    states = [tree_content(tree)]
    write_tree(tree, random_files(SEED + 1, 8))
    states.append(tree_content(tree))
    faults = _meeting(count, place)
    sessions = [world.session(faults=faults) for _ in range(count)]
    results = _in_threads(
        [lambda s=s: snapshot_files(s, [str(tree)], options=options) for s in sessions]  # type: ignore[misc]
    )
    for result in results:
        assert result.manifest.sequence == 2
        assert result.manifest.previous == (first.manifest.id, first.manifest.hash)
    session = world.session()
    manifests = session.read_manifests().live
    assert len(manifests) == count + 1
    for manifest in manifests:
        assert content_of(session, manifest) in states
    _assert_is_a_history(manifests)
    assert verify_repository(session, data=True).status == "ok"
    after = snapshot_files(world.session(), [str(tree)], options=options).manifest
    assert (after.sequence, after.statistics["new_bytes"]) == (3, 0)
    assert after.previous is not None
    assert after.previous[0] in {result.manifest.id for result in results}


def test_threads_with_different_trees_share_nothing_but_the_repository(tmp_path: Path, world: World) -> None:
    trees = [_tree(tmp_path, f"tree{n}", SEED + n, 10) for n in range(4)]
    sessions = [world.session() for _ in trees]
    results = _in_threads(
        [lambda s=s, t=t: snapshot_files(s, [str(t)]) for s, t in zip(sessions, trees, strict=True)]  # type: ignore[misc]
    )
    session = world.session()
    for result, tree in zip(results, trees, strict=True):
        assert content_of(session, result.manifest) == tree_content(tree)
    assert verify_repository(session, data=True).status == "ok"
    kinds = Counter(name.partition("/")[0] for name in world.disk.objects())
    assert (kinds["manifests"], kinds["pending"]) == (4, 0)


def test_show_names_the_fork_and_verify_does_not_mind(host: Host) -> None:
    options = SnapshotOptions(series="s", host="h")
    runs = [
        SnapshotRun(host.world.session(), source="files", name="n", options=options, progress=Progress())
        for _ in range(2)  # both have looked for the newest manifest before either commits
    ]
    ids = []
    for run in runs:
        with run:
            ids.append(run.finish().manifest.id.hex())
    shown = host.run("show", ids[0], "--json")
    assert json.loads(shown.out)["forks"] == [ids[1]]
    assert host.run("verify").code == 0
    assert len(host.fresh_session().read_manifests().live) == 2

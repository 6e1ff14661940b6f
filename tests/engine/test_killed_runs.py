"""Real runs that are killed or interrupted at any moment leave a repository in which nothing lies and nothing is lost.

Method: a repository holds one snapshot of a tree; the tree changes; `holdfast` in a process of its own backs it up and
is ended: by SIGKILL after a delay drawn from a seed and spread over the length of a run, or as soon as the
Nth new object of a kind can be seen; by SIGINT and SIGTERM. What must hold then is in `Host.assert_nothing_lies`; and
the next run, with the cache of the dead one, must succeed and store again nothing of what had landed.
"""

import fcntl
import random
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.processes import (
    MIB,
    Content,
    Ended,
    Host,
    Running,
    make_host,
    objects,
    random_files,
    wait_for_objects,
)
from support.sessions import content_of, tree_content, write_tree
from support.trees import compare_trees

from engine.files_snapshot import snapshot_files
from engine.snapshot_run import SnapshotResult

SEED = 20261124
PAUSE_MS = 15
PRODUCER = (
    "import os, random, sys, time; open(sys.argv[1], 'w').write(str(os.getpid()));"
    "sys.stdout.buffer.write(random.Random(5).randbytes(int(sys.argv[2])));"
    "sys.stdout.buffer.flush(); open(sys.argv[1] + '.done', 'x'); time.sleep(150)"
)


@dataclass
class Scene:
    """A repository before the run that will die, and what the tree held then and holds now."""

    host: Host
    tree: Path
    before: Content
    after: Content
    new_bytes: int
    seconds: float
    """What a run takes from its first object to its end, measured."""

    def fresh(self, folder: Path) -> Host:
        return self.host.copy(folder / "host")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("killed")
    host = make_host(folder / "host")
    tree = write_tree(folder / "tree", random_files(SEED, 20))
    before = tree_content(tree)
    snapshot_files(host.world.session(), [str(tree)])
    write_tree(tree, random_files(SEED + 1, 64))
    whole = host.copy(folder / "whole")
    running = whole.start("snapshot", "files", tree, pause_ms=PAUSE_MS)
    wait_for_objects(running, whole.location, "packs", 1, len(objects(host.location, "packs")))
    started = time.monotonic()
    assert running.wait().code == 0
    seconds = time.monotonic() - started
    manifests = whole.assert_nothing_lies([before, tree_content(tree)])
    assert [m.status for m in manifests].count("partial") >= 2, "a run keeps checkpoints on its way"
    return Scene(host, tree, before, tree_content(tree), manifests[-1].statistics["new_bytes"], seconds)


def _new(scene: Scene, host: Host, kind: str) -> dict[str, int]:
    before = objects(scene.host.location, kind)
    return {name: size for name, size in objects(host.location, kind).items() if name not in before}


def _landed_bytes(scene: Scene, host: Host) -> int:
    """Return the size of the data packs that a run has left: those of metadata are smaller here."""
    return sum(size for size in _new(scene, host, "packs").values() if size > MIB)


def _next_snapshot(scene: Scene, host: Host) -> SnapshotResult:
    result = snapshot_files(host.world.session(), [str(scene.tree)])
    assert result.manifest.status == "complete"
    assert content_of(host.fresh_session(), result.manifest) == scene.after
    return result


def _assert_survived(scene: Scene, host: Host) -> None:
    """Check what a death left, then that the next run finishes the work without storing it again."""
    landed = _landed_bytes(scene, host)
    host.assert_nothing_lies([scene.before, scene.after])
    result = _next_snapshot(scene, host)
    stored_again = result.manifest.statistics["new_bytes"] - max(0, scene.new_bytes - landed)
    assert stored_again < MIB, f"{landed} bytes had landed"
    host.assert_nothing_lies([scene.before, scene.after])


def _kill_after(running: Running, scene: Scene, host: Host, share: float) -> Ended:
    """Kill at a share of the run's length after its first object."""
    wait_for_objects(running, host.location, "packs", 1, len(objects(scene.host.location, "packs")))
    time.sleep(scene.seconds * share)
    return running.kill()


@pytest.mark.parametrize(
    "number", [*range(6), *(pytest.param(n, marks=pytest.mark.full) for n in range(6, 200))]
)
def test_a_snapshot_killed_at_any_time_loses_nothing(scene: Scene, tmp_path: Path, number: int) -> None:
    share = (number % 6 + random.Random(SEED + number).random()) / 6  # spread, whatever the seed
    host = scene.fresh(tmp_path)
    running = host.start("snapshot", "files", scene.tree, pause_ms=PAUSE_MS)
    ended = _kill_after(running, scene, host, share)
    print(f"seed {SEED}, number {number}: killed at {share:.3f} of {scene.seconds:.2f} s, {ended.code}")
    _assert_survived(scene, host)


MOMENTS = [("packs", 1), ("packs", 4), ("tables", 1), ("pending", 1), ("manifests", 1), ("manifests", 2)]
MORE_MOMENTS = [
    (kind, count)
    for kind, most in (("packs", 12), ("tables", 4), ("pending", 1), ("manifests", 4))
    for count in range(1, most + 1)
] * 5


@pytest.mark.parametrize(
    ("kind", "count", "repetition"),
    [
        *((kind, count, 0) for kind, count in MOMENTS),
        *(pytest.param(*moment, n, marks=pytest.mark.full) for n, moment in enumerate(MORE_MOMENTS, 1)),
    ],
)
def test_a_snapshot_killed_when_an_object_appears_loses_nothing(
    scene: Scene, tmp_path: Path, kind: str, count: int, repetition: int
) -> None:
    host = scene.fresh(tmp_path)
    # Without a pause the kill comes where it comes; with one, before the step that follows the object.
    running = host.start("snapshot", "files", scene.tree, pause_ms=[40, 0, 5][repetition % 3])
    seen = wait_for_objects(running, host.location, kind, count, len(objects(scene.host.location, kind)))
    ended = running.kill()
    assert seen or ended.code == 0, ended
    _assert_survived(scene, host)


def test_a_snapshot_killed_again_and_again_gets_done(scene: Scene, tmp_path: Path) -> None:
    host = scene.fresh(tmp_path)
    for _ in range(4):
        packs = len(objects(host.location, "packs"))
        running = host.start("snapshot", "files", scene.tree, pause_ms=PAUSE_MS, checkpoint_bytes=10**12)
        wait_for_objects(running, host.location, "packs", 2, packs)
        running.kill()
    landed = sum(_new(scene, host, "packs").values())
    assert landed <= scene.new_bytes + 8 * MIB, "nothing is uploaded twice, killed or not"
    _assert_survived(scene, host)


def _interrupt(host: Host, running: Running, packs: int, number: int) -> Ended:
    assert wait_for_objects(running, host.location, "packs", 1, packs)
    running.signal(number)
    return running.wait()


def _checkpoint_of(host: Host, scene: Scene, ended: Ended) -> str:
    """Return the id, or its start, of the checkpoint that the message of an interrupted run names."""
    assert ended.code == 130, ended
    assert ended.out == ""
    (line,) = ended.lines()
    assert line.startswith("holdfast: interrupted; the checkpoint ") and line.endswith(" was kept")
    assert "hint: the next snapshot of this series goes on from there" in ended.err
    assert not _new(scene, host, "pending")
    return line.split()[4]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_snapshot_keeps_a_checkpoint_that_restores(
    scene: Scene, tmp_path: Path, number: int
) -> None:
    host = scene.fresh(tmp_path)
    # More than the buffers of a run hold, or it may have read all before its first pack has landed.
    more = write_tree(tmp_path / "more", random_files(SEED + 2, 100))
    states = [scene.before, {**scene.after, **tree_content(more)}]
    command = ("snapshot", "files", scene.tree, more)
    running = host.start(*command, pause_ms=30, checkpoint_bytes=10**12)
    ended = _interrupt(host, running, len(objects(host.location, "packs")), number)
    kept = _checkpoint_of(host, scene, ended)
    manifests = host.assert_nothing_lies(states)
    assert [(m.status, m.id.hex()[: len(kept)]) for m in manifests[1:]] == [("partial", kept)]
    content = content_of(host.fresh_session(), manifests[1])
    assert content, "there is something in it"
    assert host.run(*command, checkpoint_bytes=0).code == 0
    newest = host.assert_nothing_lies(states)[-1]
    assert (newest.status, newest.previous) == ("complete", (manifests[1].id, manifests[1].hash))
    new = sum(map(len, states[1].values())) - sum(map(len, content.values()))
    assert newest.statistics["new_bytes"] <= new, "what the checkpoint holds is not stored again"


def test_a_second_interrupt_ends_a_snapshot_without_waiting_for_its_checkpoint(
    scene: Scene, tmp_path: Path
) -> None:
    host = scene.fresh(tmp_path)
    running = host.start("snapshot", "files", scene.tree, pause_ms=1000, checkpoint_bytes=10**12)
    assert wait_for_objects(running, host.location, "packs", 1, len(objects(host.location, "packs")))
    running.signal(signal.SIGINT)
    time.sleep(0.7)  # the checkpoint has at least seven pauses to go
    running.signal(signal.SIGINT)
    ended = running.wait()
    assert (ended.code, ended.err) == (130, "holdfast: interrupted\n")
    assert not _new(scene, host, "manifests")
    _assert_survived(scene, host)


@pytest.mark.parametrize(
    "number", [*range(2), *(pytest.param(n, marks=pytest.mark.full) for n in range(2, 60))]
)
def test_an_interrupt_at_any_time_ends_cleanly(scene: Scene, tmp_path: Path, number: int) -> None:
    source = random.Random(SEED + number)
    share = (number % 2 + source.random()) / 2
    host = scene.fresh(tmp_path)
    running = host.start("snapshot", "files", scene.tree, pause_ms=PAUSE_MS)
    wait_for_objects(running, host.location, "packs", 1, len(objects(scene.host.location, "packs")))
    time.sleep(scene.seconds * share)
    running.signal(source.choice([signal.SIGINT, signal.SIGTERM]))
    if source.random() < 0.4:
        time.sleep(source.random() * 0.1)
        running.signal(signal.SIGINT)
    ended = running.wait()
    print(f"seed {SEED}, number {number}: interrupted at {share:.3f}", ended)
    # Python itself dies of a signal that comes when all is said and done.
    assert ended.code in (0, 130) or (ended.code in (-signal.SIGINT, -signal.SIGTERM) and ended.out)
    assert "Traceback" not in ended.err and "bug" not in ended.err
    _assert_survived(scene, host)


def _random_bytes(count: int) -> bytes:
    """Return what PRODUCER prints."""
    return random.Random(5).randbytes(count)


def _producer(folder: Path, count: int) -> list[str]:
    return [sys.executable, "-c", PRODUCER, str(folder / "pid"), str(count)]


@contextmanager
def _producing(folder: Path, count: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a producer that would go on for minutes, and end it, whatever happens."""
    with subprocess.Popen(_producer(folder, count), stdout=subprocess.PIPE) as producer:
        try:
            yield producer
        finally:
            producer.kill()


def _producer_pid(folder: Path) -> int:
    """Return the pid of a producer that has begun to write."""
    return int((folder / "pid").read_text())


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_stream_whose_producer_dies_ends_there_and_is_a_success(scene: Scene, tmp_path: Path) -> None:
    host = scene.fresh(tmp_path)
    with _producing(tmp_path, 8 * MIB) as producer:
        running = host.start("snapshot", "stdin", "dump", stdin=producer.stdout)
        assert wait_for_objects(running, host.location, "packs", 2, len(objects(host.location, "packs")))
        assert producer.stdout is not None
        producer.stdout.close()
    ended = running.wait()
    assert (ended.code, ended.err) == (0, "")
    newest = host.fresh_session().read_manifests().live[-1]
    content = content_of(host.fresh_session(), newest)
    assert newest.status == "complete"
    assert len(content["dump"]) >= 4 * MIB and _random_bytes(8 * MIB).startswith(content["dump"])
    host.assert_nothing_lies([scene.before, content], prefixes=True)


def test_a_command_that_is_killed_makes_no_manifest(scene: Scene, tmp_path: Path) -> None:
    host = scene.fresh(tmp_path)
    argv = _producer(tmp_path, 8 * MIB)
    running = host.start("snapshot", "command", "dump", "--", *argv, checkpoint_bytes=10**12)
    assert wait_for_objects(running, host.location, "packs", 2, len(objects(host.location, "packs")))
    subprocess.run(["kill", "-9", str(_producer_pid(tmp_path))], check=True)
    ended = running.wait()
    assert ended.code == 1
    (line,) = ended.lines()
    assert line.endswith("died of signal 9; no snapshot was made")
    assert not _new(scene, host, "manifests") and not _new(scene, host, "pending")
    host.assert_nothing_lies([scene.before])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_is_ended_and_its_checkpoint_is_no_backup(
    scene: Scene, tmp_path: Path, number: int
) -> None:
    host = scene.fresh(tmp_path)
    argv = _producer(tmp_path, 8 * MIB)
    running = host.start("snapshot", "command", "dump", "--", *argv, checkpoint_bytes=10**12)
    ended = _interrupt(host, running, len(objects(host.location, "packs")), number)
    _checkpoint_of(host, scene, ended)
    assert not _is_alive(_producer_pid(tmp_path))
    states = [scene.before, {"dump": _random_bytes(8 * MIB)}]
    manifests = host.assert_nothing_lies(states, prefixes=True)
    assert [m.status for m in manifests[1:]] == ["partial"]


def test_an_interrupted_stdin_that_has_gone_silent_keeps_what_it_gave(scene: Scene, tmp_path: Path) -> None:
    host = scene.fresh(tmp_path)
    with _producing(tmp_path, 8 * MIB) as producer:
        running = host.start("snapshot", "stdin", "dump", stdin=producer.stdout, checkpoint_bytes=10**12)
        assert producer.stdout is not None
        while not (tmp_path / "pid.done").exists() or fcntl.ioctl(
            producer.stdout, termios.FIONREAD, bytes(4)
        ) != bytes(4):
            assert not running.ended
            time.sleep(0.005)  # until all is read, and the run waits for more
        running.signal(signal.SIGINT)
        ended = running.wait()
    _checkpoint_of(host, scene, ended)
    states = [scene.before, {"dump": _random_bytes(8 * MIB)}]
    manifests = host.assert_nothing_lies(states, prefixes=True)
    assert (manifests[-1].status, manifests[-1].statistics["bytes"]) == ("partial", 8 * MIB)


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.full) for n in range(1, 20))])
def test_a_stream_killed_at_any_time_is_stored_by_the_next_run(
    scene: Scene, tmp_path: Path, number: int
) -> None:
    host = scene.fresh(tmp_path)
    stream = tmp_path / "stream"
    stream.write_bytes(_random_bytes(24 * MIB))
    with stream.open("rb") as file:
        running = host.start("snapshot", "stdin", "dump", stdin=file, pause_ms=PAUSE_MS)
    packs = random.Random(SEED + number).randrange(1, 9)
    wait_for_objects(running, host.location, "packs", packs, len(objects(host.location, "packs")))
    running.kill()
    landed = _landed_bytes(scene, host)
    states = [scene.before, {"dump": stream.read_bytes()}]
    host.assert_nothing_lies(states, prefixes=True)
    with stream.open("rb") as file:
        ended = host.run("snapshot", "stdin", "dump", stdin=file)
    assert ended.code == 0, ended
    manifests = host.assert_nothing_lies(states, prefixes=True)
    assert manifests[-1].status == "complete"
    stored_again = manifests[-1].statistics["new_bytes"] - max(0, 24 * MIB - landed)
    assert stored_again < MIB, f"{landed} bytes had landed"


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.full) for n in range(1, 30))])
def test_a_killed_restore_harms_nothing_and_runs_again(scene: Scene, tmp_path: Path, number: int) -> None:
    host = scene.fresh(tmp_path)
    _next_snapshot(scene, host)
    before = {path: path.read_bytes() for path in host.location.rglob("*") if path.is_file()}
    running = host.start("restore", "latest", "--to", tmp_path / "first")
    wanted = random.Random(SEED + number).randrange(1, len(scene.after))
    while not running.ended and sum(1 for _ in (tmp_path / "first").rglob("f*")) < wanted:
        time.sleep(0.001)
    running.kill()
    assert {path: path.read_bytes() for path in host.location.rglob("*") if path.is_file()} == before
    again = host.run("restore", "latest", "--to", tmp_path / "first")
    assert again.code == 11, f"what the dead run left is not written over: {again}"
    assert host.run("restore", "latest", "--to", tmp_path / "second").code == 0
    assert compare_trees(scene.tree, tmp_path / "second" / "tree") == []

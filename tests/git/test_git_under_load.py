"""Snapshots of a repository that is pushed to and collected at the same time (A16): each restores, clean, to values
that its refs had. The long form takes 50 snapshots, the short one a few."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.git_repositories import commit, git, make_bare, push
from support.sessions import World, make_world

from engine.git_restore import restore_repositories
from engine.git_snapshot import snapshot_git

BRANCHES = ("main", "one", "two", "three")


@dataclass
class Pusher:
    """Pushes, pushes over and deletes branches, and writes down each value before a ref gets it."""

    bare: Path
    random: random.Random
    values: dict[str, set[bytes]] = field(default_factory=lambda: {branch: set() for branch in BRANCHES})
    pushes: int = 0

    def step(self) -> None:
        """Do one thing to one branch."""
        branch, ref = (name := self.random.choice(BRANCHES)), f"refs/heads/{name}"
        files = {f"f{n}": self.random.randbytes(2000) for n in range(3)}
        tip = git(self.bare, "rev-parse", "--verify", "-q", ref, check=False).decode()
        what = self.random.random()
        if what < 0.1 and tip:
            git(self.bare, "update-ref", "-d", ref)
            return
        parents = (tip,) if tip and what < 0.7 else ()
        made = commit(self.bare, files, parents=parents, message=str(self.pushes))
        self.values[branch].add(made.encode())
        # What is collected between commit and ref is git's own race, which a real push has a quarantine against.
        git(self.bare, "update-ref", ref, made, check=False)
        self.pushes += 1


@contextmanager
def busy(pusher: Pusher, *, collect: bool) -> Iterator[None]:
    """Let the pusher push, and git collect garbage now and then, until the block is left."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                pusher.step()
                if collect and pusher.pushes % 4 == 3:
                    git(pusher.bare, "-c", "gc.reflogExpire=now", "gc", "--prune=now", "-q", check=False)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert failures == []


def _check(world: World, tmp_path: Path, snapshots: int, *, seed: int) -> None:
    bare = make_bare(tmp_path / "srv" / "name.git")
    pusher = Pusher(bare, random.Random(seed))
    for branch in BRANCHES:
        pusher.values[branch].add(push(bare, branch, {"a": branch.encode()}).encode())
    with busy(pusher, collect=True):
        results = [snapshot_git(world.session(), under=str(tmp_path / "srv")) for _ in range(snapshots)]
    assert pusher.pushes > snapshots
    for number, result in enumerate(results):
        assert result.manifest.status == "complete", result.problems
        out = tmp_path / f"out{number}"
        done = restore_repositories(world.session(), result.manifest, str(out))
        assert done.status == "complete", done.problems
        for line in git(
            out / "name.git", "for-each-ref", "--format=%(objectname) %(refname:short)"
        ).splitlines():
            value, branch = line.split(b" ")
            assert value in pusher.values[branch.decode()]
        git(out / "name.git", "fsck", "--full")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "hosts")


def test_snapshots_beside_pushes_and_garbage_collection_all_restore(world: World, tmp_path: Path) -> None:
    _check(world, tmp_path, 4, seed=1)


@pytest.mark.full
def test_fifty_snapshots_beside_pushes_and_garbage_collection_all_restore(
    world: World, tmp_path: Path
) -> None:
    _check(world, tmp_path, 50, seed=2)

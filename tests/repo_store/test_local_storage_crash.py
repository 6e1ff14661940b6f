"""LocalStorage may lose power between any two system calls and still keep the contract.

Method (tests/support/recorded_disk.py): a history of calls runs on a recorded disk. For every moment of it,
every tree that a power cut could leave is built, opened and read. What is found must be what was promised
(tests/support/promises.py), and the same history must then go through again.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.promises import Promises
from support.recorded_disk import RecordedDisk, Tree, build, recording
from support.troubled_disk import quick_folder

from repo_store.errors import NoRepository
from repo_store.local_storage import LocalStorage
from repo_store.storage import Storage
from repo_store.whole_file import WAYS

INNER = "srv/backup/repository"  # none of these exist at first


class Session:
    """Two connections to one storage, and a note of all that is promised through them."""

    def __init__(self, disk: RecordedDisk, ways: tuple[str, ...]) -> None:
        self.disk = disk
        self.promises = Promises()
        LocalStorage.create(disk.path / INNER)
        self.created = len(disk.log)
        self.connections: list[Storage] = [LocalStorage(disk.path / INNER, ways=ways) for _ in range(2)]

    def put(self, name: str, data: bytes, who: int = 0) -> None:
        began = len(self.disk.log)
        self.connections[who].put(name, [data[:7], data[7:]])
        self.promises.changed(name, data, who=who, began=began, returned=len(self.disk.log))

    def delete(self, name: str, who: int = 0) -> None:
        began = len(self.disk.log)
        self.connections[who].delete(name)
        self.promises.changed(name, None, who=who, began=began, returned=len(self.disk.log))

    def replace(self, name: str, data: bytes, who: int = 0) -> None:
        began = len(self.disk.log)
        self.connections[who].replace(name, data)
        self.promises.changed(name, data, who=who, began=began, returned=len(self.disk.log))

    def barrier(self, *names: str, who: int = 0) -> None:
        began = len(self.disk.log)
        self.connections[who].barrier(names)
        self.promises.barrier(names, who=who, began=began, returned=len(self.disk.log))


def a_snapshot(session: Session) -> None:
    """The order of writing: packs, tables, manifest, with a barrier after each."""
    session.put("packs/ab/abcd", b"the first pack")
    session.put("packs/ab/abff", b"the second pack")
    session.put("packs/cd/cdcd", b"the third pack")
    session.barrier()
    session.put("tables/aa", b"a table of packs")
    session.barrier()
    session.put("pending/m", b"the manifest")
    session.put("manifests/m", b"the manifest")
    session.delete("pending/m")
    session.barrier()


def two_writers(session: Session) -> None:
    """What one writer relies on, the other has put and not yet made durable."""
    session.put("packs/ab/both", b"put by both", who=1)
    session.put("packs/ab/both", b"put by both", who=0)
    session.put("packs/cd/theirs", b"of the other", who=1)
    session.put("config/1", b"of the other as well", who=1)
    session.barrier("packs/cd/theirs", who=0)
    session.delete("packs/cd/theirs", who=1)
    session.delete("packs/cd/theirs", who=0)
    session.barrier(who=0)
    session.put("packs/cd/last", b"last")
    session.barrier(who=1)


def a_repair(session: Session) -> None:
    """Replacing, deleting and putting again."""
    session.put("keys/aa", b"damaged bytes, many")
    session.barrier()
    session.replace("keys/aa", b"mended")
    session.barrier()
    session.replace("keys/aa", b"mended once more")
    session.delete("keys/aa")
    session.put("keys/aa", b"a new one of this name")
    session.replace("deep/er/and/deeper", b"replaced though missing")
    session.barrier()


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = quick_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("history", [a_snapshot, two_writers, a_repair])
@pytest.mark.parametrize("way", WAYS)
def test_no_power_cut_breaks_a_promise(way: str, history: Callable[[Session], None], folder: Path) -> None:
    check_every_power_cut(way, history, folder, states_max=96)


@pytest.mark.full
@pytest.mark.parametrize("history", [a_snapshot, two_writers, a_repair])
@pytest.mark.parametrize("way", WAYS)
def test_no_power_cut_breaks_a_promise_among_many_more_states(
    way: str, history: Callable[[Session], None], folder: Path
) -> None:
    check_every_power_cut(way, history, folder, states_max=8000)


def check_every_power_cut(
    way: str, history: Callable[[Session], None], folder: Path, *, states_max: int
) -> None:
    disk = RecordedDisk(folder / "disk")
    with recording(disk):
        session = Session(disk, (way,))
        history(session)
    found_in: dict[frozenset[tuple[str, bytes | None]], dict[str, bytes] | None] = {}
    for moment in range(len(disk.log) + 1):
        for tree in disk.left_after_power_cut(moment, states_max=states_max, seed=moment):
            key = frozenset(tree.items())
            if key not in found_in:
                found_in[key] = reopened(folder / f"after-{len(found_in)}", tree, way)
            found = found_in[key]
            if found is None:
                assert moment < session.created, (
                    f"power cut at {moment}: no repository, though create returned"
                )
            else:
                broken = session.promises.broken_by(found, moment)
                assert not broken, (
                    f"power cut at {moment} left {tree}, which breaks {broken}; log: {disk.log[:moment]}"
                )
    assert len(found_in) >= 20, "the method must have something to try"


def reopened(path: Path, tree: Tree, way: str) -> dict[str, bytes] | None:
    """Return what a repository holds after a power cut, or None for no repository; see that it still works."""
    build(path, tree)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)  # the power stays on from here: save the time
        try:
            storage = LocalStorage(path / INNER, ways=(way,))
        except NoRepository:
            return None
        found = {info.name: storage.get(info.name) for info in storage.list("")}
        for name, data in found.items():
            storage.put(name, data)
            assert storage.info(name).size == len(data)
        storage.put("packs/ab/after-the-cut", b"new")
        storage.barrier(found)
    return found

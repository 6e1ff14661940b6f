"""LocalStorage on disks that are full, failing, read-only or forbidden.

Real mounts are used where the tests may make them (as root); elsewhere those tests are skipped, and only the
injected errors remain.
"""

import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.troubled_disk import failing_with, files_below, mounted

from repo_store.errors import ObjectMissing, StorageError
from repo_store.local_storage import LocalStorage
from repo_store.whole_file import WAYS

PROJECT = Path(__file__).parents[2]
NOBODY = 65534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    LocalStorage.create(tmp_path / "repository")
    return tmp_path / "repository"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_put_whose_sync_fails_leaves_nothing_and_poisons_the_instance(
    root: Path, monkeypatch: pytest.MonkeyPatch, way: str, number: int
) -> None:
    storage = LocalStorage(root, ways=(way,))
    storage.put("config/1", b"x")
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing_with(number))
        with pytest.raises(StorageError) as error:
            storage.put("packs/ab/a", b"y")
    assert str(error.value) == f"{root}/packs/ab/a: cannot write: {os.strerror(number).lower()}"
    assert_poisoned(storage, root)
    assert files_below(root) == ["config/1"]


@pytest.mark.parametrize("failing_sync", [1, 2, 3])
def test_a_barrier_whose_sync_fails_poisons_the_instance(
    root: Path, monkeypatch: pytest.MonkeyPatch, failing_sync: int
) -> None:
    storage, real_fsync, calls = LocalStorage(root), os.fsync, iter(range(1, 100))
    storage.put("packs/ab/a", b"x")
    with monkeypatch.context() as broken:
        broken.setattr(
            os,
            "fsync",
            lambda file: failing_with(errno.EIO)() if next(calls) == failing_sync else real_fsync(file),
        )
        with pytest.raises(StorageError, match="cannot sync: input/output error"):
            storage.barrier()
    assert_poisoned(storage, root)


def assert_poisoned(storage: LocalStorage, root: Path) -> None:
    """The disk works again, and yet nothing may be promised: what is lost is lost silently."""
    calls: list[Callable[[], object]] = [
        storage.barrier,
        lambda: storage.put("config/1", b"x"),
        lambda: storage.put("packs/cd/new", b"x"),
        lambda: storage.delete("config/1"),
        lambda: storage.replace("config/1", b"x"),
        storage.clean,
        storage.barrier,
    ]
    for call in calls:
        with pytest.raises(StorageError, match="an earlier sync failed") as error:
            call()
        assert error.value.hint is not None
    list(storage.list(""))  # reading goes on
    LocalStorage(root).barrier()  # and so does a new run


def test_a_barrier_that_fails_for_another_reason_still_owes_what_it_was_asked_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, synced = LocalStorage(root), []
    storage.put("packs/ab/a", b"x")
    with pytest.raises(ObjectMissing):
        storage.barrier(["packs/ab/missing"])
    real_fsync = os.fsync

    def fsync(file: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{file}"))
        real_fsync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    storage.barrier()
    assert synced == [str(root), str(root / "packs"), str(root / "packs/ab")]
    storage.barrier()
    assert len(synced) == 3, "what is durable is not synced again"


def test_a_barrier_in_the_middle_of_a_put_leaves_its_folder_to_the_next(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, real_link, real_fsync, synced = LocalStorage(root), os.link, os.fsync, []

    def link(*args: Any, **options: Any) -> None:
        storage.barrier()  # as by another thread, after the bytes were written and before the name is made
        real_link(*args, **options)

    def fsync(file: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{file}"))
        real_fsync(file)

    with monkeypatch.context() as between:
        between.setattr(os, "link", link)
        storage.put("config/1", b"x")
    monkeypatch.setattr(os, "fsync", fsync)
    storage.barrier()
    assert synced == [str(root), str(root / "config")]


def test_a_barrier_fails_if_a_put_in_another_thread_met_a_failing_disk_meanwhile(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(root)
    storage.put("config/1", b"x")
    folders_synced = 0

    def fsync(file: int) -> None:
        nonlocal folders_synced
        if not stat.S_ISDIR(os.fstat(file).st_mode):
            failing_with(errno.EIO)()
        folders_synced += 1
        if folders_synced == 2:  # the last of this barrier
            with pytest.raises(StorageError):
                storage.put("config/2", b"y")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="an earlier sync failed"):
        storage.barrier()
    assert folders_synced == 2


@pytest.mark.parametrize("by", ["a barrier", "a put of the same bytes"])
def test_bytes_that_another_program_wrote_are_synced_before_they_are_relied_on(
    root: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    (root / "packs").mkdir()
    (root / "packs/copied").write_bytes(b"by rsync or cp")
    storage, synced = LocalStorage(root), []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}")))
    if by == "a barrier":
        storage.barrier(["packs/copied"])
    else:
        storage.put("packs/copied", b"by rsync or cp")
        storage.barrier()
    assert [path for path in synced if "#" not in path] == [
        str(root / "packs/copied"), str(root), str(root / "packs")
    ]  # fmt: skip


def test_a_barrier_waits_for_the_one_that_already_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(root)
    storage.put("config/1", b"x")
    syncing, go_on = threading.Event(), threading.Event()
    real_fsync, returned = os.fsync, []

    def slow(file: int) -> None:
        syncing.set()
        go_on.wait()
        real_fsync(file)

    def barrier(who: str) -> None:
        storage.barrier()
        returned.append(who)

    monkeypatch.setattr(os, "fsync", slow)
    first = threading.Thread(target=barrier, args=("first",))
    second = threading.Thread(target=barrier, args=("second",))
    first.start()
    try:
        syncing.wait()
        second.start()
        second.join(0.2)
        assert returned == [], "the second barrier returned before the disk had what was put"
    finally:
        go_on.set()
        first.join()
        second.join()
    assert sorted(returned) == ["first", "second"]


@pytest.mark.parametrize("way", WAYS)
def test_a_full_disk_is_an_error_and_the_next_put_works_once_there_is_room(tmp_path: Path, way: str) -> None:
    with mounted(tmp_path / "small", "1m"):
        storage = LocalStorage(tmp_path / "small", ways=(way,))
        storage.put("packs/ab/fits", b"x" * 600_000)
        for _ in range(3):
            with pytest.raises(StorageError) as error:
                storage.put("packs/ab/too-large", [b"y" * 300_000] * 2)
        assert (
            str(error.value) == f"{tmp_path}/small/packs/ab/too-large: cannot write: no space left on device"
        )
        assert error.value.hint is not None and "free some space" in error.value.hint
        storage.barrier()
        assert files_below(tmp_path / "small") == ["packs/ab/fits"]
        assert storage.get("packs/ab/fits") == b"x" * 600_000
        storage.delete("packs/ab/fits")
        storage.put("packs/ab/too-large", [b"y" * 300_000] * 2)
        assert storage.info("packs/ab/too-large").size == 600_000


def test_a_read_only_file_system_can_be_read_and_says_so_when_written_to(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "1m"):
        LocalStorage(tmp_path / "small").put("config/1", b"x")
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "small")], check=True)
        storage = LocalStorage(tmp_path / "small")
        assert storage.get("config/1") == b"x"
        calls: list[Callable[[], object]] = [
            lambda: storage.put("config/2", b"x"),
            lambda: storage.put("new/2", b"x"),
            lambda: storage.delete("config/1"),
            lambda: storage.replace("config/1", b"y"),
        ]
        for call in calls:
            with pytest.raises(StorageError, match="read-only file system") as error:
                call()
            assert error.value.hint is not None and "mounted read-only" in error.value.hint


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EACCES, errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["writev", "link", "mkdir"])
def test_errors_of_the_disk_become_one_line_with_a_hint(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    monkeypatch.setattr(os, call, failing_with(number))
    with pytest.raises(StorageError) as error:
        LocalStorage(root).put("packs/ab/a", b"x")
    assert str(error.value) == f"{root}/packs/ab/a: cannot write: {os.strerror(number).lower()}"
    assert error.value.hint
    assert files_below(root) == []


FORBIDDEN = """
import os, sys
from repo_store.errors import StorageError
from repo_store.local_storage import LocalStorage
root, user = sys.argv[1], int(sys.argv[2])
own = LocalStorage(root)
if os.getuid() == 0:
    os.setgroups([]); os.setgid(user); os.setuid(user)
def attempt(call):
    try:
        call()
    except StorageError as error:
        return print(error)
    print("allowed")
attempt(lambda: own.put("config/2", b"x"))
attempt(lambda: own.delete("config/1"))
attempt(lambda: own.get("config/1"))
attempt(lambda: list(own.list("")))
attempt(lambda: LocalStorage.create(root + "/inner"))
attempt(lambda: LocalStorage(root))
"""


def test_what_is_forbidden_is_said_with_the_path(root: Path) -> None:
    LocalStorage(root).put("config/1", b"x")
    (root / "config").chmod(0o000)
    root.chmod(0o100 if os.getuid() else 0o000)
    try:
        said = subprocess.run(
            [sys.executable, "-c", FORBIDDEN, str(root), str(NOBODY)],
            capture_output=True, text=True, check=True, cwd="/", env={"PYTHONPATH": str(PROJECT)},
        ).stdout  # fmt: skip
    finally:
        root.chmod(0o700)
        (root / "config").chmod(0o700)
    if os.getuid() != 0:
        pytest.skip("only root can open a directory and then lose the right to it")
    assert said.replace(str(root), "ROOT").splitlines() == [
        "ROOT/config/2: cannot write: permission denied",
        "ROOT/config/1: cannot delete: permission denied",
        "ROOT/config/1: cannot read: permission denied",
        "ROOT: cannot list: permission denied",
        "ROOT/inner: cannot create: permission denied",
        "ROOT: cannot open: permission denied",
    ]

"""LocalStorage: opening, the three ways of creating a file, short reads and writes, rivals for one name.

The contract itself is tested in test_storage_contract.py, power cuts in test_local_storage_crash.py.
"""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.troubled_disk import failing_with, files_below

from repo_store import whole_file
from repo_store.errors import NoRepository, ObjectConflict, Refused, StorageError
from repo_store.local_storage import LocalStorage
from repo_store.whole_file import WAYS

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    LocalStorage.create(tmp_path / "repository")
    return tmp_path / "repository"


def test_opening_what_is_not_there_or_no_directory_raises_no_repository(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (
        tmp_path / "missing",
        tmp_path / "missing" / "deeper",
        tmp_path / "file",
        tmp_path / "file" / "in",
    ):
        with pytest.raises(NoRepository) as error:
            LocalStorage(path)
        assert str(error.value) == f"{path}: no such directory"


def test_create_makes_private_directories_and_takes_one_that_exists(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    storage = LocalStorage.create(str(path))
    assert storage.location == str(path)
    storage.put("packs/ab/abcd", b"x")
    for folder in (path.parent, path, path / "packs", path / "packs" / "ab"):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert (path / "packs/ab/abcd").stat().st_mode & 0o777 == 0o400
    assert [info.name for info in LocalStorage.create(path).list("")] == ["packs/ab/abcd"]


def test_create_says_what_stands_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises((StorageError, NoRepository), match=str(path)):
            LocalStorage.create(path)
    assert (tmp_path / "file").read_bytes() == b""


def test_the_root_may_be_named_through_a_link_and_moved_while_open(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    storage = LocalStorage(tmp_path / "link")
    storage.put("config/1", b"x")
    root.rename(tmp_path / "moved")
    root.mkdir()  # as when a disk is unmounted, and its empty mount point comes to light
    storage.put("config/2", b"y")
    assert files_below(tmp_path / "moved") == ["config/1", "config/2"] and files_below(root) == []


@pytest.mark.parametrize("way", WAYS)
def test_each_way_leaves_the_object_and_nothing_else(root: Path, way: str) -> None:
    storage = LocalStorage(root, ways=(way,))
    storage.put("packs/ab/abcd", b"x")
    storage.put("packs/ab/abcd", b"x")
    with pytest.raises(ObjectConflict):
        storage.put("packs/ab/abcd", b"y")
    assert files_below(root) == ["packs/ab/abcd"]


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS])
def test_without_unnamed_files_a_temporary_is_linked(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real_open = os.open

    def no_unnamed(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            failing_with(number)()
        return real_open(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", no_unnamed)
    monkeypatch.setattr(whole_file, "rename_exclusively", failing_with(errno.EIO))
    storage = LocalStorage(root)
    storage.put("config/1", b"x")
    assert storage.get("config/1") == b"x"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_links_a_temporary_is_renamed_and_without_that_it_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", failing_with(number))
    storage = LocalStorage(root)
    storage.put("config/1", b"x")
    with pytest.raises(ObjectConflict):
        storage.put("config/1", b"y")
    assert storage.get("config/1") == b"x"
    monkeypatch.setattr(whole_file, "rename_exclusively", failing_with(errno.EINVAL))
    for _ in range(2):
        with pytest.raises(Refused, match="neither by link nor by a rename that never replaces") as error:
            storage.put("config/2", b"x")
    assert error.value.hint is not None
    assert files_below(root) == ["config/1"]


def test_a_file_system_error_is_not_taken_for_a_missing_feature(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing_with(errno.EIO))
    monkeypatch.setattr(
        whole_file, "rename_exclusively", lambda *args: pytest.fail("link failed, but exists")
    )
    with pytest.raises(StorageError, match="input/output error"):
        LocalStorage(root).put("config/1", b"x")


def test_the_kernel_may_write_less_than_asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_writev = os.writev
    monkeypatch.setattr(os, "writev", lambda file, views: real_writev(file, [views[0][:1000]]))
    storage, data = LocalStorage(root), os.urandom(100_001)
    storage.put("packs/ab/a", [data[:7], data[7:50_000], data[50_000:]])
    assert storage.get("packs/ab/a") == data
    monkeypatch.setattr(os, "writev", lambda file, views: 0)
    with pytest.raises(StorageError, match="nothing was written"):
        storage.put("packs/ab/b", data)


def test_the_kernel_may_read_less_than_asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, length, offset: real_pread(file, min(length, 777), offset))
    storage, data = LocalStorage(root), os.urandom(10_000)
    storage.put("packs/ab/a", data)
    storage.put("packs/ab/a", data)
    assert storage.get("packs/ab/a", 1, 5000) == data[1:5001]
    with pytest.raises(ObjectConflict):
        storage.put("packs/ab/a", data[:-1] + bytes([data[-1] ^ 1]))


RIVAL = """
import sys
from repo_store.errors import ObjectConflict
from repo_store.local_storage import LocalStorage
root, way, body = sys.argv[1:]
storage = LocalStorage(root, ways=(way,))
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    try:
        storage.put(f"manifests/{number}", [body.encode() * 20_000])
        print("won", flush=True)
    except ObjectConflict:
        print("lost", flush=True)
"""


@pytest.mark.parametrize("ways", [("unnamed", "unnamed"), ("linked", "renamed"), ("renamed", "renamed")])
def test_of_two_processes_exactly_one_wins_each_name(root: Path, ways: tuple[str, str]) -> None:
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", RIVAL, str(root), way, body],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(PROJECT)},
        )
        for way, body in zip(ways, "ab", strict=True)
    ]  # fmt: skip
    for rival in rivals:
        assert rival.stdout is not None and rival.stdout.readline() == "ready\n"
    said = []
    for rival in rivals:
        assert rival.stdin is not None
        rival.stdin.write("go\n")
        rival.stdin.flush()
    for rival in rivals:
        output, _ = rival.communicate()
        assert rival.returncode == 0
        said.append(output.split())
    storage = LocalStorage(root)
    for number, outcome in enumerate(zip(*said, strict=True)):
        assert sorted(outcome) == ["lost", "won"], f"manifests/{number}: {outcome}"
        assert storage.get(f"manifests/{number}") == "ab"[outcome.index("won")].encode() * 20_000


def test_an_object_that_comes_and_goes_is_given_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", failing_with(errno.EEXIST))
    with pytest.raises(StorageError, match="the object comes and goes"):
        LocalStorage(root).put("config/1", b"x")


def test_a_put_that_meets_a_delete_takes_the_free_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, rival = LocalStorage(root), LocalStorage(root)
    rival.put("config/1", b"theirs")
    real_link = os.link

    def link(*args: Any, **options: Any) -> None:
        try:
            real_link(*args, **options)
        except FileExistsError:
            rival.delete("config/1")
            raise

    monkeypatch.setattr(os, "link", link)
    storage.put("config/1", b"mine")
    assert storage.get("config/1") == b"mine"

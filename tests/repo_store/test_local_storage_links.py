"""LocalStorage in a directory where somebody has put links, pipes and other things that are no objects."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.troubled_disk import files_below

from repo_store.errors import StorageError
from repo_store.local_storage import LocalStorage
from repo_store.whole_file import LEFTOVER_SECONDS, TEMPORARY_FOLDER


@pytest.fixture
def root(tmp_path: Path) -> Path:
    LocalStorage.create(tmp_path / "repository")
    return tmp_path / "repository"


def test_no_method_follows_a_link_out_of_the_root(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "config").mkdir()
    (root / "config/linked").symlink_to(outside / "secret")
    (root / "config/dangling").symlink_to(outside / "new")
    (root / "packs").symlink_to(outside)
    (root / TEMPORARY_FOLDER).symlink_to(outside)
    storage = LocalStorage(root)
    for name in ("config/linked", "packs/secret", "packs/deeper/secret", "config/dangling"):
        calls: list[Callable[[str], object]] = [
            storage.get,
            storage.info,
            lambda name: storage.put(name, b"secret"),
            lambda name: storage.put(name, b"other"),
            lambda name: storage.barrier([name]),
            lambda name: list(storage.list(name)),
            lambda name: storage.replace(name, b"mine"),
        ]
        for call in calls:
            with pytest.raises(StorageError, match=r"symbolic link|not a directory|not a regular file"):
                call(name)
    for way in ("linked", "renamed"):
        with pytest.raises(StorageError, match="not a directory"):
            LocalStorage(root, ways=(way,)).put("tables/a", b"x")
    with pytest.raises(StorageError, match="not a directory"):
        storage.clean()
    storage.delete("config/linked")
    assert files_below(outside) == ["secret"] and (outside / "secret").read_bytes() == b"secret"


def test_a_listing_never_passes_over_what_it_cannot_read(root: Path, tmp_path: Path) -> None:
    storage = LocalStorage(root)
    storage.put("packs/ab/a", b"x")
    for make in (
        lambda path: path.symlink_to(root / "packs/ab/a"),
        lambda path: path.symlink_to(root / "packs/ab"),
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("nowhere"),
    ):
        make(root / "packs" / "ab" / "b")
        for prefix in ("", "packs/", "packs/ab/b"):
            with pytest.raises(StorageError, match="packs/ab/b: cannot list: not a regular file"):
                list(storage.list(prefix))
        assert list(storage.list("packs/ab/a"))
        (root / "packs" / "ab" / "b").unlink()


def test_a_pipe_or_directory_in_the_place_of_an_object_is_an_error_and_blocks_nobody(root: Path) -> None:
    (root / "config").mkdir()
    os.mkfifo(root / "config" / "pipe")
    (root / "config" / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        directory = os.open(root / "config", os.O_RDONLY)
        server.bind(f"/proc/self/fd/{directory}/socket")
        os.close(directory)
    storage = LocalStorage(root)
    for name in ("config/pipe", "config/folder", "config/socket"):
        for call in (storage.get, storage.info, lambda name: storage.put(name, b"x")):
            with pytest.raises(StorageError, match=r"not a regular file|no such device"):
                call(name)


def test_files_that_are_no_objects_are_left_alone_and_not_listed(root: Path) -> None:
    (root / "lost+found").mkdir()
    (root / "lost+found" / "x").write_bytes(b"")
    (root / "README").symlink_to("nowhere")
    (root / ".hidden").write_bytes(b"")
    (root / TEMPORARY_FOLDER).mkdir()
    (root / TEMPORARY_FOLDER / "left").write_bytes(b"half of an obj")
    storage = LocalStorage(root)
    storage.put("packs/ab/a", b"x")
    (root / "packs/ab/B").write_bytes(b"")
    (root / "packs/ab/.b").write_bytes(b"")
    assert [info.name for info in storage.list("")] == ["packs/ab/a"]


def test_names_that_vanish_while_a_folder_is_read_are_left_out(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(root)
    for name in ("packs/ab/a", "packs/ab/b", "packs/cd/c"):
        storage.put(name, b"x")
    real_scandir = os.scandir

    @contextmanager
    def scandir(folder: int) -> Iterator[Any]:
        with real_scandir(folder) as entries:
            found = list(entries)
        for vanishing in (root / "packs/ab/a", root / "packs/cd/c"):
            vanishing.unlink(missing_ok=True)
        if (root / "packs/cd").exists() and any(entry.name == "cd" for entry in found):
            (root / "packs/cd").rmdir()
        yield iter(found)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [info.name for info in storage.list("packs/")] == ["packs/ab/b"]


def test_clean_removes_only_temporaries_that_are_older_than_a_day(root: Path) -> None:
    storage = LocalStorage(root)
    assert storage.clean() == 0
    storage.put("packs/ab/a", b"x")
    for path, age in (
        (root / TEMPORARY_FOLDER / "old", LEFTOVER_SECONDS + 60),
        (root / TEMPORARY_FOLDER / "young", LEFTOVER_SECONDS - 60),
        (root / "packs" / "ab" / "a", 10 * LEFTOVER_SECONDS),
    ):
        if not path.exists():
            path.write_bytes(b"half")
        written = (root / TEMPORARY_FOLDER).stat().st_mtime - age
        os.utime(path, (written, written))
    assert storage.clean() == 1
    assert files_below(root) == [f"{TEMPORARY_FOLDER}/young", "packs/ab/a"]

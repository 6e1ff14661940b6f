"""Reading opens what was listed, notices what changes, and knows the holes."""

import os
import time
from pathlib import Path

import pytest

from engine.sources.directory import Directory
from engine.sources.files import FileTree, WalkOptions
from engine.sources.reading import (
    NotAFile,
    data_extents,
    has_changed,
    open_file,
    read_into,
    unstable,
)
from engine.sources.roots import plan_roots
from repo_store.entry import Entry


@pytest.fixture
def listed(tmp_path: Path) -> tuple[Path, Directory, Entry]:
    """A file as a root, with its directory and its entry as the walk lists them."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    tree = FileTree(plan_roots([str(path)]), WalkOptions(), print)
    directory, (entry,) = next(iter(tree.batches()))
    return path, Directory(os.open(tmp_path, os.O_RDONLY), directory.path), entry


def test_an_untouched_file_opens_with_the_entry_as_listed(listed: tuple[Path, Directory, Entry]) -> None:
    _, directory, entry = listed
    opened = open_file(directory, entry)
    assert opened.entry is entry and not opened.sparse and not has_changed(opened.fd, entry)
    os.close(opened.fd)


def test_a_file_changed_since_it_was_listed_has_the_entry_of_what_was_opened(
    listed: tuple[Path, Directory, Entry],
) -> None:
    path, directory, entry = listed
    path.with_name("new").write_bytes(b"replaced")
    path.with_name("new").rename(path)
    opened = open_file(directory, entry)
    assert opened.entry.size == 8 and opened.entry.inode == path.stat().st_ino
    assert opened.entry.ctime_ns == path.stat().st_ctime_ns
    os.close(opened.fd)


@pytest.mark.parametrize("kind", ["fifo", "link", "directory"])
def test_what_is_swapped_in_is_neither_followed_nor_waited_for(
    listed: tuple[Path, Directory, Entry], kind: str
) -> None:
    path, directory, entry = listed
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    else:
        path.mkdir()
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(NotAFile, match="is no longer a regular file"):
        open_file(directory, entry)
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_vanished_file_is_told_apart(listed: tuple[Path, Directory, Entry]) -> None:
    path, directory, entry = listed
    path.unlink()
    with pytest.raises(FileNotFoundError):
        open_file(directory, entry)


@pytest.mark.parametrize("change", ["append", "truncate", "rewrite", "rewrite and set the time back"])
def test_a_change_while_reading_is_noticed(listed: tuple[Path, Directory, Entry], change: str) -> None:
    path, directory, entry = listed
    fd, entry, _ = open_file(directory, entry)
    time.sleep(0.015)  # longer than a tick of the clock of the file system
    with path.open("r+b") as file:
        if change == "append":
            file.seek(10)
        file.write(b"x")
        if change == "truncate":
            file.truncate(1)
    if change.endswith("back"):
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
    assert has_changed(fd, entry)
    os.close(fd)


def test_reading_leaves_the_access_time_alone(listed: tuple[Path, Directory, Entry]) -> None:
    path, directory, entry = listed
    os.utime(path, ns=(1_000_000_000, path.stat().st_mtime_ns))
    fd, _, _ = open_file(directory, entry)
    read_into(fd, memoryview(bytearray(10)), 0)
    os.close(fd)
    assert path.stat().st_atime_ns == 1_000_000_000


def test_a_buffer_is_filled_to_its_end_or_the_end_of_the_file(
    listed: tuple[Path, Directory, Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, directory, entry = listed
    genuine = os.preadv
    # A file system may give less than asked for at any time.
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: genuine(fd, [views[0][:3]], at))
    fd, _, _ = open_file(directory, entry)
    buffer = bytearray(b"-" * 16)
    assert read_into(fd, memoryview(buffer)[:4], 3) == 4 and buffer[:5] == b"3456-"
    assert read_into(fd, memoryview(buffer), 2) == 8 and buffer[:9] == b"23456789-"
    assert read_into(fd, memoryview(buffer), 10) == 0
    os.close(fd)


def test_an_unstable_entry_says_so_and_has_the_size_that_was_read(
    listed: tuple[Path, Directory, Entry],
) -> None:
    entry = unstable(listed[2]._replace(extra={"link": 3}), 7)
    assert (entry.size, entry.extra) == (7, {"link": 3, "unstable": True})


BLOCK = 4096


@pytest.mark.parametrize(
    ("size", "written"),
    [
        (0, []),
        (1, [(0, 1)]),
        (10 * BLOCK, []),
        (10 * BLOCK, [(0, BLOCK)]),
        (10 * BLOCK + 7, [(9 * BLOCK, BLOCK)]),
        (10 * BLOCK + 7, [(2 * BLOCK, BLOCK), (5 * BLOCK, 2 * BLOCK), (10 * BLOCK, 7)]),
    ],
)
def test_extents_are_exactly_what_was_written(
    tmp_path: Path, size: int, written: list[tuple[int, int]]
) -> None:
    with (tmp_path / "f").open("wb") as file:
        for offset, length in written:
            file.seek(offset)
            file.write(b"x" * length)
        file.truncate(size)
        file.flush()
        found = list(data_extents(file.fileno(), size))
    assert found == [(offset, offset + length) for offset, length in written]


def test_a_file_system_that_knows_no_holes_has_only_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, position: int, how: int) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "lseek", refuse)
    assert list(data_extents(0, 100)) == [(0, 100)]


def test_extents_end_at_the_size_asked_for_though_the_file_grows(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * (3 * BLOCK))
    with (tmp_path / "f").open("rb") as file:
        assert list(data_extents(file.fileno(), BLOCK + 5)) == [(0, BLOCK + 5)]

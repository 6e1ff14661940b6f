"""RecordedDisk: every state in which a power cut may leave a directory tree, from the system calls made on it.

Method, after SQLite's test6.c: the program under test runs on a real directory while `os` in its modules is
replaced by RecordingOs, which carries each call out and notes its effect. Three effects are enough:

    Write    bytes were appended to a file; on the disk only after a Sync of the file
    Enter    a name in a folder came to mean another file or folder, or none; on the disk only after a
             Sync of that folder
    Sync     fsync of a file or folder returned

A power cut at a moment (a position in the log) keeps what was synced. Of the rest it may keep anything: any
subset of the names, in any folder, as if written in any order; and of each file's unsynced bytes all, none,
a part, or zeros in their place. That is harsher than any real file system, which is the point: what holds
here relies on nothing but fsync. Calls with an effect that is not modelled here fail the test.
"""

import itertools
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from repo_store import local_storage, rooted_tree, whole_file

Tree = Mapping[str, bytes | None]
"""Paths below the root, with the bytes of a file or None for a folder. Each folder stands before its content."""

_HARMLESS = {
    "close", "fspath", "fstat", "listdir", "path", "PathLike", "posix_fadvise", "pread", "scandir", "stat", "stat_result",
    "strerror",
}  # fmt: skip
_TEARS = ("all", "nothing", "part", "zeros")


@dataclass(frozen=True)
class Write:
    file: int
    data: bytes


@dataclass(frozen=True)
class Enter:
    folder: int
    name: str
    node: int | None


@dataclass(frozen=True)
class Sync:
    node: int


Effect = Write | Enter | Sync


class RecordedDisk:
    """A directory, the log of what was done to it, and what could be left of that."""

    def __init__(self, path: Path, tree: Tree | None = None) -> None:
        """Make the directory `path`, holding `tree`, all of it on the disk already."""
        self.path = path
        self.log: list[Effect] = []
        self._now: dict[int, dict[str, int]] = {0: {}}  # folder: what its names mean
        self._nodes = itertools.count(1)
        build(path, tree or {})
        for inner, data in (tree or {}).items():
            *folders, name = inner.split("/")
            node = self.new_file() if data is not None else self.new_folder()
            if data:
                self.log += [Write(node, data), Sync(node)]
            folder = self.find(folders)
            self.enter(folder, name, node)
            self.log.append(Sync(folder))

    def new_file(self) -> int:
        return next(self._nodes)

    def new_folder(self) -> int:
        self._now[node := next(self._nodes)] = {}
        return node

    def enter(self, folder: int, name: str, node: int | None) -> None:
        self.log.append(Enter(folder, name, node))
        _apply(self._now, self.log[-1:])

    def find(self, parts: Iterable[str], start: int = 0) -> int:
        for part in parts:
            start = start if part == "." else self._now[start][part]
        return start

    def left_after_power_cut(self, moment: int, *, states_max: int, seed: int) -> Iterator[Tree]:
        """Yield the trees that a power cut after `moment` effects may leave: all, or a random choice of so many."""
        done = self.log[:moment]
        synced = {effect.node: at for at, effect in enumerate(done) if isinstance(effect, Sync)}
        enters = [(at, effect) for at, effect in enumerate(done) if isinstance(effect, Enter)]
        pending = [at for at, effect in enters if at > synced.get(effect.folder, -1)]
        files = {effect.file: synced.get(effect.file, -1) for effect in done if isinstance(effect, Write)}
        torn = any(isinstance(effect, Write) and at > files[effect.file] for at, effect in enumerate(done))
        for lost in _subsets(pending, states_max // len(_TEARS), random.Random(seed)):
            kept = [effect for at, effect in enters if at not in lost]
            for tear in _TEARS if torn else _TEARS[:1]:
                contents = {file: _content(done, file, synced_at, tear) for file, synced_at in files.items()}
                yield self._tree(kept, contents)

    def _tree(self, enters: Sequence[Enter], contents: Mapping[int, bytes]) -> Tree:
        folders: dict[int, dict[str, int]] = {folder: {} for folder in self._now}
        _apply(folders, enters)
        tree: dict[str, bytes | None] = {}

        def visit(folder: int, path: str) -> None:
            for name, node in folders[folder].items():
                tree[path + name] = None if node in folders else contents.get(node, b"")
                if node in folders:
                    visit(node, f"{path}{name}/")

        visit(0, "")
        return tree


class RecordingOs:
    """Stands in for the module `os`: does what it does, and tells the disk."""

    def __init__(self, disk: RecordedDisk) -> None:
        self._disk = disk
        self._open: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        assert name in _HARMLESS or name.isupper(), f"os.{name} is not modelled by the crash test"
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        file = os.open(path, flags, mode, dir_fd=dir_fd)
        assert not flags & os.O_TRUNC
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            node = self._disk.new_file()
        elif flags & os.O_CREAT:
            assert flags & os.O_EXCL
            self._disk.enter(self._node(dir_fd), path, node := self._disk.new_file())
        elif dir_fd is not None:
            node = self._disk.find([path], self._node(dir_fd))
        else:
            node = self._disk.find(Path(path).relative_to(self._disk.path).parts)
        self._open[file] = node
        return file

    def writev(self, file: int, buffers: Sequence[memoryview]) -> int:
        count = os.writev(file, buffers)
        self._disk.log.append(Write(self._open[file], b"".join(buffers)[:count]))
        return count

    def fsync(self, file: int) -> None:
        # Not carried out: this machine stays up, and what counts is that it was asked for.
        self._disk.log.append(Sync(self._open[file]))

    def mkdir(self, name: str, mode: int = 0o777, *, dir_fd: int) -> None:
        os.mkdir(name, mode, dir_fd=dir_fd)
        self._disk.enter(self._open[dir_fd], name, self._disk.new_folder())

    def link(
        self,
        source: str,
        target: str,
        *,
        dst_dir_fd: int,
        follow_symlinks: bool,
        src_dir_fd: int | None = None,
    ) -> None:
        os.link(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
        if src_dir_fd is None:
            node = self._open[int(source.removeprefix("/proc/self/fd/"))]
        else:
            node = self._disk.find([source], self._open[src_dir_fd])
        self._disk.enter(self._open[dst_dir_fd], target, node)

    def rename(self, source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        os.rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        self.renamed(src_dir_fd, source, dst_dir_fd, target)

    def renamed(self, src_dir_fd: int, source: str, dst_dir_fd: int, target: str) -> None:
        """Note a rename that was made by other means (renameat2 is not in `os`)."""
        node = self._disk.find([source], self._open[src_dir_fd])
        self._disk.enter(self._open[dst_dir_fd], target, node)
        self._disk.enter(self._open[src_dir_fd], source, None)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        os.unlink(name, dir_fd=dir_fd)
        self._disk.enter(self._open[dir_fd], name, None)

    def _node(self, dir_fd: int | None) -> int:
        assert dir_fd is not None, "only paths relative to an open folder can be recorded"
        return self._open[dir_fd]


@contextmanager
def recording(disk: RecordedDisk) -> Iterator[None]:
    """Let the modules of LocalStorage make their system calls on the recorded disk."""
    recording_os = RecordingOs(disk)
    rename_exclusively = whole_file.rename_exclusively

    def rename(source: int, before: str, target: int, after: str) -> None:
        rename_exclusively(source, before, target, after)
        recording_os.renamed(source, before, target, after)

    with pytest.MonkeyPatch.context() as patch:
        for module in (whole_file, rooted_tree, local_storage):
            patch.setattr(module, "os", recording_os)
        patch.setattr(whole_file, "rename_exclusively", rename)
        yield


def build(path: Path, tree: Tree) -> None:
    """Make the directory `path` and `tree` in it."""
    path.mkdir()
    for inner, data in tree.items():
        if data is None:
            (path / inner).mkdir()
        else:
            (path / inner).write_bytes(data)


def _apply(folders: dict[int, dict[str, int]], effects: Iterable[Effect]) -> None:
    for effect in effects:
        if isinstance(effect, Enter):
            folders[effect.folder].pop(effect.name, None)
            if effect.node is not None:
                folders[effect.folder][effect.name] = effect.node


def _content(done: Sequence[Effect], file: int, synced_at: int, tear: str) -> bytes:
    writes = [
        (at, effect.data)
        for at, effect in enumerate(done)
        if isinstance(effect, Write) and effect.file == file
    ]
    safe = b"".join(data for at, data in writes if at < synced_at)
    rest = b"".join(data for at, data in writes if at > synced_at)
    return (
        safe + {"all": rest, "nothing": b"", "part": rest[: len(rest) // 2], "zeros": bytes(len(rest))}[tear]
    )


def _subsets(items: Sequence[int], subsets_max: int, choice: random.Random) -> Iterator[frozenset[int]]:
    if 2 ** len(items) <= subsets_max:
        for size in range(len(items) + 1):
            yield from map(frozenset, itertools.combinations(items, size))
        return
    yield frozenset()
    yield frozenset(items)
    for item in items:
        yield frozenset({item})
        yield frozenset(items) - {item}
    for _ in range(subsets_max - 2 - 2 * len(items)):
        yield frozenset(item for item in items if choice.random() < 0.5)

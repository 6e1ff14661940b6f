"""RootedTree: folders and files below one open directory, and nowhere else.

Paths are opened one part at a time, each relative to the folder before it (dir_fd) and never through a
symbolic link (O_NOFOLLOW). So nobody who can write to the tree can lead a reader or writer out of it, not
even between a check and its use. Names have passed object_names.py, so none is ".." or absolute.

The root stays open for the life of the tree: should the disk be unmounted or the directory renamed, all goes
on in the same directory, and nothing is written beneath an empty mount point. Raises OSError as the kernel
gave it.
"""

import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from repo_store.whole_file import FOLDER_FLAGS, FOLDER_MODE, sync

Folders = tuple[str, ...]
"""The parts of a folder's path below the root; () is the root itself."""

# O_NONBLOCK: opening a pipe that stands in a file's place must not wait for its other end.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ROOT_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC  # the user may well have named a link to the root


class NotRegular(OSError):
    """A symbolic link, pipe, socket or device stands where a file should."""


class RootedTree:
    """The tree below `path`. Safe to use from several threads."""

    def __init__(self, path: str) -> None:
        """Open the directory. Raises OSError."""
        self.root = os.open(path, _ROOT_FLAGS)
        weakref.finalize(self, os.close, self.root).atexit = False

    @contextmanager
    def open_folder(self, folders: Folders, *, make: bool = False) -> Iterator[int]:
        """Open a folder; with `make`, create it and those above it where they are missing."""
        folder = os.open(".", FOLDER_FLAGS, dir_fd=self.root)
        try:
            for part in folders:
                inner = _open_inner(folder, part, make=make)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    @contextmanager
    def open_file(self, folders: Folders, name: str) -> Iterator[int]:
        """Open a regular file for reading. Raises NotRegular for anything else of that name."""
        with self.open_folder(folders) as folder:
            file = os.open(name, _READ_FLAGS, dir_fd=folder)
        try:
            require_regular(os.fstat(file))
            yield file
        finally:
            os.close(file)

    def scan(self, folders: Folders) -> list[tuple[str, os.stat_result]]:
        """Return the names in a folder, with what each is. Entries that vanish meanwhile are left out.

        The folder is read whole, so that none stays open while a caller takes its time over the names.
        """
        found = []
        with self.open_folder(folders) as folder, os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
        return found


def require_regular(status: os.stat_result) -> None:
    """Raise NotRegular unless `status` is that of a regular file."""
    if not stat.S_ISREG(status.st_mode):
        raise NotRegular(0, "not a regular file")


def make_root(path: Path) -> None:
    """Make a directory and those above it, so that they survive a power cut. One that exists is left as it is."""
    existed = path.is_dir()
    if not existed and not path.parent.is_dir():
        make_root(path.parent)
    try:
        parent = os.open(path.parent, _ROOT_FLAGS)
    except PermissionError:
        if existed:
            return  # made by somebody else long ago, in a place we cannot read
        raise
    try:
        if not existed:
            _make_folder(parent, path.name)
        sync(parent)
    finally:
        os.close(parent)


def _make_folder(folder: int, name: str) -> None:
    with suppress(FileExistsError):  # another process was faster; if it is no folder, opening it says so
        os.mkdir(name, FOLDER_MODE, dir_fd=folder)


def _open_inner(folder: int, part: str, *, make: bool) -> int:
    try:
        return os.open(part, FOLDER_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    _make_folder(folder, part)
    return os.open(part, FOLDER_FLAGS, dir_fd=folder)

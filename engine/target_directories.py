"""Target directories: the way into a directory of the target, and the list of those still to be finished.

The way in is one openat with O_NOFOLLOW for each component, from the target down: whatever a manifest says,
and whoever puts links into the target meanwhile, nothing is reached but directories below it that belong to us.
"""

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from tempfile import TemporaryFile
from typing import IO

import msgpack

from engine.problems import ProblemKind, printable, reason
from repo_store.entry import Entry, Path
from repo_store.errors import Refused, StorageError

OPEN_DIRECTORIES_MAX = 64
DIRECTORIES_IN_MEMORY_MAX = 20_000
"""About 10 MB; more wait in a temporary file for their metadata."""

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class Unrestorable(Exception):
    """One entry cannot be put into the target; the others can."""

    def __init__(self, message: str, kind: ProblemKind = ProblemKind.INCOMPLETE) -> None:
        super().__init__(message)
        self.kind = kind


def check_name(name: bytes) -> None:
    """Raise Unrestorable for a name that no directory can hold, and that would lead out of it."""
    if not name or b"/" in name or b"\0" in name or name == b"." or name == b"..":
        raise Unrestorable(f"{printable(name)!r} is not a name", ProblemKind.DAMAGED)


class TargetDirectories:
    """Open descriptors of the target's directories, the last used first at hand. The caller holds a lock."""

    def __init__(self, top_fd: int) -> None:
        """Own `top_fd`, the target itself."""
        self._top_fd = top_fd
        self._owner: int | None = None
        self._fds: OrderedDict[Path, int] = OrderedDict()
        self._last: tuple[Path, int] = ((), top_fd)

    def fd(self, path: Path) -> int:
        """Return a descriptor of the directory, good until the next call. Raises Unrestorable, OSError."""
        last, fd = self._last
        if path == last:
            return fd
        depth = len(path)
        while depth and path[:depth] not in self._fds:
            depth -= 1
        fd = self._top_fd
        if depth:
            fd = self._fds[path[:depth]]
            self._fds.move_to_end(path[:depth])
        for index in range(depth, len(path)):
            fd = self._open(fd, path[index])
            self._fds[path[: index + 1]] = fd
            if len(self._fds) > OPEN_DIRECTORIES_MAX:
                os.close(self._fds.popitem(last=False)[1])
        self._last = (path, fd)
        return fd

    def make(self, parent_fd: int, name: bytes) -> None:
        """Create a directory that nobody else can enter. Raises OSError."""
        os.mkdir(name, 0o700, dir_fd=parent_fd)
        if self._owner is None:
            # Asked, not assumed: on some mounts and file servers what we make belongs to another user.
            self._owner = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_uid

    def close(self) -> None:
        """Give all descriptors back, that of the target included."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        os.close(self._top_fd)

    def _open(self, parent_fd: int, name: bytes) -> int:
        check_name(name)
        try:
            fd = os.open(name, _OPEN, dir_fd=parent_fd)
        except FileNotFoundError:
            message = f"its directory {printable(name)} was not restored"
            raise Unrestorable(message, ProblemKind.DAMAGED) from None
        except OSError as error:
            message = f"its directory {printable(name)} cannot be entered: {reason(error)}"
            raise Unrestorable(message, ProblemKind.DAMAGED) from error
        # The target was empty, so a directory with our owner was made by us. One of somebody else's was put
        # there while we work, and its owner would get what we write into it.
        if os.fstat(fd).st_uid != self._owner:
            os.close(fd)
            raise Unrestorable(f"its directory {printable(name)} was made by somebody else")
        return fd


class UnfinishedDirectories:
    """The directories made so far, given back last one first: so children come before their parents."""

    def __init__(self) -> None:
        self._latest: list[tuple[Path, Entry]] = []
        self._spill: IO[bytes] | None = None
        self._spilled: list[tuple[int, int]] = []

    def add(self, path: Path, entry: Entry) -> None:
        """Append one. Raises OSError if the temporary file cannot be written."""
        self._latest.append((path, entry))
        if len(self._latest) >= DIRECTORIES_IN_MEMORY_MAX:
            if self._spill is None:
                self._spill = TemporaryFile()
            start = self._spill.seek(0, os.SEEK_END)
            self._spill.write(msgpack.packb([(list(at), list(each)) for at, each in self._latest]))
            self._spilled.append((start, self._spill.tell() - start))
            self._latest.clear()

    def __iter__(self) -> Iterator[tuple[Path, Entry]]:
        """Yield all, last one first, and forget them."""
        yield from reversed(self._latest)
        self._latest.clear()
        if self._spill is None:
            return
        with self._spill as spill:
            for start, length in reversed(self._spilled):
                spill.seek(start)
                batch = msgpack.unpackb(spill.read(length), strict_map_key=False)
                for path, entry in reversed(batch):
                    yield tuple(path), Entry._make(entry)
        self._spill = None
        self._spilled.clear()


def open_empty(location: bytes, shown: str) -> int:
    """Create the directory or open an empty one. Raises Refused, StorageError."""
    try:
        with suppress(FileExistsError):
            os.mkdir(location)
        fd = os.open(location, _OPEN)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP) and os.path.lexists(location):
            raise Refused(f"{shown}: exists and is not a directory") from error
        raise StorageError(f"{shown}: cannot be created: {reason(error)}") from error
    with os.scandir(fd) as listing:
        empty = next(listing, None) is None
    if not empty:
        os.close(fd)
        raise Refused(f"{shown}: is not empty", hint="restore into a new directory")
    return fd


def sync_file_system(fd: int) -> None:
    """Wait until all of the file system that holds `fd` is on its disk. Raises OSError."""
    import ctypes  # 10 ms that a run without restore need not pay

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        os.sync()
    elif libc.syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

"""Whole files: written and synced before they have a name, so no name ever leads to a torn file.

    unnamed    O_TMPFILE in the target folder, write, fsync, link() through /proc/self/fd
    linked     a temporary name in .tmp/, write, fsync, link() to the target, unlink the temporary
    renamed    the same, but renameat2(RENAME_NOREPLACE) instead of link() and unlink()

The three ways have one result: the name appears at once, never over an existing file, and only after
the bytes are on the disk. The first is tried first, as it leaves nothing behind when the process dies;
the others serve file systems without O_TMPFILE (NFS, most of FUSE) or without links (FAT, some FUSE).
Plain rename() is no fourth way: it replaces, so two writers of one name would both believe they won.

This module names files and syncs their bytes. Syncing the folder that holds the name is the caller's
part (local_storage.barrier). It raises OSError as the kernel gave it; the caller says what it means.
"""

import errno
import os
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from repo_store.storage import Buffer

WAYS = ("unnamed", "linked", "renamed")
TEMPORARY_FOLDER = ".tmp"
LEFTOVER_SECONDS = 24 * 60 * 60
"""A temporary this old belongs to a process that died: writing one object takes seconds."""

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER_MODE = 0o700
_FILE_MODE = 0o400  # nothing is ever changed in place, so nobody needs to open it for writing
_FILE_FLAGS = os.O_WRONLY | os.O_CLOEXEC

_WRITE_BYTES = 2 * 1024 * 1024
_WRITE_BUFFERS_MAX = 1024  # IOV_MAX on Linux
_RENAME_NOREPLACE = 1

_NO_UNNAMED = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS})
_NO_LINK = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK})
_NO_RENAME = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class SyncFailed(OSError):
    """fsync failed: the kernel may have dropped what it could not write, and will not say so again."""


class NoWay(Exception):
    """The file system can create a file under a name in none of the ways, without replacing."""


class _NotSupported(Exception):
    """The file system does not know this way of creating a file; another may work."""


class WholeFiles:
    """Creates and replaces whole files below one root folder. Safe to use from several threads."""

    def __init__(self, root: int, ways: Sequence[str] = WAYS) -> None:
        """`root` is an open folder, and stays the caller's. `ways` are tried in this order."""
        self._root = root
        self._ways = tuple(ways)
        self._create: dict[str, Callable[[int, str, Sequence[Buffer]], None]] = {
            "unnamed": self._create_unnamed,
            "linked": self._create_linked,
            "renamed": self._create_renamed,
        }

    def create(self, folder: int, name: str, parts: Sequence[Buffer]) -> None:
        """Make the file `name` in the open `folder`, holding `parts` joined. It is synced, its name is not.

        Raises FileExistsError if the name is taken, NoWay, SyncFailed, other OSError.
        """
        while self._ways:
            way = self._ways[0]
            try:
                return self._create[way](folder, name, parts)
            except _NotSupported:
                # Two threads may both arrive here; taking the same way off twice does no harm.
                self._ways = tuple(other for other in self._ways if other != way)
        raise NoWay

    def replace(self, folder: int, name: str, parts: Sequence[Buffer]) -> None:
        """Make or replace the file `name` atomically: readers and power cuts see the old bytes or the new."""
        with self._temporary(parts) as (temporaries, temporary):
            os.rename(temporary, name, src_dir_fd=temporaries, dst_dir_fd=folder)

    def clean(self) -> int:
        """Remove the temporaries of processes that died and return their number.

        Age is told by the clock of the file system, from a file made now: on a network file system the
        clock of this host may be another one.
        """
        with self._temporary([]) as (temporaries, temporary):
            now = os.stat(temporary, dir_fd=temporaries, follow_symlinks=False).st_mtime
            removed = 0
            for name in os.listdir(temporaries):
                with suppress(FileNotFoundError):
                    written = os.stat(name, dir_fd=temporaries, follow_symlinks=False).st_mtime
                    if now - written > LEFTOVER_SECONDS:
                        os.unlink(name, dir_fd=temporaries)
                        removed += 1
        return removed

    def _create_unnamed(self, folder: int, name: str, parts: Sequence[Buffer]) -> None:
        with _not_supported_if(_NO_UNNAMED):
            file = os.open(".", os.O_TMPFILE | _FILE_FLAGS, _FILE_MODE, dir_fd=folder)
        try:
            _write_all(file, parts)
            sync(file)
            # ENOENT: /proc is not mounted. If it is the folder that went, the next way will say so.
            with _not_supported_if(_NO_LINK | {errno.ENOENT}):
                os.link(f"/proc/self/fd/{file}", name, dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(file)

    def _create_linked(self, folder: int, name: str, parts: Sequence[Buffer]) -> None:
        with self._temporary(parts) as (temporaries, temporary), _not_supported_if(_NO_LINK):
            os.link(temporary, name, src_dir_fd=temporaries, dst_dir_fd=folder, follow_symlinks=False)

    def _create_renamed(self, folder: int, name: str, parts: Sequence[Buffer]) -> None:
        with self._temporary(parts) as (temporaries, temporary), _not_supported_if(_NO_RENAME):
            rename_exclusively(temporaries, temporary, folder, name)

    @contextmanager
    def _temporary(self, parts: Sequence[Buffer]) -> Iterator[tuple[int, str]]:
        """Give the open folder of temporaries and the name of a synced file in it; remove that name after."""
        with suppress(FileExistsError):
            os.mkdir(TEMPORARY_FOLDER, FOLDER_MODE, dir_fd=self._root)
        temporaries = os.open(TEMPORARY_FOLDER, FOLDER_FLAGS, dir_fd=self._root)
        name = secrets.token_hex(16)
        try:
            file = os.open(name, os.O_CREAT | os.O_EXCL | _FILE_FLAGS, _FILE_MODE, dir_fd=temporaries)
            try:
                _write_all(file, parts)
                sync(file)
            finally:
                os.close(file)
            yield temporaries, name
        finally:
            # Already gone if it was renamed. One that cannot be removed now is left to `clean`.
            with suppress(OSError):
                os.unlink(name, dir_fd=temporaries)
            os.close(temporaries)


def sync(file: int) -> None:
    """Wait until the bytes of an open file, or the names in an open folder, are on the disk. Raises SyncFailed."""
    try:
        os.fsync(file)
    except OSError as error:
        raise SyncFailed(error.errno, error.strerror) from error


def rename_exclusively(source: int, before: str, target: int, after: str) -> None:
    """Rename `before` in the open folder `source` to `after` in `target`. Raises FileExistsError if it exists."""
    # Imported here: programs that never come this way must not pay for loading ctypes.
    import ctypes

    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if renameat2(source, before.encode(), target, after.encode(), _RENAME_NOREPLACE) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _write_all(file: int, parts: Sequence[Buffer]) -> None:
    """Write `parts` one after the other, without joining them.

    After every 2 MiB the kernel is told to begin writing them out, so that the disk works while the next are
    copied and fsync has little left to wait for: 2.7 against 1.8 GB/s for 32 MiB on the disk this was tuned on.
    posix_fadvise is the portable way to say so; it also keeps backups from filling the page cache.
    """
    waiting = deque(view for part in parts if (view := memoryview(part).cast("B")))
    written = 0
    while waiting:
        batch: list[memoryview] = []
        room = _WRITE_BYTES
        while waiting and room and len(batch) < _WRITE_BUFFERS_MAX:
            view = waiting.popleft()
            if len(view) > room:
                waiting.appendleft(view[room:])
            batch.append(view[:room])
            room -= len(batch[-1])
        count = os.writev(file, batch)
        if count == 0:
            raise OSError(errno.EIO, "nothing was written")
        for view in reversed(_after(batch, count)):
            waiting.appendleft(view)
        if waiting:
            with suppress(OSError):  # advice only: fsync is the judge of what was written
                os.posix_fadvise(file, written, count, os.POSIX_FADV_DONTNEED)
        written += count


def _after(batch: list[memoryview], count: int) -> list[memoryview]:
    """Return what remains of `batch` after its first `count` bytes."""
    remaining = []
    for view in batch:
        taken = min(count, len(view))
        count -= taken
        if taken < len(view):
            remaining.append(view[taken:])
    return remaining


@contextmanager
def _not_supported_if(errnos: frozenset[int]) -> Iterator[None]:
    """Turn an OSError with one of `errnos`, a file system that lacks this way, into _NotSupported."""
    try:
        yield
    except OSError as error:
        if error.errno in errnos:
            raise _NotSupported from error
        raise

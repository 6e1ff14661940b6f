"""Reading: the bytes of one file, into buffers of the caller's own.

A file may change, be replaced by a fifo or shrink at any moment. So it is opened without following links and
without waiting, what was opened is asked what it is, its entry describes what was opened, and afterwards
`has_changed` says whether the bytes read are those of one moment. Files are never mapped: a mapping would
change after it was hashed.
"""

import errno
import os
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from engine._plain import read_files
from engine.sources.directory import Directory
from engine.sources.metadata import FILE, entry_from_stat
from repo_store.entry import Entry

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own
_EFFECTIVE_UID = os.geteuid()


class OpenedFile(NamedTuple):
    """A file open for reading, its entry as of now, and whether it has fewer blocks than bytes."""

    fd: int
    entry: Entry
    sparse: bool


class NotAFile(OSError):
    """What was a regular file in the listing is something else by now."""


def open_file(directory: Directory, entry: Entry) -> OpenedFile:
    """Open the regular file of this entry. The caller closes the descriptor.

    The entry returned is `entry` itself unless the file has changed since. Raises OSError: FileNotFoundError
    if it has vanished, which is no problem, NotAFile if it is no longer a regular file.
    """
    fd = _open(directory, entry)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise NotAFile(errno.ESTALE, "is no longer a regular file")
    except BaseException:
        os.close(fd)
        raise
    if _differs(entry, status):
        entry = entry_from_stat(entry.name, FILE, status, entry.extra)
    return OpenedFile(fd, entry, status.st_blocks * _BLOCK_BYTES < status.st_size)


def _open(directory: Directory, entry: Entry) -> int:
    name = directory.disk_name(entry.name)
    # A backup should not look like use of the file; only its owner and root may ask for that.
    flags = _FLAGS | os.O_NOATIME if _EFFECTIVE_UID in (0, entry.uid) else _FLAGS
    try:
        try:
            return os.open(name, flags, dir_fd=directory.fd)
        except PermissionError:
            if flags == _FLAGS:
                raise
            return os.open(name, _FLAGS, dir_fd=directory.fd)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, or a socket or device, has taken its place
            raise NotAFile(errno.ESTALE, "is no longer a regular file") from error
        raise


def _differs(entry: Entry, status: os.stat_result) -> bool:
    return (
        status.st_ctime_ns != entry.ctime_ns
        or status.st_mtime_ns != entry.mtime_ns
        or status.st_size != entry.size
        or status.st_ino != entry.inode
    )


def has_changed(fd: int, entry: Entry) -> bool:
    """Say whether the file is no longer what `open_file` found: the bytes read may be of two moments.

    The ctime counts too: a writer can set the mtime back, not the ctime.
    """
    return _differs(entry, os.fstat(fd))


def unstable(entry: Entry, read_bytes: int) -> Entry:
    """Return the entry of a file that changed while `read_bytes` of it were read: marked, with what was read."""
    extra: dict[str, Any] = {**(entry.extra or {}), "unstable": True}
    return entry._replace(size=read_bytes, extra=extra)


def read_into(fd: int, view: memoryview, offset: int) -> int:
    """Fill `view` with the file's bytes from `offset` on; fewer are read only where the file ends.

    Returns the number of bytes. Raises OSError.
    """
    filled = 0
    while filled < len(view):
        count = os.preadv(fd, [view[filled:] if filled else view], offset + filled)
        if count == 0:
            break
        filled += count
    return filled


def read_plain(directory: Directory, entries: tuple[Entry, ...], view: memoryview, *, xattrs: bool) -> int:
    """Read files whole, one behind the other into `view`, and return how many were read so.

    It ends where `view` does, and at the first file that is not exactly as its entry says, before and after it was
    read, or has holes or extended attributes: that one must be opened by `open_file`. A file that was read needs
    nothing more: its entry is right, and its content is the next `size` bytes of `view`.
    """
    return read_files(directory.fd, entries, view, _EFFECTIVE_UID, xattrs)


def data_extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Return (start, end) of the ranges below `size` that were written; what lies between are holes: zeros.

    Worth its calls for sparse files only. A file system that knows no holes says that all is data.
    """
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
            if start >= size:
                return
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                return
            if error.errno == errno.EINVAL and end == 0:
                yield 0, size
                return
            raise
        yield start, end

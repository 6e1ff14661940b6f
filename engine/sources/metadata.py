"""Metadata: from what lstat says to an entry, and the part of an entry that costs more calls.

The walk makes an entry skeleton from one lstat for every file. What takes further calls (link target,
extended attributes) is read by `ExtraReader` for entries that are new or changed only: every change of it
changes the ctime.
"""

import errno
import os
import stat
from hashlib import blake2b
from typing import Any

from engine.problems import OnProblem, Problem, reason
from engine.sources.directory import Directory
from repo_store.entry import Entry, EntryKind

# Plain integers: this is the hot path, and an IntEnum compares five times slower.
FILE, DIRECTORY, SYMLINK = int(EntryKind.FILE), int(EntryKind.DIRECTORY), int(EntryKind.SYMLINK)
DEVICES = (int(EntryKind.CHARACTER_DEVICE), int(EntryKind.BLOCK_DEVICE))

KIND_OF_TYPE: list[int | None] = [None] * 16
"""The kind of an entry by its file type, `st_mode >> 12`; None for sockets, which cannot be backed up."""
for _type, _kind in (
    (stat.S_IFREG, EntryKind.FILE),
    (stat.S_IFDIR, EntryKind.DIRECTORY),
    (stat.S_IFLNK, EntryKind.SYMLINK),
    (stat.S_IFIFO, EntryKind.FIFO),
    (stat.S_IFCHR, EntryKind.CHARACTER_DEVICE),
    (stat.S_IFBLK, EntryKind.BLOCK_DEVICE),
):
    KIND_OF_TYPE[_type >> 12] = int(_kind)

KIND_BYTES = bytes(0xFF if kind is None else kind for kind in KIND_OF_TYPE)
"""The same for engine/_plain.c."""

new_tuple = tuple.__new__
"""Saves a third of the time of Entry(…), which takes its arguments apart and together again."""
_NO_XATTRS = (errno.ENOTSUP, errno.ENOSYS)


def entry_from_stat(name: bytes, kind: int, status: os.stat_result, extra: dict[str, Any] | None) -> Entry:
    """Return the skeleton of an entry: everything but content and what ExtraReader adds."""
    return new_tuple(
        Entry,
        (
            name,
            kind,
            status.st_mode & 0o7777,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
            status.st_size if kind == FILE else 0,
            None,
            extra,
        ),
    )


class LinkNumbers:
    """Numbers for groups of hard links: the same for an unchanged tree, so that its leaves stay identical.

    Devices count in the order in which the walk meets them, because their own numbers may change with a reboot.
    """

    def __init__(self) -> None:
        self._ordinals: dict[int, int] = {}

    def number(self, status: os.stat_result) -> int:
        """Return a number below 2**63 that all links to this inode share and, collisions aside, no other does."""
        ordinal = self._ordinals.setdefault(status.st_dev, len(self._ordinals))
        digest = blake2b(b"%d:%d" % (ordinal, status.st_ino), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1


class ExtraReader:
    """Reads what lstat does not say. Remembers which file systems have no extended attributes."""

    def __init__(self, on_problem: OnProblem, *, xattrs: bool = True) -> None:
        self._on_problem = on_problem
        self._xattrs = xattrs
        self._devices_without: set[int] = set()

    def read(self, directory: Directory, entry: Entry, fd: int | None = None) -> Entry:
        """Return the entry with its extra complete: target, device number, extended attributes.

        `fd` is the opened file, where there is one: it saves a path lookup. What cannot be read is reported,
        and the entry then has ctime 0, so that the next snapshot does not take it for unchanged.
        """
        extra: dict[str, Any] = {}
        failed: Exception | None = None
        try:
            if entry.kind == SYMLINK:
                extra["target"] = os.readlink(directory.disk_name(entry.name), dir_fd=directory.fd)
            elif entry.kind in DEVICES:
                status = os.stat(directory.disk_name(entry.name), dir_fd=directory.fd, follow_symlinks=False)
                extra["rdev"] = [os.major(status.st_rdev), os.minor(status.st_rdev)]
            if self.wanted(directory) or (self._xattrs and entry.kind == DIRECTORY):
                xattrs = self._read_xattrs(directory, entry, fd)
                if xattrs:
                    extra["xattrs"] = xattrs
        except OSError as error:
            failed = error
        if failed is not None:
            path = (*directory.path, entry.name)
            self._on_problem(Problem(path, f"its metadata cannot be read: {reason(failed)}"))
            entry = entry._replace(ctime_ns=0)
        if not extra:
            return entry
        return entry._replace(extra={**(entry.extra or {}), **extra})

    def wanted(self, directory: Directory) -> bool:
        """Say whether a file in the directory may have extended attributes, as far as is known."""
        return self._xattrs and directory.device not in self._devices_without

    def _read_xattrs(self, directory: Directory, entry: Entry, fd: int | None) -> dict[bytes, bytes]:
        # There is no listxattrat; the path through /proc leads into the very directory we hold, and the
        # last component is not followed.
        where: int | bytes = directory.proc_path(entry.name) if fd is None else fd
        follow = fd is not None
        xattrs: dict[bytes, bytes] = {}
        try:
            for name in os.listxattr(where, follow_symlinks=follow):
                try:
                    xattrs[os.fsencode(name)] = os.getxattr(where, name, follow_symlinks=follow)
                except OSError as error:
                    if error.errno != errno.ENODATA:  # removed since it was listed
                        raise
        except OSError as error:
            if error.errno not in _NO_XATTRS:
                raise
            if entry.kind != DIRECTORY:  # a directory may be a mount point, and its device another
                self._devices_without.add(directory.device)
        return xattrs

"""Target: a restored tree, written into a new directory and never outside of it.

    with Target(b"/restore", TargetOptions(), owner_names, problems.append) as target:
        target.make_directory(path, entry)          # parents first
        target.write_file(path, entry, content)     # content at hand
        target.write_files([(path, entry, content), …])     # many, from any thread
        file = target.make_file(path, entry)        # or in pieces, from any thread
        file.write_at(offset, data); file.finish()
        target.make_special(path, entry); target.make_link(path, first_path)
        target.finish()                             # directories' metadata, then everything to the disk

Laws: everything is created exclusively (O_EXCL, mkdir, symlink, mknod, link fail where something is), below
directories reached without following links (target_directories.py), so a manifest cannot lead out of the
target or through a link it has made itself, and two entries of one name are refused. Files and directories
are 0600 and 0700 until their owner is right. One bad entry is a Problem, the others go on; a full or failing
disk ends the restore with StorageError. `finish` returns when all is durable.
"""

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from threading import Lock
from types import TracebackType

from engine._restoring import create_files
from engine.problems import OnProblem, Problem, ProblemKind, printable, printable_path, reason
from engine.sources.owners import OwnerNames
from engine.target_directories import (
    TargetDirectories,
    UnfinishedDirectories,
    Unrestorable,
    check_name,
    open_empty,
    sync_file_system,
)
from engine.target_file import OpenFiles, TargetFile, write_runs
from engine.target_metadata import MetadataWriter, clear_inherited_acl, has_default_acl
from repo_store.entry import Entry, EntryKind, Path
from repo_store.errors import StorageError

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_REOPEN = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK
DISK_FAILED = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)
CANNOT_LINK = (errno.EMLINK, errno.EPERM, errno.ENOENT, errno.ENOTSUP)
SPECIAL_TYPES = {
    EntryKind.FIFO: stat.S_IFIFO | 0o600,
    EntryKind.CHARACTER_DEVICE: stat.S_IFCHR | 0o600,
    EntryKind.BLOCK_DEVICE: stat.S_IFBLK | 0o600,
}
ENTRY_FAILED = (Unrestorable, OSError, ValueError, OverflowError, TypeError, KeyError)
"""One entry failed; the last four are what Python says to values that no file system can have given."""


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """`numeric_ids`: owners by id only. `durable`: finish waits for the disk; without, a power cut may undo it."""

    numeric_ids: bool = False
    xattrs: bool = True
    durable: bool = True


Whole = tuple[Path, Entry, bytes | memoryview]
"""A file whose content is at hand: path, entry, content."""


class Target:
    """A new directory that a restore fills."""

    def __init__(
        self, location: bytes | str, options: TargetOptions, owner_names: OwnerNames, on_problem: OnProblem
    ) -> None:
        """Create the directory, or take an empty one. Raises Refused if something is there, StorageError."""
        self._location = printable(os.fsencode(location))
        self._options = options
        self._on_problem = on_problem
        self._metadata = MetadataWriter(owner_names, on_problem, options.numeric_ids, options.xattrs)
        self._top_fd = open_empty(os.fsencode(location), self._location)
        self._top_has_acl = has_default_acl(self._top_fd)
        self._directories = TargetDirectories(self._top_fd)
        self._unfinished = UnfinishedDirectories()
        self._files = OpenFiles(self._reopen)
        self._lock = Lock()  # held while a descriptor of a directory is in use: another call may close it

    def __enter__(self) -> "Target":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def make_directory(self, path: Path, entry: Entry) -> bool:
        """Create a directory; its metadata comes with `finish`. False if that was a Problem."""
        try:
            with self._lock:
                parent_fd = self._parent(path)
                self._directories.make(parent_fd, path[-1])
                self._shed_acl(path, parent_fd)
                self._unfinished.add(path, entry)
            return True
        except ENTRY_FAILED as error:
            return self._failed(path, error)

    def write_files(self, whole: Sequence[Whole]) -> list[Entry]:
        """Create files, each with all of its content; return those that were. The others were Problems."""
        done: list[Entry] = []
        for parent, group in groupby(whole, _parent_of):
            files = list(group)
            while files:
                count = 0
                with suppress(*ENTRY_FAILED):  # write_file meets it again, and says so
                    count = self._create_plain(parent, files)
                done += [entry for _, entry, _ in files[:count]]
                # The first one that is not ordinary: the long way, and then on with the short one.
                done += [file[1] for file in files[count : count + 1] if self.write_file(*file)]
                files = files[count + 1 :]
        return done

    def write_file(self, path: Path, entry: Entry, content: bytes | memoryview) -> bool:
        """Create a file with all of its content. False if that was a Problem."""
        try:
            if len(content) != entry.size:
                message = f"its content has {len(content)} bytes, not {entry.size}"
                raise Unrestorable(message, ProblemKind.DAMAGED)
            fd = self._create(path)
            try:
                if write_runs(fd, content, 0) != entry.size:
                    os.ftruncate(fd, entry.size)
                self._metadata.apply(fd, path, entry)
            finally:
                os.close(fd)
            return True
        except ENTRY_FAILED as error:
            return self._failed(path, error)

    def make_file(self, path: Path, entry: Entry) -> TargetFile | None:
        """Create a file to be written in pieces; the caller finishes or discards it. None: that was a Problem."""
        try:
            return self._files.add(TargetFile(self, path, entry, self._create(path)))
        except ENTRY_FAILED as error:
            self._failed(path, error)
            return None

    def make_special(self, path: Path, entry: Entry) -> bool:
        """Create a symbolic link, fifo or device. False if that was a Problem: devices need privilege."""
        try:
            with self._lock:
                parent_fd, extra = self._parent(path), entry.extra or {}
                if entry.kind == EntryKind.SYMLINK:
                    os.symlink(extra["target"], path[-1], dir_fd=parent_fd)
                else:
                    major, minor = (0, 0) if entry.kind == EntryKind.FIFO else extra["rdev"]
                    mode = SPECIAL_TYPES[EntryKind(entry.kind)]
                    os.mknod(path[-1], mode, os.makedev(major, minor), dir_fd=parent_fd)
                    self._shed_acl(path, parent_fd)
                self._metadata.apply_by_name(parent_fd, path, entry)
            return True
        except ENTRY_FAILED as error:
            return self._failed(path, error)

    def make_link(self, path: Path, first_path: Path) -> bool:
        """Create a hard link to what was restored at `first_path`.

        False if it cannot be, which is no Problem yet: the entry carries the whole content, and the caller
        restores it as a file of its own. A name already taken or impossible is one, and False too.
        """
        try:
            with self._lock:
                first_fd = os.dup(self._parent(first_path))  # the next call may close the original
                try:
                    parent_fd, old, new = self._parent(path), first_path[-1], path[-1]
                    os.link(old, new, src_dir_fd=first_fd, dst_dir_fd=parent_fd, follow_symlinks=False)
                finally:
                    os.close(first_fd)
            return True
        except ENTRY_FAILED as error:
            if isinstance(error, OSError) and error.errno in CANNOT_LINK:
                return False
            return self._failed(path, error)

    def finish(self) -> None:
        """Give directories their metadata, deepest first, and wait until all is on the disk.

        Raises StorageError if the disk says that it is not.
        """
        with self._lock:
            for path, entry in self._unfinished:
                try:
                    parent_fd = self._parent(path)
                    fd = os.open(path[-1], _OPEN_DIRECTORY, dir_fd=parent_fd)
                    try:
                        self._metadata.apply(fd, path, entry)
                    finally:
                        os.close(fd)
                except ENTRY_FAILED as error:
                    self._failed(path, error)
        self._metadata.report()
        if self._options.durable:
            try:
                sync_file_system(self._top_fd)
            except OSError as error:
                raise StorageError(f"{self._location}: not all is on the disk: {reason(error)}") from error

    def close(self) -> None:
        """Give all descriptors back. What was not finished stays as it is."""
        if self._top_fd >= 0:
            self._files.close_all()
            self._directories.close()
            self._top_fd = -1

    def write_piece(self, file: TargetFile, offset: int, data: bytes | memoryview) -> None:
        """For TargetFile."""
        try:
            fd = self._files.pin(file)
            try:
                write_runs(fd, data, offset)
            finally:
                self._files.unpin(file)
        except OSError as error:
            raise self._disk_failed(file.path, error) from error

    def finish_file(self, file: TargetFile) -> None:
        """For TargetFile."""
        try:
            fd = self._files.pin(file)
            try:
                os.ftruncate(fd, file.entry.size)
                self._metadata.apply(fd, file.path, file.entry)
            finally:
                self._files.close(file)
        except OSError as error:
            raise self._disk_failed(file.path, error) from error

    def discard_file(self, file: TargetFile) -> None:
        """For TargetFile."""
        self._files.close(file)
        try:
            with self._lock:
                os.unlink(file.path[-1], dir_fd=self._parent(file.path))
        except ENTRY_FAILED as error:
            self._failed(file.path, error)

    def _create_plain(self, parent: Path, whole: Sequence[Whole]) -> int:
        """Create the first of `whole`, files in one directory, until one is not ordinary; return how many."""
        if self._top_has_acl and not parent:
            return 0
        rows: list[tuple[bytes, bytes | memoryview, int, int, int, int]] = []
        for _, entry, content in whole:
            plain = self._metadata.plain(entry)
            if plain is None or len(content) != entry.size:
                break
            rows.append((entry.name, content, *plain, entry.mtime_ns))
        with self._lock:
            parent_fd = os.dup(self._directories.fd(parent))  # the next call may close the original
        try:
            return _create_until(parent_fd, tuple(rows))
        finally:
            os.close(parent_fd)

    def _create(self, path: Path) -> int:
        with self._lock:
            parent_fd = self._parent(path)
            fd = os.open(path[-1], _CREATE, 0o600, dir_fd=parent_fd)
        if self._top_has_acl and len(path) == 1:
            clear_inherited_acl(fd)
        return fd

    def _reopen(self, file: TargetFile) -> int:
        with self._lock:
            fd = os.open(file.path[-1], _REOPEN, dir_fd=self._parent(file.path))
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino, status.st_uid) != file.identity:
            os.close(fd)
            raise OSError(errno.ESTALE, "another file has taken its place")
        return fd

    def _parent(self, path: Path) -> int:
        if not path:
            raise Unrestorable("an entry without a name", ProblemKind.DAMAGED)
        check_name(path[-1])
        return self._directories.fd(path[:-1])

    def _shed_acl(self, path: Path, parent_fd: int) -> None:
        # What lies deeper is in directories made by us, which have none to pass on until they are finished.
        if self._top_has_acl and len(path) == 1:
            clear_inherited_acl(b"/proc/self/fd/%d/%b" % (parent_fd, path[-1]))

    def _failed(self, path: Path, error: Exception) -> bool:
        """Report why one entry is not restored, and return False; raises StorageError if no other can be."""
        message, kind = f"entry is impossible: {reason(error)}", ProblemKind.DAMAGED
        if isinstance(error, Unrestorable):
            message, kind = str(error), error.kind
        elif isinstance(error, FileExistsError):
            message = "already there: named twice, or differing in nothing that this file system tells apart"
        elif isinstance(error, OSError):
            if error.errno in DISK_FAILED:
                raise self._disk_failed(path, error) from error
            message, kind = f"cannot be restored: {reason(error)}", ProblemKind.INCOMPLETE
        self._on_problem(Problem(path, message, kind))
        return False

    def _disk_failed(self, path: Path, error: OSError) -> StorageError:
        return StorageError(f"{self._location}: {printable_path(path)} cannot be written: {reason(error)}")


def _parent_of(whole: Whole) -> Path:
    return whole[0][:-1]


def _create_until(
    parent_fd: int, rows: tuple[tuple[bytes, bytes | memoryview, int, int, int, int], ...]
) -> int:
    """Create the files of `rows` in the directory until one is not ordinary; return how many."""
    done = 0
    while done < len(rows):
        more = create_files(parent_fd, rows, done)
        if more == 0:
            break
        done += more
    return done

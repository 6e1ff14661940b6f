"""Existing target: changes directories that are in use, each entry from old to new in one step.

    file = target.begin(path, entry)            # a temporary file beside the old one
    target.write_at(file, offset, data)         # pieces, from the repository or from the old file
    target.stage(file)                          # size and metadata; `commit` gives it its name
    target.commit()                             # everything staged to the disk, then every name in its place

Laws: what has a name is never written to. A new file is whole and on the disk before it takes the place of the old one, by
rename, so a reader, a kill and a power cut find the one or the other. A file with several names keeps its content
under the others. Only the metadata of what stays is changed in place. Nothing is reached through a link
(existing_directories.py), and nothing is removed here but what a new entry replaces, when that is whole: a directory with
something in it only by the caller's `clear`. Directories get their metadata last, deepest first.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex

from engine.existing_directories import ExistingDirectories, Tops, widen
from engine.problems import OnProblem, Problem, ProblemKind, printable_path, reason
from engine.removal import Identity, identity, is_directory
from engine.sources.owners import OwnerNames
from engine.target import CANNOT_LINK, DISK_FAILED, ENTRY_FAILED, SPECIAL_TYPES, TargetOptions
from engine.target_directories import UnfinishedDirectories, Unrestorable, sync_file_system
from engine.target_file import write_runs
from engine.target_metadata import MetadataWriter, clear_inherited_acl, has_default_acl
from repo_store.entry import Entry, EntryKind, Path
from repo_store.errors import ObjectDamaged, StorageError

TEMPORARY = b".holdfast-restore-"
"""How the names of temporary files begin. One that a killed restore left may be removed."""
NOT_EMPTY = "a directory that is not empty is in its place"
STAGED_MAX = 256
"""Files that wait for one sync before they get their names."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(eq=False, slots=True)
class NewFile:
    """A file under its temporary name."""

    path: Path
    entry: Entry
    name: bytes
    identity: Identity


class ExistingTarget:
    """Directories in use that a restore changes. For one thread at a time."""

    def __init__(
        self,
        tops: Tops,
        options: TargetOptions,
        owners: OwnerNames,
        on_problem: OnProblem,
        *,
        create: bool = True,
        clear: Callable[[int, Path, bytes], bool] | None = None,
    ) -> None:
        """`create`: directories that lead to a top are made where they are missing.

        `clear` takes away what it may of a directory in whose place something else belongs: as `Removal.remove`.
        """
        self._options, self._on_problem, self._clear = options, on_problem, clear
        self._metadata = MetadataWriter(owners, on_problem, options.numeric_ids, options.xattrs)
        self.directories = ExistingDirectories(tops, create=create)
        self._unfinished = UnfinishedDirectories()
        self._widened: list[tuple[Path, int]] = []
        self._begun: set[NewFile] = set()
        self._staged: list[NewFile] = []
        self._devices: dict[int, Path] = {}  # every file system that was written to, by a file on it

    def keep_directory(self, path: Path, entry: Entry | None, found: os.stat_result) -> None:
        """Go on below a directory that is there; with an `entry` it gets its metadata in the end."""
        parent_fd, leaf = self.directories.place(path)
        if stat.S_ISLNK(os.stat(leaf, dir_fd=parent_fd, follow_symlinks=False).st_mode):
            widened = False  # a root that is a link
        else:
            widened = widen(parent_fd, leaf, found)
        if entry is not None:
            self._unfinished.add(path, entry)
        elif widened:
            self._widened.append((path, stat.S_IMODE(found.st_mode)))

    def make_directory(self, path: Path, entry: Entry, *, replace: bool) -> None:
        """Create a directory, in place of what is there if that is no directory; its metadata comes with `finish`."""
        parent_fd, leaf = self.directories.place(path)
        if replace:
            os.unlink(leaf, dir_fd=parent_fd)
        os.mkdir(leaf, 0o700, dir_fd=parent_fd)
        if has_default_acl(parent_fd):
            clear_inherited_acl(b"/proc/self/fd/%d/%b" % (parent_fd, leaf))
        self._unfinished.add(path, entry)

    def begin(self, path: Path, entry: Entry) -> NewFile:
        """Create an empty file beside `path`."""
        parent_fd, _ = self.directories.place(path)
        name = _temporary()
        fd = os.open(name, _CREATE, 0o600, dir_fd=parent_fd)
        try:
            file = NewFile(path, entry, name, identity(os.fstat(fd)))
            self._begun.add(file)
            if has_default_acl(parent_fd):
                clear_inherited_acl(fd)
        finally:
            os.close(fd)
        return file

    def write_at(self, file: NewFile, offset: int, data: bytes | memoryview) -> None:
        """Write `data` at `offset`. Raises ObjectDamaged if that is beyond its size, StorageError, OSError."""
        if offset + len(data) > file.entry.size:
            raise ObjectDamaged(printable_path(file.path), "its content is longer than its size")
        fd = self._reopen(file)
        try:
            write_runs(fd, data, offset)
        finally:
            os.close(fd)

    def stage(self, file: NewFile) -> None:
        """Give the file its size and metadata; `commit` gives it its name."""
        fd = self._reopen(file)
        try:
            os.ftruncate(fd, file.entry.size)
            self._metadata.apply(fd, file.path, file.entry)
        finally:
            os.close(fd)
        self._staged.append(file)

    @property
    def is_full(self) -> bool:
        """Whether so much is staged that it is time to commit."""
        return len(self._staged) >= STAGED_MAX

    def discard(self, file: NewFile) -> None:
        """Remove a file that did not come to its content."""
        self._begun.discard(file)
        parent_fd, _ = self.directories.place(file.path)
        with suppress(FileNotFoundError):
            os.unlink(file.name, dir_fd=parent_fd)

    def commit(self) -> list[NewFile]:
        """Put everything staged in its place; return what got there. Raises StorageError."""
        staged, self._staged = self._staged, []
        if not staged:
            return []
        self._sync(staged)
        return [file for file in staged if self._put_in_place(file)]

    def _put_in_place(self, file: NewFile) -> bool:
        try:
            parent_fd, leaf = self.directories.place(file.path)
            self._clear_way(parent_fd, leaf, file.path)
            os.rename(file.name, leaf, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
            self._begun.discard(file)
            return True
        except ENTRY_FAILED as error:
            with suppress(*ENTRY_FAILED):
                self.discard(file)
            return self.failed(file.path, error)

    def make_special(self, path: Path, entry: Entry) -> None:
        """Create a link, fifo or device, in place of what is there."""
        parent_fd, leaf = self.directories.place(path)
        extra, name = entry.extra or {}, _temporary()
        try:
            if entry.kind == EntryKind.SYMLINK:
                os.symlink(extra["target"], name, dir_fd=parent_fd)
            else:
                major, minor = (0, 0) if entry.kind == EntryKind.FIFO else extra["rdev"]
                mode = SPECIAL_TYPES[EntryKind(entry.kind)]
                os.mknod(name, mode, os.makedev(major, minor), dir_fd=parent_fd)
                if has_default_acl(parent_fd):
                    clear_inherited_acl(b"/proc/self/fd/%d/%b" % (parent_fd, name))
            self._clear_way(parent_fd, leaf, path)
            os.rename(name, leaf, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent_fd)
        self._metadata.apply_by_name(parent_fd, (*path[:-1], leaf), entry)

    def make_link(self, path: Path, first: Path) -> bool:
        """Make `path` another name of the file at `first`; False if that cannot be, which is no Problem yet."""
        first_fd, old = self.directories.place(first)
        first_fd = os.dup(first_fd)  # the next call may close the original
        try:
            parent_fd, leaf = self.directories.place(path)
            name = _temporary()
            try:
                os.link(old, name, src_dir_fd=first_fd, dst_dir_fd=parent_fd, follow_symlinks=False)
                self._clear_way(parent_fd, leaf, path)
                os.rename(name, leaf, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
            finally:
                with suppress(FileNotFoundError):  # a rename between two names of one file leaves both
                    os.unlink(name, dir_fd=parent_fd)
            return True
        except OSError as error:
            if error.errno in CANNOT_LINK:
                return False
            raise
        finally:
            os.close(first_fd)

    def fits(self, path: Path, found: os.stat_result, entry: Entry) -> bool:
        """Say whether what is there already has the metadata of `entry`."""
        parent_fd, leaf = self.directories.place(path)
        return self._metadata.fits(b"/proc/self/fd/%d/%b" % (parent_fd, leaf), found, entry)

    def correct(self, path: Path, entry: Entry) -> None:
        """Give a file that stays the metadata of `entry`."""
        parent_fd, leaf = self.directories.place(path)
        if entry.kind in (EntryKind.FILE, EntryKind.STREAM):
            fd = os.open(leaf, _READ, dir_fd=parent_fd)
            try:
                self._metadata.correct(fd, path, entry)
            finally:
                os.close(fd)
        else:
            self._metadata.apply_by_name(parent_fd, (*path[:-1], leaf), entry)

    def open_old(self, path: Path) -> int:
        """Open the file that is there, to read it."""
        parent_fd, leaf = self.directories.place(path)
        return os.open(leaf, _READ, dir_fd=parent_fd)

    def finish(self) -> None:
        """Give directories their metadata, deepest first, and wait until all is on the disk. Raises StorageError."""
        for path, entry in self._unfinished:
            try:
                found = self.directories.status(path)
                if found is not None and not self.fits(path, found, entry):
                    self._metadata.correct(self.directories.fd(path), path, entry)
            except ENTRY_FAILED as error:
                self.failed(path, error)
        for path, mode in reversed(self._widened):
            with suppress(OSError):
                os.fchmod(self.directories.fd(path), mode)
        self._metadata.report()
        self._sync_devices(list(self._devices))

    def close(self) -> None:
        """Remove what did not get its name, and give all descriptors back."""
        for file in list(self._begun):
            with suppress(*ENTRY_FAILED, StorageError):
                self.discard(file)
        self.directories.close()

    def failed(self, path: Path, error: Exception) -> bool:
        """Report why one entry is not restored, and return False; raises StorageError if no other can be."""
        message, kind = f"entry is impossible: {reason(error)}", ProblemKind.DAMAGED
        if isinstance(error, Unrestorable):
            message, kind = str(error), error.kind
        elif isinstance(error, OSError):
            message, kind = f"cannot be restored: {reason(error)}", ProblemKind.INCOMPLETE
            if error.errno in DISK_FAILED:
                raise StorageError(f"{printable_path(path)} cannot be written: {reason(error)}") from error
        self._on_problem(Problem(path, message, kind))
        return False

    def _clear_way(self, parent_fd: int, leaf: bytes, path: Path) -> None:
        """Remove a directory that is in the way: rename takes the place of everything else."""
        try:
            if self._clear is not None and is_directory(parent_fd, leaf):
                self.directories.forget(path)
                self._clear(parent_fd, path, leaf)
            os.rmdir(leaf, dir_fd=parent_fd)
            self.directories.forget(path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise Unrestorable(NOT_EMPTY) from error
            if error.errno not in (errno.ENOTDIR, errno.ENOENT):
                raise

    def _reopen(self, file: NewFile) -> int:
        parent_fd, _ = self.directories.place(file.path)
        fd = os.open(file.name, _WRITE, dir_fd=parent_fd)
        if identity(os.fstat(fd)) != file.identity:
            os.close(fd)
            raise Unrestorable("another file has taken the place of the one under way")
        return fd

    def _sync(self, files: Iterable[NewFile]) -> None:
        """Put what is staged on the disk: one sync for each file system, as others may be mounted in the target."""
        self._devices.update((file.identity[0], file.path) for file in files)
        self._sync_devices([file.identity[0] for file in files])

    def _sync_devices(self, devices: Iterable[int]) -> None:
        if not self._options.durable:
            return
        try:
            for device in dict.fromkeys(devices):
                sync_file_system(self.directories.place(self._devices[device])[0])
            for fd in self.directories.top_fds():
                sync_file_system(fd)
        except OSError as error:
            raise StorageError(f"not all is on the disk: {reason(error)}") from error


def _temporary() -> bytes:
    return TEMPORARY + token_hex(8).encode()

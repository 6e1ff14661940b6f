"""Files: a walk over file trees, in the order of the tuple of raw name components.

    tree = FileTree(plan_roots(paths), WalkOptions(), problems.append)
    for directory, entries in tree.batches():
        for entry in entries:
            ...  # open_file(directory, entry), tree.read_extra(directory, entry)

Depth first, siblings sorted by their raw bytes: `a`, `a/b`, `a-b`, because ("a",) < ("a", "b") < ("a-b",).
A batch holds consecutive entries of one directory; the walk goes on below the last of them if that is a
directory, so one directory may come in many batches. Batches, because a call for each of millions of files
would cost more than the system calls. `directory` is open until the next batch is asked for.

The walk reads names and lstats, nothing else. It holds a bounded number of descriptors and names, whatever
the tree, and never recurses. What it cannot read it reports, and goes on; what vanishes while it looks is no
problem. docs/format.md, section 9, has the order.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from stat import S_ISDIR
from typing import NamedTuple

from engine._plain import look
from engine.problems import OnProblem, Problem, ProblemKind, printable, reason
from engine.sources.directory import Directory, reopen
from engine.sources.excludes import Excludes, tags_present
from engine.sources.metadata import (
    DIRECTORY,
    KIND_BYTES,
    KIND_OF_TYPE,
    ExtraReader,
    LinkNumbers,
    entry_from_stat,
    new_tuple,
)
from engine.sources.owners import OwnerNames, owner_names
from engine.sources.reading import read_plain
from engine.sources.roots import Root
from engine.sources.sorted_names import sorted_names
from repo_store.entry import Entry, Path
from repo_store.errors import SourceError

BATCH_ENTRIES_MAX = 1024
OPEN_DIRECTORIES_MAX = 64
"""Descriptors held for the deepest levels; the ones above are closed and opened again on the way back."""

_entry_from = partial(new_tuple, Entry)

Batch = tuple[Directory, list[Entry]]


@dataclass(frozen=True, kw_only=True)
class WalkOptions:
    """What to leave out. `patterns` are gitignore lines, the last one strongest.

    A directory with one of the names `exclude_if_present` in it, or with a real CACHEDIR.TAG if
    `exclude_caches`, is stored with that file and nothing else; roots are taken whole. `one_file_system` stores
    mount points as empty directories.
    """

    patterns: Sequence[bytes | str] = ()
    exclude_if_present: Sequence[bytes] = ()
    exclude_caches: bool = False
    one_file_system: bool = False
    xattrs: bool = True


class _Run(NamedTuple):
    """Consecutive entries of one directory; `descend`: the last is a directory, and the walk goes on in it."""

    entries: list[Entry]
    descend: bool


class _Level(NamedTuple):
    directory: Directory
    runs: Iterator[_Run]


class FileTree:
    """The trees below some roots, as one walk sees them."""

    def __init__(self, roots: Sequence[Root], options: WalkOptions, on_problem: OnProblem) -> None:
        """Prepare the walk. Raises UsageError for a pattern that is none."""
        self._roots = sorted(roots, key=lambda root: root.name)
        self._options = options
        self._on_problem = on_problem
        self._excludes = Excludes(options.patterns)
        self._extras = ExtraReader(on_problem, xattrs=options.xattrs)
        self._links = LinkNumbers()
        self._uids: set[int] = set()
        self._gids: set[int] = set()

    def batches(self) -> Iterator[Batch]:
        """Walk. Raises SourceError if a root is missing, and nothing else for what it finds."""
        for root in self._roots:
            yield from self._walk(root)

    def read_extra(self, directory: Directory, entry: Entry, fd: int | None = None) -> Entry:
        """Return the entry with link target, device number and extended attributes, each read now."""
        return self._extras.read(directory, entry, fd)

    def owner_names(self) -> OwnerNames:
        """Return the names of all owners and groups met so far."""
        return owner_names(self._uids, self._gids)

    def _walk(self, root: Root) -> Iterator[Batch]:
        try:
            above = Directory.above(root.path)
            status = os.stat(above.disk_name(root.name), dir_fd=above.fd, follow_symlinks=False)
        except OSError as error:
            raise SourceError(f"{printable(root.path)}: {reason(error)}") from error
        stack: list[_Level] = []
        try:
            entry = self._entry(above, root.name, status)
            if entry is None:
                return
            yield above, [entry]
            if entry.kind == DIRECTORY:
                self._enter(stack, above, entry)
            while stack:
                directory, runs = stack[-1]
                for run in runs:
                    yield directory, run.entries
                    if run.descend and self._enter(stack, directory, run.entries[-1]):
                        break
                else:
                    self._leave(stack, above)
        finally:
            above.close()
            for level in stack:
                level.directory.close()

    def _enter(self, stack: list[_Level], parent: Directory, entry: Entry) -> bool:
        """Put the directory of this entry on the stack; False if it cannot or should not be read."""
        try:
            child = parent.open_directory(entry.name)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._report((*parent.path, entry.name), f"directory cannot be read: {reason(error)}")
            return False
        options, tags = self._options, []
        if stack:  # a root is taken whole
            if options.one_file_system and child.device != stack[0].directory.device:
                child.close()
                return False
            if options.exclude_if_present or options.exclude_caches:
                tags = tags_present(child.fd, options.exclude_if_present, caches=options.exclude_caches)
        try:
            names = iter(tags) if tags else sorted_names(child.fd)
        except OSError as error:
            self._report(child.path, f"directory cannot be read: {reason(error)}")
            child.close()
            return False
        if len(stack) >= OPEN_DIRECTORIES_MAX:
            stack[-OPEN_DIRECTORIES_MAX].directory.close()
        stack.append(_Level(child, self._runs(child, names)))
        return True

    def _leave(self, stack: list[_Level], above: Directory) -> None:
        """Take the finished directory off the stack and make sure that the one now on top is open."""
        child = stack.pop().directory
        while stack and not reopen(
            above, [level.directory for level in stack[:-1]], stack[-1].directory, child
        ):
            self._report(stack.pop().directory.path, "directory was moved away before all of it was read")
        child.close()

    def _runs(self, directory: Directory, names: Iterator[bytes]) -> Iterator[_Run]:
        """Lstat the names one after the other; what follows a directory is looked at after the way back."""
        entries: list[Entry] = []
        for found in self._look(directory, names):
            if len(entries) + len(found) > BATCH_ENTRIES_MAX:
                yield _Run(entries, False)
                entries = []
            entries += found
            if found and found[-1][1] == DIRECTORY:
                yield _Run(entries, True)
                entries = []
        if entries:
            yield _Run(entries, False)

    def _look(self, directory: Directory, names: Iterator[bytes]) -> Iterator[list[Entry]]:
        """Yield the skeletons of the names that are there, some at a time. A directory is the last of its list, and
        nothing behind it is looked at before the next list is asked for."""
        excluded = self._excluded
        prefix = b"".join(name + b"/" for name in directory.path[1:]) if self._excludes else None
        while piece := tuple(islice(names, BATCH_ENTRIES_MAX)):
            at = 0
            while at < len(piece):
                rows = look(directory.fd, piece, at, KIND_BYTES)
                at += len(rows)
                strange = bool(rows) and rows[-1] is None
                found = [_entry_from(row) for row in rows if row is not None]
                if prefix is not None:
                    found = [
                        entry
                        for entry in found
                        if not excluded(prefix + entry[0], is_directory=entry[1] == DIRECTORY)
                    ]
                self._uids.update([entry[3] for entry in found])
                self._gids.update([entry[4] for entry in found])
                yield found
                if strange and (entry := self._look_at(directory, piece[at - 1], prefix)) is not None:
                    yield [entry]

    def _look_at(self, directory: Directory, name: bytes, prefix: bytes | None) -> Entry | None:
        """Return the skeleton for a name that is somehow special, None if there is nothing to back up."""
        try:
            status = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._report((*directory.path, name), f"cannot be looked at: {reason(error)}")
            return None
        if prefix is not None and self._excluded(prefix + name, is_directory=S_ISDIR(status.st_mode)):
            return None
        return self._entry(directory, name, status)

    def _excluded(self, path: bytes, *, is_directory: bool) -> bool:
        return self._excludes.excluded(path + b"/" if is_directory else path)

    def read_plain(self, directory: Directory, entries: tuple[Entry, ...], view: memoryview) -> int:
        """Read whole files, one behind the other; see engine.sources.reading.read_plain."""
        return read_plain(directory, entries, view, xattrs=self._extras.wanted(directory))

    def _entry(self, directory: Directory, name: bytes, status: os.stat_result) -> Entry | None:
        """Return the skeleton for what lstat found, None for a socket, which is reported."""
        kind = KIND_OF_TYPE[status.st_mode >> 12]
        if kind is None:
            message = "socket: not backed up, its program makes it anew"
            self._on_problem(Problem((*directory.path, name), message, ProblemKind.NOTE))
            return None
        self._uids.add(status.st_uid)
        self._gids.add(status.st_gid)
        extra = None
        if status.st_nlink > 1 and kind != DIRECTORY:
            extra = {"link": self._links.number(status)}
        return entry_from_stat(name, kind, status, extra)

    def _report(self, path: Path, message: str) -> None:
        self._on_problem(Problem(path, message))

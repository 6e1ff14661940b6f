"""Storing what files a git repository consists of: packfiles that were made, and what stands beside its objects.

Files are opened without following links and without waiting for anybody. LFS objects never change: one that the
previous snapshot has is not read again. Each that is read must have the SHA-256 that its name says.
"""

import os
import stat
from collections.abc import Callable
from hashlib import sha256

from engine.cutting import cut_stream
from engine.git_tree import FILES, RepositoryTree, link
from engine.problems import Problem, reason
from engine.snapshot_run import SnapshotRun
from engine.sources.git_files import KeptFile, is_lfs_object, kept_files
from engine.sources.git_find import Found
from repo_store.content import ContentBuilder
from repo_store.entry import Entry, EntryKind, Path

_FILE = int(EntryKind.FILE)
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class GitFiles:
    """Turns files into entries with content, for one run."""

    def __init__(self, run: SnapshotRun) -> None:
        self._run = run

    def store_packfile(self, name: bytes, path: bytes) -> Entry:
        """Store the packfile in the file `path` as the entry `name`."""
        with open(path, "rb") as file:
            return self._stored(Entry(name, _FILE, 0o444, 0, 0, 0, 0, 0, 0, None, None), file.readinto)

    def store(self, found: Found, before: RepositoryTree | None) -> dict[Path, Entry]:
        """Store what a repository keeps beside objects and refs; return path → entry. What cannot be read is named."""

        def report(problem: Problem) -> None:
            self._run.report(Problem((*found.name, *problem.path), problem.message, problem.kind))

        known = {} if before is None else before.entries
        entries: dict[Path, Entry] = {}
        for kept in kept_files(found.gitdir, report):
            path = (FILES, *kept.path)
            same = known.get(path)
            if (
                same is not None
                and same.kind == _FILE
                and same.size == kept.status.st_size
                and is_lfs_object(kept.path)
            ):
                entries[path] = same
                continue
            try:
                entries[path] = self._store_one(found.gitdir, kept)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                report(Problem(kept.path, f"cannot be read: {reason(error)}"))
        return entries

    def _store_one(self, gitdir: bytes, kept: KeptFile) -> Entry:
        path, name = os.path.join(gitdir, *kept.path), kept.path[-1]
        if stat.S_ISLNK(kept.status.st_mode):
            return link(name, os.readlink(path))
        with open(os.open(path, _FLAGS), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is no file any more")
            entry = Entry(name, _FILE, status.st_mode & 0o7777, 0, 0, status.st_mtime_ns, 0, 0, 0, None, None)
            hashed = sha256()

            def read(view: memoryview) -> int:
                count = file.readinto(view)
                hashed.update(view[:count])
                return count

            stored = self._stored(entry, read)
        if is_lfs_object(kept.path) and hashed.hexdigest().encode() != name:
            raise ValueError("its content is not the one that its name says")
        return stored

    def _stored(self, entry: Entry, read_into: Callable[[memoryview], int]) -> Entry:
        """Store all that `read_into` gives as the content of `entry`."""
        run = self._run
        content = ContentBuilder(run.session.ring.tree_cut_key, run.writer.put_node)

        def read(view: memoryview) -> int:
            count = read_into(view)
            run.progress.bytes += count
            return count

        def checkpoint() -> None:
            run.checkpoint()

        cut_stream(run.writer.data, run.chunker, content, read, tick=run.tick, checkpoint=checkpoint)
        built, size = content.finish()
        return entry._replace(content=built, size=size)

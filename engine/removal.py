"""Removal: what a restore with `--delete` takes away, below directories that it holds open.

Links are removed, never followed; each directory is entered through its parent's descriptor with O_NOFOLLOW. Left alone are
sockets (a snapshot never has them, so that one is missing in it says nothing), other file systems, and what is protected:
the repository and the cache, which may well lie in what is backed up.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from engine.problems import OnProblem, Problem, ProblemKind, reason
from repo_store.entry import Path

Identity = tuple[int, int]
"""Device and inode."""

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def identity(status: os.stat_result) -> Identity:
    """Return what tells a file from all others of this host."""
    return status.st_dev, status.st_ino


@dataclass(frozen=True)
class Removal:
    """Removes trees, or with `dry_run` only says what it would remove.

    `on_removed` hears of each path, with what was there.
    """

    on_problem: OnProblem
    on_removed: Callable[[Path, os.stat_result], None]
    protected: frozenset[Identity] = frozenset()
    dry_run: bool = False

    def remove(self, parent_fd: int, path: Path, name: bytes) -> bool:
        """Remove `name` in the open directory, with all below it; `path` is how messages call it.

        False if anything of it is left: that was reported.
        """
        try:
            found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            if why := self._why_left(parent_fd, found):
                self.on_problem(Problem(path, why, ProblemKind.NOTE))
                return False
            if stat.S_ISDIR(found.st_mode):
                if not self._empty(parent_fd, path, name):
                    return False
                if not self.dry_run:
                    os.rmdir(name, dir_fd=parent_fd)
            elif not self.dry_run:
                os.unlink(name, dir_fd=parent_fd)
        except (OSError, RecursionError) as error:
            self.on_problem(Problem(path, f"cannot be deleted: {reason(error)}"))
            return False
        self.on_removed(path, found)
        return True

    def _empty(self, parent_fd: int, path: Path, name: bytes) -> bool:
        fd = os.open(name, _OPEN, dir_fd=parent_fd)
        try:
            inside = [os.fsencode(each) for each in os.listdir(fd)]
            left = [each for each in sorted(inside) if not self.remove(fd, (*path, each), each)]
            return not left
        finally:
            os.close(fd)

    def _why_left(self, parent_fd: int, found: os.stat_result) -> str | None:
        if stat.S_ISSOCK(found.st_mode):
            return "not deleted: a socket, which no snapshot has"
        if found.st_dev != os.fstat(parent_fd).st_dev:
            return "not deleted: another file system"
        if identity(found) in self.protected:
            return "not deleted: the repository, or what belongs to it"
        return None


def is_directory(parent_fd: int, name: bytes) -> bool:
    """Say whether the name is that of a directory, not of a link to one. Raises OSError other than FileNotFoundError."""
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def is_empty(parent_fd: int, name: bytes) -> bool:
    """Say whether a directory has nothing in it; True for one that cannot be read, and for a link: rmdir decides."""
    try:
        fd = os.open(name, _OPEN, dir_fd=parent_fd)
    except OSError:
        return True
    try:
        with os.scandir(fd) as inside:
            return next(inside, None) is None
    finally:
        os.close(fd)

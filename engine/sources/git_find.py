"""Finding git repositories: those that are named, and those below a directory, `owner/name.git` and deeper.

A directory is a repository if it looks like one to git: HEAD, `objects` and `refs`. One with a `.git` directory in it
is a repository with a working tree, and its name is that of the `.git`. Below a repository no other is looked for, and
links to directories are not followed.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from engine.problems import OnProblem, Problem, printable, reason
from repo_store.entry import Path
from repo_store.errors import SourceError, UsageError

GIT = b".git"
DEPTH = 16
"""How many levels below a directory are looked at unless told otherwise."""


@dataclass(frozen=True)
class Found:
    """A repository: where it is stored in the manifest, and its directory (of a working tree the `.git`)."""

    name: Path
    gitdir: bytes

    @property
    def root(self) -> bytes:
        """The path of what the first component of its name stands for."""
        path = self.gitdir
        for _ in self.name[1:]:
            path = os.path.dirname(path)
        return path


def find_repositories(
    paths: Iterable[bytes | str], under: bytes | str | None, depth: int, report: OnProblem
) -> list[Found]:
    """Return the repositories at `paths`, named by their last component, and all `under` a directory, in order.

    `depth` is how many levels below it are looked at. Raises SourceError if a path is no repository or none is found,
    UsageError if two would have one name.
    """
    found: dict[Path, bytes] = {}
    for path in map(_absolute, paths):
        gitdir = git_directory(path)
        if gitdir is None:
            raise SourceError(f"{printable(path)}: not a git repository")
        own = os.path.basename(path)
        name = (os.path.basename(os.path.dirname(path)), GIT) if own == GIT else (own,)
        _add(found, (*name, GIT) if gitdir != path else name, gitdir)
    if under is not None:
        top = _absolute(under)
        if not os.path.isdir(top):
            raise SourceError(f"{printable(top)}: not a directory")
        for each in _walk(top, (), depth, report):
            _add(found, each.name, each.gitdir)
    if not found:
        raise SourceError(
            "no git repository is there", hint="is the directory mounted? for an empty one make no snapshot"
        )
    repositories = [Found(name, gitdir) for name, gitdir in sorted(found.items())]
    for one, other in pairwise(repositories):
        # None may lie in another: a manifest keeps the parts of each below its name. One that does comes next in order.
        if other.name[: len(one.name)] == one.name:
            raise _one_place(one.gitdir, other.gitdir)
    return repositories


def git_directory(path: bytes) -> bytes | None:
    """Return the directory of the repository at `path`: itself, its `.git`, or None if it is none."""
    for candidate in (path, os.path.join(path, GIT)):
        if _looks_like_one(candidate):
            return candidate
    return None


def _looks_like_one(path: bytes) -> bool:
    try:
        head = os.lstat(os.path.join(path, b"HEAD"))
        objects = os.stat(os.path.join(path, b"objects"))
        refs = os.stat(os.path.join(path, b"refs"))
    except OSError:
        return False
    is_file = stat.S_ISREG(head.st_mode) or stat.S_ISLNK(head.st_mode)
    return is_file and stat.S_ISDIR(objects.st_mode) and stat.S_ISDIR(refs.st_mode)


def _walk(top: bytes, name: Path, depth: int, report: OnProblem) -> Iterator[Found]:
    """Yield the repositories at and below `top`, whose name is `name`."""
    gitdir = git_directory(top) if name else None
    if gitdir is not None:
        yield Found(name if gitdir == top else (*name, GIT), gitdir)
        return
    if len(name) >= depth:
        return
    try:
        with os.scandir(top) as entries:
            below = sorted(each.name for each in entries if each.is_dir(follow_symlinks=False))
    except OSError as error:
        report(Problem(name, f"cannot be looked through: {reason(error)}"))
        return
    for each in below:
        yield from _walk(os.path.join(top, each), (*name, each), depth, report)


def _add(found: dict[Path, bytes], name: Path, gitdir: bytes) -> None:
    if found.setdefault(name, gitdir) != gitdir:
        raise _one_place(found[name], gitdir)


def _one_place(one: bytes, other: bytes) -> UsageError:
    return UsageError(
        f"{printable(one)} and {printable(other)} would be stored in one place",
        hint="back them up with --under, or in two snapshots with a --series each",
    )


def _absolute(path: bytes | str) -> bytes:
    raw = os.fsencode(path)
    if not raw or b"\0" in raw:
        raise UsageError("a path to back up is empty or holds a NUL byte")
    return os.path.abspath(raw)

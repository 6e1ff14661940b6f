"""What a git repository keeps beside objects and refs: configuration, description, hooks, `info/`, LFS objects.

They are read as files without going through git. Reflogs are left out (they name objects that nothing reaches, which a
backup of what is reached has not got), and so is what git makes itself: `info/refs`, the samples among the hooks.
Links are kept as links and never followed.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from engine.problems import OnProblem, Problem, reason
from repo_store.entry import Path

SINGLE = (b"config", b"config.worktree", b"description", b"shallow")
HOOKS, INFO = b"hooks", b"info"
LFS: Path = (b"lfs", b"objects")
KEPT = (*SINGLE, HOOKS, INFO, LFS[0])
"""What may stand at the top of what is kept."""
_SAMPLE = b".sample"
_MADE_BY_GIT = (b"refs", b"packs")
_LEVELS_MAX = 16


@dataclass(frozen=True)
class KeptFile:
    """A file or link of a repository that is kept: its path from the repository on, and what lstat says."""

    path: Path
    status: os.stat_result


def kept_files(gitdir: bytes, report: OnProblem) -> Iterator[KeptFile]:
    """Yield the files to keep, in no order. What cannot be looked at is reported."""
    for name in SINGLE:
        try:
            status = os.lstat(os.path.join(gitdir, name))
        except FileNotFoundError:
            continue
        except OSError as error:
            report(Problem((name,), f"cannot be read: {reason(error)}"))
            continue
        if _is_kept(status):
            yield KeptFile((name,), status)
    for folder in ((HOOKS,), (INFO,), LFS):
        for each in _below(gitdir, folder, report):
            name = each.path[-1]
            if each.path[0] == HOOKS and name.endswith(_SAMPLE):
                continue
            if each.path[0] == INFO and len(each.path) == 2 and name in _MADE_BY_GIT:
                continue
            yield each


def shallow_digest(gitdir: bytes) -> bytes:
    """Return the SHA-256 of the file that says where history is cut off; empty where there is none."""
    try:
        fd = os.open(os.path.join(gitdir, b"shallow"), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            lines = file.read()
    except FileNotFoundError:
        return b""
    return sha256(lines).digest() if lines else b""


def is_lfs_object(path: Path) -> bool:
    """Say whether the file at `path` is an LFS object: its name is the SHA-256 of its content."""
    name = path[-1]
    return (
        path[:2] == LFS
        and len(path) == 5
        and len(name) == 64
        and path[2:4] == (name[:2], name[2:4])
        and not name.strip(b"0123456789abcdef")
    )


def _is_kept(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)


def _below(gitdir: bytes, folder: Path, report: OnProblem) -> Iterator[KeptFile]:
    path = os.path.join(gitdir, *folder)
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode) or len(folder) > _LEVELS_MAX:
            return
        with os.scandir(path) as entries:
            found = [(each.name, each.stat(follow_symlinks=False)) for each in entries]
    except FileNotFoundError:
        return
    except OSError as error:
        report(Problem(folder, f"cannot be read: {reason(error)}"))
        return
    for name, status in found:
        if stat.S_ISDIR(status.st_mode):
            yield from _below(gitdir, (*folder, name), report)
        elif _is_kept(status):
            yield KeptFile((*folder, name), status)

"""Existing directories: the way to the entries of a manifest in directories that are in use.

Every name at the top of a manifest has a `Top`: the directory that it is in here, and what it is called there. From a
top down each step is one openat with O_NOFOLLOW, as in target_directories.py: neither a manifest nor somebody who changes
the tree meanwhile leads out of it. The way to a top itself is that of a person who names a path, so links in it are
followed, but only those of root or our own: another user's link could point a restore by root anywhere.
"""

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from engine.problems import ProblemKind, printable, reason
from engine.target_directories import OPEN_DIRECTORIES_MAX, Unrestorable, check_name
from repo_store.entry import Path
from repo_store.errors import Refused, StorageError

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_LINKS_MAX = 40
_OURS = 0o700


@dataclass(frozen=True, slots=True)
class Top:
    """Where one name at the top of a manifest belongs: an absolute directory, and the name in it.

    `follow`: the name may be a link to the directory meant, as roots of a snapshot may be.
    """

    location: bytes
    leaf: bytes
    follow: bool = False


Tops = Callable[[bytes], Top | None]
"""Returns the top for a name, None if it has no place."""


def tops_in_place(roots: Mapping[bytes, bytes]) -> Tops:
    """Return the tops for restoring every root of a snapshot, by name, to the path it came from.

    Raises Refused for a path that is not absolute or has dots in it: no snapshot has written that.
    """
    tops = {}
    for name, path in roots.items():
        if not path.startswith(b"/") or b"\0" in path or os.path.normpath(path) != path:
            raise Refused(f"{printable(path)}: cannot be where {printable(name)} came from")
        tops[name] = Top(os.path.dirname(path), os.path.basename(path) or b".", follow=True)
    return tops.get


def tops_below(directory: bytes) -> Tops:
    """Return the tops for restoring everything into one directory."""
    location = os.path.abspath(directory)
    return lambda name: Top(location, name)


class ExistingDirectories:
    """Open descriptors on the way to entries, the last used first at hand. For one thread at a time."""

    def __init__(self, tops: Tops, *, create: bool) -> None:
        """`create`: directories that lead to a top are made where they are missing."""
        self._tops, self._create = tops, create
        self._top_fds: dict[bytes, int] = {}
        self._fds: OrderedDict[Path, int] = OrderedDict()

    def place(self, path: Path) -> tuple[int, bytes]:
        """Return the directory an entry is in, good until the next call, and its name there.

        Raises Unrestorable, OSError, Refused.
        """
        if not path:
            raise Unrestorable("an entry without a name", ProblemKind.DAMAGED)
        if len(path) == 1:
            check_name(path[0])
            return self.top_fd(path[0]), self._top(path[0]).leaf
        check_name(path[-1])
        return self.fd(path[:-1]), path[-1]

    def status(self, path: Path) -> os.stat_result | None:
        """Return what is at a path, None if nothing is. Links are not followed, but for the link that a root is."""
        try:
            parent_fd, leaf = self.place(path)
            found = os.stat(leaf, dir_fd=parent_fd, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode) and len(path) == 1 and self._top(path[0]).follow:
                return self._followed(parent_fd, leaf, found)
            return found
        except FileNotFoundError:
            return None

    def _followed(self, parent_fd: int, leaf: bytes, link: os.stat_result) -> os.stat_result:
        """Return what a root is that is a link: the directory it leads to, else the link itself."""
        try:
            at = os.stat(leaf, dir_fd=parent_fd)
        except OSError:
            return link
        if not stat.S_ISDIR(at.st_mode):
            return link
        if not _may_follow(link):
            raise Refused(f"{printable(leaf)}: is a link of another user")
        return at

    def fd(self, path: Path) -> int:
        """Return a descriptor of the directory at `path`, good until the next call. Raises Unrestorable, OSError."""
        depth = len(path)
        while depth and path[:depth] not in self._fds:
            depth -= 1
        if depth:
            self._fds.move_to_end(path[:depth])
        fd = self._fds[path[:depth]] if depth else -1
        for index in range(depth, len(path)):
            fd = self._enter(path[: index + 1], fd)
            self._fds[path[: index + 1]] = fd
            if len(self._fds) > OPEN_DIRECTORIES_MAX:
                os.close(self._fds.popitem(last=False)[1])
        return fd

    def forget(self, path: Path) -> None:
        """Let go of what lies at and below `path`: something else takes its place."""
        for known in [known for known in self._fds if known[: len(path)] == path]:
            os.close(self._fds.pop(known))

    def top_fd(self, name: bytes) -> int:
        """Return a descriptor of the directory that the top `name` is in; it is made if it is not there."""
        top = self._top(name)
        if top.location not in self._top_fds:
            self._top_fds[top.location] = open_trusted(top.location, create=self._create)
        return self._top_fds[top.location]

    def top_fds(self) -> list[int]:
        """Return the descriptors of all tops used so far."""
        return list(self._top_fds.values())

    def close(self) -> None:
        """Give all descriptors back."""
        for fd in (*self._fds.values(), *self._top_fds.values()):
            os.close(fd)
        self._fds.clear()
        self._top_fds.clear()

    def _top(self, name: bytes) -> Top:
        top = self._tops(name)
        if top is None:
            message = f"the manifest does not say where {printable(name)} came from"
            raise Unrestorable(message, ProblemKind.DAMAGED)
        return top

    def _enter(self, path: Path, parent_fd: int) -> int:
        if len(path) == 1:
            top = self._top(path[0])
            if top.follow:
                return open_trusted(os.path.join(top.location, top.leaf))
            check_name(top.leaf)
            return os.open(top.leaf, _OPEN, dir_fd=self.top_fd(path[0]))
        check_name(path[-1])
        return os.open(path[-1], _OPEN, dir_fd=parent_fd)


def open_trusted(location: bytes, *, create: bool = False) -> int:
    """Open the directory at an absolute path, following only links of root or our own; missing ones can be made.

    Raises Refused if another user's link is on the way, FileNotFoundError, StorageError if it cannot be entered.
    """
    waiting, links = _parts(location), 0
    fd = os.open(b"/", _OPEN)
    try:
        while waiting:
            name = waiting.pop()
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=fd)
            target = _link_at(fd, name, location)
            if target is not None:
                links += 1
                waiting += _parts(target)
            if links > _LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            inner = os.open(
                b"/" if target and target.startswith(b"/") else b"." if target else name, _OPEN, dir_fd=fd
            )
            os.close(fd)
            fd = inner
        return fd
    except BaseException as error:
        os.close(fd)
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise StorageError(f"{printable(location)}: cannot be entered: {reason(error)}") from error
        raise


def _parts(location: bytes) -> list[bytes]:
    """Return the names in a path, the first one last."""
    return [part for part in reversed(location.split(b"/")) if part not in (b"", b".")]


def _link_at(fd: int, name: bytes, location: bytes) -> bytes | None:
    """Return what a link points at, None if it is none. Raises Refused if it is not to be followed."""
    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        return None
    if not _may_follow(found):
        raise Refused(f"{printable(location)}: {printable(name)} on the way there is a link of another user")
    return os.readlink(name, dir_fd=fd)


def _may_follow(link: os.stat_result) -> bool:
    return link.st_uid in (0, os.geteuid())


def widen(parent_fd: int, name: bytes, found: os.stat_result) -> bool:
    """Let us into a directory of ours that is closed to us; say whether its mode was changed."""
    if os.geteuid() in (0,) or found.st_uid != os.geteuid() or found.st_mode & _OURS == _OURS:
        return False
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=parent_fd)
    try:
        os.chmod(b"/proc/self/fd/%d" % fd, stat.S_IMODE(found.st_mode) | _OURS)
    finally:
        os.close(fd)
    return True

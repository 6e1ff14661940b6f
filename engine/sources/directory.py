"""Directory: a directory of the source that is held open, so that nobody can move it away under the walk.

All access goes through its descriptor and one name: no path is ever joined, so paths may be longer than
PATH_MAX, and a renamed parent or a link put in its place leads nowhere else.
"""

import os

from repo_store.entry import Path

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_CLOSED = -1


class Directory:
    """An open directory of the source. `path` is its place in the snapshot, `device` its st_dev.

    The one above a root has the path () and knows the root's name on disk, which `--as`, a followed link or
    "/" make differ from the name of its entry.
    """

    __slots__ = ("_inode", "_root_name", "device", "fd", "path")

    def __init__(self, fd: int, path: Path, root_name: bytes | None = None) -> None:
        status = os.fstat(fd)
        self.fd = fd
        self.path = path
        self.device = status.st_dev
        self._inode = status.st_ino
        self._root_name = root_name

    @classmethod
    def above(cls, root_path: bytes) -> "Directory":
        """Open the directory that holds the root, links in the root's path followed. Raises OSError."""
        parent, name = os.path.split(os.path.realpath(root_path))
        # O_PATH: it need not be readable, only searchable.
        return cls(os.open(parent, os.O_PATH | os.O_DIRECTORY), (), name or b".")

    def disk_name(self, name: bytes) -> bytes:
        """Return the name on disk of the entry with this name."""
        return name if self._root_name is None else self._root_name

    def proc_path(self, name: bytes) -> bytes:
        """Return a path to the entry through /proc, for the few calls that take no dir_fd."""
        return b"/proc/self/fd/%d/%b" % (self.fd, self.disk_name(name))

    def open_directory(self, name: bytes) -> "Directory":
        """Open a directory in this one. Raises OSError, ELOOP or ENOTDIR if it has become something else."""
        fd = os.open(self.disk_name(name), _OPEN, dir_fd=self.fd)
        try:
            return Directory(fd, (*self.path, name))
        except BaseException:
            os.close(fd)
            raise

    @property
    def is_open(self) -> bool:
        """Whether the descriptor is open."""
        return self.fd != _CLOSED

    def close(self) -> None:
        """Give the descriptor back; twice does no harm."""
        if self.fd != _CLOSED:
            os.close(self.fd)
            self.fd = _CLOSED

    def open_again(self, name: bytes, holder: "Directory") -> bool:
        """Open it as `name` of the open `holder`, unless it is open; False if that is another directory by now."""
        if self.fd != _CLOSED:
            return True
        try:
            fd = os.open(holder.disk_name(name), _OPEN, dir_fd=holder.fd)
        except OSError:
            return False
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != (self.device, self._inode):
            os.close(fd)
            return False
        self.fd = fd
        return True


def reopen(above: Directory, ancestors: list[Directory], directory: Directory, child: Directory) -> bool:
    """Make sure that `directory` is open again, on the way back from its `child`; False if it has moved away.

    ".." of the child is one call; if the child was moved elsewhere meanwhile, the way down from `above`,
    through all `ancestors`, is tried. Nothing but the very directory that was open before is accepted.
    """
    if child.is_open and directory.open_again(b"..", child):
        return True
    holder = above
    for ancestor in (*ancestors, directory):
        if not ancestor.open_again(ancestor.path[-1], holder):
            break
        if holder is not above:
            holder.close()
        holder = ancestor
    else:
        return True
    if holder is not above:
        holder.close()
    return False

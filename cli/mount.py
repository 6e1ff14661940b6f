"""holdfast mount: snapshots as directories, read-only, by FUSE."""

import errno
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.app import app
from cli.call import Call
from cli.exit_codes import DONE
from cli.options import Filters, command
from cli.output import count
from repo_store.errors import HoldfastError, Refused, UsageError

if TYPE_CHECKING:
    from engine.mounting import MountedTree, Place
    from repo_store.entry import Path

DEVICE = "/dev/fuse"
_TYPES = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFREG)


@command(
    app,
    "mount",
    examples="""
    holdfast mount /mnt/snapshots
    holdfast mount /mnt/snapshots --host web --source files
    """,
)
def mount(
    call: Call,
    filters: Filters,
    directory: Annotated[str, typer.Argument(metavar="DIR", help="An empty directory.")],
) -> int:
    """Show the snapshots as directories below DIR, read-only, until Ctrl-C or `umount DIR`.

    There is a folder for each series, and in it one for each snapshot and a link `latest`. Nothing is read before it is
    asked for. Snapshots made later appear after the next mount. It needs FUSE, and the extra `mount` of holdfast.
    """
    from engine.mounting import MountedTree

    fuse = _load_fuse()
    _check(directory)
    session = call.open()
    found = session.read_manifests()
    for name, reason in sorted(found.damaged.items()):
        call.output.warn(f"{name}: damaged: {reason}")
    selection = filters.selection()
    manifests = [each for each in found.live if selection.matches(each)]
    operations = Operations(MountedTree(session, manifests))
    call.output.remark(f"{count(len(manifests), 'snapshot')} in {directory}; Ctrl-C or umount ends it")
    call.output.flush()
    try:
        with _ended_by_fuse():
            fuse(
                operations,
                directory,
                foreground=True,
                nothreads=True,
                ro=True,
                fsname="holdfast",
                use_ino=False,
            )
    except RuntimeError as error:
        raise HoldfastError(f"{directory}: cannot be mounted: fuse says {error}") from error
    return DONE


def _load_fuse() -> Any:
    """Return what runs a file system. Raises HoldfastError where something is missing for it."""
    try:
        from mfusepy import FUSE
    except ImportError:
        hint = "install holdfast with its extra: `pip install 'holdfast[mount]'`"
        raise HoldfastError("mount needs the package mfusepy, which is not installed", hint=hint) from None
    except OSError as error:
        hint = "on Debian it is in the package fuse3"
        raise HoldfastError("mount needs libfuse, which is not installed", hint=hint) from error
    return FUSE


def _check(directory: str) -> None:
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        raise HoldfastError(f"{DEVICE}: cannot be opened, and mount needs it")
    try:
        if os.listdir(directory):
            raise Refused(f"{directory}: not empty, so nothing is mounted over it")
    except OSError as error:
        raise UsageError(f"{directory}: {(error.strerror or str(error)).lower()}") from error


@contextmanager
def _ended_by_fuse() -> Iterator[None]:
    """Leave SIGTERM to libfuse, which unmounts; it takes SIGINT by itself."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Operations:
    """What FUSE asks, answered from the tree: errors become error numbers."""

    use_ns = True

    def __init__(self, tree: "MountedTree") -> None:
        self._tree = tree

    def getattr(self, path: str, handle: int | None = None) -> dict[str, int]:
        """Return what stat says."""
        place = self._place(path)
        entry = place.entry
        if entry is None:
            mode = (stat.S_IFLNK | 0o777) if place.target is not None else (stat.S_IFDIR | 0o555)
            size = len(place.target or b"")
            return {"st_mode": mode, "st_nlink": 1, "st_size": size, **_times(place.time_ns)}
        extra = entry.extra or {}
        return {
            "st_mode": _TYPES[entry.kind] | entry.mode,
            "st_nlink": 1,
            "st_uid": entry.uid,
            "st_gid": entry.gid,
            "st_size": len(extra["target"]) if "target" in extra else entry.size,
            "st_blocks": -(-entry.size // 512),
            "st_rdev": os.makedev(*extra["rdev"]) if "rdev" in extra else 0,
            **_times(entry.mtime_ns),
        }

    def readdir(self, path: str, handle: int) -> Iterator[str]:
        """Yield the names in a directory."""
        with _as_error_numbers():
            names = self._tree.names(_parts(path))
            if names is None:
                raise OSError(errno.ENOTDIR, path)
            yield from (".", "..")
            for name in names:
                yield os.fsdecode(name)

    def readlink(self, path: str) -> str:
        """Return where a link leads."""
        place = self._place(path)
        target = place.target
        if target is None and place.entry is not None:
            target = (place.entry.extra or {}).get("target")
        if target is None:
            raise OSError(errno.EINVAL, path)
        return os.fsdecode(target)

    def open(self, path: str, flags: int) -> int:
        """Refuse to open for writing; nothing is kept open."""
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, path)
        return 0

    def read(self, path: str, size: int, offset: int, handle: int) -> bytes:
        """Return bytes of a file."""
        entry = self._place(path).entry
        if entry is None:
            raise OSError(errno.EISDIR, path)
        with _as_error_numbers():
            return self._tree.read(entry, offset, size)

    def listxattr(self, path: str) -> list[str]:
        """Return the names of extended attributes."""
        return [os.fsdecode(name) for name in self._xattrs(path)]

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        """Return one extended attribute."""
        value = self._xattrs(path).get(os.fsencode(name))
        if value is None:
            raise OSError(errno.ENODATA, path)
        return value

    def _xattrs(self, path: str) -> dict[bytes, bytes]:
        entry = self._place(path).entry
        found: dict[bytes, bytes] = {} if entry is None else (entry.extra or {}).get("xattrs", {})
        return found

    def _place(self, path: str) -> "Place":
        with _as_error_numbers():
            place = self._tree.find(_parts(path))
        if place is None:
            raise OSError(errno.ENOENT, path)
        return place


def _parts(path: str) -> "Path":
    return tuple(os.fsencode(part) for part in path.split("/") if part)


def _times(time_ns: int) -> dict[str, int]:
    return {"st_mtime": time_ns, "st_ctime": time_ns, "st_atime": time_ns}


@contextmanager
def _as_error_numbers() -> Iterator[None]:
    """What the repository has lost is an input/output error to who reads."""
    try:
        yield
    except HoldfastError as error:
        raise OSError(errno.EIO, str(error)) from error

"""Trees for tests: one with everything hostile that a file system can hold, and an exact comparison of two.

Nothing here uses the engine: `describe_tree` is the slow reference the walk and the restore are held to.
"""

import errno
import hashlib
import os
import stat
import struct
import subprocess
from dataclasses import dataclass, field
from io import BufferedReader
from typing import Any

Path = tuple[bytes, ...]

HOSTILE_NAMES = [
    b"a",
    b"a-b",
    b"a.b",
    b"a b",
    b" ",
    b"-rf",
    b"--help",
    b"...",
    b"..a",
    b"~",
    b"*",
    b"[x]",
    b"\\",
    b"\\x41",
    b"new\nline",
    b"\n",
    b"tab\t",
    b"bell\x07",
    b"\x1b[31mred",
    b"\x7f",
    b"\xff\xfe",
    b"\xed\xb2\x80",  # a surrogate, as some encode it
    b"half\xc3",
    "é".encode(),
    "e\u0301".encode(),
    "\u202egpj.exe".encode(),
    "\U0001f5c4".encode(),
    b"x" * 255,
    b"\xe9" * 255,
    b"CON",
    b"manifest.json",
]
"""Legal names that break careless programs."""

CAP_NET_BIND = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""A security.capability value: cap_net_bind_service=ep."""


def posix_acl(group_mode: int = 5) -> bytes:
    """Return an access ACL: owner rw, user 1234 r-x, group as given, mask rwx, others nothing."""
    undefined = 0xFFFFFFFF
    entries = [
        (1, 6, undefined),
        (2, 5, 1234),
        (4, group_mode, undefined),
        (16, 7, undefined),
        (32, 0, undefined),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@dataclass
class Made:
    """What a hostile tree holds, and what this file system or user refused to make: {what: why}."""

    refused: dict[str, str] = field(default_factory=dict)

    def attempt(self, what: str, function: Any, *arguments: Any, **named: Any) -> bool:
        """Call and note a refusal that is the environment's."""
        try:
            function(*arguments, **named)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EINVAL, errno.EACCES):
                raise
            self.refused[what] = str(error)
            return False
        return True


def make_hostile_tree(directory: str | os.PathLike[str]) -> Made:
    """Fill `directory`, which it creates, with every kind of entry, name and metadata that it can."""
    made = Made()
    top = os.fsencode(directory)
    os.mkdir(top)
    for number, name in enumerate(HOSTILE_NAMES):
        write(os.path.join(top, b"names", name), b"content %d" % number, mtime_ns=number * 1_234_567_891)
    for name in (b"a/b", b"a-b", b"a.c/d", b"ab/c"):
        write(os.path.join(top, b"order", name), name)
    _make_links(top)
    _make_metadata(top, made)
    _make_specials(top, made)
    _make_sparse(top)
    make_deep(os.path.join(top, b"deep"), b"d" * 250, 20)  # 5,000 bytes: beyond PATH_MAX
    os.mkdir(os.path.join(top, b"empty"))
    os.utime(os.path.join(top, b"empty"), ns=(-1, -1_500_000_001))
    write(os.path.join(top, b"empty-file"), b"")
    return made


def write(path: bytes, content: bytes, *, mtime_ns: int | None = None) -> None:
    """Create a file and its parents."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))


def make_deep(top: bytes, name: bytes, levels: int) -> None:
    """Create `levels` directories in each other, with a file in the last; the path may exceed PATH_MAX."""
    os.mkdir(top)
    fd = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        child = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = child
    os.close(os.open(b"bottom", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def _make_links(top: bytes) -> None:
    directory = os.path.join(top, b"links")
    write(os.path.join(directory, b"first"), b"shared" * 1000)
    os.link(os.path.join(directory, b"first"), os.path.join(directory, b"second"))
    os.mkdir(os.path.join(directory, b"below"))
    os.link(os.path.join(directory, b"first"), os.path.join(directory, b"below", b"third"))
    for name, target in (
        (b"dangling", b"/no/such/place"),
        (b"up", b"../../../../etc/passwd"),
        (b"loop", b"loop"),
        (b"bytes", b"\xff\n" * 100),
        (b"directory", b"below"),
    ):
        os.symlink(target, os.path.join(directory, name))
    os.utime(os.path.join(directory, b"loop"), ns=(5, 987_654_321), follow_symlinks=False)
    os.link(os.path.join(directory, b"up"), os.path.join(directory, b"up-too"), follow_symlinks=False)


def _make_metadata(top: bytes, made: Made) -> None:
    directory = os.path.join(top, b"metadata")
    for mode in (0o000, 0o444, 0o777, 0o600, 0o4755, 0o2755, 0o1644):
        path = os.path.join(directory, b"mode-%04o" % mode)
        write(path, b"%o" % mode)
        os.chmod(path, mode)
    os.mkdir(os.path.join(directory, b"sticky"))
    os.chmod(os.path.join(directory, b"sticky"), 0o3711)
    for name, uid, gid in ((b"stranger", 54321, 12345), (b"nobody", 65534, 0)):
        path = os.path.join(directory, name)
        write(path, name)
        made.attempt("chown", os.chown, path, uid, gid)
        made.attempt("chmod", os.chmod, path, 0o6755)
    link = os.path.join(directory, b"owned-link")
    os.symlink(b"x", link)
    made.attempt("chown", os.chown, link, 54321, 12345, follow_symlinks=False)
    path = os.path.join(directory, b"xattrs")
    write(path, b"x")
    made.attempt("xattr", os.setxattr, path, b"user.plain", b"value")
    made.attempt("xattr", os.setxattr, path, b"user.\xff", b"\0\xff" * 100)
    made.attempt("xattr", os.setxattr, path, b"user.empty", b"")
    made.attempt("capability", os.setxattr, path, b"security.capability", CAP_NET_BIND)
    made.attempt("acl", os.setxattr, path, b"system.posix_acl_access", posix_acl())
    folder = os.path.join(directory, b"acl-folder")
    os.mkdir(folder)
    write(os.path.join(folder, b"inside-before"), b"plain")
    made.attempt("acl", os.setxattr, folder, b"system.posix_acl_default", posix_acl(7))
    made.attempt("xattr", os.setxattr, folder, b"user.folder", b"yes")
    made.attempt("trusted", os.setxattr, link, b"trusted.link", b"yes", follow_symlinks=False)
    os.utime(folder, ns=(1, 4_000_000_000_123_456_789))


def _make_specials(top: bytes, made: Made) -> None:
    directory = os.path.join(top, b"specials")
    os.mkdir(directory)
    os.mkfifo(os.path.join(directory, b"fifo"), 0o640)
    made.attempt("device", os.mknod, os.path.join(directory, b"char"), stat.S_IFCHR | 0o620, os.makedev(1, 7))
    made.attempt(
        "device", os.mknod, os.path.join(directory, b"block"), stat.S_IFBLK | 0o660, os.makedev(259, 70000)
    )


def _make_sparse(top: bytes) -> None:
    directory = os.path.join(top, b"sparse")
    os.mkdir(directory)
    for name, size, written in (
        (b"only-hole", 10 << 20, []),
        (b"head", 4 << 20, [0]),
        (b"tail", (4 << 20) + 5, [(4 << 20) - 100]),
        (b"middle", 8 << 20, [1 << 20, (5 << 20) + 4096]),
    ):
        with open(os.path.join(directory, name), "wb") as file:
            for offset in written:
                file.seek(offset)
                file.write(b"data" * 25)
            file.truncate(size)


@dataclass
class Described:
    """One entry, with all that a restore must bring back; `blocks` is what it takes on disk, in bytes."""

    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    content: bytes
    rdev: int
    xattrs: dict[str, bytes]
    inode: int
    links: int
    blocks: int
    group: Path = ()


WHOLE_BYTES_MAX = 64 * 1024 * 1024


def describe_tree(directory: str | bytes | os.PathLike[str]) -> dict[Path, Described]:
    """Read the whole tree, the directory itself as (), in no particular order.

    Contents are held in memory, large ones as a hash.
    """
    found: dict[Path, Described] = {}
    groups: dict[tuple[int, int], Path] = {}
    fd = os.open(os.fsencode(directory), os.O_RDONLY | os.O_DIRECTORY)
    found[()] = _describe(fd, b".")
    waiting: list[tuple[Path, int]] = [((), fd)]
    while waiting:
        path, fd = waiting.pop()
        for text in os.listdir(fd):
            name = os.fsencode(text)
            here = found[*path, name] = _describe(fd, name)
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if here.kind == stat.S_IFDIR:
                waiting.append(((*path, name), os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)))
            elif here.links > 1:
                key = (status.st_dev, status.st_ino)
                groups[key] = min(groups.get(key, (*path, name)), (*path, name))
        os.close(fd)
    for here in found.values():
        if here.links > 1 and here.kind != stat.S_IFDIR:
            here.group = next(first for (_, inode), first in groups.items() if inode == here.inode)
    return found


def _content(file: BufferedReader, size: int) -> bytes:
    """Return the bytes of a file, of a large one what stands for them: its size may be beyond the memory."""
    if size <= WHOLE_BYTES_MAX:
        return file.read()
    return b"sha256 " + hashlib.file_digest(file, "sha256").digest()


def _describe(directory_fd: int, name: bytes) -> Described:
    status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    content, size = b"", 0
    if kind == stat.S_IFLNK:
        content = os.readlink(name, dir_fd=directory_fd)
    elif kind == stat.S_IFREG:
        size = status.st_size
        with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory_fd), "rb") as file:
            content = _content(file, size)
    where = b"/proc/self/fd/%d/%b" % (directory_fd, name)
    try:
        names = os.listxattr(where, follow_symlinks=False)
    except OSError:
        names = []
    xattrs = {each: os.getxattr(where, each, follow_symlinks=False) for each in names}
    device = status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
    return Described(
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        size,
        content,
        device,
        xattrs,
        status.st_ino,
        status.st_nlink,
        status.st_blocks * 512,
    )


COMPARED = ("kind", "mode", "uid", "gid", "mtime_ns", "size", "content", "rdev", "xattrs", "group")


def compare_trees(
    before: str | bytes | os.PathLike[str],
    after: str | bytes | os.PathLike[str],
    *,
    ignore: tuple[str, ...] = (),
) -> list[str]:
    """Return every difference between two trees, bit for bit with metadata and hard links; [] if there is none.

    The two directories themselves are compared too. `ignore` names fields of COMPARED.
    """
    first, second = describe_tree(before), describe_tree(after)
    differences = [f"{path}: only before" for path in sorted(first.keys() - second.keys())]
    differences += [f"{path}: only after" for path in sorted(second.keys() - first.keys())]
    for path in sorted(first.keys() & second.keys()):
        for name in COMPARED:
            old, new = getattr(first[path], name), getattr(second[path], name)
            if name not in ignore and old != new:
                differences.append(f"{path}: {name}: {str(old)[:200]} became {str(new)[:200]}")
    return differences


def remove_tree(directory: str | bytes | os.PathLike[str]) -> None:
    """Remove a tree deeper than Python's own functions can."""
    subprocess.run([b"rm", b"-rf", b"--", os.fsencode(directory)], check=True)

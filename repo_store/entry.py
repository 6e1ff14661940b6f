"""Entries: the lines of a manifest, one for each file, directory, link or stream.

An entry is a tuple because a snapshot makes and compares millions of them; it is stored as it stands
(docs/format.md, "Entries"). Its path is not in it: an entry knows its own name, the place in the tree
gives the rest. This module touches no storage.
"""

from enum import IntEnum
from typing import Any, NamedTuple

ID_BYTES = 32
HOLE = bytes(ID_BYTES)
"""Stands in a content's ids for a run of zeros that was never written: no chunk has this id."""

Path = tuple[bytes, ...]
"""The components of an entry's path, root's name first; entries are ordered by this tuple."""


class EntryKind(IntEnum):
    """What an entry is. The numbers are part of the format."""

    FILE = 0
    DIRECTORY = 1
    SYMLINK = 2
    FIFO = 3
    CHARACTER_DEVICE = 4
    BLOCK_DEVICE = 5
    STREAM = 6  # bytes from stdin or a command: content, and no metadata of a file


class Entry(NamedTuple):
    """One entry. Times are nanoseconds since 1970 UTC, sizes bytes; mode holds the permission bits only (07777).

    `ctime_ns` and `inode` serve the next snapshot (is it unchanged?), never a restore. `content` is

    * None: no bytes (not a file or stream, or an empty one);
    * 32 bytes: the id of the one chunk that holds all `size` bytes;
    * [ids, lengths]: the ids joined, and a list of as many lengths; the id HOLE stands for zeros;
    * [root, height]: a content tree (repo_store/content.py), for longer lists.

    `extra` holds what few entries have, by name: "target" (bytes, of a symlink), "link" (int: hard links of one
    file share it; each carries the whole content), "rdev" ([major, minor]), "xattrs" ({name: value}, bytes;
    POSIX ACLs are among them), "unstable" (True: the file changed while it was read).
    """

    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    size: int
    content: bytes | list[Any] | None
    extra: dict[str, Any] | None

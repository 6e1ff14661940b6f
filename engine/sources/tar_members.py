"""Tar members: what a member of an archive says, as an entry of a manifest.

Names are made harmless: a leading "/" and "." components go, as tar itself does it; a name with ".." has no place below the
archive and is refused. Owners, times and modes that no manifest can hold are refused too, never bent: who restores must
be able to rely on what stands there. This module reads no stream; engine/sources/tar_stream.py does.
"""

import tarfile
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from repo_store.content import Content
from repo_store.entry import Entry, EntryKind, Path
from repo_store.entry_rules import why_no_entry
from repo_store.tree_node import why_no_path

_KINDS: Final = {
    tarfile.DIRTYPE: EntryKind.DIRECTORY,
    b"D": EntryKind.DIRECTORY,  # GNU's incremental archives: its data is a list of names
    tarfile.SYMTYPE: EntryKind.SYMLINK,
    tarfile.FIFOTYPE: EntryKind.FIFO,
    tarfile.CHRTYPE: EntryKind.CHARACTER_DEVICE,
    tarfile.BLKTYPE: EntryKind.BLOCK_DEVICE,
}
_DEVICES = (EntryKind.CHARACTER_DEVICE, EntryKind.BLOCK_DEVICE)
LABEL_TYPE: Final = b"V"
"""The volume's name: no file."""

_XATTR = "SCHILY.xattr."
ACL_PREFIX: Final = "SCHILY.acl."
"""POSIX ACLs as text, which no manifest holds."""

_NS = 1_000_000_000


class Unfit(Exception):
    """A member that no manifest can hold; the text says why."""


def raw(text: str) -> bytes:
    """Return the bytes that a header held, which tarfile gives as text."""
    return text.encode("utf-8", "surrogateescape")


def member_path(root: bytes, name: str) -> Path:
    """Return where a member goes below the archive's own name. Raises Unfit."""
    path = (root, *(part for part in raw(name).split(b"/") if part not in (b"", b".")))
    if b".." in path[1:]:
        raise Unfit("its name leads out of the archive")
    if (why := why_no_path(path)) is not None:
        raise Unfit(f"it has {why}")
    return path


def member_kind(member: tarfile.TarInfo) -> EntryKind:
    """Return what the member is; a hard link is not asked for. Raises Unfit for a type that is not known."""
    kind = EntryKind.FILE if member.isreg() else _KINDS.get(member.type)
    if kind is None:
        raise Unfit(f"a member of the type {member.type!r} is not known to this version")
    return kind


def member_entry(
    member: tarfile.TarInfo, path: Path, kind: EntryKind, content: Content = None, size: int = 0
) -> Entry:
    """Return the entry of a member that is no hard link, with what was stored of its bytes. Raises Unfit."""
    entry = Entry(
        path[-1],
        int(kind),
        member.mode & 0o7777,
        member.uid,
        member.gid,
        _mtime_ns(member),
        0,
        0,
        size,
        content,
        _extra(member, kind) or None,
    )
    if (why := why_no_entry(list(entry))) is not None:
        raise Unfit(why)
    return entry


def _extra(member: tarfile.TarInfo, kind: EntryKind) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if kind in _DEVICES:
        extra["rdev"] = [member.devmajor, member.devminor]
    if kind == EntryKind.SYMLINK:
        extra["target"] = raw(member.linkname)
    xattrs = {
        raw(key.removeprefix(_XATTR)): raw(value)
        for key, value in member.pax_headers.items()
        if key.startswith(_XATTR)
    }
    if xattrs:
        extra["xattrs"] = xattrs
    return extra


def _mtime_ns(member: tarfile.TarInfo) -> int:
    """Return the time in full: tarfile makes a float of it, which has no place for nanoseconds."""
    try:
        return int(Decimal(member.pax_headers.get("mtime", str(member.mtime))) * _NS)
    except (InvalidOperation, ValueError, OverflowError):
        raise Unfit("its modification time is none") from None


class MemberOwners:
    """The names of owners that members carry, so that a restore elsewhere finds them by name."""

    NAMES_MAX = 10_000

    def __init__(self) -> None:
        self._users: dict[int, bytes] = {}
        self._groups: dict[int, bytes] = {}

    def add(self, member: tarfile.TarInfo) -> None:
        """Take down the names of one member."""
        for names, number, name in (
            (self._users, member.uid, member.uname),
            (self._groups, member.gid, member.gname),
        ):
            if name and (len(names) < self.NAMES_MAX or number in names):
                names[number] = raw(name)

    def as_detail(self) -> dict[str, list[tuple[int, bytes]]]:
        """Return them as a manifest keeps them."""
        return {"users": sorted(self._users.items()), "groups": sorted(self._groups.items())}

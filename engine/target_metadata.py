"""Target metadata: giving a restored file its owner, extended attributes, mode and time, in that order.

The order is the law of this module: changing the owner clears set-id bits and file capabilities, so it comes
first; extended attributes need write permission, so they come before the mode; every other change touches
the time, so it comes last. Set-id bits are given only to a file whose owner and group are the right ones: a
program that was set-uid root must not become set-uid to whoever restores it.

What a whole tree meets for one reason (not root, a file system without extended attributes) is counted and
reported once, at the end, with the first path it met.
"""

import errno
import os
from dataclasses import dataclass, field
from threading import Lock

from engine.problems import OnProblem, Problem, ProblemKind, printable, reason
from engine.sources.owners import OwnerNames, local_gid, local_uid
from repo_store.entry import Entry, EntryKind, Path

KEEP = -1
"""As user or group id: leave it as it is."""

_SET_ID = 0o6000
_DIRECTORY, _SYMLINK = int(EntryKind.DIRECTORY), int(EntryKind.SYMLINK)
_INHERITED = (b"system.posix_acl_access", b"system.posix_acl_default")
_ROOT_ONLY = ("security.", "trusted.")
_OF_THE_SYSTEM = b"security."
_UNUSABLE = (ValueError, OverflowError, TypeError)
"""What Python says to an id, time or name that no file system can have given: the manifest is damaged."""


@dataclass
class _Refusal:
    """One reason why something could not be set, with the first path and the number of paths it met."""

    path: Path
    kind: ProblemKind
    paths: int = 0


@dataclass(frozen=True, slots=True)
class _Owner:
    """Whom a restored file will belong to; `exact` if that is whom the snapshot says."""

    uid: int
    gid: int
    exact: bool


@dataclass
class MetadataWriter:
    """Applies the metadata of entries; used from any thread."""

    owner_names: OwnerNames
    on_problem: OnProblem
    numeric_ids: bool = False
    xattrs: bool = True
    _owners: dict[tuple[int, int], _Owner] = field(default_factory=dict)
    _refused: set[tuple[int, int]] = field(default_factory=set)
    _refusals: dict[str, _Refusal] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def apply(self, fd: int, path: Path, entry: Entry) -> None:
        """Give the open file or directory its metadata. Problems are reported, never raised."""
        try:
            owner = self._owner(entry)
            if owner.uid != KEEP or owner.gid != KEEP:
                try:
                    os.fchown(fd, owner.uid, owner.gid)
                except OSError as error:
                    owner = self._owner_refused(entry, path, error)
            if entry.extra is not None:
                self._set_xattrs(fd, path, entry)
            os.fchmod(fd, _mode(entry, owner))
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        except OSError as error:
            self.on_problem(Problem(path, f"metadata cannot be set: {reason(error)}"))
        except _UNUSABLE as error:
            self._unusable(path, error)

    def plain(self, entry: Entry) -> tuple[int, int, int] | None:
        """Return owner, group and mode of a file if that and its mtime is all it needs; None if `apply` must see it."""
        ids = (entry.uid, entry.gid)
        owner = self._owners.get(ids)
        if (
            owner is None
            or not owner.exact
            or ids in self._refused
            or (entry.extra is not None and "xattrs" in entry.extra)
        ):
            return None
        return owner.uid, owner.gid, _mode(entry, owner)

    def apply_by_name(self, directory_fd: int, path: Path, entry: Entry) -> None:
        """The same for what cannot be opened: symbolic links, fifos, devices. Links are never followed."""
        name = path[-1]
        try:
            owner = self._owner(entry)
            if owner.uid != KEEP or owner.gid != KEEP:
                try:
                    os.chown(name, owner.uid, owner.gid, dir_fd=directory_fd, follow_symlinks=False)
                except OSError as error:
                    owner = self._owner_refused(entry, path, error)
            if entry.extra is not None:
                self._set_xattrs(b"/proc/self/fd/%d/%b" % (directory_fd, name), path, entry)
            if entry.kind != _SYMLINK:
                _change_mode(directory_fd, name, _mode(entry, owner))
            os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=directory_fd, follow_symlinks=False)
        except OSError as error:
            self.on_problem(Problem(path, f"metadata cannot be set: {reason(error)}"))
        except _UNUSABLE as error:
            self._unusable(path, error)

    def fits(self, where: int | bytes, found: os.stat_result, entry: Entry) -> bool:
        """Say whether a file already has the metadata that `apply` would give it. `where`: a descriptor or path."""
        owner = self._owner(entry)
        same = (
            owner.uid in (KEEP, found.st_uid)
            and owner.gid in (KEEP, found.st_gid)
            and found.st_mtime_ns == entry.mtime_ns
            and (entry.kind == _SYMLINK or found.st_mode & 0o7777 == _mode(entry, owner))
        )
        return same and (not self.xattrs or _xattrs_of(where, entry) == _wanted_xattrs(entry))

    def correct(self, fd: int, path: Path, entry: Entry) -> None:
        """As `apply`, for what had metadata before: attributes that the snapshot has not got are taken away."""
        try:
            for name in _xattrs_of(fd, entry).keys() - _wanted_xattrs(entry).keys() if self.xattrs else ():
                os.removexattr(fd, name)
        except OSError as error:
            self.on_problem(Problem(path, f"metadata cannot be set: {reason(error)}"))
        self.apply(fd, path, entry)

    def report(self) -> None:
        """Report what was counted; called once, at the end."""
        for message, refusal in self._refusals.items():
            count = f"{refusal.paths} entries" if refusal.paths > 1 else "one entry"
            self.on_problem(Problem(refusal.path, f"{message} ({count})", refusal.kind))
        self._refusals.clear()

    def _unusable(self, path: Path, error: Exception) -> None:
        message = f"metadata is impossible: {reason(error)}"
        self.on_problem(Problem(path, message, ProblemKind.DAMAGED))

    def _owner(self, entry: Entry) -> _Owner:
        ids = (entry.uid, entry.gid)
        owner = self._owners.get(ids)
        if owner is None:
            owner = self._owners[ids] = self._plan_owner(entry)
        if not owner.exact:
            self._count("owner and group are kept as they are: not root", (), ProblemKind.NOTE)
        return owner

    def _plan_owner(self, entry: Entry) -> _Owner:
        """Decide by name first, as ids differ from host to host, then by id."""
        uid, gid = entry.uid, entry.gid
        if not self.numeric_ids:
            user, group = self.owner_names.users.get(uid), self.owner_names.groups.get(gid)
            local_user = None if user is None else local_uid(user)
            local_group = None if group is None else local_gid(group)
            uid = uid if local_user is None else local_user
            gid = gid if local_group is None else local_group
        if os.geteuid() == 0:
            return _Owner(uid, gid, True)
        # Without privilege a file can be given to a group of one's own, and to no other user.
        mine, ours = uid == os.geteuid(), gid == os.getegid() or gid in os.getgroups()
        return _Owner(KEEP, gid if ours else KEEP, mine and ours)

    def _owner_refused(self, entry: Entry, path: Path, error: OSError) -> _Owner:
        self._refused.add((entry.uid, entry.gid))
        if os.geteuid() == 0:  # a user namespace, or a file server that trusts nobody
            self._count(f"owner cannot be set: {reason(error)}", path, ProblemKind.INCOMPLETE)
        else:
            self._count("owner and group are kept as they are: not root", (), ProblemKind.NOTE)
        return _Owner(KEEP, KEEP, False)

    def _set_xattrs(self, where: int | bytes, path: Path, entry: Entry) -> None:
        xattrs = entry.extra.get("xattrs") if entry.extra is not None and self.xattrs else None
        for name, value in (xattrs or {}).items():
            try:
                os.setxattr(where, name, value, follow_symlinks=isinstance(where, int))
            except OSError as error:
                shown = printable(name)
                unprivileged = (
                    error.errno == errno.EPERM and os.geteuid() != 0 and shown.startswith(_ROOT_ONLY)
                )
                kind = ProblemKind.NOTE if unprivileged else ProblemKind.INCOMPLETE
                self._count(f"extended attribute {shown} cannot be set: {reason(error)}", path, kind)

    def _count(self, message: str, path: Path, kind: ProblemKind) -> None:
        with self._lock:
            self._refusals.setdefault(message, _Refusal(path, kind)).paths += 1


def _wanted_xattrs(entry: Entry) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = (entry.extra or {}).get("xattrs") or {}
    return found


def _xattrs_of(where: int | bytes, entry: Entry) -> dict[bytes, bytes]:
    """Return the attributes of a file, without labels that this system gives of itself and no snapshot asked for."""
    found: dict[bytes, bytes] = {}
    follow = isinstance(where, int)
    try:
        for text in os.listxattr(where, follow_symlinks=follow):
            name = os.fsencode(text)
            if not name.startswith(_OF_THE_SYSTEM) or name in _wanted_xattrs(entry):
                found[name] = os.getxattr(where, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.ENODATA):
            raise
    return found


def _mode(entry: Entry, owner: _Owner) -> int:
    mode = entry.mode & 0o7777
    return mode if owner.exact or entry.kind == _DIRECTORY else mode & ~_SET_ID


def _change_mode(directory_fd: int, name: bytes, mode: int) -> None:
    # There is no fchmodat that does not follow links; a descriptor that only names the file cannot be swapped.
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory_fd)
    try:
        os.chmod(b"/proc/self/fd/%d" % fd, mode)
    finally:
        os.close(fd)


def has_default_acl(directory_fd: int) -> bool:
    """Say whether what is created in the directory inherits access rules from it."""
    try:
        return "system.posix_acl_default" in os.listxattr(directory_fd)
    except OSError:
        return False


def clear_inherited_acl(where: int | bytes) -> None:
    """Take away the access rules that a new file or directory got from its parent: the snapshot has its own."""
    for name in _INHERITED:
        try:
            os.removexattr(where, name, follow_symlinks=isinstance(where, int))
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EACCES, errno.EOPNOTSUPP):
                raise

"""Owners: the names behind user and group ids, looked up once for each id."""

import grp
import os
import pwd
from collections.abc import Iterable
from typing import NamedTuple


class OwnerNames(NamedTuple):
    """The names of users and groups by id, as raw bytes; ids without a name are not in it."""

    users: dict[int, bytes]
    groups: dict[int, bytes]


def owner_names(uids: Iterable[int], gids: Iterable[int]) -> OwnerNames:
    """Return the names that this host has for the ids."""
    users: dict[int, bytes] = {}
    groups: dict[int, bytes] = {}
    for uid in sorted(uids):
        try:
            users[uid] = os.fsencode(pwd.getpwuid(uid).pw_name)
        except KeyError:
            continue
    for gid in sorted(gids):
        try:
            groups[gid] = os.fsencode(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    return OwnerNames(users, groups)


def local_uid(name: bytes) -> int | None:
    """Return the id that the user of this name has on this host, if there is one."""
    try:
        return pwd.getpwnam(os.fsdecode(name)).pw_uid
    except (KeyError, ValueError):
        return None


def local_gid(name: bytes) -> int | None:
    """Return the id that the group of this name has on this host, if there is one."""
    try:
        return grp.getgrnam(os.fsdecode(name)).gr_gid
    except (KeyError, ValueError):
        return None

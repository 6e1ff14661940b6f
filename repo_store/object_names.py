"""Object names: one grammar for every storage.

    name = part ("/" part)*        part = one or more of a-z 0-9 . - _, not starting with "."

Storages check names on the way in, whoever made them: a name may come from a damaged or hostile
object, and on a local disk it becomes a path. What the grammar admits can neither climb out of the
repository ("..", "/etc") nor meet a hidden file (".tmp"). This module touches no storage.
"""

import re

from repo_store.errors import Refused

PART_BYTES_MAX = 255  # the longest file name of every common file system
NAME_BYTES_MAX = 512  # S3 keys end at 1024 bytes, the bucket prefix included

_PART = rf"[a-z0-9_-][a-z0-9._-]{{0,{PART_BYTES_MAX - 1}}}"
_NAME = re.compile(rf"(?:{_PART}/)*{_PART}", re.ASCII)
_PREFIX = re.compile(rf"(?:{_PART}/)*(?:{_PART})?", re.ASCII)
_SHOWN_MAX = 80


def is_name(name: str) -> bool:
    """Return whether an object may be called `name`."""
    return len(name) <= NAME_BYTES_MAX and _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return `name`. Raises Refused if no object may be called so."""
    if not is_name(name):
        raise Refused(f"{name[:_SHOWN_MAX]!r}: not a name that an object can have")
    return name


def check_prefix(prefix: str) -> str:
    """Return `prefix`, the start of names or "". Raises Refused if no name can start with it."""
    if len(prefix) > NAME_BYTES_MAX or _PREFIX.fullmatch(prefix) is None:
        raise Refused(f"{prefix[:_SHOWN_MAX]!r}: not a prefix that an object's name can have")
    return prefix

"""The newest config that this client saw of a repository: a small local file that makes a rollback visible.

    holdfast-seen-1 <number> <digest, 64 hex> <check, 8 hex>

One file per repository and location, as a copy elsewhere may rightly be behind. It is a help and no authority:
missing or unreadable, it is made anew; but what it says cannot be undone by whoever controls the storage.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from repo_store.os_errors import reason

_FORMAT = 1
_FILE_BYTES_MAX = 4096
_LINE = re.compile(rb"(holdfast-seen-1 (\d{1,18}) ([0-9a-f]{64})) ([0-9a-f]{8})\n")


class LastSeen(NamedTuple):
    """The highest number of a config, and H of that object."""

    number: int
    digest: bytes


def last_seen_path(state_dir: str | os.PathLike[str], repository: bytes, location: str) -> str:
    """Return where the file of a repository at a location lies."""
    place = blake3(location.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return os.path.join(state_dir, f"{repository.hex()}-{place}.seen")


def recall(path: str) -> LastSeen | None:
    """Return what was remembered, or None if that cannot be told."""
    try:
        with open(path, "rb") as file:
            match = _LINE.fullmatch(file.read(_FILE_BYTES_MAX))
    except OSError:
        return None
    if match is None or _check(match[1]) != match[4]:
        return None
    return LastSeen(int(match[2]), bytes.fromhex(match[3].decode()))


def remember(path: str, seen: LastSeen) -> str | None:
    """Remember `seen`; return None, or why that was not possible.

    No sync: after a power cut an older state, or none, is as good as before. Two runs at once may leave the lower
    of their numbers, which the next run mends.
    """
    line = f"holdfast-seen-{_FORMAT} {seen.number} {seen.digest.hex()}".encode()
    temporary = f"{path}.{os.getpid()}.new"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(line + b" " + _check(line) + b"\n")
        Path(temporary).replace(path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        return f"{path}: cannot remember the newest config, so a rollback would go unnoticed: {reason(error)}"
    return None


def _check(line: bytes) -> bytes:
    return blake3(line).hexdigest()[:8].encode()

"""Tar archives for tests, made in memory: any header, any order, and what no tar program writes."""

import io
import tarfile
from collections.abc import Callable, Sequence
from typing import Any

Member = tuple[str, dict[str, Any], bytes]
"""Name, fields of its header, data."""


def member(name: str, data: bytes = b"", **fields: Any) -> Member:
    """Return a member; `type` is a letter of tarfile, by default that of a file."""
    return name, fields, data


def archive(members: Sequence[Member], format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return an archive of these members, in this order."""
    buffer = io.BytesIO()
    with tarfile.TarFile(fileobj=buffer, mode="w", format=format, encoding="utf-8") as tar:
        for name, fields, data in members:
            info = tarfile.TarInfo(name)
            info.mtime = 1_700_000_000
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def reading(data: bytes, piece: int = 1 << 20) -> Callable[[memoryview], int]:
    """Return what reads `data` in pieces of at most `piece` bytes, as a pipe gives them."""
    stream = io.BytesIO(data)
    return lambda view: stream.readinto(view[: min(piece, len(view))])


def with_checksum(header: bytes) -> bytes:
    """Return a header of 512 bytes with the checksum that belongs to it."""
    total = sum(header[:148]) + 8 * 0x20 + sum(header[156:512])
    return header[:148] + b"%06o\0 " % total + header[156:]

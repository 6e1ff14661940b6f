"""Body: the bytes of an upload as the pieces they came in, sent without being joined.

A pack is one buffer of 32 MiB and a few small ones after it; joined, it would be in memory twice. What boto sends is
a file-like object that hands out views of the pieces. It can be rewound, as signing reads it before sending does.

This module touches no storage.
"""

import base64
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from repo_store.rate_limit import RateLimit
from repo_store.storage import Buffer


class Body:
    """Immutable bytes, in pieces."""

    def __init__(self, data: Buffer | Sequence[Buffer]) -> None:
        parts = [data] if isinstance(data, bytes | bytearray | memoryview) else data
        views = (memoryview(part).cast("B") for part in parts if memoryview(part).nbytes)
        self._pieces: list[memoryview] = list(views)
        self._starts = list(accumulate((len(piece) for piece in self._pieces), initial=0))

    @property
    def size(self) -> int:
        """How many bytes."""
        return self._starts[-1]

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """Yield views of the bytes from `start` to `end`."""
        end = self.size if end is None else min(end, self.size)
        index = bisect_right(self._starts, start) - 1
        while start < end:
            piece, offset = self._pieces[index], start - self._starts[index]
            view = piece[offset : offset + end - start]
            yield view
            start += len(view)
            index += 1

    def part(self, start: int, end: int) -> "Body":
        """Return the bytes from `start` to `end`, not copied."""
        return Body(list(self.pieces(start, end)))

    def has_at(self, start: int, data: bytes) -> bool:
        """Return whether the bytes from `start` are `data`."""
        end = start + len(data)
        if end > self.size:
            return False
        found = memoryview(data)
        for piece in self.pieces(start, end):
            if found[: len(piece)] != piece:
                return False
            found = found[len(piece) :]
        return True

    def crc32(self) -> str:
        """Return the CRC-32 as S3 writes it: the server refuses an upload that a line has changed."""
        checksum = 0
        for piece in self._pieces:
            checksum = zlib.crc32(piece, checksum)
        return base64.b64encode(checksum.to_bytes(4, "big")).decode()


class BodyReader:
    """A body as the open file that boto wants. For one request at a time."""

    def __init__(self, body: Body, limit: RateLimit) -> None:
        self._body = body
        self._limit = limit
        self._at = 0
        self._is_sending = False

    @property
    def size(self) -> int:
        """How many bytes there are to send."""
        return self._body.size

    def start_sending(self) -> None:
        """From here on reads are slowed down to the limit. Before, boto only reads to sign."""
        self._is_sending = True

    def read(self, count: int = -1) -> bytes | memoryview:
        """Return the next bytes: at most `count`, fewer where a piece ends, none only at the end."""
        whole = count is None or count < 0
        end = self._body.size if whole else self._at + count
        if whole:
            data: bytes | memoryview = b"".join(self._body.pieces(self._at, end))
        else:
            if self._is_sending and self._limit.piece_bytes is not None:
                end = min(end, self._at + self._limit.piece_bytes)
            data = next(self._body.pieces(self._at, end), b"")
        if self._is_sending:
            self._limit.take(len(data))
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move as a file does; sending begins anew."""
        self._is_sending = False
        base = {0: 0, 1: self._at, 2: self._body.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

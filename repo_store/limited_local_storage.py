"""LimitedLocalStorage: a directory on a disk, or at the other end of a line, that others need as well.

A put waits until its bytes may pass and then writes them at once, a get waits after it has read: over a few objects
the rate is kept, within one it is not. The limits of S3 are finer (s3_body.py), as there a line is what is shared.
"""

import os
from collections.abc import Sequence

from repo_store.local_storage import LocalStorage
from repo_store.rate_limit import RateLimit
from repo_store.storage import Buffer


class LimitedLocalStorage(LocalStorage):
    """A LocalStorage that keeps to limits, shared by all threads that use it."""

    def __init__(self, path: str | os.PathLike[str], *, upload: RateLimit, download: RateLimit) -> None:
        """Open the directory `path`. Raises NoRepository if there is none."""
        super().__init__(path)
        self._upload, self._download = upload, download

    def put(self, name: str, data: Buffer | Sequence[Buffer]) -> None:
        """Create an object; see Storage.put."""
        parts = [data] if isinstance(data, bytes | bytearray | memoryview) else data
        self._upload.take(sum(memoryview(part).nbytes for part in parts))
        super().put(name, data)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of an object; see Storage.get."""
        data = super().get(name, offset, length)
        self._download.take(len(data))
        return data

    def replace(self, name: str, data: Buffer) -> None:
        """Put `data` in place of a damaged object; see Storage.replace."""
        self._upload.take(memoryview(data).nbytes)
        super().replace(name, data)
